# The groups of one grain (minutes or days): the records that hold the sums, end to end in the order in which they were
# begun, each on cache lines of its own, and an index of them (index.pxd), whose numbers count lines.
#
#     record = lo u64 | hi u64 | shape u32 | window u32 | events u64 | digest u128 | codes i32 x 6
#              | quantity x k | amount x (k + 1), padded to 64 bytes
#
# The numbers are of 64 bits, with which three meters fit into two lines, until one of them needs more: then the record
# moves to the end, where they are of 128, and what is left behind is marked. Both marks are bits of `shape`.
# (lo, hi, shape, window) is what a group is told apart by; its hash nearly always does, so that a probe that misses the
# cache is followed by no second one: whoever has the place prefetches the record and compares later.
# Inline functions on a struct, and no class of its own, because these are the hottest calls of combine.pyx.

from libc.stdint cimport int32_t, int64_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from .hash cimport fmix64
from .index cimport (
    Index, index_alike, index_clear, index_close, index_fill, index_home, index_number, index_open, index_renumber,
    index_reserve,
)
from .int128 cimport i128, i128_add, i128_from_int64, i128_load, i128_store, prefetch
from .memory cimport arena_grow, table_free

cdef enum:
    CODES = 6  # one a dimension
    HEADER = 72
    LINE = 64
    FIRST_ENTRIES = 4096
    FIRST_BYTES = 1 << 20
    AHEAD_BYTES_MIN = 1 << 21  # a huge page
    MOVED = 1 << 30
    WIDE = 1 << 31
    ARENA_LINES_MAX = 1 << 28  # 16 GiB; a record has two lines at least, so that its number fits the index
    ERROR_MEMORY = 1
    ERROR_OVERFLOW = 2

cdef struct Record:
    uint64_t lo
    uint64_t hi
    uint32_t shape
    uint32_t window
    uint64_t events
    char digest[16]
    int32_t codes[CODES]

cdef struct Group:  # what a record is told apart by
    uint64_t hashed
    uint64_t lo
    uint64_t hi
    uint32_t shape
    uint32_t window

cdef struct Groups:
    Index index
    int64_t count
    int64_t more_rows  # rows of the store that its groups leave as, beyond one each
    uint32_t first_window  # the lowest and the highest that were begun
    uint32_t last_window
    char *records
    int64_t used
    int64_t size
    int64_t touched  # bytes that were filled in this or an earlier block, or told by `groups_ahead`
    int64_t used_before  # when that was last asked


cdef extern from *:
    """
    static inline int tf_add_narrow(char *sum, __int128 value) {
        int64_t total, more = (int64_t)value;
        __builtin_memcpy(&total, sum, 8);
        if (more != value || __builtin_add_overflow(total, more, &total)) return 1;
        __builtin_memcpy(sum, &total, 8);
        return 0;
    }
    /* Adds the lower half of a number; 1 if the sum has wrapped, or the number has a higher half. */
    static inline int tf_add_wrapping(int64_t *sum, int64_t low, int64_t high) {
        return __builtin_add_overflow(*sum, low, sum) | (high != low >> 63);
    }
    static inline void tf_take_back(int64_t *sum, int64_t low) { *sum = (int64_t)((uint64_t)*sum - (uint64_t)low); }
    /* The numbers of 64 bits of a record, and of a row k quantities and amounts, each to its place, and the amount of
       `requests`. No branch asks whether one fits: that is seen to behind the last one. */
    static inline int tf_add_row(
        char *record, int64_t k, const uint16_t *place, const int64_t *quantity, const char *amount, const char *request
    ) {
        int64_t *sums = (int64_t *)record;
        const int64_t *pairs = (const int64_t *)amount, *last = (const int64_t *)request;
        int wrong = tf_add_wrapping(&sums[k], last[0], last[1]);
        for (int64_t j = 0; j < k; j++) {
            wrong |= __builtin_add_overflow(sums[place[j]], quantity[j], &sums[place[j]]);
            wrong |= tf_add_wrapping(&sums[k + 1 + place[j]], pairs[2 * j], pairs[2 * j + 1]);
        }
        if (__builtin_expect(!wrong, 1)) return 0;
        tf_take_back(&sums[k], last[0]);
        for (int64_t j = 0; j < k; j++) {
            tf_take_back(&sums[place[j]], quantity[j]);
            tf_take_back(&sums[k + 1 + place[j]], pairs[2 * j]);
        }
        return 1;
    }
    /* The same for the n numbers of two records. */
    static inline int tf_add_numbers(char *record, const char *other, int64_t n) {
        int64_t *sums = (int64_t *)record;
        const int64_t *more = (const int64_t *)other;
        int wrong = 0;
        for (int64_t j = 0; j < n; j++) wrong |= __builtin_add_overflow(sums[j], more[j], &sums[j]);
        if (__builtin_expect(!wrong, 1)) return 0;
        for (int64_t j = 0; j < n; j++) tf_take_back(&sums[j], more[j]);
        return 1;
    }
    """
    bint does_not_fit "tf_add_narrow"(char *sum, i128 value) nogil  # else it has been added
    # Whether one of these does not fit; then nothing has been added.
    bint row_does_not_fit "tf_add_row"(
        char *numbers, int64_t k, const uint16_t *place, const int64_t *quantity, const char *amount,
        const char *request
    ) nogil
    bint numbers_do_not_fit "tf_add_numbers"(char *numbers, const char *more, int64_t n) nogil


