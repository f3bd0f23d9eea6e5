"""Grouped 128-bit sums: rated events into one row a (dimensions, meters, window), and those rows out in the store's
order.

Memory: a *shape* is the ordered list of an event's meters, each with or without a price. The sums of one set of
dimensions, shape and window are a record of groups.pxd; names.pxd has the values of the dimensions that the block has
met. The first amount belongs to the implicit meter `requests`, whose quantity is the number of events. A row of the
store has four slots of meters, so a record leaves as 1 + k // 4 rows, each under a 128-bit key of its own (dimensions,
currency, its slots' meters).

Cost (benchmarks/kernels.py): 50 to 70 ns an event of three meters where 20,000 keys are live, 70 to 110 ns where five
events share a row, 200 to 250 ns a row leaving. How rows are added is adding.pxd. The days are added up while the
minutes leave, customer by customer, in the cache.
Proved by: tests/parity/test_combine.py against tests/oracle/combine.py.
"""

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy

from .adding cimport BLOCK, FLAG_UNPRICED, Batch, Minutes, Shape, add_rows
from .groups cimport (
    CODES, ERROR_MEMORY, HEADER, LINE, MOVED, WIDE, Group, Groups, Record, add_at, group_add, group_hash,
    groups_ahead, groups_begin, groups_clear, groups_close, groups_find, groups_open, groups_reserve, number_at,
    numbers_do_not_fit, numbers_of, prefetch_record, record_at, record_bytes, shape_of,
)
from .hash cimport hash_pair, murmur3
from .index cimport index_prefetch
from .int128 cimport (
    i128, i128_from_int64, i128_store, prefetch, u128, u128_hi, u128_less, u128_load, u128_make, u128_store,
    u128_wrapping_add,
)
from .leaving cimport Leaving, bits, sort_leaving
from .memory cimport grown, touch as touch_pages
from .names cimport Name, names_clear, names_close, names_open
from .shapes cimport (
    FIRST_RAW_SHAPES, METERS_MAX, RawShape, raw_shape_begin, raw_shape_told, raw_shapes_close,
    raw_shapes_index,
)
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

SLOTS = 4
METERS_PER_EVENT_MAX = METERS_MAX

cdef enum:
    STORE_SLOTS = 4
    SPARE_BITS = 6  # of a key that sorting looks at, beyond what numbers the groups: ties are rare, passes are fewer
    CUSTOMER = 0
    PROJECT = 1
    FEATURE = 2
    MODEL = 3
    REGION = 4
    SERVICE_TIER = 5
    MINUTES_PER_DAY = 1440

