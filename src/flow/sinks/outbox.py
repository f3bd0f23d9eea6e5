"""Blocks on disk, between the epoch that cut them and the store that takes them.

    <writer>-<block>.json                  the block: its files, their tables, lengths and checksums; its own checksum
    <writer>-<block>-<n>-<table>.arrow     the rows, in the order in which they are published
    <writer>-<block>.begun                 there while it is being published

A block is *cut* when its files are written and synced, *frozen* when the epoch is committed (its content can then
never change), and gone once the store has it. The json is deleted first, so that a block without it needs nothing
more than sweeping up.
"""

import json
import zlib
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import pyarrow as pa

from ..errors import StateError
from ..faults import point
from ..state.beside import Beside
from ..state.files import SummedFile, explain, make_folder, summed_up, sync_folder, write_whole
from ..steps.combine import TableRows, Tables
from ..store.tables import LEFT_OUT, ROLLUPS, TABLES

BATCHES_AHEAD = 3
"""That wait to be written: a sync takes as long as a batch takes to be made, or longer."""


@dataclass(frozen=True, slots=True)
class BlockFile:
    """One Arrow file of a block."""

    table: str
    name: str
    bytes: int
    crc32: int
    columns: tuple[str, ...] = ()
    """Those of the table that it has; empty: all."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block in the outbox."""

    lineage: str
    writer: str
    number: int
    files: tuple[BlockFile, ...]

    @property
    def token(self) -> str:
        """What the store knows it by: content behind a token is frozen before the store hears of it."""
        return f"{self.lineage}-{self.writer}-{self.number}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


class Outbox:
    """The blocks of one writer."""

    def __init__(self, folder: Path, lineage: str, writer: str, compression: Literal["lz4"] | None = None) -> None:
        """`compression`: of the files, for blocks that wait in large numbers, or have many zeros."""
        self.folder = folder
        self._options = pa.ipc.IpcWriteOptions(compression=compression)
        self._lineage = lineage
        self._writer = writer

    def _json(self, number: int) -> Path:
        return self.folder / f"{self._writer}-{number:010d}.json"

    def _begun(self, number: int) -> Path:
        return self.folder / f"{self._writer}-{number:010d}.begun"

    def cut(self, number: int, tables: Tables) -> Block:
        """Writes a block, synced file by file, its json last. Raises StateError."""
        writing = []
        beside = Beside(BATCHES_AHEAD, "outbox")
        try:
            for n, (table, rows) in enumerate(tables):
                name = f"{self._writer}-{number:010d}-{n:03d}-{table}.arrow"
                writing.append(_write_arrow(beside, self.folder / name, self._options, table, rows))
            files = [file.result() for file in writing]
        finally:
            beside.end()
        point("outbox.after_rows")
        block = Block(self._lineage, self._writer, number, tuple(files))
        described = [[f.table, f.name, f.bytes, f.crc32, *([f.columns] if f.columns else [])] for f in files]
        body = json.dumps({"lineage": block.lineage, "files": described})
        write_whole(self._json(number), f"{body}\n{zlib.crc32(body.encode())}\n".encode())
        point("outbox.after_json")
        return block

    def read(self, number: int) -> Block | None:
        """The block of this number, or None where it was published already. Raises StateError if it is damaged."""
        path = self._json(number)
        try:
            line, checksum = path.read_bytes().splitlines()
            if zlib.crc32(line) != int(checksum):
                raise ValueError("checksum")
            body = json.loads(line)
            files = tuple(BlockFile(*file) for file in body["files"])
            return Block(body["lineage"], self._writer, number, files)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise explain(error, path, "read") from error
        except (ValueError, TypeError, KeyError) as error:
            raise StateError(f"{path}: damaged ({error}); restore the state directory from a backup") from error

    def resume(self, last: int | None, in_store: int | None = None) -> list[Block]:
        """The frozen blocks that still wait, oldest first; deletes what no commit covers.

        `last` is the block of the last committed epoch, None where no epoch was committed; `in_store` the last that
        the store has, None if that is not known. Raises StateError, naming the file, if one is damaged or missing.
        """
        make_folder(self.folder)
        self._refuse_begun(last or 0)
        waiting = []
        for path in sorted(self.folder.glob(f"{self._writer}-*.json")):
            number = int(path.stem.rpartition("-")[2])
            if last is None or number > last:
                path.unlink()
            elif (block := self.read(number)) is not None:
                waiting.append(block)
        if last is not None and in_store is not None:
            missing = set(range(in_store + 1, last + 1)) - {block.number for block in waiting}
            if missing:
                raise StateError(
                    f"{self._json(min(missing))}: missing, and the store does not have this block; restore the state "
                    "directory from a backup, or replay the source into a new lineage"
                )
        wanted = {file.name for block in waiting for file in block.files}
        for path in self.folder.glob(f"{self._writer}-*.arrow"):
            if path.name not in wanted:
                path.unlink()
        for path in self.folder.glob(f"{self._writer}-*.tmp"):  # not another writer's, which may be at work
            path.unlink()
        return waiting

    def _refuse_begun(self, last: int) -> None:
        """Only committed blocks are published: one behind the last commit means that the recovery store went back."""
        for path in self.folder.glob(f"{self._writer}-*.begun"):
            number = int(path.stem.rpartition("-")[2])
            if number > last:
                raise StateError(
                    f"{self.folder.parent}: its recovery store has gone back: {self._writer} is at block {last}, while "
                    f"block {number} was being published; is a file of it damaged, or from an older backup? Restore "
                    "the newest, or replay the source into a new lineage"
                )
            path.unlink()

    def begin(self, block: Block) -> None:
        """Its first insert is next: from now on this block can never have other content. Raises StateError."""
        path = self._begun(block.number)
        try:
            path.touch()
        except OSError as error:
            raise explain(error, path, "make") from error

    def check(self, block: Block) -> None:
        """Raises StateError, naming the file, if one of a block's files is not as it was cut."""
        for file in block.files:
            path = self.folder / file.name
            try:
                found = summed_up(path)
            except OSError as error:
                raise explain(error, path, "read") from error
            if found != (file.bytes, file.crc32):
                raise StateError(
                    f"{path}: damaged (checksum); restore it from a backup, or replay the source into a new lineage"
                )

    def done(self, block: Block) -> None:
        """The store has it."""
        point("publisher.before_done")
        self._json(block.number).unlink(missing_ok=True)
        sync_folder(self.folder)  # a json that comes back after a power loss would name files that do not
        point("publisher.after_json_gone")
        for file in block.files:
            (self.folder / file.name).unlink(missing_ok=True)
        self._begun(block.number).unlink(missing_ok=True)


