# Rated events into the sums of their minutes: what `Combiner.add` does with the rows of a batch, 32 at a time: hash and
# prefetch the entries, find and prefetch the records, then compare and add.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcpy

from .groups cimport (
    CODES, ERROR_MEMORY, LINE, WIDE, Group, Groups, Record, group_add, group_hash, groups_begin, groups_find,
    groups_guess, groups_reserve, is_of, numbers_of, prefetch_record, record_at, record_bytes, row_does_not_fit,
)
from .hash cimport hash_pair, murmur3
from .hash_wide cimport is_wide, wide_digests
from .index cimport index_prefetch
from .int128 cimport i128_from_int64, i128_load, prefetch, u128, u128_load, u128_store, u128_wrapping_add
from .names cimport Names, name_code
from .shapes cimport METERS_MAX, RawShape, RawShapes, raw_shape_number

cdef enum:
    BLOCK = 32
    AHEAD = 128  # rows, and items of them
    AHEAD_ITEMS = 512
    FLAG_UNPRICED = 1
    WINDOW_US = 60000000

cdef struct Shape:
    int32_t meters
    int32_t groups  # rows of the store a record leaves as
    int64_t totals  # where its totals of a block begin

cdef struct Minutes:
    Groups groups
    Names names[CODES]
    Shape *shapes
    RawShapes raw

cdef struct Values:  # of one dimension, in a batch
    const int32_t *codes
    const int32_t *starts
    const char *text
    int32_t *known  # this combiner's code of each, -1: not looked up yet
    uint32_t *new  # those that the block had not met before
    int64_t new_count

cdef struct Batch:  # what `Combiner.add` is given
    int64_t rows
    const uint32_t *selection
    const int64_t *time_us
    const char *fingerprint
    const char *payload
    const char *dims
    const int32_t *starts
    const int32_t *meter
    const int32_t *number
    const int64_t *quantity
    const char *amount
    const uint8_t *flag
    const char *request_amount
    Values values[CODES]

cdef struct Run:  # rows that go through the tables together
    int64_t rows
    bint unknown  # the row behind these has an unknown shape
    int64_t like  # the row whose meters were looked up last, or -1: they come in runs
    int64_t raw_number  # of these
    int64_t row[BLOCK]
    int64_t raw[BLOCK]
    int64_t place[BLOCK]
    Group group[BLOCK]
    u128 digest[BLOCK]


cdef inline int64_t add_rows(Minutes *minutes, Batch *batch, int64_t first, int *error) noexcept nogil:
    """Adds rows from `first` on; stops (and returns where) before a row whose shape is unknown, or at an error."""
    cdef int64_t at = first
    cdef Run run
    run.like = -1
    run.unknown = False
    while at < batch.rows and not run.unknown:
        look_up_rows(minutes, batch, at, &run)
        error[0] = groups_reserve(&minutes.groups, run.rows, record_bytes(METERS_MAX, True))
        if error[0]:
            return at
        error[0] = place_rows(minutes, batch, &run) or sum_rows(minutes, batch, &run)
        if error[0]:
            return at
        at += run.rows
    return at


