"""What differs between two price books: by names, meter and instant, whatever the order or spelling of their rows."""

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, TypeVar

from ..schema import REQUESTS
from .book import PriceBook
from .price import NARROWING, PROMPT, Adjustment, Price, Schedule, Selector
from .rules import rule_of
from .schedules import DAYS
from .values import instant_text

NOTHING = "none"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that one book says and the other one does not, or says otherwise."""

    what: str
    """`price`, `adjustment`, `unbilled` or `currency`."""
    names: dict[str, str]
    """What it is for: the names, the meter and the schedule of the row."""
    since: str | None
    """The instant from which on the two differ so; None: at all times."""
    until: str | None
    """The instant from which on they agree again, or differ in another way; None: neither."""
    before: str
    after: str
    """What the first book says, and the second; NOTHING where it says nothing."""
    percent: Fraction | None = None
    """By how much a unit's price changes, in the lowest tier; None: there is no such number."""


def changes(one: PriceBook, other: PriceBook) -> list[Change]:
    """Every difference in what two books say, in the order of their names."""
    found: list[Change] = []
    if one.currency != other.currency:
        found.append(Change("currency", {}, None, None, one.currency, other.currency))
    # `requests` are unbilled wherever they have no price: their price tells
    for meter in sorted((one.unbilled ^ other.unbilled) - {REQUESTS}):
        before, after = (meter if meter in book.unbilled else NOTHING for book in (one, other))
        found.append(Change("unbilled", {"meter": meter}, None, None, before, after))
    found += _price_changes(one.prices, other.prices)
    found += _adjustment_changes(one.adjustments, other.adjustments)
    return found


Row = TypeVar("Row", Price, Adjustment)
_Key = tuple[tuple[str, ...], str, str]


@dataclass(frozen=True, slots=True)
class _Span(Generic[Row]):
    """A time in which two books have a row each in force, or none, for the same names, and mean different things."""

    from_us: int
    to_us: int | None
    before: Row | None
    after: Row | None

    @property
    def row(self) -> Row:
        """One of the two: they have the same names."""
        row = self.after or self.before
        assert row is not None  # two books that say nothing do not differ
        return row

    @property
    def times(self) -> tuple[str, str | None]:
        return instant_text(self.from_us), instant_text(self.to_us) if self.to_us is not None else None


def _price_changes(one: Iterable[Price], other: Iterable[Price]) -> Iterator[Change]:
    def key(price: Price) -> _Key:
        return _sortable(price.selector), price.meter, price.schedule.name if price.schedule is not None else ""

    def meaning(price: Price) -> Hashable:
        return None if price.withdrawn else (rule_of(price), _hours(price.schedule))

    for span in _spans(one, other, key, meaning):
        before, after = span.before, span.after
        names = _names(span.row.selector, span.row.meter)
        if span.row.schedule is not None:
            names["schedule"] = span.row.schedule.name
        hours_differ = before is not None and after is not None and _hours(before.schedule) != _hours(after.schedule)
        told = (_price_or_nothing(before, hours_differ), _price_or_nothing(after, hours_differ))
        yield Change("price", names, *span.times, *told, _percent(before, after))


def _adjustment_changes(one: Iterable[Adjustment], other: Iterable[Adjustment]) -> Iterator[Change]:
    def key(row: Adjustment) -> _Key:
        return _sortable(row.selector), row.meter or "", ""

    for span in _spans(one, other, key, lambda row: row.factor):
        before, after = (NOTHING if row is None else f"{row.percent} %" for row in (span.before, span.after))
        yield Change("adjustment", _names(span.row.selector, span.row.meter), *span.times, before, after)


