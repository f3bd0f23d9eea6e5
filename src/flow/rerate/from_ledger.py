"""Usage to re-rate, event by event: from the sealed files of the ledger, with the book that rated each event last.

The work is cut by time, not by file: events of one minute are in the files of every writer, and where they come to one
combiner they become one row.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import SourceError
from ..kernels import usage_lists
from ..schema import DIMENSIONS, EVENTS, LEDGER
from ..state.ledger import ledger_files, rated_by, writer_and_number
from ..state.ledger_file import LedgerFile
from ..state.rerates import Rerate
from ..steps.amend import rated_rows
from .asked import Scope

BATCH_ROWS = 1 << 16
RUN_EVENTS = 1 << 20
"""Events that one thread takes at once: many enough that few minutes are in two runs."""
_COLUMNS = ["time", *DIMENSIONS, "usage", "amends"]
_LAST_US = 2**63 - 1


def files_of(folder: Path, lineage: str) -> list[Path]:
    """The sealed files of a lineage, oldest first."""
    return [path for path in ledger_files(folder) if path.name.startswith(f"{lineage}-")]


def last_files(files: Sequence[Path]) -> dict[str, int]:
    """The number of the last file of each writer."""
    found: dict[str, int] = {}
    for writer, number in map(writer_and_number, files):
        found[writer] = max(found.get(writer, 0), number)
    return found


class Group(NamedTuple):
    """A row group of a file."""

    first_us: int
    """The earliest time of its events; 0 where the file does not tell."""
    path: Path
    number: int
    first_row: int
    rows: int


def groups_near(files: Sequence[Path], scope: Scope) -> list[Group]:
    """The row groups that touch a scope, by time. Raises SourceError."""
    found = []
    for path in files:
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error
        first_row = 0
        for number in range(metadata.num_row_groups):
            group = metadata.row_group(number)
            first_us, last_us = _times(group)
            if first_us < scope.before_us and last_us >= scope.from_us:
                found.append(Group(first_us, path, number, first_row, group.num_rows))
            first_row += group.num_rows
    return sorted(found)


def runs(groups: Iterable[Group]) -> Iterator[list[Group]]:
    """What threads take one after the other: RUN_EVENTS events or a little more, with the groups of a file together."""
    run: list[Group] = []
    for group in groups:
        run.append(group)
        if sum(one.rows for one in run) >= RUN_EVENTS:
            yield sorted(run, key=lambda one: (one.path, one.number))
            run = []
    if run:
        yield sorted(run, key=lambda one: (one.path, one.number))


def rated_events(
    run: Sequence[Group], scope: Scope, rerates: Sequence[Rerate]
) -> Iterator[tuple[str, int, Path, pa.RecordBatch]]:
    """The EVENTS of a run that are in scope, with the digest of the book that rated them, and the file that says so;
    without ids and sources.

    The number says how they count: 1, or -1 for what a correction takes away. Raises SourceError.
    """
    for path, groups in groupby(run, key=lambda group: group.path):
        try:
            with LedgerFile(path, read_dictionary=DIMENSIONS) as file:
                for digest, sign, events in _rated_events(path, file, groups, scope, rerates):
                    yield digest, sign, path, events
        except (OSError, ValueError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error


def _rated_events(
    path: Path, file: LedgerFile, groups: Iterable[Group], scope: Scope, rerates: Sequence[Rerate]
) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    writer, number = writer_and_number(path)
    covering = [
        rerate for rerate in rerates if rerate.covers(writer, number) and rerate.times(scope.from_us, scope.before_us)
    ]
    books = rated_by(file.metadata)
    digests = list(dict.fromkeys([*(book for _, book in books), *(rerate.book for rerate in covering)]))
    of_row = np.repeat([digests.index(book) for _, book in books], [rows for rows, _ in books])
    for group in groups:
        first = group.first_row
        for batch in file.batches(BATCH_ROWS, _COLUMNS, [group.number]):
            book = of_row[first : first + batch.num_rows]
            first += batch.num_rows
            for at, chosen in _by_book(batch, book, scope, covering, digests):
                for sign, events in rated_rows(chosen):
                    yield digests[at], sign, _as_events(events)


def _unreadable(path: Path, error: Exception) -> SourceError:
    return SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}")


def _times(group: pq.RowGroupMetaData) -> tuple[int, int]:
    """The first and the last time of a row group."""
    times = group.column(LEDGER.names.index("time")).statistics
    if times is None or not times.has_min_max:
        return 0, _LAST_US
    first, last = (pa.scalar(time, LEDGER.field("time").type).value for time in (times.min, times.max))
    return int(first), int(last)


def _by_book(
    batch: pa.RecordBatch, book: Any, scope: Scope, rerates: Sequence[Rerate], digests: Sequence[str]
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows in scope of each book, by its place in `digests`: the last of all that have rated a row."""
    time = batch.column("time").cast(pa.int64()).to_numpy()
    wanted = (time >= scope.from_us) & (time < scope.before_us)
    if scope.customer is not None:
        wanted &= _is(batch, scope.customer)
    for rerate in rerates:
        touched = (time >= rerate.from_us) & (time < rerate.before_us)
        if rerate.customer is not None:
            touched &= _is(batch, rerate.customer)
        book = np.where(touched, digests.index(rerate.book), book)
    for at in range(len(digests)):
        chosen = wanted & (book == at)
        if chosen.all():
            yield at, batch
        elif chosen.any():
            yield at, batch.filter(pa.array(chosen))


def _is(batch: pa.RecordBatch, customer: str) -> Any:
    column = batch.column("customer")
    return pc.equal(column.dictionary, customer).to_numpy(zero_copy_only=False)[column.indices.to_numpy()]


def _as_events(batch: pa.RecordBatch) -> pa.RecordBatch:
    """LEDGER rows as EVENTS without ids and sources, which rating does not look at."""
    rows, usage = batch.num_rows, batch.column("usage")
    offsets = usage.offsets.to_numpy()
    first, items = int(offsets[0]), int(offsets[-1] - offsets[0])
    meter = _coded(usage.keys.slice(first, items))
    quantity = usage.items.slice(first, items).to_numpy()
    columns = {
        "id": pa.repeat(pa.scalar(""), rows),
        "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([""])),
        "event_time_us": _whole(batch.column("time").cast(pa.int64())),
        **{name: _coded(batch.column(name)) for name in DIMENSIONS},
        "usage": usage_lists(
            rows,
            pa.py_buffer(np.ascontiguousarray(offsets - first)),
            pa.py_buffer(np.ascontiguousarray(meter.indices.to_numpy())),
            pa.py_buffer(np.ascontiguousarray(quantity)),
            items,
            meter.dictionary,
        ),
        "position": pa.array(np.zeros(rows, np.int64)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)


def _coded(column: pa.Array) -> pa.DictionaryArray:
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    return pa.DictionaryArray.from_arrays(_whole(column.indices), column.dictionary.cast(pa.string()))


def _whole(column: pa.Array) -> pa.Array:
    """The same without an offset into a larger array, which kernels do not follow."""
    return pa.concat_arrays([column]) if column.offset == 0 else pa.array(column.to_numpy(), column.type)
