"""Columns to the pages of a Parquet file, for the ledger: three of the encodings that the format has, and its levels.

    PLAIN                 length u32 | bytes | ...
    RLE                   count << 1 | code, or groups of eight << 1 | 1 | bits of each
    DELTA_BINARY_PACKED   the first number, then by 128: the least difference | widths | bits of how far each is above

Memory: one pass over a column, into a buffer of the caller; up to SPARE bytes behind what is filled are written too.
Cost: a text of 36 bytes 4 ns; a code 0.3 ns and a number 0.6 to 1.1 ns where the processor has AVX-512 and eight are
encoded at once (pages_wide.pxd), 1 ns and 2 to 3 ns one by one.
Proved by: tests/parity/test_pages.py against tests/oracle/pages.py and Arrow's reader.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from .pages_plain cimport Column, bit_at, gather, number_at, pack_eight, put_block, put_text, put_varint, zigzag
from .pages_wide cimport is_wide, want_wide, wide_block, wide_codes, wide_gather
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()
SPARE = 80

cdef enum:
    BLOCK = 128
    MINIBLOCKS = 4


def use_vectors(bint wanted):
    """Whether eight are encoded at a time from now on: if it is wanted, and the processor can (pages_wide.pxd)."""
    return want_wide(wanted)


cdef uint8_t *fill_texts(
    uint8_t *out, int64_t count, const uint32_t *rows, const uint8_t *valid, const int32_t *offsets,
    const uint8_t *data, int64_t data_bytes,
) noexcept nogil:
    cdef int64_t at, row
    cdef int32_t begin
    for at in range(count):
        row = at if rows == NULL else rows[at]
        if bit_at(valid, row):
            begin = offsets[row]
            out = put_text(out, data + begin, <uint32_t>(offsets[row + 1] - begin), <uint64_t>(data_bytes - begin))
    return out


cdef uint8_t *fill_codes(
    uint8_t *out, int64_t count, const uint32_t *rows, const int32_t *codes, int width
) noexcept nogil:
    cdef uint64_t eight[8]
    cdef int64_t at, row, done = 0
    cdef int i
    out = put_varint(out, <uint64_t>((count + 7) // 8) << 1 | 1)
    if is_wide():
        done = wide_codes(out, count, rows, codes, width)
        out += done // 8 * width
    for at in range(done, count - 7, 8):
        for i in range(8):
            row = at + i if rows == NULL else rows[at + i]
            eight[i] = <uint64_t>codes[row]
        out = pack_eight(out, eight, width)
    if count & 7:
        for i in range(8):
            at = (count & ~<int64_t>7) + i
            row = -1 if at >= count else at if rows == NULL else rows[at]
            eight[i] = 0 if row < 0 else <uint64_t>codes[row]
        out = pack_eight(out, eight, width)
    return out


cdef uint8_t *fill_numbers(
    uint8_t *out, int64_t count, const uint32_t *rows, const uint8_t *valid, Column numbers, int64_t known
) noexcept nogil:
    """`known`: how many of them are valid."""
    cdef uint64_t block[BLOCK + 1]  # behind the last number of the block before it
    cdef int64_t at = 0, step
    cdef int held = 0
    cdef bint wide = is_wide()
    out = put_varint(put_varint(put_varint(out, BLOCK), MINIBLOCKS), <uint64_t>known)
    if known == 0:
        return put_varint(out, 0)
    while not bit_at(valid, at if rows == NULL else rows[at]):
        at += 1
    block[0] = number_at(numbers, at if rows == NULL else rows[at])
    at += 1
    out = put_varint(out, zigzag(<int64_t>block[0]))
    while at < count:
        step = min(<int64_t>(BLOCK - held), count - at)
        if wide:
            held += wide_gather(block + 1 + held, numbers, rows, valid, at, step)
        else:
            held += gather(block + 1 + held, numbers, rows, valid, at, step)
        at += step
        if held == BLOCK and wide:
            out = wide_block(out, block)
            held = 0
        elif held == BLOCK or at == count:
            out = put_block(out, block, held)
            held = 0
    return out


cdef int64_t fill_bits(uint8_t *bits, int64_t count, const uint32_t *rows, const uint8_t *valid) noexcept nogil:
    """The bits of the selected rows, in whole bytes; how many are set."""
    cdef int64_t at, known = 0
    cdef int bit, byte = 0
    for at in range(count):
        bit = bit_at(valid, at if rows == NULL else rows[at])
        byte |= bit << (at & 7)
        known += bit
        if at & 7 == 7:
            bits[at >> 3] = <uint8_t>byte
            byte = 0
    if count & 7:
        bits[count >> 3] = <uint8_t>byte
    return known


def texts(
    int64_t count, size_t rows, size_t valid, size_t offsets, size_t data, int64_t data_bytes, size_t out
) -> int:
    """Fills `out` with the selected texts that are valid, PLAIN; how many bytes.

    Args: rows: count uint32, or 0 for the first count rows; valid: an Arrow bitmap, or 0; offsets: int32; data: of
    data_bytes; out: 4 bytes a text and those of the texts.
    """
    cdef uint8_t *end
    with nogil:
        end = fill_texts(
            <uint8_t *>out, count, <const uint32_t *>rows, <const uint8_t *>valid, <const int32_t *>offsets,
            <const uint8_t *>data, data_bytes,
        )
    return end - <uint8_t *>out


def codes(int64_t count, size_t rows, size_t codes, int width, size_t out) -> int:
    """Fills `out` with the selected codes, RLE; how many bytes.

    Args: rows: as above; codes: int32, from 0 to below 2 to the power of width; out: width bytes for eight codes, and
    ten.
    """
    cdef uint8_t *end
    with nogil:
        end = fill_codes(<uint8_t *>out, count, <const uint32_t *>rows, <const int32_t *>codes, width)
    return end - <uint8_t *>out


def numbers(int64_t count, size_t rows, size_t valid, size_t numbers, bint narrow, int64_t known, size_t out) -> int:
    """Fills `out` with the selected numbers that are valid, DELTA_BINARY_PACKED; how many bytes.

    Args: rows, valid: as above; numbers: int64, or int32 if they are narrow; known: how many are valid; out: 1,200
    bytes for 128 numbers.
    """
    cdef Column column
    cdef uint8_t *end
    column.values, column.narrow = <const void *>numbers, narrow
    with nogil:
        end = fill_numbers(<uint8_t *>out, count, <const uint32_t *>rows, <const uint8_t *>valid, column, known)
    return end - <uint8_t *>out


def bits(int64_t count, size_t rows, size_t valid, size_t out) -> int:
    """Fills `out`, of (count + 7) // 8 bytes, with the bits of the selected rows; how many are set."""
    cdef int64_t known
    with nogil:
        known = fill_bits(<uint8_t *>out, count, <const uint32_t *>rows, <const uint8_t *>valid)
    return known


