# The index of a segment that is about to leave memory: as index.pxd has entries, in the order of their homes' 128, and
# a directory that says where those of each 128 homes begin. 8 bytes an id and 4 to 6 % of that for the directory.
#
#     entries u64 [used] | firsts u32 [(mask + 1) / 128 + 1]
#
# Homes are those in a table of mask + 1 places, at most two thirds full. A probe reads one place of the directory and
# 43 to 85 entries: one page, or two.

from libc.stdint cimport uint32_t, uint64_t

from .index cimport NUMBER_BITS
from .int128 cimport prefetch
from .memory cimport table_alloc, table_free
from .records cimport Records, record_at

cdef enum:
    BUCKET_BITS = 7
    PLACES_MIN = 4096
    PACKED_AHEAD = 16

cdef struct Packed:
    uint64_t *entries
    uint32_t *firsts
    uint64_t mask
    uint64_t used


cdef inline uint64_t packed_entry_bytes(const Packed *packed) noexcept nogil:
    """What it holds in memory; an empty one has room for an entry."""
    return max(packed.used, <uint64_t>1) * sizeof(uint64_t)


cdef inline uint64_t packed_first_bytes(const Packed *packed) noexcept nogil:
    return ((packed.mask >> BUCKET_BITS) + 2) * sizeof(uint32_t)


cdef inline void packed_close(Packed *packed) noexcept nogil:
    table_free(packed.entries, packed_entry_bytes(packed))
    table_free(packed.firsts, packed_first_bytes(packed))
    packed.entries, packed.firsts = NULL, NULL


cdef inline uint64_t bucket_at(const Packed *packed, const Records *records, uint64_t number) noexcept nogil:
    return (record_at(records, number).lo & packed.mask) >> BUCKET_BITS


cdef inline int packed_open(Packed *packed, const Records *records, uint64_t first, uint64_t used) noexcept nogil:
    """Packs an index of so many records from number `first` on; -1: no memory. Two passes over them: how many there
    are in each bucket, and where each goes, for which `firsts[b + 1]` runs from where bucket b begins to where it ends.
    """
    cdef uint64_t n, bucket, begin = 0, count, places = PLACES_MIN
    while used * 3 > places * 2:
        places *= 2
    packed.mask, packed.used = places - 1, used
    packed.entries = <uint64_t *>table_alloc(packed_entry_bytes(packed))
    packed.firsts = <uint32_t *>table_alloc(packed_first_bytes(packed))
    if packed.entries == NULL or packed.firsts == NULL:
        packed_close(packed)
        return -1
    for n in range(used):
        if n + PACKED_AHEAD < used:
            prefetch(&packed.firsts[bucket_at(packed, records, first + n + PACKED_AHEAD) + 1])
        packed.firsts[bucket_at(packed, records, first + n) + 1] += 1
    for bucket in range((packed.mask >> BUCKET_BITS) + 1):
        count = packed.firsts[bucket + 1]
        packed.firsts[bucket + 1] = <uint32_t>begin
        begin += count
    for n in range(used):
        if n + 2 * PACKED_AHEAD < used:
            prefetch(&packed.firsts[bucket_at(packed, records, first + n + 2 * PACKED_AHEAD) + 1])
        if n + PACKED_AHEAD < used:
            bucket = bucket_at(packed, records, first + n + PACKED_AHEAD)
            prefetch(&packed.entries[packed.firsts[bucket + 1]])
        bucket = bucket_at(packed, records, first + n)
        packed.entries[packed.firsts[bucket + 1]] = record_at(records, first + n).lo << NUMBER_BITS | (n + 1)
        packed.firsts[bucket + 1] += 1
    return 0