cdef inline void look_up_rows(Minutes *minutes, Batch *batch, int64_t at, Run *run) noexcept nogil:
    """Rows from `at` on: shape, window, hash and digest of each; up to BLOCK of them, or to the first unknown
    shape."""
    cdef int64_t n = 0, row, first, ahead
    cdef Group *group
    while n < BLOCK and at + n < batch.rows:
        row = batch.selection[at + n] if batch.selection != NULL else at + n
        if not is_like(batch, row, run.like):
            run.raw_number = raw_number_of(minutes, batch, row)
            run.like = row
            run.unknown = run.raw_number < 0
            if run.unknown:
                break
        run.row[n] = row
        run.raw[n] = run.raw_number
        # What `sum_rows` reads of the row, and what is read here later on: more columns than the processor follows by
        # itself between as many accesses to records.
        first, ahead = batch.starts[row], row + AHEAD
        prefetch(batch.amount + 16 * first)
        prefetch(batch.amount + 16 * first + LINE)
        prefetch(batch.quantity + first)
        prefetch(batch.request_amount + 16 * row)
        prefetch(batch.fingerprint + 16 * ahead)
        prefetch(batch.payload + 16 * ahead)
        prefetch(batch.dims + 16 * ahead)
        prefetch(batch.time_us + ahead)
        prefetch(batch.meter + first + AHEAD_ITEMS)
        prefetch(batch.flag + first + AHEAD_ITEMS)
        group = &run.group[n]
        memcpy(&group.lo, batch.dims + 16 * row, 8)
        memcpy(&group.hi, batch.dims + 16 * row + 8, 8)
        group.shape = minutes.raw.shapes[run.raw_number].shape
        group.window = <uint32_t>(batch.time_us[row] // WINDOW_US)
        group.hashed = group_hash(group.lo, group.hi, group.shape, group.window)
        index_prefetch(&minutes.groups.index, group.hashed)
        n += 1
    run.rows, n = n, 0
    if is_wide():
        n = wide_digests(run.rows, run.row, batch.fingerprint, batch.payload, <char *>run.digest)
    for n in range(n, run.rows):
        row = run.row[n]
        run.digest[n] = hash_pair(u128_load(batch.fingerprint + 16 * row), u128_load(batch.payload + 16 * row))


cdef inline bint is_like(const Batch *batch, int64_t row, int64_t other) noexcept nogil:
    """Whether two rows have the same meters, priced or not, in the same order; no row is like -1."""
    cdef int64_t j, k, a = batch.starts[row], b
    cdef int32_t differ = 0
    if other < 0:
        return False
    k, b = batch.starts[row + 1] - a, batch.starts[other]
    if batch.starts[other + 1] - b != k:
        return False
    for j in range(k):
        differ |= batch.meter[a + j] ^ batch.meter[b + j]
        differ |= (batch.flag[a + j] == FLAG_UNPRICED) ^ (batch.flag[b + j] == FLAG_UNPRICED)
    return differ == 0


cdef inline int64_t raw_number_of(Minutes *minutes, Batch *batch, int64_t row) noexcept nogil:
    """The number of a row's order of meters; -1: unknown, or more meters than `Combiner.add` takes."""
    cdef int64_t j, first = batch.starts[row], k = batch.starts[row + 1] - first
    cdef uint32_t items[METERS_MAX]
    if k > METERS_MAX:
        return -1
    for j in range(k):
        items[j] = <uint32_t>(
            batch.number[batch.meter[first + j]] << 1 | (batch.flag[first + j] == FLAG_UNPRICED)
        )
    return raw_shape_number(&minutes.raw, items, k)


cdef inline int place_rows(Minutes *minutes, Batch *batch, Run *run) noexcept nogil:
    """The record of each row, as far as the hash tells; begun where there is none. Room must have been reserved."""
    cdef int64_t n, width
    cdef uint64_t entry = 0
    for n in range(run.rows):
        run.place[n] = groups_guess(&minutes.groups, run.group[n].hashed, &entry)
        width = record_bytes(minutes.raw.shapes[run.raw[n]].count, False)
        if run.place[n] >= 0:
            prefetch_record(&minutes.groups, run.place[n], width)
        elif begin_record(minutes, batch, run, n, entry, width):
            return ERROR_MEMORY
    return 0


cdef inline int begin_record(
    Minutes *minutes, Batch *batch, Run *run, int64_t n, uint64_t entry, int64_t width
) noexcept nogil:
    """Begins the record of a row, with the codes of its dimensions."""
    cdef int64_t d, code, row = run.row[n]
    cdef Record *record
    cdef Values *values
    run.place[n] = groups_begin(&minutes.groups, entry, &run.group[n], width)
    minutes.groups.more_rows += minutes.shapes[run.group[n].shape].groups - 1
    record = record_at(&minutes.groups, run.place[n])
    for d in range(CODES):
        values = &batch.values[d]
        code = values.known[values.codes[row]]
        if code < 0:
            code = learn_name(minutes, d, values, values.codes[row])
            if code < 0:
                return ERROR_MEMORY
        record.codes[d] = <int32_t>code
    return 0


cdef inline int64_t learn_name(Minutes *minutes, int64_t d, Values *values, int64_t value) noexcept nogil:
    """The combiner's code of a value of the batch's dictionary; -1: no memory."""
    cdef int64_t start = values.starts[value], code
    cdef bint is_new = False
    code = name_code(
        &minutes.names[d], murmur3(values.text + start, values.starts[value + 1] - start, 0, 0), &is_new
    )
    values.known[value] = <int32_t>code
    if is_new:
        values.new[values.new_count] = <uint32_t>value
        values.new_count += 1
    return code


cdef inline int sum_rows(Minutes *minutes, Batch *batch, Run *run) noexcept nogil:
    """Adds each row to its record."""
    cdef int64_t n, row, first
    cdef RawShape *raw
    cdef Record *record
    cdef uint64_t entry = 0
    cdef int error = 0
    for n in range(run.rows):
        row = run.row[n]
        raw = &minutes.raw.shapes[run.raw[n]]
        record = record_at(&minutes.groups, run.place[n])
        if not is_of(record, &run.group[n]):  # another group with such a hash, or moved
            run.place[n] = groups_find(&minutes.groups, &run.group[n], &entry)
            if run.place[n] < 0 and begin_record(minutes, batch, run, n, entry, record_bytes(raw.count, False)):
                return ERROR_MEMORY
            record = record_at(&minutes.groups, run.place[n])
        record.events += 1
        u128_store(record.digest, u128_wrapping_add(u128_load(record.digest), run.digest[n]))
        first = batch.starts[row]
        if record.shape & <uint32_t>WIDE or row_does_not_fit(
            numbers_of(record), raw.count, raw.place, batch.quantity + first, batch.amount + 16 * first,
            batch.request_amount + 16 * row,
        ):
            error |= sum_wide(minutes, batch, row, raw, run.place[n])
    return error


cdef inline int sum_wide(
    Minutes *minutes, Batch *batch, int64_t row, const RawShape *raw, int64_t place
) noexcept nogil:
    """Adds the numbers of a row to a record that is wide, or becomes so."""
    cdef int64_t j, item, k = raw.count
    cdef int error = group_add(&minutes.groups, &place, k, k, i128_load(batch.request_amount + 16 * row))
    for j in range(k):
        item = batch.starts[row] + j
        error |= group_add(&minutes.groups, &place, k, raw.place[j], i128_from_int64(batch.quantity[item]))
        error |= group_add(&minutes.groups, &place, k, k + 1 + raw.place[j], i128_load(batch.amount + 16 * item))
    return error
