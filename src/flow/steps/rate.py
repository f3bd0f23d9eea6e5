"""Quantity x price: where tokens become money.

The price book's few thousand distinctions become *classes* here (a number a row for each narrowing dimension), and each
combination of classes that is met is resolved once; the multiplication itself is `_core/rate.pyx`.
"""

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from ..kernels import CLASS_BITS, Amounts, RateTable
from ..prices.book import PriceBook
from ..schema import REQUESTS
from .deduplicate import Judged

_CLASSED = ("customer", "model", "region", "service_tier")


@dataclass(frozen=True, slots=True)
class Rated:
    """A judged batch with the amounts of its accepted rows."""

    judged: Judged
    amounts: Amounts


class Rater:
    """A price book, compiled as far as it has been needed."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book
        self._meters = [REQUESTS, *sorted((book.meters | book.unbilled) - {REQUESTS})]
        self._meter_numbers = {name: number for number, name in enumerate(self._meters)}
        self._named = [pa.array(sorted(book.named.get(name, ())), pa.string()) for name in _CLASSED]
        for name, values, bits in zip(_CLASSED, self._named, CLASS_BITS, strict=True):
            if len(values) >= 1 << bits:
                raise ValueError(f"a price book can name at most {(1 << bits) - 1} values of {name}")
        self._table = RateTable(len(self._meters))
        self._timelines: dict[tuple[tuple[int, int], ...], int] = {}

    def rate(self, judged: Judged) -> Rated:
        """Rates the accepted rows by the price in force at each event's time. Raises OverflowStop."""
        events = judged.routed.events
        rows, count = judged.accepted
        classes = tuple(self._classes(events.column(name), n) for n, name in enumerate(_CLASSED))
        meters = events.column("usage").values.field("meter").dictionary.to_pylist()
        meter_map = pa.array([self._meter_numbers.get(name, -1) for name in meters], pa.int32()).buffers()[1]
        while True:
            amounts, missing = self._table.rate(
                events, rows, count, _CLASSED, classes, meter_map or pa.allocate_buffer(0)
            )
            if not missing:
                return Rated(judged, amounts)
            for combination in missing:
                self._table.add_combination(combination, self._resolve(combination))

    def _classes(self, column: pa.DictionaryArray, n: int) -> pa.Buffer:
        """int32 class of each dictionary value: its place among the values that the book names, counted from 1; else
        0."""
        if not len(self._named[n]) or not len(column.dictionary):
            return pa.py_buffer(bytes(4 * max(len(column.dictionary), 1)))
        place = pc.index_in(column.dictionary, value_set=self._named[n])
        return pc.fill_null(pc.add(place, pa.scalar(1, pa.int32())), pa.scalar(0, pa.int32())).buffers()[1]

    def _resolve(self, combination: int) -> list[int]:
        """The timeline of each book meter for one combination of classes."""
        names = {}
        for n in reversed(range(len(_CLASSED))):
            number = combination & ((1 << CLASS_BITS[n]) - 1)
            combination >>= CLASS_BITS[n]
            # No price can name the empty string: it stands for every value outside the book.
            names[_CLASSED[n]] = self._named[n][number - 1].as_py() if number else ""
        return [self._timeline(self._book.timeline(meter, **names), meter) for meter in self._meters]

    def _timeline(self, steps: tuple[tuple[int, int], ...], meter: str) -> int:
        if not steps:
            unbilled = meter == REQUESTS or meter in self._book.unbilled
            return RateTable.UNBILLED if unbilled else RateTable.UNPRICED
        if steps not in self._timelines:
            self._timelines[steps] = self._table.add_timeline(list(steps))
        return self._timelines[steps]
