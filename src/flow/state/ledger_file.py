"""A file of the ledger as its readers see it: rows of LEDGER, whatever form they are kept in.

Files have a column for each standard meter, lists for other meters, and source positions in parts (LEDGER_FILE): they
take half the time to write that files of older versions took, which have all usage as lists, and source positions as
texts. Here both become LEDGER, a column at a time, in nothing but Arrow and numpy.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..schema import AMENDS, LEDGER, LEDGER_AMENDED, LEDGER_FILE, LEDGER_USAGE, OTHER_USAGE, STANDARD_METERS

_USAGE = (*STANDARD_METERS, OTHER_USAGE.name)


class LedgerFile:
    """A sealed file, open for reading. Raises OSError, ArrowException, also if it is not a ledger's."""

    def __init__(self, path: Path, *, read_dictionary: Sequence[str] = (), memory_map: bool = False) -> None:
        self._file = pq.ParquetFile(path, read_dictionary=list(read_dictionary), memory_map=memory_map)
        self._names = self._file.schema_arrow.names
        if not is_ledger(self._file.schema_arrow):
            self._file.close()
            raise pa.ArrowInvalid("its columns are not those of a ledger")

    def __enter__(self) -> "LedgerFile":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def metadata(self) -> pq.FileMetaData:
        return self._file.metadata

    @property
    def amended(self) -> bool:
        """Whether it can have events that amend others."""
        return AMENDS.name in self._names

    def batches(
        self,
        rows: int,
        columns: Sequence[str] = LEDGER_AMENDED.names,
        row_groups: Sequence[int] | None = None,
        where: Callable[[pa.RecordBatch], Any] | None = None,
    ) -> Iterator[pa.RecordBatch]:
        """Columns of LEDGER_AMENDED that are there, at most so many rows at once.

        where: a mask of the rows that are wanted, from a batch whose usage and source positions are in the file's form.
        Raises OSError, ArrowException.
        """
        kept = [name for name in self._names if name in columns or ("usage" in columns and name in _USAGE)]
        groups = None if row_groups is None else list(row_groups)
        for batch in self._file.iter_batches(rows, row_groups=groups, columns=kept, use_threads=False):
            yield as_ledger(batch if where is None else batch.filter(where(batch)))


def is_ledger(schema: pa.Schema) -> bool:
    """Whether a file has the columns of a ledger; text may be read as dictionaries."""
    names = set(schema.names) - {AMENDS.name}
    if names != set(LEDGER.names) and names - {OTHER_USAGE.name} != set(LEDGER_FILE.names):
        return False
    return bool(schema.field("time").type == LEDGER.field("time").type)


def is_of_now(schema: pa.Schema) -> bool:
    """Whether a file of the ledger has the form that is written now."""
    return set(LEDGER_FILE.names) <= set(schema.names)


def as_ledger(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Rows of a file as LEDGER_AMENDED has them, as far as the columns are there; meters are dictionaries."""
    columns = {name: batch.column(name) for name in batch.schema.names}
    if STANDARD_METERS[0] in columns:
        columns["usage"] = _usage(columns, batch.num_rows)
    positions = columns.get("source_position")
    if positions is not None and pa.types.is_struct(positions.type):
        columns["source_position"] = position_texts(*positions.flatten())
    return pa.RecordBatch.from_pydict({name: columns[name] for name in LEDGER_AMENDED.names if name in columns})


def position_texts(origin: Any, position: pa.Int64Array, message_byte: pa.Int32Array) -> pa.StringArray:
    """Source positions for people: `origin:position`, and `origin:position+byte` behind the first byte of a message.

    origin: an array, or a text for all.
    """
    origins = origin.cast(pa.string()) if isinstance(origin, pa.Array) else origin
    texts = pc.binary_join_element_wise(origins, position.cast(pa.string()), ":")
    within = pc.greater(message_byte, 0)
    if not pc.any(within).as_py():
        return texts
    return pc.if_else(within, pc.binary_join_element_wise(texts, message_byte.cast(pa.string()), "+"), texts)


def _usage(columns: dict[str, pa.Array], rows: int) -> pa.MapArray:
    """The meters of each row: standard ones in their order, then others."""
    meters = [name for name in STANDARD_METERS if columns[name].null_count < rows] or STANDARD_METERS
    given = np.stack([columns[name].is_valid().to_numpy(zero_copy_only=False) for name in meters], axis=1)
    quantities = np.stack([columns[name].fill_null(0).to_numpy() for name in meters], axis=1)[given]
    codes = np.broadcast_to(np.arange(len(meters), dtype=np.int32), given.shape)[given]
    counts, names = given.sum(axis=1), pa.array(meters, pa.string())
    others = columns.get(OTHER_USAGE.name)
    if others is not None and others.null_count < rows:
        ends = others.offsets.to_numpy()
        first, items = int(ends[0]), int(ends[-1] - ends[0])
        coded = others.keys.slice(first, items).cast(pa.string()).dictionary_encode()
        of_others = np.diff(ends)
        row_of = np.concatenate([np.repeat(np.arange(rows), each) for each in (counts, of_others)])
        order = np.argsort(row_of, kind="stable")
        codes = np.concatenate([codes, coded.indices.to_numpy() + np.int32(len(names))])[order]
        quantities = np.concatenate([quantities, others.items.slice(first, items).to_numpy()])[order]
        counts, names = counts + of_others, pa.concat_arrays([names, coded.dictionary])
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    keys = pa.DictionaryArray.from_arrays(pa.array(codes), names)
    return pa.MapArray.from_arrays(pa.array(offsets), keys, pa.array(quantities), type=LEDGER_USAGE)
