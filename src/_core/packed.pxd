# An index (index.pxd) to which nothing is added any more, without its empty entries: they stand in the order of their
# homes, and a directory says where those of each 128 homes begin. 8 bytes an id and 4 to 6 % of that for the directory.
#
#     entries u64 [used] | firsts u32 [(mask + 1) / 128 + 1]
#
# A probe touches one place of the directory and, of 43 to 85 entries, those up to its own: one page, or two.

from libc.stdint cimport uint32_t, uint64_t
from libc.stdlib cimport free, malloc

from .index cimport NUMBER_BITS, Index, index_alike, index_home
from .memory cimport table_alloc, table_free, table_shrink

cdef enum:
    BUCKET_BITS = 7

cdef struct Packed:
    uint64_t *entries
    uint32_t *firsts
    uint64_t mask  # of the index that it was: homes are those of the hash below it
    uint64_t used


cdef inline uint64_t packed_entry_bytes(const Packed *packed) noexcept nogil:
    """What it holds in memory; an empty one has room for an entry."""
    return max(packed.used, <uint64_t>1) * sizeof(uint64_t)


cdef inline uint64_t packed_first_bytes(const Packed *packed) noexcept nogil:
    return ((packed.mask >> BUCKET_BITS) + 2) * sizeof(uint32_t)


cdef inline void packed_close(Packed *packed) noexcept nogil:
    """Frees what `packed_from` made."""
    table_free(packed.entries, packed_entry_bytes(packed))
    table_free(packed.firsts, packed_first_bytes(packed))


cdef inline void sorted_in(Index *index, uint64_t used, uint64_t entry) noexcept nogil:
    """Puts an entry behind those of lower or equal home among the first `used`, which are sorted."""
    cdef uint64_t home = index_home(index, entry >> NUMBER_BITS), place = used
    while place and index_home(index, index.entries[place - 1] >> NUMBER_BITS) > home:
        index.entries[place] = index.entries[place - 1]
        place -= 1
    index.entries[place] = entry


cdef inline int packed_from(Packed *packed, Index *index) noexcept nogil:
    """Packs an index in its place, and takes its memory over; -1: no memory, and all is as before.

    Entries stand near their homes, in runs, so that sorting moves few of them and none far; but those that were probed
    beyond the end of the table, into its first run, wait for their turn.
    """
    cdef uint64_t size = index.mask + 1, wrapped = 0, aside = 0, used = 0, at, entry, bucket = 0
    packed.mask, packed.used = index.mask, index.used
    packed.firsts = <uint32_t *>table_alloc(packed_first_bytes(packed))
    while index.entries[wrapped]:
        wrapped += 1
    cdef uint64_t *beyond = <uint64_t *>malloc((wrapped + 1) * sizeof(uint64_t))
    if packed.firsts == NULL or beyond == NULL:
        table_free(packed.firsts, packed_first_bytes(packed))
        free(beyond)
        packed.firsts = NULL
        return -1
    for at in range(size):
        entry = index.entries[at]
        if entry == 0:
            continue
        if at < wrapped and index_home(index, entry >> NUMBER_BITS) > at:
            beyond[aside] = entry
            aside += 1
        else:
            sorted_in(index, used, entry)
            used += 1
    for at in range(aside):
        sorted_in(index, used, beyond[at])
        used += 1
    free(beyond)
    for at in range(used):
        while bucket << BUCKET_BITS <= index_home(index, index.entries[at] >> NUMBER_BITS):
            packed.firsts[bucket] = <uint32_t>at
            bucket += 1
    while bucket <= (packed.mask >> BUCKET_BITS) + 1:
        packed.firsts[bucket] = <uint32_t>used
        bucket += 1
    table_shrink(index.entries, size * sizeof(uint64_t), packed_entry_bytes(packed))
    packed.entries = index.entries
    index.entries = NULL
    return 0


cdef inline uint64_t packed_find(const Packed *packed, uint64_t hashed, uint64_t *at) noexcept nogil:
    """The next entry of a hash with these lower bits, at `at` or behind, which begins at 0 and goes on; 0: no more."""
    cdef uint64_t bucket = (hashed & packed.mask) >> BUCKET_BITS, place = at[0], entry
    if place == 0:
        place = packed.firsts[bucket]
    while place < packed.firsts[bucket + 1]:
        entry = packed.entries[place]
        place += 1
        if index_alike(entry, hashed):
            at[0] = place
            return entry
    return 0
