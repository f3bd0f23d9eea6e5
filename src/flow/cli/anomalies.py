"""`tallyflow anomalies`: what was found out of line, and what people say about it."""

import json
from dataclasses import asdict
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..anomalies.found import Kind
from ..config import load_config
from ..errors import ConfigError
from ..statements.invoice import parse_period
from ..statements.render import printable
from ..store import check_schema, connect
from ..store.queries.anomalies import Anomaly, Said, anomaly, history, say
from ..store.queries.anomalies import anomalies as found_anomalies
from .options import ConfigOption, Format, FormatOption

SHOWN_MAX = 100
TIME_END_S = 2**32 - 1

anomalies = typer.Typer(help="Usage that is out of line: list it, and say what became of it.", no_args_is_help=True)


@anomalies.callback()
def _anomalies() -> None:
    pass


class Status(StrEnum):
    OPEN = "open"
    ACKNOWLEDGED = "acknowledged"
    CLOSED = "closed"
    ALL = "all"


IdArgument = Annotated[str, typer.Argument(help="As `list` shows it.")]
AuthorOption = Annotated[str, typer.Option(help="Who says so.")]
NoteOption = Annotated[str, typer.Option(help="What is known about it, or a link to it.")]


@anomalies.command("list")
def list_(
    config: ConfigOption,
    status: Annotated[Status, typer.Option(help="Only these.")] = Status.OPEN,
    kind: Annotated[Kind | None, typer.Option(help="Of this kind only.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer only.")] = None,
    period: Annotated[str | None, typer.Option(help="A month like 2026-11, or a day; UTC. Default: all.")] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """The latest first; open ones, unless told otherwise."""
    asked = parse_period(period) if period is not None else None
    start_s, end_s = (asked.start_s, asked.end_s) if asked is not None else (0, TIME_END_S)
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        wanted = None if status is Status.ALL else str(status)
        found = found_anomalies(client, start_s, end_s, wanted, str(kind) if kind is not None else None, customer)
    if format_ is Format.JSON:
        typer.echo(json.dumps([_plain(row) for row in found], ensure_ascii=False, indent=2))
    elif found:
        _print(found, Console())
    else:
        typer.echo("There is none.")


@anomalies.command()
def show(id_: IdArgument, config: ConfigOption, format_: FormatOption = Format.TABLE) -> None:
    """One anomaly, and what was said about it."""
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        found = anomaly(client, id_)
        said = history(client, id_)
    if found is None:
        raise _unknown(id_)
    if format_ is Format.JSON:
        whole = {**_plain(found), "history": [_plain(each) for each in said]}
        typer.echo(json.dumps(whole, ensure_ascii=False, indent=2))
        return
    table = Table(show_header=False, box=None)
    for name, value in asdict(found).items():
        if name not in ("author", "note", "changed_at") and value != "":
            table.add_row(name.replace("_", " "), Text(printable(_text(value))))
    for each in said:
        told = f"{each.status} by {each.author}" + f": {each.note}" * bool(each.note)
        table.add_row(f"{each.changed_at:%Y-%m-%d %H:%M}", Text(printable(told)))
    Console().print(table)


@anomalies.command()
def ack(id_: IdArgument, config: ConfigOption, author: AuthorOption, note: NoteOption = "") -> None:
    """Somebody looks after it."""
    _say(id_, config, Status.ACKNOWLEDGED, author, note)


@anomalies.command()
def close(id_: IdArgument, config: ConfigOption, author: AuthorOption, note: NoteOption) -> None:
    """It is dealt with, or was none; the note says which."""
    _say(id_, config, Status.CLOSED, author, note)


def _say(id_: str, config: Path, status: Status, author: str, note: str) -> None:
    if not author.strip():
        raise ConfigError("--author: is empty; say who says so")
    with connect(load_config(config).store) as client:
        check_schema(client)
        client.use_database()
        found = anomaly(client, id_)
        if found is None:
            raise _unknown(id_)
        say(client, found, str(status), author, note)
    typer.echo(f"{id_} is {status}.", err=True)


def _unknown(id_: str) -> ConfigError:
    return ConfigError(f"{id_}: there is no anomaly of this id; `tallyflow anomalies list --status all` shows all")


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    return str(value)


def _plain(row: Anomaly | Said) -> dict[str, Any]:
    """Decimals as strings: JSON readers would not hold them exactly."""
    return {name: value if isinstance(value, int) else _text(value) for name, value in asdict(row).items()}


def _print(found: list[Anomaly], console: Console) -> None:
    table = Table()
    table.add_column("id", no_wrap=True)
    for name in ("hour", "kind", "who"):
        table.add_column(name, overflow="fold")
    for name in ("seen", "expected", "bounds"):
        table.add_column(name, justify="right", overflow="fold")
    for name in ("unit", "status"):
        table.add_column(name)
    for row in found[:SHOWN_MAX]:
        who = " / ".join(printable(name) for name in (row.customer, row.project, row.model, row.source) if name)
        numbers = (_short(row.seen), _short(row.expected), f"{_short(row.low)} to {_short(row.high)}")
        hour = f"{row.window_start:%Y-%m-%d %H:%M}"
        table.add_row(row.id, hour, row.kind, Text(who or "all"), *numbers, row.unit, row.status)
    console.print(table)
    if len(found) > SHOWN_MAX:
        console.print(f"The first {SHOWN_MAX} of {len(found):,} rows; --format json has all.")


def _short(number: Decimal) -> str:
    """Four digits that count."""
    return f"{number:,.4g}" if abs(number) < 1000 else f"{number:,.0f}"
