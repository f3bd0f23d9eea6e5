"""Usage events of the aider coding tool: JSONL of id, time (unix seconds), user, model, edit_format,
prompt_tokens, completion_tokens and stated costs, which are not used.

`prompt_tokens` contain what was read from the provider's cache, without saying how much, so all of them are
`input_tokens`. Some events are exact repeats of another one under an id of their own. With `ids="given"` each
one counts, as published; with `ids="content"` the id is a hash of the event's other fields, so repeats are
duplicates.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from ..errors import SourceError
from . import BATCH_ROWS, build_batch, columnar_schema, constant, read_json_lines, trace_name

SCHEMA = columnar_schema(["input_tokens", "output_tokens"])

Ids = Literal["given", "content"]

ANONYMOUS = "anonymous"
"""The customer of events without a user."""


def events(path: Path, *, ids: Ids = "given") -> Iterator[pa.RecordBatch]:
    """The trace's events in file order; `edit_format` is the feature. Raises SourceError for another form."""
    lines = list(read_json_lines(path))
    try:
        identities = [line["id"] if ids == "given" else _content_id(line) for line in lines]
        columns = {
            "id": pa.array(identities, pa.string()),
            "source": constant(f"aider/{trace_name(path)}", len(lines)),
            "time": pa.array([line["time"] * 1_000_000 for line in lines], pa.int64()).cast(SCHEMA.field("time").type),
            "customer": _texts([line["user"] or ANONYMOUS for line in lines]),
            "project": constant("aider", len(lines)),
            "feature": _texts([line["edit_format"] or "" for line in lines]),
            "model": _texts([line["model"] or "" for line in lines]),
            "input_tokens": pa.array([line["prompt_tokens"] for line in lines], pa.int64()),
            "output_tokens": pa.array([line["completion_tokens"] for line in lines], pa.int64()),
        }
    except (KeyError, TypeError, pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise SourceError(f"{path}: not events of aider: {error!r}") from error
    batch = build_batch(SCHEMA, len(lines), columns)
    for first in range(0, len(lines), BATCH_ROWS):
        yield batch.slice(first, BATCH_ROWS)


def _content_id(line: dict[str, Any]) -> str:
    content = {name: value for name, value in line.items() if name != "id"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _texts(values: list[str]) -> pa.DictionaryArray:
    return pa.array(values, pa.string()).dictionary_encode()
