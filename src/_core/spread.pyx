"""Usage lists of EVENTS to columns, one a meter, for the ledger: the way back of columns.pyx.

Memory: one pass over the selected rows, into buffers of the caller. What has a column goes there, with a bit in its
Arrow validity bitmap; what has none stays in lists. Where all events of a batch have the same meters in the same order,
which a comparison of the lists with themselves tells, a column is one quantity in so many.
Cost: 1 ns a quantity where events are alike, else about 5 ns, the zeroing of the columns included
(benchmarks/kernels.py).
Proved by: tests/parity/test_spread.py against tests/oracle/spread.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.string cimport memcmp, memset

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef enum:
    COLUMNS_MAX = 16
    ROWS_AT_ONCE = 256  # whose quantities stay in the nearest cache while they go to one column after the other


cdef struct Spread:
    int64_t *values[COLUMNS_MAX]
    uint8_t *valid[COLUMNS_MAX]  # Arrow bitmaps
    int64_t counts[COLUMNS_MAX]  # of what is valid
    int32_t *offsets  # of the lists of what has no column
    int32_t *meters
    int64_t *quantities


cdef int64_t fill(
    Spread *out, int64_t count, const uint32_t *rows,
    const int32_t *offsets, const int32_t *meters, const int64_t *quantities, const int32_t *column_of,
) noexcept nogil:
    cdef int64_t at, row, item, left = 0
    cdef int32_t column
    out.offsets[0] = 0
    for at in range(count):
        row = at if rows == NULL else rows[at]
        for item in range(offsets[row], offsets[row + 1]):
            column = column_of[meters[item]]
            if column < 0:
                out.meters[left] = meters[item]
                out.quantities[left] = quantities[item]
                left += 1
            else:
                out.values[column][at] = quantities[item]
                out.valid[column][at >> 3] |= <uint8_t>(1 << (at & 7))
                out.counts[column] += 1
        out.offsets[at + 1] = <int32_t>left
    return left


cdef int64_t alike(
    int64_t count, const int32_t *offsets, const int32_t *meters, const int32_t *column_of
) noexcept nogil:
    """How many meters each of the first `count` rows has, if all have the same in the same order and a column for each
    of them; 0: not so."""
    cdef int64_t at, size
    cdef int32_t ahead = 0
    if count == 0:
        return 0
    size = offsets[1] - offsets[0]
    for at in range(count):
        ahead |= (offsets[at + 1] - offsets[at]) ^ <int32_t>size
    if ahead or size == 0 or size > COLUMNS_MAX:
        return 0
    for at in range(offsets[0], offsets[0] + size):
        if column_of[meters[at]] < 0:
            return 0
    meters += offsets[0]
    return 0 if memcmp(meters, meters + size, (count - 1) * size * sizeof(int32_t)) else size


cdef void fill_alike(
    Spread *out, int64_t count, int64_t size,
    const int32_t *offsets, const int32_t *meters, const int64_t *quantities, const int32_t *column_of,
) noexcept nogil:
    cdef int64_t begin = 0, end, at, item
    cdef const int64_t *given
    cdef int64_t *values
    while begin < count:
        end = min(begin + ROWS_AT_ONCE, count)
        for item in range(size):
            given = quantities + offsets[0] + item
            values = out.values[column_of[meters[offsets[0] + item]]]
            for at in range(begin, end):
                values[at] = given[at * size]
        begin = end
    for item in range(size):
        out.counts[column_of[meters[offsets[0] + item]]] = count


def spread(
    int64_t count, size_t rows, size_t offsets, size_t meters, size_t quantities, size_t column_of,
    list columns, size_t left_offsets, size_t left_meters, size_t left_quantities,
) -> tuple[int, list[int]]:
    """Puts the quantities of the selected rows into columns, and into lists what has no column.

    Args: rows: count uint32, none twice, or 0 for the first count rows; offsets, meters, quantities: usage lists, in
    which no meter stands twice for a row; column_of: an int32 a meter of the lists' dictionary, its place in `columns`
    or -1; columns: of each the addresses of count int64 and of a bitmap of count bits, which may be left as it is if
    all rows have a value; left_offsets: count + 1 int32; left_meters, left_quantities: as many int32 and int64 as the
    lists have items; they are filled if any are left.
    Returns the items left, and of each column how many rows have a value; the others are 0 there.
    Raises ValueError if there are too many columns.
    """
    cdef Spread out
    cdef int64_t left = 0, size = 0
    cdef int i, number = <int>len(columns)
    if number > COLUMNS_MAX:
        raise ValueError(f"{number} columns are more than {COLUMNS_MAX}")
    for i in range(number):
        out.values[i] = <int64_t *><size_t>columns[i][0]
        out.valid[i] = <uint8_t *><size_t>columns[i][1]
        out.counts[i] = 0
    out.offsets = <int32_t *>left_offsets
    out.meters = <int32_t *>left_meters
    out.quantities = <int64_t *>left_quantities
    with nogil:
        if rows == 0:
            size = alike(count, <const int32_t *>offsets, <const int32_t *>meters, <const int32_t *>column_of)
        if size:
            fill_alike(
                &out, count, size, <const int32_t *>offsets, <const int32_t *>meters, <const int64_t *>quantities,
                <const int32_t *>column_of,
            )
        for i in range(number):
            if not out.counts[i]:
                memset(out.values[i], 0, 8 * count)
                memset(out.valid[i], 0, (count + 7) // 8)
        if not size:
            left = fill(
                &out, count, <const uint32_t *>rows, <const int32_t *>offsets, <const int32_t *>meters,
                <const int64_t *>quantities, <const int32_t *>column_of,
            )
    return left, [out.counts[i] for i in range(number)]
