"""What an event costs, by looking at every price there is, in fractions."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Protocol
from zoneinfo import ZoneInfo

from ..schema import REQUESTS

NARROWING = ("model", "service_tier", "region", "customer")
"""What a price's selector names, in order."""

Selector = tuple[str | None, str | None, str | None, str | None]


class Hours(Protocol):
    """From a minute to another one of the days of these kinds (0 Monday, 7 a holiday), or of the day after."""

    @property
    def days(self) -> frozenset[int]: ...
    @property
    def from_minute(self) -> int: ...
    @property
    def to_minute(self) -> int: ...


class Schedule(Protocol):
    """Hours of the week in a zone."""

    @property
    def zone(self) -> str: ...
    @property
    def hours(self) -> Sequence[Hours]: ...
    @property
    def holidays(self) -> frozenset[date]: ...


class Tier(Protocol):
    """What a context above so many units costs."""

    @property
    def above(self) -> int: ...
    @property
    def price(self) -> str: ...
    @property
    def per(self) -> int: ...


class Multiplier(Protocol):
    """Factors by the quantity of a meter."""

    @property
    def meter(self) -> str: ...
    @property
    def table(self) -> Sequence[tuple[int, str]]: ...
    @property
    def otherwise(self) -> str | None: ...


class PriceRow(Protocol):
    """A row of a price book: `price` (decimal text) for `per` units of what it selects, from then on."""

    @property
    def meter(self) -> str: ...
    @property
    def selector(self) -> Selector: ...
    @property
    def from_us(self) -> int: ...
    @property
    def per(self) -> int: ...
    @property
    def price(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def started(self) -> bool: ...
    @property
    def tiers(self) -> Sequence[Tier]: ...
    @property
    def context(self) -> Sequence[str]: ...
    @property
    def part(self) -> bool: ...
    @property
    def times(self) -> Sequence[str]: ...
    @property
    def multipliers(self) -> Sequence[Multiplier]: ...
    @property
    def schedule(self) -> Schedule | None: ...
    @property
    def withdrawn(self) -> bool: ...


class AdjustmentRow(Protocol):
    """Some percent on the prices of what it selects, from then on."""

    @property
    def meter(self) -> str | None: ...
    @property
    def selector(self) -> Selector: ...
    @property
    def from_us(self) -> int: ...
    @property
    def percent(self) -> str: ...


Rated = list[tuple[str, int, Fraction | None]]
"""(meter, quantity, amount_femto): 10^-15 currency units, exact; None is unpriced."""


@dataclass(frozen=True)
class Event:
    """What of an event its price depends on."""

    event_time_us: int
    """Microseconds since 1970-01-01T00:00:00Z."""
    usage: tuple[tuple[str, int], ...]
    """(meter, quantity), without `requests`."""
    dims: Mapping[str, str] = field(default_factory=dict)
    """A value for each of schema.DIMENSIONS; one that is left out is the empty string."""


def rate_event(
    prices: Iterable[PriceRow],
    unbilled: Collection[str],
    event: Event,
    adjustments: Iterable[AdjustmentRow] = (),
) -> Rated:
    """Rates each item of an event's usage, and at last its `requests`."""
    prices, adjustments = list(prices), list(adjustments)
    return [
        (meter, quantity, rate_item(prices, unbilled, event, meter, quantity, adjustments))
        for meter, quantity in (*event.usage, (REQUESTS, 1))
    ]


def rate_item(
    prices: Iterable[PriceRow],
    unbilled: Collection[str],
    event: Event,
    meter: str,
    quantity: int,
    adjustments: Iterable[AdjustmentRow] = (),
) -> Fraction | None:
    """What a quantity of one meter costs in an event, in 10^-15 currency units; None is unpriced."""
    price = price_in_force(prices, meter, event)
    amount = None
    if price is not None:
        amount = amount_of(price, event, quantity)
    elif meter in unbilled:
        amount = Fraction(0)
    if amount is None:
        return Fraction(0) if meter == REQUESTS else None
    return amount * (factor_of(price, adjustments, event) if price is not None else 1)


def price_in_force(prices: Iterable[PriceRow], meter: str, event: Event) -> PriceRow | None:
    """Of the prices that match and hold, the narrowest; of the same names one with a schedule before one without.

    Raises ArithmeticError if the narrowest name different dimensions, or have different schedules, which a price book
    does not let happen.
    """
    holding = prices_holding(prices, meter, event)
    in_hours = [p for p in holding if p.schedule is None or within(p.schedule, event.event_time_us)]
    if not in_hours:
        return None
    most = max(_narrowness(price) for price in in_hours)
    narrowest = [price for price in in_hours if _narrowness(price) == most]
    scheduled = [price for price in narrowest if price.schedule is not None]
    chosen = scheduled or narrowest
    if len({price.selector for price in narrowest}) > 1 or len(chosen) > 1:
        raise ArithmeticError(f"{meter}: prices in lines {[price.line for price in chosen]} tie")
    return chosen[0]


def prices_holding(prices: Iterable[PriceRow], meter: str, event: Event) -> list[PriceRow]:
    """The prices of a meter that match an event and hold at its time, were it in the hours of all schedules."""
    latest: dict[object, PriceRow] = {}
    for price in prices:
        if price.meter != meter or price.from_us > event.event_time_us or not _matches(price.selector, event):
            continue
        key = price.selector, price.schedule
        if key not in latest or latest[key].from_us < price.from_us:
            latest[key] = price
    return [price for price in latest.values() if not price.withdrawn]


def within(schedule: Schedule, time_us: int) -> bool:
    """Whether an instant is in the hours of a schedule, by the clock on the wall."""
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=time_us)).astimezone(ZoneInfo(schedule.zone))
    minute = local.hour * 60 + local.minute

    def kind(day: date) -> int:
        return 7 if day in schedule.holidays else day.weekday()

    today, yesterday = kind(local.date()), kind(local.date() - timedelta(days=1))
    for hours in schedule.hours:
        if hours.from_minute < hours.to_minute:
            if today in hours.days and hours.from_minute <= minute < hours.to_minute:
                return True
        elif (today in hours.days and minute >= hours.from_minute) or (
            yesterday in hours.days and minute < hours.to_minute
        ):
            return True
    return False


