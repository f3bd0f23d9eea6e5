"""`tallyflow unpriced`: usage that no price was in force for, and that is therefore in no amount."""

import json
from itertools import groupby
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..statements.invoice import parse_period
from ..statements.render import printable
from ..store import check_schema, connect
from ..store.queries.unpriced_usage import Unpriced, unpriced_usage
from .options import ConfigOption, Format, FormatOption

SHOWN_MAX = 100
TIME_END_S = 2**32 - 1


def unpriced(
    config: ConfigOption,
    period: Annotated[str | None, typer.Option(help="A month like 2026-11, or a day; UTC. Default: all.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer only.")] = None,
    model: Annotated[str | None, typer.Option(help="Of this model only.")] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Usage without a price, by model, customer and meter; `tallyflow rerate` bills it once the price is known."""
    asked = parse_period(period) if period is not None else None
    start_s, end_s = (asked.start_s, asked.end_s) if asked is not None else (0, TIME_END_S)
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        found = unpriced_usage(client, start_s, end_s, customer, model)
    if format_ is Format.JSON:
        typer.echo(json.dumps([_plain(row) for row in found], ensure_ascii=False, indent=2))
    elif found:
        _print(found, Console())
    else:
        typer.echo("Everything has a price.")


def _plain(row: Unpriced) -> dict[str, str]:
    """Quantities as strings: JSON readers would not hold them exactly."""
    return {
        "model": row.model,
        "customer": row.customer,
        "meter": row.meter,
        "unpriced_quantity": str(row.quantity),
        "first_window": f"{row.first_window:%Y-%m-%dT%H:%M:%SZ}",
        "last_window": f"{row.last_window:%Y-%m-%dT%H:%M:%SZ}",
    }


def _print(found: list[Unpriced], console: Console) -> None:
    table = Table(title="usage without a price", title_justify="left")
    for name in ("model", "customer", "meter"):
        table.add_column(name, overflow="fold")
    table.add_column("quantity", justify="right", overflow="fold")
    for name in ("first window", "last window"):
        table.add_column(name)
    for _, rows in groupby(found[:SHOWN_MAX], key=lambda row: row.model):
        for row in rows:
            cells = (Text(printable(text)) for text in (row.model, row.customer, row.meter))
            times = (f"{time:%Y-%m-%d %H:%M}" for time in (row.first_window, row.last_window))
            table.add_row(*cells, f"{row.quantity:,}", *times)
        table.add_section()
    console.print(table)
    if len(found) > SHOWN_MAX:
        console.print(f"The first {SHOWN_MAX} of {len(found):,} rows; --format json has all.")
