"""Azure LLM inference traces: CSV of TIMESTAMP, ContextTokens, GeneratedTokens, a request a row.

A row's number is its id. Times have 100 ns digits and are cut (not rounded) to the microsecond. What the
service was used for, `code` or `conv`, is read from the file's name.
"""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ..errors import SourceError
from . import build_batch, columnar_schema, constant, open_bytes, trace_name

SCHEMA = columnar_schema(["input_tokens", "output_tokens"])
MODEL = "azure-llm"
_COLUMNS = {"TIMESTAMP": pa.string(), "ContextTokens": pa.int64(), "GeneratedTokens": pa.int64()}
_MICROSECOND_DIGITS = len("2023-11-16 18:17:03.979960")


def events(path: Path, *, customer: str | None = None, model: str = MODEL) -> Iterator[pa.RecordBatch]:
    """The trace's requests in file order; the customer is `azure-code` or the like unless given.

    Raises SourceError if the file cannot be read as such a CSV.
    """
    name = trace_name(path)
    feature = next((word for word in ("code", "conv") if word in name.lower()), "")
    customer = customer or (f"azure-{feature}" if feature else "azure")
    row = 0
    with open_bytes(path) as stream:
        try:
            reader = csv.open_csv(
                stream,
                convert_options=csv.ConvertOptions(column_types=_COLUMNS, include_columns=list(_COLUMNS)),
            )
            for block in reader:
                yield _batch(block, row, name, {"customer": customer, "feature": feature, "model": model})
                row += block.num_rows
        except (EOFError, OSError, pa.ArrowInvalid, pa.ArrowKeyError) as error:
            raise SourceError(f"{path}, after row {row}: {error}; is it an Azure LLM trace?") from error


def _batch(block: pa.RecordBatch, first: int, name: str, dimensions: dict[str, str]) -> pa.RecordBatch:
    rows = block.num_rows
    # An offset, which later traces of the series have, can only be +00:00.
    text = pc.replace_substring_regex(block["TIMESTAMP"], r"\+00:00$", "")
    time = pc.utf8_slice_codeunits(text, 0, _MICROSECOND_DIGITS).cast(pa.timestamp("us"))
    numbers = pa.array(range(first + 1, first + rows + 1), pa.int64()).cast(pa.string())
    columns = {
        "id": pc.binary_join_element_wise("row", numbers, "-"),
        "source": constant(f"azure/{name}", rows),
        "time": pc.assume_timezone(time, "UTC"),
        "project": constant("llm-inference", rows),
        "input_tokens": block["ContextTokens"],
        "output_tokens": block["GeneratedTokens"],
        **{key: constant(value, rows) for key, value in dimensions.items()},
    }
    return build_batch(SCHEMA, rows, columns)