cdef inline int64_t record_bytes(int64_t meters, bint wide) noexcept nogil:
    return (HEADER + (16 if wide else 8) * (2 * meters + 1) + LINE - 1) & -LINE


cdef inline uint32_t shape_of(Record *record) noexcept nogil:
    return record.shape & <uint32_t>(MOVED - 1)


cdef inline Record *record_at(Groups *groups, int64_t place) noexcept nogil:
    return <Record *>(groups.records + place)


cdef inline void prefetch_record(Groups *groups, int64_t place, int64_t bytes_each) noexcept nogil:
    """The first three lines of a record: all of it up to three meters, or seven of 64 bits."""
    prefetch(groups.records + place)
    prefetch(groups.records + place + LINE)
    if bytes_each > 2 * LINE:
        prefetch(groups.records + place + 2 * LINE)


cdef inline char *numbers_of(Record *record) noexcept nogil:
    return <char *>record + HEADER


cdef inline i128 number_at(const Record *record, int64_t n) noexcept nogil:
    """A number of a record: quantities first, then amounts."""
    cdef const char *numbers = <const char *>record + HEADER
    cdef int64_t narrow
    if record.shape & <uint32_t>WIDE:
        return i128_load(numbers + 16 * n)
    memcpy(&narrow, numbers + 8 * n, 8)
    return i128_from_int64(narrow)


cdef inline int add_at(char *sum, i128 value) noexcept nogil:
    cdef i128 total = i128_load(sum)
    if i128_add(&total, value):
        return ERROR_OVERFLOW
    i128_store(sum, total)
    return 0


cdef inline uint64_t group_hash(uint64_t lo, uint64_t hi, uint32_t shape, uint32_t window) noexcept nogil:
    return fmix64(lo ^ (hi >> 32) ^ (hi << 32) ^ ((<uint64_t>shape << 32 | window) * <uint64_t>0x9E3779B97F4A7C15))


cdef inline bint is_of(Record *record, Group *group) noexcept nogil:
    return (
        record.lo == group.lo and record.hi == group.hi
        and record.shape & ~<uint32_t>WIDE == group.shape and record.window == group.window
    )


cdef inline int groups_open(Groups *groups) noexcept nogil:
    memset(groups, 0, sizeof(Groups))
    groups.size = FIRST_BYTES
    groups.records = <char *>arena_grow(NULL, 0, FIRST_BYTES)
    if groups.records == NULL or index_open(&groups.index, FIRST_ENTRIES):
        return ERROR_MEMORY
    groups_clear(groups)
    return 0


cdef inline void groups_close(Groups *groups) noexcept nogil:
    index_close(&groups.index)
    table_free(groups.records, groups.size)


cdef inline void groups_clear(Groups *groups) noexcept nogil:
    index_clear(&groups.index)
    groups.count = 0
    groups.used = groups.used_before = 0
    groups.more_rows = 0
    groups.first_window = <uint32_t>-1
    groups.last_window = 0


cdef inline int64_t groups_guess(Groups *groups, uint64_t hashed, uint64_t *entry) noexcept nogil:
    """The place of the first record that the hash does not tell apart, which is still to be compared; -1, and the
    empty entry where it belongs, if there is none."""
    cdef uint64_t at = index_home(&groups.index, hashed), found
    while True:
        found = groups.index.entries[at]
        if found == 0:
            entry[0] = at
            return -1
        if index_alike(found, hashed):
            return <int64_t>index_number(found) * LINE
        at = (at + 1) & groups.index.mask