def _spans(
    one: Iterable[Row], other: Iterable[Row], key: Callable[[Row], _Key], meaning: Callable[[Row], Hashable]
) -> Iterator[_Span[Row]]:
    lives: dict[_Key, tuple[dict[int, Row], dict[int, Row]]] = {}
    for side, rows in enumerate((one, other)):
        for row in rows:
            lives.setdefault(key(row), ({}, {}))[side][row.from_us] = row
    for names in sorted(lives):
        steps: list[tuple[int, Row | None, Row | None]] = list(_steps(*lives[names], meaning))
        for n, (from_us, before, after) in enumerate(steps):
            if before is not None or after is not None:
                yield _Span(from_us, steps[n + 1][0] if n + 1 < len(steps) else None, before, after)


def _steps(
    ones: Mapping[int, Row], others: Mapping[int, Row], meaning: Callable[[Row], Hashable]
) -> Iterator[tuple[int, Row | None, Row | None]]:
    """(from_us, row, other row) wherever what the two mean changes; no row at all where they mean the same."""
    before: Row | None = None
    after: Row | None = None
    told: tuple[Hashable, Hashable] = (None, None)
    for from_us in sorted({*ones, *others}):
        before, after = ones.get(from_us, before), others.get(from_us, after)
        meant = (None if before is None else meaning(before), None if after is None else meaning(after))
        if meant != told:
            yield (from_us, before, after) if meant[0] != meant[1] else (from_us, None, None)
        told = meant


def _sortable(selector: Selector) -> tuple[str, ...]:
    # no name of a price is empty
    return tuple(value or "" for value in selector)


def _names(selector: Selector, meter: str | None) -> dict[str, str]:
    named = {name: value for name, value in zip(NARROWING, selector, strict=True) if value is not None}
    return named if meter is None else {**named, "meter": meter}


def _percent(before: Price | None, after: Price | None) -> Fraction | None:
    if before is None or after is None or before.withdrawn or after.withdrawn or before.started != after.started:
        return None
    rate = before.rate_femto
    return 100 * (Fraction(after.rate_femto) / rate - 1) if rate else None


# ---- What a price says, for people --------------------------------------------------------------------------------


def price_text(price: Price) -> str:
    """A price without its names: `0.60 per 1,000,000, above 200,000: 1.20`."""
    package = "started " if price.started else ""
    parts = [f"{_money(price.price)} per {package}{price.per:,}"]
    for tier in price.tiers:
        own = f" per {tier.per:,}" if tier.per != price.per else ""
        parts.append(f"above {tier.above:,}: {_money(tier.price)}{own}")
    if price.tiers:
        context = "what goes in" if price.context == PROMPT else " + ".join(price.context)
        parts.append(f"{'the part above' if price.part else 'the whole'}, by {context}")
    if price.times:
        parts.append(f"times {' x '.join(price.times)}")
    for multiplier in price.multipliers:
        table = ", ".join(f"{quantity}: {factor}" for quantity, factor in multiplier.table)
        otherwise = f", else {multiplier.otherwise}" if multiplier.otherwise is not None else ""
        parts.append(f"times by {multiplier.meter} ({table}{otherwise})")
    return ", ".join(parts)


def _price_or_nothing(price: Price | None, with_hours: bool) -> str:
    if price is None or price.withdrawn:
        return NOTHING
    return f"{price_text(price)} ({_hours_text(price.schedule)})" if with_hours else price_text(price)


def _money(price: str) -> str:
    return "free" if Fraction(price) == 0 else price


def _hours(schedule: Schedule | None) -> Hashable:
    return None if schedule is None else (schedule.zone, frozenset(schedule.hours), schedule.holidays)


def _hours_text(schedule: Schedule | None) -> str:
    if schedule is None:
        return "always"
    parts = []
    for hours in schedule.hours:
        days = [name for n, name in enumerate(DAYS) if n in hours.days]
        clocks = "-".join(f"{minute // 60:02d}:{minute % 60:02d}" for minute in (hours.from_minute, hours.to_minute))
        parts.append(clocks if len(days) == len(DAYS) else f"{' '.join(days)} {clocks}")
    holidays = f", {len(schedule.holidays)} holidays" if schedule.holidays else ""
    return f"{', '.join(parts)} {schedule.zone}{holidays}"
