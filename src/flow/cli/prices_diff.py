"""`tallyflow prices diff`: what changed between two price books, and what it would have done to the ledger."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import Config, load_config
from ..effect import BY, METER, Comparison, Effect, check_by, compare
from ..errors import ConfigError, StateError
from ..prices.book import QUANTITY_MAX, PriceBook, load_price_book
from ..prices.changes import Change, changes
from ..prices.values import instant_text
from ..rounding import FEMTO_DIGITS, decimal_text, div_half_even
from ..state.directory import StateDirectory
from ..statements.render import printable
from .options import Format, FormatOption, instant_us
from .progress import counting

SHOWN_MAX = 50
"""Rows of each table; JSON has them all."""


def diff(
    book_a: Annotated[Path, typer.Argument(metavar="A", help="A price book.")],
    book_b: Annotated[Path, typer.Argument(metavar="B", help="The one to compare it with.")],
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="With it: what B would have made of this config's ledger.")
    ] = None,
    days: Annotated[int, typer.Option(min=1, max=36_500, help="How many days of the ledger.")] = 30,
    until: Annotated[
        str | None, typer.Option(help="The end of these days, an instant. Default: the last event of the ledger.")
    ] = None,
    by: Annotated[str, typer.Option(help="What amounts are told apart by: dimensions and meter.")] = ",".join(BY),
    format_: FormatOption = Format.TABLE,
) -> None:
    """What changed from price book A to B, and what that would have done to the last 30 days of the ledger."""
    names = check_by([name for name in by.split(",") if name])
    until_us = instant_us(until, "--until") if until is not None else None
    loaded = load_config(config) if config is not None else None
    quantity_max = loaded.limits.quantity_max if loaded is not None else QUANTITY_MAX
    books = load_price_book(book_a, quantity_max), load_price_book(book_b, quantity_max)
    found = changes(*books)
    comparison = _compare(loaded, books, names, days, until_us) if loaded is not None else None
    if format_ is Format.JSON:
        typer.echo(_as_json(found, comparison, names, books[0].currency))
        return
    console = Console()
    _print_changes(found, console)
    if comparison is not None:
        _print_comparison(comparison, names, books[0].currency, console)


def _compare(
    config: Config, books: tuple[PriceBook, PriceBook], by: tuple[str, ...], days: int, until_us: int | None
) -> Comparison:
    if config.ledger is None:
        raise ConfigError("ledger: this config keeps none, and the comparison is of its events: add `ledger: FOLDER`")
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None:
        raise StateError(f"{config.state_dir}: no run has begun here yet; run `tallyflow run` first")
    with counting("rating twice", "events") as counter:
        found = compare(config.ledger, lineage.id, books, by, days, until_us, counter.add)
    if found.unsealed_files:
        typer.echo(
            f"{config.ledger}: {found.unsealed_files} files are not sealed yet; their events are not in this", err=True
        )
    return found


# ---- JSON ---------------------------------------------------------------------------------------------------------


def _as_json(found: list[Change], comparison: Comparison | None, by: tuple[str, ...], currency: str) -> str:
    """One object; quantities and amounts are strings: JSON readers would not hold them exactly."""
    document: dict[str, Any] = {"changes": [_json_change(change) for change in found]}
    if comparison is not None:
        document["ledger"] = {
            "from": instant_text(comparison.from_us),
            "to": instant_text(comparison.before_us),
            "events": comparison.events,
            "currency": currency,
            "total": _json_effect(comparison.total),
            "differences": [
                {**dict(zip(by, key, strict=True)), "quantity": str(effect.quantity), **_json_effect(effect)}
                for key, effect in _sorted(comparison)
            ],
        }
    return json.dumps(document, ensure_ascii=False, indent=2)


def _json_change(change: Change) -> dict[str, Any]:
    return {
        "what": change.what,
        **change.names,
        "from": change.since,
        "to": change.until,
        "before": change.before,
        "after": change.after,
    }


def _json_effect(effect: Effect) -> dict[str, str]:
    return {
        "amount_before": amount_text(effect.before.amount_femto),
        "amount_after": amount_text(effect.after.amount_femto),
        "difference": amount_text(effect.difference_femto),
        "unpriced_before": str(effect.before.unpriced_quantity),
        "unpriced_after": str(effect.after.unpriced_quantity),
    }


def amount_text(amount_femto: Fraction) -> str:
    """Currency units; one without a finite decimal as a fraction of whole numbers."""
    if amount_femto.denominator != 1:
        units = amount_femto / 10**FEMTO_DIGITS
        return f"{units.numerator}/{units.denominator}"
    return decimal_text(amount_femto.numerator, FEMTO_DIGITS, trim=True)


# ---- Tables -------------------------------------------------------------------------------------------------------


def _print_changes(found: list[Change], console: Console) -> None:
    if not found:
        console.print("The two price books say the same.")
        return
    table = Table(title="what changed", title_justify="left")
    for name in ("what", "for", "from", "to", "before", "after"):
        table.add_column(name, overflow="fold")
    table.add_column("change", justify="right")
    for change in found[:SHOWN_MAX]:
        names = ", ".join(f"{name} {value}" for name, value in change.names.items())
        cells = (change.what, names, change.since or "", change.until or "", change.before, change.after)
        table.add_row(*(Text(printable(cell)) for cell in cells), _percent(change.percent))
    console.print(table)
    _tell_more(len(found), "changes", console)


def _print_comparison(comparison: Comparison, by: tuple[str, ...], currency: str, console: Console) -> None:
    rows, total = _sorted(comparison), comparison.total
    unpriced = any(effect.before.unpriced_quantity or effect.after.unpriced_quantity for _, effect in rows)
    numbers = ["quantity"] * (METER in by) + ["before", "after", "difference"]
    numbers += ["unpriced before", "unpriced after"] * unpriced
    if rows:
        table = Table(title=f"what it would have done, in {currency}", title_justify="left")
        for name in by:
            table.add_column(name, overflow="fold")
        for name in numbers:
            table.add_column(name, justify="right", overflow="fold")
        for key, effect in rows[:SHOWN_MAX]:
            cells = _cells(effect)
            table.add_row(*(Text(printable(value)) for value in key), *(cells[name] for name in numbers))
        of_all = {name: text for name, text in _cells(total).items() if name in ("before", "after", "difference")}
        if by:
            table.add_row("total", *[""] * (len(by) - 1), *(of_all.get(name, "") for name in numbers))
        console.print(table)
        _tell_more(len(rows), "rows that differ", console)
    before = total.before.amount_femto
    percent = _percent(total.difference_femto * 100 / before if before else None)
    told = f"a difference of {amount_text(total.difference_femto)} {currency}" if rows else "no difference"
    times = f"{instant_text(comparison.from_us)} to {instant_text(comparison.before_us)}"
    console.print(Text(f"{comparison.events:,} events from {times}: {told}{f' ({percent})' if percent else ''}"))


def _sorted(comparison: Comparison) -> list[tuple[tuple[str, ...], Effect]]:
    """What differs, the largest difference first."""
    return sorted(comparison.effects.items(), key=lambda item: (-abs(item[1].difference_femto), item[0]))


def _cells(effect: Effect) -> dict[str, str]:
    """By the names of the columns."""
    before, after = effect.before, effect.after
    return {
        "quantity": f"{effect.quantity:,}",
        "before": amount_text(before.amount_femto),
        "after": amount_text(after.amount_femto),
        "difference": amount_text(effect.difference_femto),
        "unpriced before": f"{before.unpriced_quantity:,}",
        "unpriced after": f"{after.unpriced_quantity:,}",
    }


def _percent(percent: Fraction | None) -> str:
    """Two digits, rounded: for the eye, the amounts beside it are exact."""
    if percent is None or percent == 0:
        return ""
    hundredths = div_half_even(100 * percent.numerator, percent.denominator)
    return ("+" if hundredths > 0 else "") + decimal_text(hundredths, 2) + " %"


def _tell_more(rows: int, what: str, console: Console) -> None:
    if rows > SHOWN_MAX:
        console.print(f"The first {SHOWN_MAX} of {rows:,} {what}; --format json has all.")
