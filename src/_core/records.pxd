# Fingerprints in memory, in the order in which they were learnt: a ring of blocks of 2^18 records (16 bytes
# fingerprint, 8 bytes payload hash). The oldest go first, so that a number says by itself whether its record is still
# there.
#
#     number = 29 bits that count up and begin anew         block = number / 2^18, on three huge pages
#
# Blocks that the oldest records leave are filled again: memory that was never touched before costs more than all else
# that is done for a record (measured: 0.1 to 0.9 ns a byte, the latter where a hypervisor has to find it first). While
# another thread reads the records that went last, their blocks stay as they are.

from libc.stdint cimport uint64_t
from libc.string cimport memset

from .memory cimport block_alloc, table_free

cdef enum:
    BLOCK_BITS = 18
    BLOCK_RECORDS = 1 << BLOCK_BITS
    COUNTED_BITS = 29
    BLOCKS = 1 << (COUNTED_BITS - BLOCK_BITS)
    COUNTED_MAX = (BLOCKS - 1) << BLOCK_BITS  # records at a time: what is older than all is told apart for as long

cdef struct Record:
    uint64_t lo
    uint64_t hi
    uint64_t payload

cdef struct Records:
    Record *blocks[BLOCKS]
    Record *spare[BLOCKS]  # blocks to be filled again
    uint64_t spares
    Record *left[BLOCKS]  # blocks without records, that are read still
    uint64_t lefts
    bint are_read  # records that go
    uint64_t first  # the oldest, of all that there ever were
    uint64_t end  # behind the newest


cdef inline uint64_t block_bytes() noexcept nogil:
    return BLOCK_RECORDS * sizeof(Record)


cdef inline uint64_t records_live(const Records *records) noexcept nogil:
    return records.end - records.first


cdef inline bint is_live(const Records *records, uint64_t number) noexcept nogil:
    """Whether the record of this number (its lower bits) is there still."""
    return ((records.end - 1 - number) & ((1 << COUNTED_BITS) - 1)) < records.end - records.first


cdef inline Record *record_at(const Records *records, uint64_t number) noexcept nogil:
    return &records.blocks[(number >> BLOCK_BITS) & (BLOCKS - 1)][number & (BLOCK_RECORDS - 1)]


cdef inline int records_room(Records *records) noexcept nogil:
    """Makes room for the next one; -1: no memory; -4: no more numbers."""
    cdef uint64_t place = (records.end >> BLOCK_BITS) & (BLOCKS - 1)
    if records.blocks[place] != NULL:
        return 0
    if records_live(records) > COUNTED_MAX - BLOCK_RECORDS:
        return -4
    if records.spares:
        records.spares -= 1
        records.blocks[place] = records.spare[records.spares]
    else:
        # small pages for the first: most sets of a test, and of a small job, never fill it
        records.blocks[place] = <Record *>block_alloc(block_bytes(), records.end > 0)
    return -(records.blocks[place] == NULL)


cdef inline Record *records_ahead(Records *records) noexcept nogil:
    """The block that is filled next, which nobody has touched, if the present one is half full; NULL: it is not, or
    there is one that was filled before."""
    cdef Record *block
    if records.spares or records.end & (BLOCK_RECORDS - 1) < BLOCK_RECORDS // 2:
        return NULL
    block = <Record *>block_alloc(block_bytes(), True)
    if block != NULL:
        records.spare[0] = block
        records.spares = 1
    return block


cdef inline int records_add(Records *records, uint64_t lo, uint64_t hi, uint64_t payload) noexcept nogil:
    """Adds one, for which there is room, and makes room for the next."""
    cdef Record *record = record_at(records, records.end)
    record.lo, record.hi, record.payload = lo, hi, payload
    records.end += 1
    if records.end & (BLOCK_RECORDS - 1):
        return 0
    return records_room(records)


cdef inline void records_drop(Records *records, uint64_t first) noexcept nogil:
    """Those before `first` are gone: their blocks as well, but if `are_read` only with `records_let_go`."""
    cdef uint64_t block
    for block in range(records.first >> BLOCK_BITS, first >> BLOCK_BITS):
        records.left[records.lefts] = records.blocks[block & (BLOCKS - 1)]
        records.lefts += 1
        records.blocks[block & (BLOCKS - 1)] = NULL
    records.first = first
    if not records.are_read:
        records_let_go(records)


cdef inline void records_let_go(Records *records) noexcept nogil:
    """Blocks without records are read no longer: half as many as are in use are kept, to be filled again."""
    cdef uint64_t used = (records.end >> BLOCK_BITS) - (records.first >> BLOCK_BITS) + 1
    records.are_read = False
    while records.lefts:
        records.lefts -= 1
        if records.spares < used // 2:
            records.spare[records.spares] = records.left[records.lefts]
            records.spares += 1
        else:
            table_free(records.left[records.lefts], block_bytes())


cdef inline void records_release(Records *records, uint64_t spares_max) noexcept nogil:
    """Gives blocks that wait to be filled again back, but for so many."""
    while records.spares > spares_max:
        records.spares -= 1
        table_free(records.spare[records.spares], block_bytes())


cdef inline void records_close(Records *records) noexcept nogil:
    cdef int block
    records_let_go(records)
    records_release(records, 0)
    for block in range(BLOCKS):
        table_free(records.blocks[block], block_bytes())
    memset(records, 0, sizeof(Records))
