"""The block of one writer and epoch: rated events in, the rows of every table of the store out."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import BalanceError
from ..kernels import SLOTS, Columns, Combiner, Slots
from ..schema import DIMENSIONS, REQUESTS
from .amend import CORRECTION, Change, Side, change_rows, changes, without_events
from .arrivals import Arrivals
from .batches import source_positions
from .canonical import canonical, instant
from .deduplicate import Judged
from .flag_rows import flag_rows
from .inbox_rows import inbox_rows
from .rate import Rated
from .watch_usage import UsageWatch

OUTCOMES = ("read", "accepted", "duplicate", "conflicting", "rejected", "late")

NOT_IN_DAYS = ("project", "model")
"""Dimensions that the day rollup adds up over."""

BATCH_ROWS = 1 << 17
"""Rows of a rollup that are made, and written, at once: their columns stay in the cache."""


class TableRows(NamedTuple):
    """Rows of one table, for one file. The batches of one table are to be read before the next table is asked for."""

    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]


Tables = Iterator[tuple[str, TableRows]]
MeterTotals = dict[str, list[int]]
"""[quantity, amount, unpriced quantity] by meter, as the store names it: the amount of `meter` is in 10^-15 currency
units, that of `meter/per` in 10^-15 / per."""


class BlockBuilder:
    """Adds batches up until the block is cut."""

    def __init__(self, currency: str, rows_per_table_max: int = 1_000_000, anomalies: UsageWatch | None = None) -> None:
        """`anomalies` finds what is out of line; None: nothing is looked for."""
        self._currency = currency
        self._rows_max = rows_per_table_max
        self.anomalies = anomalies
        self._combiner = Combiner(currency)
        self._corrections = Corrections(currency)
        self._changes: list[Change] = []
        self._counts: dict[str, Counter[str]] = {}
        self.meters: MeterTotals = {}
        """What the last block that was cut adds up to."""
        self._rejected: list[pa.RecordBatch] = []
        self._conflicting: list[dict[str, Any]] = []
        self._late: list[dict[str, Any]] = []
        self._flagged: list[dict[str, Any]] = []
        self._inbox: list[dict[str, Any]] = []
        self.watermark_us = -1
        """The latest time of an accepted event; -1 before the first."""
        self._began_us = -1

    def resume(self, watermark_us: int) -> None:
        """Goes on behind a block that was cut at this watermark."""
        self.watermark_us = self._began_us = watermark_us

    def add(self, rated: Rated) -> None:
        """Adds one batch. Raises OverflowStop, BalanceError."""
        judged = rated.judged
        routed = judged.routed
        self._count(judged)
        self.watermark_us = max(self.watermark_us, judged.watermark_us)
        rows, count = judged.accepted
        if count and routed.amends is not None:
            self._changes += changes_of(rated)
        if count and rated.taken is not None:
            self._corrections.add(rated)
        elif count:
            self._combiner.add(rated.events, routed.identity, rated.amounts, rows, count)
        if routed.rejected.num_rows:
            self._rejected.append(routed.rejected)
        if judged.verdicts.conflicting_count:
            picked = _picked(judged.verdicts.conflicting, judged.verdicts.conflicting_count)
            fingerprints = pa.Array.from_buffers(
                pa.binary(16), routed.events.num_rows, [None, routed.identity.fingerprint]
            ).take(picked)
            for row, fingerprint in zip(_described(routed, picked), fingerprints, strict=True):
                self._conflicting.append({**row, "fingerprint": fingerprint.as_py()})
        if judged.verdicts.late_count:
            watermark = instant(judged.watermark_us)
            for row in _described(routed, _picked(judged.verdicts.late, judged.verdicts.late_count)):
                self._late.append({**row, "watermark": watermark})
        self._inbox.extend(inbox_rows(judged))
        self._flagged.extend(flag_rows(judged))
        if self.anomalies is not None:
            self.anomalies.add(rated)

    def _count(self, judged: Judged) -> None:
        routed, verdicts = judged.routed, judged.verdicts
        told = {
            "read": routed.read,
            "accepted": verdicts.accepted_count,
            "duplicate": verdicts.duplicate_count,
            "conflicting": verdicts.conflicting_count,
            "rejected": routed.rejected.num_rows,
            "late": verdicts.late_count,
        }
        if told["read"] != sum(told[name] for name in OUTCOMES[1:]):
            raise BalanceError(f"{routed.origin}, {routed.shard}: the balance of a batch does not hold: {told}")
        if told["read"]:
            self._counts.setdefault(routed.shard, Counter()).update(told)

    @property
    def empty(self) -> bool:
        """Whether nothing at all has come in since the last block."""
        return not self._counts

    def counts(self) -> Counter[str]:
        """The balance of the block so far, over all shards."""
        total: Counter[str] = Counter()
        for counts in self._counts.values():
            total.update(counts)
        return total

    def cut(self, lineage: str, writer: str, block: int, seen_at_us: int) -> Tables:
        """The rows of the block, table by table in the order in which they are to be published; call `clear` behind it.

        Raises OverflowStop.
        """
        self._combiner.cut()
        rollup, arrivals = Rollup(self._combiner, self._currency), Arrivals(self._began_us)
        for rows in rollup.files(False, self._rows_max):
            yield "rollup_minute", TableRows(rows.schema, self._watched(arrivals.watch(rows.batches)))
        yield from (("rollup_day", rows) for rows in rollup.files(True, self._rows_max))
        yield from self._corrections.cut(self._rows_max)
        self.meters = _meter_totals(self._combiner)
        add_totals(self.meters, self._corrections.meters)
        seen_at = instant(seen_at_us)
        if self._rejected:
            yield "rejected_events", table_rows(_rejected(pa.Table.from_batches(self._rejected), seen_at))
        if self._conflicting:
            yield "conflicting_events", table_rows(_rows(self._conflicting, seen_at))
        if self._late:
            yield "late_events", table_rows(_rows(self._late, seen_at))
        if self._flagged:
            yield "flagged_events", table_rows(_rows(self._flagged, seen_at))
        if self._inbox:
            yield "inbox_events", table_rows(_rows(self._inbox, seen_at))
        if self._changes:
            yield "corrections", table_rows(change_rows(self._changes, self._currency, seen_at))
        of_block = {"lineage": lineage, "writer": writer, "block": block}
        if self.anomalies is not None:
            yield from self._found(self.anomalies, {**of_block, "changed_at": seen_at})
        began = instant(max(self._began_us, 0))
        yield from self._completeness(arrivals, {**of_block, "began": began, "seen_at": seen_at})
        counts = [{**of_block, "shard": shard, **counts} for shard, counts in sorted(self._counts.items())]
        yield "pipeline_balance", table_rows(pa.Table.from_pylist(counts))

    def _watched(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            if self.anomalies is not None:
                self.anomalies.add_rows(batch)
            yield batch

    def _found(self, anomalies: UsageWatch, told: dict[str, Any]) -> Tables:
        """What is out of line in the hours that have ended."""
        late = anomalies.late()
        if late is not None:
            for rows in Rollup(late, self._currency).files(False, self._rows_max):
                for batch in rows.batches:
                    anomalies.add_rows(batch, -1)
        found = anomalies.close()
        if found:
            yield "anomalies", table_rows(pa.Table.from_pylist([{**row.as_row(), **told} for row in found]))

    def _completeness(self, arrivals: Arrivals, told: dict[str, Any]) -> Tables:
        """How far the block goes, and what it brings for hours that had ended."""
        behind = arrivals.rows(self._currency, told)
        if behind is not None:
            for first in range(0, len(behind), self._rows_max):
                yield "arrivals", table_rows(behind.slice(first, self._rows_max))
        if self.watermark_us >= 0:
            yield "watermarks", table_rows(pa.Table.from_pylist([{**told, "watermark": instant(self.watermark_us)}]))

    def clear(self) -> None:
        """The next block begins."""
        self._combiner.clear()
        self._rejected, self._conflicting, self._late = [], [], []
        self._flagged, self._inbox, self._changes = [], [], []
        self._counts = {}
        self._began_us = self.watermark_us


class Corrections:
    """The corrections of one block: what they take away, and what they put in its place, as rows of no events.

    Only what is put has the digest, and has it for every meter that a correction is about.
    """

    def __init__(self, currency: str) -> None:
        self._currency = currency
        self._combiners = {True: Combiner(currency), False: Combiner(currency)}  # by whether their digests count
        self._empty = True
        self.meters: MeterTotals = {}
        """What those of the last block add up to."""

    def add(self, rated: Rated) -> None:
        """Adds the accepted ones. Raises OverflowStop."""
        assert rated.taken is not None  # the caller looked
        identity, accepted = rated.judged.routed.identity, rated.judged.accepted
        self._combiners[True].add(rated.events, identity, rated.amounts, *accepted)
        self._combiners[False].add(rated.taken.events, identity, rated.taken.amounts, *accepted)
        self._empty = False

    def cut(self, rows_max: int) -> Tables:
        """The rows for the rollups; the next block begins. Raises OverflowStop."""
        self.meters = {}
        if self._empty:
            return
        for keep_digest, combiner in self._combiners.items():
            combiner.cut()
            rollup = Rollup(combiner, self._currency)
            for table, day in (("rollup_minute", False), ("rollup_day", True)):
                for found in rollup.files(day, rows_max):
                    batches = (without_events(batch, keep_digest=keep_digest) for batch in found.batches)
                    yield table, TableRows(found.schema, batches)
            add_totals(self.meters, _meter_totals(combiner, events_count=False))
            combiner.clear()
        self._empty = True


class Rollup:
    """The rows of both grains of a block that was cut, with the values of their dimensions."""

    def __init__(self, combiner: Combiner, currency: str) -> None:
        self._combiner = combiner
        self._names = combiner.names()
        self._widths = tuple(1 if len(names) < 1 << 7 else 2 if len(names) < 1 << 15 else 4 for names in self._names)
        customers = self._names[DIMENSIONS.index("customer")]
        self._ranks = pc.rank(customers, tiebreaker="first").cast(pa.int32())
        rows = combiner.slot_rows()
        joined = [",".join(meters) for meters, _ in rows]
        codes = {text: code for code, text in enumerate(dict.fromkeys(joined))}
        self._meters = pa.array(list(codes), pa.string())
        self._slots = Slots(
            pa.array([codes[text] for text in joined], pa.int32()), pa.array([mask for _, mask in rows], pa.uint8())
        )
        self._currency = pa.array([currency])

    def files(self, day: bool, rows_max: int) -> Iterator[TableRows]:
        """One grain in the store's order, in runs of at most `rows_max`. Raises OverflowStop."""
        widths = tuple(
            0 if day and name in NOT_IN_DAYS else width for name, width in zip(DIMENSIONS, self._widths, strict=True)
        )
        rows = self._combiner.sort(day, self._ranks)
        for first in range(0, rows, rows_max):
            end = min(first + rows_max, rows)
            batches = (
                self._batch(self._combiner.write(day, at, min(BATCH_ROWS, end - at), widths, self._slots))
                for at in range(first, end, BATCH_ROWS)
            )
            ahead = next(batches)
            yield TableRows(ahead.schema, chain([ahead], batches))
            if next(batches, None) is not None:
                raise ValueError("the rows of a table were not read before the next was asked for")

    def _batch(self, columns: Columns) -> pa.RecordBatch:
        rows = columns.window_start.size // 4

        def wide(buffer: pa.Buffer, kind: pa.DataType) -> pa.Array:
            return pa.Array.from_buffers(kind, rows, [None, buffer])

        def coded(codes: pa.Array, names: pa.StringArray) -> pa.DictionaryArray:
            return pa.DictionaryArray.from_arrays(codes, names, safe=False)

        dims = {
            name: coded(codes, names)
            for name, codes, names in zip(DIMENSIONS, columns.codes, self._names, strict=True)
            if codes is not None
        }
        named = {
            "customer": dims.pop("customer"),
            "window_start": wide(columns.window_start, pa.uint32()),
            "key": wide(columns.key, pa.binary(16)),
            **dims,
            "currency": coded(pa.array(np.zeros(rows, np.int8)), self._currency),
            "meters": coded(wide(columns.meters, pa.int32()), self._meters),
            "unpriced": wide(columns.unpriced, pa.uint8()),
            "events": wide(columns.events, pa.uint64()),
            "digest": wide(columns.digest, pa.binary(16)),
            **{f"q{n}": wide(columns.quantities[n], pa.binary(16)) for n in range(SLOTS)},
            **{f"a{n}": wide(columns.amounts[n], pa.decimal128(38, 15)) for n in range(SLOTS)},
        }
        return pa.record_batch(named)


