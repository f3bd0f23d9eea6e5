"""Deduplication with a dict a segment: the rules of `_core/dedup.pyx`, one row at a time.

1. An event whose fingerprint is known, however old it is, is a duplicate (same low 64 bits of the payload hash) or
   conflicting.
2. Else it is late if it is older than the watermark less the horizon.
3. Else it is new. If the active segment is full, or the event takes the watermark into another slice of the horizon,
   the segment is first sealed at the watermark so far, and the segments that were sealed before that watermark less
   the horizon retire.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

NEW, DUPLICATE, CONFLICTING, LATE = 0, 1, 2, 3

Row = tuple[int, int, int]
"""(fingerprint, payload hash, event time in microseconds)."""


@dataclass
class Segment:
    number: int
    sealed_at_us: int = -1
    payloads: dict[int, int] = field(default_factory=dict)


class DedupOracle:
    """`horizon_us` None is unbounded."""

    def __init__(self, horizon_us: int | None, slice_us: int, segment_ids_max: int = 1 << 26) -> None:
        self.horizon_us = horizon_us
        self.slice_us = slice_us
        self.segment_ids_max = segment_ids_max
        self.watermark_us = -1
        self.segments = [Segment(1)]
        self.retired: list[Segment] = []

    def judge(self, rows: Iterable[Row]) -> list[int]:
        return [self._judge(*row) for row in rows]

    def _judge(self, fingerprint: int, payload: int, time_us: int) -> int:
        payload %= 2**64
        for segment in self.segments:
            if fingerprint in segment.payloads:
                return DUPLICATE if segment.payloads[fingerprint] == payload else CONFLICTING
        if self.horizon_us is not None and time_us < self.watermark_us - self.horizon_us:
            return LATE
        active = self.segments[-1]
        if active.payloads and (len(active.payloads) >= self.segment_ids_max or self._next_slice(time_us)):
            self._seal()
        self.watermark_us = max(self.watermark_us, time_us)
        self.segments[-1].payloads[fingerprint] = payload
        return NEW

    def _next_slice(self, time_us: int) -> bool:
        if self.horizon_us is None or time_us <= self.watermark_us:
            return False
        return time_us // self.slice_us != self.watermark_us // self.slice_us

    def _seal(self) -> None:
        active = self.segments[-1]
        active.sealed_at_us = self.watermark_us
        if self.horizon_us is not None:
            first_us = self.watermark_us - self.horizon_us
            self.retired += [segment for segment in self.segments if segment.sealed_at_us < first_us]
            self.segments = [segment for segment in self.segments if segment.sealed_at_us >= first_us]
        self.segments.append(Segment(active.number + 1))

    def __len__(self) -> int:
        return sum(len(segment.payloads) for segment in self.segments)
