"""The price book: read from YAML, checked whole, and asked for what holds for one class of events.

A price names a meter and, to narrow it, any of model, service tier, region and customer; it holds from an instant
until a later price with the same names supersedes it, or withdraws it. A *timeline* is the answer for one class of
events: from which instant which rule holds. Rates are exact fractions of 10^-15 currency units per unit of the meter,
so nothing is ever rounded (DESIGN 3.2 and 3.3).
"""

import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Generic, TypeVar

from ..schema import REQUESTS
from ..yaml_nodes import read_text
from .examples import Example
from .price import NARROWING, Adjustment, Price, Schedule, Selector, named_by, narrowness
from .reading import Version, read_prices
from .rules import FREE, Node, Switch, rule_of

QUANTITY_MAX = 10**12
"""The default of `limits.quantity_max`, against which a rate is checked for room in 128 bits."""

Timeline = tuple[tuple[int, Node], ...]
"""(from_us, what holds) in ascending order; a step holds until the next one begins."""

Match = tuple[tuple[Selector, ...], tuple[Selector, ...]]
"""Of a class of events: the selectors of prices, and of adjustments, that match it. All else it is rated by is time and
quantities, so that classes with equal matches are rated alike."""

Row = TypeVar("Row", Price, Adjustment)


@dataclass(frozen=True)
class PriceBook:
    """Prices without ties; build one with `load_price_book` or `parse_price_book`, which check it."""

    currency: str
    prices: tuple[Price, ...]
    unbilled: frozenset[str]
    """Meters that are not for sale: their amount is 0. `requests` is one unless it has a price."""
    adjustments: tuple[Adjustment, ...] = ()
    version: Version | None = None
    examples: tuple[Example, ...] = ()
    meters: frozenset[str] = field(init=False, compare=False)
    """Meters that have a price."""
    deciding: frozenset[str] = field(init=False, compare=False)
    """Meters whose quantities decide what others cost."""
    named: Mapping[str, frozenset[str]] = field(init=False, compare=False)
    """For each of NARROWING, the values that some row names. All other values of it are rated alike."""
    _prices: "_Rows[Price]" = field(init=False, compare=False, repr=False)
    _adjustments: "_Rows[Adjustment]" = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        rows: tuple[Price | Adjustment, ...] = (*self.prices, *self.adjustments)
        named = {
            dimension: frozenset(name for row in rows if (name := row.selector[n]) is not None)
            for n, dimension in enumerate(NARROWING)
        }
        object.__setattr__(self, "meters", frozenset(price.meter for price in self.prices))
        object.__setattr__(self, "deciding", frozenset(name for price in self.prices for name in price.deciding))
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "_prices", _Rows(self.prices))
        object.__setattr__(self, "_adjustments", _Rows(self.adjustments))

    def match(self, names: Selector, *, pairs: bool = True) -> Match:
        """What of the book is for events with these values of NARROWING; without `pairs`, leaving out what names both
        the model and the customer."""
        return self._prices.matching(names, pairs), self._adjustments.matching(names, pairs)

    def profiles(self) -> dict[str, object]:
        """For each customer that is named, what the rows say that name it and no model; equal where they say the
        same."""
        found: dict[str, list[object]] = {}
        for rows in (self.prices, self.adjustments):
            for row in rows:
                model, service_tier, region, customer = row.selector
                if customer is not None:
                    said = found.setdefault(customer, [])
                    if model is None:
                        said.append(replace(row, selector=(None, service_tier, region, None), line=0))
        return {customer: frozenset(said) for customer, said in found.items()}

    def pairs(self) -> set[tuple[str, str]]:
        """(customer, model) of the rows that name both."""
        rows: tuple[Price | Adjustment, ...] = (*self.prices, *self.adjustments)
        return {(row.selector[3], row.selector[0]) for row in rows if row.selector[3] and row.selector[0]}

    def timeline(self, meter: str, *, model: str, service_tier: str, region: str, customer: str) -> Timeline:
        """What holds when for a meter of such events; the narrowest price in force wins.

        Before the first step the quantity is unpriced; no step at all means that it always is, unless the meter is
        unbilled. `requests` alone is free, not unpriced, where no price is in force (DESIGN 3.2): where it has any
        price, its timeline begins with a rate of 0.
        """
        return self.timeline_of(meter, self.match((model, service_tier, region, customer)))

    def timeline_of(self, meter: str, match: Match) -> Timeline:
        """`timeline` of a class of events by what matches it."""
        if meter not in self.meters:
            return ()
        selectors, adjusting = match
        prices = [rows for selector in sorted(selectors, key=narrowness) if (rows := self._prices.of(selector, meter))]
        adjustments = [
            found for selector in adjusting for name in (None, meter) if (found := self._adjustments.of(selector, name))
        ]
        base = FREE if meter == REQUESTS else None
        steps: list[tuple[int, Node]] = [(0, base)] if base else []
        changes = {row.from_us for rows in prices for row in rows} | {
            row.from_us for rows in adjustments for row in rows
        }
        for time_us in sorted(changes):
            node: Node = base
            factors = list(in_force(adjustments, time_us))
            for rows in prices:
                node = _over(node, rows, time_us, factors)
            steps.append((time_us, node))
        return _joined(steps)

    def digest(self) -> str:
        """SHA-256 of what the book means: the same for any order, spelling or comments of the same rows."""
        meaning = {
            "currency": self.currency,
            "unbilled": sorted(self.unbilled),
            "prices": sorted(_price_meaning(price) for price in self.prices),
            "adjustments": sorted(
                json.dumps([row.meter, *row.selector, row.from_us, str(row.factor)]) for row in self.adjustments
            ),
        }
        return hashlib.sha256(json.dumps(meaning, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


def in_force(adjustments: Iterable[Sequence[Adjustment]], time_us: int) -> Iterator[Adjustment]:
    """Of adjustments that match, one list a (meter, selector), those that hold: the latest of each, and none beside
    which a narrower one holds that names all it names, and more."""
    latest = [row for rows in adjustments if (row := _latest(rows, time_us)) is not None]
    return (row for row in latest if not any(row.names < other.names for other in latest))


def factor_on(price: Price, adjustments: Iterable[Adjustment]) -> Fraction:
    """What a price is multiplied by; one that names all an adjustment names has it included already."""
    named, factor = named_by(price.meter, price.selector), Fraction(1)
    for row in adjustments:
        factor *= 1 if row.names <= named else row.factor
    return factor


def _over(node: Node, rows: Sequence[Price], time_us: int, adjustments: Sequence[Adjustment]) -> Node:
    """What holds where the rows of a selector are laid over what wider ones say."""
    schedules: dict[Schedule | None, list[Price]] = {}
    for row in rows:
        schedules.setdefault(row.schedule, []).append(row)
    always = _latest(schedules.pop(None, []), time_us)
    if always is not None and not always.withdrawn:
        node = rule_of(always).adjusted(factor_on(always, adjustments))
    for schedule, scheduled in schedules.items():
        row_or_none = _latest(scheduled, time_us)
        if schedule is not None and row_or_none is not None and not row_or_none.withdrawn:
            rule = rule_of(row_or_none).adjusted(factor_on(row_or_none, adjustments))
            node = Switch(schedule, rule, node)
    return node


def _latest(rows: Sequence[Row], time_us: int) -> Row | None:
    at = bisect_right(rows, time_us, key=lambda row: row.from_us)
    return rows[at - 1] if at else None


def _joined(steps: Sequence[tuple[int, Node]]) -> Timeline:
    """The same without steps that change nothing."""
    before = [None, *(node for _, node in steps)]
    return tuple(step for step, last in zip(steps, before, strict=False) if step[1] != last)


def _price_meaning(price: Price) -> str:
    rule, schedule = None if price.withdrawn else rule_of(price), price.schedule
    hours = None
    if schedule is not None:
        hours = [
            schedule.zone,
            sorted([sorted(of.days), of.from_minute, of.to_minute] for of in schedule.hours),
            sorted(day.isoformat() for day in schedule.holidays),
        ]
    return json.dumps([price.meter, *price.selector, price.from_us, repr(rule), hours])


class _Rows(Generic[Row]):
    """Rows by selector and meter, each list in the order of its instants."""

    def __init__(self, rows: Iterable[Row]) -> None:
        self._found: dict[Selector, dict[str | None, list[Row]]] = {}
        for row in sorted(rows, key=lambda row: row.from_us):
            self._found.setdefault(row.selector, {}).setdefault(row.meter, []).append(row)
        self._shapes = sorted({tuple(value is not None for value in selector) for selector in self._found})

    def matching(self, names: Selector, pairs: bool) -> tuple[Selector, ...]:
        found = []
        for model, service_tier, region, customer in self._shapes:
            if model and customer and not pairs:
                continue
            selector = (
                names[0] if model else None,
                names[1] if service_tier else None,
                names[2] if region else None,
                names[3] if customer else None,
            )
            if selector in self._found:
                found.append(selector)
        return tuple(found)

    def of(self, selector: Selector, meter: str | None) -> Sequence[Row]:
        return self._found.get(selector, {}).get(meter, ())


def load_price_book(path: Path, quantity_max: int = QUANTITY_MAX) -> PriceBook:
    """Reads a price book. Raises ConfigError with every error of the file, each with its line."""
    return parse_price_book(read_text(path), str(path), quantity_max)


def parse_price_book(text: str, name: str, quantity_max: int = QUANTITY_MAX) -> PriceBook:
    """`load_price_book` of text; `name` stands for the file in messages."""
    found = read_prices(text, name, quantity_max)
    return PriceBook(found.currency, found.prices, found.unbilled, found.adjustments, found.version, found.examples)
