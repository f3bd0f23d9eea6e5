"""What the five views must say of a set of events, added up one by one in plain Python integers.

The minute rows are made from events, the coarser ones from finer rows. Nothing is shared with the kernels or the price
book's timelines; what is cached is only the answer to a question that was asked before.
"""

import json
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from functools import lru_cache

from ..schema import DIMENSIONS, REQUESTS
from .hashing import dims_hash, event_digest, murmur3_128, name_hash, usage_hash, words
from .rating import NARROWING, AdjustmentRow, Event, PriceRow, prices_holding, rate_item

DAY_S = 86_400
_MODULUS = 2**128

GRAINS: dict[str, tuple[str, ...]] = {
    "minute": DIMENSIONS,
    "hour": DIMENSIONS,
    "day": DIMENSIONS,
    "week": ("customer", "feature", "service_tier"),
    "month": ("customer", "feature", "service_tier", "region"),
}
"""The dimensions of each view `usage_by_...`, finest first (DESIGN 3.4)."""

_FINER = {"hour": "minute", "day": "minute", "week": "day", "month": "day"}

Dims = tuple[str, ...]
Key = tuple[int, Dims, str]
"""Window start (seconds since 1970-01-01T00:00:00Z), the values of the grain's dimensions, meter."""

_cached_name_hash = lru_cache(maxsize=1 << 16)(name_hash)


@dataclass(slots=True)
class Row:
    """One row of a view."""

    quantity: int = 0
    amount_femto: Fraction | int = 0
    """10^-15 currency units, exact; a view shows it rounded down."""
    events: int = 0
    unpriced_quantity: int = 0
    digest: int = 0
    """Modulo 2^128."""

    def add(self, other: "Row") -> None:
        self.quantity += other.quantity
        self.amount_femto += other.amount_femto
        self.events += other.events
        self.unpriced_quantity += other.unpriced_quantity
        self.digest = (self.digest + other.digest) % _MODULUS


Rows = dict[Key, Row]


def window_start_s(grain: str, time_s: int) -> int:
    """The start of the window that an instant is in; a week starts on Monday, all windows in UTC."""
    if grain == "minute":
        return time_s - time_s % 60
    if grain == "hour":
        return time_s - time_s % 3600
    day = time_s // DAY_S
    if grain == "week":
        # Day 0 was a Thursday; the store knows no time before it, so the first week is cut short.
        return max(day - (day + 3) % 7, 0) * DAY_S
    if grain == "month":
        instant = datetime.fromtimestamp(time_s, UTC)
        return (day - (instant.day - 1)) * DAY_S
    return day * DAY_S


def window_end_s(grain: str, start_s: int) -> int:
    """Where the window that begins at `start_s` ends; the next one begins there."""
    if grain == "month":
        return window_start_s("month", start_s + 31 * DAY_S)
    if grain == "week":
        day = start_s // DAY_S
        return (day - (day + 3) % 7 + 7) * DAY_S
    return start_s + {"minute": 60, "hour": 3600, "day": DAY_S}[grain]


class Rates:
    """`rating.rate_item`, with its answers remembered.

    Events are alike to a price book where each of its NARROWING dimensions has the same value, or one that no row
    names. For such a class of events what holds only changes at the instants from which rows hold, and, unless a price
    looks at hours or at other quantities, it is one rate.
    """

    def __init__(
        self, prices: Iterable[PriceRow], unbilled: Collection[str], adjustments: Iterable[AdjustmentRow] = ()
    ) -> None:
        self._unbilled = frozenset(unbilled) | {REQUESTS}
        self._adjustments = list(adjustments)
        self._by_meter: dict[str, list[PriceRow]] = {}
        for price in prices:
            self._by_meter.setdefault(price.meter, []).append(price)
        selectors = [price.selector for of_meter in self._by_meter.values() for price in of_meter]
        selectors += [row.selector for row in self._adjustments]
        self._named = [{selector[n] for selector in selectors if selector[n]} for n in range(len(NARROWING))]
        self._steps: dict[tuple[str, Dims], tuple[list[int], list[Fraction | int | str | None]]] = {}

    def narrowed(self, dims: Mapping[str, str]) -> Dims:
        """What of an event's dimensions its prices depend on."""
        values = (dims[name] for name in NARROWING)
        return tuple(value if value in named else "" for value, named in zip(values, self._named, strict=True))

    def amount_femto(
        self, meter: str, narrowed: Dims, event_time_us: int, quantity: int, usage: Sequence[tuple[str, int]] = ()
    ) -> Fraction | int | None:
        """What a quantity costs in an event with this usage; None is unpriced."""
        steps = self._steps.get((meter, narrowed))
        if steps is None:
            steps = self._steps[meter, narrowed] = self._resolve(meter, narrowed)
        rate = steps[1][bisect_right(steps[0], event_time_us)]
        if not isinstance(rate, str):
            return None if rate is None else rate * quantity
        event = Event(event_time_us, tuple(usage), dict(zip(NARROWING, narrowed, strict=True)))
        return rate_item(self._by_meter[meter], self._unbilled, event, meter, quantity, self._adjustments)

    def _resolve(self, meter: str, narrowed: Dims) -> tuple[list[int], list[Fraction | int | str | None]]:
        """The instants at which rows begin, and the rate before the first and from each of them on; _LOOK where it
        depends on more than that."""
        prices = self._by_meter.get(meter, [])
        instants = sorted({row.from_us for row in prices} | {row.from_us for row in self._adjustments})
        rates: list[Fraction | int | str | None] = [0 if meter in self._unbilled else None]
        for instant in instants:
            event = Event(instant, (), dict(zip(NARROWING, narrowed, strict=True)))
            holding = prices_holding(prices, meter, event)
            if all(_is_one_rate(price) for price in holding):
                rate = rate_item(prices, self._unbilled, event, meter, 1, self._adjustments)
                rates.append(rate if rate is None or rate.denominator != 1 else int(rate))
            else:
                rates.append(_LOOK)
        return instants, rates


