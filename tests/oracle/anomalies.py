"""What is out of line, in plain Python: a list of numbers for each name, and one event after the other.

The twin of flow/anomalies: the same rules, said once more with whole histories and exact integers.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flow.config import Anomalies

HOUR_US = 3_600_000_000
RING = 24
PPM = 1_000_000


class Arrived(NamedTuple):
    """An event as it was judged."""

    time_us: int
    customer: str
    model: str
    source: str
    accepted: bool
    """Or a duplicate."""
    quantity: int
    amount_femto: int
    unpriced: bool


Flag = tuple[str, int, str, str]
"""(kind, hour, who, unit); who is customer, model or source, or customer/model."""


def level(number: int) -> int:
    """floor(16 log2 number), -1 for 0."""
    return (number**16).bit_length() - 1 if number > 0 else -1


@dataclass
class Ring:
    """Levels of the last 24 hours in which there was something."""

    levels: list[int] = field(default_factory=list)
    out: int = 0
    """Hours that an episode goes on for."""
    peak: int = 0
    """The highest ever, in 24ths of a level, of which it loses one an hour."""

    @property
    def full(self) -> bool:
        return len(self.levels) == RING

    @property
    def median(self) -> int:
        return sorted(self.levels)[len(self.levels) // 2] if self.levels else -1

    def push(self, number: int) -> None:
        if number != -1:
            self.levels = [*self.levels, number][-RING:]

    def above(self, seen: int, steps: int, peak_steps: int, judged: bool) -> bool:
        """Whether to tell of it; learns it."""
        high = max(self.median + steps, max(self.levels, default=-1) + peak_steps, self.peak // RING)
        beyond = self.full and seen > high and judged
        told = self._begins(beyond)
        learnt = high if beyond else seen
        self.peak = max(learnt * RING, self.peak - 1, 0)
        self.push(learnt)
        return told

    def _begins(self, beyond: bool) -> bool:
        told = beyond and not self.out
        self.out = 6 if beyond else max(self.out - 1, 0)
        return told

    def outside(self, seen: int, steps: int) -> bool:
        """The same in both directions, for what is judged."""
        high = max(self.median + steps, max(self.levels, default=-1) + steps // 2)
        low = min(self.median - steps, min(self.levels, default=-1) - steps // 2)
        beyond = self.full and not low <= seen <= high
        told = self._begins(beyond)
        self.push(min(max(seen, low, 0), high) if beyond else seen)
        return told


@dataclass
class Share:
    """Parts of wholes, each losing a 24th an hour."""

    parts: int = 0
    wholes: int = 0
    hours: int = 0
    out: int = 0

    def above(self, part: int, whole: int, factor: int) -> bool:
        self.hours += 1
        ppm = max(self.parts * PPM // max(self.wholes, 1), 10_000)
        expected = whole * ppm // PPM
        beyond = self.hours >= RING and part >= 10 and part * PPM > factor * ppm * whole
        beyond = beyond and part > expected and (part - expected) ** 2 > 36 * max(expected, 1)
        told = beyond and not self.out
        self.out = self.out + 1 if beyond else 0
        if not beyond or self.out > RING:
            self.parts += part - self.parts // RING
            self.wholes += whole - self.wholes // RING
        return told


@dataclass
class Steady:
    """Hours in a row with use, and without."""

    streak: int = 0
    quiet: int = 0

    def gone(self, here: bool, hours: int, ring: Ring, least: int) -> bool:
        if here:
            self.streak = 1 if self.quiet else self.streak + 1
            self.quiet = 0
            return False
        self.quiet += 1
        return self.quiet == hours and self.streak >= RING and ring.full and min(ring.levels) >= least


@dataclass
class Customer:
    events: Ring = field(default_factory=Ring)
    amount: Ring = field(default_factory=Ring)
    unpriced: Share = field(default_factory=Share)
    steady: Steady = field(default_factory=Steady)


class Twin:
    """One writer."""

    def __init__(self, settings: Anomalies) -> None:
        self.settings = settings
        self.flags: list[Flag] = []
        self.watermark_us = -1
        self.usage: dict[int, list[Arrived]] = defaultdict(list)
        self.arrived: dict[str, list[int]] = defaultdict(lambda: [0, 0])
        self.customers: dict[str, Customer] = defaultdict(Customer)
        self.first: dict[tuple[str, str], int] = {}
        self.new_told: set[tuple[str, str]] = set()
        self.prices: dict[str, Ring] = defaultdict(Ring)
        self.stream = Ring()
        self.sources: dict[str, tuple[Ring, Share, Steady]] = {}

    def read(self, events: Iterable[Arrived]) -> list[Flag]:
        """What is told of these events, and of no hour that they do not end."""
        for event in events:
            self._read(event)
        return sorted(self.flags)

    def _read(self, event: Arrived) -> None:
        grace_us = self.settings.grace_us
        before_us = self.watermark_us
        if event.accepted:
            self.watermark_us = max(before_us, event.time_us)
            if before_us >= 0 and before_us // HOUR_US != self.watermark_us // HOUR_US:
                self._close_sources(before_us // HOUR_US)
            hour = event.time_us // HOUR_US
            if hour >= (before_us - grace_us) // HOUR_US:
                self.usage[hour].append(event)
            begin = (self.watermark_us - grace_us) // HOUR_US
            for closed in sorted(hour for hour in self.usage if hour < begin):
                self._close(closed, self.usage.pop(closed))
        self.arrived[event.source][0] += 1
        self.arrived[event.source][1] += not event.accepted

    def _steps(self, name: str) -> int:
        return level(getattr(self.settings, name))

    def _close(self, hour: int, events: Sequence[Arrived]) -> None:
        settings = self.settings
        for model in sorted({event.model for event in events}):
            self._price(hour, model, [event for event in events if event.model == model])
        of_customer: dict[str, list[Arrived]] = defaultdict(list)
        for event in events:
            of_customer[event.customer].append(event)
        for name, own in of_customer.items():
            for model in sorted({event.model for event in own}):
                self._new(hour, name, model, [event for event in own if event.model == model])
        total = level(len(events))
        alive = total > self.stream.median - 32
        self.stream.push(total)
        if alive:
            for name, known in [*self.customers.items()]:
                least = self._steps("events_min")
                if known.steady.gone(name in of_customer, settings.silence_hours, known.events, least):
                    self.flags.append(("silence", hour - settings.silence_hours + 1, name, "events"))
            for name in of_customer.keys() - self.customers.keys():
                self.customers[name].steady.gone(True, 1, Ring(), 0)
        for name, own in of_customer.items():
            self._customer(hour, name, own)

    def _customer(self, hour: int, name: str, events: Sequence[Arrived]) -> None:
        settings, known = self.settings, self.customers[name]
        spike, peak = self._steps("spike_factor"), self._steps("peak_factor")
        judged = len(events) >= settings.events_min
        seen = {"events": level(len(events)), "amount": level(sum(event.amount_femto for event in events) >> 20)}
        medians = {"events": known.events.median, "amount": known.amount.median}
        begins = not known.events.out and not known.amount.out
        told = {unit: getattr(known, unit).above(seen[unit], spike, peak, judged) for unit in seen}
        if any(told.values()) and begins:
            distance = {unit: seen[unit] - medians[unit] for unit in told if told[unit]}
            unit = max(sorted(distance), key=lambda unit: distance[unit])
            self.flags.append(("usage_spike", hour, name, unit))
        if known.unpriced.above(sum(event.unpriced for event in events), len(events), settings.share_factor):
            self.flags.append(("unpriced_rate", hour, name, "share"))

    def _new(self, hour: int, customer: str, model: str, events: Sequence[Arrived]) -> None:
        pair, known = (customer, model), self.customers.get(customer, Customer())
        first = self.first.setdefault(pair, hour)
        if pair in self.new_told or first <= hour - RING or len(events) < self.settings.events_min:
            return
        seen = {"amount": level(sum(event.amount_femto for event in events) >> 20), "events": level(len(events))}
        for unit, number in seen.items():
            ring: Ring = getattr(known, unit)
            if ring.full and number > ring.median + self._steps("new_factor") and pair not in self.new_told:
                self.new_told.add(pair)
                self.flags.append(("new_large", hour, f"{customer}/{model}", unit))

    def _price(self, hour: int, model: str, events: Sequence[Arrived]) -> None:
        amount = level(sum(event.amount_femto for event in events) >> 20)
        quantity = level(sum(event.quantity for event in events if not event.unpriced))
        if len(events) < self.settings.events_min or amount == -1:
            self.prices[model].out = max(self.prices[model].out - 1, 0)
            return
        if self.prices[model].outside(amount - quantity + 1000, self._steps("price_factor")):
            self.flags.append(("price_per_unit", hour, model, "amount/unit"))

    def _close_sources(self, hour: int) -> None:
        settings = self.settings
        new = self.arrived.keys() - self.sources.keys()
        self.sources |= {name: (Ring(), Share(), Steady()) for name in new}
        for name, (ring, share, steady) in self.sources.items():
            if steady.gone(name in self.arrived, settings.silence_hours, ring, self._steps("events_min")):
                self.flags.append(("silence", hour - settings.silence_hours + 1, name, "events"))
            if name not in self.arrived:
                continue
            events, repeats = self.arrived[name]
            if share.above(repeats, events, settings.share_factor):
                self.flags.append(("duplicate_rate", hour, name, "share"))
            judged = events >= settings.events_min
            if ring.above(level(events), self._steps("spike_factor"), self._steps("peak_factor"), judged):
                self.flags.append(("source_rate", hour, name, "events"))
        self.arrived.clear()
