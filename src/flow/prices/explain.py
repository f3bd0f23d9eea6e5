"""How one event is rated: the rows that were looked at, which one won and why the others lost, and each multiplication.

The kernel does the same with arrays; here it is done row by row, in fractions, to be read.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..schema import REQUESTS
from .book import PriceBook, factor_on, in_force
from .price import FEMTO, NARROWING, Adjustment, Price, Selector, names_of, narrowness
from .rules import Rule, rule_of
from .values import instant_text
from .zones import within

OTHERS_MAX = 20
"""Rows of the event's own model that are for other events; a book may have thousands."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One row for the meter of an item."""

    line: int
    says: str
    wins: bool
    why: str


@dataclass(frozen=True, slots=True)
class Item:
    """One meter of an event."""

    meter: str
    quantity: int
    outcome: str
    """priced, unpriced or unbilled."""
    amount_femto: Fraction
    """10^-15 currency units, exact; 0 unless priced."""
    candidates: tuple[Candidate, ...]
    steps: tuple[str, ...]
    """Each multiplication, in words."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What of an event its price depends on."""

    event_time_us: int
    names: Selector
    """The event's values of NARROWING; an absent one is the empty string."""
    quantities: Mapping[str, int]
    """By meter, without `requests`."""


def explain(book: PriceBook, usage: Usage) -> list[Item]:
    """Each meter of an event, `requests` last."""
    return [_item(book, usage, meter, quantity) for meter, quantity in (*usage.quantities.items(), (REQUESTS, 1))]


def total_femto(items: Sequence[Item]) -> Fraction:
    """What the event comes to, in 10^-15 currency units."""
    return sum((item.amount_femto for item in items), Fraction(0))


def amount_text(femto: Fraction) -> str:
    """Currency units, exact: a decimal, and where none is finite, a fraction of 10^-15 behind it."""
    whole, rest = divmod(abs(femto.numerator), femto.denominator)
    units, parts = divmod(whole, FEMTO)
    text = ("-" if femto < 0 else "") + f"{units}.{parts:015d}"
    return f"{text} + {rest}/{femto.denominator} x 10^-15" if rest else text.rstrip("0").rstrip(".")


def _item(book: PriceBook, usage: Usage, meter: str, quantity: int) -> Item:
    rows = [price for price in book.prices if price.meter == meter]
    winner = _winner(rows, usage)
    candidates = tuple(_candidates(rows, usage, winner))
    if winner is None:
        if meter in book.unbilled or meter == REQUESTS:
            return Item(meter, quantity, "unbilled", Fraction(0), candidates, ("not for sale: 0",))
        return Item(meter, quantity, "unpriced", Fraction(0), candidates, ("no price is in force",))
    adjustments = _adjustments(book, usage, meter)
    steps, amount = _evaluate(winner, quantity, usage.quantities, adjustments)
    if amount is None:
        outcome = "unbilled" if meter == REQUESTS else "unpriced"
        return Item(meter, quantity, outcome, Fraction(0), candidates, tuple(steps))
    return Item(meter, quantity, "priced", amount, candidates, tuple(steps))


def _matches(selector: Selector, names: Selector) -> bool:
    return all(wanted is None or wanted == name for wanted, name in zip(selector, names, strict=True))


def _latest(rows: Sequence[Price], usage: Usage) -> dict[object, Price]:
    """Of the rows that match and have begun, the latest for each selector and schedule."""
    latest: dict[object, Price] = {}
    for row in sorted(rows, key=lambda row: row.from_us):
        if row.from_us <= usage.event_time_us and _matches(row.selector, usage.names):
            latest[row.selector, row.schedule] = row
    return latest


def _winner(rows: Sequence[Price], usage: Usage) -> Price | None:
    holding = [
        row
        for row in _latest(rows, usage).values()
        if not row.withdrawn and (row.schedule is None or within(row.schedule, usage.event_time_us))
    ]
    return max(holding, key=lambda row: (narrowness(row.selector), row.schedule is not None), default=None)


def _candidates(rows: Sequence[Price], usage: Usage, winner: Price | None) -> Iterator[Candidate]:
    latest, others, shown = _latest(rows, usage), 0, 0
    for row in sorted(rows, key=lambda row: row is not winner):
        if not _matches(row.selector, usage.names):
            of_model = row.selector[0] in (None, usage.names[0]) and shown < OTHERS_MAX
            shown, others = shown + of_model, others + (not of_model)
            if of_model:
                yield Candidate(row.line, _says(row), False, _other(row.selector, usage.names))
        elif row is winner:
            yield Candidate(row.line, _says(row), True, "the narrowest that holds")
        else:
            why = _lost(row, latest.get((row.selector, row.schedule)), winner, usage)
            yield Candidate(row.line, _says(row), False, why)
    if others:
        yield Candidate(0, f"{others} more {'row' if others == 1 else 'rows'}", False, "for other events")


