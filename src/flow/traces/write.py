"""Events in the columnar form, written as NDJSON, Parquet or Arrow IPC.

The file takes its name only when it is whole: until then it is called `.NAME.part`.
"""

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import ConfigError, TallyflowError
from ..schema import DIMENSIONS

SUFFIXES = (".ndjson", ".ndjson.gz", ".parquet", ".arrow")
_NOT_METERS = frozenset(("id", "source", "time", *DIMENSIONS))


@dataclass
class Written:
    """What went into a file."""

    path: Path
    events: int = 0
    quantities: dict[str, int] = field(default_factory=dict)
    """The sum of each meter, over all events written, good or bad."""


Write = Callable[[pa.RecordBatch], object]


def write_events(batches: Iterable[pa.RecordBatch], out: Path) -> Written:
    """Writes batches of one columnar schema to `out`; its ending (one of SUFFIXES) says in which form.

    Raises ConfigError for another ending, TallyflowError if the file cannot be written. No batch at all makes
    an empty NDJSON file; the other forms need a schema, so then it is a TallyflowError.
    """
    opener = _opener(out)
    part = out.with_name(f".{out.name}.part")
    written = Written(out)
    try:
        rest = iter(batches)
        first = next(rest, None)
        with opener(part, None if first is None else first.schema) as write:
            for batch in _chained(first, rest):
                write(batch)
                written.events += batch.num_rows
                _add_quantities(written.quantities, batch)
        part.replace(out)
    except OSError as error:
        raise TallyflowError(f"cannot write {out}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
    return written


def _chained(first: pa.RecordBatch | None, rest: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    if first is not None:
        yield first
    yield from rest


def _add_quantities(totals: dict[str, int], batch: pa.RecordBatch) -> None:
    for name in batch.schema.names:
        if name not in _NOT_METERS:
            # As decimals: the sum of a bad event's 2^63 - 1 would wrap.
            total = pc.sum(batch[name].cast(pa.decimal128(38))).as_py()
            totals[name] = totals.get(name, 0) + int(total or 0)


Opener = Callable[[Path, pa.Schema | None], AbstractContextManager[Write]]


def _opener(out: Path) -> Opener:
    for suffix, opener in _OPENERS.items():
        if out.name.endswith(suffix) and out.name != suffix:
            return opener
    raise ConfigError(f"{out}: the output's name must end in one of {', '.join(SUFFIXES)}")


@contextmanager
def _ndjson(part: Path, schema: pa.Schema | None) -> Iterator[Write]:
    with part.open("wb") as file:
        yield lambda batch: file.write(json_lines(batch))


@contextmanager
def _ndjson_gz(part: Path, schema: pa.Schema | None) -> Iterator[Write]:
    # No name and no time in the header: the same events give the same bytes.
    with part.open("wb") as raw, gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
        yield lambda batch: file.write(json_lines(batch))


@contextmanager
def _parquet(part: Path, schema: pa.Schema | None) -> Iterator[Write]:
    with closing(pq.ParquetWriter(part, _needed(schema), compression="zstd")) as writer:
        yield writer.write_batch


@contextmanager
def _arrow(part: Path, schema: pa.Schema | None) -> Iterator[Write]:
    with part.open("wb") as file, closing(pa.ipc.new_file(file, _needed(schema))) as writer:
        yield writer.write_batch


_OPENERS: dict[str, Opener] = {
    ".ndjson": _ndjson,
    ".ndjson.gz": _ndjson_gz,
    ".parquet": _parquet,
    ".arrow": _arrow,
}


def _needed(schema: pa.Schema | None) -> pa.Schema:
    if schema is None:
        raise TallyflowError("there is no event to write; only NDJSON can be empty")
    return schema


# ---- NDJSON, by columns ----


def json_lines(batch: pa.RecordBatch) -> memoryview:
    """The events as CloudEvents in JSON, one a line: a column at a time, without a Python object an event."""
    rows = batch.num_rows
    meters = [name for name in batch.schema.names if name not in _NOT_METERS]
    # Each present meter is `"name":quantity,`; the last comma is cut off. None at all leaves an empty usage.
    items = [pc.binary_join_element_wise(f'"{meter}":', batch[meter].cast(pa.string()), ",", "") for meter in meters]
    if items:
        # Not null_handling="skip": Arrow then leaves out a row whose items are all null.
        usage = pc.binary_join_element_wise(*items, "", null_handling="replace", null_replacement="")
    else:
        usage = pa.array([""] * rows)
    usage = pc.utf8_rtrim(usage, ",")
    lines = pc.binary_join_element_wise(
        '{"specversion":"1.0","id":',
        _json_text(batch["id"], ""),
        _json_text(batch["source"], ',"source":'),
        ',"type":"llm.usage","time":"',
        _json_time(batch["time"]),
        _json_text(batch["customer"], '","subject":'),
        ',"data":{',
        *[_json_text(batch[name], f'"{name}":', ",") for name in DIMENSIONS[1:]],
        '"usage":{',
        usage,
        "}}}\n",
        "",
    )
    return _values(lines)


def _json_text(column: pa.Array, before: str, after: str = "") -> pa.Array:
    """JSON literals of texts between two others; those of a dictionary are made once each."""
    if pa.types.is_dictionary(column.type):
        return _json_text(column.dictionary, before, after).take(column.indices)
    special = pc.match_substring_regex(column, r'["\\\x00-\x1f\x7f]')
    if pc.any(special).as_py():
        literals = [f"{before}{json.dumps(text, ensure_ascii=False)}{after}" for text in column.to_pylist()]
        return pa.array(literals, pa.string())
    return pc.binary_join_element_wise(f'{before}"', column, f'"{after}', "")


def _json_time(column: pa.Array) -> pa.Array:
    """RFC 3339 in UTC with six digits of the second."""
    local = column.cast(pa.timestamp("us", tz="UTC")).cast(pa.timestamp("us")).cast(pa.string())
    return pc.binary_join_element_wise(pc.replace_substring(local, " ", "T"), "Z", "")


def _values(texts: Any) -> memoryview:
    """The bytes of a string array, one after the other."""
    _, offsets, values = texts.buffers()
    start, end = (
        memoryview(offsets).cast("i")[texts.offset],
        memoryview(offsets).cast("i")[texts.offset + len(texts)],
    )
    return memoryview(values)[start:end] if values is not None else memoryview(b"")
