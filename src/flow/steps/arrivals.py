"""What a block brings for hours that had ended before it began: from this the store can tell how much of an hour is
known at what age (docs/confidence.md).

The rows of the minute rollup pass through on their way out; those of ended hours are few where events come in order,
and only they cost more than one comparison.
"""

from collections.abc import Iterable, Iterator
from datetime import datetime

import pyarrow as pa
import pyarrow.compute as pc

from ..kernels import SLOTS
from ..schema import REQUESTS, meter_and_per

HOUR_S = 3600
_BY = ["customer", "window_start"]
_SUMS = ["events", *(f"a{slot}" for slot in range(SLOTS))]
_WIDER = pa.decimal256(60, 15)
_AMOUNT = pa.decimal128(38, 15)


class Arrivals:
    """Of one block, in the order of the store's columns."""

    def __init__(self, began_us: int) -> None:
        """`began_us`: the watermark when the block began; below 0 before the first event."""
        self._ended_before_s = max(began_us, 0) // 1_000_000 // HOUR_S * HOUR_S
        self._parts: list[pa.Table] = []
        self._customers: pa.StringArray | None = None
        self._meters: pa.StringArray | None = None

    def watch(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """Passes the batches of `rollup_minute` on; all of them have the same dictionaries."""
        for batch in batches:
            behind = pc.less(batch.column("window_start"), pa.scalar(self._ended_before_s, pa.uint32()))
            if self._ended_before_s and pc.any(behind).as_py():
                self._add(batch, behind)
            yield batch

    def _add(self, batch: pa.RecordBatch, behind: pa.BooleanArray) -> None:
        self._customers, self._meters = batch.column("customer").dictionary, batch.column("meters").dictionary
        hours = pc.multiply(pc.divide(batch.column("window_start"), HOUR_S), HOUR_S)
        codes = {name: batch.column(name).indices.cast(pa.int32()) for name in ("customer", "meters")}
        sums = {name: batch.column(name) for name in _SUMS}
        rows = pa.table({**codes, "window_start": hours.cast(pa.uint32()), **sums}).filter(behind)
        self._parts.append(_added_up(rows, [*_BY, "meters"]))

    def rows(self, currency: str, told: dict[str, str | int | datetime]) -> pa.Table | None:
        """One row a customer and hour, each with what is `told` of the block; None: nothing came behind."""
        if not self._parts or self._meters is None:
            return None
        found = _added_up(pa.concat_tables(self._parts), [*_BY, "meters"])
        names = [joined.split(",") for joined in self._meters.to_pylist()]
        # An event of more than four meters has several rows; the one with `requests` stands for it.
        counted = pa.array([of_slots[0] == REQUESTS for of_slots in names]).take(found.column("meters"))
        events = pc.if_else(counted, found.column("events"), pa.scalar(0, pa.uint64()))
        amount = pa.repeat(pa.scalar(0, _WIDER), len(found))
        for slot in range(SLOTS):
            pers = [meter_and_per(of_slots[slot])[1] for of_slots in names]
            of_slot = _in_units(found.column(f"a{slot}"), found.column("meters"), pers)
            amount = pc.add(amount, of_slot.cast(_WIDER)).cast(_WIDER)
        rows = pa.table({name: found.column(name) for name in _BY} | {"events": events, "amount": amount.cast(_AMOUNT)})
        rows = rows.group_by(_BY, use_threads=False).aggregate([("events", "sum"), ("amount", "sum")])
        rows = rows.sort_by([(name, "ascending") for name in _BY])
        codes = rows.column("customer").combine_chunks()
        columns = {
            "customer": pa.DictionaryArray.from_arrays(codes, self._customers),
            "window_start": rows.column("window_start"),
            "currency": pa.repeat(currency, len(rows)),
            "events": rows.column("events_sum"),
            "amount": rows.column("amount_sum"),
        }
        return pa.table(columns | {name: pa.repeat(value, len(rows)) for name, value in told.items()})


def _added_up(rows: pa.Table, by: list[str]) -> pa.Table:
    """Rows of a block are within 2^100 each, and far fewer than 2^27: their sums are within 128 bits."""
    found = rows.group_by(by, use_threads=False).aggregate([(name, "sum") for name in _SUMS])
    return found.rename_columns([name.removesuffix("_sum") for name in found.column_names])


def _in_units(amounts: pa.ChunkedArray, meters: pa.ChunkedArray, pers: list[int]) -> pa.ChunkedArray:
    """Amounts of `meter/per`, of which few books have any, rounded down to 10^-15 currency units; `pers` by meters."""
    if max(pers) == 1:
        return amounts
    stored = memoryview(amounts.combine_chunks().buffers()[1])
    units = [
        int.from_bytes(stored[16 * n : 16 * n + 16], "little", signed=True) // pers[code]
        for n, code in enumerate(meters.to_pylist())
    ]
    content = b"".join(unit.to_bytes(16, "little", signed=True) for unit in units)
    return pa.chunked_array([pa.Array.from_buffers(_AMOUNT, len(units), [None, pa.py_buffer(content)])])
