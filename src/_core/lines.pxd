# An index of records (records.pxd) in cache lines of eight entries, at most three quarters full. The lower bits of a
# fingerprint choose a line; an entry is in it, or, if it was full, in the next that was not.
#
#     entry = lower 34 bits of the fingerprint | 1 | number of the record, 29 bits        0: empty, behind the others
#
# A probe touches one line, compares its eight entries at once, and touches a record only where 34 bits agree. In a
# table of 2^s lines they agree in s bits anyway: one probe in 2^(31 - s) looks at a record in vain. Entries of records
# that are gone give way to the next that come to their line; what is left of them goes when the table is full, and it
# grows only if that is not enough. One whose number has come round is taken for another's record: that differs in its
# fingerprint, so that nothing is found by it.
#
# Lines are fetched for FETCHED rows at once, in a loop with nothing else in it. In a table beyond the reach of the
# processor's buffer of translated addresses a prefetch waits for its page to be found, and all behind it waits too, but
# for as many as the processor has begun: in this loop dozens, in that which judges rows one. Measured at 10^8 ids that
# pass through a horizon: 62 to 72 ns an event in place of 163 to 191.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .int128 cimport prefetch
from .memory cimport doubling_alloc, doubling_double, doubling_free
from .records cimport COUNTED_BITS, Record, Records, is_live, record_at, records_live

cdef enum:
    LINE = 8  # entries
    FIRST_LINES = 512
    FETCHED = 32  # rows
    LINES_AHEAD = 16

cdef extern from *:
    """
    #ifdef __SSE4_1__
    #include <smmintrin.h>
    /* Bit n is set where entry n is empty, or of a record that is gone: older than the `live` newest. */
    static inline uint32_t tf_line_free(const uint64_t *line, uint64_t newest, uint64_t live) {
        const __m128i numbers = _mm_set1_epi32((1 << 29) - 1), last = _mm_set1_epi32((int)live - 1);
        const __m128i from = _mm_set1_epi32((int)(uint32_t)newest);
        uint32_t free = 0;
        for (int n = 0; n < 8; n += 4) {
            __m128 two = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)(line + n)));
            __m128 more = _mm_castsi128_ps(_mm_loadu_si128((const __m128i *)(line + n + 2)));
            __m128i lower = _mm_castps_si128(_mm_shuffle_ps(two, more, _MM_SHUFFLE(2, 0, 2, 0))); /* 0: empty */
            __m128i gone = _mm_cmpgt_epi32(_mm_and_si128(_mm_sub_epi32(from, lower), numbers), last);
            __m128i either = _mm_or_si128(gone, _mm_cmpeq_epi32(lower, _mm_setzero_si128()));
            free |= (uint32_t)_mm_movemask_ps(_mm_castsi128_ps(either)) << n;
        }
        return free;
    }
    /* Bit n is set where entry n is of the mark: the bits above the number. */
    static inline uint32_t tf_line_alike(const uint64_t *line, uint64_t mark) {
        __m128i sought = _mm_set1_epi64x((long long)mark);
        uint32_t alike = 0;
        for (int n = 0; n < 4; n++) {
            __m128i two = _mm_srli_epi64(_mm_loadu_si128((const __m128i *)line + n), 29);
            alike |= (uint32_t)_mm_movemask_pd(_mm_castsi128_pd(_mm_cmpeq_epi64(two, sought))) << (2 * n);
        }
        return alike;
    }
    #else
    static inline uint32_t tf_line_free(const uint64_t *line, uint64_t newest, uint64_t live) {
        uint32_t free = 0;
        for (int n = 0; n < 8; n++)
            free |= (uint32_t)(!line[n] || ((newest - line[n]) & ((1u << 29) - 1)) >= live) << n;
        return free;
    }
    static inline uint32_t tf_line_alike(const uint64_t *line, uint64_t mark) {
        uint32_t alike = 0;
        for (int n = 0; n < 8; n++) alike |= (uint32_t)(line[n] >> 29 == mark) << n;
        return alike;
    }
    #endif
    /* How many entries a line has that is not full. */
    static inline uint32_t tf_line_filled(const uint64_t *line) {
        uint32_t filled = line[3] ? 4 : 0;
        filled += line[filled + 1] ? 2 : 0;
        return filled + (line[filled] ? 1 : 0);
    }
    static inline uint32_t tf_lowest_bit(uint32_t bits) { return (uint32_t)__builtin_ctz(bits); }
    """
    uint32_t line_free "tf_line_free"(const uint64_t *line, uint64_t newest, uint64_t live) nogil
    uint32_t line_alike "tf_line_alike"(const uint64_t *line, uint64_t mark) nogil
    uint32_t line_filled "tf_line_filled"(const uint64_t *line) nogil
    uint32_t lowest_bit "tf_lowest_bit"(uint32_t bits) nogil

