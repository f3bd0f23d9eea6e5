"""The ledger: every accepted event, as Parquet; written like all other state: appended, synced, cut back on resume.

A writer appends each epoch's events as one Arrow stream to its open file `open/<writer>-<number>.arrows`; the manifest
holds the length and a checksum. A file that has grown to its size or into another hour is closed with its epoch, and
sealed (rewritten as one Parquet file) once that epoch is committed. What is sealed is therefore never cut back, and
readers of the folder see whole files only.

Each file says by which version of the price book its events were rated: `rated_by` reads it.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from isal.isal_zlib import crc32

from ..errors import StateError
from ..faults import point
from ..schema import LEDGER, LEDGER_AMENDED
from .files import append, cut_back, explain, make_folder, summed_up, sync_folder

FILE_BYTES = 256 << 20
"""An open file that has reached this is sealed."""

GROUP_ROWS = 1 << 17
"""Rows of a row group, unless one epoch has more."""

_HOUR_US = 3_600_000_000
_BOOK = b"price_book"
"""In the metadata of an open file's stream: the digest of a book. In those of a sealed file: [rows, digest], ..."""


@dataclass(frozen=True, slots=True)
class OpenFile:
    """One open file as a manifest records it."""

    number: int
    length: int
    crc32: int
    opened_us: int
    closed: bool = False
    amended: bool = False
    """Whether it has rows of LEDGER_AMENDED; most files never do, and are written without that column."""


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
        self._batches: list[pa.RecordBatch] = []
        self._files: list[OpenFile] = []
        self._next = 1

    def path(self, number: int) -> Path:
        return self._open / f"{self._lineage}-{self._writer}-{number:06d}.arrows"

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
                sync_folder(sealed.parent)  # a killed process may have renamed it and not come to this
                self.path(file.number).unlink(missing_ok=True)
                continue
            cut_back(self.path(file.number), file.length)
            _check(self.path(file.number), file)
            self._files.append(file)
        kept = {self.path(file.number) for file in self._files}
        for path in self._open.glob(f"{self._lineage}-{self._writer}-*.arrows"):
            if path not in kept:
                path.unlink()

    def append(self, batch: pa.RecordBatch) -> None:
        """Takes accepted events (LEDGER or LEDGER_AMENDED); they are on disk with the next snapshot."""
        self._batches.append(batch)

    def snapshot(self, now_us: int) -> dict[str, Any]:
        """Appends the epoch's events, synced, and says how far the open files go. Raises StateError."""
        if self._batches:
            file = next((file for file in self._files if not file.closed), None)
            if file is None:
                file = OpenFile(self._next, 0, 0, now_us)
                self._next += 1
                self._files.append(file)
            amended = any(batch.num_columns > len(LEDGER) for batch in self._batches)
            content = _stream(self._batches, LEDGER_AMENDED if amended else LEDGER, self._book())
            point("ledger.before_append")
            append(self.path(file.number), file.length, [content])
            point("ledger.after_append")
            if not file.length:
                sync_folder(self._open)
            self._batches = []
            length = file.length + len(content)
            closed = length >= self._file_bytes or now_us // _HOUR_US != file.opened_us // _HOUR_US
            self._files[self._files.index(file)] = OpenFile(
                file.number, length, crc32(content, file.crc32), file.opened_us, closed, amended or file.amended
            )
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
        temporary = target.with_suffix(".tmp")
        try:
            books: list[tuple[int, str]] = []
            schema = LEDGER_AMENDED if file.amended else LEDGER
            with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
                for table in _grouped(_streams(source, file.length), schema, books):
                    writer.write_table(table)
                writer.add_key_value_metadata({_BOOK: json.dumps(_joined(books)).encode()})
            descriptor = os.open(temporary, os.O_RDONLY)
            os.fsync(descriptor)
            os.close(descriptor)
            point("ledger.before_seal")
            temporary.rename(target)
            sync_folder(target.parent)
            point("ledger.after_rename")
            source.unlink()
        except OSError as error:
            raise explain(error, target, "seal the ledger file") from error


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


def _grouped(tables: Iterable[pa.Table], schema: pa.Schema, books: list[tuple[int, str]]) -> Iterator[pa.Table]:
    """The rows of many small tables in fewer larger ones, for row groups that are read at speed; and into `books`, how
    many rows each had, and by which book they were rated."""
    held: list[pa.Table] = []
    for table in tables:
        books.append((table.num_rows, (table.schema.metadata or {}).get(_BOOK, b"").decode()))
        held.append(_with_columns(table.replace_schema_metadata(), schema))
        if sum(one.num_rows for one in held) >= GROUP_ROWS:
            yield pa.concat_tables(held)
            held = []
    if held:
        yield pa.concat_tables(held)


def _with_columns(rows: Any, schema: pa.Schema) -> Any:
    """A batch or a table of LEDGER, or of LEDGER_AMENDED, as one of `schema`."""
    if rows.num_columns == len(schema):
        return rows
    return rows.append_column(LEDGER_AMENDED.field("amends"), pa.nulls(rows.num_rows, pa.string()))


def _joined(books: list[tuple[int, str]]) -> list[tuple[int, str]]:
    """Runs of rows with one book."""
    runs = [(book, [rows for rows, _ in of_book]) for book, of_book in groupby(books, key=lambda found: found[1])]
    return [(sum(rows), book) for book, rows in runs]


def rated_by(metadata: pq.FileMetaData) -> list[tuple[int, str]]:
    """Of a sealed file: (rows, digest of the price book that rated them), in the order of its rows; "": not known."""
    found = (metadata.metadata or {}).get(_BOOK)
    return [(rows, book) for rows, book in json.loads(found)] if found else [(metadata.num_rows, "")]


def _stream(batches: list[pa.RecordBatch], schema: pa.Schema, book: str) -> bytes:
    sink = pa.BufferOutputStream()
    options = pa.ipc.IpcWriteOptions(compression="lz4")
    with pa.ipc.new_stream(sink, schema.with_metadata({_BOOK: book}), options=options) as writer:
        for batch in batches:
            writer.write_batch(_with_columns(batch, schema))
    return bytes(sink.getvalue())


def _streams(path: Path, length: int) -> Iterator[pa.Table]:
    """The Arrow streams of an open file, one an epoch."""
    with pa.memory_map(str(path)) as file:
        while file.tell() < length:
            try:
                with pa.ipc.open_stream(file) as reader:
                    yield reader.read_all()
            except pa.ArrowInvalid as error:
                raise StateError(
                    f"{path}: damaged ({error}); restore it from a backup, or replay the source"
                ) from error


def is_ledger(schema: pa.Schema) -> bool:
    """Whether a file has the columns of a ledger, with `amends` or without; text may be read as dictionaries."""
    names = schema.names
    known = names in (LEDGER.names, LEDGER_AMENDED.names)
    return known and bool(schema.field("time").type == LEDGER.field("time").type)


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
    return sorted((folder / "open").glob("*.arrows"))
