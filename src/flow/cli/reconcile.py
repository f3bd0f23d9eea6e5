"""`tallyflow reconcile`: does a second source say what the store says?"""

import json
import sys
import time
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config, parse_threshold
from ..errors import BalanceError
from ..reconcile.asked import Scope
from ..reconcile.html import as_html
from ..reconcile.naming import EventDifference
from ..reconcile.reconciling import Asked
from ..reconcile.reconciling import reconcile as reconcile_config
from ..reconcile.report import Reconciliation, as_json
from ..reconcile.variance import percent
from ..statements.invoice import parse_period
from ..statements.render import printable
from .options import ConfigOption

SHOWN_MAX = 20
"""Rows of each table; the other formats have more."""


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    HTML = "html"


def reconcile(
    config: ConfigOption,
    against: Annotated[
        list[str],
        typer.Option(
            help="Event files of a gateway or a provider's usage report (globs; repeat it), another pipeline's config, "
            "or a store's URL."
        ),
    ],
    customer: Annotated[str | None, typer.Option(help="Compare this customer only.")] = None,
    period: Annotated[str | None, typer.Option(help="A month like 2026-11, or a day; UTC. Default: all.")] = None,
    threshold: Annotated[
        str, typer.Option(help="How far quantities may be apart, by meter, of each customer and in total.")
    ] = "0.01%",
    events: Annotated[bool, typer.Option(help="Name the events that differ, or stop at the minute.")] = True,
    mapping: Annotated[
        Path | None, typer.Option(help="Of a provider's report: YAML that says what it counts, and its names.")
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Of a provider's report: the models here that it knows of (globs).")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to print what differs.")] = Format.TABLE,
) -> None:
    """Hold the store against a second source of the same usage; exit code 3 beyond the threshold."""
    asked_period = parse_period(period) if period is not None else None
    customers = (customer,) if customer is not None else None
    scope = Scope(customers=customers)
    if asked_period is not None:
        scope = Scope(asked_period.start_s, asked_period.end_s, customers)
    asked = Asked(tuple(against), parse_threshold(threshold), scope, events, mapping, tuple(model or ()))
    begun = time.monotonic()
    found = _with_status(config, asked)
    if format_ is Format.JSON:
        typer.echo(json.dumps(as_json(found), ensure_ascii=False, indent=1))
    elif format_ is Format.HTML:
        typer.echo(as_html(found))
    else:
        _print(found, Console())
    if not found.passes:
        raise BalanceError(f"reconcile: {found.verdict()}")
    typer.echo(f"reconciled: {found.verdict()}, in {time.monotonic() - begun:.1f} s", err=True)


def _with_status(config: Path, asked: Asked) -> Reconciliation:
    console = Console(stderr=True)
    with console.status("reconciling") as status:
        show = status.update if sys.stderr.isatty() else lambda step: None
        return reconcile_config(
            load_config(config), asked, time.time_ns() // 1000, lambda step: show(f"reconciling: {step}")
        )


# ---- The tables ---------------------------------------------------------------------------------------------------


def _print(found: Reconciliation, console: Console) -> None:
    console.print(f"{printable(found.here)} against {printable(found.there)}", markup=False, highlight=False)
    console.print(_compared(found))
    if found.variances:
        console.print(_variances(found))
    if found.events:
        rows = [
            (one.kind.replace("_", " "), f"{one.source} {one.id}", one.customer, f"{one.time[:19]}Z", _fields(one))
            for one in found.events
        ]
        console.print(_table("events that differ", ["how", "source, id", "customer", "time", "here, there"], rows))
    elif found.minutes:
        minutes = [(one.customer, one.window_start, one.events_here, one.events_there) for one in found.minutes]
        names = ["customer", "minute", "events here", "events there"]
        console.print(_table("minutes that differ", names, minutes, right=2))
    if found.usage:
        console.print(_usage(found))
    for note in found.notes:
        console.print(f"- {printable(note)}", markup=False, highlight=False)


def _compared(found: Reconciliation) -> Table:
    table = Table()
    table.add_column("by customer and" if found.kind != "report" else "by model and")
    for name in ("compared", "differ"):
        table.add_column(name, justify="right")
    for level in found.levels:
        table.add_row(level.grain, f"{level.compared:,}", f"{level.differing:,}")
    table.add_section()
    table.add_row("events here", f"{found.events_here:,}", "")
    table.add_row("events there", f"{found.events_there:,}", "")
    return table


def _usage(found: Reconciliation) -> Table:
    names = ["bucket", "customer", "model", "meter", "here", "there", "difference"]
    rows = [
        (
            one.window_start,
            one.customer or "all",
            one.model or "all",
            one.meter,
            f"{one.here:,}",
            f"{one.there:,}",
            f"{one.here - one.there:+,}",
        )
        for one in found.usage
    ]
    return _table("buckets that differ", names, rows, right=3)


def _variances(found: Reconciliation) -> Table:
    of = "customer, model" if found.kind == "report" else "customer"
    names = [of, "meter", "here", "there", "difference", "variance"]
    rows = [
        (
            one.customer if one.customer is not None else one.model if one.model is not None else "all",
            one.meter,
            f"{one.here:,}",
            f"{one.there:,}",
            f"{one.here - one.there:+,}",
            Text(percent(one.ratio), "bold red" if one.beyond(found.threshold) else ""),
        )
        for one in found.variances
    ]
    return _table(f"quantities; the threshold is {percent(found.threshold)}", names, rows, right=4)


def _table(title: str, names: list[str], rows: Sequence[tuple[object, ...]], right: int = 0) -> Table:
    """The first rows; the last `right` columns are numbers."""
    left_out = len(rows) - SHOWN_MAX
    caption = f"{left_out:,} more: --format json has them" if left_out > 0 else None
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    for n, name in enumerate(names):
        table.add_column(name, overflow="fold", justify="right" if n >= len(names) - right else "left")
    for row in rows[:SHOWN_MAX]:
        table.add_row(*(cell if isinstance(cell, Text) else Text(printable(str(cell))) for cell in row))
    return table


def _fields(one: EventDifference) -> str:
    said: Iterable[str] = (f"{name}: {here or '-'}, {there or '-'}" for name, (here, there) in one.fields.items())
    return "; ".join([*said, *([one.note] if one.note else [])])
