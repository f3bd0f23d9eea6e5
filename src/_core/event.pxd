# An event as it is rated: the columns of its batch, and what its usage items say together.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t

from .int128 cimport int64_add_saturating

cdef struct Batch:  # see RateTable.rate
    const uint32_t *selection
    const int32_t *index[4]
    const int32_t *classes[4]  # NULL: 0 in every row
    const int64_t *time_us
    const int32_t *starts
    const int32_t *meter
    const int32_t *book_meter
    const int64_t *quantity
    char *amounts
    uint8_t *flags
    char *request_amounts
    uint8_t *request_flags

cdef struct Event:  # the one that is rated
    const Batch *batch
    int64_t time_us
    int64_t first
    int64_t end


cdef inline int32_t meter_at(const Event *event, int64_t item) noexcept nogil:
    return event.batch.book_meter[event.batch.meter[item]]


cdef inline bint quantity_of(const Event *event, int32_t meter, int64_t *quantity) noexcept nogil:
    """Whether the event has a meter, and how much of it."""
    cdef int64_t j
    for j in range(event.first, event.end):
        if meter_at(event, j) == meter:
            quantity[0] = event.batch.quantity[j]
            return True
    return False


cdef inline int64_t context_of(const Event *event, const int64_t *members) noexcept nogil:
    """The quantities of the meters of a context together; at most INT64_MAX, which is above every threshold."""
    cdef int64_t j, context = 0
    cdef int32_t meter
    for j in range(event.first, event.end):
        meter = meter_at(event, j)
        if meter >= 0 and members[meter]:
            context = int64_add_saturating(context, event.batch.quantity[j])
    return context


cdef inline int64_t context_before(const Event *event, const int64_t *members, int32_t own) noexcept nogil:
    """How much of a context stands before a meter's own units."""
    cdef int64_t j, total = 0
    cdef int32_t meter
    for j in range(event.first, event.end):
        meter = meter_at(event, j)
        if meter >= 0 and members[meter] and members[meter] < members[own]:
            total = int64_add_saturating(total, event.batch.quantity[j])
    return total