def bounds(int64_t count, size_t rows, size_t numbers) -> tuple[int, int]:
    """The least and the greatest of the selected numbers. Raises ValueError if there is none.

    Args: rows: as above; numbers: int64.
    """
    cdef const uint32_t *picked = <const uint32_t *>rows
    cdef const int64_t *of_row = <const int64_t *>numbers
    cdef int64_t at, number, least, most
    if count <= 0:
        raise ValueError("nothing has no bounds")
    least = most = of_row[0 if picked == NULL else picked[0]]
    with nogil:
        for at in range(1, count):
            number = of_row[at if picked == NULL else picked[at]]
            least, most = min(least, number), max(most, number)
    return least, most


def renumber(
    int64_t count, size_t rows, size_t codes, int64_t values, size_t new_of, size_t old_of, size_t out
) -> int:
    """Numbers the codes that the selected rows have, in the order in which they come; how many there are.

    Args: rows: as above; codes: int32, from 0 to below `values`; new_of: so many int32 of scratch space; old_of: as
    many, filled with the codes that are there; out: count int32, filled with the new codes.
    """
    cdef const uint32_t *picked = <const uint32_t *>rows
    cdef const int32_t *of_row = <const int32_t *>codes
    cdef int32_t *new = <int32_t *>new_of
    cdef int32_t *old = <int32_t *>old_of
    cdef int32_t *filled = <int32_t *>out
    cdef int64_t at
    cdef int32_t code, used = 0
    with nogil:
        memset(new, 0xff, 4 * values)  # -1: not there yet
        for at in range(count):
            code = of_row[at if picked == NULL else picked[at]]
            if new[code] < 0:
                new[code] = used
                old[used] = code
                used += 1
            filled[at] = new[code]
    return used
