"""Which checks of a rule book each event fails: one bit a check, 64 checks at once, a batch at a time.

A check concerns an event by its texts (source and dimensions), by its time and by its quantities. What texts have to
do with it is decided once for each value of a dictionary: a mask of the checks that concern events with that value. A
check that no value of some column lets hold is left out for the batch, and a column of which all values let all others
hold is not read. Then quantities are looked at, 512 rows at a time: rows that may fail are marked. Only where a row is
marked, or a text or time alone can fail, the masks of an event's values are and-ed, and what is left is asked exactly.

Memory: a ValueTable is an open-addressing table of 32-byte slots, at most half full, and the texts: 64 to 128 bytes
and the text for each value that a book names. A CheckTable has 32 bytes a check. Neither changes once it is made, so
that any number of threads may read it. A call takes 140 KB, of which it touches what its sequences of meters need.
Cost: 5 ns an event of three meters under 20 checks of four columns, one of them a list of 10,000 customers, all of
them in the dictionary (1 ns of it), in a batch of 131,072; 8 ns with a sum and a speed besides, and 9.5 to 10.5 where
some events have other meters than the rest (benchmarks/rules.py). Events of more than eight meters, if not all have the
same, are added up one by one.
Proved by: tests/parity/test_rules.py against tests/oracle/rules.py, which asks each rule about each event.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from .int128 cimport prefetch
from .quantities cimport Alike, Group, Meter, disagrees, look, outside, weigh
from .sequences cimport SEQUENCE_CODES, SEQUENCE_ROWS, Sequences, by_sequence, even, sequence_count, sequences_clear
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()
CHECKS_MAX = CHECKS
MEMBER, RANGE, SUM, SPEED, CLOCK = 0, 1, 2, 3, 4

cdef enum:
    CHECKS = 64
    COLUMNS_MAX = 7  # source and six dimensions
    LOOKAHEAD = 32
    NO_FORM = 0xffffffff
    BLOCK = SEQUENCE_ROWS  # rows whose masks are and-ed column by column, in the cache
    SPEED_MAX = 1 << 20  # times a quantity of 32 bits it fits in 64; what is faster is looked at one by one
    K_MEMBER = 0  # fails as soon as its texts and time concern it
    K_RANGE = 1  # a quantity below `low` or above `high`
    K_SUM = 2  # what is added differs from what is told by more than `high`
    K_SPEED = 3  # what is added is more than `high` a second, in the milliseconds that are told
    K_CLOCK = 4  # more than `low` us before, or `high` us after, the instant at which it is read

cdef extern from *:
    """
    #include <string.h>
    static inline uint64_t tf_eight(const char *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline uint64_t tf_four(const char *p) { uint32_t v; memcpy(&v, p, 4); return v; }
    /* The last eight bytes of a text of eight or more, all of a shorter one: the length tells short texts apart. */
    static inline uint64_t tf_tail(const char *p, int32_t n) {
        if (n >= 8) return tf_eight(p + n - 8);
        if (n >= 4) return tf_four(p) << 32 | tf_four(p + n - 4);
        if (n > 0) return (uint64_t)(uint8_t)p[0] << 16 | (uint64_t)(uint8_t)p[n >> 1] << 8 | (uint8_t)p[n - 1];
        return 0;
    }
    /* Only a book decides what is in a table, so that nobody who sends events can make it slow by equal hashes. */
    static inline uint64_t tf_text_hash(const char *p, int32_t n, uint32_t seed) {
        uint64_t h = (uint64_t)(uint32_t)n << 1 | seed;
        for (int32_t i = 0; i + 8 < n; i += 8) {
            h = (h ^ tf_eight(p + i)) * 0xff51afd7ed558ccdULL;
            h ^= h >> 32;
        }
        h = (h ^ tf_tail(p, n)) * 0xff51afd7ed558ccdULL;
        h = (h ^ h >> 32) * 0xc4ceb9fe1a85ec53ULL;
        return h ^ h >> 32;
    }
    /* The first eight bytes of a text of more than eight. */
    static inline uint64_t tf_front(const char *p, int32_t n) { return n > 8 ? tf_eight(p) : 0; }
    /* What is between the first and the last eight bytes. */
    static inline int tf_same_middle(const char *a, const char *b, int32_t n) {
        for (int32_t i = 8; i + 8 < n; i += 8) if (tf_eight(a + i) != tf_eight(b + i)) return 0;
        return 1;
    }
    static inline int tf_lowest(uint64_t bits) { return __builtin_ctzll(bits); }
    /* And-s the masks of the rows' values; returns the bits that are left in any of them. */
    static uint64_t tf_and(uint64_t *restrict held, const uint64_t *restrict masks, const int32_t *restrict codes,
                           int64_t rows) {
        uint64_t left = 0;
        for (int64_t row = 0; row < rows; row++) {
            if ((row & 15) == 0) __builtin_prefetch(codes + row + 1024);
            left |= held[row] &= masks[codes[row]];
        }
        return left;
    }
    /* The first and the last of some instants, in several lanes: one by one they would wait for each other. */
    static void tf_span(const int64_t *restrict time_us, int64_t rows, int64_t *restrict first,
                        int64_t *restrict last) {
        enum { LANES = 8 };
        int64_t low[LANES], high[LANES], row = 0;
        for (int n = 0; n < LANES; n++) low[n] = high[n] = time_us[0];
        for (; row + LANES <= rows; row += LANES)
            for (int n = 0; n < LANES; n++) {
                low[n] = time_us[row + n] < low[n] ? time_us[row + n] : low[n];
                high[n] = time_us[row + n] > high[n] ? time_us[row + n] : high[n];
            }
        for (; row < rows; row++) {
            low[0] = time_us[row] < low[0] ? time_us[row] : low[0];
            high[0] = time_us[row] > high[0] ? time_us[row] : high[0];
        }
        for (int n = 1; n < LANES; n++) {
            low[0] = low[n] < low[0] ? low[n] : low[0];
            high[0] = high[n] > high[0] ? high[n] : high[0];
        }
        *first = low[0];
        *last = high[0];
    }
    """
    void span "tf_span"(const int64_t *time_us, int64_t rows, int64_t *first, int64_t *last) nogil
    uint64_t text_hash "tf_text_hash"(const char *text, int32_t length, uint32_t seed) nogil
    uint64_t front_of "tf_front"(const char *text, int32_t length) nogil
    uint64_t tail_of "tf_tail"(const char *text, int32_t length) nogil
    bint same_middle "tf_same_middle"(const char *a, const char *b, int32_t length) nogil
    int lowest "tf_lowest"(uint64_t bits) nogil
    uint64_t and_masks "tf_and"(uint64_t *held, const uint64_t *masks, const int32_t *codes, int64_t rows) nogil


cdef struct Slot:
    uint64_t sets
    uint64_t front  # of its text: the first and the last bytes, all of one of up to 16
    uint64_t tail
    uint32_t start  # of its text
    uint32_t form  # twice its length, and 1 for the beginning of a text; NO_FORM: empty


@cython.final
cdef class ValueTable:
    """Which of 64 sets a text is in; a set has whole texts and beginnings of texts."""

    cdef Slot *slots
    cdef uint64_t mask
    cdef char *text
    cdef int32_t *lengths  # of the beginnings, each once, ascending
    cdef int64_t length_count

    def __cinit__(self, list items not None):
        """items: (text, whether it is only the beginning, bits of the sets), no text twice. Raises MemoryError."""
        cdef uint64_t i, at
        cdef uint32_t start = 0, beginning
        cdef bytes text
        cdef const char *bytes_
        cdef int32_t count
        self.mask = 15
        while self.mask < 2 * <uint64_t>len(items):
            self.mask = 2 * self.mask + 1
        lengths = sorted({len(text) for text, beginning, _ in items if beginning})
        self.slots = <Slot *>malloc((self.mask + 1) * sizeof(Slot))
        self.text = <char *>malloc(sum([len(text) for text, _, _ in items]) + 1)
        self.lengths = <int32_t *>malloc((len(lengths) + 1) * sizeof(int32_t))
        if self.slots == NULL or self.text == NULL or self.lengths == NULL:
            raise MemoryError()
        for i in range(self.mask + 1):
            self.slots[i].form = NO_FORM
        for i, length in enumerate(lengths):
            self.lengths[i] = length
        self.length_count = len(lengths)
        for text, beginning, sets in items:
            bytes_, count = text, <int32_t>len(text)
            memcpy(self.text + start, bytes_, count)
            at = text_hash(bytes_, count, beginning) & self.mask
            while self.slots[at].form != NO_FORM:
                at = (at + 1) & self.mask
            self.slots[at] = Slot(sets, front_of(bytes_, count), tail_of(bytes_, count), start, 2 * count + beginning)
            start += count

    def __dealloc__(self):
        free(self.slots)
        free(self.text)
        free(self.lengths)

    cdef inline uint64_t _sets(
        self, uint64_t hashed, const char *text, int32_t length, uint32_t beginning
    ) noexcept nogil:
        cdef uint64_t at = hashed & self.mask, front = front_of(text, length), tail = tail_of(text, length)
        cdef uint32_t form = 2 * <uint32_t>length + beginning
        cdef Slot *slot = &self.slots[at]
        while slot.form != NO_FORM:
            if (
                slot.form == form
                and slot.front == front
                and slot.tail == tail
                and same_middle(self.text + slot.start, text, length)
            ):
                return slot.sets
            at = (at + 1) & self.mask
            slot = &self.slots[at]
        return 0

    def masks(self, uintptr_t offsets, uintptr_t data, int64_t count, uint64_t always, uint64_t flipped, uintptr_t out):
        """The checks of events with each text: int32 `offsets` [count + 1] into `data`, uint64 a text to `out`.

        always: the checks to which this column does not matter; flipped: those that concern texts outside their set.
        """
        cdef const int32_t *starts = <const int32_t *>offsets  # IN
        cdef const char *text = <const char *>data  # IN
        cdef uint64_t *found = <uint64_t *>out  # OUT
        cdef int64_t i, j, ahead
        cdef int32_t length, part
        cdef uint64_t hashed = 0
        cdef uint64_t hashes[LOOKAHEAD]
        with nogil:
            for ahead in range(count + LOOKAHEAD):
                if ahead < count:  # the slot of a text is fetched while those of the texts before it are looked at
                    hashed = text_hash(text + starts[ahead], starts[ahead + 1] - starts[ahead], 0)
                    prefetch(&self.slots[hashed & self.mask])
                i = ahead - LOOKAHEAD
                if i >= 0:
                    length = starts[i + 1] - starts[i]
                    found[i] = self._sets(hashes[i % LOOKAHEAD], text + starts[i], length, 0)
                    for j in range(self.length_count):
                        if self.lengths[j] > length:
                            break
                        part = self.lengths[j]
                        found[i] |= self._sets(text_hash(text + starts[i], part, 1), text + starts[i], part, 1)
                    found[i] = always | (found[i] ^ flipped)
                if ahead < count:
                    hashes[ahead % LOOKAHEAD] = hashed


cdef struct Check:
    int64_t since_us
    int64_t until_us
    int64_t low
    int64_t high


cdef struct Batch:
    int64_t rows
    const int64_t *time_us
    int64_t columns
    const int32_t *codes[COLUMNS_MAX]
    const uint64_t *masks[COLUMNS_MAX]
    uint64_t matters[COLUMNS_MAX]  # the checks that some value of the column does not let hold
    const int32_t *starts
    const int32_t *meters
    const int64_t *quantities
    Meter *of_meter
    int64_t meter_count
    Group groups[CHECKS]
    int64_t group_count
    int32_t *places  # room for a number a meter
    Sequences *sequences
    uint64_t wanted  # the checks that can concern an event of the batch
    int64_t now_us


@cython.final
cdef class CheckTable:
    """At most 64 checks, by number: kind, the event times that it holds in, and its bounds."""

    cdef Check checks[CHECKS]
    cdef int64_t count
    cdef uint64_t kinds[5]

    def __cinit__(self, list checks not None):
        """checks: (kind, since_us, until_us (exclusive), low, high). Raises ValueError for more than 64."""
        if len(checks) > CHECKS_MAX:
            raise ValueError(f"at most {CHECKS_MAX} checks at once")
        self.count = len(checks)
        for i, (kind, since_us, until_us, low, high) in enumerate(checks):
            self.checks[i] = Check(since_us, until_us, low, high)
            self.kinds[<int>kind] |= <uint64_t>1 << <int>i

    def failed(
        self, int64_t rows, uintptr_t time_us, list columns not None, uintptr_t offsets, uintptr_t meters,
        uintptr_t quantities, list of_meters not None, int64_t now_us, uintptr_t out_rows, uintptr_t out_failed,
    ) -> int:
        """Writes the rows that fail a check, in order, and which they fail; returns how many they are.

        columns: for each column that a check is about, int32 codes a row, the `masks` of its dictionary and how many
        they are; usage:
        int32 offsets [rows + 1] into int32 `meters` and int64 `quantities`; of_meters: for each meter the checks that
        bound its quantity, to which it tells what others add up to, and that add it up; now_us: when the events are
        read, negative for events whose reading was another time, of which clocks say nothing. out_rows uint32,
        out_failed uint64, room for `rows` of each. Raises MemoryError.
        """
        cdef Batch batch
        cdef int64_t i
        if len(columns) > COLUMNS_MAX:
            raise ValueError("seven columns at most")
        batch.rows, batch.time_us, batch.now_us = rows, <const int64_t *>time_us, now_us
        batch.starts, batch.meters = <const int32_t *>offsets, <const int32_t *>meters
        batch.quantities = <const int64_t *>quantities
        batch.meter_count, batch.group_count = len(of_meters), 0
        i = len(of_meters) + 1
        batch.of_meter = <Meter *>malloc(i * sizeof(Meter))
        batch.places = <int32_t *>malloc(i * sizeof(int32_t))
        batch.sequences = <Sequences *>malloc(sizeof(Sequences))
        try:
            if batch.of_meter == NULL or batch.places == NULL or batch.sequences == NULL:
                raise MemoryError()
            memset(batch.of_meter, 0, i * sizeof(Meter))
            for i, (bounded, told_by, added) in enumerate(of_meters):
                batch.of_meter[i].bounded, batch.of_meter[i].told_by = bounded, told_by
                batch.of_meter[i].added = added
            self._columns(&batch, columns)
            with nogil:
                self._meters(&batch)
                self._groups(&batch)
                sequences_clear(batch.sequences)
                i = self._failed(&batch, <uint32_t *>out_rows, <uint64_t *>out_failed)
        finally:
            free(batch.of_meter)
            free(batch.places)
            free(batch.sequences)
        return i

    cdef int _columns(self, Batch *batch, list columns) except -1:
        """The checks that some texts of all columns let hold, and the columns that more is to be asked of: most texts
        are what they should be, so that it does not matter which of them an event has."""
        cdef uint64_t some[COLUMNS_MAX]
        cdef uint64_t every[COLUMNS_MAX]
        cdef const uint64_t *masks
        cdef int64_t i, n
        batch.wanted = (<uint64_t>2 << (self.count - 1)) - 1 if self.count else 0
        for i, (_, address, count) in enumerate(columns):
            masks = <const uint64_t *><uintptr_t>address
            some[i], every[i] = 0, ~<uint64_t>0
            for n in range(<int64_t>count):
                some[i] |= masks[n]
                every[i] &= masks[n]
            batch.wanted &= some[i]
        batch.columns = 0
        for i, (codes, address, _) in enumerate(columns):
            if batch.wanted & ~every[i]:
                batch.codes[batch.columns] = <const int32_t *><uintptr_t>codes
                batch.masks[batch.columns] = <const uint64_t *><uintptr_t>address
                batch.matters[batch.columns] = ~every[i]
                batch.columns += 1
        return 0

    cdef void _meters(self, Batch *batch) noexcept nogil:
        """Most quantities are within the bounds of all checks: which of them concern the event does not matter then."""
        cdef int64_t low, high, n
        cdef uint64_t bits
        cdef Meter *meter
        cdef int i
        for n in range(batch.meter_count):
            meter, low, high = &batch.of_meter[n], 0, INT64_MAX
            meter.bounded &= batch.wanted
            meter.told_by &= batch.wanted
            bits = meter.bounded
            while bits:
                i = lowest(bits)
                bits &= bits - 1
                low, high = max(low, self.checks[i].low), min(high, self.checks[i].high)
            meter.looked_at, meter.low, meter.high = meter.told_by, low, high

    cdef void _groups(self, Batch *batch) noexcept nogil:
        """Sums and speeds of the same meters are looked at together, by the least bound; of those that a meter of the
        batch tells of."""
        cdef uint64_t bits = 0
        cdef int64_t n, g, bound
        cdef bint speed
        cdef int i
        for n in range(batch.meter_count):
            bits |= batch.of_meter[n].told_by
        while bits:
            i = lowest(bits)
            bits &= bits - 1
            speed = self.kinds[K_SPEED] >> i & 1
            bound = min(<int64_t>SPEED_MAX, self.checks[i].high) if speed else self.checks[i].high
            for g in range(batch.group_count):
                if self._same_meters(batch, batch.groups[g].check, i):
                    batch.groups[g].bound = min(batch.groups[g].bound, bound)
                    break
            else:
                batch.groups[batch.group_count] = Group(speed, i, bound)
                batch.group_count += 1

    cdef bint _same_meters(self, Batch *batch, int a, int b) noexcept nogil:
        cdef int64_t n
        cdef Meter *meter
        if (self.kinds[K_SPEED] >> a ^ self.kinds[K_SPEED] >> b) & 1:
            return False
        for n in range(batch.meter_count):
            meter = &batch.of_meter[n]
            if (meter.told_by >> a ^ meter.told_by >> b | meter.added >> a ^ meter.added >> b) & 1:
                return False
        return True

    cdef int64_t _failed(self, Batch *batch, uint32_t *out_rows, uint64_t *out_failed) noexcept nogil:
        cdef uint64_t at_once = self.kinds[K_MEMBER] | self.kinds[K_CLOCK]  # they fail whatever the quantities
        cdef uint64_t held[BLOCK]
        cdef uint8_t marked[BLOCK]
        cdef uint64_t wanted, by_time, failed, bits
        cdef int64_t block, first, rows, row, column, count = 0
        cdef bint some
        for block in range((batch.rows + BLOCK - 1) // BLOCK):
            first = block * BLOCK
            rows = min(<int64_t>BLOCK, batch.rows - first)
            wanted = self._by_block(batch, first, rows, &by_time)
            if wanted == 0:
                continue
            some = wanted & ~at_once and self._mark(batch, first, rows, marked)
            if not some:
                wanted &= at_once
                if wanted == 0:
                    continue
                memset(marked, 0, sizeof(marked))
            bits = wanted
            for row in range(rows):
                held[row] = wanted
            for column in range(batch.columns):
                if bits & batch.matters[column]:
                    bits = and_masks(held, batch.masks[column], batch.codes[column] + first, rows)
            if bits == 0:
                continue
            for row in range(rows):
                bits = held[row]
                if not bits & at_once and not (marked[row] and bits):
                    continue
                failed = bits & self.kinds[K_MEMBER] & ~by_time
                if bits & by_time:
                    bits = self._by_time(bits, by_time, batch.time_us[first + row], batch.now_us, &failed)
                if marked[row]:
                    failed |= self._by_quantity(batch, bits, first + row)
                if failed:
                    out_rows[count] = <uint32_t>(first + row)
                    out_failed[count] = failed
                    count += 1
        return count

    cdef bint _mark(self, Batch *batch, int64_t first, int64_t rows, uint8_t *marked) noexcept nogil:
        """Marks the rows whose quantities may fail a check; returns whether there are any."""
        cdef const int32_t *starts = batch.starts + first
        cdef Sequences *all = batch.sequences
        cdef Alike like
        cdef bint some
        cdef int64_t n
        like.meters, like.quantities = batch.meters + starts[0], batch.quantities + starts[0]
        like.count, like.width = rows, even(starts, like.meters, rows)
        like.firsts = NULL
        like.starts, like.rows = starts, rows
        memset(marked, like.width == 0 and batch.meter_count > SEQUENCE_CODES, BLOCK)
        if like.width:
            return self._mark_alike(batch, &like, marked)
        if batch.meter_count > SEQUENCE_CODES:
            return True
        some = by_sequence(
            all, starts, batch.meters, batch.quantities, batch.starts[batch.rows], rows, marked
        )
        like.quantities = batch.quantities
        for n in range(all.count):
            like.meters, like.width = all.meters[n], all.width[n]
            like.firsts, like.count = all.firsts[n], sequence_count(all, n)
            some |= self._mark_alike(batch, &like, marked)
        return some

    cdef bint _mark_alike(self, Batch *batch, const Alike *like, uint8_t *marked) noexcept nogil:
        cdef bint some = outside(batch.of_meter, like, marked)
        cdef int64_t g
        for g in range(batch.group_count):
            some |= weigh(batch.of_meter, &batch.groups[g], like, batch.places, marked)
        return some

    cdef uint64_t _by_block(self, Batch *batch, int64_t first, int64_t rows, uint64_t *by_time) noexcept nogil:
        """The checks that can concern a block of rows by its times; by_time: those for which a row's time matters."""
        cdef int64_t i, first_us, last_us
        cdef uint64_t wanted = 0, left = batch.wanted
        cdef Check *check
        by_time[0] = 0
        if left == 0:
            return 0
        span(batch.time_us + first, rows, &first_us, &last_us)
        while left:
            i = lowest(left)
            left &= left - 1
            check = &self.checks[i]
            if check.since_us > last_us or first_us >= check.until_us:
                continue
            if self.kinds[K_CLOCK] >> i & 1:
                if batch.now_us < 0 or (
                    first_us - batch.now_us >= -check.low and last_us - batch.now_us <= check.high
                ):
                    continue
                by_time[0] |= <uint64_t>1 << i
            if check.since_us > first_us or last_us >= check.until_us:
                by_time[0] |= <uint64_t>1 << i
            wanted |= <uint64_t>1 << i
        return wanted

    cdef uint64_t _by_time(
        self, uint64_t held, uint64_t by_time, int64_t time_us, int64_t now_us, uint64_t *failed
    ) noexcept nogil:
        """Of the checks that a row's texts let hold, those that its time lets hold too; adds those that it fails."""
        cdef uint64_t bits = held & by_time, bit
        cdef Check *check
        while bits:
            bit = bits & -bits
            check = &self.checks[lowest(bits)]
            bits ^= bit
            if not check.since_us <= time_us < check.until_us:
                held ^= bit
            elif self.kinds[K_MEMBER] & bit:
                failed[0] |= bit
            elif self.kinds[K_CLOCK] & bit and (time_us - now_us < -check.low or time_us - now_us > check.high):
                failed[0] |= bit
        return held

    cdef uint64_t _by_quantity(self, Batch *batch, uint64_t held, int64_t row) noexcept nogil:
        """Of these checks, those that a row fails."""
        cdef uint64_t failed = 0, bit
        cdef int64_t item, first = batch.starts[row], end = batch.starts[row + 1]
        cdef int number
        cdef Check *check
        held &= look(batch.of_meter, batch.meters, batch.quantities, first, end)
        while held:
            number = lowest(held)
            bit = held & -held
            check = &self.checks[number]
            held ^= bit
            if not self.kinds[K_RANGE] & bit:
                if disagrees(
                    batch.of_meter, batch.meters, batch.quantities, first, end, number,
                    self.kinds[K_SPEED] & bit != 0, check.high,
                ):
                    failed |= bit
                continue
            for item in range(first, end):
                if batch.of_meter[batch.meters[item]].bounded & bit:
                    if not check.low <= batch.quantities[item] <= check.high:
                        failed |= bit
        return failed
