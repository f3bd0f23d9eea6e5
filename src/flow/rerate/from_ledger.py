"""Usage to re-rate, event by event: from the sealed files of the ledger, with the book that rated each event last."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import SourceError
from ..kernels import usage_lists
from ..schema import DIMENSIONS, EVENTS, LEDGER
from ..state.ledger import is_ledger, ledger_files, rated_by, writer_and_number
from ..state.rerates import Rerate
from ..steps.amend import rated_rows
from .asked import Scope

BATCH_ROWS = 1 << 16
_COLUMNS = ["time", *DIMENSIONS, "usage"]
_KEYS = "usage.key_value.key"


def files_of(folder: Path, lineage: str) -> list[Path]:
    """The sealed files of a lineage, oldest first."""
    return [path for path in ledger_files(folder) if path.name.startswith(f"{lineage}-")]


def last_files(files: Sequence[Path]) -> dict[str, int]:
    """The number of the last file of each writer."""
    found: dict[str, int] = {}
    for writer, number in map(writer_and_number, files):
        found[writer] = max(found.get(writer, 0), number)
    return found


def events_near(files: Sequence[Path], scope: Scope) -> int:
    """How many events the row groups have that touch a scope. Raises SourceError."""
    count = 0
    for path in files:
        try:
            metadata = pq.read_metadata(path)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
        groups = (metadata.row_group(n) for n in range(metadata.num_row_groups))
        count += sum(group.num_rows for group in groups if _touches(group, scope))
    return count


def rated_events(path: Path, scope: Scope, rerates: Sequence[Rerate]) -> Iterator[tuple[str, int, pa.RecordBatch]]:
    """The EVENTS of a file that are in scope, with the digest of the book that rated them; without ids and sources.

    The number says how they count: 1, or -1 for what a correction takes away. Raises SourceError.
    """
    writer, number = writer_and_number(path)
    covering = [
        rerate for rerate in rerates if rerate.covers(writer, number) and rerate.times(scope.from_us, scope.before_us)
    ]
    try:
        with pq.ParquetFile(path, read_dictionary=[*DIMENSIONS, _KEYS]) as file:
            if not is_ledger(file.schema_arrow):
                raise SourceError(f"{path}: its columns are not those of a ledger; restore it from a backup")
            columns = [*_COLUMNS, *(name for name in file.schema_arrow.names if name == "amends")]
            books = rated_by(file.metadata)
            digests = list(dict.fromkeys([*(book for _, book in books), *(rerate.book for rerate in covering)]))
            of_row = np.repeat([digests.index(book) for _, book in books], [rows for rows, _ in books])
            first = 0
            for group in range(file.num_row_groups):
                rows = file.metadata.row_group(group).num_rows
                if _touches(file.metadata.row_group(group), scope):
                    for batch in file.iter_batches(BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False):
                        book = of_row[first : first + batch.num_rows]
                        for at, chosen in _by_book(batch, book, scope, covering, digests):
                            for sign, events in rated_rows(chosen):
                                yield digests[at], sign, _as_events(events)
                        first += batch.num_rows
                        rows -= batch.num_rows
                first += rows
    except (OSError, ValueError, pa.ArrowException) as error:
        raise SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


def _touches(group: pq.RowGroupMetaData, scope: Scope) -> bool:
    times = group.column(LEDGER.names.index("time")).statistics
    if times is None or not times.has_min_max:
        return True
    first, last = (pa.scalar(time, LEDGER.field("time").type).value for time in (times.min, times.max))
    return bool(first < scope.before_us and last >= scope.from_us)


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
