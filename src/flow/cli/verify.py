"""`tallyflow verify`: does the store say what the ledger says?"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..errors import BalanceError
from ..statements.invoice import parse_period
from ..statements.render import printable
from ..verify import Report, Scope
from ..verify import verify as verify_config
from .options import ConfigOption, Format
from .progress import counting

SHOWN_MAX = 20
JSON_MAX = 10_000


def verify(
    config: ConfigOption,
    customer: Annotated[str | None, typer.Option(help="Compare this customer only.")] = None,
    period: Annotated[
        str | None, typer.Option(help="Compare the windows that this month (2026-11) or day (2026-11-03) touches; UTC.")
    ] = None,
    format_: Annotated[Format, typer.Option("--format", help="How to print what differs.")] = Format.TABLE,
) -> None:
    """Recompute every rollup from the ledger with the slow oracle, and compare; exit code 3 if anything differs."""
    asked = parse_period(period) if period is not None else None
    scope = Scope(customer, asked.start_s, asked.end_s) if asked is not None else Scope(customer)
    begun = time.monotonic()
    report = _with_progress(config, scope, SHOWN_MAX if format_ is Format.TABLE else JSON_MAX)
    if format_ is Format.JSON:
        rows = [json.dumps(asdict(difference), ensure_ascii=False) for difference in report.differences]
        typer.echo("[" + ",\n ".join(rows) + "]")
    elif report.differences:
        _print(report, Console())
    compared = f"{report.events:,} events of the ledger, {report.rows:,} rows of the views"
    if report.difference_count:
        left_out = report.difference_count - len(report.differences)
        more = f" (the first {len(report.differences):,} are shown)" if left_out else ""
        raise BalanceError(
            f"verify: {report.difference_count:,} differences{more} between {compared}; was the store or the ledger "
            "changed by hand, or the price file since the run?"
        )
    typer.echo(f"verified: {compared} agree, in {time.monotonic() - begun:.1f} s", err=True)


def _with_progress(config: Path, scope: Scope, differences_max: int) -> Report:
    with counting("verifying", "events") as counter:
        return verify_config(load_config(config), scope, differences_max, counter.set)


def _print(report: Report, console: Console) -> None:
    table = Table(title="what differs", title_justify="left")
    for name in ("where", "window start", "dimensions", "meter", "column", "by the ledger", "in the store"):
        table.add_column(name, overflow="fold")
    for difference in report.differences:
        dimensions = ", ".join(f"{name} {value}" for name, value in difference.dimensions.items() if value)
        cells = (
            difference.where,
            difference.window_start,
            dimensions,
            difference.meter,
            difference.column,
            difference.ledger,
            difference.store,
        )
        table.add_row(*(Text(printable(cell)) for cell in cells))
    console.print(table)
