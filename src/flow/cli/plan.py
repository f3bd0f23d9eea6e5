"""`tallyflow plan rate`: what a plan charges for usage, tier by tier."""

import json
import re
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import ConfigError
from ..plans.lines import FEMTO
from ..plans.plan import Plan
from ..plans.rating import Rating, Use, rate_periods
from ..plans.reading import load_plan
from ..rounding import FEMTO_DIGITS, decimal_text, minor_digits
from .options import Format, FormatOption

plan = typer.Typer(help="Plans: what a contract makes of usage.", no_args_is_help=True)

_NUMBER = re.compile(r"-?[0-9][0-9_]{0,60}(\.[0-9]{1,60})?")


@plan.callback()
def _plan() -> None:
    pass


@plan.command()
def rate(
    path: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan (docs/plans.md).")],
    quantity: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METER=]N[,N...]",
            help="The usage of each period, in turn. Once a meter; a plan of one meter needs no name.",
        ),
    ] = None,
    events: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[METER=]N[,N...]",
            help="The amount of each event of the one period, where a percentage needs them.",
        ),
    ] = None,
    ended: Annotated[bool, typer.Option(help="Whether the last period is over, so that minimums are due.")] = True,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What a plan charges for usage: lines, tier by tier, that add up to the amount exactly."""
    found = load_plan(path)
    periods = _periods(found, quantity or [], events or [])
    ratings = rate_periods(found, periods, ended=ended)
    if format_ is Format.JSON:
        typer.echo(json.dumps(_document(found, ratings), indent=2))
    else:
        _print_table(found, ratings, Console())


def _periods(found: Plan, quantities: Sequence[str], events: Sequence[str]) -> list[dict[str, Use]]:
    """The usage of each period. Raises ConfigError with everything that is wrong with the options."""
    errors: list[str] = []
    by_meter: dict[str, list[Use]] = {}
    for option, texts in (("--quantity", quantities), ("--events", events)):
        for text in texts:
            named, _, values = text.rpartition("=")
            meter = named or found.charges[0].meter
            wrong = [value for value in values.split(",") if not _NUMBER.fullmatch(value.strip())]
            if wrong:
                errors.append(f"{option} {text}: {wrong[0]!r} is not a number; write 9_900_000, one for each period")
            elif not named and len(found.charges) > 1:
                errors.append(f"{option} {text}: of which meter? {found.name} has {_meters(found)}")
            elif meter in by_meter:
                errors.append(f"{option} {text}: {meter} is given twice")
            else:
                numbers = [Fraction(value.strip().replace("_", "")) for value in values.split(",")]
                by_meter[meter] = [tuple(numbers)] if option == "--events" else list(numbers)
    lengths = {len(uses) for uses in by_meter.values()}
    if not errors and len(lengths) != 1:
        errors.append(
            f"the meters have {' and '.join(map(str, sorted(lengths)))} periods; give each meter the same number"
            if lengths
            else f"--quantity: give the usage of {_meters(found)}"
        )
    if errors:
        raise ConfigError(errors)
    return [{meter: uses[n] for meter, uses in by_meter.items()} for n in range(lengths.pop())]


def _meters(found: Plan) -> str:
    return ", ".join(charge.meter for charge in found.charges)


def _document(found: Plan, ratings: Sequence[Rating]) -> dict[str, Any]:
    """Numbers are strings: JSON readers would not hold them exactly. One without an end is a fraction, as 1/3."""
    cents = minor_digits(found.currency)
    return {
        "plan": found.name,
        "currency": found.currency,
        "accumulate": found.accumulate,
        "amount": _amount(sum(rating.amount_femto for rating in ratings), cents),
        "periods": [
            {
                "period": number,
                "amount": _amount(rating.amount_femto, cents),
                "remainder": _amount(rating.remainder_femto),
                "billed": {meter: _number(quantity) for meter, quantity in rating.billed.items()},
                "lines": [
                    {
                        "meter": each.meter,
                        "kind": each.kind,
                        "tier": each.tier or None,
                        "quantity": _number(each.quantity),
                        "price": _amount(each.price_femto),
                        "discount": _amount(each.discount_femto, cents),
                        "amount": _amount(each.amount_femto, cents),
                    }
                    for each in rating.lines
                ],
            }
            for number, rating in enumerate(ratings, 1)
        ],
    }


def _print_table(found: Plan, ratings: Sequence[Rating], console: Console) -> None:
    cents = minor_digits(found.currency)
    how = {"contract": "tiers run through the contract", "period": "tiers start again with each period"}
    console.print(Text(f"{found.name}  {found.currency}  {how[found.accumulate]}", style="bold"))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("period", "meter", "for"):
        table.add_column(name, overflow="fold")
    for name in ("tier", "quantity", "price", "discount"):
        table.add_column(name, justify="right", overflow="fold")
    table.add_column(found.currency, justify="right", style="bold", overflow="fold")
    for number, rating in enumerate(ratings, 1):
        for each in rating.lines:
            table.add_row(
                str(number),
                each.meter,
                each.kind,
                str(each.tier or ""),
                _number(each.quantity, grouped=True),
                _amount(each.price_femto),
                _amount(each.discount_femto, cents) if each.discount_femto else "",
                _amount(each.amount_femto, cents),
            )
        total = Text("total", style="bold")
        table.add_row(str(number), total, "", "", "", "", "", _amount(rating.amount_femto, cents), end_section=True)
    console.print(table)
    if len(ratings) > 1:
        amount_femto = sum(rating.amount_femto for rating in ratings)
        console.print(Text(f"{_amount(amount_femto, cents)} {found.currency} in all", style="bold"))


def _amount(femto: Fraction | int, digits_min: int = 0) -> str:
    """An amount in currency units: a decimal where it ends within what amounts can hold, else a fraction."""
    if femto.denominator > 1:
        return str(Fraction(femto, FEMTO))
    whole, _, digits = decimal_text(int(femto), FEMTO_DIGITS, trim=True).partition(".")
    digits = digits.ljust(digits_min, "0")
    return f"{whole}.{digits}" if digits else whole


def _number(quantity: Fraction, *, grouped: bool = False) -> str:
    """A quantity: a decimal where it has an end, else a fraction."""
    if quantity.denominator == 1:
        return f"{int(quantity):,}" if grouped else str(quantity)
    digits = next((n for n in range(1, FEMTO_DIGITS + 1) if 10**n % quantity.denominator == 0), None)
    return str(quantity) if digits is None else decimal_text(int(quantity * 10**digits), digits, trim=True)
