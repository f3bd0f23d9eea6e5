"""The ledger: every accepted event, as Parquet; written like all other state: appended, synced, cut back on resume.

A writer appends each epoch's events as a piece of Parquet (`pieces.py`) to its open file
`open/<writer>-<number>.pieces`; the manifest holds the length and a checksum. A file that has grown to its size or into
another hour is closed with its epoch, and sealed once that epoch is committed: its pieces get a footer in common and it
gets its name, or, where they are small, it is written anew in larger row groups. What is sealed is therefore never cut
back, and readers of the folder see whole files only. What is in them is read with `ledger_file.py`.

Each file says by which version of the price book its events were rated: `rated_by` reads it.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from ..errors import StateError
from ..faults import point
from ..kernels import Rows
from ..kernels.pages import Pages, picked
from ..schema import DIMENSIONS, LEDGER_FILE, STANDARD_METERS
from .appender import Appender
from .files import append, cut_back, explain, make_folder, settle, summed_up, sync_file, sync_folder
from .ledger_file import as_ledger, is_of_now
from .pieces import Footer, Piece, footers, rows, whole_footer

FILE_BYTES = 256 << 20
"""An open file that has reached this is sealed."""

GROUP_ROWS = 1 << 15
"""Rows of a row group at least, unless an epoch has fewer: no more, since putting batches together costs more than
encoding them."""

GROUP_ROWS_MIN = 1 << 14
"""A file whose row groups are smaller than this on average is written anew when it is sealed."""

_CODED = ("source", *DIMENSIONS, "source_position.origin", "other_usage.key_value.key")
"""Columns of texts that repeat."""

_NUMBERS = (
    "time",
    *STANDARD_METERS,
    "source_position.position",
    "source_position.message_byte",
    "other_usage.key_value.value",
)

_ANEW: dict[str, Any] = {
    "compression": {"amends": "lz4"},  # the one column that gets much smaller, see row_groups.py
    "use_dictionary": list(_CODED),
    "column_encoding": dict.fromkeys(_NUMBERS, "DELTA_BINARY_PACKED"),
    "write_statistics": ["time"],  # by which row groups are chosen
    "write_batch_size": 1 << 15,  # with the default of 1024, a quarter of the time goes into calls
}
_HOUR_US = 3_600_000_000
_BOOK = "price_book"
"""In the metadata of a piece: the digest of a book. In those of a sealed file: [rows, digest], ..."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One open file as a manifest records it."""

    number: int
    length: int
    crc32: int
    opened_us: int
    closed: bool = False


