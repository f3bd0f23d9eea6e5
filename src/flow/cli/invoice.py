"""`tallyflow invoice`: what a customer owes for a period, and where it comes from."""

from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console

from ..config import load_config
from ..prices.book import load_price_book
from ..statements.estimate import make_estimate
from ..statements.invoice import make_invoice, parse_levels, parse_period
from ..statements.render import as_csv, as_json, print_table
from ..store import check_schema, connect
from .options import ConfigOption, FormatOrCsv, FormatOrCsvOption


class Rounding(StrEnum):
    HALF_EVEN = "half-even"
    HALF_UP = "half-up"


def invoice(
    customer: Annotated[str, typer.Argument(help="Whose invoice.")],
    period: Annotated[str, typer.Option(help="A month like 2026-11, or a day like 2026-11-03; UTC.")],
    config: ConfigOption,
    by: Annotated[
        str,
        typer.Option(
            help="Levels of the drill-down: feature, project, model, region, service_tier, meter, day, hour, "
            "minute. The first makes the invoice lines; '' gives the total alone."
        ),
    ] = "feature",
    format_: FormatOrCsvOption = FormatOrCsv.TABLE,
    rounding: Annotated[Rounding, typer.Option(help="How a line's halves are rounded.")] = Rounding.HALF_EVEN,
) -> None:
    """A customer's period from its total down: each level adds up to the one above, exactly.

    Of a period that is open it also tells how complete it is, and what may still come.
    """
    asked_period, levels = parse_period(period), parse_levels(by)
    settings = load_config(config)
    with connect(settings.store, readonly=True) as client:
        check_schema(client)
        found = make_invoice(client, customer, asked_period, levels, rounding.value)
        estimate = make_estimate(
            client,
            customer,
            asked_period,
            settings.dedup.horizon_us,
            lambda: load_price_book(settings.prices, settings.limits.quantity_max),
        )
    if format_ is FormatOrCsv.JSON:
        typer.echo(as_json(found, estimate))
    elif format_ is FormatOrCsv.CSV:
        typer.echo(as_csv(found, estimate), nl=False)
    else:
        print_table(found, Console(), estimate)
