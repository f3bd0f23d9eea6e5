"""The kernel of deduplication: the fingerprints of a shard, in memory and in files."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, Protocol, TypeAlias

import pyarrow as pa

from _core import dedup as _dedup

from . import Identity, Rows, Verdicts, _address
from .memory import touch_ahead


class Filtering(NamedTuple):
    """Questions to the Bloom filters of a shard."""

    lookups: int
    passed: int
    """Of those, answered with "look closer"."""
    found: int
    """Of those, known indeed."""


class _Opened(Protocol):
    @property
    def descriptor(self) -> int: ...


class _Index(Protocol):
    @property
    def file(self) -> _Opened: ...
    @property
    def places(self) -> int: ...
    @property
    def entries_at(self) -> int: ...
    @property
    def directory_at(self) -> int: ...


class Filed(Protocol):
    """A segment and its packed index in files, which are open for as long as this is held; as text, their name."""

    @property
    def records(self) -> _Opened: ...
    @property
    def index(self) -> _Index: ...


def _where(filed: Filed) -> tuple[int, int, int, int]:
    index = filed.index
    return filed.records.descriptor, index.file.descriptor, index.entries_at, index.directory_at


SEGMENT_IDS_MAX = 1 << 26
RECORDS_MAX: int = _dedup.RECORDS_MAX
Retiring: TypeAlias = Callable[[int, int, int, Iterator[memoryview] | None], None]
"""Is told of a segment that the horizon has passed: its number, the watermark at which it was sealed, how many records
it has, and buffers of them, each good until the next is asked for; None if it has left memory for its file. Another
thread may go through them, until `let_go`, or until this returns from the next call."""


class FingerprintSet:
    """The fingerprints of one shard; see `_core/dedup.pyx`.

    `horizon_us` None is unbounded. A segment that has `segment_ids_max` is sealed before its slice ends.
    """

    def __init__(
        self,
        horizon_us: int | None,
        slice_us: int,
        segment_ids_max: int = SEGMENT_IDS_MAX,
        retiring: Retiring | None = None,
    ) -> None:
        self._set = _dedup.FingerprintSet(-1 if horizon_us is None else horizon_us, slice_us, segment_ids_max, retiring)

    def judge(
        self, identity: Identity, event_time_us: pa.Int64Array, rows: Rows, count: int, *, admitted: bool = False
    ) -> Verdicts:
        """Judges the selected rows, in order, and remembers the new ones; none is late if they are `admitted`.

        Raises MemoryError, OSError with the name of a file that cannot be read, and what `retiring` raises.
        """
        if event_time_us.offset:
            raise ValueError("a kernel reads whole arrays, not slices")
        if admitted:
            horizon_us = self._set.horizon_us
            self._set.horizon_us = -1  # as if unbounded, which also ends no generation meanwhile
            try:
                return self.judge(identity, event_time_us, rows, count)
            finally:
                self._set.horizon_us = horizon_us
        verdicts = pa.allocate_buffer(count)
        chosen = _address(rows)
        new, duplicate, conflicting, late = self._set.judge(
            count,
            chosen,
            identity.fingerprint.address,
            identity.payload.address,
            _address(event_time_us.buffers()[1]),
            verdicts.address,
        )
        touch_ahead(self._set)

        def picked(verdict: int, size: int) -> pa.Buffer:
            out = pa.allocate_buffer(4 * size)
            if size:
                _dedup.select(count, chosen, verdicts.address, verdict, out.address)
            return out

        return Verdicts(
            picked(_dedup.NEW, new),
            new,
            duplicate,
            picked(_dedup.CONFLICTING, conflicting),
            conflicting,
            picked(_dedup.LATE, late),
            late,
        )

    @property
    def watermark_us(self) -> int:
        """The latest event time of an accepted event; -1 before the first."""
        return self._set.watermark_us

    @property
    def memory_bytes(self) -> int:
        """Without memory that waits to be filled again, of which `release` leaves as much as it is told."""
        return self._set.memory_bytes()

    @property
    def records_in_memory(self) -> int:
        """Of those that have not left for their files; RECORDS_MAX at most, as many as an index can number."""
        return self._set.records_in_memory()

    def release(self, bytes_max: int) -> None:
        """Gives memory back that waits to be filled again, as far as all of it would be more than so many bytes."""
        self._set.release(bytes_max)

    def let_go(self) -> None:
        """Nobody goes through the records of retired segments any more: their memory is filled again, or given back."""
        self._set.let_go()

    @property
    def segment_ids_max(self) -> int:
        return self._set.segment_ids_max

    @property
    def filtering(self) -> Filtering:
        """What the Bloom filters of sealed segments did since the start."""
        return Filtering(*self._set.filtering())

    def __len__(self) -> int:
        return len(self._set)

    def take_journal(self) -> Iterator[tuple[int, int, memoryview]]:
        """(segment number, watermark at which it was sealed or -1, 24-byte records) learnt since the last call.

        The records are those of the set itself: good until the next are asked for, while nothing is judged.
        """
        return self._set.take_journal()

    def take_retired(self) -> list[int]:
        """Numbers of the segments that the horizon has passed since the last call."""
        return self._set.take_retired()

    def sealed_in_memory(self) -> list[int]:
        """Numbers of the sealed segments that are in memory, oldest first."""
        return self._set.sealed_in_memory()

    def packed(self, number: int) -> tuple[int, memoryview, memoryview]:
        """The index of the oldest sealed segment in memory: places, entries, directory; good until `leave_memory`."""
        return self._set.packed(number)

    def leave_memory(self, number: int, filed: Filed) -> None:
        """The oldest sealed segment in memory, all of which was taken, is read in its files now, but for a filter."""
        self._set.leave_memory(number, _where(filed), filed)

    def restore(
        self,
        number: int,
        sealed_at_us: int,
        records_max: int,
        chunks: Iterable[bytes | memoryview],
        filed: Filed | None = None,
    ) -> None:
        """Loads a segment, oldest first: `chunks` of its 24-byte records, together `records_max` at most.

        `filed`: of a sealed one whose records and index need not come into memory.
        """
        read_in = None if filed is None else (filed.index.places, _where(filed), filed)
        self._set.restore(number, sealed_at_us, records_max, chunks, read_in)

    def restore_watermark(self, watermark_us: int) -> None:
        self._set.restore_watermark(watermark_us)
