"""The filters that the retired generations of a shard leave: they say which late event was certainly never counted.

    retired-<segment>-<sealed at>-<CRC-32 of the file>.bloom
    file = error rate f64 | slices u64 | bits of a slice u64 | capacity u64 | ids u64 | bits (`_core/retired.pyx`)

That is the format of pybloom_live, in its sizing: `BloomFilter.fromfile` reads one. 3 bytes an id. A filter is durable
before the snapshot that names its segment no longer. What a snapshot still has as a segment is no retired one, so that
a run which resumes there removes the filters that a lost epoch has left.
"""

import re
import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from math import ceil, log
from mmap import mmap
from pathlib import Path

from isal.isal_zlib import crc32

from ..errors import StateError
from ..kernels.retired import fill, look_up
from .files import delete, explain, write_whole

MISTAKEN_PER_MILLION = 10
"""Of a million ids that a filter does not have, how many it takes for its own."""
ERROR_RATE = MISTAKEN_PER_MILLION / 10**6

_HEAD = struct.Struct("<dQQQQ")
_NAME = re.compile(r"retired-(\d{8,})-(\d+)-([0-9a-f]{8})\.bloom")
_SEGMENT = re.compile(r"segment-(\d{8,})\.fps")


@dataclass(frozen=True, slots=True)
class _Retired:
    path: Path
    number: int
    sealed_at_us: int
    checksum: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What the filters of a shard know of some fingerprints."""

    perhaps: bytearray
    """1 for each that one of them may have, 0 for each that none has."""
    filters: int
    """How many were asked."""
    complete: bool
    """Whether all retired generations of the shard have left one, so that 0 means never counted."""


class RetiredFilters:
    """The filters in the folder of one shard."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def resume(self, segments: Collection[int]) -> None:
        """Removes the filters of what are segments again, and of what came behind them. Raises StateError."""
        first = min(segments, default=0)
        for path in self._folder.glob("retired-*"):
            name = _NAME.fullmatch(path.name)
            if name is None or int(name[1]) >= first:
                delete(path)

    def leave(self, number: int, sealed_at_us: int, ids: int, records: Iterable[memoryview]) -> None:
        """Makes the filter of a segment that the horizon has passed, and writes it, synced.

        Raises StateError, MemoryError, and what `records` raises.
        """
        slices, slice_bits = sizing(ids)
        head = _HEAD.pack(ERROR_RATE, slices, slice_bits, ids, ids)
        with _memory((slices * slice_bits + 7) // 8) as mapped, memoryview(mapped) as bits:
            for chunk in records:
                fill(bits, slices, slice_bits, chunk)
            checksum = crc32(bits, crc32(head))
            write_whole(self._folder / f"retired-{number:08d}-{sealed_at_us}-{checksum:08x}.bloom", head, bits)

    def expire(self, before_us: int) -> None:
        """Removes those of generations that were sealed at a watermark before this one. Raises StateError."""
        for retired in self._kept():
            if retired.sealed_at_us < before_us:
                delete(retired.path)

    def ask(self, fingerprints: bytes) -> Asked:
        """Looks 16-byte fingerprints up. A job may be on meanwhile. Raises StateError, naming a damaged file."""
        # Segments before filters: what retires in between is among both, and not among neither.
        segments = {int(name[1]) for path in self._folder.glob("segment-*") if (name := _SEGMENT.fullmatch(path.name))}
        kept = sorted(self._kept(), key=lambda retired: retired.number)
        perhaps = bytearray(len(fingerprints) // 16)
        for retired in kept:
            look_up(*_read(retired), fingerprints, perhaps)
        known = segments | {retired.number for retired in kept}
        return Asked(perhaps, len(kept), bool(known) and len(known) == max(known))  # they count from 1

    def _kept(self) -> Iterator[_Retired]:
        for path in self._folder.glob("retired-*.bloom"):
            if name := _NAME.fullmatch(path.name):
                yield _Retired(path, int(name[1]), int(name[2]), int(name[3], 16))


def _memory(size: int) -> mmap:
    """Not of the heap: a block of this size, given back, would change what malloc keeps for the rest of the run."""
    try:
        return mmap(-1, size)
    except OSError as error:
        raise MemoryError(f"no memory for the filter of a retired generation: {size} bytes") from error


def sizing(ids: int) -> tuple[int, int]:
    """Slices, and bits of a slice, of a filter for so many ids, as pybloom_live has them: k = log2(1 / P), and
    k m = n |ln P| / (ln 2)^2.
    """
    slices = ceil(log(1 / ERROR_RATE, 2))
    return slices, ceil((ids * abs(log(ERROR_RATE))) / (slices * log(2) ** 2))


def _read(retired: _Retired) -> tuple[memoryview, int, int]:
    """The bits, slices, and bits of a slice."""
    try:
        content = retired.path.read_bytes()
    except OSError as error:
        raise explain(error, retired.path, "read") from error
    if crc32(content) != retired.checksum:
        raise StateError(
            f"{retired.path}: damaged (checksum); restore it from a backup, or remove it: then nothing is certain of "
            "late events of this shard"
        )
    _, slices, slice_bits, _, _ = _HEAD.unpack_from(content)
    return memoryview(content)[_HEAD.size :], slices, slice_bits
