# The order in which rows leave for the store: 16 bytes a row, sorted by radix.

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    typedef struct { uint64_t order, what; } tf_leaving;
    /* Sorts by `order`, 11 bits a pass, passes without a difference left out; the result is in `rows`. */
    static void tf_sort_leaving(tf_leaving *sorted, tf_leaving *spare, int64_t n) {
        tf_leaving *rows = sorted, *held;
        for (int shift = 0; n && shift < 64; shift += 11) {
            int64_t start[2048] = {0};
            for (int64_t i = 0; i < n; i++) start[(rows[i].order >> shift) & 2047]++;
            if (start[(rows[0].order >> shift) & 2047] == n) continue;
            int64_t at = 0;
            for (int b = 0; b < 2048; b++) { int64_t count = start[b]; start[b] = at; at += count; }
            for (int64_t i = 0; i < n; i++) spare[start[(rows[i].order >> shift) & 2047]++] = rows[i];
            held = rows; rows = spare; spare = held;
        }
        if (rows != sorted) memcpy(sorted, rows, (size_t)n * sizeof(tf_leaving));
    }
    static inline int tf_bits(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }
    """
    ctypedef struct Leaving "tf_leaving":
        uint64_t order  # customer rank, window and the first bits of the store key, as many as fit
        uint64_t what  # record number << 16 | group of slots
    void sort_leaving "tf_sort_leaving"(Leaving *rows, Leaving *spare, int64_t n) nogil
    int bits "tf_bits"(uint64_t value) nogil
