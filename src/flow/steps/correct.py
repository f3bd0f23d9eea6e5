"""What a re-rating changes, as correction deltas: rows for the rollups whose events and digests are 0.

Usage before and after is compared item by item. What changed goes through the combiner of a run, as if it were events:
the quantity of an item that was unpriced and has a price now leaves the unpriced slot and arrives in the priced one,
and the amount grows by the difference (docs/decisions/015-rerating.md).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import OverflowStop
from ..kernels import SLOTS, Amounts, Combiner, identify, usage_lists
from ..schema import DIMENSIONS, EVENTS, REQUESTS
from .combine import Rollup, TableRows, Tables, table_rows

ROWS_PER_TABLE_MAX = 1_000_000
_UNPRICED = 1
_WIDE = pa.decimal256(76, 0)
_COUNT = pa.decimal128(38, 0)


class Cost(NamedTuple):
    """What the usage of a batch costs by one book."""

    amounts: Any
    """(items, 2) uint64: the low and the high half of a signed 128-bit amount in femto-units."""
    unpriced: Any
    """int64 an item: the part of its quantity that has no price."""
    requests: Any
    """(rows, 2) uint64: amounts of the implicit meter."""


def cost_of(events: pa.RecordBatch, amounts: Amounts) -> Cost:
    """The cost of EVENTS that were rated, all rows of them."""
    quantity = events.column("usage").values.field("quantity").to_numpy()
    items = len(quantity)
    flags = np.frombuffer(amounts.flags, np.uint8)[:items]
    return Cost(
        halves(amounts.amounts, items),
        np.where(flags == _UNPRICED, quantity, 0),
        halves(amounts.requests, events.num_rows),
    )


def halves(wide: pa.Buffer, count: int) -> Any:
    """128-bit integers as their two halves."""
    return np.frombuffer(wide, np.uint64)[: 2 * count].reshape(-1, 2)


class Corrector:
    """The correction deltas of one block."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._combiner = Combiner(currency)
        self._kept: list[pa.Table] = []
        self._meters: dict[str, int] = {}
        self._customers = pa.array([], pa.string())
        self.rows = 0
        """Rows that were added since the block began: it has no more groups than that."""

    def add(self, events: pa.RecordBatch, before: Cost, after: Cost) -> None:
        """Adds what differs. Raises OverflowStop."""
        amounts = _minus(after.amounts, before.amounts)
        requests = _minus(after.requests, before.requests)
        unpriced = after.unpriced - before.unpriced
        costs_other = amounts.any(axis=1)
        moved = unpriced != 0
        self._take(events, costs_other | moved, requests, -unpriced, amounts, 0)
        if moved.any():
            self._take(events, moved, np.zeros_like(requests), unpriced, np.zeros_like(amounts), _UNPRICED)

    def _take(
        self, events: pa.RecordBatch, chosen: Any, requests: Any, quantities: Any, amounts: Any, flag: int
    ) -> None:
        """Puts the chosen items, and all requests that are not 0, into the combiner, as events of their rows."""
        usage = events.column("usage")
        row_of_item = np.repeat(np.arange(events.num_rows), np.diff(usage.offsets.to_numpy()))
        per_row = np.bincount(row_of_item[chosen], minlength=events.num_rows)
        rows = np.flatnonzero((per_row > 0) | requests.any(axis=1))
        if not len(rows):
            return
        offsets = np.zeros(len(rows) + 1, np.int32)
        np.cumsum(per_row[rows], out=offsets[1:])
        meter = usage.values.field("meter")
        items = int(offsets[-1])
        picked = pa.array(rows)
        columns = {
            "id": pa.repeat(pa.scalar(""), len(rows)),
            "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(rows), np.int32)), pa.array([""])),
            "event_time_us": events.column("event_time_us").take(picked),
            **{name: events.column(name).take(picked) for name in DIMENSIONS},
            "usage": usage_lists(
                len(rows),
                pa.py_buffer(offsets),
                pa.py_buffer(np.ascontiguousarray(meter.indices.to_numpy()[chosen])),
                pa.py_buffer(np.ascontiguousarray(quantities[chosen])),
                items,
                meter.dictionary,
            ),
            "position": pa.array(np.zeros(len(rows), np.int64)),
        }
        deltas = pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)
        cost = Amounts(
            pa.py_buffer(np.ascontiguousarray(amounts[chosen])),
            pa.py_buffer(np.full(items, flag, np.uint8)),
            pa.py_buffer(np.ascontiguousarray(requests[rows])),
        )
        self._combiner.add(deltas, identify(deltas), cost, None, len(rows))
        self.rows += len(rows)

    def cut(self) -> Tables:
        """The rows of the block for the rollups; behind them `differences` tells them once more, and the next block
        begins. Raises OverflowStop."""
        self._combiner.cut()
        rollup = Rollup(self._combiner, self._currency)
        for table, day in (("rollup_minute", False), ("rollup_day", True)):
            for found in rollup.files(day, ROWS_PER_TABLE_MAX):
                yield table, TableRows(found.schema, self._corrected(found, keep=not day))

    def _corrected(self, rows: TableRows, *, keep: bool) -> Iterator[pa.RecordBatch]:
        for batch in rows.batches:
            corrected = _without_events(batch)
            if keep:
                self._keep(corrected)
            yield corrected

    def _keep(self, batch: pa.RecordBatch) -> None:
        """Remembers what is in the slots of minute rows; customers and meters as numbers, for speed."""
        rows, meters, unpriced = batch.num_rows, batch.column("meters"), batch.column("unpriced").to_numpy()
        names = [text.split(",") for text in meters.dictionary.to_pylist()]
        self._customers = batch.column("customer").dictionary  # the same for the whole block
        codes = batch.column("customer").indices.to_numpy().astype(np.int32)
        for slot in range(SLOTS):
            amounts = batch.column(f"a{slot}").buffers()[1]
            quantities = halves(batch.column(f"q{slot}").buffers()[1], rows)
            moved = np.where((unpriced >> slot & 1).astype(bool)[:, None], quantities, np.uint64(0))
            chosen = (halves(amounts, rows) | moved).any(axis=1)
            if not chosen.any():
                continue
            numbers = [self._meters.setdefault(of_row[slot], len(self._meters)) for of_row in names]
            wanted = pa.array(chosen)
            columns = {
                "customer": pa.array(codes[chosen]),
                "window_start": batch.column("window_start").filter(wanted),
                "meter": pa.array(np.array(numbers, np.int32)[meters.indices.to_numpy()[chosen]]),
                "unpriced_quantity": pa.Array.from_buffers(
                    _COUNT, int(chosen.sum()), [None, pa.py_buffer(np.ascontiguousarray(moved[chosen]))]
                ),
                "amount": pa.Array.from_buffers(_COUNT, rows, [None, amounts]).filter(wanted),
            }
            self._kept.append(pa.table({name: _wider(column) for name, column in columns.items()}))

    def differences(self) -> pa.Table:
        """customer, window_start (seconds), meter, unpriced_quantity, amount: sums of the block that was cut last."""
        found = added_up(pa.concat_tables(self._kept)) if self._kept else NOTHING
        for name, values in (("customer", self._customers), ("meter", pa.array(list(self._meters), pa.string()))):
            place = found.schema.get_field_index(name)
            found = found.set_column(place, name, values.take(found[name].combine_chunks()))
        self._kept, self._meters = [], {}
        self._combiner.clear()
        self.rows = 0
        return found


