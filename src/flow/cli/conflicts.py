"""`tallyflow conflicts`: events that repeat a source and id, and say something else than the one that was counted."""

import csv
import io
import json
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import Config, load_config
from ..errors import ConfigError
from ..prices.values import instant_text
from ..quarantine.conflicts import Conflict, SourceReport, by_source, fields_came, fields_counted
from ..quarantine.conflicts import conflicts as find_conflicts
from ..statements.render import printable
from ..store import StoreClient, check_schema, connect
from ..store.queries.conflicting import Filter
from .options import ConfigOption, Format, FormatOption, FormatOrCsv, FormatOrCsvOption, instants_us

FIELDS_SHOWN = 5

conflicts = typer.Typer(help="Events that contradict one that was counted.", no_args_is_help=True)


@conflicts.callback()
def _conflicts() -> None:
    pass


class By(StrEnum):
    EVENT = "event"
    SOURCE = "source"


@conflicts.command("list")
def list_(
    config: ConfigOption,
    by: Annotated[By, typer.Option(help="One by one, or a report by source.")] = By.EVENT,
    source: Annotated[str | None, typer.Option(help="Of this source only.")] = None,
    at: Annotated[str, typer.Option("--at", help="Their source position begins so.")] = "",
    from_: Annotated[str | None, typer.Option("--from", help="Seen from this instant on.")] = None,
    to: Annotated[str | None, typer.Option("--to", help="Seen before this instant.")] = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="At most so many, the latest.")] = None,
    format_: FormatOrCsvOption = FormatOrCsv.TABLE,
) -> None:
    """Conflicting events, the latest first, with the fields in which they differ from what was counted."""
    problems: list[str] = []
    asked = Filter(source, at, None, *instants_us({"--from": from_, "--to": to}, problems))
    if problems:
        raise ConfigError(problems)
    settings = load_config(config)
    if settings.ledger is None:
        typer.echo("No ledger is kept (`ledger:` in the config), so what was counted is not known.", err=True)
    with connect(settings.store, readonly=True) as client:
        check_schema(client)
        if by is By.SOURCE:
            _tell_sources(by_source(client, settings, asked, limit or 100_000), format_)
        else:
            _tell_events(find_conflicts(client, settings, asked, limit or 50), format_)


def _cell(value: object) -> Text:
    return Text(printable(f"{value:,}" if isinstance(value, int) else str(value)))


# ---- One by one ---------------------------------------------------------------------------------------------------


def _tell_events(found: list[Conflict], format_: FormatOrCsv) -> None:
    if format_ is FormatOrCsv.JSON:
        typer.echo(json.dumps([_plain(conflict) for conflict in found], ensure_ascii=False, indent=2))
    elif format_ is FormatOrCsv.CSV:
        rows = (
            {
                **{name: value for name, value in _plain(conflict).items() if not isinstance(value, dict | list)},
                "counted_position": conflict.counted.source_position if conflict.counted is not None else "",
                "differs": " ".join(difference.field for difference in conflict.differences),
            }
            for conflict in found
        )
        _print_csv(["seen_at", "source_position", "source", "id", "counted_position", "differs"], rows)
    elif not found:
        typer.echo("No conflicting event is like that.")
    else:
        _print_events(found, Console())


def _print_csv(columns: list[str], rows: Any) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    typer.echo(out.getvalue(), nl=False)


def _plain(conflict: Conflict) -> dict[str, Any]:
    """Quantities as strings: JSON readers would not hold them exactly."""
    event, counted = conflict.event, conflict.counted
    plain: dict[str, Any] = {
        "seen_at": instant_text(event.seen_at_us),
        "source_position": event.source_position,
        "source": event.source,
        "id": event.id,
        "came": _quoted(fields_came(event)),
        "counted": None,
        "differs": [
            {"field": d.field, "counted": _quoted_one(d.counted), "came": _quoted_one(d.came)}
            for d in conflict.differences
        ],
    }
    if counted is not None:
        plain["counted"] = {"source_position": counted.source_position, **_quoted(fields_counted(counted))}
    return plain


def _quoted(fields: dict[str, str | int]) -> dict[str, str]:
    return {name: str(value) for name, value in fields.items()}


def _quoted_one(value: str | int | None) -> str | None:
    return None if value is None else str(value)


