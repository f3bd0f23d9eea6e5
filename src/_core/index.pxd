# An open-addressing index of 8-byte entries, at most half full: the lower bits of a hash, by which the table is
# entered, beside a number plus one of what the entry stands for (records of a segment, lines of an arena).
#
#     entry = lower 36 bits of the hash | number + 1, 28 bits         0: empty
#
# What is indexed lies elsewhere, end to end: a probe touches one cache line here, and only where 36 bits agree does its
# caller look there. In a table of 2^s entries those that stand together agree in s bits anyway, so that one look in
# 2^(36 - s) is in vain. Small entries cost little fresh memory, which is what growing a table costs most.

from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset

from .int128 cimport prefetch
from .memory cimport doubling_alloc, doubling_double, doubling_free

cdef enum:
    NUMBER_BITS = 28
    NUMBERS_MAX = (1 << NUMBER_BITS) - 1  # numbers are below it

cdef struct Index:
    uint64_t *entries
    uint64_t mask
    uint64_t used


cdef inline int index_open(Index *index, uint64_t size) noexcept nogil:
    """An empty index of so many entries (a power of two); -1: no memory."""
    index.entries = <uint64_t *>doubling_alloc(size * sizeof(uint64_t))
    index.mask = size - 1
    index.used = 0
    return -(index.entries == NULL)


cdef inline void index_close(Index *index) noexcept nogil:
    doubling_free(index.entries, (index.mask + 1) * sizeof(uint64_t))


cdef inline void index_clear(Index *index) noexcept nogil:
    memset(index.entries, 0, (index.mask + 1) * sizeof(uint64_t))
    index.used = 0


cdef inline uint64_t index_bytes(Index *index) noexcept nogil:
    return (index.mask + 1) * sizeof(uint64_t)


cdef inline uint64_t index_home(Index *index, uint64_t hashed) noexcept nogil:
    """Where probing begins."""
    return hashed & index.mask


cdef inline void index_prefetch(Index *index, uint64_t hashed) noexcept nogil:
    prefetch(&index.entries[index_home(index, hashed)])


cdef inline bint index_alike(uint64_t entry, uint64_t hashed) noexcept nogil:
    """Whether the entry is of a hash with these lower bits."""
    return ((entry >> NUMBER_BITS) ^ hashed) << NUMBER_BITS == 0


cdef inline uint64_t index_number(uint64_t entry) noexcept nogil:
    """The number of an entry that is not empty."""
    return (entry & NUMBERS_MAX) - 1


cdef inline void index_fill(Index *index, uint64_t place, uint64_t hashed, uint64_t number) noexcept nogil:
    """Fills an empty entry; `number` is below NUMBERS_MAX, and `index_reserve` has made room."""
    index.entries[place] = hashed << NUMBER_BITS | (number + 1)
    index.used += 1


cdef inline void index_renumber(Index *index, uint64_t place, uint64_t number) noexcept nogil:
    """What an entry stands for has another number now."""
    index.entries[place] = index.entries[place] & ~<uint64_t>NUMBERS_MAX | (number + 1)


cdef inline int index_reserve(Index *index, uint64_t more) noexcept nogil:
    """Makes room for so many more; entries may move. -1: no memory."""
    while (index.used + more) * 2 > index.mask + 1:
        if index_double(index):
            return -1
    return 0


cdef inline int index_double(Index *index) noexcept nogil:
    """Doubles the table in its place: nothing is read twice, and the memory of both is never needed at once.

    Entries are taken out and put in again in the order in which they were probed, from an empty one on. None then lands
    behind its old place in either half, so that no probe passes an entry that is emptied later.
    """
    cdef uint64_t size = index.mask + 1, first = 0, step, at, held
    cdef uint64_t *entries = <uint64_t *>doubling_double(index.entries, size * sizeof(uint64_t))
    if entries == NULL:
        return -1
    index.entries = entries
    index.mask = 2 * size - 1
    while entries[first]:
        first += 1
    for step in range(1, size):
        at = (first + step) & (size - 1)
        held = entries[at]
        if held:
            entries[at] = 0
            at = index_home(index, held >> NUMBER_BITS)
            while entries[at]:
                at = (at + 1) & index.mask
            entries[at] = held
    return 0
