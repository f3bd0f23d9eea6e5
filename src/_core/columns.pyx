"""Meter columns of a foreign batch to the usage lists of EVENTS.

Memory: reads Arrow's own values and validity bitmaps at their offsets, integers of any width, in one pass in row order
over all columns; writes the lists into buffers of the caller.
Cost: about 6 ns a quantity in columns of 64 bits (benchmarks/kernels.py).
Proved by: tests/unit/test_decode_columns.py against plain Python.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t
from libc.stdlib cimport free, realloc

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()


cdef struct MeterColumn:
    const uint8_t *values
    const uint8_t *validity  # an Arrow bitmap, or NULL: no nulls
    int64_t offset
    int width  # bytes a value; negative: unsigned


cdef inline int64_t quantity_at(const MeterColumn *column, int64_t row) noexcept nogil:
    # Negative for any value that is negative or above int64.
    cdef const uint8_t *values = column.values
    row += column.offset
    if column.width == 8 or column.width == -8:
        return (<const int64_t *>values)[row]
    if column.width == 4:
        return (<const int32_t *>values)[row]
    if column.width == -4:
        return (<const uint32_t *>values)[row]
    if column.width == 2:
        return (<const int16_t *>values)[row]
    if column.width == -2:
        return (<const uint16_t *>values)[row]
    if column.width == 1:  # no conditional expression: its branches would share one 8-bit type
        return (<const int8_t *>values)[row]
    return values[row]


cdef int64_t fill_usage(
    const MeterColumn *columns, int count, int64_t rows, int64_t quantity_max,
    int32_t *offsets, int32_t *meters, int64_t *quantities,
) noexcept nogil:
    cdef int64_t row, at, quantity, items = 0
    cdef int i
    offsets[0] = 0
    for row in range(rows):
        for i in range(count):
            if columns[i].validity != NULL:
                at = row + columns[i].offset
                if not columns[i].validity[at >> 3] >> (at & 7) & 1:
                    continue
            quantity = quantity_at(&columns[i], row)
            if quantity < 0 or quantity > quantity_max:
                return -1
            meters[items] = i
            quantities[items] = quantity
            items += 1
        offsets[row + 1] = <int32_t>items
    return items


def interleave(
    list columns, int64_t rows, int64_t quantity_max, size_t offsets, size_t meters, size_t quantities
) -> int:
    """Turns meter columns into usage lists: offsets a row, meter number and quantity an item, nulls left out.

    Args: columns: of each the address of its values, of its validity (or 0), its offset, its width in bytes
    (negative if unsigned); offsets: rows + 1 int32; meters, quantities: rows x columns int32 and int64.
    Returns the items written, or -1 if a quantity is negative or above quantity_max.
    Raises ValueError if the items could pass 2^31, MemoryError.
    """
    cdef int count = <int>len(columns)
    cdef int64_t items
    cdef int i
    if rows * count >= 2**31:
        raise ValueError(f"a batch of {rows} rows and {count} meters is too large; read smaller batches")
    cdef MeterColumn *table = <MeterColumn *>realloc(NULL, (count + 1) * sizeof(MeterColumn))
    if table == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            table[i].values = <const uint8_t *><size_t>columns[i][0]
            table[i].validity = <const uint8_t *><size_t>columns[i][1]
            table[i].offset = columns[i][2]
            table[i].width = columns[i][3]
        with nogil:
            items = fill_usage(
                table, count, rows, quantity_max, <int32_t *>offsets, <int32_t *>meters, <int64_t *>quantities
            )
        return items
    finally:
        free(table)
