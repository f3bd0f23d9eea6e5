"""Grouped 128-bit sums: rated events into one row a (dimensions, meters, window), and those rows out in the store's
order.

Memory: a *shape* is the ordered list of an event's meters, each with or without a price; events of one shape and one
set of dimensions share a *key*. The sums of a key and window are a record of groups.pxd. The first amount belongs to
the implicit meter `requests`, whose quantity is the number of events. A row of the store has four slots of meters, so
a record leaves as 1 + k // 4 rows, each under a 128-bit key of its own (dimensions, currency, its slots' meters).

Cost: about 45 ns an event with three meters, of which most are cache misses; 100 ns a row leaving. Rows are taken 32
at a time: hash and prefetch the entries, find and prefetch the records, then add. Proved by:
tests/parity/test_combine.py against tests/oracle/combine.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy

from .groups cimport (
    ERROR_MEMORY, HEADER, Entry, Groups, Record, add_at, entry_hash, groups_begin, groups_clear,
    groups_close, groups_find, groups_open, groups_reserve, record_at, record_bytes,
)
from .hash cimport hash_pair, murmur3
from .int128 cimport (
    i128, i128_from_int64, i128_load, i128_store, prefetch, u128, u128_hi, u128_less, u128_lo, u128_load, u128_store,
    u128_wrapping_add,
)
from .leaving cimport Leaving, bits, sort_leaving
from .keys cimport Coarse, Key, Keys, key_number, keys_close, keys_open, keys_reserve
from .memory cimport grown
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

SLOTS = 4
METERS_PER_EVENT_MAX = 1024

cdef enum:
    STORE_SLOTS = 4
    METERS_MAX = 1024
    RAW_SHAPES_MAX = 4096  # 25 MB; a producer that shuffles its meters has as many orders as it has events
    BLOCK = 32
    FLAG_UNPRICED = 1

cdef struct Shape:
    int32_t meters
    int32_t groups  # rows of the store a record leaves as
    int64_t totals  # where its totals begin

cdef struct RawShape:
    uint32_t count
    uint32_t items[METERS_MAX]  # meter << 1 | unpriced, as they stand in the event
    uint16_t place[METERS_MAX]  # where each goes in the shape
    uint32_t shape

cdef struct Batch:  # what `add` is given
    int64_t rows
    const uint32_t *selection
    const int64_t *time_us
    const char *fingerprint
    const char *payload
    const char *dims
    const char *coarse
    const int32_t *starts
    const int32_t *meter
    const int32_t *number
    const int64_t *quantity
    const char *amount
    const uint8_t *flag
    const char *request_amount

cdef struct Run:  # rows that go through the tables together
    int64_t rows
    bint unknown  # the row behind these has an unknown shape
    int64_t raw_number  # of the row before: shapes come in runs
    int64_t row[BLOCK]
    int64_t raw[BLOCK]
    int64_t place[BLOCK]
    uint64_t hashed[BLOCK]
    uint32_t window[BLOCK]
    u128 digest[BLOCK]

cdef extern from *:
    """
    /* What a row of the store may hold: with this, no sum of fewer than 2^27 blocks can wrap in its merges. */
    static inline int tf_fits_store(__int128 value) {
        const __int128 limit = (__int128)1 << 100;
        return value > -limit && value < limit;
    }
    """
    int fits_store "tf_fits_store"(i128 value) nogil


# ---- The combiner -------------------------------------------------------------------------------------------------

cdef class Combiner:
    """Sums rated events by minute until the block is cut, then gives the minute rows and the day rows, sorted.

    `currency_hash`: the 16-byte name hash that goes into every key.
    """

    cdef Groups minutes
    cdef Groups days
    cdef Keys keys
    cdef Shape *shapes
    cdef int64_t shape_count
    cdef RawShape *raw_shapes
    cdef readonly int64_t raw_count
    cdef uint32_t *raw_table  # raw shape + 1, by its items
    cdef uint64_t raw_mask
    cdef dict shape_by_meters
    cdef list shape_meters  # per shape: tuple of (meter, unpriced) in order
    cdef dict meter_numbers
    cdef list meter_names
    cdef list meter_hashes
    cdef list slot_hashes  # per shape: bytes, 16 a store row
    cdef bytes currency_hash
    cdef bytes requests_hash
    cdef bytes empty_hash
    cdef Leaving *leaving
    cdef Leaving *leaving_spare
    cdef int64_t leaving_count
    cdef uint32_t cuts
    cdef char *totals  # of the block, a shape after the other: events, quantities, amounts; 16 bytes each
    cdef int64_t totals_size

    def __cinit__(self, bytes currency_hash not None, bytes requests_hash not None, bytes empty_hash not None):
        if not (len(currency_hash) == len(requests_hash) == len(empty_hash) == 16):
            raise ValueError("hashes of 16 bytes are expected")
        if groups_open(&self.minutes) or groups_open(&self.days):
            raise MemoryError()
        self.currency_hash, self.requests_hash, self.empty_hash = currency_hash, requests_hash, empty_hash
        self._forget_keys()

    def __dealloc__(self):
        groups_close(&self.minutes)
        groups_close(&self.days)
        free(self.totals)
        keys_close(&self.keys)
        free(self.shapes)
        free(self.raw_shapes)
        free(self.raw_table)
        free(self.leaving)
        free(self.leaving_spare)

    cdef int _forget_keys(self) except -1:
        self.shape_count = self.raw_count = 0
        self.meter_names, self.meter_hashes, self.meter_numbers = [], [], {}
        self.shape_by_meters = {}
        self.shape_meters, self.slot_hashes = [], []
        self._index_raw_shapes(256)
        keys_close(&self.keys)
        if keys_open(&self.keys):
            raise MemoryError()
        return 0

    @property
    def key_count(self):
        """Keys that are known."""
        return self.keys.count

    @property
    def coarse_count(self):
        """Keys of the day rollup that are known: the same without project and model."""
        return self.keys.coarse_count

    def forget_keys(self):
        """Starts the tables of keys, shapes and meters anew; only between blocks. The keys in use are then told
        again, which is harmless."""
        if self.minutes.count:
            raise ValueError("keys can be forgotten only between two blocks")
        self._forget_keys()

    def meter_number(self, str name, bytes name_hash not None):
        """The number of a meter within this combiner, until `forget_keys`."""
        number = self.meter_numbers.get(name)
        if number is None:
            number = self.meter_numbers[name] = len(self.meter_names)
            self.meter_names.append(name)
            self.meter_hashes.append(name_hash)
        return number

    # -- shapes: rare, in Python

    cdef int _learn_shape(self, tuple items) except -1:
        """Remembers a raw sequence of (meter << 1 | unpriced), and the shape it is an ordering of."""
        cdef RawShape *raw
        cdef int i
        cdef int64_t k = len(items)
        order = sorted(range(k), key=lambda at: (self.meter_hashes[items[at] >> 1], items[at]))
        meters = tuple(items[at] for at in order)
        number = self.shape_by_meters.get(meters)
        if number is None:
            number = self.shape_count
            self.shapes = <Shape *>grown(self.shapes, (number + 1) * sizeof(Shape))
            self.shapes[number].meters = k
            self.shapes[number].groups = 1 + k // STORE_SLOTS
            self.shape_by_meters[meters] = number
            self.shape_meters.append(meters)
            self.slot_hashes.append(self._slot_hashes(meters))
            self.shape_count += 1
        if self.raw_count == RAW_SHAPES_MAX:
            self.raw_count = 0
            self._index_raw_shapes(256)
        self.raw_shapes = <RawShape *>grown(self.raw_shapes, (self.raw_count + 1) * sizeof(RawShape))
        raw = &self.raw_shapes[self.raw_count]
        raw.count = k
        raw.shape = number
        for i in range(k):
            raw.items[i] = items[i]
            raw.place[order[i]] = i
        self.raw_count += 1
        if <uint64_t>self.raw_count * 2 > self.raw_mask:
            self._index_raw_shapes((self.raw_mask + 1) * 2)
        else:
            self.raw_table[self._raw_slot(raw.items, k)] = <uint32_t>self.raw_count
        return 0

    cdef int _index_raw_shapes(self, uint64_t size) except -1:
        cdef int64_t i
        free(self.raw_table)
        self.raw_table = <uint32_t *>calloc(size, sizeof(uint32_t))
        if self.raw_table == NULL:
            raise MemoryError()
        self.raw_mask = size - 1
        for i in range(self.raw_count):
            self.raw_table[self._raw_slot(self.raw_shapes[i].items, self.raw_shapes[i].count)] = <uint32_t>(i + 1)
        return 0

    def _slots(self, tuple meters):
        """The slots of a shape, four a store row, `requests` first: (name, hash, unpriced)."""
        slots = [("requests", self.requests_hash, False)]
        slots += [(self.meter_names[m >> 1], self.meter_hashes[m >> 1], bool(m & 1)) for m in meters]
        slots += [("", self.empty_hash, False)] * (-len(slots) % SLOTS)
        return [slots[i : i + SLOTS] for i in range(0, len(slots), SLOTS)]

    def _slot_hashes(self, tuple meters):
        parts = []
        for group in self._slots(meters):
            mask = sum(1 << j for j, (_, _, unpriced) in enumerate(group) if unpriced)
            described = b"".join([self.currency_hash, *(h for _, h, _ in group), mask.to_bytes(16, "little")])
            parts.append(_murmur(described))
        return b"".join(parts)

    cdef inline uint64_t _raw_slot(self, const uint32_t *items, int64_t k) noexcept nogil:
        """Where a raw sequence stands in `raw_table`, or the empty place where it belongs."""
        cdef uint64_t at = u128_lo(murmur3(items, 4 * k, 0, 0)) & self.raw_mask
        cdef RawShape *raw
        while self.raw_table[at]:
            raw = &self.raw_shapes[self.raw_table[at] - 1]
            if raw.count == k and memcmp(raw.items, items, 4 * k) == 0:
                break
            at = (at + 1) & self.raw_mask
        return at

    # -- keys

    def name_customers(self, int64_t first_key, uintptr_t codes, int64_t count):
        """Tells the customer (an int32 code of the caller's) of the keys from `first_key` on."""
        cdef const int32_t *code = <const int32_t *>codes
        cdef int64_t i
        if first_key + count != self.keys.count:
            raise ValueError("a customer must be named for each new key")
        for i in range(count):
            self.keys.keys[first_key + i].customer = code[i]

    # -- the kernel

    cdef int64_t _add(
        self, Batch *batch, int64_t first, uint32_t *new_rows, int64_t *new_count, int *error
    ) noexcept nogil:
        """Adds rows from `first` on; stops (and returns where) before a row whose shape is unknown."""
        cdef int64_t at = first
        cdef Run run
        run.raw_number = -1
        run.unknown = False
        while at < batch.rows and not run.unknown:
            self._look_up(batch, at, &run)
            error[0] = (
                groups_reserve(&self.minutes, run.rows, record_bytes(METERS_MAX)) or keys_reserve(&self.keys, run.rows)
            )
            if error[0]:
                return at
            self._place(batch, &run, new_rows, new_count)
            error[0] = self._sum(batch, &run)
            if error[0]:
                return at
            at += run.rows
        return at

    cdef void _look_up(self, Batch *batch, int64_t at, Run *run) noexcept nogil:
        """Rows from `at` on: shape, window, hash and digest of each; up to BLOCK of them, or to the first unknown
        shape."""
        cdef int64_t n = 0, j, k, row
        cdef uint32_t items[METERS_MAX]
        cdef uint64_t lo, hi
        while n < BLOCK and at + n < batch.rows:
            row = batch.selection[at + n] if batch.selection != NULL else at + n
            k = batch.starts[row + 1] - batch.starts[row]
            run.unknown = k > METERS_MAX  # which `add` refuses
            if run.unknown:
                break
            for j in range(k):
                items[j] = <uint32_t>(
                    batch.number[batch.meter[batch.starts[row] + j]] << 1
                    | (batch.flag[batch.starts[row] + j] == FLAG_UNPRICED)
                )
            if run.raw_number < 0 or self.raw_shapes[run.raw_number].count != k or memcmp(
                self.raw_shapes[run.raw_number].items, items, 4 * k
            ):
                run.raw_number = <int64_t>self.raw_table[self._raw_slot(items, k)] - 1
                run.unknown = run.raw_number < 0
                if run.unknown:
                    break
            run.row[n] = row
            run.raw[n] = run.raw_number
            run.window[n] = <uint32_t>(batch.time_us[row] // 60000000)
            memcpy(&lo, batch.dims + 16 * row, 8)
            memcpy(&hi, batch.dims + 16 * row + 8, 8)
            run.hashed[n] = entry_hash(lo, hi, self.raw_shapes[run.raw_number].shape, run.window[n])
            prefetch(&self.minutes.entries[run.hashed[n] & self.minutes.mask])
            run.digest[n] = hash_pair(u128_load(batch.fingerprint + 16 * row), u128_load(batch.payload + 16 * row))
            n += 1
        run.rows = n

    cdef void _place(self, Batch *batch, Run *run, uint32_t *new_rows, int64_t *new_count) noexcept nogil:
        """The record of each row, begun where there is none. Room must have been reserved."""
        cdef int64_t n, row
        cdef uint64_t lo, hi
        cdef uint32_t key
        cdef bint is_new
        cdef Entry *entry
        cdef RawShape *raw
        for n in range(run.rows):
            row = run.row[n]
            raw = &self.raw_shapes[run.raw[n]]
            memcpy(&lo, batch.dims + 16 * row, 8)
            memcpy(&hi, batch.dims + 16 * row + 8, 8)
            entry = groups_find(&self.minutes, run.hashed[n], lo, hi, raw.shape, run.window[n])
            if entry.place_plus_one:
                run.place[n] = entry.place_plus_one - 1
            else:
                key = key_number(&self.keys, lo, hi, raw.shape, batch.coarse + 16 * row, &is_new)
                if is_new:
                    new_rows[new_count[0]] = <uint32_t>row
                    new_count[0] += 1
                run.place[n] = groups_begin(
                    &self.minutes, entry, lo, hi, raw.shape, run.window[n], key, record_bytes(raw.count)
                )
            prefetch(self.minutes.records + run.place[n])
            prefetch(self.minutes.records + run.place[n] + 64)

    cdef int _sum(self, Batch *batch, Run *run) noexcept nogil:
        """Adds each row to its record."""
        cdef int64_t n, j, k, row, item
        cdef RawShape *raw
        cdef Record *record
        cdef char *sums
        cdef int error = 0
        for n in range(run.rows):
            row = run.row[n]
            raw = &self.raw_shapes[run.raw[n]]
            k = raw.count
            record = <Record *>(self.minutes.records + run.place[n])
            sums = <char *>record + HEADER
            record.events += 1
            u128_store(record.digest, u128_wrapping_add(u128_load(record.digest), run.digest[n]))
            for j in range(k):
                item = batch.starts[row] + j
                error |= add_at(sums + 16 * raw.place[j], i128_from_int64(batch.quantity[item]))
                error |= add_at(sums + 16 * (k + 1 + raw.place[j]), i128_load(batch.amount + 16 * item))
            error |= add_at(sums + 16 * k, i128_load(batch.request_amount + 16 * row))
        return error

    def add(
        self, int64_t rows, uintptr_t selection, uintptr_t event_time_us, uintptr_t fingerprint, uintptr_t payload,
        uintptr_t dims, uintptr_t coarse, uintptr_t usage_offsets, uintptr_t meter_index, uintptr_t meter_numbers,
        uintptr_t quantities, uintptr_t amounts, uintptr_t flags, uintptr_t request_amounts, uintptr_t new_rows,
    ):
        """Adds the selected rows to their windows.

        `meter_numbers`: int32 a value of the meter dictionary, from `meter_number`. `amounts`, `flags`,
        `request_amounts` as the rate kernel wrote them. Returns how many keys are new; the uint32 row of the first
        event of each is in `new_rows` [rows], and `name_customers` must follow. Raises OverflowError and MemoryError.
        """
        cdef int64_t done = 0, new_count = 0, row, j
        cdef int error = 0
        cdef Batch batch
        batch.rows = rows
        batch.selection = <const uint32_t *>selection
        batch.time_us = <const int64_t *>event_time_us
        batch.fingerprint = <const char *>fingerprint
        batch.payload = <const char *>payload
        batch.dims = <const char *>dims
        batch.coarse = <const char *>coarse
        batch.starts = <const int32_t *>usage_offsets
        batch.meter = <const int32_t *>meter_index
        batch.number = <const int32_t *>meter_numbers
        batch.quantity = <const int64_t *>quantities
        batch.amount = <const char *>amounts
        batch.flag = <const uint8_t *>flags
        batch.request_amount = <const char *>request_amounts
        while True:
            with nogil:
                done = self._add(&batch, done, <uint32_t *>new_rows, &new_count, &error)
            if error == ERROR_MEMORY:
                raise MemoryError("no memory for the windows of a block")
            if error:
                raise OverflowError("a 128-bit sum of a window")
            if done == rows:
                return new_count
            row = batch.selection[done] if selection else done
            if batch.starts[row + 1] - batch.starts[row] > METERS_MAX:
                raise ValueError(f"an event has more than {METERS_MAX} meters")
            self._learn_shape(
                tuple([
                    batch.number[batch.meter[j]] << 1 | (1 if batch.flag[j] == FLAG_UNPRICED else 0)
                    for j in range(batch.starts[row], batch.starts[row + 1])
                ])
            )

    # -- leaving

    cdef int _sum_days(self) noexcept nogil:
        """Adds every minute group to the day it lies in, and to the totals of its shape."""
        cdef int64_t i, j, k
        cdef Record *record
        cdef Record *day
        cdef Key *key
        cdef Coarse *coarse
        cdef char *sums
        cdef char *day_sums
        cdef char *total
        cdef uint32_t window
        cdef int error = 0
        groups_clear(&self.days)
        self.cuts += 1
        for i in range(self.minutes.count):
            if i + 8 < self.minutes.count:
                prefetch(&self.keys.keys[record_at(&self.minutes, i + 8).key])
            record = record_at(&self.minutes, i)
            key = &self.keys.keys[record.key]
            k = self.shapes[key.shape].meters
            window = record.window // 1440
            coarse = &self.keys.coarse[key.coarse]
            if coarse.cut != self.cuts or coarse.day != window:
                error = self._open_day(coarse, window, record_bytes(k))
                if error:
                    return error
            day = <Record *>(self.days.records + coarse.day_place)
            day.events += record.events
            u128_store(day.digest, u128_wrapping_add(u128_load(day.digest), u128_load(record.digest)))
            sums = <char *>record + HEADER
            day_sums = <char *>day + HEADER
            total = self.totals + self.shapes[key.shape].totals
            error = add_at(total, i128_from_int64(<int64_t>record.events))
            for j in range(2 * k + 1):
                error |= add_at(day_sums + 16 * j, i128_load(sums + 16 * j))
                error |= add_at(total + 16 * (j + 1), i128_load(sums + 16 * j))
            if error:
                return error
        return 0

    cdef int _open_day(self, Coarse *coarse, uint32_t window, int64_t width) noexcept nogil:
        """Finds or begins the record of a coarse key's day, and remembers it with the key."""
        cdef Entry *entry
        cdef int error = groups_reserve(&self.days, 1, width)
        if error:
            return error
        entry = groups_find(
            &self.days, entry_hash(coarse.lo, coarse.hi, coarse.shape, window), coarse.lo, coarse.hi, coarse.shape,
            window,
        )
        if entry.place_plus_one:
            coarse.day_place = entry.place_plus_one - 1
        else:
            coarse.day_place = groups_begin(
                &self.days, entry, coarse.lo, coarse.hi, coarse.shape, window, coarse.key, width
            )
        coarse.day = window
        coarse.cut = self.cuts
        return 0

    def cut(self):
        """Ends the block: sums the days. Returns (minute rows, day rows) that will leave. Raises OverflowError."""
        cdef int error
        cdef int64_t shape, size = 0
        for shape in range(self.shape_count):
            self.shapes[shape].totals = size
            size += 16 * (2 * self.shapes[shape].meters + 2)
        free(self.totals)
        self.totals = <char *>calloc(size + 16, 1)
        if self.totals == NULL:
            raise MemoryError()
        with nogil:
            error = self._sum_days()
        if error == ERROR_MEMORY:
            raise MemoryError("no memory for the days of a block")
        if error:
            raise OverflowError("a 128-bit sum of a day")
        return self._rows(&self.minutes), self._rows(&self.days)

    cdef int64_t _rows(self, Groups *groups) noexcept nogil:
        cdef int64_t i, total = 0
        for i in range(groups.count):
            total += self.shapes[self.keys.keys[record_at(groups, i).key].shape].groups
        return total

    def block_totals(self):
        """What the block that was cut adds up to, a shape each: ((meter, unpriced) ..., events, quantities, amounts).

        The first amount is that of `requests`; the others, and the quantities, are in the order of the meters.
        """
        cdef int64_t shape
        found = []
        for shape in range(self.shape_count):
            k = self.shapes[shape].meters
            at = self.totals + self.shapes[shape].totals
            numbers = [int.from_bytes(at[16 * j : 16 * j + 16], "little", signed=True) for j in range(2 * k + 2)]
            meters = [(self.meter_names[m >> 1], bool(m & 1)) for m in self.shape_meters[shape]]
            found.append((meters, numbers[0], numbers[1 : k + 1], numbers[k + 1 :]))
        return found

    def sort(self, bint day, int64_t rows, uintptr_t customer_ranks, int64_t customers):
        """Orders the rows of one grain as the store keeps them: customer (by `customer_ranks`, int32 a code), window,
        key."""
        cdef Groups *groups = &self.days if day else &self.minutes
        self.leaving = <Leaving *>grown(self.leaving, (rows + 1) * sizeof(Leaving))
        self.leaving_spare = <Leaving *>grown(self.leaving_spare, (rows + 1) * sizeof(Leaving))
        slot_hashes = b"".join(self.slot_hashes)
        cdef const char *slot_hash = slot_hashes
        cdef int64_t *start = self._slot_starts()
        cdef int64_t n
        with nogil:
            n = self._order(groups, <const int32_t *>customer_ranks, customers, slot_hash, start)
            sort_leaving(self.leaving, self.leaving_spare, n)
            self._settle_ties(groups, n, slot_hash, start)
        free(start)
        if n != rows:
            raise ValueError("the number of rows has changed since the cut")
        self.leaving_count = n

    cdef int64_t *_slot_starts(self) except NULL:
        """Of each shape, the number of its first store row among all shapes'; to be freed."""
        cdef int64_t shape, total = 0
        cdef int64_t *start = <int64_t *>grown(NULL, (self.shape_count + 1) * sizeof(int64_t))
        for shape in range(self.shape_count):
            start[shape] = total
            total += self.shapes[shape].groups
        return start

    cdef int64_t _order(self, Groups *groups, const int32_t *rank, int64_t customers, const char *slot_hash,
                        const int64_t *start) noexcept nogil:
        """Fills `leaving` with a row a store row; what of the store key does not fit in `order` is settled later."""
        cdef int64_t i, g, n = 0
        cdef uint32_t first = <uint32_t>-1, last = 0
        cdef Record *record
        cdef Key *key
        cdef u128 store_key
        cdef int window_bits, key_bits
        for i in range(groups.count):
            record = record_at(groups, i)
            first = min(first, record.window)
            last = max(last, record.window)
        window_bits = bits(last - first) if groups.count else 0
        key_bits = 64 - window_bits - bits(<uint64_t>customers)
        for i in range(groups.count):
            if i + 8 < groups.count:
                prefetch(&self.keys.keys[record_at(groups, i + 8).key])
            record = record_at(groups, i)
            key = &self.keys.keys[record.key]
            for g in range(self.shapes[key.shape].groups):
                store_key = self._store_key(groups == &self.days, key, slot_hash + 16 * (start[key.shape] + g))
                self.leaving[n].order = (
                    (<uint64_t>rank[key.customer] << window_bits | (record.window - first)) << key_bits
                    | u128_hi(store_key) >> (64 - key_bits)
                )
                self.leaving[n].what = <uint64_t>i << 16 | <uint64_t>g
                n += 1
        return n

    cdef void _settle_ties(self, Groups *groups, int64_t n, const char *slot_hash, const int64_t *start) noexcept nogil:
        """Rows whose `order` is equal, by their whole store key: they are rare and few, so one by one."""
        cdef int64_t i, j
        cdef Leaving held
        for i in range(1, n):
            if self.leaving[i].order != self.leaving[i - 1].order:
                continue
            held = self.leaving[i]
            j = i
            while j > 0 and self.leaving[j - 1].order == held.order and u128_less(
                self._leaving_key(groups, held, slot_hash, start),
                self._leaving_key(groups, self.leaving[j - 1], slot_hash, start),
            ):
                self.leaving[j] = self.leaving[j - 1]
                j -= 1
            self.leaving[j] = held

    cdef inline u128 _store_key(self, bint day, Key *key, const char *slot_hash) noexcept nogil:
        """What the store knows a row by: the hash of its dimensions (of a day row, without project and model) and
        slots."""
        cdef char dims[16]
        if day:
            memcpy(dims, &self.keys.coarse[key.coarse].lo, 8)
            memcpy(dims + 8, &self.keys.coarse[key.coarse].hi, 8)
        else:
            memcpy(dims, &key.lo, 8)
            memcpy(dims + 8, &key.hi, 8)
        return hash_pair(u128_load(dims), u128_load(slot_hash))

    cdef inline u128 _leaving_key(
        self, Groups *groups, Leaving row, const char *slot_hash, const int64_t *start
    ) noexcept nogil:
        cdef Key *key = &self.keys.keys[record_at(groups, <int64_t>(row.what >> 16)).key]
        return self._store_key(
            groups == &self.days, key, slot_hash + 16 * (start[key.shape] + <int64_t>(row.what & 0xFFFF))
        )

    def write(
        self, bint day, int64_t first, int64_t rows, uintptr_t customers, uintptr_t windows, uintptr_t keys,
        uintptr_t events, uintptr_t digests, tuple quantities, tuple amounts,
    ):
        """Writes sorted rows [first, first + rows): int32 customer code, uint32 window start (seconds), 16-byte key,
        uint64 events, 16-byte digest, and four 16-byte quantities and amounts. Raises OverflowError where one of
        these is beyond 2^100."""
        cdef Groups *groups = &self.days if day else &self.minutes
        cdef uint32_t window_seconds = 86400 if day else 60
        cdef int32_t *customer = <int32_t *>customers
        cdef uint32_t *window = <uint32_t *>windows
        cdef char *key_out = <char *>keys
        cdef uint64_t *event_count = <uint64_t *>events
        cdef char *digest = <char *>digests
        cdef char *quantity[STORE_SLOTS]
        cdef char *amount[STORE_SLOTS]
        cdef int64_t i, j, k, meter
        cdef Leaving row
        cdef Record *record
        cdef Key *key
        cdef char *sums
        cdef int64_t group
        cdef i128 zero = i128_from_int64(0)
        cdef i128 value
        cdef bint too_large = False
        if first < 0 or first + rows > self.leaving_count:
            raise ValueError("rows out of range")
        for j in range(STORE_SLOTS):
            quantity[j] = <char *><uintptr_t>quantities[j]
            amount[j] = <char *><uintptr_t>amounts[j]
        slot_hash = b"".join(self.slot_hashes)
        cdef const char *hashes = slot_hash
        cdef int64_t *start = self._slot_starts()
        with nogil:
            for i in range(rows):
                if i + 16 < rows:
                    record = record_at(groups, <int64_t>(self.leaving[first + i + 16].what >> 16))
                    prefetch(record)
                    prefetch(<char *>record + 64)
                if i + 8 < rows:
                    prefetch(&self.keys.keys[record_at(groups, <int64_t>(self.leaving[first + i + 8].what >> 16)).key])
                row = self.leaving[first + i]
                group = <int64_t>(row.what & 0xFFFF)
                record = record_at(groups, <int64_t>(row.what >> 16))
                key = &self.keys.keys[record.key]
                k = self.shapes[key.shape].meters
                sums = <char *>record + HEADER
                customer[i] = <int32_t>key.customer
                window[i] = record.window * window_seconds
                u128_store(key_out + 16 * i, self._store_key(day, key, hashes + 16 * (start[key.shape] + group)))
                event_count[i] = record.events
                memcpy(digest + 16 * i, record.digest, 16)
                for j in range(STORE_SLOTS):
                    meter = STORE_SLOTS * group + j - 1  # -1 is `requests`
                    if meter >= k:
                        i128_store(quantity[j] + 16 * i, zero)
                        i128_store(amount[j] + 16 * i, zero)
                        continue
                    if meter < 0:
                        i128_store(quantity[j] + 16 * i, i128_from_int64(<int64_t>record.events))
                    else:
                        value = i128_load(sums + 16 * meter)
                        too_large |= not fits_store(value)
                        i128_store(quantity[j] + 16 * i, value)
                    value = i128_load(sums + 16 * (k + 1 + meter))
                    too_large |= not fits_store(value)
                    i128_store(amount[j] + 16 * i, value)
        free(start)
        if too_large:
            raise OverflowError("a quantity or an amount of a window beyond 2^100, the most that the store takes")

    def clear(self):
        """Forgets the sums (not the keys): the next block begins."""
        groups_clear(&self.minutes)
        groups_clear(&self.days)
        self.leaving_count = 0

    def slot_rows(self):
        """The store rows of every shape, in the order that `write_keys` numbers them: (four meter names, unpriced
        mask)."""
        return [
            ([name for name, _, _ in group], sum(1 << j for j, (_, _, unpriced) in enumerate(group) if unpriced))
            for meters in self.shape_meters
            for group in self._slots(meters)
        ]

    def count_keys(self, bint coarse, int64_t first):
        """How many store keys the keys (or coarse keys) from `first` on have."""
        cdef int64_t number, total = 0
        for number in range(first, self.keys.coarse_count if coarse else self.keys.count):
            total += self.shapes[self.keys.coarse[number].shape if coarse else self.keys.keys[number].shape].groups
        return total

    def write_keys(self, bint coarse, int64_t first, uintptr_t numbers, uintptr_t keys, uintptr_t slot_row):
        """For each store key of the keys (or coarse keys) from `first` on: int32 number of the key (the first one
        that a coarse key was met with), 16-byte store key, int32 index into `slot_rows`."""
        cdef int32_t *number_out = <int32_t *>numbers
        cdef char *key_out = <char *>keys
        cdef int32_t *slot_out = <int32_t *>slot_row
        cdef int64_t i, number, g, n = 0
        cdef Key *key
        hashes = b"".join(self.slot_hashes)
        cdef const char *slot_hash = hashes
        cdef int64_t *start = self._slot_starts()
        with nogil:
            for i in range(first, self.keys.coarse_count if coarse else self.keys.count):
                number = self.keys.coarse[i].key if coarse else i
                key = &self.keys.keys[number]
                for g in range(self.shapes[key.shape].groups):
                    number_out[n] = <int32_t>number
                    u128_store(
                        key_out + 16 * n, self._store_key(coarse, key, slot_hash + 16 * (start[key.shape] + g))
                    )
                    slot_out[n] = <int32_t>(start[key.shape] + g)
                    n += 1
        free(start)


def _murmur(bytes text):
    """murmur3 of a short text, as 16 little-endian bytes."""
    cdef u128 hashed = murmur3(<const char *>text, len(text), 0, 0)
    return (<const char *>&hashed)[:16]
