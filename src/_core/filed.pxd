# A sealed segment that is read in its files: records in the order in which they were learnt, and their packed index
# (packed.pxd) in a file beside them.
#
#     file of a segment = 8 bytes | chunk ...            chunk = 8 bytes | record ...
#
# The one place in which a kernel does I/O: it reads (pread) files that it was given open. Mapped, each look would cost
# a page fault, which makes up to a megabyte around it resident (measured: 13 us, and 970 KB, against 1 us for a read
# from the page cache), and a disk that fails would end the process instead of giving an error.

from libc.errno cimport EINTR, EIO, errno
from libc.stdint cimport uint32_t, uint64_t
from posix.unistd cimport pread

from .index cimport index_alike, index_number
from .packed cimport BUCKET_BITS
from .records cimport Record

cdef enum:
    FILE_HEADER = 8
    CHUNK_HEADER = 8
    ENTRIES_AT_ONCE = 96  # more than most buckets have

cdef struct Filed:
    int records  # descriptors of files that are open for reading
    int index
    uint64_t mask  # of the index that was packed
    uint64_t entries_at  # where parts of the index file begin
    uint64_t firsts_at


cdef inline int read_at(int file, void *out, uint64_t size, uint64_t at) noexcept nogil:
    """Reads so many bytes; -1, and `errno`, if there are not as many or the disk fails."""
    cdef uint64_t done = 0
    cdef ssize_t count
    while done < size:
        count = pread(file, <char *>out + done, size - done, at + done)
        if count < 0 and errno == EINTR:  # a signal came; only network file systems let it in here
            continue
        if count <= 0:
            if count == 0:
                (&errno)[0] = EIO
            return -1
        done += <uint64_t>count
    return 0


cdef inline uint64_t record_offset(const uint32_t *starts, uint64_t chunks, uint64_t number) noexcept nogil:
    """Where a record is in the file: behind the headers of its own chunk and of all before it."""
    cdef uint64_t low = 0, high = chunks, middle
    while low < high:  # `low` comes to be how many chunks begin at or before it
        middle = (low + high) // 2
        if starts[middle] <= number:
            low = middle + 1
        else:
            high = middle
    return FILE_HEADER + low * CHUNK_HEADER + number * sizeof(Record)


cdef inline int filed_find(
    const Filed *filed, const uint32_t *starts, uint64_t chunks, uint64_t lo, uint64_t hi, Record *found
) noexcept nogil:
    """1 and the record of the fingerprint; 0: there is none; -1: the files cannot be read, and `errno`.

    `starts`: the number of the first record of each chunk.
    """
    cdef uint64_t entries[ENTRIES_AT_ONCE]
    cdef uint32_t bounds[2]
    cdef uint64_t at, count, n
    if read_at(filed.index, bounds, sizeof(bounds), filed.firsts_at + ((lo & filed.mask) >> BUCKET_BITS) * 4):
        return -1
    at = bounds[0]
    while at < bounds[1]:
        count = min(bounds[1] - at, <uint64_t>ENTRIES_AT_ONCE)
        if read_at(filed.index, entries, count * sizeof(uint64_t), filed.entries_at + at * sizeof(uint64_t)):
            return -1
        for n in range(count):
            if index_alike(entries[n], lo):
                if read_at(
                    filed.records, found, sizeof(Record), record_offset(starts, chunks, index_number(entries[n]))
                ):
                    return -1
                if found.lo == lo and found.hi == hi:
                    return 1
        at += count
    return 0
