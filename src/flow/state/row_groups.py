"""A batch as a row group of a Parquet file, its pages encoded by kernels.

Arrow's own writer takes three times as long (docs/decisions/019-ledger-pages.md); what it makes of a batch is read to
the same rows. A column is one page, behind one with its dictionary if its texts repeat. Nothing is compressed: ids get
to no less than half their size, for as much time as all columns take, and the rest is packed into few bits already.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from ..kernels import Rows
from ..kernels.pages import Pages, bounds, picked, renumbered
from .thrift import I64, Encoded, Struct, Value, struct, varint

# Numbers of fields and what they mean: https://github.com/apache/parquet-format/blob/master/src/main/thrift/parquet.thrift
_BYTE_ARRAY = 6
_TYPES = {32: 1, 64: 2}  # by bits
_PLAIN, _RLE, _DELTA_BINARY_PACKED, _RLE_DICTIONARY = 0, 3, 5, 8
_UNCOMPRESSED = 0
_DATA_PAGE, _DICTIONARY_PAGE = 0, 2
_REQUIRED, _OPTIONAL, _REPEATED = 0, 1, 2
_UTF8, _MAP, _TIMESTAMP_MICROS = 0, 1, 10
_LOGICAL_STRING: Struct = {1: {}}
_LOGICAL_MAP: Struct = {2: {}}
_LOGICAL_TIMESTAMP: Struct = {8: {1: True, 2: {2: {}}}}  # in UTC, microseconds

_SPARSE = 4
"""A dictionary with more than one value for so many rows is made anew, with those values only that are there."""


class _Levels(NamedTuple):
    """Which entries of a column have a value: what stands before the values in its page."""

    content: bytes
    entries: int
    known: int


class End(Protocol):
    """The end of a file that is appended to."""

    @property
    def length(self) -> int: ...
    def write(self, piece: bytes | memoryview) -> int: ...


class RowGroup:
    """A row group that is being written. Raises StateError."""

    def __init__(self, file: End, pages: Pages) -> None:
        self._file = file
        self._pages = pages
        self._chunks: list[Encoded] = []
        self._begin = file.length

    def write(self, batch: pa.RecordBatch, rows: Rows, count: int) -> Encoded:
        """Writes the selected rows; what the footer has to say about them."""
        for field, column in zip(batch.schema, batch.columns, strict=True):
            self._column((field.name,), field, column, rows, count)
        size = I64(self._file.length - self._begin)
        return Encoded(struct({1: self._chunks, 2: size, 3: I64(count), 5: I64(self._begin), 6: size}))

    def _column(self, path: tuple[str, ...], field: pa.Field, column: Any, rows: Rows, count: int) -> None:
        if pa.types.is_struct(field.type):
            for child, of_child in zip(field.type, column.flatten(), strict=True):
                self._column((*path, child.name), child, of_child, rows, count)
        elif pa.types.is_map(field.type):
            self._map(path, field, picked(column, rows, count))
        else:
            levels = self._optional(column, rows, count) if field.nullable else _Levels(b"", count, count)
            self._leaf(path, column, rows, count, levels)

    def _optional(self, column: Any, rows: Rows, count: int) -> _Levels:
        if column.null_count in (0, len(column)):
            known = count if not column.null_count else 0
            return _Levels(_sized(varint(count << 1) + bytes([known > 0])), count, known)
        bits, known = self._pages.valid(column, rows, count)
        return _Levels(_sized(varint(len(bits) << 1 | 1) + bytes(bits)), count, known)

    def _map(self, path: tuple[str, ...], field: pa.Field, column: pa.MapArray) -> None:
        """A list of keys and values, of which none is null; it is null, or empty, or has items."""
        offsets = column.offsets.to_numpy()
        sizes = np.diff(offsets)
        entries = np.maximum(sizes, 1)
        again = np.ones(entries.sum(), np.int32)
        again[(np.cumsum(entries) - entries)] = 0  # the first of a row
        present = np.where(sizes > 0, 2, column.is_valid().to_numpy(zero_copy_only=False)).astype(np.int32)
        if not field.nullable:
            present -= 1
        levels = b"".join(
            self._level_run(level, bits)
            for level, bits in ((again, 1), (np.repeat(present, entries), 2 if field.nullable else 1))
        )
        first, items = int(offsets[0]), int(offsets[-1] - offsets[0])
        for child, of_child in (
            (field.type.key_field, column.keys.slice(first, items)),
            (field.type.item_field, column.items.slice(first, items)),
        ):
            given = _Levels(levels, len(again), items)
            self._leaf((*path, "key_value", child.name), of_child, None, items, given)

    def _level_run(self, levels: Any, bits: int) -> bytes:
        return _sized(bytes(self._pages.codes(pa.array(levels), bits, None, len(levels))))

    def _leaf(self, path: tuple[str, ...], column: Any, rows: Rows, count: int, levels: _Levels) -> None:
        """A column chunk: of a dictionary its values, and then its page."""
        begin, dictionary = self._file.length, None
        if pa.types.is_dictionary(column.type):
            if len(column.dictionary) * _SPARSE > count:
                column, rows = renumbered(column, rows, count), None
            values = column.dictionary
            content = self._pages.texts(values, None, len(values))
            self._page(_DICTIONARY_PAGE, {7: {1: len(values), 2: _PLAIN}}, content)
            dictionary, encoding, kind = begin, _RLE_DICTIONARY, _BYTE_ARRAY
        elif pa.types.is_string(column.type):
            encoding, kind = _PLAIN, _BYTE_ARRAY
        else:
            encoding, kind = _DELTA_BINARY_PACKED, _TYPES[column.type.bit_width]
        page = self._file.length
        header: Struct = {5: {1: levels.entries, 2: encoding, 3: _RLE, 4: _RLE}}
        self._page(_DATA_PAGE, header, levels.content, *self._values(column, rows, count, levels.known))
        size = I64(self._file.length - begin)
        encodings = (_RLE, encoding) if dictionary is None else (_PLAIN, _RLE, encoding)
        said: dict[int, Value] = {1: kind, 2: encodings, 3: path, 4: _UNCOMPRESSED, 5: I64(levels.entries)}
        said |= {6: size, 7: size, 9: I64(page)}
        if dictionary is not None:
            said[11] = I64(dictionary)
        if pa.types.is_timestamp(column.type) and count:
            least, most = (number.to_bytes(8, "little", signed=True) for number in bounds(column, rows, count))
            said[12] = {3: I64(0), 5: most, 6: least}  # no nulls
        self._chunks.append(Encoded(struct({2: I64(0), 3: said})))

    def _values(self, column: Any, rows: Rows, count: int, known: int) -> Iterator[bytes | memoryview]:
        if pa.types.is_dictionary(column.type):
            values = len(column.dictionary)
            bits = max((values - 1).bit_length(), 1)
            yield bytes([bits])
            yield self._pages.codes(column.indices, bits, rows, count) if values > 1 else varint(count << 1) + b"\0"
        elif pa.types.is_string(column.type):
            yield self._pages.texts(column, rows, count)
        else:
            yield self._pages.numbers(column, rows, count, known)

    def _page(self, kind: int, header: Struct, *parts: bytes | memoryview) -> None:
        size = sum(map(len, parts))
        self._file.write(struct({1: kind, 2: size, 3: size, **header}))
        for part in parts:
            self._file.write(part)


def _sized(run: bytes) -> bytes:
    return len(run).to_bytes(4, "little") + run


def metadata(schema: pa.Schema, groups: list[Encoded], rows: int, said: Mapping[str, str]) -> bytes:
    """The metadata of a file, or of a piece of one."""
    elements: list[Value] = [{3: _REQUIRED, 4: "schema", 5: len(schema)}]
    for field in schema:
        elements.extend(_elements(field))
    leaves = sum(1 for element in elements if isinstance(element, dict) and 5 not in element)
    return struct(
        {
            1: 2,
            2: elements,
            3: I64(rows),
            4: groups,
            5: [{1: name, 2: value} for name, value in said.items()],
            6: "tallyflow",
            7: [{1: {}}] * leaves,  # statistics compare as the types do
        }
    )


def _elements(field: pa.Field) -> Iterator[Value]:
    name, repetition = field.name, _OPTIONAL if field.nullable else _REQUIRED
    if pa.types.is_struct(field.type):
        yield {3: repetition, 4: name, 5: field.type.num_fields}
        for child in field.type:
            yield from _elements(child)
    elif pa.types.is_map(field.type):
        yield {3: repetition, 4: name, 5: 1, 6: _MAP, 10: _LOGICAL_MAP}
        yield {3: _REPEATED, 4: "key_value", 5: 2}
        yield from _elements(field.type.key_field)
        yield from _elements(field.type.item_field)
    elif pa.types.is_timestamp(field.type):
        yield {1: _TYPES[64], 3: repetition, 4: name, 6: _TIMESTAMP_MICROS, 10: _LOGICAL_TIMESTAMP}
    elif pa.types.is_integer(field.type):
        yield {1: _TYPES[field.type.bit_width], 3: repetition, 4: name}
    else:
        yield {1: _BYTE_ARRAY, 3: repetition, 4: name, 6: _UTF8, 10: _LOGICAL_STRING}