_LOOK = "look at the event"


def _is_one_rate(price: PriceRow) -> bool:
    """Whether a price is one rate for every quantity and every hour."""
    return not (price.started or price.tiers or price.times or price.multipliers or price.schedule)


class Rollup:
    """Minute rows of the events that were added."""

    def __init__(self, rates: Rates, minutes: Rows | None = None) -> None:
        """`minutes`: rows to add to."""
        self.minutes: Rows = {} if minutes is None else minutes
        self._rates = rates
        self._known: dict[Dims, tuple[Dims, bytes]] = {}  # by dimensions: what prices depend on, and their hash

    def add(
        self,
        source: str,
        id: str,
        event_time_us: int,
        dims: Dims,
        usage: list[tuple[str, int]],
        amends: str = "",
    ) -> int:
        """Adds one event, its dimensions in the order of DIMENSIONS; returns its fingerprint.

        `amends`: JSON of what it says besides its usage, whose quantities are differences if it is a correction.
        """
        known = self._known.get(dims)
        if known is None:
            named = dict(zip(DIMENSIONS, dims, strict=True))
            known = self._known[dims] = (self._rates.narrowed(named), dims_hash(named).to_bytes(16, "little"))
        narrowed, hashed_dims = known
        fingerprint = murmur3_128(id.encode(), *words(_cached_name_hash(source)))
        payload = murmur3_128(hashed_dims + _usage_hash(usage).to_bytes(16, "little"))
        start = window_start_s("minute", event_time_us // 1_000_000)
        if amends and json.loads(amends)["kind"] == "correction":
            digest = event_digest(fingerprint, murmur3_128((payload.to_bytes(16, "little").hex() + amends).encode()))
            self._correct((start, dims), narrowed, event_time_us, dict(usage), amends, digest)
            return fingerprint
        digest = event_digest(fingerprint, payload)
        for meter, quantity in (*usage, (REQUESTS, 1)):
            row = self.minutes.get((start, dims, meter))
            if row is None:
                row = self.minutes[start, dims, meter] = Row()
            amount = self._rates.amount_femto(meter, narrowed, event_time_us, quantity, usage)
            row.quantity += quantity
            row.events += 1
            row.digest = (row.digest + digest) % _MODULUS
            if amount is None:
                row.unpriced_quantity += quantity
            else:
                row.amount_femto += amount
        return fingerprint

    def _correct(
        self,
        of: tuple[int, Dims],
        narrowed: Dims,
        event_time_us: int,
        change: dict[str, int],
        amends: str,
        digest: int,
    ) -> None:
        """A correction: what its event or window costs afterwards, less what it cost before; it is no event itself."""
        before: dict[str, int] | None = json.loads(amends)["corrects"].get("usage")
        requests = change.pop(REQUESTS, 0)
        if before is None:
            before = {meter: -quantity for meter, quantity in change.items() if quantity < 0}
        after = dict(before)
        for meter, quantity in change.items():
            after[meter] = after.get(meter, 0) + quantity
        for meter in (*after, REQUESTS):
            row = self.minutes.setdefault((*of, meter), Row())
            row.digest = (row.digest + digest) % _MODULUS
        for sign, usage in ((1, after), (-1, before | ({REQUESTS: -requests} if requests else {}))):
            for meter, quantity in usage.items():
                row = self.minutes[*of, meter]
                items = list(usage.items())
                amount = self._rates.amount_femto(meter, narrowed, event_time_us, quantity, items)
                row.quantity += sign * quantity
                row.unpriced_quantity += sign * quantity if amount is None else 0
                row.amount_femto += sign * (amount or 0)

    def grains(self) -> Iterator[tuple[str, Rows]]:
        """The rows of each view, finest first."""
        made: dict[str, Rows] = {"minute": self.minutes}
        yield "minute", self.minutes
        for grain, finer in _FINER.items():
            made[grain] = coarser(made[finer], finer, grain)
            yield grain, made[grain]


def coarser(rows: Rows, finer: str, grain: str) -> Rows:
    """The rows of one grain, added up from those of a finer one."""
    picked = [GRAINS[finer].index(name) for name in GRAINS[grain]]
    all_of_them = GRAINS[finer] == GRAINS[grain]
    starts: dict[int, int] = {}
    sums: Rows = {}
    for (finer_start, finer_dims, meter), row in rows.items():
        start = starts.get(finer_start)
        if start is None:
            start = starts[finer_start] = window_start_s(grain, finer_start)
        dims = finer_dims if all_of_them else tuple(finer_dims[n] for n in picked)
        total = sums.get((start, dims, meter))
        if total is None:
            total = sums[start, dims, meter] = Row()
        total.add(row)
    return sums


def _usage_hash(usage: list[tuple[str, int]]) -> int:
    """`hashing.usage_hash`, with its terms remembered."""
    return sum(_usage_term(meter, quantity) for meter, quantity in usage) % _MODULUS


@lru_cache(maxsize=1 << 17)
def _usage_term(meter: str, quantity: int) -> int:
    return usage_hash([(meter, quantity)])
