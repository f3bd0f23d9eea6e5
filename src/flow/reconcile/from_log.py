"""A gateway's log as one side of a reconciliation: event files, read by the decoder and hashed by the kernels of a run.

A log holds retries. Each identity counts once, as in a run: its first event, with the payload and the minute which that
one has. The log is read whole to add up its digests, and once more if events have to be named.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..kernels import SLOTS, Amounts, Combiner
from ..kernels.fingerprints import FingerprintSet
from ..schema import REQUESTS
from ..sources.files import read_files
from ..steps.amend import befores_and_afters, picked_amends, without_events
from ..steps.batches import Decoded, Limits, source_positions
from ..steps.combine import Rollup
from ..steps.decode import decode
from ..steps.route import identified
from .asked import Scope
from .buckets import Buckets, Ints, Names, added, keys_of, moments, window_starts
from .sides import EVENT_ROWS, Quantities, event_rows

BATCH_ROWS = 65_536
CUT_EVENTS = 2_000_000
"""After so many the sums are taken out of the kernel, so that its keys do not pile up over the months of a log."""
ROWS_MAX = 1_000_000
CONFLICTS_MAX = 100_000
"""More events than this whose identity stands in a log with another payload are counted only."""
_WIDE = pa.decimal128(38, 0)


@dataclass
class Read:
    """What was found in a log."""

    lines: int = 0
    events: int = 0
    """That count: the first of each identity, within the scope."""
    duplicates: int = 0
    conflicting: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    """By reason."""


@dataclass(frozen=True, slots=True)
class Judged:
    """A batch, with the rows that count, and those whose identity was read before with another payload."""

    decoded: Decoded
    accepted: Ints
    conflicting: Ints
    duplicates: int


class LogSide:
    """Event files, which are read when it is made."""

    def __init__(
        self,
        label: str,
        paths: Sequence[Path],
        names: Names,
        scope: Scope,
        limits: Limits,
        now_us: int,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """`now_us`: the clock by which events of the future are rejected. Raises SourceError, OverflowStop."""
        self._on_step = on_step
        self.label = label
        self.read = Read()
        self.conflicts: list[pa.RecordBatch] = []
        """EVENT_ROWS of events whose identity had been read with another payload."""
        self._paths = list(paths)
        self._names = names
        self._scope = scope
        self._limits = limits
        self._now_us = now_us
        self._quantities: Quantities = {}
        self._minutes = self._added_up()

    def buckets(self, grain: str, scope: Scope) -> Buckets:
        """Events and digests of all that was read, by customer and window of the grain."""
        return self._minutes.coarser(grain)

    def quantities(self, scope: Scope) -> Quantities:
        """What was used in the scope that was read."""
        return self._quantities

    def events(self, minutes: Ints) -> pa.Table:
        """EVENT_ROWS of the events that count in these minutes. Raises SourceError."""
        found = []
        for judged in self._judged():
            keys = self._keys(judged.decoded.events)
            picked = judged.accepted[np.isin(keys[judged.accepted], minutes)]
            if len(picked):
                found.append(_event_rows(judged.decoded, picked))
        return pa.Table.from_batches(found, EVENT_ROWS)

    def counted(self, fingerprints: pa.Array) -> pa.Table:
        """EVENT_ROWS of those of these events that count. Raises SourceError."""
        found = []
        for judged in self._judged():
            assert judged.decoded.identity is not None  # `identified` has computed it
            buffer, rows = judged.decoded.identity.fingerprint, judged.decoded.events.num_rows
            known = pc.is_in(pa.Array.from_buffers(pa.binary(16), rows, [None, buffer]), value_set=fingerprints)
            picked = judged.accepted[known.to_numpy(zero_copy_only=False)[judged.accepted]]
            if len(picked):
                found.append(_event_rows(judged.decoded, picked))
        return pa.Table.from_batches(found, EVENT_ROWS)

    # -- reading

    def _added_up(self) -> Buckets:
        combiner, corrections, parts, events = Combiner(""), Combiner(""), list[Buckets](), 0
        for judged in self._judged():
            self._count(judged)
            if judged.decoded.amends is not None:
                self._add_corrections(corrections, judged)
                continue
            _add(combiner, judged.decoded, judged.accepted)
            events += len(judged.accepted)
            if events >= CUT_EVENTS:
                parts.append(self._cut(combiner))
                events = 0
        parts.append(self._cut(combiner))
        corrections.cut()
        for rows in Rollup(corrections, "").files(False, ROWS_MAX):
            parts += [self._buckets_of(without_events(batch, keep_digest=True)) for batch in rows.batches]
        return Buckets.together(parts)

    def _add_corrections(self, combiner: Combiner, judged: Judged) -> None:
        """Their digests only: quantities are compared without what was corrected. Raises OverflowStop."""
        decoded, amends = judged.decoded, judged.decoded.amends
        assert amends is not None  # the caller looked
        _, afters = befores_and_afters(decoded.events, amends)
        _add(combiner, replace(decoded, events=afters), judged.accepted)

    def _count(self, judged: Judged) -> None:
        read = self.read
        if len(judged.conflicting) and read.conflicting < CONFLICTS_MAX:
            self.conflicts.append(_event_rows(judged.decoded, judged.conflicting))
        read.lines += judged.decoded.read
        read.events += len(judged.accepted)
        read.duplicates += judged.duplicates
        read.conflicting += len(judged.conflicting)
        read.rejected.update(judged.decoded.rejected.column("reason").to_pylist())

    def _judged(self) -> Iterator[Judged]:
        """Batches, judged as a run without a horizon does it, and held to the scope."""
        fingerprints = FingerprintSet(None, 1)
        for decoded in _ahead(self._decoded()):
            assert decoded.identity is not None  # `identified` has computed it
            self._on_step("reading the log")
            events = decoded.events
            verdicts = fingerprints.judge(decoded.identity, events.column("event_time_us"), None, events.num_rows)
            wanted = self._in_scope(events)
            accepted, conflicting = (
                rows[wanted[rows]].astype(np.int64)
                for rows in (
                    np.frombuffer(verdicts.accepted, np.uint32, verdicts.accepted_count),
                    np.frombuffer(verdicts.conflicting, np.uint32, verdicts.conflicting_count),
                )
            )
            yield Judged(decoded, accepted, conflicting, verdicts.duplicate_count)

    def _decoded(self) -> Iterator[Decoded]:
        for item in read_files(self._paths, "auto", BATCH_ROWS):
            yield from identified(decode(item, self._limits, self._now_us)).parts

    def _in_scope(self, events: pa.RecordBatch) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        scope = self._scope
        starts_s = window_starts(events.column("event_time_us").to_numpy() // 1_000_000, "minute")
        wanted = (starts_s >= scope.from_s) & (starts_s < scope.before_s)
        if scope.customers is not None:
            customer = events.column("customer")
            of_code = np.array([name in scope.customers for name in customer.dictionary.to_pylist()], bool)
            wanted &= of_code[customer.indices.to_numpy()] if len(wanted) else wanted
        return wanted

    def _keys(self, events: pa.RecordBatch) -> Ints:
        starts_s = window_starts(events.column("event_time_us").to_numpy() // 1_000_000, "minute")
        return keys_of(self._numbered(events), starts_s)

    def _numbered(self, rows: pa.RecordBatch) -> Ints:
        """The number of each row's customer."""
        customer = rows.column("customer")
        numbers = self._names.numbers(customer.dictionary.to_pylist())
        return numbers[customer.indices.to_numpy()] if rows.num_rows else numbers[:0]

    # -- adding up

    def _cut(self, combiner: Combiner) -> Buckets:
        """Takes the sums out of the kernel and empties it. Raises OverflowStop."""
        combiner.cut()
        parts = []
        for rows in Rollup(combiner, "").files(False, ROWS_MAX):
            for batch in rows.batches:
                parts.append(self._buckets_of(batch))
                self._add_quantities(batch)
        combiner.clear()
        return Buckets.together(parts)

    def _buckets_of(self, batch: pa.RecordBatch) -> Buckets:
        """Of rows of `rollup_minute`. An event with many meters has several; the first of them has `requests`."""
        meters = batch.column("meters")
        first_slots = [text.split(",")[0] == REQUESTS for text in meters.dictionary.to_pylist()]
        rows = np.flatnonzero(np.array(first_slots, bool)[meters.indices.to_numpy()])
        starts_s = batch.column("window_start").to_numpy().astype(np.int64)
        keys = keys_of(self._numbered(batch), starts_s)
        digests = np.frombuffer(batch.column("digest").buffers()[1], np.uint64)[: 2 * batch.num_rows].reshape(-1, 2)
        sums = np.concatenate([digests, moments(digests, starts_s)], axis=1)
        return added(keys[rows], batch.column("events").to_numpy().astype(np.int64)[rows], sums[rows])

    def _add_quantities(self, batch: pa.RecordBatch) -> None:
        columns = {
            f"q{slot}": pa.Array.from_buffers(_WIDE, batch.num_rows, batch.column(f"q{slot}").buffers())
            for slot in range(SLOTS)
        }
        columns |= {"customer": pa.array(self._numbered(batch)), "meters": batch.column("meters").cast(pa.string())}
        sums = [(f"q{slot}", "sum") for slot in range(SLOTS)]
        for row in pa.table(columns).group_by(["customer", "meters"], use_threads=False).aggregate(sums).to_pylist():
            for slot, name in enumerate(row["meters"].split(",")):
                if name:
                    key = self._names[row["customer"]], name
                    self._quantities[key] = self._quantities.get(key, 0) + int(row[f"q{slot}_sum"])


def _add(combiner: Combiner, decoded: Decoded, rows: Ints) -> None:
    """Adds events without a price. Raises OverflowStop."""
    assert decoded.identity is not None  # the caller has it from `identified`
    events = decoded.events
    items = len(events.column("usage").values)
    nothing = Amounts(*(pa.py_buffer(bytes(size)) for size in (16 * items, items, 16 * events.num_rows)))
    combiner.add(events, decoded.identity, nothing, pa.py_buffer(np.ascontiguousarray(rows, np.uint32)), len(rows))


def _event_rows(decoded: Decoded, rows: Ints) -> pa.RecordBatch:
    picked = decoded.events.take(pa.array(rows))
    positions = source_positions(decoded.origin, picked.column("position"), decoded.messages)
    return event_rows(picked, positions, picked_amends(decoded.amends, pa.array(rows)))


def _ahead(batches: Iterator[Decoded]) -> Iterator[Decoded]:
    """The same, each made on a thread while the one before it is worked on."""
    with ThreadPoolExecutor(1, "log") as pool:
        following = pool.submit(next, batches, None)
        while (found := following.result()) is not None:
            following = pool.submit(next, batches, None)
            yield found
