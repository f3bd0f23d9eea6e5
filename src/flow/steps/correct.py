"""What a re-rating changes, as correction deltas: rows for the rollups whose events and digests are 0.

Usage before and after is compared item by item. What changed goes through the combiner of a run, as if it were events.
An item whose amount is counted in the same unit as before brings the difference of its amounts. One that was unpriced
and has a price now, or whose amount is counted in another unit, moves: quantity and amount leave the slot where they
were, and arrive in the new one (docs/decisions/015-rerating.md).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..errors import OverflowStop
from ..kernels import PER_SHIFT, Amounts, Combiner, identify, usage_lists
from ..schema import DIMENSIONS, EVENTS
from .amend import without_events
from .combine import Rollup, TableRows, Tables
from .corrections import Corrections, CorrectionSums
from .rate import Rater
from .wide import halves, is_not_zero

ROWS_PER_TABLE_MAX = 1_000_000
UNPRICED = 0
"""In place of a denominator."""
_FLAG_UNPRICED = 1


class Cost(NamedTuple):
    """What the usage of a batch costs by one book."""

    amounts: Any
    """(items, 2) uint64: the low and the high half of a signed 128-bit amount in units of 10^-15 / per."""
    per: Any
    """int64 an item: the denominator of its unit; UNPRICED: it has no price."""
    requests: Any
    """(rows, 2) uint64: amounts of the implicit meter in 10^-15."""


def cost_of(rater: Rater, events: pa.RecordBatch) -> Cost:
    """What all of EVENTS cost. Raises OverflowStop, ConfigError."""
    amounts = rater.plain_amounts(events, None, events.num_rows)
    return cost_from(events, amounts, rater.pers)


def cost_from(events: pa.RecordBatch, amounts: Amounts, pers: Any) -> Cost:
    """The cost of EVENTS that were rated, all rows of them."""
    items = len(events.column("usage").values)
    flags = np.frombuffer(amounts.flags, np.uint8)[:items]
    per_of_flag = np.repeat(np.array(pers, np.int64), 1 << PER_SHIFT)
    per_of_flag[_FLAG_UNPRICED] = UNPRICED
    return Cost(halves(amounts.amounts, items), per_of_flag[flags], halves(amounts.requests, events.num_rows))


class Corrector:
    """The correction deltas of one block."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._combiner = Combiner(currency)
        self._sums = CorrectionSums()
        self.rows = 0
        """Rows that were added since the block began: it has no more groups than that."""

    def add(self, events: pa.RecordBatch, before: Cost, after: Cost) -> None:
        """Adds what differs. Raises OverflowStop."""
        quantity = events.column("usage").values.field("quantity").to_numpy()
        amounts = _minus(after.amounts, before.amounts)
        requests = _minus(after.requests, before.requests)
        moved = before.per != after.per
        if not moved.any():
            self._take(events, is_not_zero(amounts), requests, np.zeros_like(quantity), amounts, after.per)
            return
        # A quantity of 0 costs nothing by any price, but may be a minute's in which corrections took all of it away.
        moved &= (quantity != 0) | is_not_zero(before.amounts) | is_not_zero(after.amounts)
        chosen = moved | ((before.per == after.per) & is_not_zero(amounts))
        arriving = np.where(moved[:, None], after.amounts, amounts)
        self._take(events, chosen, requests, np.where(moved, quantity, 0), arriving, after.per)
        leaving = _minus(np.zeros_like(before.amounts), before.amounts)
        self._take(events, moved, np.zeros_like(requests), -quantity, leaving, before.per)

    def _take(
        self, events: pa.RecordBatch, chosen: Any, requests: Any, quantities: Any, amounts: Any, per: Any
    ) -> None:
        """Puts the chosen items, and all requests that are not 0, into the combiner, as events of their rows."""
        usage = events.column("usage")
        row_of_item = np.repeat(np.arange(events.num_rows), np.diff(usage.offsets.to_numpy()))
        per_row = np.bincount(row_of_item[chosen], minlength=events.num_rows)
        rows = np.flatnonzero((per_row > 0) | is_not_zero(requests))
        if not len(rows):
            return
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(per_row[rows], out=offsets[1:])
        meter = usage.values.field("meter")
        items = int(offsets[-1])
        codes, names = _named_by_unit(meter.indices.to_numpy()[chosen], meter.dictionary, per[chosen])
        picked = pa.array(rows)
        columns = {
            "id": pa.repeat(pa.scalar(""), len(rows)),
            "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([""])),
            "event_time_us": events.column("event_time_us").take(picked),
            **{name: events.column(name).take(picked) for name in DIMENSIONS},
            "usage": usage_lists(
                len(rows),
                pa.py_buffer(offsets),
                pa.py_buffer(codes),
                pa.py_buffer(np.ascontiguousarray(quantities[chosen])),
                items,
                names,
            ),
            "position": pa.array(np.zeros(len(rows), np.int64)),
        }
        deltas = pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)
        cost = Amounts(
            pa.py_buffer(np.ascontiguousarray(amounts[chosen])),
            pa.py_buffer(np.where(per[chosen] == UNPRICED, _FLAG_UNPRICED, 0).astype(np.uint8)),
            pa.py_buffer(np.ascontiguousarray(requests[rows])),
        )
        self._combiner.add(deltas, identify(deltas), cost, None, len(rows))
        self.rows += len(rows)

    def cut(self) -> Tables:
        """The rows of the block for the rollups; behind them `corrections` tells them once more, and the next block
        begins. Raises OverflowStop."""
        self._combiner.cut()
        rollup = Rollup(self._combiner, self._currency)
        for table, day in (("rollup_minute", False), ("rollup_day", True)):
            for found in rollup.files(day, ROWS_PER_TABLE_MAX):
                yield table, TableRows(found.schema, self._corrected(found, keep=not day))

    def _corrected(self, rows: TableRows, *, keep: bool) -> Iterator[pa.RecordBatch]:
        for batch in rows.batches:
            corrected = without_events(batch)
            if keep:
                self._sums.add(corrected)
            yield corrected

    def corrections(self) -> Corrections:
        """What the block that was cut last adds up to."""
        found = self._sums.cut()
        self._combiner.clear()
        self.rows = 0
        return found


def _named_by_unit(codes: Any, names: pa.Array, per: Any) -> tuple[Any, pa.Array]:
    """int32 codes of meters, and the names that they are for: `meter/per` where the unit is none of 10^-15."""
    pers = [int(one) for one in np.unique(per) if one > 1]
    if not pers:
        return np.ascontiguousarray(codes), names
    place = np.where(per > 1, np.searchsorted(pers, per) + 1, 0).astype(np.int32)
    plain = names.to_pylist()
    all_names = [*plain, *(f"{name}/{one}" for one in pers for name in plain)]
    return codes + place * np.int32(len(plain)), pa.array(all_names, pa.string())


def _minus(of: Any, less: Any) -> Any:
    """of - less, of 128-bit integers in halves. Raises OverflowStop."""
    low = of[:, 0] - less[:, 0]
    high = of[:, 1] - less[:, 1] - (of[:, 0] < less[:, 0])
    if (((of[:, 1] ^ less[:, 1]) & (of[:, 1] ^ high)) >> np.uint64(63)).any():  # other signs, and not that of `of`
        raise OverflowStop("rerate: a difference of amounts would not fit in 128 bits; look for an absurd price")
    return np.stack([low, high], axis=1)
