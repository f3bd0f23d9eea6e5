"""`tallyflow correct`: usage that was counted wrongly put right by one more event."""

import json
import time
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..amending.correcting import Asked, EventNamed, Outcome, WindowNamed
from ..amending.correcting import correct as correct_config
from ..amending.effect import Effect, added_up
from ..config import load_config
from ..errors import ConfigError
from ..prices.values import instant_text, parse_instant_us
from ..rounding import FEMTO_DIGITS, exact_text
from ..statements.render import printable
from .options import ConfigOption, Format, FormatOption

MINUTE_S = 60


class Grain(StrEnum):
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


def correct(
    config: ConfigOption,
    event: Annotated[tuple[str, str] | None, typer.Option(help="The source and the id of an accepted event.")] = None,
    window: Annotated[str | None, typer.Option(help="Where a window of a customer's usage begins.")] = None,
    grain: Annotated[Grain, typer.Option(help="The length of that window.")] = Grain.MINUTE,
    customer: Annotated[str, typer.Option(help="Of the window.")] = "",
    project: Annotated[str, typer.Option(help="Of the window.")] = "",
    feature: Annotated[str, typer.Option(help="Of the window.")] = "",
    model: Annotated[str, typer.Option(help="Of the window.")] = "",
    region: Annotated[str, typer.Option(help="Of the window.")] = "",
    service_tier: Annotated[str, typer.Option(help="Of the window.")] = "",
    to: Annotated[list[str] | None, typer.Option(help="METER=N: what it should have said.")] = None,
    by: Annotated[list[str] | None, typer.Option(help="METER=N: what is added, or METER=-N taken away.")] = None,
    void: Annotated[bool, typer.Option("--void", help="It never happened.")] = False,
    author: Annotated[str, typer.Option(help="Who changes it.")] = "",
    reason: Annotated[str, typer.Option(help="Why, or a link to it.")] = "",
    dry: Annotated[bool, typer.Option("--dry-run", help="Tell what it would change, and change nothing.")] = False,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Correct an event, or a window, by one more event; the next run, or the one that is on, counts it."""
    dimensions = {
        "customer": customer,
        "project": project,
        "feature": feature,
        "model": model,
        "region": region,
        "service_tier": service_tier,
    }
    asked = Asked(
        _named(event, window, grain, dimensions), _quantities("--to", to), _quantities("--by", by), void, author, reason
    )
    outcome = correct_config(load_config(config), asked, time.time_ns() // 1000, dry=dry)
    _warn(outcome)
    if format_ is Format.JSON:
        typer.echo(json.dumps(_plain(outcome), ensure_ascii=False, indent=2))
    else:
        _print(outcome, Console())


def _named(
    event: tuple[str, str] | None, window: str | None, grain: Grain, dimensions: dict[str, str]
) -> EventNamed | WindowNamed:
    if (event is None) == (window is None):
        raise ConfigError("correct: name what is corrected: --event SOURCE ID, or --window START --customer NAME")
    if event is not None:
        if given := [name for name, value in dimensions.items() if value]:
            raise ConfigError(f"--{given[0].replace('_', '-')}: the dimensions of an event are those that it has")
        return EventNamed(*event)
    if not dimensions["customer"]:
        raise ConfigError("--customer: is missing")
    try:
        return WindowNamed(parse_instant_us(window or ""), grain.value, dimensions)
    except ValueError as error:
        raise ConfigError(f"--window: {window!r} {error}") from None


def _quantities(option: str, given: list[str] | None) -> dict[str, int]:
    found: dict[str, int] = {}
    for text in given or []:
        meter, equals, quantity = text.partition("=")
        digits = quantity.removeprefix("-") if option == "--by" else quantity
        if not (meter and equals and digits.isascii() and digits.isdigit()) or meter in found:
            raise ConfigError(f"{option}: {text!r} is not METER=N, or names a meter again")
        found[meter] = int(quantity)
    return found


def plain_effect(effect: Effect) -> dict[str, str]:
    """Numbers as strings: JSON readers would not hold them exactly."""
    return {
        "customer": effect.customer,
        "window_start": instant_text(effect.window_start_s * 1_000_000),
        "meter": effect.meter,
        "quantity": str(effect.quantity),
        "unpriced_quantity": str(effect.unpriced_quantity),
        "amount": exact_text(effect.amount_femto, FEMTO_DIGITS),
    }


def print_effects(effects: list[Effect], title: str, shown_max: int, console: Console) -> None:
    """As a table."""
    table = Table(title=title, title_justify="left")
    for name in ("customer", "window", "meter"):
        table.add_column(name, overflow="fold")
    for name in ("quantity", "unpriced quantity", "amount"):
        table.add_column(name, justify="right", overflow="fold")
    for effect in effects[:shown_max]:
        row = plain_effect(effect)
        table.add_row(Text(printable(row["customer"])), row["window_start"], *list(row.values())[2:])
    console.print(table)
    if len(effects) > shown_max:
        console.print(f"The first {shown_max} of {len(effects):,} rows; --format json has all.")


def _plain(outcome: Outcome) -> dict[str, Any]:
    return {
        "correction": outcome.event,
        "currency": outcome.currency,
        "changes": [plain_effect(effect) for effect in added_up(outcome.changes, MINUTE_S)],
        "file": outcome.file,
        "there_before": outcome.there_before,
        "below_zero": [
            {"meter": one.meter, "has": str(one.has), "would_have": str(one.would_have)} for one in outcome.below_zero
        ]
        if not outcome.not_looked_up
        else None,
    }


def _warn(outcome: Outcome) -> None:
    for one in outcome.below_zero:
        typer.echo(
            f"correct: the window has {one.has} {one.meter} of these dimensions and would have {one.would_have}; are "
            "they, and the window, the right ones?",
            err=True,
        )
    if outcome.not_looked_up:
        typer.echo(f"correct: not looked up whether the window goes below 0: {outcome.not_looked_up}", err=True)


def _print(outcome: Outcome, console: Console) -> None:
    effects = added_up(outcome.changes, MINUTE_S)
    print_effects(effects, f"what it changes, in {outcome.currency}", 100, console)
    if outcome.there_before:
        said = f"The same was asked for before: it is {outcome.file} in the inbox, and counts once."
    elif outcome.file is None:
        said = "Nothing was changed."
    else:
        said = f"It is {outcome.file} in the inbox; the next run, or the one that is on, counts it."
    console.print(said)
