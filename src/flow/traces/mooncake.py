"""Mooncake traces: JSONL of timestamp (ms from the start), input_length, output_length, hash_ids.

`hash_ids` name the prompt's blocks of 512 tokens by their content and all that comes before it, so an equal
id means an equal prefix. With a cache that never forgets, a request reads from it

    cached_input_tokens = min(input_length, 512 x number of its leading hash_ids that an earlier request had),

requests taken in file order; the leading ids end at the first one that is new. `input_tokens` are the others:
cached_input_tokens + input_tokens = input_length.
"""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from pathlib import Path

import pyarrow as pa

from ..errors import SourceError
from . import BASE_TIME, BATCH_ROWS, build_batch, columnar_schema, constant, read_json_lines, trace_name

SCHEMA = columnar_schema(["input_tokens", "cached_input_tokens", "output_tokens"])
CUSTOMER = "mooncake"
MODEL = "kimi"
BLOCK_TOKENS = 512

Row = tuple[str, int, int, int, int]
"""id, event time in microseconds, input, cached input, output tokens."""


def events(
    path: Path, *, base_time: datetime = BASE_TIME, customer: str = CUSTOMER, model: str = MODEL
) -> Iterator[pa.RecordBatch]:
    """The trace's requests in file order. Raises SourceError for a line that is not of this form."""
    base_us = (base_time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    name = trace_name(path)
    dimensions = {"customer": customer, "project": "chat", "feature": name, "model": model}
    rows: list[Row] = []
    for row in _rows(path, base_us):
        rows.append(row)
        if len(rows) == BATCH_ROWS:
            yield _batch(rows, name, dimensions)
            rows = []
    if rows:
        yield _batch(rows, name, dimensions)


def _rows(path: Path, base_us: int) -> Iterator[Row]:
    cached_blocks: set[int] = set()
    for number, line in enumerate(read_json_lines(path), 1):
        try:
            length, hash_ids = line["input_length"], line["hash_ids"]
            leading = sum(1 for _ in takewhile(cached_blocks.__contains__, hash_ids))
            cached = min(length, BLOCK_TOKENS * leading)
            time_us = base_us + line["timestamp"] * 1000
            yield f"request-{number}", time_us, length - cached, cached, line["output_length"]
            cached_blocks.update(hash_ids)
        except (KeyError, TypeError) as error:
            raise SourceError(f"{path}, line {number}: not a Mooncake request: {error!r}") from error


def _batch(rows: list[Row], name: str, dimensions: dict[str, str]) -> pa.RecordBatch:
    ids, times_us, uncached, cached, output = zip(*rows, strict=True)
    columns = {
        "id": pa.array(ids, pa.string()),
        "source": constant(f"mooncake/{name}", len(rows)),
        "time": pa.array(times_us, pa.int64()).cast(SCHEMA.field("time").type),
        "input_tokens": pa.array(uncached, pa.int64()),
        "cached_input_tokens": pa.array(cached, pa.int64()),
        "output_tokens": pa.array(output, pa.int64()),
        **{key: constant(value, len(rows)) for key, value in dimensions.items()},
    }
    return build_batch(SCHEMA, len(rows), columns)
