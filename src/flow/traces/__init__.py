"""Public usage traces turned into events in the columnar form of DESIGN 3.1, one module a kind of trace.

Each module has `events(path, ...) -> Iterator[pa.RecordBatch]`; `write.write_events` puts the batches into a
file. The same input and the same options give the same bytes.
"""

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ..errors import SourceError
from ..schema import DIMENSIONS

BASE_TIME = datetime(2026, 1, 5, tzinfo=UTC)
"""Where a trace with relative times begins unless told otherwise: a Monday, midnight."""

BATCH_ROWS = 1 << 16

_TEXT = pa.dictionary(pa.int32(), pa.string())


def columnar_schema(meters: Sequence[str]) -> pa.Schema:
    """The columnar form with these meters; a meter is null where an event does not have it."""
    return pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("source", _TEXT, nullable=False),
            pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
            *[pa.field(name, _TEXT, nullable=False) for name in DIMENSIONS],
            *[pa.field(meter, pa.int64()) for meter in meters],
        ]
    )


def constant(value: str, rows: int) -> pa.DictionaryArray:
    """[rows] of one text."""
    return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), [value])


def build_batch(schema: pa.Schema, rows: int, columns: Mapping[str, pa.Array]) -> pa.RecordBatch:
    """A batch of `columnar_schema` from the columns given; dimensions that are not given are empty text."""
    filled = {name: constant("", rows) for name in DIMENSIONS} | dict(columns)
    return pa.RecordBatch.from_arrays([filled[name] for name in schema.names], schema=schema)


def trace_name(path: Path) -> str:
    """The file's name without its endings: `azure_llm_2023_code` for azure_llm_2023_code.csv.gz."""
    return path.name.split(".", 1)[0]


def open_bytes(path: Path) -> Any:
    """The file's bytes, decompressed if its name ends in .gz. Raises SourceError if it cannot be opened."""
    try:
        return gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")
    except OSError as error:
        raise SourceError(f"cannot read the trace {path}: {error.strerror}") from error


def read_json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a JSONL file. Raises SourceError, naming the line, for one that is no JSON object."""
    number = 0
    with open_bytes(path) as lines:
        try:
            for number, line in enumerate(lines, 1):
                row = json.loads(line)
                if not isinstance(row, dict):
                    raise SourceError(f"{path}, line {number}: expected a JSON object")
                yield row
        except (EOFError, OSError, ValueError) as error:
            raise SourceError(f"{path}, after line {number}: {error}; is it the right kind of trace?") from error
