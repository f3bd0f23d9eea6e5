# The values of one dimension that a block has met: a code for each, found by the value's 128-bit name hash.
#
# Open addressing over 4-byte codes, two thirds full at most, in front of the hashes themselves.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from .int128 cimport u128, u128_hi, u128_lo
from .memory cimport table_alloc, table_free

cdef enum:
    FIRST_NAMES = 1024

cdef struct Name:
    uint64_t lo
    uint64_t hi

cdef struct Names:
    Name *names
    int64_t count
    int64_t size
    uint32_t *table  # code + 1
    uint64_t mask


cdef inline int names_open(Names *names) noexcept nogil:
    memset(names, 0, sizeof(Names))
    names.mask = FIRST_NAMES - 1
    names.table = <uint32_t *>table_alloc(FIRST_NAMES * sizeof(uint32_t))
    return names.table == NULL


cdef inline void names_close(Names *names) noexcept nogil:
    free(names.names)
    table_free(names.table, (names.mask + 1) * sizeof(uint32_t))


cdef inline void names_clear(Names *names) noexcept nogil:
    memset(names.table, 0, (names.mask + 1) * sizeof(uint32_t))
    names.count = 0


cdef inline uint32_t *_slot(Names *names, uint64_t lo, uint64_t hi) noexcept nogil:
    cdef uint64_t at = lo & names.mask
    cdef Name *name
    while names.table[at]:
        name = &names.names[names.table[at] - 1]
        if name.lo == lo and name.hi == hi:
            break
        at = (at + 1) & names.mask
    return &names.table[at]


cdef inline int _reserve(Names *names) noexcept nogil:
    """Makes room for one more. Nonzero: no memory."""
    cdef uint64_t old_size = names.mask + 1
    cdef int64_t i
    cdef uint32_t *old = names.table
    cdef uint32_t *larger
    cdef Name *known
    if names.count == names.size:
        known = <Name *>realloc(names.names, (names.size * 2 + FIRST_NAMES) * sizeof(Name))
        if known == NULL:
            return 1
        names.names = known
        names.size = names.size * 2 + FIRST_NAMES
    if <uint64_t>(names.count + 1) * 3 > old_size * 2:
        larger = <uint32_t *>table_alloc(old_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            return 1
        names.table = larger
        names.mask = old_size * 2 - 1
        for i in range(names.count):
            _slot(names, names.names[i].lo, names.names[i].hi)[0] = <uint32_t>(i + 1)
        table_free(old, old_size * sizeof(uint32_t))
    return 0


cdef inline int64_t name_code(Names *names, u128 hashed, bint *is_new) noexcept nogil:
    """The code of a value, new or known; -1: no memory."""
    cdef uint64_t lo = u128_lo(hashed), hi = u128_hi(hashed)
    cdef uint32_t *slot
    if _reserve(names):
        return -1
    slot = _slot(names, lo, hi)
    is_new[0] = slot[0] == 0
    if is_new[0]:
        names.names[names.count].lo = lo
        names.names[names.count].hi = hi
        names.count += 1
        slot[0] = <uint32_t>names.count
    return <int64_t>slot[0] - 1