def factor_of(price: PriceRow, adjustments: Iterable[AdjustmentRow], event: Event) -> Fraction:
    """What the adjustments in force make of a price."""
    latest: dict[object, AdjustmentRow] = {}
    for row in adjustments:
        if row.meter not in (None, price.meter) or row.from_us > event.event_time_us:
            continue
        key = row.meter, row.selector
        if _matches(row.selector, event) and (key not in latest or latest[key].from_us < row.from_us):
            latest[key] = row
    factor, of_price = Fraction(1), _names(price.meter, price.selector)
    for row in latest.values():
        names = _names(row.meter, row.selector)
        replaced = any(names < _names(other.meter, other.selector) for other in latest.values())
        if not replaced and not names <= of_price:
            factor *= 1 + Fraction(row.percent) / 100
    return factor


def amount_of(price: PriceRow, event: Event, quantity: int) -> Fraction | None:
    """What a quantity costs by one price, in 10^-15 currency units; None where a table of it has no factor."""
    usage = dict(event.usage)
    factor = Fraction(10**15)
    for multiplier in price.multipliers:
        chosen = dict(multiplier.table).get(usage.get(multiplier.meter, -1), multiplier.otherwise)
        if chosen is None:
            return None
        factor *= Fraction(chosen)
    edges = [0, *(tier.above for tier in price.tiers)]
    costs = [(price.price, price.per), *((tier.price, tier.per) for tier in price.tiers)]
    if price.part:
        before = sum(usage.get(name, 0) for name in price.context[: list(price.context).index(price.meter)])
        total = Fraction(0)
        for low, high, (cost, per) in zip(edges, [*edges[1:], before + quantity], costs, strict=True):
            units = max(min(high, before + quantity) - max(low, before), 0)
            total += Fraction(cost) / per * units
        return total * factor
    context = sum(usage.get(name, 0) for name in price.context)
    cost, per = costs[sum(context > tier.above for tier in price.tiers)]
    units = quantity
    for name in price.times:
        units *= usage.get(name, 1)
    if price.started:
        return Fraction(cost) * -(-units // price.per) * factor
    return Fraction(cost) / per * units * factor


def _matches(selector: Selector, event: Event) -> bool:
    wanted = zip(NARROWING, selector, strict=True)
    return all(name is None or event.dims.get(dimension, "") == name for dimension, name in wanted)


def _narrowness(price: PriceRow) -> int:
    return sum(name is not None for name in price.selector)


def _names(meter: str | None, selector: Selector) -> set[str]:
    named = zip(("meter", *NARROWING), (meter, *selector), strict=True)
    return {name for name, value in named if value is not None}
