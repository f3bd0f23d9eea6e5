# One segment of a FingerprintSet: records (16 bytes fingerprint, 8 bytes payload hash) in the order in which they were
# learnt, and an index of them. While it is active, the index (index.pxd, 12 to 24 bytes an id) grows by doubling. When
# it is sealed, the index is packed (packed.pxd, 8 bytes an id), and a Bloom filter (bloom.pxd, 3 bytes an id) is put
# before it: that one says "certainly new" or "look closer"; only the record says "duplicate".
#
# A sealed segment may leave memory but for its filter: its records and the packed index are read in files then
# (filed.pxd), for duplicates of it, and for one new row in ten thousand.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from .bloom cimport Bloom, bloom_add, bloom_close, bloom_has, bloom_open, bloom_prefetch
from .filed cimport Filed, Record, filed_find
from .index cimport (
    Index, index_alike, index_close, index_fill, index_home, index_number, index_open, index_prefetch, index_reserve
)
from .memory cimport arena_grow, table_free
from .packed cimport Packed, packed_close, packed_find, packed_from

cdef enum:
    LOOKAHEAD = 16
    FIRST_ENTRIES = 4096
    FIRST_RECORDS = 1024
    UNREADABLE = -3

cdef struct Segment:
    int64_t number  # of its file in the state directory
    int64_t slice_end_us  # the watermark when it was sealed: nothing in it arrived later
    uint64_t used  # records
    uint64_t taken  # of them, that `take_journal` has given
    Record *records  # unless it is filed
    uint64_t room  # for records in memory
    uint32_t *starts  # the number of the first record of each chunk of the file
    uint64_t chunks
    bint sealed
    Index index  # of the records, by the low word of their fingerprints; of the active segment
    Packed packed  # the same of a sealed one
    bint is_filed  # records and packed index are in files
    Filed filed
    Bloom bloom  # of a sealed one

cdef struct Looks:  # how the filters of sealed segments did
    int64_t lookups
    int64_t passed  # "look closer"
    int64_t found


cdef inline int segment_open(Segment *segment, int64_t number, uint64_t ids) noexcept nogil:
    """An active segment whose index has room for so many; -1 when memory ran out."""
    cdef uint64_t entries = FIRST_ENTRIES
    while ids * 3 > entries * 2:
        entries *= 2
    memset(segment, 0, sizeof(Segment))
    segment.number = number
    segment.slice_end_us = -1
    segment.room = FIRST_RECORDS
    segment.records = <Record *>arena_grow(NULL, 0, segment.room * sizeof(Record))
    if segment.records == NULL or index_open(&segment.index, entries):
        return -1
    return 0


cdef inline void segment_close(Segment *segment) noexcept nogil:
    table_free(segment.records, segment.room * sizeof(Record))
    free(segment.starts)
    index_close(&segment.index)
    if not segment.is_filed:
        packed_close(&segment.packed)
    bloom_close(&segment.bloom)


cdef inline const Record *find(const Segment *segment, uint64_t lo, uint64_t hi, uint64_t *place) noexcept nogil:
    """The record of the fingerprint in the active segment; NULL, and the empty entry where it belongs, if none."""
    cdef uint64_t at = index_home(&segment.index, lo), entry
    cdef const Record *record
    while True:
        entry = segment.index.entries[at]
        if entry == 0:
            place[0] = at
            return NULL
        if index_alike(entry, lo):
            record = &segment.records[index_number(entry)]
            if record.lo == lo and record.hi == hi:
                return record
        at = (at + 1) & segment.index.mask


cdef inline const Record *find_sealed(
    const Segment *segment, uint64_t lo, uint64_t hi, Looks *looks, Record *read, int *error
) noexcept nogil:
    """The record of the fingerprint, or NULL; one of a file is `read`, or `error` UNREADABLE, by `errno`."""
    cdef uint64_t at = 0, entry
    cdef const Record *record
    cdef int found
    looks.lookups += 1
    if not bloom_has(&segment.bloom, lo, hi):
        return NULL
    looks.passed += 1
    if segment.is_filed:
        found = filed_find(&segment.filed, segment.starts, segment.chunks, lo, hi, read)
        if found < 0:
            error[0] = UNREADABLE
        looks.found += found > 0
        return read if found > 0 else NULL
    while True:
        entry = packed_find(&segment.packed, lo, &at)
        if entry == 0:
            return NULL
        record = &segment.records[index_number(entry)]
        if record.lo == lo and record.hi == hi:
            looks.found += 1
            return record


cdef inline int make_room(Segment *segment, uint64_t more) noexcept nogil:
    """For so many more records in memory; -1 when memory ran out."""
    cdef uint64_t room = segment.room
    cdef Record *records
    while segment.used + more > room:
        room *= 2
    if room > segment.room:
        records = <Record *>arena_grow(segment.records, segment.room * sizeof(Record), room * sizeof(Record))
        if records == NULL:
            return -1
        segment.records, segment.room = records, room
    return 0


cdef inline int put(Segment *segment, uint64_t place, uint64_t lo, uint64_t hi, uint64_t payload) noexcept nogil:
    """Appends a record and fills the empty entry that `find` gave; -1 when memory ran out."""
    cdef Record *record = &segment.records[segment.used]
    record.lo, record.hi, record.payload = lo, hi, payload
    index_fill(&segment.index, place, lo, segment.used)
    segment.used += 1
    if make_room(segment, 1):
        return -1
    return index_reserve(&segment.index, 1)


cdef inline int load(Segment *segment, const char *records, int64_t n) noexcept nogil:
    """Takes `n` more records up, into the filter if there is one, and into memory if they are not read in a file; -1
    when memory ran out."""
    cdef int64_t i
    cdef uint64_t lo, hi, place = 0
    cdef Record record
    cdef bint in_memory = not segment.is_filed, filtered = segment.bloom.blocks != 0
    if in_memory and make_room(segment, n + 1):
        return -1
    for i in range(n):
        if i + LOOKAHEAD < n:
            memcpy(&lo, records + (i + LOOKAHEAD) * <int64_t>sizeof(Record), 8)
            memcpy(&hi, records + (i + LOOKAHEAD) * <int64_t>sizeof(Record) + 8, 8)
            if in_memory:
                index_prefetch(&segment.index, lo)
            if filtered:
                bloom_prefetch(&segment.bloom, hi)
        memcpy(&record, records + i * <int64_t>sizeof(Record), sizeof(Record))
        if filtered:
            bloom_add(&segment.bloom, record.lo, record.hi)
        if not in_memory:
            segment.used += 1
        elif find(segment, record.lo, record.hi, &place) == NULL and put(
            segment, place, record.lo, record.hi, record.payload
        ):
            return -1
    return 0


cdef inline int seal(Segment *segment) noexcept nogil:
    """Builds the filter, and packs the index of a segment that learns no more; -1 when memory ran out."""
    cdef uint64_t i
    if bloom_open(&segment.bloom, segment.used):
        return -1
    for i in range(segment.used):
        if i + LOOKAHEAD < segment.used:
            bloom_prefetch(&segment.bloom, segment.records[i + LOOKAHEAD].hi)
        bloom_add(&segment.bloom, segment.records[i].lo, segment.records[i].hi)
    return pack(segment)


cdef inline int pack(Segment *segment) noexcept nogil:
    if packed_from(&segment.packed, &segment.index):
        return -1
    segment.sealed = True
    return 0