class LedgerWriter:
    """The ledger of one writer. Knows nothing of Bytewax."""

    def __init__(
        self,
        folder: Path,
        lineage: str,
        writer: str,
        file_bytes: int = FILE_BYTES,
        book: Callable[[], str] = lambda: "",
    ) -> None:
        """`book`: the digest of the price book by which what was appended is rated; "" if that is not known."""
        self._folder = folder
        self._open = folder / "open"
        self._lineage = lineage
        self._writer = writer
        self._file_bytes = file_bytes
        self._book = book
        self._pages = Pages()
        self._held: list[tuple[pa.RecordBatch, Rows, int]] = []
        self._schema = LEDGER_FILE  # of what is held, with all columns that this run has needed so far
        self._held_rows = 0
        self._piece: Piece | None = None
        self._end: Appender | None = None  # of the file that is appended to
        self._files: list[OpenFile] = []
        self._next = 1

    def path(self, number: int) -> Path:
        return self._open / open_name(self._lineage, self._writer, number)

    def sealed_path(self, file: OpenFile) -> Path:
        hour = datetime.fromtimestamp(file.opened_us // 1_000_000, UTC)
        name = f"{self._lineage}-{self._writer}-{file.number:06d}.parquet"
        return self._folder / f"{hour:%Y-%m-%d}" / f"{hour:%H}" / name

    def resume(self, manifest: dict[str, Any] | None) -> None:
        """Cuts the open files back to the manifest and removes what is not in it; None: no snapshot was committed."""
        make_folder(self._open, inside=self._folder.parent)
        files = [OpenFile(**file) for file in manifest["files"]] if manifest else []
        self._next = manifest["next"] if manifest else 1
        self._files = []
        for file in files:
            sealed = self.sealed_path(file)
            if sealed.exists():
                settle(sealed.parent)
                self.path(file.number).unlink(missing_ok=True)
                continue
            cut_back(self.path(file.number), file.length)
            _check(self.path(file.number), file)
            self._files.append(file if self._goes_on(file) else replace(file, closed=True))
        self._end = None
        kept = {self.path(file.number) for file in self._files}
        for path in self._open.glob(f"{self._lineage}-{self._writer}-*.pieces"):
            if path not in kept:
                path.unlink()

    def _goes_on(self, file: OpenFile) -> bool:
        """Whether what comes can stand behind what a file has; an older version may have begun it."""
        return all(is_of_now(piece.schema.to_arrow_schema()) for piece in footers(self.path(file.number), file.length))

    def append(self, batch: pa.RecordBatch, rows: Rows = None, count: int | None = None) -> None:
        """Takes accepted events, which are durable with the next snapshot. Raises StateError.

        batch: LEDGER_FILE, and OTHER_USAGE and AMENDS where there are any; rows, count: which of its rows, none of them
        twice, and how many those are; without them all.
        """
        count = batch.num_rows if count is None else count
        if new := [field for field in batch.schema if field.name not in self._schema.names]:
            self._write()
            self._schema = pa.schema([*self._schema, *new])
        self._held.append((_with_all_columns(batch, self._schema), rows, count))
        self._held_rows += count
        if self._held_rows >= GROUP_ROWS:
            self._write()

    def _write(self) -> None:
        """Writes what is held as a row group of the epoch's piece."""
        if not self._held:
            return
        batch, rows, count = _joined(self._held)
        self._held, self._held_rows = [], 0
        file = self._appended()
        path = self.path(file.number)
        try:
            if self._end is None:
                self._end = Appender(path, file.length, file.crc32)
            if self._piece is not None and self._piece.schema != batch.schema:
                self._end_piece()
            if self._piece is None:
                self._piece = Piece(self._end, batch.schema, self._pages)
            self._piece.write(batch, rows, count)
        except OSError as error:
            raise explain(error, path, "append") from error

    def _end_piece(self) -> None:
        if self._piece is not None:
            self._piece.close({_BOOK: self._book()})
            self._piece = None

    def _appended(self) -> OpenFile:
        """The file that is appended to."""
        file = next((file for file in self._files if not file.closed), None)
        if file is None:
            file = OpenFile(self._next, 0, 0, -1)
            self._next += 1
            self._files.append(file)
            self._end = None
        return file

    def snapshot(self, now_us: int) -> dict[str, Any]:
        """Makes the epoch's events durable, and says how far the open files go. Raises StateError."""
        self._write()
        if self._piece is not None and self._end is not None:
            file, end = self._appended(), self._end
            path = self.path(file.number)
            point("ledger.before_append")
            try:
                self._end_piece()
                end.sync()
                point("ledger.after_append")
                if not file.length:
                    sync_folder(self._open)
            except OSError as error:
                raise explain(error, path, "append") from error
            opened_us = file.opened_us if file.length else now_us
            closed = end.length >= self._file_bytes or now_us // _HOUR_US != opened_us // _HOUR_US
            self._files[self._files.index(file)] = OpenFile(file.number, end.length, end.crc32, opened_us, closed)
        return self._manifest()

    def _manifest(self) -> dict[str, Any]:
        return {"next": self._next, "files": [asdict(file) for file in self._files]}

    def seal(self, *, everything: bool = False) -> None:
        """Rewrites closed files as Parquet; call only once the snapshot that closed them is durable. Raises StateError.

        `everything`: open files as well, at the end of a run.
        """
        for file in [file for file in self._files if file.closed or everything]:
            self._seal(file)
            self._files.remove(file)

    def _seal(self, file: OpenFile) -> None:
        source, target = self.path(file.number), self.sealed_path(file)
        make_folder(target.parent, inside=self._folder)
        try:
            pieces = footers(source, file.length)
            schemas = [piece.schema.to_arrow_schema() for piece in pieces]
            groups, events = sum(piece.num_row_groups for piece in pieces), sum(piece.num_rows for piece in pieces)
            said = {_BOOK: json.dumps(_books(pieces))}
            small = groups > 1 and events < groups * GROUP_ROWS_MIN
            if small or any(schema != schemas[0] for schema in schemas):
                whole = target.with_suffix(".tmp")
                _write_anew(whole, source, pieces, said)
                sync_file(whole)
            else:
                whole = source
                append(whole, file.length, [whole_footer(pieces, schemas[0], said)])
            point("ledger.before_seal")
            whole.rename(target)
            sync_folder(target.parent)
            point("ledger.after_rename")
            source.unlink(missing_ok=True)
        except OSError as error:
            raise explain(error, target, "seal the ledger file") from error


def _write_anew(path: Path, source: Path, pieces: list[Footer], said: dict[str, str]) -> None:
    """The rows of many small row groups in fewer larger ones, for readers at speed."""
    schema = pa.unify_schemas([piece.schema.to_arrow_schema().remove_metadata() for piece in pieces])
    with pq.ParquetWriter(path, schema, store_schema=False, **_ANEW) as writer:
        for table in _grouped(table for piece in pieces for table in rows(source, piece)):
            writer.write_table(table, row_group_size=table.num_rows)
        writer.add_key_value_metadata(said)


def _joined(held: list[tuple[pa.RecordBatch, Rows, int]]) -> tuple[pa.RecordBatch, Rows, int]:
    """Several selections of batches as one, of one batch."""
    if len(held) == 1:
        return held[0]
    table = pa.Table.from_batches([picked(batch, rows, count) for batch, rows, count in held])
    (whole,) = table.unify_dictionaries().combine_chunks().to_batches()
    return whole, None, whole.num_rows


def _with_all_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The same with a null in the columns that it does not have."""
    if batch.schema.names == schema.names:
        return batch
    there = set(batch.schema.names)
    columns = (batch.column(f.name) if f.name in there else pa.nulls(batch.num_rows, f.type) for f in schema)
    return pa.RecordBatch.from_arrays(list(columns), schema=schema)


def _check(path: Path, file: OpenFile) -> None:
    """Raises StateError if an open file is not what was appended to it: Arrow's own format would not tell."""
    try:
        _, checksum = summed_up(path)
    except OSError as error:
        raise explain(error, path, "read") from error
    if checksum != file.crc32:
        raise StateError(
            f"{path}: damaged (checksum); restore it from a backup, or replay the source into a new lineage"
        )


def _grouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows of many small tables in fewer larger ones; a column that some of them do not have is null there."""
    held: list[pa.Table] = []
    for table in tables:
        held.append(table.replace_schema_metadata())
        if sum(one.num_rows for one in held) >= GROUP_ROWS:
            yield pa.concat_tables(held, promote_options="default")
            held = []
    if held:
        yield pa.concat_tables(held, promote_options="default")


def _books(pieces: list[Footer]) -> list[tuple[int, str]]:
    """Runs of rows with one book."""
    said = [((piece.metadata or {}).get(_BOOK.encode(), b"").decode(), piece.num_rows) for piece in pieces]
    return [(sum(rows for _, rows in run), book) for book, run in groupby(said, key=lambda one: one[0])]


def rated_by(metadata: pq.FileMetaData) -> list[tuple[int, str]]:
    """Of a sealed file: (rows, digest of the price book that rated them), in the order of its rows; "": not known."""
    found = (metadata.metadata or {}).get(_BOOK.encode())
    return [(rows, book) for rows, book in json.loads(found)] if found else [(metadata.num_rows, "")]


def writer_and_number(path: Path) -> tuple[str, int]:
    """Who wrote a sealed file, and which of the writer's files it is, counted from 1."""
    _, _, rest = path.stem.partition("-")
    writer, _, number = rest.rpartition("-")
    return writer, int(number)


def ledger_files(folder: Path) -> list[Path]:
    """The sealed files of a ledger, oldest first."""
    return sorted(path for path in folder.glob("*/*/*.parquet") if path.parent.parent.name != "open")


def unsealed_files(folder: Path) -> list[Path]:
    """Open files: a run is on, or ended without sealing them."""
    return sorted((folder / "open").glob("*.pieces"))


def open_name(lineage: str, writer: str, number: int) -> str:
    """The name of an open file."""
    return f"{lineage}-{writer}-{number:06d}.pieces"


def unsealed_rows(path: Path, length: int) -> Iterator[pa.RecordBatch]:
    """LEDGER_AMENDED of the first `length` bytes of an open file; nothing if it was sealed meanwhile.

    Raises StateError, OSError, ArrowException.
    """
    try:
        for footer in footers(path, length):
            yield from (as_ledger(batch) for table in rows(path, footer) for batch in table.to_batches())
    except FileNotFoundError:
        return