def _print_events(found: list[Conflict], console: Console) -> None:
    table = Table(title="conflicting events; what was counted stays as it was", title_justify="left")
    for name in ("seen", "source", "id", "source position", "field", "counted", "came"):
        table.add_column(name, overflow="fold")
    for conflict in found:
        event = conflict.event
        head = [_cell(text) for text in (instant_text(event.seen_at_us), event.source, event.id, event.source_position)]
        if conflict.counted is None:
            table.add_row(*head, Text("?"), Text("not in the ledger"), Text(""))
        for number, difference in enumerate(conflict.differences):
            values = (Text("-") if value is None else _cell(value) for value in (difference.counted, difference.came))
            table.add_row(*(head if number == 0 else [Text("")] * 4), _cell(difference.field), *values)
    console.print(table)


# ---- By source ----------------------------------------------------------------------------------------------------


def _tell_sources(found: list[SourceReport], format_: FormatOrCsv) -> None:
    rows = [
        {
            "source": report.conflicts.source,
            "events": report.conflicts.events,
            "identities": report.conflicts.identities,
            "first_seen": f"{report.conflicts.first_seen:%Y-%m-%dT%H:%M:%S.%fZ}",
            "last_seen": f"{report.conflicts.last_seen:%Y-%m-%dT%H:%M:%S.%fZ}",
            "compared": report.compared,
            "differs": dict(report.fields.most_common()),
        }
        for report in found
    ]
    if format_ is FormatOrCsv.JSON:
        typer.echo(json.dumps(rows, ensure_ascii=False, indent=2))
    elif format_ is FormatOrCsv.CSV:
        texts = ({**row, "differs": json.dumps(row["differs"], ensure_ascii=False)} for row in rows)
        _print_csv(["source", "events", "identities", "first_seen", "last_seen", "compared", "differs"], texts)
    elif not rows:
        typer.echo("No conflicting event is like that.")
    else:
        _print_sources(found, Console())


def _print_sources(found: list[SourceReport], console: Console) -> None:
    table = Table(title="conflicting events by source", title_justify="left")
    table.add_column("source", overflow="fold")
    for name in ("events", "of identities"):
        table.add_column(name, justify="right")
    for name in ("first seen", "last seen"):
        table.add_column(name)
    table.add_column("compared", justify="right")
    table.add_column("fields that differ most", overflow="fold")
    for report in found:
        counts = report.conflicts
        seen = (f"{time:%Y-%m-%d %H:%M}" for time in (counts.first_seen, counts.last_seen))
        fields = ", ".join(f"{name} {count:,}" for name, count in report.fields.most_common(FIELDS_SHOWN))
        numbers = (f"{counts.events:,}", f"{counts.identities:,}")
        table.add_row(_cell(counts.source), *numbers, *seen, f"{report.compared:,}", _cell(fields))
    console.print(table)


# ---- One ----------------------------------------------------------------------------------------------------------


@conflicts.command()
def show(
    position: Annotated[str, typer.Argument(help="The source position of the event.")],
    config: ConfigOption,
    format_: FormatOption = Format.TABLE,
) -> None:
    """One conflicting event beside the one that was counted, field by field."""
    settings = load_config(config)
    with connect(settings.store, readonly=True) as client:
        check_schema(client)
        conflict = _the_one(client, settings, position)
    if format_ is Format.JSON:
        typer.echo(json.dumps(_plain(conflict), ensure_ascii=False, indent=2))
        return
    event, counted = conflict.event, conflict.counted
    console = Console()
    console.print(_cell(f"{event.source} {event.id}, seen {instant_text(event.seen_at_us)}"), soft_wrap=True)
    console.print(_cell(f"came from {event.source_position}"), soft_wrap=True)
    if counted is None:
        why = "no ledger is kept" if settings.ledger is None else "the ledger does not have it"
        console.print(_cell(f"what was counted is not known: {why}"), soft_wrap=True)
    else:
        console.print(_cell(f"counted once, as it came from {counted.source_position}"), soft_wrap=True)
    before = fields_counted(counted) if counted is not None else {}
    came = fields_came(event)
    differ = {difference.field for difference in conflict.differences}
    table = Table()
    for name in ("", "field", "counted", "came"):
        table.add_column(name, overflow="fold")
    for name in dict.fromkeys([*before, *came]):
        values = (Text("-") if name not in fields else _cell(fields[name]) for fields in (before, came))
        table.add_row(Text("!" if name in differ else ""), _cell(name), *values)
    console.print(table)


def _the_one(client: StoreClient, config: Config, position: str) -> Conflict:
    found = find_conflicts(client, config, Filter(position=position), 1)
    if not found:
        raise ConfigError(f"{position}: no conflicting event has this source position; `conflicts list` shows them")
    return found[0]
