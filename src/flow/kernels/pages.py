"""The kernels of the ledger's pages: columns in the encodings of Parquet, and which of their rows have a value."""

from typing import Any

import pyarrow as pa

from _core import pages as _pages

from . import Rows, _address

_BLOCK_BYTES_MAX = 1200
"""What 128 numbers take at most, with the widths of their bits."""


class Pages:
    """Encodes columns, each into the same memory: what a method returns is there until the next one is called.

    A method takes `count` selected rows of a column (see Rows), none of them twice.
    """

    def __init__(self) -> None:
        self._room = pa.allocate_buffer(0)

    def texts(self, column: pa.StringArray, rows: Rows, count: int) -> memoryview:
        """PLAIN; nulls are left out."""
        valid, offsets, data = _whole(column).buffers()
        size = data.size if data is not None else 0
        out = self._room_for(4 * count + size)
        return self._filled(
            _pages.texts(count, _address(rows), _address(valid), _address(offsets), _address(data), size, out)
        )

    def codes(self, codes: pa.Int32Array, bits: int, rows: Rows, count: int) -> memoryview:
        """RLE. No code is null, and none needs more bits."""
        _, values = _whole(codes).buffers()
        out = self._room_for(bits * (count // 8 + 1) + 10)
        return self._filled(_pages.codes(count, _address(rows), _address(values), bits, out))

    def numbers(self, column: pa.Array, rows: Rows, count: int, known: int) -> memoryview:
        """DELTA_BINARY_PACKED; nulls are left out, so that `known` numbers are left.

        column: of 64 bits, or of 32 and not negative: a reader would take differences of others to be wider.
        """
        valid, values = _whole(column).buffers()
        narrow = column.type.bit_width == 32
        out = self._room_for((known // 128 + 1) * _BLOCK_BYTES_MAX)
        return self._filled(
            _pages.numbers(count, _address(rows), _address(valid), _address(values), narrow, known, out)
        )

    def valid(self, column: pa.Array, rows: Rows, count: int) -> tuple[memoryview, int]:
        """Bits that say which rows have a value, as many bytes as they need; and how many rows have one."""
        valid, *_ = _whole(column).buffers()
        size = (count + 7) // 8
        known = _pages.bits(count, _address(rows), _address(valid), self._room_for(size))
        return self._filled(size), known

    def _room_for(self, size: int) -> int:
        """The address of so many bytes, behind which a kernel may write too."""
        if self._room.size < size + _pages.SPARE:
            self._room = pa.allocate_buffer(size + size // 4 + _pages.SPARE)
        return int(self._room.address)

    def _filled(self, size: int) -> memoryview:
        return memoryview(self._room)[:size]


def bounds(column: pa.Array, rows: Rows, count: int) -> tuple[int, int]:
    """The least and the greatest of selected numbers of 64 bits without nulls. Raises ValueError if there is none."""
    _, numbers = _whole(column).buffers()
    return _pages.bounds(count, _address(rows), _address(numbers))


def picked(columns: Any, rows: Rows, count: int) -> Any:
    """The selected rows of an array or a batch."""
    if rows is None:
        return columns.slice(0, count)
    return columns.take(pa.Array.from_buffers(pa.uint32(), count, [None, rows]))


def renumbered(column: pa.DictionaryArray, rows: Rows, count: int) -> pa.DictionaryArray:
    """The selected rows, with a dictionary of nothing but their own values, in the order in which they come."""
    codes, values = _whole(column.indices), len(column.dictionary)
    new_of, old_of, out = (pa.allocate_buffer(4 * size) for size in (values, values, count))
    used = _pages.renumber(
        count, _address(rows), _address(codes.buffers()[1]), values, new_of.address, old_of.address, out.address
    )
    kept = pa.Array.from_buffers(pa.int32(), used, [None, old_of])
    return pa.DictionaryArray.from_arrays(
        pa.Array.from_buffers(pa.int32(), count, [None, out]), column.dictionary.take(kept)
    )


def _whole(column: Any) -> Any:
    """The same, with its first row at the beginning of its buffers, which are all that a kernel sees."""
    return pa.concat_arrays([column]) if column.offset else column
