"""The packed index of a sealed segment that has left memory, in a file beside it, where a kernel looks fingerprints up.

    file = magic "TLSI" | version u16 | 0 u16 | places u64 | entries u32 | checksum of the segment u32 | CRC-32 u32
           | 0 u32 | entries (8 bytes each) | directory (4 bytes for each 128 places, and 4)

All of it can be made from the segment: the file is never synced, and made anew where it is missing, damaged, or of
other records than the segment has.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

from isal.isal_zlib import crc32

from .files import explain, summed_up, write_pieces
from .opened import OpenedFile

_HEAD = struct.Struct("<4sHHQII")
_TAIL = struct.Struct("<II")
_START = _HEAD.size + _TAIL.size
_MAGIC, _VERSION = b"TLSI", 1
_BUCKET_PLACES = 128


@dataclass(frozen=True, slots=True)
class PackedIndex:
    """Where the parts of an index are, for a kernel."""

    file: OpenedFile
    places: int
    """Of the table that was packed."""
    entries: int

    @property
    def entries_at(self) -> int:
        return _START

    @property
    def directory_at(self) -> int:
        return _START + 8 * self.entries


@dataclass(frozen=True, slots=True)
class FiledSegment:
    """A segment that is read in its files, which are open for as long as this is held."""

    records: OpenedFile
    index: PackedIndex

    def __str__(self) -> str:
        return str(self.records.path)


def _length(places: int, entries: int) -> int:
    return _START + 8 * entries + 4 * (places // _BUCKET_PLACES + 1)


def write_index(path: Path, segment_checksum: int, places: int, entries: memoryview, directory: memoryview) -> None:
    """Writes an index in the place of any that is there. Raises StateError."""
    head = _HEAD.pack(_MAGIC, _VERSION, 0, places, len(entries) // 8, segment_checksum)
    checksum = crc32(directory, crc32(entries, crc32(head)))
    write_pieces(path, [head, _TAIL.pack(checksum, 0), entries, directory])


def open_index(path: Path, segment_checksum: int) -> PackedIndex | None:
    """The index of the segment with this checksum; None if there is none that can be trusted. Raises StateError."""
    try:
        with path.open("rb") as file:
            start = file.read(_START)
        if len(start) < _START:
            return None
        magic, version, _, places, entries, of_segment = _HEAD.unpack_from(start)
        if (magic, version, of_segment) != (_MAGIC, _VERSION, segment_checksum):
            return None
        length, checksum = summed_up(path, _START, crc32(start[: _HEAD.size]))
        if length != _length(places, entries) or checksum != _TAIL.unpack_from(start, _HEAD.size)[0]:
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise explain(error, path, "read") from error
    return opened_index(path, places, entries)


def opened_index(path: Path, places: int, entries: int) -> PackedIndex:
    """The index that was written here. Raises StateError."""
    return PackedIndex(OpenedFile(path), places, entries)
