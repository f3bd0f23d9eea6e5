"""Exact deduplication over a horizon: which rows are new, duplicate, conflicting or late.

Memory: a list of segments (segment.pxd), newest last. The newest is active; when a slice of the horizon ends (or the
segment holds its maximum), it is sealed. An id takes 36 to 48 bytes in the active segment, 35 in a sealed one, and 3 in
one that has left for its files, which it is given open, with an object that keeps them so.

Time: everything that depends on the watermark happens at the row where the watermark moves, never at the end of a
batch, so that the verdicts are the same for every way of cutting the stream into batches.

Cost: 55 to 110 ns a row from 10^6 to 10^8 ids, much of it for memory that was never touched before; one cache miss in
the index and one a sealed segment, prefetched: 10 ns each (benchmarks/dedup.py).

Proved by: tests/parity/test_dedup.py against tests/oracle/dedup.py (a dict).
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset, strerror

from .bloom cimport bloom_bytes, bloom_open, bloom_prefetch
from .filed cimport Filed, Record
from .index cimport NUMBERS_MAX, index_bytes, index_close, index_prefetch
from .memory cimport grown, table_free
from .packed cimport packed_close, packed_entry_bytes, packed_first_bytes
from .segment cimport (
    LOOKAHEAD, UNREADABLE, Looks, Segment, find, find_sealed, load, pack, put, seal, segment_close, segment_open
)
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

NEW, DUPLICATE, CONFLICTING, LATE = 0, 1, 2, 3

cdef enum:
    V_NEW = 0
    V_DUPLICATE = 1
    V_CONFLICTING = 2
    V_LATE = 3
    SEGMENTS_MAX = 1280  # dedup.generations may be 1000; the rest is for segments that fill up within a slice
    CHUNK_RECORDS_MAX = 1 << 20

# ---- The set ------------------------------------------------------------------------------------------------------

cdef class FingerprintSet:
    """All fingerprints of one shard within the horizon.

    `horizon_us` < 0 is unbounded. `slice_us` is the length of a generation; `segment_ids_max` bounds the active segment
    (an entry numbers its records in 28 bits).
    """

    cdef Segment segments[SEGMENTS_MAX]
    cdef int count
    cdef public int64_t horizon_us
    cdef readonly int64_t slice_us
    cdef readonly int64_t segment_ids_max
    cdef readonly int64_t watermark_us
    cdef int newly_sealed  # segments, the newest but the active one, that `take_journal` has not told of
    cdef list retired
    cdef Looks looks
    cdef dict files  # by segment number: what keeps its files open, and names them
    cdef int unreadable  # the place of the segment whose file could not be read
    cdef int reason  # its errno

    def __cinit__(self, int64_t horizon_us, int64_t slice_us, int64_t segment_ids_max=1 << 26):
        if slice_us <= 0:
            raise ValueError("slice_us must be positive")
        if not 0 < segment_ids_max < NUMBERS_MAX:
            raise ValueError("segment_ids_max must be positive and below 2^28 - 1")
        self.horizon_us = horizon_us
        self.slice_us = slice_us
        self.segment_ids_max = segment_ids_max
        self.watermark_us = -1
        self.count = 0
        self.newly_sealed = 0
        memset(&self.looks, 0, sizeof(Looks))
        self.retired = []
        self.files = {}

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
            error = seal(active)
        if error:
            raise MemoryError("no memory to seal a segment of fingerprints")
        self.newly_sealed += 1
        while (
            self.count > 0 and self.horizon_us >= 0
            and self.segments[0].slice_end_us < self.watermark_us - self.horizon_us
        ):
            self.retired.append(self.segments[0].number)
            self.files.pop(self.segments[0].number, None)
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
        if error == UNREADABLE:
            name = str(self.files[self.segments[self.unreadable].number])
            raise OSError(self.reason, strerror(self.reason).decode(), name)
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
        cdef const Record *known
        cdef Record read  # of a file
        cdef int s
        for i in range(first, rows):
            ahead = i + LOOKAHEAD
            if ahead < rows:
                row = selection[ahead] if selection != NULL else ahead
                memcpy(&lo, fingerprint + 16 * row, 8)
                memcpy(&hi, fingerprint + 16 * row + 8, 8)
                index_prefetch(&active.index, lo)
                for s in range(self.count - 1):
                    bloom_prefetch(&self.segments[s].bloom, hi)
            row = selection[i] if selection != NULL else i
            memcpy(&lo, fingerprint + 16 * row, 8)
            memcpy(&hi, fingerprint + 16 * row + 8, 8)
            memcpy(&check, payload + 16 * row, 8)
            time_us = event_time_us[row]
            known = find(active, lo, hi, &place)
            for s in range(self.count - 2, -1, -1):
                if known != NULL:
                    break
                known = find_sealed(&self.segments[s], lo, hi, &self.looks, &read, error)
                if error[0]:
                    self.unreadable, self.reason = s, errno
                    return i
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
        Returns (new, duplicate, conflicting, late). Raises MemoryError, and OSError with the name of a file that
        cannot be read.
        """
        cdef int64_t counts[4]
        cdef int64_t done = 0
        cdef int error = 0
        memset(counts, 0, sizeof(counts))
        if self.count == 0:
            self._check(self._open(1, 0))
        elif self.segments[self.count - 1].sealed:  # restored without an active one
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

        The records are those in memory, and good until the next are asked for: nothing may be judged meanwhile. Those
        that are given at once (2^20 at most) are one chunk of the segment's file, if it has one. What a retired segment
        had learnt is not given.
        """
        cdef int s
        cdef Segment *segment
        cdef uint64_t taken, given
        for s in range(max(self.count - 1 - self.newly_sealed, 0), self.count):
            segment = &self.segments[s]
            while True:
                taken, given = segment.taken, min(segment.used - segment.taken, <uint64_t>CHUNK_RECORDS_MAX)
                if given:
                    self._begin_chunk(segment, taken)
                segment.taken += given
                records = PyMemoryView_FromMemory(
                    <char *>(segment.records + taken), given * sizeof(Record), PyBUF_READ
                )
                try:
                    yield segment.number, segment.slice_end_us, records
                finally:
                    records.release()
                if segment.taken == segment.used:
                    break
        self.newly_sealed = 0

    cdef int _begin_chunk(self, Segment *segment, uint64_t number) except -1:
        segment.starts = <uint32_t *>grown(segment.starts, (segment.chunks + 1) * sizeof(uint32_t))
        segment.starts[segment.chunks] = <uint32_t>number
        segment.chunks += 1
        return 0

    cdef Segment *_segment(self, int64_t number) except NULL:
        cdef int s
        for s in range(self.count):
            if self.segments[s].number == number:
                return &self.segments[s]
        raise ValueError(f"there is no segment {number}")

    def sealed_in_memory(self):
        """Numbers of the sealed segments that are in memory, oldest first."""
        return [
            self.segments[s].number for s in range(self.count)
            if self.segments[s].sealed and not self.segments[s].is_filed
        ]

    def packed(self, int64_t number):
        """The index of a sealed segment in memory: places in its table, its entries (8 bytes each) and its directory
        (4 bytes each). They are good until `leave_memory`.
        """
        cdef Segment *segment = self._segment(number)
        if not segment.sealed or segment.is_filed:
            raise ValueError(f"segment {number} has no packed index in memory")
        entries = PyMemoryView_FromMemory(<char *>segment.packed.entries, segment.packed.used * 8, PyBUF_READ)
        firsts = PyMemoryView_FromMemory(
            <char *>segment.packed.firsts, packed_first_bytes(&segment.packed), PyBUF_READ
        )
        return segment.packed.mask + 1, entries, firsts

    def leave_memory(self, int64_t number, tuple where, files):
        """A sealed segment, all of which `take_journal` has given, is in its file, and what `packed` gave of it in
        another: both are read there from now on.

        `where`: descriptors of the two, and where entries and directory begin in the second. `files` keeps them open,
        and is their name as text. Raises ValueError.
        """
        cdef Segment *segment = self._segment(number)
        if segment.taken < segment.used or not segment.sealed or segment.is_filed:
            raise ValueError(f"segment {number} cannot leave memory")
        table_free(segment.records, segment.room * sizeof(Record))
        segment.records, segment.room = NULL, 0
        packed_close(&segment.packed)
        self._read_from(segment, segment.packed.mask, where, files)

    cdef int _read_from(self, Segment *segment, uint64_t mask, tuple where, files) except -1:
        cdef Filed *filed = &segment.filed
        filed.records, filed.index, filed.entries_at, filed.firsts_at = where
        filed.mask = mask
        segment.is_filed = True
        self.files[segment.number] = files
        return 0

    def take_retired(self):
        """Numbers of the segments that the horizon has passed since the last call."""
        retired, self.retired = self.retired, []
        return retired

    def restore(self, int64_t number, int64_t sealed_at_us, int64_t records_max, chunks, filed=None):
        """Loads one segment; oldest first, the active one (`sealed_at_us` -1) last.

        `chunks`: buffers of whole 24-byte records, read one after the other, which are the chunks of the file if there
        is one; together `records_max` at most, for which there is room from the start. `filed`: of a sealed one that
        need not come into memory, the places of its index, and what `leave_memory` takes, which is believed; None: it
        comes into memory. Raises ValueError, MemoryError, and what `chunks` raises.
        """
        cdef const unsigned char[::1] chunk
        cdef Segment *segment
        cdef int error = 0
        if records_max >= NUMBERS_MAX:
            raise ValueError("a segment holds less than 2^28 - 1 records")
        if self.count and not self.segments[self.count - 1].sealed:
            raise ValueError("segments are restored oldest first, the active one last")
        self._check(self._open(number, 0 if filed else records_max + 1))
        segment = &self.segments[self.count - 1]
        if sealed_at_us >= 0:
            segment.slice_end_us = sealed_at_us
            self._check(bloom_open(&segment.bloom, records_max))
        if filed:
            index_close(&segment.index)
            segment.index.entries = NULL
            places, where, files = filed
            self._read_from(segment, places - 1, where, files)
            segment.sealed = True
        for chunk in chunks:
            if chunk.shape[0] % <int64_t>sizeof(Record):
                raise ValueError("a segment's records must be whole")
            if chunk.shape[0]:
                self._begin_chunk(segment, segment.used)
                with nogil:
                    error = load(segment, <const char *>&chunk[0], chunk.shape[0] // <int64_t>sizeof(Record))
                self._check(error)
        segment.taken = segment.used
        if sealed_at_us >= 0 and not filed:
            with nogil:
                error = pack(segment)
            self._check(error)

    def restore_watermark(self, int64_t watermark_us):
        self.watermark_us = watermark_us

    def filtering(self):
        """What the filters of sealed segments were asked since the start: (lookups, "look closer", of those found)."""
        return self.looks.lookups, self.looks.passed, self.looks.found

    def __len__(self):
        cdef int i
        cdef int64_t total = 0
        for i in range(self.count):
            total += self.segments[i].used
        return total

    def memory_bytes(self):
        """Bytes held by records, indexes and filters."""
        cdef int s
        cdef Segment *segment
        cdef uint64_t total = 0
        for s in range(self.count):
            segment = &self.segments[s]
            total += bloom_bytes(&segment.bloom) + segment.chunks * sizeof(uint32_t)
            if not segment.is_filed:
                total += segment.used * sizeof(Record)
            if not segment.sealed:
                total += index_bytes(&segment.index)
            elif not segment.is_filed:
                total += packed_entry_bytes(&segment.packed) + packed_first_bytes(&segment.packed)
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