def table_rows(table: pa.Table) -> TableRows:
    return TableRows(table.schema, table.to_batches())


def _meter_totals(combiner: Combiner, *, events_count: bool = True) -> MeterTotals:
    totals: MeterTotals = {}
    for meters, events, quantities, amounts in combiner.block_totals():
        requests = events if events_count else 0
        slots = zip([(REQUESTS, False), *meters], [requests, *quantities], amounts, strict=True)
        for (name, unpriced), quantity, amount in slots:
            add_totals(totals, {name: [quantity, amount, quantity if unpriced else 0]})
    return totals


def changes_of(rated: Rated) -> list[Change]:
    """Rows of the table `corrections` for the accepted rows."""
    routed = rated.judged.routed
    assert routed.amends is not None  # the caller looked
    sides = [Side(rated.events, rated.amounts, rated.taken is None)]
    if rated.taken is not None:
        sides.append(Side(*rated.taken, is_event=False))
    rows = _picked(*rated.judged.accepted).to_pylist()
    return changes(routed.events, routed.amends, rows, sides)


def add_totals(totals: MeterTotals, more: MeterTotals) -> None:
    """Adds `more` to `totals`."""
    for name, numbers in more.items():
        sums = totals.setdefault(name, [0, 0, 0])
        for n, number in enumerate(numbers):
            sums[n] += number


