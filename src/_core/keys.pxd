# The keys of a combiner: an event's dimensions and shape, and the same without project and model, which the day
# rollup tells apart.
#
# Both are found in open-addressing tables of 4-byte numbers, two thirds full at most, in front of the keys
# themselves, which keep their numbers until they are all forgotten.

from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

from .groups cimport ERROR_MEMORY, FIRST_ENTRIES, entry_hash
from .memory cimport table_alloc, table_free

cdef struct Key:
    uint64_t lo  # of the dimensions hash
    uint64_t hi
    uint32_t shape
    uint32_t customer
    uint32_t coarse  # its coarse key

cdef struct Coarse:
    uint64_t lo  # of the hash of the dimensions without project and model
    uint64_t hi
    uint32_t shape
    uint32_t key  # the first key it was met with, which says its customer and the rest
    uint32_t day  # the day of `day_place`
    uint32_t cut  # the cut in which `day_place` holds
    int64_t day_place  # its record among the days: a block rarely touches a second one

cdef struct Keys:
    Key *keys
    int64_t count
    int64_t size
    uint32_t *table  # key + 1
    uint64_t mask
    Coarse *coarse
    int64_t coarse_count
    int64_t coarse_size
    uint32_t *coarse_table  # coarse key + 1
    uint64_t coarse_mask


cdef inline void keys_close(Keys *keys) noexcept nogil:
    free(keys.keys)
    free(keys.coarse)
    table_free(keys.table, (keys.mask + 1) * sizeof(uint32_t))
    table_free(keys.coarse_table, (keys.coarse_mask + 1) * sizeof(uint32_t))
    memset(keys, 0, sizeof(Keys))


cdef inline int keys_open(Keys *keys) noexcept nogil:
    memset(keys, 0, sizeof(Keys))
    keys.mask = keys.coarse_mask = FIRST_ENTRIES - 1
    keys.table = <uint32_t *>table_alloc(FIRST_ENTRIES * sizeof(uint32_t))
    keys.coarse_table = <uint32_t *>table_alloc(FIRST_ENTRIES * sizeof(uint32_t))
    return ERROR_MEMORY if keys.table == NULL or keys.coarse_table == NULL else 0


cdef inline uint32_t *key_slot(Keys *keys, uint64_t lo, uint64_t hi, uint32_t shape) noexcept nogil:
    """Where a key's number stands, or the empty place where it belongs."""
    cdef uint64_t at = entry_hash(lo, hi, shape, 0) & keys.mask
    cdef Key *key
    while keys.table[at]:
        key = &keys.keys[keys.table[at] - 1]
        if key.lo == lo and key.hi == hi and key.shape == shape:
            break
        at = (at + 1) & keys.mask
    return &keys.table[at]


cdef inline uint32_t *coarse_slot(Keys *keys, uint64_t lo, uint64_t hi, uint32_t shape) noexcept nogil:
    cdef uint64_t at = entry_hash(lo, hi, shape, 0) & keys.coarse_mask
    cdef Coarse *coarse
    while keys.coarse_table[at]:
        coarse = &keys.coarse[keys.coarse_table[at] - 1]
        if coarse.lo == lo and coarse.hi == hi and coarse.shape == shape:
            break
        at = (at + 1) & keys.coarse_mask
    return &keys.coarse_table[at]


cdef inline int reserve_coarse(Keys *keys, int64_t more) noexcept nogil:
    cdef uint64_t old_size = keys.coarse_mask + 1, i
    cdef uint32_t *old = keys.coarse_table
    cdef uint32_t *larger
    cdef Coarse *coarse
    if keys.coarse_count + more > keys.coarse_size:
        coarse = <Coarse *>realloc(keys.coarse, (keys.coarse_count + more) * 2 * sizeof(Coarse))
        if coarse == NULL:
            return ERROR_MEMORY
        keys.coarse = coarse
        keys.coarse_size = (keys.coarse_count + more) * 2
    if <uint64_t>(keys.coarse_count + more) * 3 > old_size * 2:
        larger = <uint32_t *>table_alloc(old_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            return ERROR_MEMORY
        keys.coarse_table = larger
        keys.coarse_mask = old_size * 2 - 1
        for i in range(<uint64_t>keys.coarse_count):
            coarse_slot(keys, keys.coarse[i].lo, keys.coarse[i].hi, keys.coarse[i].shape)[0] = <uint32_t>(i + 1)
        table_free(old, old_size * sizeof(uint32_t))
    return 0


cdef inline int keys_reserve(Keys *keys, int64_t more) noexcept nogil:
    """Makes room for so many more keys, each of which may be a new coarse key as well."""
    cdef uint64_t old_size = keys.mask + 1, i
    cdef uint32_t *old = keys.table
    cdef uint32_t *larger
    cdef Key *known
    if keys.count + more > keys.size:
        known = <Key *>realloc(keys.keys, (keys.count + more) * 2 * sizeof(Key))
        if known == NULL:
            return ERROR_MEMORY
        keys.keys = known
        keys.size = (keys.count + more) * 2
    if <uint64_t>(keys.count + more) * 3 > old_size * 2:
        larger = <uint32_t *>table_alloc(old_size * 2 * sizeof(uint32_t))
        if larger == NULL:
            return ERROR_MEMORY
        keys.table = larger
        keys.mask = old_size * 2 - 1
        for i in range(<uint64_t>keys.count):
            key_slot(keys, keys.keys[i].lo, keys.keys[i].hi, keys.keys[i].shape)[0] = <uint32_t>(i + 1)
        table_free(old, old_size * sizeof(uint32_t))
    return reserve_coarse(keys, more)


cdef inline uint32_t coarse_number(Keys *keys, const char *coarse_hash, uint32_t shape, uint32_t key) noexcept nogil:
    """The number of a coarse key, which begins with `key` if it is new. Room must have been reserved."""
    cdef uint64_t lo, hi
    cdef uint32_t *slot
    cdef Coarse *coarse
    memcpy(&lo, coarse_hash, 8)
    memcpy(&hi, coarse_hash + 8, 8)
    slot = coarse_slot(keys, lo, hi, shape)
    if slot[0] == 0:
        coarse = &keys.coarse[keys.coarse_count]
        coarse.lo = lo
        coarse.hi = hi
        coarse.shape = shape
        coarse.key = key
        coarse.cut = 0
        keys.coarse_count += 1
        slot[0] = <uint32_t>keys.coarse_count
    return slot[0] - 1


cdef inline uint32_t key_number(
    Keys *keys, uint64_t lo, uint64_t hi, uint32_t shape, const char *coarse_hash, bint *is_new
) noexcept nogil:
    """The number of a key, new or known. Room must have been reserved."""
    cdef uint32_t *slot = key_slot(keys, lo, hi, shape)
    cdef Key *key
    is_new[0] = slot[0] == 0
    if is_new[0]:
        key = &keys.keys[keys.count]
        key.lo = lo
        key.hi = hi
        key.shape = shape
        key.customer = 0
        key.coarse = coarse_number(keys, coarse_hash, shape, <uint32_t>keys.count)
        keys.count += 1
        slot[0] = <uint32_t>keys.count
    return slot[0] - 1