def _write_arrow(
    beside: Beside, path: Path, options: pa.ipc.IpcWriteOptions, table: str, rows: TableRows
) -> Future[BlockFile]:
    """Writes and syncs a file on a thread, while this one makes the next batches, and then the next file's first."""
    schema = TABLES[table]
    left_out = LEFT_OUT.get(table, set()).difference(rows.schema.names)
    if left_out:
        schema = pa.schema([field for field in schema if field.name not in left_out])
    if table not in ROLLUPS:
        rows = _cast(rows, schema)
    elif rows.schema.names != schema.names:
        raise ValueError(f"{table} has the columns {schema.names}, not {rows.schema.names}")
    file = _ArrowFile(path, rows.schema, options)
    beside.begin(file.open)
    for batch in rows.batches:
        beside.begin(partial(file.write, batch))
    return beside.begin(partial(file.finish, table, tuple(schema.names) if left_out else ()))


class _ArrowFile:
    """An Arrow IPC file to be written. Raises StateError."""

    def __init__(self, path: Path, schema: pa.Schema, options: pa.ipc.IpcWriteOptions) -> None:
        self._path = path
        self._schema = schema
        self._options = options

    def open(self) -> None:
        try:
            self._file = SummedFile(self._path)
        except OSError as error:
            raise explain(error, self._path, "write") from error
        self._writer = pa.ipc.new_file(pa.PythonFile(self._file, mode="w"), self._schema, options=self._options)

    def write(self, batch: pa.RecordBatch) -> None:
        try:
            self._writer.write_batch(batch)
            self._file.sync()  # while the next batch is made
        except BaseException as error:
            self._file.abandon()
            if isinstance(error, OSError):
                raise explain(error, self._path, "write") from error
            raise

    def finish(self, table: str, columns: tuple[str, ...]) -> BlockFile:
        try:
            self._writer.close()
            self._file.close()
        except OSError as error:
            raise explain(error, self._path, "write") from error
        return BlockFile(table, self._path.name, self._file.bytes, self._file.crc32, columns)


def _cast(rows: TableRows, schema: pa.Schema) -> TableRows:
    """The few rows of the other tables, in the types of their columns, as one batch."""
    table = pa.Table.from_batches(rows.batches, rows.schema).select(schema.names).cast(schema)
    return TableRows(schema, table.combine_chunks().to_batches())


def empty_outbox(folder: Path) -> bool:
    """Whether no block waits there."""
    return not any(folder.glob("*.json"))