cdef inline int64_t groups_find(Groups *groups, Group *group, uint64_t *entry) noexcept nogil:
    """The place of a group's record; -1, and the empty entry where it belongs, if there is none."""
    cdef uint64_t at = index_home(&groups.index, group.hashed), found
    cdef int64_t place
    while True:
        found = groups.index.entries[at]
        if found == 0:
            entry[0] = at
            return -1
        place = <int64_t>index_number(found) * LINE
        if index_alike(found, group.hashed) and is_of(record_at(groups, place), group):
            return place
        at = (at + 1) & groups.index.mask


cdef inline int groups_reserve(Groups *groups, int64_t more, int64_t bytes_each) noexcept nogil:
    """Makes room for so many more groups of at most so many bytes each, and for as many to become wide. Entries and
    records may move."""
    cdef char *records
    if index_reserve(&groups.index, more):
        return ERROR_MEMORY
    while groups.used + 2 * more * bytes_each > groups.size:
        if 2 * groups.size // LINE > <int64_t>ARENA_LINES_MAX:
            return ERROR_MEMORY
        records = <char *>arena_grow(groups.records, groups.size, groups.size * 2)
        if records == NULL:
            return ERROR_MEMORY
        groups.records = records
        groups.size *= 2
    return 0


cdef inline int64_t groups_ahead(Groups *groups) noexcept nogil:
    """How many bytes behind those that are `touched` are about to be filled for the first time, told once: twice as
    many as were filled since the last call, if that is worth it."""
    cdef int64_t end = min(groups.used + 2 * (groups.used - groups.used_before), groups.size), more
    groups.used_before = groups.used
    groups.touched = max(groups.touched, groups.used)
    more = end - groups.touched
    if more < AHEAD_BYTES_MIN:
        return 0
    groups.touched = end
    return more


cdef inline int64_t groups_begin(Groups *groups, uint64_t entry, Group *group, int64_t bytes_each) noexcept nogil:
    """Begins the group of an empty entry; returns the place of its record. Room must have been reserved."""
    cdef int64_t place = groups.used
    cdef Record *record = record_at(groups, place)
    memset(record, 0, bytes_each)
    record.lo = group.lo
    record.hi = group.hi
    record.shape = group.shape
    record.window = group.window
    index_fill(&groups.index, entry, group.hashed, place // LINE)
    groups.used += bytes_each
    groups.count += 1
    groups.first_window = min(groups.first_window, group.window)
    groups.last_window = max(groups.last_window, group.window)
    return place


cdef inline int group_add(Groups *groups, int64_t *place, int64_t meters, int64_t n, i128 value) noexcept nogil:
    """Adds to the n-th number of a record, whose place changes if it becomes wide. Room must have been reserved."""
    cdef Record *record = record_at(groups, place[0])
    if not record.shape & <uint32_t>WIDE:
        if not does_not_fit(<char *>record + HEADER + 8 * n, value):
            return 0
        place[0] = group_widen(groups, place[0], meters)
        record = record_at(groups, place[0])
    return add_at(<char *>record + HEADER + 16 * n, value)


cdef inline int64_t group_widen(Groups *groups, int64_t place, int64_t meters) noexcept nogil:
    """Moves a record to the end, with numbers of 128 bits; returns its place."""
    cdef int64_t wide_place = groups.used, n
    cdef Record *record = record_at(groups, place)
    cdef Record *wide = record_at(groups, wide_place)
    cdef uint64_t hashed = group_hash(record.lo, record.hi, record.shape, record.window)
    cdef uint64_t at = index_home(&groups.index, hashed)
    memset(wide, 0, record_bytes(meters, True))
    memcpy(wide, record, HEADER)
    wide.shape |= <uint32_t>WIDE
    for n in range(2 * meters + 1):
        i128_store(<char *>wide + HEADER + 16 * n, number_at(record, n))
    while <int64_t>index_number(groups.index.entries[at]) * LINE != place:
        at = (at + 1) & groups.index.mask
    index_renumber(&groups.index, at, wide_place // LINE)
    record.shape |= <uint32_t>MOVED
    groups.used += record_bytes(meters, True)
    return wide_place
