"""`tallyflow late`: events older than the horizon, and whether they were billed before."""

import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..amending.billed_before import BilledBefore, billed_before
from ..amending.effect import Effect, added_up
from ..amending.resolving import BILLED, CONFLICTING, DUPLICATE, Asked, Outcome
from ..amending.resolving import resolve as resolve_config
from ..config import load_config
from ..errors import ConfigError, RefusedStart
from ..prices.values import instant_text
from ..rounding import FEMTO_DIGITS, exact_text
from ..state.directory import StateDirectory
from ..statements.render import printable
from ..store import check_schema, connect
from ..store.queries.late import STATES, Filter, LateEvent, late_events
from .correct import MINUTE_S, plain_effect, print_effects
from .options import ConfigOption, Format, FormatOption, instants_us
from .progress import counting

SHOWN_MAX = 50
WAITING = "waiting"
HOUR_US = 3_600_000_000
Odds: TypeAlias = Mapping[tuple[str, str], BilledBefore]

late = typer.Typer(help="Late events: what they are, and whether they were billed before.", no_args_is_help=True)


@late.callback()
def _late() -> None:
    pass


SourceOption = Annotated[list[str] | None, typer.Option("--source", help="Of this source; may be repeated.")]
CustomerOption = Annotated[list[str] | None, typer.Option("--customer", help="Of this customer; may be repeated.")]
FromOption = Annotated[str | None, typer.Option("--from", help="With event times from this instant on.")]
ToOption = Annotated[str | None, typer.Option("--to", help="With event times before this instant.")]
StateOption = Annotated[list[str] | None, typer.Option("--state", help=f"One of {', '.join(STATES)}.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many events.")]


def _filter(
    source: list[str] | None, customer: list[str] | None, from_: str | None, to: str | None, state: list[str] | None
) -> Filter:
    """Raises ConfigError with all that is wrong."""
    problems = [f"--state: {name!r} is none of {', '.join(STATES)}" for name in state or [] if name not in STATES]
    start_us, end_us = instants_us({"--from": from_, "--to": to}, problems)
    if problems:
        raise ConfigError(problems)
    return Filter(tuple(source or ()), tuple(customer or ()), start_us, end_us, states=tuple(state or ()))


# ---- list ---------------------------------------------------------------------------------------------------------


