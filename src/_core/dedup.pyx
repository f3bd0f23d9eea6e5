"""Exact deduplication over a horizon: which rows are new, duplicate, conflicting or late.

Memory: segments (segment.pxd), newest last. The newest is active; when a slice of the horizon ends (or the segment
holds its maximum), it is sealed, which costs nothing. The records of all in memory are in one ring (records.pxd) and
one index (lines.pxd): 24 and 11 to 22 bytes an id, up to 32 where ids pass through a horizon. One that has left for its
files, which it is given open, takes 3.

Time: everything that depends on the watermark happens at the row where the watermark moves, never at the end of a
batch, so that the verdicts are the same for every way of cutting the stream into batches.

Cost: one cache miss a row, prefetched, and one for each segment in files: 25 to 45 ns a row, and while the set grows as
much again for memory that was never touched before, as far as `ahead` was not asked in time (benchmarks/dedup.py).

Proved by: tests/parity/test_dedup.py against tests/oracle/dedup.py (a dict).
"""

from cpython.buffer cimport PyBUF_READ
from cpython.memoryview cimport PyMemoryView_FromMemory
from libc.errno cimport errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.string cimport memcpy, memset, strerror

from .bloom cimport bloom_bytes, bloom_open, bloom_prefetch
from .filed cimport Filed
from .index cimport NUMBERS_MAX
from .int128 cimport int64_add_saturating
from .lines cimport (
    FETCHED, Lines, lines_ahead, lines_bytes, lines_bytes_soon, lines_close, lines_fetch_ahead, lines_find, lines_fit,
    lines_make_room, lines_open, lines_put,
)
from .memory cimport grown, touch as touch_pages
from .packed cimport packed_close, packed_entry_bytes, packed_first_bytes, packed_open
from .records cimport (
    BLOCK_BITS, BLOCK_RECORDS, COUNTED_MAX, Record, Records, block_bytes, record_at, records_add, records_ahead,
    records_close, records_drop, records_let_go, records_live, records_release, records_room,
)
from .segment cimport (
    UNREADABLE, Looks, Segment, filter_read, filter_records, find_filed, segment_close, segment_open
)
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

NEW, DUPLICATE, CONFLICTING, LATE = 0, 1, 2, 3
RECORDS_MAX = COUNTED_MAX - BLOCK_RECORDS

cdef enum:
    V_NEW = 0
    V_DUPLICATE = 1
    V_CONFLICTING = 2
    V_LATE = 3
    SEGMENTS_MAX = 1280  # dedup.generations may be 1000; the rest is for segments that fill up within a slice

# ---- The set ------------------------------------------------------------------------------------------------------