cdef struct Lines:
    uint64_t *entries
    uint64_t mask  # lines - 1
    uint64_t used  # entries, also of records that are gone
    uint64_t room  # how many there may be


cdef inline uint64_t lines_bytes(const Lines *lines) noexcept nogil:
    return 0 if lines.entries == NULL else (lines.mask + 1) * LINE * sizeof(uint64_t)


cdef inline void lines_sized(Lines *lines, uint64_t count) noexcept nogil:
    lines.mask, lines.room = count - 1, count * LINE * 3 // 4


cdef inline uint64_t lines_for(uint64_t ids) noexcept nogil:
    """How many lines have room for so many."""
    cdef uint64_t count = FIRST_LINES
    while count * LINE * 3 // 4 < ids:
        count *= 2
    return count


cdef inline int lines_open(Lines *lines, uint64_t ids) noexcept nogil:
    """An empty index with room for so many; -1: no memory."""
    cdef uint64_t count = lines_for(ids)
    lines_sized(lines, count)
    lines.used = 0
    lines.entries = <uint64_t *>doubling_alloc(count * LINE * sizeof(uint64_t))
    return -(lines.entries == NULL)


cdef inline void lines_close(Lines *lines) noexcept nogil:
    doubling_free(lines.entries, lines_bytes(lines))
    lines.entries = NULL


cdef inline void lines_prefetch(const Lines *lines, uint64_t lo) noexcept nogil:
    prefetch(&lines.entries[(lo & lines.mask) * LINE])


cdef inline void lines_fetch(
    const Lines *lines, const char *fingerprints, int64_t step, const uint32_t *rows, int64_t first, int64_t end
) noexcept nogil:
    """Fetches the lines of fingerprints, `step` bytes apart: of those from `first` on, or of these `rows`."""
    cdef int64_t n
    cdef uint64_t lo
    for n in range(first, end):
        memcpy(&lo, fingerprints + step * (rows[n] if rows != NULL else n), 8)
        lines_prefetch(lines, lo)


cdef inline void lines_fetch_behind(
    const Lines *lines, const char *fingerprints, int64_t step, const uint32_t *rows, int64_t first, int64_t end
) noexcept nogil:
    """The same, once those are there, of the lines behind those that are full."""
    cdef int64_t n
    cdef uint64_t lo, line
    for n in range(first, end):
        memcpy(&lo, fingerprints + step * (rows[n] if rows != NULL else n), 8)
        line = lo & lines.mask
        lines_prefetch(lines, line + (lines.entries[line * LINE + LINE - 1] != 0))  # without a branch to be guessed


cdef inline void lines_fetch_ahead(
    const Lines *lines, const char *fingerprints, int64_t step, const uint32_t *rows, int64_t row, int64_t first,
    int64_t end,
) noexcept nogil:
    """Before a block of FETCHED rows from `row` on, of `first` to `end`: fetches what the next block asks for."""
    cdef int64_t next = min(row + FETCHED, end)
    if row == first:
        lines_fetch(lines, fingerprints, step, rows, row, next)
    lines_fetch_behind(lines, fingerprints, step, rows, row, next)
    lines_fetch(lines, fingerprints, step, rows, next, min(next + FETCHED, end))


cdef inline uint64_t mark_of(uint64_t lo) noexcept nogil:
    """What stands above the number in an entry."""
    return (lo << 1 | 1) & ((1ULL << 35) - 1)


cdef inline uint64_t place_from(const Lines *lines, uint64_t line) noexcept nogil:
    """The first empty place of this line or one behind it."""
    while lines.entries[line * LINE + LINE - 1]:
        line = (line + 1) & lines.mask
    return line * LINE + line_filled(&lines.entries[line * LINE])


cdef inline const Record *lines_find(
    const Lines *lines, const Records *records, uint64_t lo, uint64_t hi, uint64_t *place
) noexcept nogil:
    """The record of the fingerprint; NULL, and the place where its entry belongs, if there is none: the first that is
    empty, or whose record is gone."""
    cdef uint64_t line = lo & lines.mask, mark = mark_of(lo), number
    cdef const uint64_t *entries
    cdef const Record *record
    cdef uint64_t live = records_live(records)
    cdef uint32_t alike, free = 0
    while True:
        entries = &lines.entries[line * LINE]
        alike = line_alike(entries, mark)
        while alike:
            number = entries[lowest_bit(alike)]
            if is_live(records, number):
                record = record_at(records, number)
                if record.lo == lo and record.hi == hi:
                    return record
            alike &= alike - 1
        if free == 0:
            free = line_free(entries, records.end - 1, live)
            place[0] = line * LINE + lowest_bit(free | 1 << LINE)
        if entries[LINE - 1] == 0:
            return NULL
        line = (line + 1) & lines.mask


