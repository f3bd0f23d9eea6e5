# One segment of a FingerprintSet: the records of one slice of the horizon, or of a part of it. Those in memory stand
# one behind the other in one ring (records.pxd), under one index (lines.pxd): however many segments there are, one
# probe says whether any of them has a fingerprint.
#
# A sealed segment may leave memory, the oldest first. A Bloom filter of it stays (bloom.pxd, 3 bytes an id), that says
# "certainly new" or "look closer"; its records and a packed index are read in files then (filed.pxd), for duplicates of
# it and for one new row in ten thousand.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free
from libc.string cimport memcpy, memset

from .bloom cimport Bloom, bloom_add, bloom_close, bloom_has, bloom_open, bloom_prefetch
from .filed cimport Filed, filed_find
from .packed cimport Packed, packed_close
from .records cimport Record, Records, record_at

cdef enum:
    LOOKAHEAD = 16
    UNREADABLE = -3

cdef struct Segment:
    int64_t number  # of its file in the state directory
    int64_t slice_end_us  # the watermark when it was sealed: nothing in it arrived later
    uint64_t first  # number of its first record in memory
    uint64_t used  # records
    uint64_t taken  # of them, that `take_journal` has given
    uint32_t *starts  # the number of the first record of each chunk of the file, in the segment
    uint64_t chunks
    bint sealed
    Packed packed  # while it is about to leave memory
    bint is_filed  # it has
    Filed filed
    Bloom bloom

cdef struct Looks:  # how the filters of segments in files did
    int64_t lookups
    int64_t passed  # "look closer"
    int64_t found


cdef inline void segment_open(Segment *segment, int64_t number, uint64_t first) noexcept nogil:
    """An active segment."""
    memset(segment, 0, sizeof(Segment))
    segment.number, segment.slice_end_us, segment.first = number, -1, first


cdef inline void segment_close(Segment *segment) noexcept nogil:
    free(segment.starts)
    packed_close(&segment.packed)
    bloom_close(&segment.bloom)


cdef inline const Record *find_filed(
    const Segment *segment, uint64_t lo, uint64_t hi, Looks *looks, Record *read, int *error
) noexcept nogil:
    """The record of the fingerprint in a file, which is `read`; NULL if none, or if `error` is UNREADABLE."""
    cdef int found
    looks.lookups += 1
    if not bloom_has(&segment.bloom, lo, hi):
        return NULL
    looks.passed += 1
    found = filed_find(&segment.filed, segment.starts, segment.chunks, lo, hi, read)
    if found < 0:
        error[0] = UNREADABLE
    looks.found += found > 0
    return read if found > 0 else NULL


cdef inline int filter_records(Segment *segment, const Records *records) noexcept nogil:
    """Makes the filter of a segment in memory; -1 when that ran out."""
    cdef uint64_t number, end = segment.first + segment.used
    cdef const Record *record
    if bloom_open(&segment.bloom, segment.used):
        return -1
    for number in range(segment.first, end):
        if number + LOOKAHEAD < end:
            bloom_prefetch(&segment.bloom, record_at(records, number + LOOKAHEAD).hi)
        record = record_at(records, number)
        bloom_add(&segment.bloom, record.lo, record.hi)
    return 0


cdef inline void filter_read(Segment *segment, const char *read, uint64_t count) noexcept nogil:
    """Puts so many records of a segment in files into its filter."""
    cdef uint64_t n, hi
    cdef Record record
    for n in range(count):
        if n + LOOKAHEAD < count:
            memcpy(&hi, read + (n + LOOKAHEAD) * sizeof(Record) + 8, 8)
            bloom_prefetch(&segment.bloom, hi)
        memcpy(&record, read + n * sizeof(Record), sizeof(Record))
        bloom_add(&segment.bloom, record.lo, record.hi)
    segment.used += count
