"""`tallyflow rerate`: usage that was billed by one price book, by another."""

import json
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import Config, load_config
from ..errors import ConfigError
from ..prices.values import instant_text
from ..rerate.asked import Scope
from ..rerate.rerating import Asked, Outcome, Source, dry_run, resume
from ..rerate.rerating import rerate as rerate_config
from ..rounding import FEMTO_DIGITS, exact_text, readable_text
from ..statements.render import printable
from .options import ConfigOption, Format, FormatOption, instant_us
from .progress import counting

SHOWN_MAX = 50

Given = TypeVar("Given")


class Window(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    MONTH = "month"


def rerate(
    config: ConfigOption,
    from_: Annotated[str | None, typer.Option("--from", help="The first event time, an instant.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Where event times end, an instant; not included.")] = None,
    prices: Annotated[Path | None, typer.Option(help="The price book to re-rate by.")] = None,
    customer: Annotated[str | None, typer.Option(help="Re-rate this customer only.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what would change, and change nothing.")] = False,
    source: Annotated[Source, typer.Option(help="Where usage is read; auto: the rollups, if the book allows it.")] = (
        Source.AUTO
    ),
    author: Annotated[str, typer.Option(help="Who changes it; default: the author of the book's version.")] = "",
    reason: Annotated[str, typer.Option(help="Why, or a link to it; default: that of the book's version.")] = "",
    window: Annotated[Window, typer.Option(help="The windows by which differences are shown.")] = Window.DAY,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Threads that read the ledger.")] = 2,
    format_: FormatOption = Format.TABLE,
    resume_: Annotated[
        bool, typer.Option("--resume", help="Only publish what a re-rating that was cut short has left.")
    ] = False,
) -> None:
    """Rate usage anew by another price book, and put the difference into the store, once."""
    settings = load_config(config)
    if resume_:
        left = resume(settings)
        typer.echo(f"{left.name} is in the store now." if left is not None else "Nothing was left.", err=True)
        return
    asked = Asked(
        Scope(instant_us(_given(from_, "--from"), "--from"), instant_us(_given(to, "--to"), "--to"), customer),
        _given(prices, "--prices"),
        author,
        reason,
        source,
        window.value,
    )
    outcome = _with_progress(settings, asked, dry, workers)
    if format_ is Format.JSON:
        typer.echo(_as_json(outcome))
    else:
        _print(outcome, dry, Console())


def _given(value: Given | None, option: str) -> Given:
    if value is None:
        raise ConfigError(f"{option}: is missing")
    return value


def _with_progress(config: Config, asked: Asked, dry: bool, workers: int) -> Outcome:
    with counting("re-rating", "rows") as counter:
        return (dry_run if dry else rerate_config)(config, asked, workers, counter.add)


def _as_json(outcome: Outcome) -> str:
    """One object; quantities and amounts are strings: JSON readers would not hold them exactly."""
    return json.dumps(
        {
            "id": outcome.rerate.name if outcome.rerate is not None else None,
            "source": outcome.source.value,
            "currency": outcome.currency,
            "book_before": outcome.books_before,
            "book_after": outcome.book_after,
            "rated": outcome.rows,
            "unsealed_files": outcome.unsealed_files,
            "corrections": outcome.corrections,
            "amount": exact_text(outcome.amount_femto, FEMTO_DIGITS),
            "differences": [
                {
                    "customer": row.customer,
                    "window_start": instant_text(row.window_start_s * 1_000_000),
                    "meter": row.meter,
                    "amount": exact_text(row.amount_femto, FEMTO_DIGITS),
                    "unpriced_quantity": str(row.unpriced_quantity),
                }
                for row in outcome.differences
            ],
        },
        ensure_ascii=False,
        indent=2,
    )


def _print(outcome: Outcome, dry: bool, console: Console) -> None:
    if outcome.why:
        typer.echo(f"From the ledger: {outcome.why}.", err=True)
    if outcome.unsealed_files:
        typer.echo(f"{outcome.unsealed_files} files of the ledger are not sealed yet; they are not in this.", err=True)
    if outcome.differences:
        table = Table(title=f"what changes, in {outcome.currency}", title_justify="left")
        for name in ("customer", "window", "meter"):
            table.add_column(name, overflow="fold")
        for name in ("amount", "unpriced quantity"):
            table.add_column(name, justify="right", overflow="fold")
        for row in outcome.differences[:SHOWN_MAX]:
            start = f"{datetime.fromtimestamp(row.window_start_s, UTC):%Y-%m-%d %H:%M}"
            cells = (Text(printable(text)) for text in (row.customer, start, row.meter))
            table.add_row(*cells, readable_text(row.amount_femto, FEMTO_DIGITS), f"{row.unpriced_quantity:,}")
        console.print(table)
        if len(outcome.differences) > SHOWN_MAX:
            console.print(f"The first {SHOWN_MAX} of {len(outcome.differences):,} rows; --format json has all.")
    amount = f"{readable_text(outcome.amount_femto, FEMTO_DIGITS)} {outcome.currency}"
    if not outcome.differences:
        done = "Nothing differs"
    elif dry or outcome.rerate is None:
        done = f"It would change {amount}; nothing was changed"
    else:
        done = f"{outcome.rerate.name} has changed {amount}"
    read = "events of the ledger" if outcome.source is Source.LEDGER else "rows of the rollups"
    console.print(Text(f"{done}: {outcome.rows:,} {read}, {outcome.corrections:,} corrections."))
