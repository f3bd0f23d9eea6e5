"""Usage by customer, model and hour, from the rows that a block leaves as; and sizes of a sample of events.

Anomalies are looked for in these sums: see flow/anomalies. A *cell* is one customer, model, denominator and hour of
event time. Rows are added with a sign, so that what came too late can be taken out again; all sums wrap, as two's
complement does, so that the order of additions does not matter.

Memory: an open-addressing table of 64-byte cells, at most half full.
Cost: up to 60 ns a row, a probe of a table of megabytes included, and 2 ns for a row whose customer is not watched;
`sampled` takes 1 ns an event and 10 ns one that it chooses.
Proved by: tests/parity/test_usage.py, against sums in plain Python.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int8_t, int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()
KEY_BITS = (26, 26, 6)
"""Bits of a key: the number of a customer, of a model and of a denominator; the first are the highest."""
ROW_WORDS = 10
"""int64 a row of `rows`: hour, key, events, events with something unpriced, quantity and amount in three limbs each
(32, 32 and 64 bits, the lowest first)."""
SLOTS = 4

cdef enum:
    BLOCK = 256  # rows whose cells are fetched ahead
    CELLS_PER_ROW_MAX = 5  # one, and one for each slot with a denominator of its own

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    struct tf_cell {
        unsigned __int128 quantity;
        unsigned __int128 amount;
        int64_t hour_more;  /* the hour + 1; 0: empty */
        uint64_t key;
        uint64_t events;
        uint64_t unpriced;
    };
    struct tf_usage {  /* rows of a block, what their codes mean, and what of them is not looked at */
        const int32_t *customers;
        const int32_t *models;
        const int32_t *meters;
        const uint32_t *window_s;
        const uint8_t *unpriced;
        const uint64_t *events;
        const char *quantities[4];
        const char *amounts[4];
        const int64_t *customer_numbers;
        const int64_t *model_numbers;
        const uint8_t *pers;  /* of each code of meters, the denominators of its four slots */
        const uint8_t *first; /* and whether its first slot is the requests */
        const uint64_t *hashes;
        const uint64_t *limits;
        int64_t limits_from;
        int64_t limits_count;
        int64_t least_hour;
        uint64_t sign;  /* 1 or -1 */
    };
    static inline uint64_t tf_cell_hash(int64_t hour, uint64_t key) {
        uint64_t h = (key ^ (uint64_t)hour << 47) * 0x9e3779b97f4a7c15ULL;
        return (h ^ h >> 29) * 0xbf58476d1ce4e5b9ULL >> 20;
    }
    static inline struct tf_cell *tf_cell_of(struct tf_cell *cells, uint64_t mask, int64_t hour, uint64_t key,
                                             int64_t *count) {
        uint64_t at = tf_cell_hash(hour, key) & mask;
        while (cells[at].hour_more) {
            if (cells[at].key == key && cells[at].hour_more == hour + 1) return cells + at;
            at = (at + 1) & mask;
        }
        cells[at].hour_more = hour + 1;
        cells[at].key = key;
        ++*count;
        return cells + at;
    }
    static inline unsigned __int128 tf_wide(const char *column, int64_t row) {
        unsigned __int128 value;
        memcpy(&value, column + 16 * row, 16);
        return value;
    }
    static inline void tf_usage_row(const struct tf_usage *of, int64_t row, struct tf_cell *cells, uint64_t mask,
                                    int64_t hour, uint64_t key, int64_t *count) {
        const uint8_t *pers = of->pers + 4 * (int64_t)of->meters[row];
        uint8_t unpriced = of->unpriced[row], first = of->first[of->meters[row]];
        unsigned __int128 quantity = 0, amount = 0, sign = (unsigned __int128)(__int128)(int64_t)of->sign;
        for (int slot = 0; slot < 4; slot++) {
            unsigned __int128 cost = tf_wide(of->amounts[slot], row);
            if (!(unpriced >> slot & 1) && !(slot == 0 && first)) quantity += tf_wide(of->quantities[slot], row);
            if (__builtin_expect(pers[slot] == 0, 1)) amount += cost;
            else if (cost) tf_cell_of(cells, mask, hour, key + pers[slot], count)->amount += sign * cost;
        }
        struct tf_cell *cell = tf_cell_of(cells, mask, hour, key, count);
        cell->quantity += sign * quantity;
        cell->amount += sign * amount;
        cell->events += first ? of->sign * of->events[row] : 0;
        cell->unpriced += unpriced ? of->sign * of->events[row] : 0;
    }
    /* At most 256 rows; returns the first hour that has got something. */
    static int64_t tf_usage_rows(const struct tf_usage *of, int64_t begin, int64_t rows, struct tf_cell *cells,
                                 uint64_t mask, int64_t *count) {
        uint64_t keys[256];
        int64_t hours[256], oldest = INT64_MAX;
        for (int64_t n = 0; n < rows; n++) {
            int64_t row = begin + n, hour = of->window_s[row] / 3600, at = hour - of->limits_from;
            int32_t customer = of->customers[row];
            int skipped = hour < of->least_hour;
            if (at >= 0 && at < of->limits_count) skipped |= of->hashes[customer] >= of->limits[at];
            hours[n] = skipped ? -1 : hour;
            uint64_t model = of->model_numbers[of->models[row]];
            keys[n] = (uint64_t)of->customer_numbers[customer] << 32 | model << 6;
            if (!skipped) __builtin_prefetch(cells + (tf_cell_hash(hour, keys[n]) & mask), 1);
        }
        for (int64_t n = 0; n < rows; n++) {
            if (hours[n] < 0) continue;
            if (hours[n] < oldest) oldest = hours[n];
            tf_usage_row(of, begin + n, cells, mask, hours[n], keys[n], count);
        }
        return oldest;
    }
    static void tf_limbs(unsigned __int128 value, int64_t *out) {
        out[0] = (int64_t)((uint64_t)value & 0xFFFFFFFFu);
        out[1] = (int64_t)((uint64_t)value >> 32);
        out[2] = (int64_t)(uint64_t)(value >> 64);
    }
    static unsigned __int128 tf_of_limbs(const int64_t *limbs) {
        return ((unsigned __int128)(uint64_t)limbs[2] << 64) + ((uint64_t)limbs[1] << 32) + (uint64_t)limbs[0];
    }
    /* Writes the cells that are not 0; of amounts with a denominator, what they are in whole units, rounded down. */
    static int64_t tf_cells_out(const struct tf_cell *cells, uint64_t mask, const char *pers, int64_t per_count,
                                int64_t *out) {
        int64_t rows = 0;
        for (uint64_t at = 0; at <= mask; at++) {
            const struct tf_cell *cell = cells + at;
            if (!cell->hour_more || !(cell->events | cell->unpriced | (cell->quantity != 0) | (cell->amount != 0)))
                continue;
            int64_t *row = out + 10 * rows++, per = cell->key & 63;
            row[0] = cell->hour_more - 1;
            row[1] = (int64_t)cell->key;
            row[2] = (int64_t)cell->events;
            row[3] = (int64_t)cell->unpriced;
            tf_limbs(cell->quantity, row + 4);
            tf_limbs(per < per_count ? cell->amount / tf_wide(pers, per) : cell->amount, row + 7);
        }
        return rows;
    }
    static void tf_cells_in(struct tf_cell *cells, uint64_t mask, int64_t *count, const int64_t *in, int64_t rows) {
        for (int64_t n = 0; n < rows; n++) {
            const int64_t *row = in + 10 * n;
            struct tf_cell *cell = tf_cell_of(cells, mask, row[0], (uint64_t)row[1], count);
            cell->events += (uint64_t)row[2];
            cell->unpriced += (uint64_t)row[3];
            cell->quantity += tf_of_limbs(row + 4);
            cell->amount += tf_of_limbs(row + 7);
        }
    }
    static void tf_cells_move(const struct tf_cell *old, uint64_t old_mask, struct tf_cell *cells, uint64_t mask) {
        int64_t count = 0;
        for (uint64_t at = 0; at <= old_mask; at++)
            if (old[at].hour_more) *tf_cell_of(cells, mask, old[at].hour_more - 1, old[at].key, &count) = old[at];
    }
    """
    ctypedef struct Cell "struct tf_cell":
        pass
    ctypedef struct Usage "struct tf_usage":
        const int32_t *customers
        const int32_t *models
        const int32_t *meters
        const uint32_t *window_s
        const uint8_t *unpriced
        const uint64_t *events
        const char *quantities[4]
        const char *amounts[4]
        const int64_t *customer_numbers
        const int64_t *model_numbers
        const uint8_t *pers
        const uint8_t *first
        const uint64_t *hashes
        const uint64_t *limits
        int64_t limits_from
        int64_t limits_count
        int64_t least_hour
        uint64_t sign
    int64_t usage_rows "tf_usage_rows"(
        const Usage *of, int64_t begin, int64_t rows, Cell *cells, uint64_t mask, int64_t *count) nogil
    int64_t cells_out "tf_cells_out"(
        const Cell *cells, uint64_t mask, const char *pers, int64_t per_count, int64_t *out) nogil
    void cells_in "tf_cells_in"(Cell *cells, uint64_t mask, int64_t *count, const int64_t *rows, int64_t n) nogil
    void cells_move "tf_cells_move"(const Cell *old, uint64_t old_mask, Cell *cells, uint64_t mask) nogil


