"""The fingerprint segments of one shard on disk: append-only files, one a generation, cut back on resume.

    file   = magic "TLSG" | version u16 | 0 u16 | chunk ...
    chunk  = length u32 | CRC-32 u32 | records (24 bytes each: fingerprint 16, payload hash 8)

An epoch appends what it learnt, so its cost follows the events of the epoch and not the size of the set. The file's
length is in the shard's manifest: whatever stands behind it belongs to an epoch that was never committed.

A kernel that has no memory left for a sealed segment reads it here, and knows where records stand:
`_core/segment.pxd`. The packed index of that segment is beside it then (`segment_index.py`).
"""

import shutil
import struct
from collections.abc import Collection, Iterator
from io import BufferedReader
from pathlib import Path

from isal.isal_zlib import crc32

from ..errors import StateError
from .appender import Appender
from .files import cut_back, explain, make_folder, sync_folder
from .opened import OpenedFile
from .segment_index import FiledSegment, PackedIndex, open_index, opened_index, write_index

_FILE = struct.Struct("<4sHH")
_CHUNK = struct.Struct("<II")
_HEADER = _FILE.pack(b"TLSG", 1, 0)
RECORD_BYTES = 24
_ROOM_BYTES = 1 << 20


class SegmentFiles:
    """The files of one shard, each known by its number."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lengths: dict[int, int] = {}
        self._checksums: dict[int, int] = {}  # of the heads of all chunks, which have those of the records
        self._ends: dict[int, Appender] = {}  # of what was appended to since the last sync, and of the newest
        self._synced: set[int] = set()  # whose names are durable

    def path(self, number: int) -> Path:
        return self._folder / f"segment-{number:08d}.fps"

    def index_path(self, number: int) -> Path:
        return self._folder / f"segment-{number:08d}.idx"

    def start_empty(self) -> None:
        """No snapshot was ever committed: whatever lies here is of no lineage."""
        if self._folder.exists():
            shutil.rmtree(self._folder)
        make_folder(self._folder)
        self._lengths, self._checksums, self._ends, self._synced = {}, {}, {}, set()

    def resume(self, lengths: dict[int, int], sealed: Collection[int]) -> None:
        """Cuts every file back to its recorded length, and removes the ones that are not recorded and indexes of those
        that are not `sealed`. Raises StateError.
        """
        if lengths:
            make_folder(self._folder)
        for number, length in lengths.items():
            cut_back(self.path(number), length)
        self._lengths, self._ends, self._synced = dict(lengths), {}, set(lengths)
        known = {*map(self.path, lengths), *map(self.index_path, sealed)}
        for path in self._folder.glob("segment-*.*"):
            if path not in known:
                path.unlink()

    def append(self, number: int, records: bytes | memoryview) -> None:
        """Appends one chunk, which is durable after `sync`. Raises StateError."""
        end = self._ends.get(number)
        if end is None:
            end = self._ends[number] = Appender(self.path(number), self._lengths.get(number, 0))
        if not end.length:
            end.write(_HEADER)
        head = _CHUNK.pack(len(records), crc32(records))
        end.write(head)
        end.write(records)
        self._lengths[number] = end.length
        self._checksums[number] = crc32(head, self._checksums.get(number, 0))

    def sync(self) -> None:
        """Makes all that was appended durable. Raises StateError."""
        for end in self._ends.values():
            end.sync()
        if self._ends.keys() - self._synced:
            sync_folder(self._folder)
            self._synced |= self._ends.keys()
        self._ends = {number: end for number, end in self._ends.items() if number == max(self._ends)}

    def length(self, number: int) -> int:
        return self._lengths[number]

    def checksum(self, number: int) -> int:
        """Of all records that were appended to a segment."""
        return self._checksums[number]

    def read(self, number: int, checksum: int | None) -> Iterator[memoryview]:
        """The records of a segment, chunk by chunk; each is good until the next is asked for.

        checksum: what is recorded of it; older versions recorded none. Raises StateError, naming the file, if one
        fails.
        """
        path, end, found = self.path(number), self._lengths[number], 0
        try:
            with path.open("rb") as file:
                for head, chunk in _chunks(file, path, end):
                    found = crc32(head, found)
                    yield chunk
        except OSError as error:
            raise explain(error, path, "read") from error
        if checksum not in (None, found):
            raise StateError(f"{path}: other records than are recorded; restore it from a backup")
        self._checksums[number] = found

    def file(self, number: int, places: int, entries: memoryview, directory: memoryview) -> FiledSegment:
        """Writes the packed index of a sealed segment, all of which is synced; where both are. Raises StateError."""
        path = self.index_path(number)
        write_index(path, self._checksums[number], places, entries, directory)
        return self._opened(number, opened_index(path, places, len(entries) // 8))

    def filed(self, number: int, checksum: int) -> FiledSegment | None:
        """Where the sealed segment with this checksum and its packed index are; None if it has none that can be
        trusted. Raises StateError.
        """
        index = open_index(self.index_path(number), checksum)
        return None if index is None else self._opened(number, index)

    def _opened(self, number: int, index: PackedIndex) -> FiledSegment:
        return FiledSegment(OpenedFile(self.path(number)), index)

    def remove(self, number: int) -> None:
        """Deletes a segment that no durable snapshot names any more."""
        for known in (self._lengths, self._checksums, self._ends):
            known.pop(number, None)
        self.path(number).unlink(missing_ok=True)
        self.index_path(number).unlink(missing_ok=True)


def _chunks(file: BufferedReader, path: Path, end: int) -> Iterator[tuple[bytes, memoryview]]:
    if file.read(_FILE.size) != _HEADER:
        raise StateError(f"{path}: not a segment of fingerprints; restore it from a backup")
    at, room = _FILE.size, bytearray(_ROOM_BYTES)
    while at < end:
        head = file.read(_CHUNK.size)
        if len(head) < _CHUNK.size:
            raise _damaged(path, at)
        length, checksum = _CHUNK.unpack(head)
        if at + _CHUNK.size + length > end:
            raise _damaged(path, at)
        if length > len(room):
            room = bytearray(length)
        chunk = memoryview(room)[:length]
        if file.readinto(chunk) != length or crc32(chunk) != checksum:
            raise _damaged(path, at)
        yield head, chunk
        at += _CHUNK.size + length


def _damaged(path: Path, at: int) -> StateError:
    return StateError(f"{path}: damaged at byte {at} (checksum); restore it from a backup, or start a new lineage")