cdef class FingerprintSet:
    """All fingerprints of one shard within the horizon.

    `horizon_us` < 0 is unbounded. `slice_us` is the length of a generation; `segment_ids_max` bounds the active segment
    (an entry of a packed index numbers its records in 28 bits). `retiring` is called with each segment that the horizon
    has passed: its number, the watermark at which it was sealed, how many records it has, and buffers of them, each
    good until the next is asked for; None if they are in its file. Another thread may go through them, until `let_go`,
    or until `retiring` returns from the next call.
    """

    cdef Records records  # of the segments in memory, oldest first
    cdef Lines lines  # of them
    cdef uint64_t *entries_told  # of them, by `ahead`
    cdef uint64_t places_told  # of blocks of records, which `release` may give back unused
    cdef Segment segments[SEGMENTS_MAX]
    cdef int count
    cdef int filed[SEGMENTS_MAX]  # places of those in files, the newest first
    cdef int filed_count
    cdef public int64_t horizon_us
    cdef readonly int64_t slice_us
    cdef readonly int64_t segment_ids_max
    cdef readonly int64_t watermark_us
    cdef int newly_sealed  # segments, the newest but the active one, that `take_journal` has not told of
    cdef list retired
    cdef object retiring
    cdef Looks looks
    cdef dict files  # by segment number: what keeps its files open, and names them
    cdef int unreadable  # the place of the segment whose file could not be read
    cdef int reason  # its errno

    def __cinit__(self, int64_t horizon_us, int64_t slice_us, int64_t segment_ids_max=1 << 26, retiring=None):
        if slice_us <= 0:
            raise ValueError("slice_us must be positive")
        if not 0 < segment_ids_max < NUMBERS_MAX:
            raise ValueError("segment_ids_max must be positive and below 2^28 - 1")
        self.horizon_us = horizon_us
        self.slice_us = slice_us
        self.segment_ids_max = segment_ids_max
        self.watermark_us = -1
        self.entries_told = NULL
        self.places_told = 0
        self.count = self.filed_count = 0
        self.newly_sealed = 0
        memset(&self.records, 0, sizeof(Records))
        memset(&self.lines, 0, sizeof(Lines))
        memset(&self.looks, 0, sizeof(Looks))
        self.retired = []
        self.retiring = retiring
        self.files = {}

    def __dealloc__(self):
        cdef int i
        for i in range(self.count):
            segment_close(&self.segments[i])
        lines_close(&self.lines)
        records_close(&self.records)

    # -- segments

    cdef int _open(self, int64_t number) noexcept nogil:
        """Begins another segment, and the ring and the index with the first."""
        if self.count == SEGMENTS_MAX:
            return -2
        if self.lines.entries == NULL and lines_open(&self.lines, 0):
            return -1
        segment_open(&self.segments[self.count], number, self.records.end)
        self.count += 1
        return 0

    cdef int _room(self) noexcept nogil:
        """For one more record and its entry."""
        if self.lines.used >= self.lines.room and lines_make_room(&self.lines, &self.records):
            return -1
        return records_room(&self.records)

    cdef int _seal(self) except -1:
        """Ends the active segment at the present watermark, opens the next, and retires what the horizon has passed."""
        cdef Segment *active = &self.segments[self.count - 1]
        cdef int64_t number = active.number
        active.slice_end_us = self.watermark_us
        active.sealed = True
        self.newly_sealed += 1
        while (
            self.count > 0 and self.horizon_us >= 0
            and self.segments[0].slice_end_us < self.watermark_us - self.horizon_us
        ):
            self._retire()
        self.newly_sealed = min(self.newly_sealed, self.count)
        self._check(self._open(number + 1))
        return 0

    cdef int _retire(self) except -1:
        cdef Segment *oldest = &self.segments[0]
        if self.retiring is not None:
            records = None if oldest.is_filed else self._views(self._places(oldest.first, oldest.used))
            self.retiring(oldest.number, oldest.slice_end_us, oldest.used, records)
            records_let_go(&self.records)
            self.records.are_read = records is not None
        self.retired.append(oldest.number)
        self.files.pop(oldest.number, None)
        if not oldest.is_filed:
            records_drop(&self.records, oldest.first + oldest.used)
        segment_close(oldest)
        self.count -= 1
        for i in range(self.count):
            self.segments[i] = self.segments[i + 1]
        self._note_files()
        return 0

    cdef list _places(self, uint64_t first, uint64_t count):
        """Where so many records in memory are, block by block: address, and how many."""
        cdef uint64_t given, end = first + count
        cdef list places = []
        while first < end:
            given = min(end - first, BLOCK_RECORDS - (first & (BLOCK_RECORDS - 1)))
            places.append((<uintptr_t>record_at(&self.records, first), given))
            first += given
        return places

    def _views(self, list places):
        """Buffers of these records, each good until the next is asked for. Whoever goes through them holds the set."""
        for address, count in places:
            records = PyMemoryView_FromMemory(<char *><uintptr_t>address, count * sizeof(Record), PyBUF_READ)
            try:
                yield records
            finally:
                records.release()

    def let_go(self):
        """Nobody goes through the records of retired segments any more."""
        records_let_go(&self.records)

    cdef object _view(self, uint64_t first, uint64_t count):
        """A buffer of records in memory that are in one block."""
        return PyMemoryView_FromMemory(
            <char *>record_at(&self.records, first), count * sizeof(Record), PyBUF_READ
        )

    cdef void _note_files(self) noexcept nogil:
        cdef int s
        self.filed_count = 0
        for s in range(self.count - 1, -1, -1):
            if self.segments[s].is_filed:
                self.filed[self.filed_count] = s
                self.filed_count += 1

    cdef int _check(self, int error) except -1:
        if error == -1:
            raise MemoryError("no memory for the fingerprints of a shard")
        if error == -2:
            raise MemoryError(f"more than {SEGMENTS_MAX} segments of fingerprints; use a shorter dedup.horizon")
        if error == UNREADABLE:
            name = str(self.files[self.segments[self.unreadable].number])
            raise OSError(self.reason, strerror(self.reason).decode(), name)
        if error:
            raise MemoryError("too many fingerprints in memory for one shard; use more shards")
        return 0

    # -- the kernel

    cdef int64_t _slice_end(self) noexcept nogil:
        """When the slice of the horizon ends that the watermark is in."""
        return int64_add_saturating(self.watermark_us - self.watermark_us % self.slice_us, self.slice_us)

    cdef int64_t _run(
        self, int64_t first, int64_t rows, const uint32_t *selection, const char *fingerprint, const char *payload,
        const int64_t *event_time_us, uint8_t *verdicts, int64_t *counts, int *error,
    ) noexcept nogil:
        """Judges rows from `first` on; stops (and returns where) before the row at which the active segment must be
        sealed."""
        cdef int64_t i, row, time_us, slice_end_us = self._slice_end()
        cdef uint64_t lo, hi, check, place = 0
        cdef Segment *active = &self.segments[self.count - 1]
        cdef const Record *known
        cdef Record read  # of a file
        cdef int n
        for i in range(first, rows):
            if (i - first) % FETCHED == 0:
                lines_fetch_ahead(&self.lines, fingerprint, 16, selection, i, first, rows)
                if self.filed_count:
                    self._fetch_filters(fingerprint, selection, i, first, rows)
            row = selection[i] if selection != NULL else i
            memcpy(&lo, fingerprint + 16 * row, 8)
            memcpy(&hi, fingerprint + 16 * row + 8, 8)
            memcpy(&check, payload + 16 * row, 8)
            time_us = event_time_us[row]
            known = lines_find(&self.lines, &self.records, lo, hi, &place)
            for n in range(self.filed_count):
                if known != NULL:
                    break
                known = find_filed(&self.segments[self.filed[n]], lo, hi, &self.looks, &read, error)
                if error[0]:
                    self.unreadable, self.reason = self.filed[n], errno
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
                or (self.horizon_us >= 0 and time_us >= slice_end_us)
            ):
                return i  # the caller seals, and this row comes again
            if time_us > self.watermark_us:
                self.watermark_us = time_us
                if time_us >= slice_end_us:
                    slice_end_us = self._slice_end()
            verdicts[i] = V_NEW
            counts[V_NEW] += 1
            error[0] = self._learn(active, place, lo, hi, check)
            if error[0]:
                return i
        return rows

    cdef void _fetch_filters(
        self, const char *fingerprint, const uint32_t *selection, int64_t row, int64_t first, int64_t end
    ) noexcept nogil:
        """As `lines_fetch_ahead`: what is asked of the filters of segments in files."""
        cdef int64_t n, begin = row if row == first else row + FETCHED
        cdef uint64_t hi
        cdef int f
        for n in range(begin, min(row + 2 * FETCHED, end)):
            memcpy(&hi, fingerprint + 16 * (selection[n] if selection != NULL else n) + 8, 8)
            for f in range(self.filed_count):
                bloom_prefetch(&self.segments[self.filed[f]].bloom, hi)

    cdef inline int _learn(
        self, Segment *active, uint64_t place, uint64_t lo, uint64_t hi, uint64_t check
    ) noexcept nogil:
        """Adds a record at the place of the index that `lines_find` gave, and makes room for the next."""
        lines_put(&self.lines, place, lo, self.records.end)
        active.used += 1
        if records_add(&self.records, lo, hi, check) or self.lines.used >= self.lines.room:
            return self._room()
        return 0

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
            self._check(self._open(1))
        elif self.segments[self.count - 1].sealed:  # restored without an active one
            self._check(self._open(self.segments[self.count - 1].number + 1))
        self._check(self._room())
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

    def ahead(self):
        """Memory that is about to be filled for the first time: address and bytes of each piece, told once."""
        cdef list pieces = []
        cdef uint64_t place = self.records.end >> BLOCK_BITS
        cdef uint64_t *entries = lines_ahead(&self.lines, &self.records)
        cdef Record *block = records_ahead(&self.records) if place >= self.places_told else NULL
        if block != NULL:
            self.places_told = place + 1
            pieces.append((<uintptr_t>block, block_bytes()))
        if entries != NULL and entries != self.entries_told:
            self.entries_told = entries
            pieces.append((<uintptr_t>entries, lines_bytes(&self.lines)))
        return pieces

    @staticmethod
    def touch(uintptr_t address, uint64_t bytes):
        """Makes memory ready that `ahead` has told; any thread may, whatever has become of it."""
        with nogil:
            touch_pages(<void *>address, bytes)

    # -- what the state directory keeps

    def take_journal(self):
        """What was learnt since the last call: gives (segment number, sealed at watermark or -1, 24-byte records) of
        each segment that has learnt or was sealed, and of the active one.

        The records are those in memory, and good until the next are asked for: nothing may be judged meanwhile. Those
        that are given at once (2^18 at most, and of one block) are one chunk of the segment's file, if it has one. What
        a retired segment had learnt is not given.
        """
        cdef int s
        cdef Segment *segment
        cdef uint64_t taken, given, in_block
        for s in range(max(self.count - 1 - self.newly_sealed, 0), self.count):
            segment = &self.segments[s]
            while True:
                taken = segment.taken
                in_block = BLOCK_RECORDS - ((segment.first + taken) & (BLOCK_RECORDS - 1))
                given = min(segment.used - taken, in_block)
                if given:
                    self._begin_chunk(segment, taken)
                segment.taken += given
                records = self._view(segment.first + taken, given)
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

    cdef Segment *_oldest_in_memory(self, int64_t number) except NULL:
        cdef Segment *segment = self._segment(number)
        if not segment.sealed or segment.is_filed or segment.first != self.records.first:
            raise ValueError(f"segment {number} is not the oldest that is sealed and in memory")
        if self.records.are_read:
            raise ValueError("a segment leaves memory only when `let_go` was called for those that have retired")
        return segment

    def packed(self, int64_t number):
        """Makes the index of the oldest sealed segment in memory: places in its table, its entries (8 bytes each) and
        its directory (4 bytes each). They are good until `leave_memory`.
        """
        cdef Segment *segment = self._oldest_in_memory(number)
        cdef int error = 0
        if segment.packed.entries == NULL:
            with nogil:
                error = packed_open(&segment.packed, &self.records, segment.first, segment.used)
            self._check(error)
        entries = PyMemoryView_FromMemory(<char *>segment.packed.entries, segment.packed.used * 8, PyBUF_READ)
        firsts = PyMemoryView_FromMemory(
            <char *>segment.packed.firsts, packed_first_bytes(&segment.packed), PyBUF_READ
        )
        return segment.packed.mask + 1, entries, firsts

    def leave_memory(self, int64_t number, tuple where, files):
        """The oldest sealed segment in memory, all of which `take_journal` has given, is in its file, and what `packed`
        gave of it in another: both are read there from now on.

        `where`: descriptors of the two, and where entries and directory begin in the second. `files` keeps them open,
        and is their name as text. Raises ValueError, MemoryError.
        """
        cdef Segment *segment = self._oldest_in_memory(number)
        cdef int error
        if segment.taken < segment.used or segment.packed.entries == NULL:
            raise ValueError(f"segment {number} is not in its files")
        packed_close(&segment.packed)
        with nogil:
            error = filter_records(segment, &self.records)
        self._check(error)
        records_drop(&self.records, segment.first + segment.used)
        self._read_from(segment, segment.packed.mask, where, files)
        with nogil:
            error = lines_fit(&self.lines, &self.records)
        self._check(error)

    cdef int _read_from(self, Segment *segment, uint64_t mask, tuple where, files) except -1:
        cdef Filed *filed = &segment.filed
        filed.records, filed.index, filed.entries_at, filed.firsts_at = where
        filed.mask = mask
        segment.is_filed = True
        self.files[segment.number] = files
        self._note_files()
        return 0

    def release(self, uint64_t bytes_max):
        """Gives memory back that waits to be filled again, as far as all of it would be more than so many bytes."""
        cdef uint64_t held = self.memory_bytes()
        records_release(&self.records, (bytes_max - min(held, bytes_max)) // block_bytes())

    def take_retired(self):
        """Numbers of the segments that the horizon has passed since the last call."""
        retired, self.retired = self.retired, []
        return retired

    def restore(self, int64_t number, int64_t sealed_at_us, int64_t records_max, chunks, filed=None):
        """Loads one segment; oldest first, the active one (`sealed_at_us` -1) last.

        `chunks`: buffers of whole 24-byte records, read one after the other, which are the chunks of the file if there
        is one; together `records_max` at most. `filed`: of a sealed one that
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
        self._check(self._open(number))
        segment = &self.segments[self.count - 1]
        if sealed_at_us >= 0:
            segment.slice_end_us = sealed_at_us
            segment.sealed = True
        if filed:
            places, where, files = filed
            self._read_from(segment, places - 1, where, files)
            self._check(bloom_open(&segment.bloom, records_max))
        elif self.lines.used == 0:  # of the first, all of the index is made at once
            lines_close(&self.lines)
            self._check(lines_open(&self.lines, records_max + 1))
        for chunk in chunks:
            if chunk.shape[0] % <int64_t>sizeof(Record):
                raise ValueError("a segment's records must be whole")
            if chunk.shape[0]:
                self._begin_chunk(segment, segment.used)
                with nogil:
                    error = self._load(segment, <const char *>&chunk[0], chunk.shape[0] // <int64_t>sizeof(Record))
                self._check(error)
        segment.taken = segment.used

    cdef int _load(self, Segment *segment, const char *read, int64_t count) noexcept nogil:
        """Takes so many more records up: into the filter of a segment in files, or into memory."""
        cdef int64_t n
        cdef uint64_t place = 0
        cdef Record record
        cdef int error = 0
        if segment.is_filed:
            filter_read(segment, read, count)
            return 0
        error = self._room()
        for n in range(count):
            if error:
                return error
            if n % FETCHED == 0:
                lines_fetch_ahead(&self.lines, read, sizeof(Record), NULL, n, 0, count)
            memcpy(&record, read + n * <int64_t>sizeof(Record), sizeof(Record))
            if lines_find(&self.lines, &self.records, record.lo, record.hi, &place) == NULL:
                error = self._learn(segment, place, record.lo, record.hi, record.payload)
        return error

    def restore_watermark(self, int64_t watermark_us):
        self.watermark_us = watermark_us

    def filtering(self):
        """What the filters of segments in files were asked: (lookups, "look closer", of those found)."""
        return self.looks.lookups, self.looks.passed, self.looks.found

    def __len__(self):
        cdef int i
        cdef int64_t total = 0
        for i in range(self.count):
            total += self.segments[i].used
        return total

    def records_in_memory(self):
        """Fingerprints that are in no file from which they are read; RECORDS_MAX at most."""
        return records_live(&self.records)

    def memory_bytes(self):
        """Bytes of records, filters and the index (as it will be, if it is about to double), without blocks that wait
        to be filled again (`release`).
        """
        cdef int s
        cdef Segment *segment
        cdef uint64_t total = lines_bytes_soon(&self.lines, &self.records)
        total += records_live(&self.records) * sizeof(Record) + self.records.lefts * block_bytes()
        for s in range(self.count):
            segment = &self.segments[s]
            total += bloom_bytes(&segment.bloom) + segment.chunks * sizeof(uint32_t)
            if segment.packed.entries != NULL:
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
