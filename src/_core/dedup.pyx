"""Exact deduplication over a horizon: which rows are new, duplicate, conflicting or late.

Memory: a list of segments, newest last. A segment is its records (16 bytes fingerprint, 8 bytes payload hash) end to
end in the order in which they were learnt, as they go into its file, and an index of them (index.pxd): 36 to 48 bytes
an id, of which a probe touches one cache line of the index, and the record only where it is a duplicate. The newest
segment is active and grows by doubling. When a slice of the horizon ends (or the segment holds its maximum), it is
sealed: a split-block Bloom filter (32-byte blocks of eight 32-bit words, one bit a word, as in the Parquet format;
16 bits an id, 0.2 % false positives) is put before it. The filter says "certainly new" or "look closer"; only the
record says "duplicate".

Time: everything that depends on the watermark happens at the row where the watermark moves, never at the end of a
batch, so that the verdicts are the same for every way of cutting the stream into batches.

Cost: 50 to 70 ns a row up to ten million ids, a third of it for memory that was never touched before; one cache miss
in the index and one a sealed segment, prefetched. Proved by: tests/parity/test_dedup.py against tests/oracle/dedup.py
(a dict).
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset

from .index cimport (
    Index, index_alike, index_bytes, index_close, index_fill, index_home, index_number, index_open, index_prefetch,
    index_reserve,
)
from .int128 cimport prefetch
from .memory cimport arena_grow, table_alloc, table_free
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

NEW, DUPLICATE, CONFLICTING, LATE = 0, 1, 2, 3

cdef enum:
    V_NEW = 0
    V_DUPLICATE = 1
    V_CONFLICTING = 2
    V_LATE = 3
    SEGMENTS_MAX = 1280  # dedup.generations may be 1000; the rest is for segments that fill up within a slice
    LOOKAHEAD = 16
    BLOCK_BYTES = 32
    FIRST_ENTRIES = 4096

cdef struct Record:
    uint64_t lo
    uint64_t hi
    uint64_t payload

cdef struct Segment:
    int64_t number  # of its file in the state directory
    int64_t slice_end_us  # the watermark when it was sealed: nothing in it arrived later
    Record *records
    uint64_t used
    uint64_t room  # records that there is room for
    uint64_t taken  # records that `take_journal` has given
    Index index  # of the records, by the low word of their fingerprints
    uint64_t blocks  # Bloom blocks, 0 while active
    uint32_t *bloom

cdef extern from *:
    """
    static const uint32_t tf_salt[8] = {0x47b6137bU, 0x44974d91U, 0x8824ad5bU, 0xa2b7289dU,
                                        0x705495c7U, 0x2df1424bU, 0x9efc4947U, 0x5c6bfb31U};
    static inline int tf_bloom_has(const uint32_t *block, uint32_t key) {
        uint32_t miss = 0;
        for (int i = 0; i < 8; i++) miss |= (block[i] >> ((key * tf_salt[i]) >> 27) & 1U) ^ 1U;
        return miss == 0;
    }
    static inline void tf_bloom_add(uint32_t *block, uint32_t key) {
        for (int i = 0; i < 8; i++) block[i] |= 1U << ((key * tf_salt[i]) >> 27);
    }
    static inline uint64_t tf_bloom_block(uint64_t hash, uint64_t blocks) {
        return (uint64_t)(((unsigned __int128)hash * blocks) >> 64);
    }
    """
    int bloom_has "tf_bloom_has"(const uint32_t *block, uint32_t key) nogil
    void bloom_add "tf_bloom_add"(uint32_t *block, uint32_t key) nogil
    uint64_t bloom_block "tf_bloom_block"(uint64_t hash, uint64_t blocks) nogil


# ---- One segment --------------------------------------------------------------------------------------------------

cdef int segment_open(Segment *segment, int64_t number, uint64_t ids) noexcept nogil:
    """An active segment with room for so many; -1 when memory ran out."""
    cdef uint64_t entries = FIRST_ENTRIES
    while ids * 3 > entries * 2:
        entries *= 2
    memset(segment, 0, sizeof(Segment))
    segment.number = number
    segment.slice_end_us = -1
    segment.room = entries * 2 // 3
    segment.records = <Record *>arena_grow(NULL, 0, segment.room * sizeof(Record))
    if segment.records == NULL or index_open(&segment.index, entries):
        return -1
    return 0


cdef void segment_close(Segment *segment) noexcept nogil:
    table_free(segment.records, segment.room * sizeof(Record))
    index_close(&segment.index)
    table_free(segment.bloom, segment.blocks * BLOCK_BYTES)


cdef inline Record *find(Segment *segment, uint64_t lo, uint64_t hi, uint64_t *place) noexcept nogil:
    """The record of the fingerprint; NULL, and the empty entry where it belongs, if there is none."""
    cdef uint64_t at = index_home(&segment.index, lo), entry
    cdef Record *record
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


cdef inline int put(Segment *segment, uint64_t place, uint64_t lo, uint64_t hi, uint64_t payload) noexcept nogil:
    """Appends a record and fills the empty entry that `find` gave; -1 when memory ran out."""
    cdef Record *record = &segment.records[segment.used]
    cdef Record *records
    record.lo, record.hi, record.payload = lo, hi, payload
    index_fill(&segment.index, place, lo, segment.used)
    segment.used += 1
    if segment.used == segment.room:
        records = <Record *>arena_grow(
            segment.records, segment.room * sizeof(Record), 2 * segment.room * sizeof(Record)
        )
        if records == NULL:
            return -1
        segment.records = records
        segment.room *= 2
    return index_reserve(&segment.index, 1)


cdef int load(Segment *segment, const unsigned char *records, int64_t n) noexcept nogil:
    """Appends `n` records, those that it has already once; -1 when memory ran out."""
    cdef int64_t i
    cdef uint64_t lo, place = 0
    cdef Record record
    for i in range(n):
        if i + LOOKAHEAD < n:
            memcpy(&lo, records + (i + LOOKAHEAD) * <int64_t>sizeof(Record), 8)
            index_prefetch(&segment.index, lo)
        memcpy(&record, records + i * <int64_t>sizeof(Record), sizeof(Record))
        if find(segment, record.lo, record.hi, &place) == NULL and put(
            segment, place, record.lo, record.hi, record.payload
        ):
            return -1
    return 0


cdef int build_bloom(Segment *segment) noexcept nogil:
    cdef uint64_t i
    cdef Record *record
    segment.blocks = segment.used * 16 // 256 + 1
    segment.bloom = <uint32_t *>table_alloc(segment.blocks * BLOCK_BYTES)
    if segment.bloom == NULL:
        segment.blocks = 0
        return -1
    for i in range(segment.used):
        record = &segment.records[i]
        bloom_add(segment.bloom + 8 * bloom_block(record.hi, segment.blocks), <uint32_t>(record.lo >> 32))
    return 0


cdef struct Filtering:  # how the filters of sealed segments did
    int64_t lookups
    int64_t passed  # "look closer"
    int64_t found

cdef inline Record *find_sealed(Segment *segment, uint64_t lo, uint64_t hi, Filtering *filtering) noexcept nogil:
    """The record of the fingerprint, or NULL."""
    cdef uint64_t place = 0
    cdef Record *found
    filtering.lookups += 1
    if not bloom_has(segment.bloom + 8 * bloom_block(hi, segment.blocks), <uint32_t>(lo >> 32)):
        return NULL
    found = find(segment, lo, hi, &place)
    filtering.passed += 1
    filtering.found += found != NULL
    return found


# ---- The set ------------------------------------------------------------------------------------------------------

cdef class FingerprintSet:
    """All fingerprints of one shard within the horizon.

    `horizon_us` < 0 is unbounded. `slice_us` is the length of a generation; `segment_ids_max` bounds the active segment
    (below 2^31: an entry numbers its records in 32 bits).
    """

    cdef Segment segments[SEGMENTS_MAX]
    cdef int count
    cdef public int64_t horizon_us
    cdef readonly int64_t slice_us
    cdef readonly int64_t segment_ids_max
    cdef readonly int64_t watermark_us
    cdef int newly_sealed  # segments, the newest but the active one, that `take_journal` has not told of
    cdef list retired
    cdef Filtering filters

    def __cinit__(self, int64_t horizon_us, int64_t slice_us, int64_t segment_ids_max=1 << 26):
        if slice_us <= 0:
            raise ValueError("slice_us must be positive")
        if not 0 < segment_ids_max < 1 << 31:
            raise ValueError("segment_ids_max must be positive and below 2^31")
        self.horizon_us = horizon_us
        self.slice_us = slice_us
        self.segment_ids_max = segment_ids_max
        self.watermark_us = -1
        self.count = 0
        self.newly_sealed = 0
        memset(&self.filters, 0, sizeof(Filtering))
        self.retired = []

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            segment_close(&self.segments[i])

    # -- segments

    cdef int _open(self, int64_t number, uint64_t ids) noexcept nogil:
        cdef Segment *segment
        if self.count == SEGMENTS_MAX:
            return -2
        segment = &self.segments[self.count]
        if segment_open(segment, number, ids):
            segment_close(segment)
            return -1
        self.count += 1
        return 0

    cdef int _seal(self) except -1:
        """Ends the active segment at the present watermark, opens the next, and retires what the horizon has passed."""
        cdef Segment *active = &self.segments[self.count - 1]
        cdef int64_t number = active.number
        cdef int error
        active.slice_end_us = self.watermark_us
        with nogil:
            error = build_bloom(active)
        if error:
            raise MemoryError("no memory for a Bloom filter of a sealed segment")
        self.newly_sealed += 1
        while (
            self.count > 0 and self.horizon_us >= 0
            and self.segments[0].slice_end_us < self.watermark_us - self.horizon_us
        ):
            self.retired.append(self.segments[0].number)
            segment_close(&self.segments[0])
            self.count -= 1
            for i in range(self.count):
                self.segments[i] = self.segments[i + 1]
        self.newly_sealed = min(self.newly_sealed, self.count)
        self._check(self._open(number + 1, 0))
        return 0

    cdef int _check(self, int error) except -1:
        if error == -1:
            raise MemoryError("no memory for the fingerprints of a shard")
        if error == -2:
            raise MemoryError(f"more than {SEGMENTS_MAX} segments of fingerprints; use a shorter dedup.horizon")
        return 0

    # -- the kernel

    cdef int64_t _run(
        self, int64_t first, int64_t rows, const uint32_t *selection, const char *fingerprint, const char *payload,
        const int64_t *event_time_us, uint8_t *verdicts, int64_t *counts, int *error,
    ) noexcept nogil:
        """Judges rows from `first` on; stops (and returns where) before the row at which the active segment must be
        sealed."""
        cdef int64_t i, ahead, row, time_us
        cdef uint64_t lo, hi, check, place = 0
        cdef Segment *active = &self.segments[self.count - 1]
        cdef Record *known
        cdef int s
        for i in range(first, rows):
            ahead = i + LOOKAHEAD
            if ahead < rows:
                row = selection[ahead] if selection != NULL else ahead
                memcpy(&lo, fingerprint + 16 * row, 8)
                memcpy(&hi, fingerprint + 16 * row + 8, 8)
                index_prefetch(&active.index, lo)
                for s in range(self.count - 1):
                    prefetch(self.segments[s].bloom + 8 * bloom_block(hi, self.segments[s].blocks))
            row = selection[i] if selection != NULL else i
            memcpy(&lo, fingerprint + 16 * row, 8)
            memcpy(&hi, fingerprint + 16 * row + 8, 8)
            memcpy(&check, payload + 16 * row, 8)
            time_us = event_time_us[row]
            known = find(active, lo, hi, &place)
            for s in range(self.count - 2, -1, -1):
                if known != NULL:
                    break
                known = find_sealed(&self.segments[s], lo, hi, &self.filters)
            if known != NULL:
                verdicts[i] = V_DUPLICATE if known.payload == check else V_CONFLICTING
                counts[verdicts[i]] += 1
                continue
            if self.horizon_us >= 0 and time_us < self.watermark_us - self.horizon_us:
                verdicts[i] = V_LATE
                counts[V_LATE] += 1
                continue
            if active.used and (
                active.used >= <uint64_t>self.segment_ids_max
                or (self.horizon_us >= 0 and time_us > self.watermark_us
                    and time_us // self.slice_us != self.watermark_us // self.slice_us)
            ):
                return i  # the caller seals, and this row comes again
            if time_us > self.watermark_us:
                self.watermark_us = time_us
            verdicts[i] = V_NEW
            counts[V_NEW] += 1
            error[0] = put(active, place, lo, hi, check)
            if error[0]:
                return i
        return rows

    def judge(
        self, int64_t rows, uintptr_t selection, uintptr_t fingerprint, uintptr_t payload, uintptr_t event_time_us,
        uintptr_t verdicts,
    ):
        """Judges `rows` rows and remembers the new ones.

        `selection`: uint32 row numbers [rows], or 0 for all rows in order. `fingerprint`, `payload`: 16 bytes a row
        of the batch; `event_time_us` int64 a row. `verdicts`: uint8 [rows], in the order of the selection.
        Returns (new, duplicate, conflicting, late). Raises MemoryError.
        """
        cdef int64_t counts[4]
        cdef int64_t done = 0
        cdef int error = 0
        memset(counts, 0, sizeof(counts))
        if self.count == 0:
            self._check(self._open(1, 0))
        elif self.segments[self.count - 1].blocks:  # restored without an active one
            self._check(self._open(self.segments[self.count - 1].number + 1, 0))
        while done < rows:
            with nogil:
                done = self._run(
                    done, rows, <const uint32_t *>selection, <const char *>fingerprint, <const char *>payload,
                    <const int64_t *>event_time_us, <uint8_t *>verdicts, counts, &error,
                )
            self._check(error)
            if done < rows:
                self._seal()
        return counts[V_NEW], counts[V_DUPLICATE], counts[V_CONFLICTING], counts[V_LATE]

    # -- what the state directory keeps

    def take_journal(self):
        """What was learnt since the last call: gives (segment number, sealed at watermark or -1, 24-byte records) of
        each segment that has learnt or was sealed, and of the active one.

        The records are those in memory, and good until the next segment is asked for: nothing may be judged meanwhile.
        What a retired segment had learnt is not given.
        """
        cdef int s
        cdef Segment *segment
        cdef uint64_t taken
        for s in range(max(self.count - 1 - self.newly_sealed, 0), self.count):
            segment = &self.segments[s]
            taken, segment.taken = segment.taken, segment.used
            records = PyMemoryView_FromMemory(
                <char *>(segment.records + taken), (segment.used - taken) * sizeof(Record), PyBUF_READ
            )
            try:
                yield segment.number, segment.slice_end_us, records
            finally:
                records.release()
        self.newly_sealed = 0

    def take_retired(self):
        """Numbers of the segments that the horizon has passed since the last call."""
        retired, self.retired = self.retired, []
        return retired

    def restore(self, int64_t number, int64_t sealed_at_us, int64_t records_max, chunks):
        """Loads one segment; oldest first, the active one (`sealed_at_us` -1) last.

        `chunks`: buffers of whole 24-byte records, read one after the other; together `records_max` at most, for which
        the table has room from the start. Raises ValueError, MemoryError, and what `chunks` raises.
        """
        cdef const unsigned char[::1] chunk
        cdef Segment *segment
        cdef int error = 0
        if records_max >= 1 << 31:
            raise ValueError("a segment holds less than 2^31 records")
        if self.count and not self.segments[self.count - 1].blocks:
            raise ValueError("segments are restored oldest first, the active one last")
        self._check(self._open(number, records_max + 1))
        segment = &self.segments[self.count - 1]
        for chunk in chunks:
            if chunk.shape[0] % <int64_t>sizeof(Record):
                raise ValueError("a segment's records must be whole")
            if chunk.shape[0]:
                with nogil:
                    error = load(segment, &chunk[0], chunk.shape[0] // <int64_t>sizeof(Record))
                self._check(error)
        segment.taken = segment.used
        if sealed_at_us >= 0:
            segment.slice_end_us = sealed_at_us
            with nogil:
                error = build_bloom(segment)
            self._check(error)

    def restore_watermark(self, int64_t watermark_us):
        self.watermark_us = watermark_us

    def filtering(self):
        """What the filters of sealed segments were asked since the start: (lookups, "look closer", of those found)."""
        return self.filters.lookups, self.filters.passed, self.filters.found

    def __len__(self):
        cdef int i
        cdef int64_t total = 0
        for i in range(self.count):
            total += self.segments[i].used
        return total

    def memory_bytes(self):
        """Bytes held by records, indexes and filters."""
        cdef int i
        cdef Segment *segment
        cdef int64_t total = 0
        for i in range(self.count):
            segment = &self.segments[i]
            total += segment.used * sizeof(Record) + index_bytes(&segment.index) + segment.blocks * BLOCK_BYTES
        return total


# ---- Selections ---------------------------------------------------------------------------------------------------

def select(int64_t rows, uintptr_t selection, uintptr_t verdicts, int verdict, uintptr_t out):
    """Row numbers (uint32) whose verdict is the one asked for, in order; returns how many."""
    cdef const uint32_t *source = <const uint32_t *>selection  # IN, may be 0: all rows
    cdef const uint8_t *given = <const uint8_t *>verdicts  # IN
    cdef uint32_t *picked = <uint32_t *>out  # OUT
    cdef int64_t i, n = 0
    with nogil:
        for i in range(rows):
            if given[i] == verdict:
                picked[n] = source[i] if source != NULL else <uint32_t>i
                n += 1
    return n