def _other(selector: Selector, names: Selector) -> str:
    wrong = zip(NARROWING, selector, names, strict=True)
    return "; ".join(
        f"is for {key} {want}, not {have or 'none'}" for key, want, have in wrong if want not in (None, have)
    )


def _lost(row: Price, latest: Price | None, winner: Price | None, usage: Usage) -> str:
    if row.from_us > usage.event_time_us:
        return f"begins only at {instant_text(row.from_us)}"
    if latest is not None and latest is not row:
        return f"{'withdrawn' if latest.withdrawn else 'superseded'} by line {latest.line}"
    if row.withdrawn:
        return "says that there is no such price any more"
    if row.schedule is not None and not within(row.schedule, usage.event_time_us):
        return f"outside the hours of {row.schedule.name}"
    assert winner is not None  # this row holds, so that there is one
    if winner.selector == row.selector:
        return f"line {winner.line} holds in the hours of {winner.schedule.name if winner.schedule else ''}"
    return f"line {winner.line} names more: {names_of(winner.selector)}"


def _says(row: Price) -> str:
    if row.withdrawn:
        return f"withdrawn from {instant_text(row.from_us)} {names_of(row.selector)}"
    per = f"{'started ' if row.started else ''}{row.per}"
    return f"{row.price} per {per} from {instant_text(row.from_us)} {names_of(row.selector)}"


def _adjustments(book: PriceBook, usage: Usage, meter: str) -> list[Adjustment]:
    by_names: dict[object, list[Adjustment]] = {}
    for row in sorted(book.adjustments, key=lambda row: row.from_us):
        if row.meter in (None, meter) and _matches(row.selector, usage.names):
            by_names.setdefault((row.meter, row.selector), []).append(row)
    return list(in_force(by_names.values(), usage.event_time_us))


# ---- Each multiplication ----


def _evaluate(
    price: Price, quantity: int, quantities: Mapping[str, int], adjustments: Sequence[Adjustment]
) -> tuple[list[str], Fraction | None]:
    """The steps in words, and the amount in 10^-15; None where a table of the price has no factor."""
    rule, steps = rule_of(price), [f"line {price.line}: {_says(price)}"]
    cell = _cell(rule, quantities, steps)
    if cell is None:
        return steps, None
    factor = Fraction(1)
    for row in adjustments:
        by = factor_on(price, [row])
        if by != 1:
            steps.append(f"line {row.line}: {row.percent} % {names_of(row.selector)}: x {by}")
            factor *= by
        elif row.factor != 1:
            steps.append(f"line {row.line}: {row.percent} % is not for a price that names {names_of(row.selector)}")
    if rule.part:
        return steps, _parts(rule, cell, price.meter, quantity, quantities, factor, steps)
    context = sum(quantities.get(name, 0) for name in rule.context)
    tier = sum(context > edge for edge in rule.thresholds)
    if rule.thresholds:
        place = f"above {rule.thresholds[tier - 1]}" if tier else f"not above {rule.thresholds[0]}"
        names = [name for name in rule.context if name in quantities] or rule.context[:1]
        steps.append(f"context {' + '.join(names)} = {context}, {place}: tier {tier}")
    units = quantity
    for name in rule.times:
        units *= quantities.get(name, 1)
        steps.append(f"x {quantities.get(name, 1)} {name} = {units}")
    if rule.package:
        units = -(-units // rule.package)
        steps.append(f"started packages of {rule.package}: {units}")
    rate = rule.cells[cell + tier] * factor
    amount = units * rate
    steps.append(f"{units} x {rate} x 10^-15 = {amount_text(amount)}")
    return steps, amount


def _cell(rule: Rule, quantities: Mapping[str, int], steps: list[str]) -> int | None:
    """Where the tiers of the factors that the event's quantities choose begin among the cells."""
    at = 0
    for table in rule.tables:
        value = quantities.get(table.meter)
        if value in table.values:
            place = table.values.index(value)
        elif table.otherwise:
            place = len(table.values)
        else:
            steps.append(f"{table.meter} = {'none' if value is None else value} has no factor: no price")
            return None
        steps.append(f"{table.meter} = {'none' if value is None else value}: factor number {place}")
        at = at * table.size + place
    return at * (len(rule.thresholds) + 1)


def _parts(
    rule: Rule,
    cell: int,
    meter: str,
    quantity: int,
    quantities: Mapping[str, int],
    factor: Fraction,
    steps: list[str],
) -> Fraction:
    before = sum(quantities.get(name, 0) for name in rule.context[: rule.context.index(meter)])
    if before:
        names = [name for name in rule.context[: rule.context.index(meter)] if name in quantities]
        steps.append(f"{before} units of {' + '.join(names)} stand before")
    end, total = before + quantity, Fraction(0)
    for tier, (low, high) in enumerate(zip((0, *rule.thresholds), (*rule.thresholds, end), strict=True)):
        units = max(min(high, end) - max(low, before), 0)
        if units:
            rate = rule.cells[cell + tier] * factor
            total += units * rate
            steps.append(f"tier {tier}: {units} x {rate} x 10^-15 = {amount_text(units * rate)}")
    return total