cdef struct Columns:  # where `write` puts rows
    char *codes[CODES]
    int width[CODES]  # bytes a code; 0: the grain does not have this dimension
    int32_t *meters
    uint8_t *unpriced
    uint32_t *window
    char *key
    uint64_t *events
    char *digest
    char *quantity[STORE_SLOTS]
    char *amount[STORE_SLOTS]

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

    `currency_hash`: the 16-byte name hash that goes into every key. With more than `shapes_max` shapes, all are
    forgotten behind the block.
    """

    cdef Minutes minutes
    cdef Groups days
    cdef int64_t shape_count
    cdef readonly int64_t shapes_max
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
    cdef int64_t *slot_starts  # of each shape, the number of its first store row among all shapes'
    cdef bytes slot_hash_text
    cdef const char *slot_hash  # of each store row
    cdef char *totals  # of the block, a shape after the other: events, quantities, amounts; 16 bytes each

    def __cinit__(
        self, bytes currency_hash not None, bytes requests_hash not None, bytes empty_hash not None,
        int64_t shapes_max=1 << 16,
    ):
        cdef int d, failed = 0
        self.shapes_max = shapes_max
        if not (len(currency_hash) == len(requests_hash) == len(empty_hash) == 16):
            raise ValueError("hashes of 16 bytes are expected")
        for d in range(CODES):
            failed |= names_open(&self.minutes.names[d])
        if groups_open(&self.minutes.groups) or groups_open(&self.days) or failed:
            raise MemoryError()
        self.currency_hash, self.requests_hash, self.empty_hash = currency_hash, requests_hash, empty_hash
        self._forget_shapes()

    def __dealloc__(self):
        cdef int d
        groups_close(&self.minutes.groups)
        groups_close(&self.days)
        for d in range(CODES):
            names_close(&self.minutes.names[d])
        raw_shapes_close(&self.minutes.raw)
        free(self.totals)
        free(self.minutes.shapes)
        free(self.leaving)
        free(self.leaving_spare)
        free(self.slot_starts)

    @property
    def shape_number(self):
        """Shapes that are known."""
        return self.shape_count

    @property
    def rows(self):
        """Rows of the store that the minutes leave as."""
        return self.minutes.groups.count + self.minutes.groups.more_rows

    @property
    def raw_count(self):
        """Orders of meters that are known."""
        return self.minutes.raw.count

    # -- shapes: rare, in Python

    cdef int _forget_shapes(self) except -1:
        self.shape_count = 0
        self.meter_names, self.meter_hashes, self.meter_numbers = [], [], {}
        self.shape_by_meters = {}
        self.shape_meters, self.slot_hashes = [], []
        self.minutes.raw.count = 0
        raw_shapes_index(&self.minutes.raw, FIRST_RAW_SHAPES)
        return 0

    def meter_number(self, str name, bytes name_hash not None):
        """The number of a meter within this block."""
        number = self.meter_numbers.get(name)
        if number is None:
            number = self.meter_numbers[name] = len(self.meter_names)
            self.meter_names.append(name)
            self.meter_hashes.append(name_hash)
        return number

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
            self.minutes.shapes = <Shape *>grown(self.minutes.shapes, (number + 1) * sizeof(Shape))
            self.minutes.shapes[number].meters = k
            self.minutes.shapes[number].groups = 1 + k // STORE_SLOTS
            self.shape_by_meters[meters] = number
            self.shape_meters.append(meters)
            self.slot_hashes.append(self._slot_hashes(meters))
            self.shape_count += 1
        raw = raw_shape_begin(&self.minutes.raw)
        raw.count = k
        raw.shape = number
        for i in range(k):
            raw.items[i] = items[i]
            raw.place[order[i]] = i
        return raw_shape_told(&self.minutes.raw)

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

    def slot_rows(self):
        """The store rows of every shape, in the order in which they are numbered: (four meter names, unpriced mask)."""
        return [
            ([name for name, _, _ in group], sum(1 << j for j, (_, _, unpriced) in enumerate(group) if unpriced))
            for meters in self.shape_meters
            for group in self._slots(meters)
        ]

    # -- adding

    def ahead(self):
        """Memory of the minutes that is about to be filled for the first time: address and bytes of each piece, told
        once."""
        cdef int64_t more = groups_ahead(&self.minutes.groups)
        cdef char *end = self.minutes.groups.records + self.minutes.groups.touched
        return [(<uintptr_t>(end - more), more)] if more else []

    @staticmethod
    def touch(uintptr_t address, uint64_t bytes):
        """Makes memory ready that `ahead` has told; any thread may, whatever has become of it."""
        with nogil:
            touch_pages(<void *>address, bytes)

    def add(
        self, int64_t rows, uintptr_t selection, uintptr_t event_time_us, uintptr_t fingerprint, uintptr_t payload,
        uintptr_t dims, tuple dim_values, uintptr_t usage_offsets, uintptr_t meter_index, uintptr_t meter_numbers,
        uintptr_t quantities, uintptr_t amounts, uintptr_t flags, uintptr_t request_amounts,
    ):
        """Adds the selected rows to their windows.

        `dim_values`: for each of the six dimensions the addresses of int32 codes a row, and int32 offsets and text of
        the dictionary; and room for an int32 and a uint32 a value, the first -1 each, or what a batch of this block
        with the same dictionary has left there. `meter_numbers`: int32 a value of the meter dictionary.
        `amounts`, `flags`, `request_amounts` as the rate kernel wrote them. Returns, a dimension each, how many values
        are new to the block: their places in the dictionary are in the second room, and their codes follow those of the
        values before. Raises OverflowError and MemoryError.
        """
        cdef int64_t done = 0, row, j, d
        cdef int error = 0
        cdef Batch batch
        batch.rows = rows
        batch.selection = <const uint32_t *>selection
        batch.time_us = <const int64_t *>event_time_us
        batch.fingerprint = <const char *>fingerprint
        batch.payload = <const char *>payload
        batch.dims = <const char *>dims
        batch.starts = <const int32_t *>usage_offsets
        batch.meter = <const int32_t *>meter_index
        batch.number = <const int32_t *>meter_numbers
        batch.quantity = <const int64_t *>quantities
        batch.amount = <const char *>amounts
        batch.flag = <const uint8_t *>flags
        batch.request_amount = <const char *>request_amounts
        for d in range(CODES):
            codes, starts, text, known, new = dim_values[d]
            batch.values[d].codes = <const int32_t *><uintptr_t>codes
            batch.values[d].starts = <const int32_t *><uintptr_t>starts
            batch.values[d].text = <const char *><uintptr_t>text
            batch.values[d].known = <int32_t *><uintptr_t>known
            batch.values[d].new = <uint32_t *><uintptr_t>new
            batch.values[d].new_count = 0
        while True:
            with nogil:
                done = add_rows(&self.minutes, &batch, done, &error)
            if error == ERROR_MEMORY:
                raise MemoryError("no memory for the windows of a block")
            if error:
                raise OverflowError("a 128-bit sum of a window")
            if done == rows:
                return tuple([batch.values[d].new_count for d in range(CODES)])
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

    def cut(self):
        """Ends the block: its minutes can be sorted and written, and then its days."""
        cdef int64_t shape, size = 0, rows = 0
        self.slot_hash_text = b"".join(self.slot_hashes)
        self.slot_hash = self.slot_hash_text
        self.slot_starts = <int64_t *>grown(self.slot_starts, (self.shape_count + 1) * sizeof(int64_t))
        for shape in range(self.shape_count):
            self.slot_starts[shape] = rows
            rows += self.minutes.shapes[shape].groups
            self.minutes.shapes[shape].totals = size
            size += 16 * (2 * self.minutes.shapes[shape].meters + 2)
        free(self.totals)
        self.totals = <char *>calloc(size + 16, 1)
        if self.totals == NULL:
            raise MemoryError()
        groups_clear(&self.days)

    def sort(self, bint day, uintptr_t customer_ranks, int64_t customers):
        """Orders the rows of one grain as the store keeps them: customer (by `customer_ranks`, int32 a code), window,
        key. Returns how many they are."""
        cdef Groups *groups = &self.days if day else &self.minutes.groups
        cdef int64_t rows
        rows = groups.count + groups.more_rows
        self.leaving = <Leaving *>grown(self.leaving, (rows + 1) * sizeof(Leaving))
        self.leaving_spare = <Leaving *>grown(self.leaving_spare, (rows + 1) * sizeof(Leaving))
        with nogil:
            self._order(day, groups, <const int32_t *>customer_ranks, customers)
            sort_leaving(self.leaving, self.leaving_spare, rows)
            self._settle_ties(day, groups, rows)
        self.leaving_count = rows
        return rows

    cdef void _order(self, bint day, Groups *groups, const int32_t *rank, int64_t customers) noexcept nogil:
        """Fills `leaving` with a row a store row; what of the store key does not fit in `order` is settled later."""
        cdef int64_t g, n = 0, place = 0
        cdef uint64_t order
        cdef Record *record
        cdef Shape *shape
        cdef int window_bits = bits(groups.last_window - groups.first_window) if groups.count else 0
        cdef int key_bits = min(
            64 - window_bits - bits(<uint64_t>customers), bits(<uint64_t>groups.count) + SPARE_BITS
        )
        while place < groups.used:
            record = record_at(groups, place)
            shape = &self.minutes.shapes[shape_of(record)]
            place += record_bytes(shape.meters, record.shape & <uint32_t>WIDE)
            if record.shape & <uint32_t>MOVED:
                continue
            for g in range(shape.groups):
                order = <uint64_t>rank[record.codes[CUSTOMER]] << window_bits | (record.window - groups.first_window)
                self.leaving[n].order = (
                    order << key_bits | u128_hi(self._store_key(day, record, g)) >> (64 - key_bits)
                )
                self.leaving[n].what = <uint64_t>(<char *>record - groups.records) << 10 | <uint64_t>g  # of 64 each
                n += 1

    cdef void _settle_ties(self, bint day, Groups *groups, int64_t n) noexcept nogil:
        """Rows whose `order` is equal, by their whole store key: they are rare and few, so one by one."""
        cdef int64_t i, j
        cdef Leaving held
        for i in range(1, n):
            if self.leaving[i].order != self.leaving[i - 1].order:
                continue
            held = self.leaving[i]
            j = i
            while j > 0 and self.leaving[j - 1].order == held.order and u128_less(
                self._leaving_key(day, groups, held), self._leaving_key(day, groups, self.leaving[j - 1])
            ):
                self.leaving[j] = self.leaving[j - 1]
                j -= 1
            self.leaving[j] = held

    cdef inline u128 _store_key(self, bint day, Record *record, int64_t group) noexcept nogil:
        """What the store knows a row by: the hash of its dimensions (of a day row, without project and model) and
        slots."""
        cdef u128 slots = u128_load(self.slot_hash + 16 * (self.slot_starts[shape_of(record)] + group))
        return hash_pair(self._day_dims(record) if day else u128_make(record.hi, record.lo), slots)

    cdef u128 _day_dims(self, Record *record) noexcept nogil:
        """murmur3 of the name hashes of the dimensions that the day rollup has."""
        cdef Name parts[4]
        parts[0] = self.minutes.names[CUSTOMER].names[record.codes[CUSTOMER]]
        parts[1] = self.minutes.names[FEATURE].names[record.codes[FEATURE]]
        parts[2] = self.minutes.names[REGION].names[record.codes[REGION]]
        parts[3] = self.minutes.names[SERVICE_TIER].names[record.codes[SERVICE_TIER]]
        return murmur3(parts, sizeof(parts), 0, 0)

    cdef inline u128 _leaving_key(self, bint day, Groups *groups, Leaving row) noexcept nogil:
        return self._store_key(day, _leaving_record(groups, row), <int64_t>(row.what & 0xFFFF))

    def write(
        self, bint day, int64_t first, int64_t rows, tuple codes, tuple widths, uintptr_t slot_meters,
        uintptr_t slot_unpriced, uintptr_t meters, uintptr_t unpriced, uintptr_t windows, uintptr_t keys,
        uintptr_t events, uintptr_t digests, tuple quantities, tuple amounts,
    ):
        """Writes sorted rows [first, first + rows), and adds what leaves of the minutes to the days.

        A code of `widths` bytes a dimension (0: none), int32 `slot_meters` and uint8 `slot_unpriced` of its place in
        `slot_rows`, uint32 window start (seconds), 16-byte key, uint64 events, 16-byte digest, and four 16-byte
        quantities and amounts. Raises OverflowError where one of these is beyond 2^100, or a day beyond 128 bits.
        """
        cdef Groups *groups = &self.days if day else &self.minutes.groups
        cdef Columns out
        cdef int64_t i, n, d, at = 0
        cdef int error = 0
        cdef bint fits = True
        if first < 0 or first + rows > self.leaving_count:
            raise ValueError("rows out of range")
        for d in range(CODES):
            out.codes[d] = <char *><uintptr_t>codes[d]
            out.width[d] = widths[d]
        for d in range(STORE_SLOTS):
            out.quantity[d] = <char *><uintptr_t>quantities[d]
            out.amount[d] = <char *><uintptr_t>amounts[d]
        out.meters, out.unpriced, out.window = <int32_t *>meters, <uint8_t *>unpriced, <uint32_t *>windows
        out.key, out.events, out.digest = <char *>keys, <uint64_t *>events, <char *>digests
        with nogil:
            while at < rows and not error:
                n = min(rows - at, <int64_t>BLOCK)
                for i in range(at, min(at + 2 * BLOCK, rows)):  # this run's, if it is the first, and the next one's
                    if at == 0 or i >= at + n:
                        prefetch_record(groups, <int64_t>(self.leaving[first + i].what >> 16) << 6, 2 * LINE)
                if not day:
                    error = self._add_to_days(&self.leaving[first + at], n)
                for i in range(at, at + n):
                    fits &= self._write_row(
                        day, groups, self.leaving[first + i], &out, i, <const int32_t *>slot_meters,
                        <const uint8_t *>slot_unpriced,
                    )
                at += n
        if error == ERROR_MEMORY:
            raise MemoryError("no memory for the days of a block")
        if error:
            raise OverflowError("a 128-bit sum of a day would not fit in 128 bits")
        if not fits:
            raise OverflowError("a quantity or an amount of a window beyond 2^100, the most that the store takes")

    cdef inline bint _write_row(
        self, bint day, Groups *groups, Leaving row, Columns *out, int64_t i, const int32_t *slot_meters,
        const uint8_t *slot_unpriced,
    ) noexcept nogil:
        """Row `i` of the columns; False if a number of it is more than the store takes."""
        cdef Record *record = _leaving_record(groups, row)
        cdef int64_t group = <int64_t>(row.what & 0xFFFF), j, d, meter
        cdef uint32_t shape = shape_of(record)
        cdef int64_t k = self.minutes.shapes[shape].meters, slots = self.slot_starts[shape] + group
        cdef bint fits = True
        for d in range(CODES):
            if out.width[d] == 1:
                (<int8_t *>out.codes[d])[i] = <int8_t>record.codes[d]
            elif out.width[d] == 2:
                (<int16_t *>out.codes[d])[i] = <int16_t>record.codes[d]
            elif out.width[d] == 4:
                (<int32_t *>out.codes[d])[i] = record.codes[d]
        out.meters[i] = slot_meters[slots]
        out.unpriced[i] = slot_unpriced[slots]
        out.window[i] = record.window * (86400 if day else 60)
        u128_store(out.key + 16 * i, self._store_key(day, record, group))
        out.events[i] = record.events
        memcpy(out.digest + 16 * i, record.digest, 16)
        for j in range(STORE_SLOTS):
            meter = STORE_SLOTS * group + j - 1  # -1 is `requests`
            if meter < 0:
                _put(out.quantity[j] + 16 * i, <int64_t>record.events)
            elif meter < k:
                fits &= _put_number(out.quantity[j] + 16 * i, record, meter)
            else:
                _put(out.quantity[j] + 16 * i, 0)
                _put(out.amount[j] + 16 * i, 0)
                continue
            fits &= _put_number(out.amount[j] + 16 * i, record, k + 1 + meter)
        return fits

    cdef int _add_to_days(self, const Leaving *rows, int64_t count) noexcept nogil:
        """Adds up to BLOCK minute records to the days they lie in: hash and prefetch, find and prefetch, add."""
        cdef Record *minute[BLOCK]
        cdef Group group[BLOCK]
        cdef int64_t place[BLOCK]
        cdef int64_t i, n = 0
        cdef uint64_t entry = 0
        cdef int error = groups_reserve(&self.days, count, record_bytes(METERS_MAX, True))
        if error:
            return error
        for i in range(count):
            if rows[i].what & 0xFFFF:
                continue  # another row of a record that has been added
            minute[n] = _leaving_record(&self.minutes.groups, rows[i])
            _day_of(minute[n], &group[n])
            index_prefetch(&self.days.index, group[n].hashed)
            n += 1
        for i in range(n):
            place[i] = groups_find(&self.days, &group[i], &entry)
            if place[i] >= 0:
                prefetch(record_at(&self.days, place[i]))
            else:
                place[i] = groups_begin(
                    &self.days, entry, &group[i], record_bytes(self.minutes.shapes[group[i].shape].meters, False)
                )
                self.days.more_rows += self.minutes.shapes[group[i].shape].groups - 1
                memcpy(record_at(&self.days, place[i]).codes, minute[i].codes, sizeof(minute[i].codes))
        for i in range(n):
            if record_at(&self.days, place[i]).shape & <uint32_t>MOVED:
                place[i] = groups_find(&self.days, &group[i], &entry)
            error |= _add_record(&self.days, place[i], minute[i], self.minutes.shapes[group[i].shape].meters)
        return error

    def block_totals(self):
        """What the days of the block add up to, a shape each: ((meter, unpriced) ..., events, quantities, amounts).

        The first amount is that of `requests`; the others, and the quantities, are in the order of the meters. To be
        called once, behind the last `write` of the minutes. Raises OverflowError.
        """
        cdef int64_t place = 0, shape, j, k
        cdef int error = 0
        cdef Record *record
        cdef char *total
        with nogil:
            while place < self.days.used:
                record = record_at(&self.days, place)
                shape = shape_of(record)
                k = self.minutes.shapes[shape].meters
                place += record_bytes(k, record.shape & <uint32_t>WIDE)
                if record.shape & <uint32_t>MOVED:
                    continue
                total = self.totals + self.minutes.shapes[shape].totals
                error |= add_at(total, i128_from_int64(<int64_t>record.events))
                for j in range(2 * k + 1):
                    error |= add_at(total + 16 * (j + 1), number_at(record, j))
        if error:
            raise OverflowError("a 128-bit sum of a block")
        found = []
        for shape in range(self.shape_count):
            k = self.minutes.shapes[shape].meters
            at = self.totals + self.minutes.shapes[shape].totals
            numbers = [int.from_bytes(at[16 * j : 16 * j + 16], "little", signed=True) for j in range(2 * k + 2)]
            meters = [(self.meter_names[m >> 1], bool(m & 1)) for m in self.shape_meters[shape]]
            found.append((meters, numbers[0], numbers[1 : k + 1], numbers[k + 1 :]))
        return found

    def clear(self):
        """Forgets sums and names: the next block begins. Shapes are remembered, unless they are too many."""
        cdef int d
        groups_clear(&self.minutes.groups)
        groups_clear(&self.days)
        for d in range(CODES):
            names_clear(&self.minutes.names[d])
        self.leaving_count = 0
        if self.shape_count > self.shapes_max:
            self._forget_shapes()


cdef inline Record *_leaving_record(Groups *groups, Leaving row) noexcept nogil:
    return record_at(groups, <int64_t>(row.what >> 16) << 6)


cdef inline void _put(char *out, int64_t value) noexcept nogil:
    """Writes a number in 128 bits, its halves by themselves: on the way through a variable of 128 bits, GCC stores two
    halves and loads them as one, for which the processor waits longer than all the rest takes."""
    (<int64_t *>out)[0] = value
    (<int64_t *>out)[1] = value >> 63


cdef inline bint _put_number(char *out, const Record *record, int64_t n) noexcept nogil:
    """Writes the n-th number of a record in 128 bits; False if it is more than the store takes."""
    cdef int64_t narrow
    if record.shape & <uint32_t>WIDE:
        i128_store(out, number_at(record, n))
        return fits_store(number_at(record, n))
    memcpy(&narrow, <const char *>record + HEADER + 8 * n, 8)
    _put(out, narrow)
    return True


cdef inline void _day_of(Record *minute, Group *group) noexcept nogil:
    """The day group that a minute record belongs to: the codes of a block tell its values apart."""
    group.lo = <uint64_t>minute.codes[CUSTOMER] << 32 | <uint32_t>minute.codes[FEATURE]
    group.hi = <uint64_t>minute.codes[REGION] << 32 | <uint32_t>minute.codes[SERVICE_TIER]
    group.shape = shape_of(minute)
    group.window = minute.window // MINUTES_PER_DAY
    group.hashed = group_hash(group.lo, group.hi, group.shape, group.window)


cdef inline int _add_record(Groups *groups, int64_t place, Record *more, int64_t meters) noexcept nogil:
    """Adds events, digest and numbers to the record at a place."""
    cdef int64_t j
    cdef Record *sum = record_at(groups, place)
    cdef int error = 0
    sum.events += more.events
    u128_store(sum.digest, u128_wrapping_add(u128_load(sum.digest), u128_load(more.digest)))
    if (sum.shape | more.shape) & <uint32_t>WIDE or numbers_do_not_fit(
        numbers_of(sum), numbers_of(more), 2 * meters + 1
    ):
        for j in range(2 * meters + 1):
            error |= group_add(groups, &place, meters, j, number_at(more, j))
    return error


def _murmur(bytes text):
    """murmur3 of a short text, as 16 little-endian bytes."""
    cdef u128 hashed = murmur3(<const char *>text, len(text), 0, 0)
    return (<const char *>&hashed)[:16]
