"""Correction deltas: by how much usage costs more or less than before, and what deltas add up to by customer and
window.

Memory: rows of a rollup come in the store's order, so those of a customer's window stand together. What they add up to
is a few sums, one for each name of a meter, which stay in the cache; they leave when the next window begins. A meter
may be there under several names, one for each denominator of its amounts: they leave as one row, in whole 10^-15
currency units rounded down and a rest in 10^-15 / per_of_all, which every denominator divides.

Cost: about 3 ns an item that is compared, and 50 ns a row that is added, with three slots that leave as a row each.
Proved by: tests/unit/test_correct.py against flow/oracle/rating.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memset

from .int128 cimport i128, i128_add, i128_from_int64, i128_load, i128_store
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef enum:
    STORE_SLOTS = 4

cdef extern from *:
    """
    /* The differences and sums of correct.pyx; each returns 1 on overflow. */
    static inline int tf_i128_sub(__int128 a, __int128 b, __int128 *out) { return __builtin_sub_overflow(a, b, out); }
    static inline int tf_is_zero(__int128 value) { return value == 0; }
    /* Adds amount / per, rounded down, to *whole, and what is left, times weight, to *rest, which stays below `one`. */
    static inline int tf_add_parts(
        __int128 amount, int64_t per, unsigned __int128 weight, unsigned __int128 one, __int128 *whole, __int128 *rest
    ) {
        __int128 quotient = amount / per, left = amount % per;
        if (left < 0) { left += per; quotient -= 1; }
        unsigned __int128 more = (unsigned __int128)*rest + (unsigned __int128)left * weight;
        if (more >= one) { more -= one; quotient += 1; }
        *rest = (__int128)more;
        return __builtin_add_overflow(*whole, quotient, whole);
    }
    """
    int i128_sub "tf_i128_sub"(i128 a, i128 b, i128 *out) nogil
    bint is_zero "tf_is_zero"(i128 value) nogil
    int add_parts "tf_add_parts"(i128 amount, int64_t per, i128 weight, i128 one, i128 *whole, i128 *rest) nogil

cdef struct Side:  # what usage costs by one book
    const char *amounts
    const int64_t *per
    const char *requests

cdef struct Out:  # where `differences` writes
    char *amounts
    char *requests
    uint32_t *selection
    int64_t selected
    int64_t moved

cdef struct Rows:  # of a rollup
    int64_t rows
    const int32_t *customer
    const uint32_t *window
    const int32_t *slots
    const int32_t *names
    const uint8_t *unpriced
    const char *amount[STORE_SLOTS]
    const char *quantity[STORE_SLOTS]

cdef struct Leaving:  # rows of sums, and where they go
    int64_t rows
    int32_t *customer
    uint32_t *window
    int32_t *meter
    char *unpriced
    char *amount
    char *rest

cdef struct Name:  # of a meter in the rollups, and its sums in the group at hand
    int32_t meter
    bint touched
    int64_t per
    char weight[16]  # per_of_all / per
    char amount[16]
    char unpriced[16]


# ---- Differences ------------------------------------------------------------------------------------------------


cdef int _differences(int64_t rows, const int32_t *starts, Side before, Side after, Out *out) noexcept nogil:
    cdef int64_t row, j
    cdef i128 more
    cdef bint differs
    for row in range(rows):
        if i128_sub(i128_load(after.requests + 16 * row), i128_load(before.requests + 16 * row), &more):
            return 1
        i128_store(out.requests + 16 * row, more)
        differs = not is_zero(more)
        for j in range(starts[row], starts[row + 1]):
            more = i128_from_int64(0)
            if after.per[j] != before.per[j]:
                out.moved += 1
            elif i128_sub(i128_load(after.amounts + 16 * j), i128_load(before.amounts + 16 * j), &more):
                return 1
            i128_store(out.amounts + 16 * j, more)
            differs |= not is_zero(more)
        out.selection[out.selected] = <uint32_t>row
        out.selected += differs
    return 0


cdef Side _side(tuple addresses):
    cdef Side side
    amounts, per, requests = addresses
    side.amounts, side.requests = <const char *><uintptr_t>amounts, <const char *><uintptr_t>requests
    side.per = <const int64_t *><uintptr_t>per
    return side


def differences(
    int64_t rows, uintptr_t usage_offsets, tuple before not None, tuple after not None, uintptr_t amounts,
    uintptr_t requests, uintptr_t selection,
):
    """By how much each usage item costs more, and the `requests` of each row, and in which rows anything does.

    `before`, `after`: addresses of amounts (16 bytes an item), their denominators (int64 an item) and the amounts of
    `requests` (16 bytes a row). An item with another denominator than before moves: its difference is 0 here.
    `amounts` 16 bytes an item, `requests` 16 bytes and `selection` uint32 a row are written. Returns how many rows are
    selected, and how many items move. Raises OverflowError.
    """
    cdef Side was = _side(before), becomes = _side(after)
    cdef Out out
    cdef int error
    out.amounts, out.requests, out.selection = <char *>amounts, <char *>requests, <uint32_t *>selection
    out.selected = out.moved = 0
    with nogil:
        error = _differences(rows, <const int32_t *>usage_offsets, was, becomes, &out)
    if error:
        raise OverflowError("a difference of amounts")
    return out.selected, out.moved


# ---- Sums -------------------------------------------------------------------------------------------------------


cdef class Sums:
    """What the rows of a rollup add up to by customer, window and meter.

    `names`: (meter, per) of each name, by meter; meters are numbered from 0. `per_of_all` is below 2^120.
    """

    cdef Name *names
    cdef int32_t *touched  # names of the group at hand
    cdef int64_t touched_count
    cdef int64_t name_count
    cdef i128 one  # per_of_all
    cdef i128 total
    cdef int32_t customer
    cdef uint32_t window

    def __cinit__(self, list names not None, object per_of_all not None):
        cdef int64_t i
        cdef bytes weight = int(per_of_all).to_bytes(16, "little")
        self.one = i128_load(<const char *>weight)
        self.total = i128_from_int64(0)
        self.name_count = len(names)
        self.names = <Name *>calloc(self.name_count + 1, sizeof(Name))
        self.touched = <int32_t *>calloc(self.name_count + 1, sizeof(int32_t))
        if self.names == NULL or self.touched == NULL:
            raise MemoryError()
        for i, (meter, per) in enumerate(names):
            weight = (per_of_all // per).to_bytes(16, "little")
            self.names[i].meter, self.names[i].per = meter, per
            i128_store(self.names[i].weight, i128_load(<const char *>weight))

    def __dealloc__(self):
        free(self.names)
        free(self.touched)

    @property
    def units(self):
        """The sum of all amounts so far, each in the unit of its name."""
        cdef char total[16]
        i128_store(total, self.total)
        return int.from_bytes(total[:16], "little", signed=True)

    cdef int _add(self, const Rows *rows, Leaving *out) noexcept nogil:
        cdef int64_t i, slot
        cdef int32_t name
        cdef i128 amount
        cdef int error = 0
        for i in range(rows.rows):
            if self.touched_count and (rows.customer[i] != self.customer or rows.window[i] != self.window):
                error |= self._leave(out)
            self.customer, self.window = rows.customer[i], rows.window[i]
            for slot in range(STORE_SLOTS):
                name = rows.names[STORE_SLOTS * rows.slots[i] + slot]
                amount = i128_load(rows.amount[slot] + 16 * i)
                if not is_zero(amount):
                    error |= self._add_to(self._touch(name).amount, amount) | i128_add(&self.total, amount)
                if rows.quantity[slot] != NULL and rows.unpriced[i] >> slot & 1:
                    error |= self._add_to(self._touch(name).unpriced, i128_load(rows.quantity[slot] + 16 * i))
        return error

    cdef inline int _add_to(self, char *sum, i128 value) noexcept nogil:
        cdef i128 found = i128_load(sum)
        cdef int error = i128_add(&found, value)
        i128_store(sum, found)
        return error

    cdef inline Name *_touch(self, int32_t name) noexcept nogil:
        """The sums of a name, which is put among those that are touched, in order: they are few."""
        cdef int64_t at
        if not self.names[name].touched:
            self.names[name].touched = True
            at = self.touched_count
            while at and self.touched[at - 1] > name:
                self.touched[at] = self.touched[at - 1]
                at -= 1
            self.touched[at] = name
            self.touched_count += 1
        return &self.names[name]

    cdef int _leave(self, Leaving *out) noexcept nogil:
        """The rows of the group at hand; it is empty then."""
        cdef int64_t n = 0
        cdef int32_t meter
        cdef i128 whole, rest, unpriced
        cdef Name *name
        cdef int error = 0
        while n < self.touched_count:
            meter = self.names[self.touched[n]].meter
            whole = rest = unpriced = i128_from_int64(0)
            while n < self.touched_count and self.names[self.touched[n]].meter == meter:
                name = &self.names[self.touched[n]]
                error |= add_parts(i128_load(name.amount), name.per, i128_load(name.weight), self.one, &whole, &rest)
                error |= i128_add(&unpriced, i128_load(name.unpriced))
                memset(name.amount, 0, 16)
                memset(name.unpriced, 0, 16)
                name.touched = False
                n += 1
            if is_zero(whole) and is_zero(rest) and is_zero(unpriced):
                continue
            out.customer[out.rows], out.window[out.rows], out.meter[out.rows] = self.customer, self.window, meter
            i128_store(out.unpriced + 16 * out.rows, unpriced)
            i128_store(out.amount + 16 * out.rows, whole)
            i128_store(out.rest + 16 * out.rows, rest)
            out.rows += 1
        self.touched_count = 0
        return error

    def add(
        self, int64_t rows, uintptr_t customers, uintptr_t windows, uintptr_t slots, uintptr_t slot_names,
        uintptr_t unpriced, tuple amounts not None, tuple quantities not None, tuple out not None,
    ):
        """Adds rows, and writes those of the groups that end in them; returns how many.

        `customers` int32, `windows` uint32, `unpriced` uint8 a row; `slots` int32 a row: what `slot_names` has the
        numbers of four names for. `amounts`: four addresses of 16 bytes a row; `quantities`: the same, or zeros where
        all quantities are 0. `out`: addresses of customers, windows, meters (int32), unpriced quantities, amounts and
        rests (16 bytes), with room for four rows a row and one a name. Raises OverflowError.
        """
        cdef Rows given
        cdef Leaving leaving = self._room(out)
        cdef int slot, error
        given.rows, given.unpriced = rows, <const uint8_t *>unpriced
        given.customer, given.window = <const int32_t *>customers, <const uint32_t *>windows
        given.slots, given.names = <const int32_t *>slots, <const int32_t *>slot_names
        for slot in range(STORE_SLOTS):
            given.amount[slot] = <const char *><uintptr_t>amounts[slot]
            given.quantity[slot] = <const char *><uintptr_t>quantities[slot]
        with nogil:
            error = self._add(&given, &leaving)
        if error:
            raise OverflowError("a sum of corrections")
        return leaving.rows

    def end(self, tuple out not None):
        """Writes the rows of the last group, as `add` does; returns how many. Raises OverflowError."""
        cdef Leaving leaving = self._room(out)
        if self._leave(&leaving):
            raise OverflowError("a sum of corrections")
        return leaving.rows

    cdef Leaving _room(self, tuple out):
        cdef Leaving leaving
        customers, windows, meters, unpriced, amounts, rests = out
        leaving.rows = 0
        leaving.customer, leaving.window = <int32_t *><uintptr_t>customers, <uint32_t *><uintptr_t>windows
        leaving.meter, leaving.unpriced = <int32_t *><uintptr_t>meters, <char *><uintptr_t>unpriced
        leaving.amount, leaving.rest = <char *><uintptr_t>amounts, <char *><uintptr_t>rests
        return leaving
