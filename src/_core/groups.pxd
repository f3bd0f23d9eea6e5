# The groups of one grain (minutes or days): an open-addressing table of 32-byte entries, two thirds full at most, and
# the records that hold the sums, end to end in the order in which they were begun.
#
#     record = key u32 | window u32 | events u64 | digest u128 | quantity i128 x k | amount i128 x (k + 1)
#
# Inline functions on a struct, and no class of its own, because `groups_find` is the hottest call of combine.pyx.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memset

from .hash cimport fmix64
from .int128 cimport i128, i128_add, i128_load, i128_store
from .memory cimport table_alloc, table_free

cdef enum:
    HEADER = 32
    FIRST_ENTRIES = 4096
    FIRST_BYTES = 1 << 20
    ERROR_MEMORY = 1
    ERROR_OVERFLOW = 2

cdef struct Entry:
    uint64_t lo  # of the dimensions hash
    uint64_t hi
    uint32_t shape
    uint32_t window
    int64_t place_plus_one  # 0 is an empty entry

cdef struct Record:
    uint32_t key
    uint32_t window
    uint64_t events
    char digest[16]

cdef struct Groups:
    Entry *entries
    uint64_t mask
    int64_t count
    char *records
    int64_t used
    int64_t size
    int64_t *places  # of each record, in the order in which they were begun
    int64_t places_size


cdef inline int64_t record_bytes(int64_t meters) noexcept nogil:
    return HEADER + 16 * (2 * meters + 1)


cdef inline Record *record_at(Groups *groups, int64_t number) noexcept nogil:
    return <Record *>(groups.records + groups.places[number])


cdef inline int add_at(char *sum, i128 value) noexcept nogil:
    cdef i128 total = i128_load(sum)
    if i128_add(&total, value):
        return ERROR_OVERFLOW
    i128_store(sum, total)
    return 0


cdef inline uint64_t entry_hash(uint64_t lo, uint64_t hi, uint32_t shape, uint32_t window) noexcept nogil:
    return fmix64(lo ^ (hi >> 32) ^ ((<uint64_t>shape << 32 | window) * <uint64_t>0x9E3779B97F4A7C15))


cdef inline int groups_open(Groups *groups) noexcept nogil:
    memset(groups, 0, sizeof(Groups))
    groups.mask = FIRST_ENTRIES - 1
    groups.entries = <Entry *>table_alloc(FIRST_ENTRIES * sizeof(Entry))
    groups.size = FIRST_BYTES
    groups.records = <char *>realloc(NULL, FIRST_BYTES)
    return ERROR_MEMORY if groups.entries == NULL or groups.records == NULL else 0


cdef inline void groups_close(Groups *groups) noexcept nogil:
    if groups.entries != NULL:
        table_free(groups.entries, (groups.mask + 1) * sizeof(Entry))
    free(groups.records)
    free(groups.places)


cdef inline void groups_clear(Groups *groups) noexcept nogil:
    memset(groups.entries, 0, (groups.mask + 1) * sizeof(Entry))
    groups.count = 0
    groups.used = 0


cdef inline Entry *groups_find(
    Groups *groups, uint64_t hashed, uint64_t lo, uint64_t hi, uint32_t shape, uint32_t window
) noexcept nogil:
    """The entry of a group, or the empty one where it belongs."""
    cdef uint64_t at = hashed & groups.mask
    cdef Entry *entry
    while True:
        entry = &groups.entries[at]
        if entry.place_plus_one == 0 or (
            entry.lo == lo and entry.hi == hi and entry.shape == shape and entry.window == window
        ):
            return entry
        at = (at + 1) & groups.mask


cdef inline int groups_reserve(Groups *groups, int64_t more, int64_t bytes_each) noexcept nogil:
    """Makes room for so many more groups of at most so many bytes each. Entries and records may move."""
    cdef uint64_t old_size = groups.mask + 1, i
    cdef Entry *old = groups.entries
    cdef Entry *entry
    cdef Entry *larger
    cdef char *records
    cdef int64_t *places
    if <uint64_t>(groups.count + more) * 3 > old_size * 2:
        larger = <Entry *>table_alloc(old_size * 2 * sizeof(Entry))
        if larger == NULL:
            return ERROR_MEMORY
        groups.entries = larger
        groups.mask = old_size * 2 - 1
        for i in range(old_size):
            if old[i].place_plus_one:
                entry = groups_find(
                    groups, entry_hash(old[i].lo, old[i].hi, old[i].shape, old[i].window),
                    old[i].lo, old[i].hi, old[i].shape, old[i].window,
                )
                entry[0] = old[i]
        table_free(old, old_size * sizeof(Entry))
    if groups.count + more > groups.places_size:
        places = <int64_t *>realloc(groups.places, (groups.count + more) * 2 * sizeof(int64_t))
        if places == NULL:
            return ERROR_MEMORY
        groups.places = places
        groups.places_size = (groups.count + more) * 2
    while groups.used + more * bytes_each > groups.size:
        records = <char *>realloc(groups.records, groups.size * 2)
        if records == NULL:
            return ERROR_MEMORY
        groups.records = records
        groups.size *= 2
    return 0


cdef inline int64_t groups_begin(
    Groups *groups, Entry *entry, uint64_t lo, uint64_t hi, uint32_t shape, uint32_t window, uint32_t key,
    int64_t bytes_each,
) noexcept nogil:
    """Begins the group of an empty entry; returns the place of its record. Room must have been reserved."""
    cdef Record *record = <Record *>(groups.records + groups.used)
    cdef int64_t place = groups.used
    memset(record, 0, bytes_each)
    record.key = key
    record.window = window
    entry.lo = lo
    entry.hi = hi
    entry.shape = shape
    entry.window = window
    entry.place_plus_one = place + 1
    groups.places[groups.count] = place
    groups.used += bytes_each
    groups.count += 1
    return place
