"""Quantity x price for every usage item of a batch, in integers.

Layout: a *class* is what the price book can tell apart: a number a row for each of the four narrowing dimensions, 0
where the book does not name the value. A combination of four classes is packed into 64 bits (customer 24, model 20,
region 10, service tier 10) and found in an open-addressing table; for each combination and book meter stands the
number of a *timeline*, a run of steps (from_us ascending, 128-bit rate), or UNPRICED or UNBILLED. A step is in
force from its instant on, that instant included, until the next.

Cost: about 6 ns a usage item. Proved by: tests/parity/test_rate.py against flow/oracle/rating.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free, malloc
from libc.string cimport memcpy

from .int128 cimport i128, i128_from_int64, i128_load, i128_mul, i128_store
from .hash cimport fmix64
from .memory cimport grown as _grown
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

PRICED, UNPRICED, UNBILLED = 0, 1, 2
CLASS_BITS = (24, 20, 10, 10)  # customer, model, region, service_tier

cdef enum:
    F_PRICED = 0
    F_UNPRICED = 1
    F_UNBILLED = 2
    T_UNPRICED = -1
    T_UNBILLED = -2
    MISSING_MAX = 65536

cdef enum:
    ERROR_OVERFLOW = 1

cdef struct Combination:
    uint64_t packed_plus_one  # 0 is an empty slot
    int64_t base  # into `timeline_of`

cdef struct Timeline:
    int64_t start
    int64_t steps


cdef inline uint64_t pack(int64_t customer, int64_t model, int64_t region, int64_t tier) noexcept nogil:
    return (<uint64_t>customer << 40) | (<uint64_t>model << 20) | (<uint64_t>region << 10) | <uint64_t>tier


cdef class RateTable:
    """A compiled price book: filled combination by combination as they are met, then only read."""

    cdef readonly int64_t meters  # book meters; number 0 is `requests`
    cdef Combination *table
    cdef uint64_t mask
    cdef int64_t used
    cdef int32_t *timeline_of
    cdef Timeline *timelines
    cdef int64_t timeline_count
    cdef int64_t *step_from_us
    cdef char *step_rate  # 16 bytes a step
    cdef int64_t step_count

    def __cinit__(self, int64_t meters):
        self.meters = meters
        self.mask = 1023
        self.table = <Combination *>calloc(self.mask + 1, sizeof(Combination))
        if self.table == NULL:
            raise MemoryError()

    def __dealloc__(self):
        free(self.table)
        free(self.timeline_of)
        free(self.timelines)
        free(self.step_from_us)
        free(self.step_rate)

    cdef Combination *_find(self, uint64_t packed) noexcept nogil:
        cdef uint64_t at = fmix64(packed) & self.mask
        while self.table[at].packed_plus_one and self.table[at].packed_plus_one != packed + 1:
            at = (at + 1) & self.mask
        return &self.table[at]

    def add_timeline(self, list from_us not None, bytes rates not None):
        """A run of steps: ascending instants and 16-byte little-endian rates; returns its number."""
        cdef int64_t n = len(from_us)
        cdef int64_t i
        if len(rates) != 16 * n:
            raise ValueError("one 16-byte rate a step is expected")
        self.timelines = <Timeline *>_grown(self.timelines, (self.timeline_count + 1) * sizeof(Timeline))
        self.step_from_us = <int64_t *>_grown(self.step_from_us, (self.step_count + n + 1) * sizeof(int64_t))
        self.step_rate = <char *>_grown(self.step_rate, (self.step_count + n + 1) * 16)
        for i in range(n):
            self.step_from_us[self.step_count + i] = from_us[i]
        memcpy(self.step_rate + 16 * self.step_count, <const char *>rates, 16 * n)
        self.timelines[self.timeline_count].start = self.step_count
        self.timelines[self.timeline_count].steps = n
        self.step_count += n
        self.timeline_count += 1
        return self.timeline_count - 1

    def add_combination(self, uint64_t packed, list timeline_of not None):
        """Says for one combination of classes which timeline each book meter has (-1 unpriced, -2 unbilled)."""
        cdef Combination *old
        cdef Combination *entry
        cdef uint64_t i, size
        if len(timeline_of) != self.meters:
            raise ValueError("one timeline a book meter is expected")
        if packed + 1 == 0:
            raise ValueError("this combination of classes would look like an empty slot")
        if <uint64_t>(self.used + 1) * 2 > self.mask + 1:
            old, size = self.table, self.mask + 1
            self.table = <Combination *>calloc(size * 2, sizeof(Combination))
            if self.table == NULL:
                self.table = old
                raise MemoryError()
            self.mask = size * 2 - 1
            for i in range(size):
                if old[i].packed_plus_one:
                    entry = self._find(old[i].packed_plus_one - 1)
                    entry[0] = old[i]
            free(old)
        entry = self._find(packed)
        if entry.packed_plus_one:
            raise ValueError("this combination is known already")
        self.timeline_of = <int32_t *>_grown(self.timeline_of, (self.used + 1) * self.meters * sizeof(int32_t))
        for i in range(<uint64_t>self.meters):
            self.timeline_of[self.used * self.meters + i] = timeline_of[i]
        entry.packed_plus_one = packed + 1
        entry.base = self.used * self.meters
        self.used += 1

    # -- the kernel

    cdef int _rate(
        self, int64_t base, int32_t meter, int64_t quantity, int64_t time_us, char *amount, uint8_t *flag
    ) noexcept nogil:
        cdef int32_t number = self.timeline_of[base + meter] if meter >= 0 else T_UNPRICED
        cdef Timeline line
        cdef int64_t step
        cdef i128 product
        i128_store(amount, i128_from_int64(0))
        if number < 0:
            flag[0] = F_UNBILLED if number == T_UNBILLED else F_UNPRICED
            return 0
        line = self.timelines[number]
        step = line.start + line.steps - 1
        while step >= line.start and self.step_from_us[step] > time_us:
            step -= 1
        if step < line.start:
            flag[0] = F_UNPRICED
            return 0
        if i128_mul(quantity, i128_load(self.step_rate + 16 * step), &product):
            return ERROR_OVERFLOW
        i128_store(amount, product)
        flag[0] = F_PRICED
        return 0

    def rate(
        self, int64_t rows, uintptr_t selection, uintptr_t event_time_us, tuple dim_index, tuple dim_class,
        uintptr_t usage_offsets, uintptr_t meter_index, uintptr_t meter_map, uintptr_t quantities,
        uintptr_t amounts, uintptr_t flags, uintptr_t request_amounts, uintptr_t request_flags,
    ):
        """Rates the selected rows; returns the packed combinations that are not known yet (then nothing is to be used).

        `selection` uint32 [rows] or 0. `dim_index`, `dim_class`: int32 code a row and int32 class a dictionary value,
        for customer, model, region, service_tier. `meter_map` int32 a dictionary value: the book meter's number, -1
        where the book has none. `amounts` (16 bytes) and `flags` (uint8) per usage item; `request_amounts`,
        `request_flags` per row of the batch. Raises OverflowError.
        """
        cdef const int32_t *index[4]
        cdef const int32_t *classes[4]
        cdef const uint32_t *chosen = <const uint32_t *>selection
        cdef const int64_t *time_us = <const int64_t *>event_time_us
        cdef const int32_t *starts = <const int32_t *>usage_offsets
        cdef const int32_t *meter = <const int32_t *>meter_index
        cdef const int32_t *book_meter = <const int32_t *>meter_map
        cdef const int64_t *quantity = <const int64_t *>quantities
        cdef char *amount = <char *>amounts
        cdef uint8_t *flag = <uint8_t *>flags
        cdef char *request_amount = <char *>request_amounts
        cdef uint8_t *request_flag = <uint8_t *>request_flags
        cdef int64_t i, j, d, row, missing_count = 0
        cdef uint64_t packed, last = 0
        cdef int64_t base = -1
        cdef bint have_last = False
        cdef Combination *entry
        cdef int error = 0
        cdef uint64_t *missing = <uint64_t *>malloc(MISSING_MAX * sizeof(uint64_t))
        if missing == NULL:
            raise MemoryError()
        for d in range(4):
            index[d] = <const int32_t *><uintptr_t>dim_index[d]
            classes[d] = <const int32_t *><uintptr_t>dim_class[d]
        with nogil:
            for i in range(rows):
                row = chosen[i] if chosen != NULL else i
                packed = pack(
                    classes[0][index[0][row]], classes[1][index[1][row]], classes[2][index[2][row]],
                    classes[3][index[3][row]],
                )
                if not have_last or packed != last:
                    entry = self._find(packed)
                    base = entry.base if entry.packed_plus_one else -1
                    last = packed
                    have_last = True
                if base < 0:
                    if missing_count < MISSING_MAX:
                        missing[missing_count] = packed
                        missing_count += 1
                    continue
                for j in range(starts[row], starts[row + 1]):
                    error = self._rate(base, book_meter[meter[j]], quantity[j], time_us[row], amount + 16 * j, flag + j)
                    if error:
                        break
                if not error:
                    error = self._rate(base, 0, 1, time_us[row], request_amount + 16 * row, request_flag + row)
                if error:
                    break
        try:
            if error:
                raise OverflowError(f"quantity x rate does not fit in 128 bits at row {row} of the batch")
            unknown = {missing[i] for i in range(missing_count)}
            return list(unknown)
        finally:
            free(missing)
