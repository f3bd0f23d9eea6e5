"""Exact deduplication over a horizon: which rows are new, duplicate, conflicting or late.

Memory: a list of segments, newest last. A segment is an open-addressing table of 24-byte slots (16 bytes fingerprint,
8 bytes payload hash; linear probing, at most 3/4 full, so 32 to 64 bytes an id). The newest segment is active and
grows by doubling. When a slice of the horizon ends (or the segment holds its maximum), it is sealed: a split-block
Bloom filter (32-byte blocks of eight 32-bit words, one bit a word, as in the Parquet format; 16 bits an id, 0.2 %
false positives) is put before it. The filter says "certainly new" or "look closer"; only the table says "duplicate".

Time: everything that depends on the watermark happens at the row where the watermark moves, never at the end of a
batch, so that the verdicts are the same for every way of cutting the stream into batches.

Cost: about 30 ns a row, one cache miss in the table and one a sealed segment, prefetched. Proved by:
tests/parity/test_dedup.py against tests/oracle/dedup.py (a dict).
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from .int128 cimport prefetch
from .memory cimport table_alloc, table_double, table_free
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
    FIRST_SLOTS = 4096

cdef struct Slot:
    uint64_t lo
    uint64_t hi
    uint64_t payload

cdef struct Segment:
    int64_t number  # of its file in the state directory
    int64_t slice_end_us  # the watermark when it was sealed: nothing in it arrived later
    uint64_t mask
    uint64_t used
    Slot *slots
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

cdef inline Slot *find(Segment *segment, uint64_t lo, uint64_t hi) noexcept nogil:
    """The slot that holds the fingerprint, or the empty one where it belongs."""
    cdef uint64_t at = lo & segment.mask
    cdef Slot *slot
    while True:
        slot = &segment.slots[at]
        if (slot.lo == lo and slot.hi == hi) or (slot.lo == 0 and slot.hi == 0):
            return slot
        at = (at + 1) & segment.mask


cdef int grow(Segment *segment) noexcept nogil:
    """Doubles the table in its place: nothing is read twice, and the memory of both is never needed at once.

    Slots are taken out and put in again in the order in which they were probed, from an empty one on. None then lands
    behind the old slot's place in either half, so that no probe passes a slot that is emptied later.
    """
    cdef uint64_t old_size = segment.mask + 1, first = 0, step, at
    cdef Slot held
    cdef Slot *slots = <Slot *>table_double(segment.slots, old_size * sizeof(Slot))
    if slots == NULL:
        return -1
    segment.slots = slots
    segment.mask = old_size * 2 - 1
    while slots[first].lo or slots[first].hi:
        first += 1
    for step in range(1, old_size):
        at = (first + step) & (old_size - 1)
        held = slots[at]
        if held.lo or held.hi:
            memset(&slots[at], 0, sizeof(Slot))
            find(segment, held.lo, held.hi)[0] = held
    return 0


cdef int put(Segment *segment, Slot *slot, uint64_t lo, uint64_t hi, uint64_t payload) noexcept nogil:
    """Fills the empty slot that `find` gave; -1 when memory ran out."""
    slot.lo = lo
    slot.hi = hi
    slot.payload = payload
    segment.used += 1
    if segment.used * 4 >= (segment.mask + 1) * 3:
        return grow(segment)
    return 0


cdef int load(Segment *segment, const unsigned char *records, int64_t n) noexcept nogil:
    """Puts `n` records into the table, those that it has already once; -1 when memory ran out."""
    cdef int64_t i
    cdef uint64_t lo
    cdef Slot record
    cdef Slot *slot
    for i in range(n):
        if i + LOOKAHEAD < n:
            memcpy(&lo, records + (i + LOOKAHEAD) * <int64_t>sizeof(Slot), 8)
            prefetch(&segment.slots[lo & segment.mask])
        memcpy(&record, records + i * <int64_t>sizeof(Slot), sizeof(Slot))
        slot = find(segment, record.lo, record.hi)
        if slot.lo == 0 and slot.hi == 0 and put(segment, slot, record.lo, record.hi, record.payload):
            return -1
    return 0


cdef int build_bloom(Segment *segment) noexcept nogil:
    cdef uint64_t i
    cdef Slot *slot
    segment.blocks = segment.used * 16 // 256 + 1
    segment.bloom = <uint32_t *>table_alloc(segment.blocks * BLOCK_BYTES)
    if segment.bloom == NULL:
        segment.blocks = 0
        return -1
    for i in range(segment.mask + 1):
        slot = &segment.slots[i]
        if slot.lo or slot.hi:
            bloom_add(segment.bloom + 8 * bloom_block(slot.hi, segment.blocks), <uint32_t>(slot.lo >> 32))
    return 0


cdef inline Slot *find_sealed(Segment *segment, uint64_t lo, uint64_t hi) noexcept nogil:
    """The slot that holds the fingerprint, or NULL."""
    cdef Slot *slot
    if not bloom_has(segment.bloom + 8 * bloom_block(hi, segment.blocks), <uint32_t>(lo >> 32)):
        return NULL
    slot = find(segment, lo, hi)
    if slot.lo == 0 and slot.hi == 0:
        return NULL
    return slot


cdef void release(Segment *segment) noexcept nogil:
    table_free(segment.slots, (segment.mask + 1) * sizeof(Slot))
    table_free(segment.bloom, segment.blocks * BLOCK_BYTES)


# ---- The set ------------------------------------------------------------------------------------------------------

cdef class FingerprintSet:
    """All fingerprints of one shard within the horizon.

    `horizon_us` < 0 is unbounded. `slice_us` is the length of a generation; `segment_ids_max` bounds the active table.
    """

    cdef Segment segments[SEGMENTS_MAX]
    cdef int count
    cdef public int64_t horizon_us
    cdef readonly int64_t slice_us
    cdef readonly int64_t segment_ids_max
    cdef readonly int64_t watermark_us
    cdef Slot *journal
    cdef int64_t journal_used
    cdef int64_t journal_size
    cdef list journal_cuts  # (segment number, end of its run in the journal)
    cdef list retired

    def __cinit__(self, int64_t horizon_us, int64_t slice_us, int64_t segment_ids_max=1 << 26):
        if slice_us <= 0:
            raise ValueError("slice_us must be positive")
        self.horizon_us = horizon_us
        self.slice_us = slice_us
        self.segment_ids_max = segment_ids_max
        self.watermark_us = -1
        self.count = 0
        self.journal = NULL
        self.journal_used = self.journal_size = 0
        self.journal_cuts = []
        self.retired = []

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            release(&self.segments[i])
        free(self.journal)

    # -- segments

    cdef int _open(self, int64_t number, uint64_t slots) noexcept nogil:
        cdef Segment *segment
        if self.count == SEGMENTS_MAX:
            return -2
        segment = &self.segments[self.count]
        memset(segment, 0, sizeof(Segment))
        segment.number = number
        segment.slice_end_us = -1
        segment.mask = slots - 1
        segment.slots = <Slot *>table_alloc(slots * sizeof(Slot))
        if segment.slots == NULL:
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
        self.journal_cuts.append((number, self.journal_used))
        while (
            self.count > 0 and self.horizon_us >= 0
            and self.segments[0].slice_end_us < self.watermark_us - self.horizon_us
        ):
            self.retired.append(self.segments[0].number)
            release(&self.segments[0])
            self.count -= 1
            for i in range(self.count):
                self.segments[i] = self.segments[i + 1]
        self._check(self._open(number + 1, FIRST_SLOTS))
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
        cdef uint64_t lo, hi, check
        cdef Segment *active = &self.segments[self.count - 1]
        cdef Segment *segment
        cdef Slot *slot
        cdef Slot *known
        cdef int s
        for i in range(first, rows):
            ahead = i + LOOKAHEAD
            if ahead < rows:
                row = selection[ahead] if selection != NULL else ahead
                memcpy(&lo, fingerprint + 16 * row, 8)
                memcpy(&hi, fingerprint + 16 * row + 8, 8)
                prefetch(&active.slots[lo & active.mask])
                for s in range(self.count - 1):
                    prefetch(self.segments[s].bloom + 8 * bloom_block(hi, self.segments[s].blocks))
            row = selection[i] if selection != NULL else i
            memcpy(&lo, fingerprint + 16 * row, 8)
            memcpy(&hi, fingerprint + 16 * row + 8, 8)
            memcpy(&check, payload + 16 * row, 8)
            if lo == 0 and hi == 0:
                lo = 1  # all zero marks an empty slot
            time_us = event_time_us[row]
            slot = find(active, lo, hi)
            known = slot if (slot.lo or slot.hi) else NULL
            if known == NULL:
                for s in range(self.count - 2, -1, -1):
                    segment = &self.segments[s]
                    known = find_sealed(segment, lo, hi)
                    if known != NULL:
                        break
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
            error[0] = put(active, slot, lo, hi, check)
            if error[0]:
                return i
            self.journal[self.journal_used].lo = lo
            self.journal[self.journal_used].hi = hi
            self.journal[self.journal_used].payload = check
            self.journal_used += 1
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
        cdef Slot *larger
        memset(counts, 0, sizeof(counts))
        if self.count == 0:
            self._check(self._open(1, FIRST_SLOTS))
        elif self.segments[self.count - 1].blocks:  # restored without an active one
            self._check(self._open(self.segments[self.count - 1].number + 1, FIRST_SLOTS))
        if self.journal_used + rows > self.journal_size:
            larger = <Slot *>realloc(self.journal, (self.journal_used + rows) * 2 * sizeof(Slot))
            if larger == NULL:
                raise MemoryError("no memory for the journal of a shard")
            self.journal = larger
            self.journal_size = (self.journal_used + rows) * 2
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
        """What was learnt since the last call, as [(segment number, sealed at watermark or -1, 24-byte records)];
        empties it."""
        cdef list runs = []
        cdef int64_t start = 0
        cdef int i
        sealed = {self.segments[i].number: self.segments[i].slice_end_us for i in range(self.count)}
        for number, end in self.journal_cuts:
            runs.append((number, sealed.get(number, self.watermark_us), self._records(start, end)))
            start = end
        if self.count:
            runs.append((self.segments[self.count - 1].number, -1, self._records(start, self.journal_used)))
        self.journal_used = 0
        self.journal_cuts = []
        return runs

    cdef bytes _records(self, int64_t start, int64_t end):
        return (<const char *>(self.journal + start))[: (end - start) * sizeof(Slot)]

    def take_retired(self):
        """Numbers of the segments that the horizon has passed since the last call."""
        retired, self.retired = self.retired, []
        return retired

    def restore(self, int64_t number, int64_t sealed_at_us, int64_t records_max, chunks):
        """Loads one segment; oldest first, the active one (`sealed_at_us` -1) last.

        `chunks`: buffers of whole 24-byte records, read one after the other; together `records_max` at most, for which
        the table has room from the start. Raises ValueError, MemoryError, and what `chunks` raises.
        """
        cdef uint64_t slots = FIRST_SLOTS
        cdef const unsigned char[::1] chunk
        cdef Segment *segment
        cdef int error = 0
        if self.count and not self.segments[self.count - 1].blocks:
            raise ValueError("segments are restored oldest first, the active one last")
        while <uint64_t>records_max * 4 >= slots * 3:
            slots *= 2
        self._check(self._open(number, slots))
        segment = &self.segments[self.count - 1]
        for chunk in chunks:
            if chunk.shape[0] % <int64_t>sizeof(Slot):
                raise ValueError("a segment's records must be whole")
            if chunk.shape[0]:
                with nogil:
                    error = load(segment, &chunk[0], chunk.shape[0] // <int64_t>sizeof(Slot))
                self._check(error)
        if sealed_at_us >= 0:
            segment.slice_end_us = sealed_at_us
            with nogil:
                error = build_bloom(segment)
            self._check(error)

    def restore_watermark(self, int64_t watermark_us):
        self.watermark_us = watermark_us

    def __len__(self):
        cdef int i
        cdef int64_t total = 0
        for i in range(self.count):
            total += self.segments[i].used
        return total

    def memory_bytes(self):
        """Bytes held by tables, filters and the journal."""
        cdef int i
        cdef int64_t total = self.journal_size * <int64_t>sizeof(Slot)
        for i in range(self.count):
            total += (self.segments[i].mask + 1) * sizeof(Slot) + self.segments[i].blocks * BLOCK_BYTES
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