cdef inline void lines_put(Lines *lines, uint64_t place, uint64_t lo, uint64_t number) noexcept nogil:
    """Fills a place; `lines_make_room` comes before the next where `used` has come to `room`."""
    lines.used += lines.entries[place] == 0
    lines.entries[place] = mark_of(lo) << COUNTED_BITS | (number & ((1 << COUNTED_BITS) - 1))


cdef inline void lines_sort(Lines *lines, uint64_t count, const Records *records) noexcept nogil:
    """Takes the entries of the first `count` lines out and puts those of live records in again, in the order in which
    they were probed, from behind a line that is not full.

    None then lands behind its old place, in either half of a table that was doubled, so that no probe passes a line
    that is emptied later.
    """
    cdef uint64_t held[LINE]
    cdef uint64_t filled[2]  # of the two lines, of either half, in which entries of a line mostly land
    cdef uint64_t *landing[2]
    cdef uint64_t first = 0, step, line, home, half, place
    cdef int n
    while lines.entries[first * LINE + LINE - 1]:
        first += 1
    lines.used = 0
    for step in range(1, count + 1):
        line = (first + step) & (count - 1)
        landing[0] = &lines.entries[line * LINE]
        landing[1] = &lines.entries[((line + count) & lines.mask) * LINE]
        filled[0] = filled[1] = 0
        for n in range(LINE):
            held[n] = landing[0][n]
            landing[0][n] = 0
        for n in range(LINE):
            if held[n] == 0:
                break
            if not is_live(records, held[n]):
                continue
            lines.used += 1
            home = held[n] >> (COUNTED_BITS + 1) & lines.mask
            half = home >= count
            if home & (count - 1) == line:
                landing[half][filled[half]] = held[n]
                filled[half] += 1
            else:
                place = place_from(lines, home)
                lines.entries[place] = held[n]
                filled[half] += place // LINE == line + half * count


cdef inline int lines_double(Lines *lines, const Records *records) noexcept nogil:
    """Doubles the table in its place: the memory of both is never needed at once. -1: no memory."""
    cdef uint64_t count = lines.mask + 1
    cdef uint64_t *entries = <uint64_t *>doubling_double(lines.entries, lines_bytes(lines))
    if entries == NULL:
        return -1
    lines.entries = entries
    lines_sized(lines, 2 * count)
    lines_sort(lines, count, records)
    return 0


cdef inline bint must_double(const Lines *lines, const Records *records) noexcept nogil:
    """Whether the table has to grow when it is full, because few of its entries are of records that are gone."""
    return records_live(records) * 3 > lines.room * 2


cdef inline bint lines_double_soon(const Lines *lines, const Records *records) noexcept nogil:
    return lines.used * 8 > lines.room * 7 and must_double(lines, records)


cdef inline uint64_t lines_bytes_soon(const Lines *lines, const Records *records) noexcept nogil:
    """What it takes, or is about to take: a bound has to be kept before a table doubles, not behind it."""
    return lines_bytes(lines) * (2 if lines_double_soon(lines, records) else 1)


cdef inline uint64_t *lines_ahead(const Lines *lines, const Records *records) noexcept nogil:
    """The memory, as much as the table has, into which it is about to double; else NULL."""
    return lines.entries + lines_bytes(lines) // sizeof(uint64_t) if lines_double_soon(lines, records) else NULL


cdef inline int lines_make_room(Lines *lines, const Records *records) noexcept nogil:
    """For at least half as many entries as there may be already; -1: no memory."""
    if must_double(lines, records):
        return lines_double(lines, records)
    lines_sort(lines, lines.mask + 1, records)
    return 0


cdef inline int lines_fit(Lines *lines, const Records *records) noexcept nogil:
    """Makes the table anew if one that is smaller has room for a third more than are left; -1: no memory."""
    cdef uint64_t number, lo, ids = records_live(records) // 3 * 4
    cdef Lines smaller
    if lines_for(ids) > lines.mask:
        return 0
    if lines_open(&smaller, ids):
        return -1
    for number in range(records.first, records.end):
        if number + LINES_AHEAD < records.end:
            lines_prefetch(&smaller, record_at(records, number + LINES_AHEAD).lo)
        lo = record_at(records, number).lo
        lines_put(&smaller, place_from(&smaller, lo & smaller.mask), lo, number)
    lines_close(lines)
    lines[0] = smaller
    return 0
