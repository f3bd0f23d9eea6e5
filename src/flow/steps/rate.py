"""Quantity x price: where tokens become money.

The price book's few thousand distinctions become *classes* here (a number a row for each narrowing dimension); each
combination of classes that is met is resolved once, to what of the book matches it, and each match is compiled once.
The multiplication itself is `_core/rate.pyx`.

An amount whose rate is no whole number of 10^-15 currency units is counted in units of 10^-15 / per, and its meter is
called `meter/per` from here to the store, whose views divide (docs/decisions/012-fractional-rates.md).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError
from ..kernels import CLASS_BITS, PER_SHIFT, Amounts, RateTable, Rows, usage_lists
from ..prices.book import Match, PriceBook
from ..prices.price import Schedule
from ..prices.rules import Node, Rule, Switch
from ..prices.zones import week_of
from ..schema import EVENTS, REQUESTS
from .amend import CORRECTION, befores_and_afters, negated, without_requests
from .deduplicate import Judged

_CLASSED = ("customer", "model", "region", "service_tier")
_PERS_MAX = 256 >> PER_SHIFT


@dataclass(frozen=True, slots=True)
class Rated:
    """A judged batch with the amounts of its accepted rows."""

    judged: Judged
    amounts: Amounts
    events: pa.RecordBatch
    """The judged events, with the meters under the names that tell the unit of each amount: `meter` for 10^-15
    currency units, `meter/per` for 10^-15 / per. Of corrections: what comes in the place of what is taken away."""
    taken: "Taken | None" = None
    """Of corrections: what is taken away."""


class Taken(NamedTuple):
    """Usage and amounts below 0, row by row of the batch that they are taken away by."""

    events: pa.RecordBatch
    amounts: Amounts


class Rater:
    """A price book, compiled as far as it has been needed. One thread at a time."""

    def __init__(self, book: PriceBook) -> None:
        self.book = book
        sold = book.meters - {REQUESTS}
        # Meters with prices first: the kernel then finds what an event needs close together.
        self._meters = [REQUESTS, *sorted(sold), *sorted((book.deciding | book.unbilled) - sold - {REQUESTS})]
        self._meter_numbers = {name: number for number, name in enumerate(self._meters)}
        self._named = [pa.array(sorted(book.named.get(name, ())), pa.string()) for name in _CLASSED]
        for name, values, bits in zip(_CLASSED, self._named, CLASS_BITS, strict=True):
            if len(values) >= 1 << bits:
                raise ConfigError(f"a price book can name at most {(1 << bits) - 1} values of {name}")
        self._table = RateTable(len(self._meters))
        self._profiled = self._tell_profiles()
        self._vectors: dict[Match, int] = {}
        self._timelines: dict[tuple[tuple[int, Node], ...], int] = {}
        self._rules: dict[Node, int] = {None: RateTable.UNPRICED}
        self._schedules: dict[Schedule, int] = {}
        self._contexts: dict[tuple[str, ...], int] = {}
        self._pers = [1]  # by number

    def rate(self, judged: Judged) -> Rated:
        """Rates the accepted rows by the price in force at each event's time. Raises OverflowStop, ConfigError."""
        amends = judged.routed.amends
        if amends is not None and amends.kind == CORRECTION:
            return self._rate_corrections(judged)
        amounts, events = self.amounts(judged.routed.events, *judged.accepted)
        return Rated(judged, amounts, events)

    def _rate_corrections(self, judged: Judged) -> Rated:
        """What each correction puts in the place of what, both as events of its time; neither is a request."""
        amends = judged.routed.amends
        assert amends is not None  # the caller looked
        befores, afters = befores_and_afters(judged.routed.events, amends)
        taken, taken_events = self.amounts(befores, None, befores.num_rows)
        put, put_events = self.amounts(afters, *judged.accepted)
        return Rated(
            judged,
            without_requests(put),
            put_events,
            Taken(*negated(taken_events, without_requests(taken))),
        )

    def amounts(self, events: pa.RecordBatch, rows: Rows, count: int) -> tuple[Amounts, pa.RecordBatch]:
        """The amounts of the selected rows, and the events with the meters under the names that tell their units."""
        amounts = self.plain_amounts(events, rows, count)
        return amounts, self._named_by_unit(events, amounts)

    @property
    def pers(self) -> Sequence[int]:
        """The denominators of the units of amounts, each at the place that flags have above PER_SHIFT."""
        return self._pers

    def plain_amounts(self, events: pa.RecordBatch, rows: Rows, count: int) -> Amounts:
        """The amounts of the selected rows; their flags, with `pers`, tell the unit of each.

        Raises OverflowStop, ConfigError.
        """
        classes = tuple(self._classes(events.column(name), n) for n, name in enumerate(_CLASSED))
        meters = events.column("usage").values.field("meter").dictionary.to_pylist()
        meter_map = pa.array([self._meter_numbers.get(name, -1) for name in meters], pa.int32()).buffers()[1]
        while True:
            amounts, missing = self._table.rate(
                events, rows, count, _CLASSED, classes, meter_map or pa.allocate_buffer(0)
            )
            if not missing:
                return amounts
            for combination in missing:
                self._table.add_combination(combination, self._vector(self._match(combination)))

    def _classes(self, column: pa.DictionaryArray, n: int) -> pa.Buffer | None:
        """int32 class of each dictionary value: its place among the values that the book names, counted from 1; else
        0. None: 0 for all."""
        if not len(self._named[n]) or not len(column.dictionary):
            return None
        place = pc.index_in(column.dictionary, value_set=self._named[n])
        return pc.fill_null(pc.add(place, pa.scalar(1, pa.int32())), pa.scalar(0, pa.int32())).buffers()[1]

    def _named_by_unit(self, events: pa.RecordBatch, amounts: Amounts) -> pa.RecordBatch:
        """The events with `meter/per` as the name of each meter whose amount is in units of 10^-15 / per."""
        if len(self._pers) == 1:
            return events
        usage = events.column("usage")
        meter = usage.values.field("meter")
        # Rows that are not rated have arbitrary flags; nobody reads their names.
        numbers = (np.frombuffer(amounts.flags, np.uint8) >> PER_SHIFT).astype(np.int32) % len(self._pers)
        if not numbers.any():
            return events
        names = meter.dictionary.to_pylist()
        all_names = [*names, *(f"{name}/{per}" for per in self._pers[1:] for name in names)]
        codes = np.frombuffer(meter.indices.buffers()[1], np.int32, len(meter)) + numbers * np.int32(len(names))
        named = usage_lists(
            events.num_rows,
            usage.buffers()[1],
            pa.py_buffer(codes),
            usage.values.field("quantity").buffers()[1],
            len(meter),
            pa.array(all_names, pa.string()),
        )
        columns = [named if name == "usage" else events.column(name) for name in EVENTS.names]
        return pa.RecordBatch.from_arrays(columns, schema=EVENTS)

    # -- compiling

    def _tell_profiles(self) -> list[str]:
        """Tells the table which customers are alike where no row names their model; returns one customer of each kind,
        whose classes follow those of the customers."""
        customers, models = ({name: n for n, name in enumerate(of.to_pylist(), 1)} for of in self._named[:2])
        profiles = self.book.profiles()
        kinds: dict[object, tuple[int, str]] = {}
        numbers = [0] * (len(customers) + 1)
        for customer, number in customers.items():
            said = profiles[customer]
            if said:
                kind = kinds.setdefault(said, (len(kinds) + len(customers) + 1, customer))
                numbers[number] = kind[0]
        pairs = [(customers[customer], models[model]) for customer, model in self.book.pairs()]
        self._table.tell_profiles(numbers, pairs)
        return [customer for _, customer in kinds.values()]

    def _match(self, combination: int) -> Match:
        """What of the book is for one combination of classes."""
        names, pairs = {}, True
        for n in reversed(range(len(_CLASSED))):
            number = combination & ((1 << CLASS_BITS[n]) - 1)
            combination >>= CLASS_BITS[n]
            named = self._named[n]
            # No price can name the empty string: it stands for every value outside the book.
            names[_CLASSED[n]] = named[number - 1].as_py() if 0 < number <= len(named) else ""
            if number > len(named):
                names[_CLASSED[n]], pairs = self._profiled[number - len(named) - 1], False
        selector = (names["model"], names["service_tier"], names["region"], names["customer"])
        return self.book.match(selector, pairs=pairs)

    def _vector(self, match: Match) -> int:
        """The number of the timelines of all book meters for one match."""
        vector = self._vectors.get(match)
        if vector is None:
            timelines = [self._timeline(meter, match) for meter in self._meters]
            vector = self._vectors[match] = self._table.add_vector(timelines)
        return vector

    def _timeline(self, meter: str, match: Match) -> int:
        steps = self.book.timeline_of(meter, match)
        if not steps:
            unbilled = meter == REQUESTS or meter in self.book.unbilled
            return RateTable.UNBILLED if unbilled else RateTable.UNPRICED
        number = self._timelines.get(steps)
        if number is None:
            compiled = [(from_us, self._rule(node)) for from_us, node in steps]
            number = self._timelines[steps] = self._table.add_timeline(compiled)
        return number

    def _rule(self, node: Node) -> int:
        number = self._rules.get(node)
        if number is None:
            if isinstance(node, Switch):
                within, otherwise = self._rule(node.within), self._rule(node.otherwise)
                number = self._table.add_choice(self._schedule(node.schedule), within, otherwise)
            else:
                assert node is not None  # which is in the table from the beginning
                number = self._rate(node)
            self._rules[node] = number
        return number

    def _rate(self, rule: Rule) -> int:
        per = rule.per
        if per not in self._pers:
            if len(self._pers) == _PERS_MAX:
                raise ConfigError(f"the rates of the price book have more than {_PERS_MAX} denominators")
            self._pers.append(per)
        number = self._pers.index(per)
        rates = [int(cell * per) for cell in rule.cells]
        if rule == Rule(rule.cells[:1]):
            return self._table.add_rate(rates[0], number)
        return self._table.add_grid(
            rates,
            number,
            list(rule.thresholds),
            self._context(rule.context) if rule.thresholds else -1,
            rule.part,
            rule.package,
            [self._meter_numbers[meter] for meter in rule.times],
            [(self._meter_numbers[table.meter], list(table.values), table.otherwise) for table in rule.tables],
        )

    def _schedule(self, schedule: Schedule) -> int:
        if schedule not in self._schedules:
            week = week_of(schedule)
            self._schedules[schedule] = self._table.add_schedule(
                list(week.instants), list(week.offsets), week.today, week.after, list(week.holidays)
            )
        return self._schedules[schedule]

    def _context(self, meters: tuple[str, ...]) -> int:
        if meters not in self._contexts:
            places = {meter: place for place, meter in enumerate(meters, 1)}
            self._contexts[meters] = self._table.add_context([places.get(meter, 0) for meter in self._meters])
        return self._contexts[meters]
