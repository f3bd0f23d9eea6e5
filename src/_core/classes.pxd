# What rate.pyx knows of the classes of events that a price book tells apart.

from libc.stdint cimport int32_t, int64_t, uint64_t

cdef enum:
    NO_MODEL = -1
    SEVERAL = -2  # models: a table of pairs has them
    MODEL_MASK = (1 << 20) - 1  # the bits of a class of models

cdef struct Combination:  # of four classes
    uint64_t packed_plus_one  # 0 is an empty slot
    int64_t vector

cdef struct Customer:  # what there is to know of a class of customers
    int32_t profile
    int32_t model  # the one class of models that rows name beside it; NO_MODEL, SEVERAL

cdef inline uint64_t slot_of(uint64_t key, uint64_t mask) noexcept nogil:
    """Fibonacci hashing: one multiplication, of which the upper half is well mixed."""
    return (key * <uint64_t>0x9E3779B97F4A7C15) >> 32 & mask