def _picked(rows: pa.Buffer, count: int) -> pa.UInt32Array:
    return pa.Array.from_buffers(pa.uint32(), count, [None, rows])


def _described(routed: Any, picked: pa.UInt32Array) -> Iterator[dict[str, Any]]:
    """Rows of a batch, one dict each, with the event as canonical JSON; for the few that are set aside."""
    events = routed.events.take(picked)
    amends: list[str | None] = [None] * len(picked)
    if routed.amends is not None:
        amends = routed.amends.texts.take(picked).to_pylist()
    positions = source_positions(routed.origin, events.column("position"), routed.messages).to_pylist()
    for event, position, text in zip(events.to_pylist(), positions, amends, strict=True):
        yield {
            "source_position": position,
            "source": event["source"],
            "id": event["id"],
            "event_time": instant(event["event_time_us"]),
            "payload": canonical(event, {} if text is None else _said(json.loads(text))),
        }


def _said(amends: dict[str, Any]) -> dict[str, Any]:
    """What an event said besides, as it said it."""
    typed = {"type": "usage.correction"} if amends["kind"] == CORRECTION else {}
    return typed | {name: value for name, value in amends.items() if name != "kind"}


def _rows(rows: list[dict[str, Any]], seen_at: datetime) -> pa.Table:
    return pa.Table.from_pylist([{"seen_at": seen_at, **row} for row in rows])


def _rejected(rejected: pa.Table, seen_at: datetime) -> pa.Table:
    when = pa.array([seen_at] * rejected.num_rows, pa.timestamp("us", tz="UTC"))
    return rejected.add_column(0, "seen_at", when)
