# The sequences of meters that events come with, as they stand in the event: most batches have one. Each is an ordering
# of a shape, which combine.pyx numbers.
#
# A table of 4-byte numbers, half full at most, in front of the sequences. Learning one is rare; finding one is not, so
# the caller compares with the sequence of the event before first.

from libc.stdint cimport int64_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from .hash cimport murmur3
from .int128 cimport u128_lo
from .memory cimport grown

cdef enum:
    METERS_MAX = 1024
    RAW_SHAPES_MAX = 4096  # 25 MB; a producer that shuffles its meters has as many orders as it has events
    FIRST_RAW_SHAPES = 256

cdef struct RawShape:
    uint32_t count
    uint32_t items[METERS_MAX]  # meter << 1 | unpriced, as they stand in the event
    uint16_t place[METERS_MAX]  # where each goes in the shape
    uint32_t shape

cdef struct RawShapes:
    RawShape *shapes
    int64_t count
    uint32_t *table  # raw shape + 1, by its items
    uint64_t mask


cdef inline void raw_shapes_close(RawShapes *raw) noexcept nogil:
    free(raw.shapes)
    free(raw.table)
    memset(raw, 0, sizeof(RawShapes))


cdef inline bint is_raw(const RawShape *raw, const uint32_t *items, int64_t k) noexcept nogil:
    """Whether a sequence is this one. Not memcmp: for a few meters, its call costs more than comparing."""
    cdef int64_t j
    if raw.count != k:
        return False
    for j in range(k):
        if raw.items[j] != items[j]:
            return False
    return True


cdef inline uint64_t raw_slot(RawShapes *raw, const uint32_t *items, int64_t k) noexcept nogil:
    """Where a sequence stands in the table, or the empty place where it belongs."""
    cdef uint64_t at = u128_lo(murmur3(items, 4 * k, 0, 0)) & raw.mask
    while raw.table[at] and not is_raw(&raw.shapes[raw.table[at] - 1], items, k):
        at = (at + 1) & raw.mask
    return at


cdef inline int64_t raw_shape_number(RawShapes *raw, const uint32_t *items, int64_t k) noexcept nogil:
    """The number of a sequence; -1 if it is unknown."""
    return <int64_t>raw.table[raw_slot(raw, items, k)] - 1


cdef inline int raw_shapes_index(RawShapes *raw, uint64_t size) except -1:
    """Makes the table anew, of this size."""
    cdef int64_t i
    free(raw.table)
    raw.table = <uint32_t *>calloc(size, sizeof(uint32_t))
    if raw.table == NULL:
        raise MemoryError()
    raw.mask = size - 1
    for i in range(raw.count):
        raw.table[raw_slot(raw, raw.shapes[i].items, raw.shapes[i].count)] = <uint32_t>(i + 1)
    return 0


cdef inline RawShape *raw_shape_begin(RawShapes *raw) except NULL:
    """The next one, to be filled and then told with `raw_shape_told`; forgets all where they are too many."""
    if raw.count == RAW_SHAPES_MAX:
        raw.count = 0
        raw_shapes_index(raw, FIRST_RAW_SHAPES)
    raw.shapes = <RawShape *>grown(raw.shapes, (raw.count + 1) * sizeof(RawShape))
    return &raw.shapes[raw.count]


cdef inline int raw_shape_told(RawShapes *raw) except -1:
    cdef RawShape *told = &raw.shapes[raw.count]
    raw.count += 1
    if <uint64_t>raw.count * 2 > raw.mask:
        raw_shapes_index(raw, (raw.mask + 1) * 2)
    else:
        raw.table[raw_slot(raw, told.items, told.count)] = <uint32_t>raw.count
    return 0
