"""A Parquet file that is written piece by piece, each piece durable on its own, and finished without writing it anew.

    file = piece ... footer of the whole
    piece = "PAR1" | row groups | footer of these row groups | length of that footer u32 | "PAR1"

A piece is a Parquet file whose offsets count from the beginning of the whole file. So the footer of the whole is the
footers of its pieces put together; what lies between row groups is skipped by every reader. A file that is not
finished is read from its end: the row groups of a piece tell where it begins, which is where the one before it ends.
"""

import mmap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StateError
from ..kernels import Rows
from ..kernels.pages import Pages
from .appender import Appender
from .row_groups import RowGroup, metadata
from .thrift import Encoded

_MAGIC = b"PAR1"
_TAIL_BYTES = 8
"""Length of a footer, and magic."""
_UNREADABLE = (OSError, pa.ArrowException)

Footer = Any
"""pyarrow.parquet.FileMetaData, which has no types."""


class Piece:
    """A piece that is being written at the end of a file. Raises StateError."""

    def __init__(self, file: Appender, schema: pa.Schema, pages: Pages) -> None:
        self.schema = schema
        self._file = file
        self._pages = pages
        self._groups: list[Encoded] = []
        self._rows = 0
        file.write(_MAGIC)

    def write(self, batch: pa.RecordBatch, rows: Rows, count: int) -> None:
        """Writes the selected rows, as one row group."""
        self._groups.append(RowGroup(self._file, self._pages).write(batch, rows, count))
        self._rows += count

    def close(self, said: Mapping[str, str]) -> None:
        """Writes the footer, with what is `said` as metadata."""
        content = metadata(self.schema, self._groups, self._rows, said)
        self._file.write(content + len(content).to_bytes(4, "little") + _MAGIC)


def footers(path: Path, length: int) -> list[Footer]:
    """The footers of the pieces in the first `length` bytes of a file, behind which one may be being written.

    Raises StateError if there is anything else in it, OSError.
    """
    found: list[Footer] = []
    with path.open("rb") as file:
        if not length:
            return found
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            at = length
            while at:
                footer = _footer_before(content, at)
                if footer is None:
                    raise StateError(
                        f"{path}: damaged before byte {at} (footer); restore it from a backup, or replay the source"
                    )
                found.append(footer)
                at = _begin(footer)
    return found[::-1]


def rows(path: Path, footer: Footer) -> Iterator[pa.Table]:
    """The row groups of a piece. Raises OSError, ArrowException."""
    with pq.ParquetFile(path, metadata=footer, memory_map=True) as file:
        for number in range(footer.num_row_groups):
            yield file.read_row_group(number)


def whole_footer(pieces: list[Footer], schema: pa.Schema, said: Mapping[str, str]) -> bytes:
    """What finishes a file of these pieces, with what is `said` as its metadata. All have `schema`."""
    empty = pa.BufferOutputStream()
    with pq.ParquetWriter(empty, schema, store_schema=False) as writer:
        writer.add_key_value_metadata(dict(said))
    whole = pq.read_metadata(pa.BufferReader(empty.getvalue()))
    for piece in pieces:
        whole.append_row_groups(piece)
    written = pa.BufferOutputStream()
    whole.write_metadata_file(written)
    content = bytes(written.getvalue())
    return content[-_TAIL_BYTES - _footer_bytes(content, len(content)) :]


def _footer_bytes(content: bytes | mmap.mmap, end: int) -> int:
    return int.from_bytes(content[end - _TAIL_BYTES : end - len(_MAGIC)], "little")


def _footer_before(content: mmap.mmap, end: int) -> Footer | None:
    """The footer that ends there; None: none does."""
    if end < _TAIL_BYTES or end > len(content) or content[end - len(_MAGIC) : end] != _MAGIC:
        return None
    begin = end - _TAIL_BYTES - _footer_bytes(content, end)
    if begin < 0:
        return None
    try:
        footer = pq.read_metadata(pa.BufferReader(_MAGIC + content[begin:end]))
        # What happens to end like a footer, within the bytes of events, does not begin with a piece's magic.
        at = _begin(footer)
        return footer if 0 <= at < begin and content[at : at + len(_MAGIC)] == _MAGIC else None
    except _UNREADABLE:
        return None


def _begin(footer: Footer) -> int:
    """Where the piece of a footer begins; -1: it has no rows, which no piece is without."""
    if not footer.num_row_groups:
        return -1
    group = footer.row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    firsts = [c.dictionary_page_offset if c.has_dictionary_page else c.data_page_offset for c in columns]
    return int(min(firsts)) - len(_MAGIC)
