"""Feeds the detector of anomalies of one writer from its batches and from the rows of its blocks, in columns.

Usage comes from the minute rows of a block: sums of customer, model and hour, at a price per row and not per event. Of
the events themselves only outcomes and sources are counted, and one in up to 64 is looked at for its size. An event of
an hour that was closed before it is taken out again, so that what is found does not depend on where blocks are cut.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from ..anomalies.detector import AMOUNT, EVENTS, HOUR_US, QUANTITY, UNPRICED, WIDTH, Detector
from ..anomalies.found import Found
from ..anomalies.tally import added_up
from ..config import Anomalies
from ..kernels import SLOTS, Combiner
from ..schema import REQUESTS, meter_and_per
from .rate import Rated

_HOUR_S = 3600
_CHUNK_ROWS = 1 << 14
"""Rows that are looked at together: their sums stay in the cache."""
_CELLS_PER_ROW_MAX = 8
_GROUPS_MAX = 1 << 18
_SIZE_MAX = 1 << 40  # what is larger is as large as this: no sum over a batch overflows
_SAMPLE_SHIFT = np.uint64(40)  # shards are chosen by the low half of a fingerprint, the sample by bits of the high one


class UsageWatch:
    """What one writer watches."""

    def __init__(self, currency: str, settings: Anomalies) -> None:
        self.detector = Detector(settings)
        self.found: Counter[str] = Counter()
        """What was found in this run, by kind."""
        self._currency = currency
        self._watermark_us = -1
        self._late: Combiner | None = None
        self._groups: list[tuple[Any, Any, Any]] = []
        self._group_rows = 0

    # -- batches

    def add(self, rated: Rated) -> None:
        """Looks at a batch; its events come again as rows of the block."""
        judged = rated.judged
        before_us, after_us = self._watermark_us, judged.watermark_us
        if after_us < 0:
            return
        rows = _numbers(*judged.accepted)
        times = rated.events.column("event_time_us").to_numpy()[rows]
        self._take_late(rated, rows, times, before_us, after_us)
        chosen = _by_verdict(rated, rows)
        edges = self._hours(rows, times, before_us, after_us)
        for n, (hour, first) in enumerate(edges):
            self.detector.intake.enter(hour)
            of_hour = chosen
            if len(edges) > 1:
                end = edges[n + 1][1] if n + 1 < len(edges) else rated.events.num_rows
                of_hour = [of[slice(*np.searchsorted(of, [first, end]))] for of in chosen]
            self._count_sources(rated, of_hour)
            self._sample(rated, of_hour[1])
        self.detector.intake.count(judged.routed.read, judged.routed.rejected.num_rows)
        self._watermark_us = after_us

    def _hours(self, rows: Any, times: Any, before_us: int, after_us: int) -> list[tuple[int, int]]:
        """The hours that the watermark is in while the batch is read, and the first row of each."""
        if before_us // HOUR_US == after_us // HOUR_US or not len(rows):
            return [(after_us // HOUR_US, 0)]
        hours = np.maximum(np.maximum.accumulate(times), before_us) // HOUR_US
        places = np.flatnonzero(np.diff(hours, prepend=before_us // HOUR_US))
        edges = [(int(hours[place]), int(rows[place])) for place in places]
        begun = before_us // HOUR_US if before_us >= 0 else edges[0][0]
        return [(begun, 0), *(edge for edge in edges if edge[0] != begun)]

    def _count_sources(self, rated: Rated, chosen: list[Any]) -> None:
        source = rated.events.column("source")
        names = source.dictionary
        if len(names) == 1:
            counts = [np.array([len(rows)]) for rows in chosen]
        else:
            codes = source.indices.to_numpy()
            counts = [np.bincount(codes[rows], minlength=len(names)) for rows in chosen]
        judged = counts[0]
        repeats = judged - sum(counts[1:])
        there = np.flatnonzero(judged)
        texts = names.take(pa.array(there)).to_pylist()
        self.detector.intake.count_sources(texts, judged[there].tolist(), repeats[there].tolist())

    def _sample(self, rated: Rated, accepted: Any) -> None:
        """Sizes of the sampled events, by the customer and project that sent them."""
        events, identity = rated.events, rated.judged.routed.identity
        high = np.frombuffer(identity.fingerprint, np.uint64)[1::2]
        bits = np.uint64(self.detector.intake.sampled - 1)
        rows = accepted[(high[accepted] >> _SAMPLE_SHIFT) & bits == 0]
        if not len(rows):
            return
        customers, projects = (events.column(name) for name in ("customer", "project"))
        pairs, who = np.unique(
            customers.indices.to_numpy()[rows].astype(np.int64) * len(projects.dictionary)
            + projects.indices.to_numpy()[rows],
            return_inverse=True,
        )
        names = zip(
            customers.dictionary.take(pa.array(pairs // len(projects.dictionary))).to_pylist(),
            projects.dictionary.take(pa.array(pairs % len(projects.dictionary))).to_pylist(),
            strict=True,
        )
        usage = events.column("usage")
        offsets = usage.offsets.to_numpy()
        begins, counts = offsets[rows], offsets[rows + 1] - offsets[rows]
        ends = np.cumsum(counts)
        items = np.arange(ends[-1]) + np.repeat(begins - (ends - counts), counts)
        quantities = np.minimum(usage.values.field("quantity").to_numpy()[items], _SIZE_MAX)
        totals = np.concatenate([[0], np.cumsum(quantities)])
        self.detector.intake.add_sizes(list(names), who, totals[ends] - totals[ends - counts])

    def _take_late(self, rated: Rated, rows: Any, times: Any, before_us: int, after_us: int) -> None:
        """Remembers the events of hours that were closed when they came, to take them out of the block's sums."""
        detector = self.detector
        if not len(rows) or int(times.min()) // HOUR_US >= detector.open_from(after_us):
            return
        watermark_us = np.maximum.accumulate(np.concatenate([[before_us], times[:-1]]))
        hours = times // HOUR_US
        late = rows[(hours < detector.open_from(watermark_us)) & (hours >= detector.begun)]
        if len(late):
            self._late = self._late or Combiner(self._currency)
            selection = pa.py_buffer(np.ascontiguousarray(late.astype(np.uint32)))
            self._late.add(rated.events, rated.judged.routed.identity, rated.amounts, selection, len(late))

    # -- rows of the block

    def late(self) -> Combiner | None:
        """The events whose rows are to be added with sign -1, if there are any; they are forgotten."""
        late, self._late = self._late, None
        if late is not None:
            late.cut()
        return late

    def add_rows(self, batch: pa.RecordBatch, sign: int = 1) -> None:
        """Adds rows of `rollup_minute`."""
        names = [text.split(",") for text in batch.column("meters").dictionary.to_pylist()]
        pers = np.array([[meter_and_per(name)[1] for name in of_row] for of_row in names])
        first = np.array([of_row[0] == REQUESTS for of_row in names])
        for at in range(0, batch.num_rows, _CHUNK_ROWS):
            rows = slice(at, at + _CHUNK_ROWS)
            of_row = batch.column("meters").indices.to_numpy()[rows]
            for per in np.unique(pers).tolist():
                sums = _sums(batch, rows, pers[of_row] == per, first[of_row], per)
                self._group(batch, rows, sums, per, sign)
        if self._group_rows > _GROUPS_MAX:
            self._flush()

    def _group(self, batch: pa.RecordBatch, rows: slice, sums: Any, per: int, sign: int) -> None:
        """Adds rows up by customer, hour and model; those of one customer and hour stand together."""
        customers, models = batch.column("customer"), batch.column("model")
        hours = batch.column("window_start").to_numpy()[rows] // _HOUR_S
        of_customer, of_model = (column.indices.to_numpy()[rows] for column in (customers, models))
        next_hour = np.flatnonzero((np.diff(of_customer) != 0) | (np.diff(hours) != 0)) + 1
        first = np.concatenate([[0], next_hour])
        width = len(models.dictionary)
        if len(first) * width > _CELLS_PER_ROW_MAX * len(hours):
            groups = np.repeat(np.arange(len(first)), np.diff(first, append=len(hours)))
            cells, table = added_up(groups * width + of_model, sums.T * sign)
        else:
            places = np.repeat(np.arange(len(first)) * width, np.diff(first, append=len(hours))) + of_model
            dense = np.zeros((WIDTH, len(first) * width), np.int64)
            for column, total in zip(sums, dense, strict=True):
                if column.any():
                    np.add.at(total, places, column)
            cells = np.flatnonzero(dense.any(axis=0))
            table = dense[:, cells].T * sign
        known, places = np.unique(of_customer[first], return_inverse=True)
        texts = customers.dictionary.take(pa.array(known)).to_pylist()
        pairs = np.stack([places[cells // width], cells % width], axis=1)
        keys = self.detector.keys(texts, models.dictionary.to_pylist(), pairs, per)
        self._groups.append((hours[first[cells // width]].astype(np.int64), keys, table))
        self._group_rows += len(keys)

    def _flush(self) -> None:
        if not self._groups:
            return
        hours, keys, sums = (np.concatenate(column) for column in zip(*self._groups, strict=True))
        self._groups, self._group_rows = [], 0
        for hour in np.unique(hours).tolist():
            chosen = hours == hour
            self.detector.add(hour, keys[chosen], sums[chosen])

    def close(self) -> list[Found]:
        """The block is whole: what was found since the last one."""
        self._flush()
        found = self.detector.close(self._watermark_us)
        self.found.update(str(row.kind) for row in found)
        return found

    # -- the snapshot

    def dump(self) -> dict[str, Any]:
        """For the manifest."""
        return {"watermark_us": self._watermark_us, **self.detector.dump()}

    def load(self, dumped: dict[str, Any]) -> None:
        """Goes on from a dump."""
        self._watermark_us = dumped["watermark_us"]
        self.detector.load(dumped)


def _by_verdict(rated: Rated, accepted: Any) -> list[Any]:
    """The rows of all events of a batch, and of those that are no duplicates, by verdict; ascending."""
    routed, verdicts = rated.judged.routed, rated.judged.verdicts
    every = _numbers(routed.rows, routed.count) if routed.rows is not None else np.arange(routed.count)
    set_aside = [(verdicts.conflicting, verdicts.conflicting_count), (verdicts.late, verdicts.late_count)]
    return [every, accepted, *(_numbers(rows, count) for rows, count in set_aside if count)]


def _numbers(rows: pa.Buffer, count: int) -> Any:
    return np.frombuffer(rows, np.uint32)[:count].astype(np.int64)


def _sums(batch: pa.RecordBatch, rows: slice, of_per: Any, first: Any, per: int) -> Any:
    """(WIDTH, rows) of usage: amounts of the slots of this unit; everything else with the unit 1 only."""
    unpriced = batch.column("unpriced").to_numpy()[rows]
    sums = np.zeros((WIDTH, len(first)), np.int64)
    if per == 1:
        events = batch.column("events").to_numpy()[rows].astype(np.int64)
        sums[EVENTS] = np.where(first, events, 0)
        sums[UNPRICED] = np.where(unpriced != 0, events, 0)
    for slot in range(SLOTS):
        _add_wide(sums[AMOUNT:], batch, f"a{slot}", rows, of_per[:, slot])
        if per == 1:
            counted = unpriced >> slot & 1 == 0
            _add_wide(sums[QUANTITY:AMOUNT], batch, f"q{slot}", rows, counted & ~first if slot == 0 else counted)
    return sums


def _add_wide(limbs: Any, batch: pa.RecordBatch, name: str, rows: slice, chosen: Any) -> None:
    """Adds the chosen 128-bit integers to three limbs of 32, 32 and 64 bits, whose sums over many rows fit in int64."""
    if not chosen.any():
        return
    wide = np.frombuffer(batch.column(name).buffers()[1], np.uint64).reshape(-1, 2)[rows]
    low, high = wide[:, 0], wide[:, 1].view(np.int64)
    if not chosen.all():
        low, high = np.where(chosen, low, np.uint64(0)), np.where(chosen, high, 0)
    limbs[0] += (low & np.uint64(0xFFFFFFFF)).view(np.int64)
    limbs[1] += (low >> np.uint64(32)).view(np.int64)
    if high.any():
        limbs[2] += high
