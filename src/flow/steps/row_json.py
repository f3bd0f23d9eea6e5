"""Rows of any Arrow batch as JSON text, to keep rejected rows as they were: all columns, of any type."""

import json

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .arrow_text import as_bytes, check_memory, is_safe_text, is_text, plain, with_strings


def row_texts(table: pa.RecordBatch, rows: npt.NDArray[np.int64]) -> list[bytes]:
    """Each row as a JSON object of all its columns, in column order (a repeated name stands twice)."""
    try:
        names = [json.dumps(name) for name in table.schema.names]
    except UnicodeDecodeError:  # then Arrow gives the columns neither
        return [b"{}"] * len(rows)
    columns = [_values(array, rows) for array in table.columns]
    texts = []
    for values in zip(*columns, strict=True):
        members = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
        texts.append(f"{{{members}}}".encode("utf-8", "surrogateescape"))
    return texts if columns else [b"{}"] * len(rows)


def _values(array: pa.Array, rows: npt.NDArray[np.int64]) -> list[str]:
    """The values of a column as JSON text; a column that cannot be read at all says so in their place."""
    try:
        check_memory(array)
        array = with_strings(array) if is_text(array.type) else array
        return _texts(plain(array.take(pa.array(rows))))
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        if is_safe_text(array):
            return _broken_texts(array, rows)
        return [json.dumps(f"unreadable: {error}")] * len(rows)


def _texts(array: pa.Array) -> list[str]:
    if pa.types.is_timestamp(array.type):
        unit, zone = array.type.unit, "" if array.type.tz is None else "Z"
        numbers = _integers(array)
        values = [None if number is None else f"{np.datetime64(number, unit)}{zone}" for number in numbers]
    else:
        values = array.to_pylist()
    return [_json(value) for value in values]


def _integers(array: pa.Array) -> list[int | None]:
    """Timestamps as their numbers: Python's own datetime neither holds nanoseconds nor all years."""
    return list(array.cast(pa.int64()).to_pylist())


def _json(value: object) -> str:
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False, default=_other)
    except ValueError:  # not a number, or infinite
        return json.dumps(str(value))


def _other(value: object) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _broken_texts(array: pa.Array, rows: npt.NDArray[np.int64]) -> list[str]:
    """Texts of which some are not UTF-8, their bytes as they are."""
    values = as_bytes(plain(with_strings(array))).take(pa.array(rows)).to_pylist()
    texts = [None if value is None else value.decode("utf-8", "surrogateescape") for value in values]
    return [json.dumps(text, ensure_ascii=False) for text in texts]
