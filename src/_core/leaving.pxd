# The order in which rows leave for the store: 16 bytes a row, sorted by radix.

from libc.stdint cimport int64_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    typedef struct { uint64_t order, what; } tf_leaving;
    /* Sorts by `order`, 11 bits a pass, passes without a difference left out; the result is in `rows`. */
    static void tf_sort_leaving(tf_leaving *sorted, tf_leaving *spare, int64_t n) {
        int64_t counts[6][2048] = {{0}};
        tf_leaving *rows = sorted, *held;
        for (int64_t i = 0; i < n; i++)
            for (int pass = 0; pass < 6; pass++) counts[pass][(rows[i].order >> (11 * pass)) & 2047]++;
        for (int pass = 0; n && pass < 6; pass++) {
            int64_t *start = counts[pass], at = 0;
            if (start[(rows[0].order >> (11 * pass)) & 2047] == n) continue;
            for (int b = 0; b < 2048; b++) { int64_t count = start[b]; start[b] = at; at += count; }
            for (int64_t i = 0; i < n; i++) spare[start[(rows[i].order >> (11 * pass)) & 2047]++] = rows[i];
            held = rows; rows = spare; spare = held;
        }
        if (rows != sorted) memcpy(sorted, rows, (size_t)n * sizeof(tf_leaving));
    }
    static inline int tf_bits(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }
    """
    ctypedef struct Leaving "tf_leaving":
        uint64_t order  # customer rank, window and the first bits of the store key, as many as fit
        uint64_t what  # place of the record, in lines of 64 bytes, << 16 | group of slots
    void sort_leaving "tf_sort_leaving"(Leaving *rows, Leaving *spare, int64_t n) nogil
    int bits "tf_bits"(uint64_t value) nogil