@late.command("list")
def list_(
    config: ConfigOption,
    source: SourceOption = None,
    customer: CustomerOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    state: StateOption = None,
    limit: LimitOption = 1000,
    odds: Annotated[
        bool, typer.Option("--odds", help="Also what filters of past generations say: were they billed before?")
    ] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Late events, how late they were, and what was decided of them."""
    asked = _filter(source, customer, from_, to, state)
    loaded = load_config(config)
    with connect(loaded.store, readonly=True) as client:
        check_schema(client)
        found = late_events(client, asked, limit)
    told = _odds(loaded.state_dir, found) if odds else {}
    if format_ is Format.JSON:
        typer.echo(json.dumps([_plain(event, told) for event in found], ensure_ascii=False, indent=2))
    elif found:
        _print_list(found, told, Console())
    else:
        typer.echo("No event was late." if asked == Filter() else "No late event is like that.")


def _odds(state_dir: Path, found: list[LateEvent]) -> Odds:
    """Raises RefusedStart, StateError."""
    directory = StateDirectory(state_dir)
    lineage = directory.existing_lineage()
    if lineage is None:
        raise RefusedStart(f"{state_dir}: no run has begun there, so there are no filters to ask")
    with counting("asking the filters", "shards", lineage.shards) as counter:
        waiting = ((event.source, event.id) for event in found if event.state == WAITING)
        return billed_before(directory, lineage, waiting, counter.add)


def _told(event: LateEvent, odds: Odds) -> BilledBefore | None:
    return odds.get((event.source, event.id)) if event.state == WAITING else None


def _plain(event: LateEvent, odds: Odds) -> dict[str, Any]:
    told = _told(event, odds)
    return {
        "seen_at": instant_text(event.seen_at_us),
        "source_position": event.source_position,
        "source": event.source,
        "id": event.id,
        "time": instant_text(event.event_time_us),
        "hours_behind_watermark": _hours(event),
        "event": json.loads(event.payload),
        "state": event.state,
        "counted": json.loads(event.counted) if event.counted else None,
        "author": event.author,
        "reason": event.reason,
        "file": event.file,
    } | ({} if told is None else {"billed_before": told.before, "mistaken_per_million": told.mistaken_per_million})


def _hours(event: LateEvent) -> int:
    """Whole hours that its time was behind the watermark."""
    return (event.watermark_us - event.event_time_us) // HOUR_US


def _print_list(found: list[LateEvent], odds: Odds, console: Console) -> None:
    table = Table(title="late events", title_justify="left")
    for name in ("time", "source", "id", "customer"):
        table.add_column(name, overflow="fold")
    table.add_column("hours late", justify="right")
    table.add_column("state")
    if odds:
        table.add_column("billed before")
    for event in found[:SHOWN_MAX]:
        cells = (event.source, event.id, json.loads(event.payload)["customer"])
        shown = (Text(printable(text)) for text in cells)
        told = _told(event, odds)
        before = [] if told is None else [told.before.value]
        table.add_row(instant_text(event.event_time_us), *shown, f"{_hours(event):,}", event.state, *before)
    console.print(table)
    if odds:
        most = max(told.mistaken_per_million for told in odds.values())
        console.print(f"Of a million events that were never billed, at most {most:,} are told to be likely.")
    if len(found) > SHOWN_MAX:
        console.print(f"The first {SHOWN_MAX} of {len(found):,} events; --format json has all.")


# ---- resolve ------------------------------------------------------------------------------------------------------


@late.command()
def resolve(
    config: ConfigOption,
    author: Annotated[str, typer.Option(help="Who decides.")] = "",
    reason: Annotated[str, typer.Option(help="Why, or a link to it.")] = "",
    source: SourceOption = None,
    customer: CustomerOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    force_bill: Annotated[bool, typer.Option("--force-bill", help="Without a ledger: bill them.")] = False,
    force_duplicate: Annotated[
        bool, typer.Option("--force-duplicate", help="Without a ledger: they were billed before.")
    ] = False,
    limit: LimitOption = 100_000,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would be billed, and change nothing.")] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Look waiting events up in the ledger: bill those that were never counted, in their own windows, each once.

    Without a ledger, bill those that no filter of a past generation has: they were certainly never counted.
    """
    if force_bill and force_duplicate:
        raise ConfigError("--force-bill, --force-duplicate: give one of them")
    forced = BILLED if force_bill else DUPLICATE if force_duplicate else None
    asked = Asked(_filter(source, customer, from_, to, None), limit, author, reason, forced)
    outcome = resolve_config(load_config(config), asked, time.time_ns() // 1000, dry=dry)
    if format_ is Format.JSON:
        typer.echo(json.dumps(_plain_outcome(outcome), ensure_ascii=False, indent=2))
    else:
        _print(outcome, dry, Console())


def _plain_outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "currency": outcome.currency,
        "events": [
            {
                "source": one.event.source,
                "id": one.event.id,
                "source_position": one.event.source_position,
                "decision": one.decision,
                "event": json.loads(one.event.payload),
                "counted": json.loads(one.counted) if one.counted else None,
            }
            for one in outcome.decided
        ],
        "changes": [plain_effect(effect) for effect in added_up(outcome.changes, MINUTE_S)],
        "left": outcome.left,
        "limited": outcome.limited,
        "files": outcome.files,
    }


def _print(outcome: Outcome, dry: bool, console: Console) -> None:
    effects = added_up(outcome.changes, MINUTE_S)
    if effects:
        print_effects(effects, f"what is billed, in {outcome.currency}", SHOWN_MAX, console)
    for one in outcome.decided:
        if one.decision == CONFLICTING:
            came = one.event.payload.decode()
            said = f"{one.event.source} {one.event.id}: came as {came}, was counted as {one.counted}"
            console.print(Text(printable(said)), soft_wrap=True)
    counts = Counter(one.decision for one in outcome.decided)
    if outcome.left:
        left = f"{outcome.left:,} may have been billed before, and there is no ledger to look them up in: they wait. "
        left += "`late list --odds` shows them; find out, and say --force-bill or --force-duplicate."
        console.print(left, soft_wrap=True)
    if counts:
        console.print(_told_of(outcome, counts, effects, dry), soft_wrap=True)
    elif not outcome.left:
        console.print("No late event waits.")
    if outcome.limited:
        limited = f"{outcome.left + len(outcome.decided):,} were looked at, as many as --limit allows: "
        limited += "a higher one, or --source, --customer, --from and --to, choose those behind them."
        console.print(limited, soft_wrap=True)


def _told_of(outcome: Outcome, counts: Counter[str], effects: Sequence[Effect], dry: bool) -> str:
    amount = exact_text(sum(effect.amount_femto for effect in effects), FEMTO_DIGITS)
    verb = "would be" if dry else "are"
    told = f"{counts[BILLED]:,} {verb} billed: {amount} {outcome.currency}"
    told += f"; {counts[DUPLICATE]:,} {verb} duplicates of what was billed; {counts[CONFLICTING]:,} conflicting."
    if outcome.files:
        told += f" The next run, or the one that is on, counts {', '.join(outcome.files)} of the inbox."
    return told