def added_up(differences: pa.Table) -> pa.Table:
    """Differences, one row for each of their keys; those that add up to nothing are left out."""
    keys, sums = ["customer", "window_start", "meter"], ["unpriced_quantity", "amount"]
    added = differences.group_by(keys, use_threads=False).aggregate([(name, "sum") for name in sums])
    added = added.select([*keys, *(f"{name}_sum" for name in sums)]).rename_columns([*keys, *sums])
    return added.filter(pc.or_(*(pc.not_equal(added[name], pa.scalar(0, _WIDE)) for name in sums)))


def correction_rows(differences: pa.Table, said: dict[str, Any]) -> Iterator[tuple[str, TableRows]]:
    """Rows of the table `corrections`; `said`: the columns that are the same in all of them."""
    for first in range(0, differences.num_rows, ROWS_PER_TABLE_MAX):
        table = differences.slice(first, ROWS_PER_TABLE_MAX).combine_chunks()
        rows = table.num_rows
        columns = {name: pa.repeat(pa.scalar(value), rows) for name, value in said.items()}
        columns |= {name: table[name].combine_chunks() for name in ("customer", "window_start", "meter")}
        columns["quantity"] = _from_wide(pa.repeat(pa.scalar(0, _WIDE), rows), pa.binary(16))
        columns["unpriced_quantity"] = _from_wide(table["unpriced_quantity"].combine_chunks(), pa.binary(16))
        columns["amount"] = _from_wide(table["amount"].combine_chunks(), pa.decimal128(38, 15))
        yield "corrections", table_rows(pa.table(columns))


def _from_wide(numbers: pa.Array, kind: pa.DataType) -> pa.Array:
    """The same 16 bytes a number, by another name."""
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.concat_arrays([numbers.cast(_COUNT)]).buffers()[1]])


def _without_events(batch: pa.RecordBatch) -> pa.RecordBatch:
    """A row of the combiner counts the deltas in it as events: they are none."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    rows = batch.num_rows
    meters = batch.column("meters")
    begins = pc.starts_with(meters.dictionary, f"{REQUESTS},").to_numpy(zero_copy_only=False)
    columns["events"] = pa.array(np.zeros(rows, np.uint64))
    columns["digest"] = _zeros(rows)
    counts = begins[meters.indices.to_numpy()]
    quantity = halves(batch.column("q0").buffers()[1], rows)
    columns["q0"] = pa.Array.from_buffers(
        pa.binary(16), rows, [None, pa.py_buffer(np.where(counts[:, None], np.uint64(0), quantity))]
    )
    return pa.RecordBatch.from_arrays([columns[name] for name in batch.schema.names], schema=batch.schema)


def _zeros(rows: int) -> pa.Array:
    return pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(bytes(16 * rows))])


def _wider(column: pa.Array) -> pa.Array:
    """Numbers with room for their sum."""
    return column.cast(_WIDE) if pa.types.is_decimal(column.type) else column


NOTHING = pa.table(
    {
        "customer": pa.array([], pa.int32()),
        "window_start": pa.array([], pa.uint32()),
        "meter": pa.array([], pa.int32()),
        "unpriced_quantity": pa.array([], _WIDE),
        "amount": pa.array([], _WIDE),
    }
)


def _minus(of: Any, less: Any) -> Any:
    """of - less, of 128-bit integers in halves. Raises OverflowStop."""
    low = of[:, 0] - less[:, 0]
    high = of[:, 1] - less[:, 1] - (of[:, 0] < less[:, 0])
    if (((of[:, 1] ^ less[:, 1]) & (of[:, 1] ^ high)) >> np.uint64(63)).any():  # other signs, and not that of `of`
        raise OverflowStop("rerate: a difference of amounts would not fit in 128 bits; look for an absurd price")
    return np.stack([low, high], axis=1)
