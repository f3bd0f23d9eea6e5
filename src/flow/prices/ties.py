"""Prices between which nothing decides: found when a book is read, each with the lines of both."""

import itertools
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence

from ..yaml_nodes import Problems
from .price import NARROWING, Adjustment, Price, Selector, covers, names_of, narrowness
from .schedules import overlap
from .values import instant_text

TIES_MAX = 20
"""Two sets of prices that cross tie in every pair; the first few say enough."""


def check_ties(rows: Sequence[tuple[int, Price]], problems: Problems) -> None:
    """Adds every pair of prices between which nothing decides; `rows`: (index in the file, price)."""
    by_meter: dict[str, dict[Selector, list[Price]]] = defaultdict(dict)
    starts: dict[tuple[object, ...], Price] = {}
    index_of: dict[int, int] = {}
    for n, price in rows:
        index_of[id(price)] = n
        same = starts.setdefault((price.meter, price.selector, price.schedule, price.from_us), price)
        if same is not price:
            message = f"same meter, names and from as line {same.line}; a price is superseded by a later from"
            problems.add(price.line, ("prices", n), message)
        by_meter[price.meter].setdefault(price.selector, []).append(price)
    for of_meter in by_meter.values():
        _check_schedules(of_meter, index_of, problems)
    ties = itertools.chain.from_iterable(_ties_of(of_meter) for of_meter in by_meter.values())
    for one, other, union, from_us in itertools.islice(ties, TIES_MAX):
        mend = f"drop one, or add a price for {names_of(union)} from {instant_text(from_us)} on"
        message = f"ties with line {other.line} on {one.meter} where both match; {mend}"
        problems.add(one.line, ("prices", index_of[id(one)]), message)


def check_adjustments(rows: Sequence[tuple[int, Adjustment]], problems: Problems) -> None:
    """Adds adjustments of the same names that begin at once."""
    starts: dict[tuple[object, ...], Adjustment] = {}
    for n, row in rows:
        same = starts.setdefault((row.meter, row.selector, row.from_us), row)
        if same is not row:
            message = f"same names and from as line {same.line}; an adjustment is superseded by a later from"
            problems.add(row.line, ("adjustments", n), message)


def _check_schedules(of_meter: dict[Selector, list[Price]], index_of: dict[int, int], problems: Problems) -> None:
    """Two schedules of prices for the same events may have no minute in common while both hold."""
    for prices in of_meter.values():
        if len({price.schedule for price in prices} - {None}) < 2:
            continue
        life, told = _Life(prices), set()
        for time_us in life.instants:
            scheduled = [(price, price.schedule) for price in life.at(time_us) if price.schedule is not None]
            for (one, hours), (other, other_hours) in itertools.combinations(scheduled, 2):
                pair = frozenset((hours, other_hours))
                if pair in told or not overlap(hours, other_hours):
                    continue
                told.add(pair)
                later, earlier = sorted((one, other), key=lambda price: price.line)[::-1]
                message = (
                    f"schedule {later.schedule.name if later.schedule else ''} can hold at the same time as that of "
                    f"line {earlier.line}; schedules of the same prices need one zone, the same holidays and no "
                    "common minute"
                )
                problems.add(later.line, ("prices", index_of[id(later)]), message)


class _Life:
    """When the prices of one selector hold: whether of any schedule, and whether always."""

    def __init__(self, prices: Sequence[Price]) -> None:
        self.prices = sorted(prices, key=lambda price: price.from_us)
        self.instants = [price.from_us for price in self.prices]

    def at(self, time_us: int) -> list[Price]:
        """The prices that hold at an instant, one a schedule."""
        latest = {price.schedule: price for price in self.prices[: bisect_right(self.instants, time_us)]}
        return [price for price in latest.values() if not price.withdrawn]

    def always(self, time_us: int) -> bool:
        """Whether a price holds at an instant whatever the hour."""
        return any(price.schedule is None for price in self.at(time_us))


def _ties_of(prices: dict[Selector, list[Price]]) -> Iterator[tuple[Price, Price, Selector, int]]:
    """(later line, earlier line, what both match, from when on) for the prices of one meter.

    Two selectors that name the same dimensions never match one event, so only those with as many, but other,
    dimensions are joined, over the values of those they share. The pair is no tie if, whenever both hold, a narrower
    price holds for every event that both match.
    """
    lives = {selector: _Life(of_selector) for selector, of_selector in prices.items()}
    by_shape: dict[tuple[bool, ...], list[Selector]] = defaultdict(list)
    for selector in lives:
        by_shape[tuple(value is not None for value in selector)].append(selector)
    for one_shape, other_shape in itertools.combinations(by_shape, 2):
        if sum(one_shape) != sum(other_shape):
            continue
        shared = [n for n in range(len(NARROWING)) if one_shape[n] and other_shape[n]]
        others: dict[tuple[str | None, ...], list[Selector]] = defaultdict(list)
        for selector in by_shape[other_shape]:
            others[tuple(selector[n] for n in shared)].append(selector)
        for a in by_shape[one_shape]:
            for b in others.get(tuple(a[n] for n in shared), ()):
                union = (a[0] or b[0], a[1] or b[1], a[2] or b[2], a[3] or b[3])
                narrower = [lives[c] for c in covers(union) if c in lives and narrowness(c) > narrowness(a)]
                from_us = _undecided(lives[a], lives[b], narrower)
                if from_us is not None:
                    pair = lives[a].at(from_us)[0], lives[b].at(from_us)[0]
                    earlier, later = sorted(pair, key=lambda price: price.line)
                    yield later, earlier, union, from_us


def _undecided(one: _Life, other: _Life, narrower: Sequence[_Life]) -> int | None:
    """The first instant at which both hold and nothing narrower does always."""
    for time_us in sorted({*one.instants, *other.instants, *(us for life in narrower for us in life.instants)}):
        if one.at(time_us) and other.at(time_us) and not any(life.always(time_us) for life in narrower):
            return time_us
    return None
