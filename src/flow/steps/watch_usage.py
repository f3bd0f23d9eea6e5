"""Feeds the detector of anomalies of one writer from its batches and from the rows of its blocks, in columns.

Usage comes from the minute rows of a block: sums of customer, model and hour, at a price per row and not per event. Of
the events themselves only outcomes and sources are counted, and one in up to 64 is looked at for its size. An event of
an hour that was closed before it is taken out again, so that what is found does not depend on where blocks are cut.
"""

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa

from ..anomalies.detector import HOUR_US, Detector
from ..anomalies.found import Found
from ..config import Anomalies
from ..kernels import Combiner
from ..kernels.anomalies import sampled
from .rate import Rated

_SAMPLE_SHIFT = 40  # shards are chosen by the low half of a fingerprint, the sample by bits of the high one


class UsageWatch:
    """What one writer watches."""

    def __init__(self, currency: str, settings: Anomalies) -> None:
        self.detector = Detector(settings)
        self.found: Counter[str] = Counter()
        """What was found in this run, by kind."""
        self._currency = currency
        self._watermark_us = -1
        self._late: Combiner | None = None

    # -- batches

    def add(self, rated: Rated) -> None:
        """Looks at a batch; its events come again as rows of the block."""
        judged = rated.judged
        before_us, after_us = self._watermark_us, judged.watermark_us
        if after_us < 0:
            return
        every = rated.events.column("event_time_us").to_numpy()
        chosen = _by_verdict(rated)
        self._take_late(rated, chosen[1], every, before_us, after_us)
        edges = self._hours(chosen[1], every, before_us, after_us)
        for n, (hour, first) in enumerate(edges):
            self.detector.intake.enter(hour)
            if not judged.routed.count:  # a heartbeat, or a batch without any rows of this shard
                continue
            of_hour = chosen
            if len(edges) > 1:
                end = edges[n + 1][1] if n + 1 < len(edges) else rated.events.num_rows
                of_hour = [of[slice(*np.searchsorted(of, [first, end]))] for of in chosen]
            self._count_sources(rated, of_hour)
            self._sample(rated, of_hour[1])
        self.detector.intake.count(judged.routed.read, judged.routed.rejected.num_rows)
        self._watermark_us = after_us

    def _hours(self, rows: Any, every: Any, before_us: int, after_us: int) -> list[tuple[int, int]]:
        """The hours that the watermark is in while the batch is read, and the first row of each."""
        if before_us // HOUR_US == after_us // HOUR_US or not len(rows):
            return [(after_us // HOUR_US, 0)]
        hours = np.maximum(np.maximum.accumulate(every[rows]), before_us) // HOUR_US
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
        self.detector.intake.count_sources(texts, judged[there], repeats[there])

    def _sample(self, rated: Rated, accepted: Any) -> None:
        """Sizes of the sampled events, by the customer and project that sent them."""
        events, intake = rated.events, self.detector.intake
        customers, projects, usage = (events.column(name) for name in ("customer", "project", "usage"))
        of_customer, of_project = (np.empty(len(accepted), np.int32) for _ in range(2))
        sizes = np.empty(len(accepted), np.int64)
        count = sampled(
            accepted,
            np.frombuffer(rated.judged.routed.identity.fingerprint, np.uint64),
            intake.sampled - 1 << _SAMPLE_SHIFT,
            customers.indices.to_numpy(),
            projects.indices.to_numpy(),
            usage.offsets.to_numpy(),
            usage.values.field("quantity").to_numpy(),
            of_customer,
            of_project,
            sizes,
        )
        if count:
            who = (_named(customers, of_customer[:count]), _named(projects, of_project[:count]))
            intake.add_sizes(*who, sizes[:count])

    def _take_late(self, rated: Rated, rows: Any, every: Any, before_us: int, after_us: int) -> None:
        """Remembers the events of hours that were closed when they came, to take them out of the block's sums."""
        detector = self.detector
        if not len(rows) or int(every.min()) // HOUR_US >= detector.open_from(after_us):
            return
        times = every[rows]
        watermark_us = np.maximum.accumulate(np.concatenate([[before_us], times[:-1]]))
        hours = times // HOUR_US
        late = rows[(hours < detector.open_from(watermark_us)) & (hours >= detector.hours.begun)]
        if len(late):
            self._late = self._late or Combiner(self._currency)
            self._late.add(rated.events, rated.judged.routed.identity, rated.amounts, pa.py_buffer(late), len(late))

    # -- rows of the block

    def late(self) -> Combiner | None:
        """The events whose rows are to be added with sign -1, if there are any; they are forgotten."""
        late, self._late = self._late, None
        if late is not None:
            late.cut()
        return late

    def add_rows(self, batch: pa.RecordBatch, sign: int = 1) -> None:
        """Adds rows of `rollup_minute`."""
        self.detector.hours.add(batch, sign)

    def close(self) -> list[Found]:
        """The block is whole: what was found since the last one."""
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


def _named(column: pa.DictionaryArray, codes: Any) -> tuple[list[str], Any]:
    """The names of some codes of a column, and the place of each code among them."""
    there, places = np.unique(codes, return_inverse=True)
    return column.dictionary.take(pa.array(there)).to_pylist(), places


def _by_verdict(rated: Rated) -> list[Any]:
    """The rows of all events of a batch, and of those that are no duplicates, by verdict; ascending."""
    routed, verdicts = rated.judged.routed, rated.judged.verdicts
    every = _numbers(routed.rows, routed.count) if routed.rows is not None else np.arange(routed.count, dtype=np.uint32)
    set_aside = [(verdicts.conflicting, verdicts.conflicting_count), (verdicts.late, verdicts.late_count)]
    return [every, _numbers(*rated.judged.accepted), *(_numbers(rows, count) for rows, count in set_aside if count)]


def _numbers(rows: pa.Buffer, count: int) -> Any:
    return np.frombuffer(rows, np.uint32)[:count]
