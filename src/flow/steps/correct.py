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

from ..kernels import PER_SHIFT, SLOTS, Amounts, Combiner, Identity, identify, usage_lists
from ..kernels.corrections import Costs, Differences, differences
from ..schema import EVENTS
from .amend import without_events
from .combine import Rollup, TableRows, Tables
from .corrections import Corrections, CorrectionSums
from .rate import Rater
from .wide import halves, is_not_zero

ROWS_PER_TABLE_MAX = 1_000_000
UNPRICED = 0
"""In place of a denominator."""
_FLAG_UNPRICED = 1
_NO_EVENTS = {"events", "digest"}
_QUANTITIES = {f"q{slot}" for slot in range(SLOTS)}
_NUMBERS = _QUANTITIES | {f"a{slot}" for slot in range(SLOTS)}


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


class Corrected(NamedTuple):
    """What a block adds up to."""

    minutes: Corrections
    days: Corrections
    rollup_amount: int
    """The sum of all amounts of its deltas, each in the unit that its meter's name in the rollups tells."""
    deltas: int
    """Rows of the rollups."""


class Corrector:
    """The correction deltas of one block."""

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._combiner = Combiner(currency)
        self._sums = {"rollup_minute": CorrectionSums(), "rollup_day": CorrectionSums()}
        self._moved = False
        self._deltas = 0

    @property
    def rows(self) -> int:
        """Rows of minutes that the block has so far."""
        return self._combiner.rows

    def add(self, events: pa.RecordBatch, before: Cost, after: Cost) -> None:
        """Adds what differs. Raises OverflowStop."""
        found = _differences(events, before, after)
        if not found.rows and not found.moved:
            return
        identity, items = identify(events), len(after.per)
        if found.moved:
            self._move(events, identity, before, after, before.per != after.per)
        # With all items of its event, a delta has the key of what was billed first, and goes into one row with it.
        changes = Cost(halves(found.amounts, items), after.per, halves(found.requests, events.num_rows))
        self._take(events, identity, (found.selection, found.rows), changes, np.zeros(items, np.int64))

    def _move(self, events: pa.RecordBatch, identity: Identity, before: Cost, after: Cost, moved: Any) -> None:
        """Has quantities and amounts leave the slots where they were, and arrive in others."""
        self._moved = True
        usage = events.column("usage")
        quantity = np.where(moved, usage.values.field("quantity").to_numpy(), 0)
        arriving, old = (np.where(moved[:, None], cost.amounts, np.uint64(0)) for cost in (after, before))
        nothing = np.zeros_like(before.requests)
        taken = _differences(events, Cost(old, after.per, nothing), Cost(np.zeros_like(old), after.per, nothing))
        leaving = halves(taken.amounts, len(old))
        # Where corrections took all of a quantity away, there is nothing to move.
        items = (quantity != 0) | is_not_zero(arriving) | is_not_zero(old)
        rows = np.flatnonzero(_rows_with(items, usage.offsets.to_numpy())).astype(np.uint32)
        selected = pa.py_buffer(rows), len(rows)
        self._take(events, identity, selected, Cost(arriving, after.per, nothing), quantity)
        self._take(events, identity, selected, Cost(leaving, before.per, nothing), -quantity)

    def _take(
        self, events: pa.RecordBatch, identity: Identity, selected: tuple[pa.Buffer, int], cost: Cost, quantity: Any
    ) -> None:
        """Puts some rows into the combiner, as events with these quantities and costs."""
        usage = events.column("usage")
        meter = usage.values.field("meter")
        codes, names = _named_by_unit(meter.indices.to_numpy(), meter.dictionary, cost.per)
        changed = usage_lists(
            events.num_rows, usage.buffers()[1], pa.py_buffer(codes), pa.py_buffer(quantity), len(codes), names
        )
        columns = [changed if name == "usage" else events.column(name) for name in EVENTS.names]
        deltas = pa.RecordBatch.from_arrays(columns, schema=EVENTS)
        flags = np.where(cost.per == UNPRICED, _FLAG_UNPRICED, 0).astype(np.uint8)
        amounts = Amounts(*(pa.py_buffer(numbers) for numbers in (cost.amounts, flags, cost.requests)))
        self._combiner.add(deltas, identity, amounts, *selected)

    def cut(self) -> Tables:
        """The rows of the block for the rollups; behind them `corrected` tells them once more, and the next block
        begins. Raises OverflowStop."""
        self._combiner.cut()
        rollup = Rollup(self._combiner, self._currency)
        for table, day in (("rollup_minute", False), ("rollup_day", True)):
            for found in rollup.files(day, ROWS_PER_TABLE_MAX):
                left_out = _NO_EVENTS if self._moved else _NO_EVENTS | _QUANTITIES
                names = [name for name in found.schema.names if name not in left_out]
                schema = pa.schema([found.schema.field(name) for name in names])
                yield table, TableRows(schema, self._corrected(table, found, names))

    def _corrected(self, table: str, rows: TableRows, names: list[str]) -> Iterator[pa.RecordBatch]:
        """Without columns that are 0 in all rows, and without rows in which all is 0: what moved there and away."""
        for batch in rows.batches:
            corrected = (without_events(batch) if self._moved else batch).select(names)
            differs = np.zeros(batch.num_rows, bool)
            for name in _NUMBERS.intersection(names):
                differs |= is_not_zero(halves(corrected.column(name).buffers()[1], batch.num_rows))
            if not differs.all():
                corrected = corrected.filter(pa.array(differs))
            if corrected.num_rows:
                self._sums[table].add(corrected)
                self._deltas += corrected.num_rows
                yield corrected

    def corrected(self) -> Corrected:
        """What the block that was cut last adds up to."""
        rollup_amount = self._sums["rollup_day"].units()
        minutes, days = (self._sums[table].cut() for table in ("rollup_minute", "rollup_day"))
        found = Corrected(minutes, days, rollup_amount, self._deltas)
        self._combiner.clear()
        self._moved, self._deltas = False, 0
        return found


def _rows_with(items: Any, offsets: Any) -> Any:
    """Which rows have any of these items."""
    before = np.zeros(len(items) + 1, np.int32)
    np.cumsum(items, out=before[1:])
    return before[offsets[1:]] != before[offsets[:-1]]


def _named_by_unit(codes: Any, names: pa.Array, per: Any) -> tuple[Any, pa.Array]:
    """int32 codes of meters, and the names that they are for: `meter/per` where the unit is none of 10^-15."""
    if (per <= 1).all():
        return codes, names
    pers = [int(one) for one in np.unique(per) if one > 1]
    place = np.where(per > 1, np.searchsorted(pers, per) + 1, 0).astype(np.int32)
    plain = names.to_pylist()
    all_names = [*plain, *(f"{name}/{one}" for one in pers for name in plain)]
    return codes + place * np.int32(len(plain)), pa.array(all_names, pa.string())


def _differences(events: pa.RecordBatch, before: Cost, after: Cost) -> Differences:
    """Raises OverflowStop."""
    costs = (Costs(*(pa.py_buffer(np.ascontiguousarray(numbers)) for numbers in cost)) for cost in (before, after))
    return differences(events.num_rows, len(after.per), events.column("usage").buffers()[1], *costs)