@cython.final
cdef class UsageSums:
    """Sums by hour and key."""

    cdef Cell *cells
    cdef uint64_t mask
    cdef int64_t count
    cdef readonly int64_t oldest
    """The first hour that may have a cell; 2^63 - 1: none."""

    def __cinit__(self):
        self.mask = 1023
        self.cells = <Cell *>calloc(self.mask + 1, sizeof(Cell))
        if self.cells == NULL:
            raise MemoryError()
        self.oldest = 2**63 - 1

    def __dealloc__(self):
        free(self.cells)

    def __len__(self):
        return self.count

    cdef int _room(self, int64_t more) except -1 nogil:
        """Makes room for so many more cells. Raises MemoryError."""
        cdef uint64_t mask = self.mask
        cdef Cell *cells
        while 2 * <uint64_t>(self.count + more) > mask:
            mask = 2 * mask + 1
        if mask != self.mask:
            cells = <Cell *>calloc(mask + 1, sizeof(Cell))
            if cells == NULL:
                raise MemoryError()
            cells_move(self.cells, self.mask, cells, mask)
            free(self.cells)
            self.cells, self.mask = cells, mask
        return 0

    def add(
        self, tuple codes not None, const uint32_t[::1] window_s, const uint8_t[::1] unpriced,
        const uint64_t[::1] events, list quantities not None, list amounts not None, tuple numbers not None,
        tuple limits not None, int64_t least_hour, int64_t sign,
    ) -> None:
        """Adds rows of `rollup_minute` (sign 1), or takes them away (-1).

        codes: int32 customers, models, meters a row; quantities, amounts: int8 buffers of 16 bytes a row, a slot each.
        numbers: by code: int64 of a customer, int64 of a model, four uint8 of the denominators of a set of meters, and
        uint8: whether its first slot is the requests. limits: uint64 hashes by customer code, uint64 limits by hour,
        the hour of the first of them: a customer whose hash is not below the limit of an hour is left out, and so are
        hours before `least_hour`. Raises ValueError for columns of different lengths, MemoryError.
        """
        cdef const int32_t[::1] customers = codes[0], models = codes[1], meters = codes[2]
        cdef const int64_t[::1] customer_numbers = numbers[0], model_numbers = numbers[1]
        cdef const uint8_t[::1] pers = numbers[2], first = numbers[3]
        cdef const uint64_t[::1] hashes = limits[0], by_hour = limits[1]
        cdef const int8_t[::1] column
        cdef Usage usage
        cdef int64_t rows = window_s.shape[0], begin, block, got
        cdef int slot
        for length in (customers.shape[0], models.shape[0], meters.shape[0], unpriced.shape[0], events.shape[0]):
            if length != rows:
                raise ValueError(f"{length} values in a column of {rows} rows")
        if not rows:
            return
        usage.customers, usage.models, usage.meters = &customers[0], &models[0], &meters[0]
        usage.window_s, usage.unpriced, usage.events = &window_s[0], &unpriced[0], &events[0]
        for slot in range(4):
            for wide, of in ((False, quantities), (True, amounts)):
                column = of[slot]
                if column.shape[0] < 16 * rows:
                    raise ValueError(f"{column.shape[0]} bytes in a column of {rows} wide rows")
                if wide:
                    usage.amounts[slot] = <const char *>&column[0]
                else:
                    usage.quantities[slot] = <const char *>&column[0]
        usage.customer_numbers, usage.model_numbers = &customer_numbers[0], &model_numbers[0]
        usage.pers, usage.first = &pers[0], &first[0]
        usage.limits_from, usage.limits_count = limits[2], by_hour.shape[0]
        usage.hashes, usage.limits = NULL, NULL
        if usage.limits_count:
            usage.hashes, usage.limits = &hashes[0], &by_hour[0]
        usage.least_hour, usage.sign = least_hour, <uint64_t>sign
        with nogil:
            for block in range((rows + BLOCK - 1) // BLOCK):
                begin = BLOCK * block
                self._room(CELLS_PER_ROW_MAX * BLOCK)
                got = usage_rows(&usage, begin, min(<int64_t>BLOCK, rows - begin), self.cells, self.mask, &self.count)
                self.oldest = min(self.oldest, got)

    def rows(self, bytes pers=b"") -> bytes:
        """All cells but those of zeros, in no order, ROW_WORDS int64 each. pers: the denominators, 16 bytes each; with
        them, amounts are in whole units, rounded down. Raises MemoryError."""
        cdef int64_t rows, per_count = len(pers) // 16
        cdef bytes out = PyBytes_FromStringAndSize(NULL, 80 * self.count)
        cdef char *into = out
        cdef const char *by = pers
        with nogil:
            rows = cells_out(self.cells, self.mask, by, per_count, <int64_t *>into)
        return out[: 80 * rows]

    def load(self, const int64_t[:, ::1] rows) -> None:
        """Takes the place of what is here: rows of `rows`. Raises ValueError, MemoryError."""
        if rows.shape[1] != 10:
            raise ValueError(f"a row has {ROW_WORDS} words, not {rows.shape[1]}")
        cdef Cell *cells = <Cell *>calloc(1024, sizeof(Cell))
        if cells == NULL:
            raise MemoryError()
        free(self.cells)
        self.cells, self.mask, self.count, self.oldest = cells, 1023, 0, 2**63 - 1
        self._room(rows.shape[0])
        cdef int64_t n
        if rows.shape[0]:
            cells_in(self.cells, self.mask, &self.count, &rows[0, 0], rows.shape[0])
            for n in range(rows.shape[0]):
                self.oldest = min(self.oldest, rows[n, 0])


def sampled(
    const uint32_t[::1] rows, const uint64_t[::1] fingerprints, uint64_t bits, const int32_t[::1] customers,
    const int32_t[::1] projects, const int32_t[::1] offsets, const int64_t[::1] quantities,
    int32_t[::1] out_customers, int32_t[::1] out_projects, int64_t[::1] out_sizes,
) -> int:
    """Of the chosen rows of a batch those whose fingerprint has none of `bits` in its high half: customer, project, and
    what their quantities add up to, each at most 2^40. Returns how many they are; room for all rows is in `out`."""
    cdef int64_t n, item, row, size, count = 0
    cdef int64_t most = <int64_t>1 << 40  # so that no sum overflows
    if min(out_customers.shape[0], out_projects.shape[0], out_sizes.shape[0]) < rows.shape[0]:
        raise ValueError("no room for all rows")
    with nogil:
        for n in range(rows.shape[0]):
            row = rows[n]
            if fingerprints[2 * row + 1] & bits:
                continue
            size = 0
            for item in range(offsets[row], offsets[row + 1]):
                size += min(quantities[item], most)
            out_customers[count] = customers[row]
            out_projects[count] = projects[row]
            out_sizes[count] = size
            count += 1
    return count
