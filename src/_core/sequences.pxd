# The rows of a block by the sequence of meters that they come with, so that what is done to rows that are alike needs
# no branch for each of them.
#
# The codes of up to eight meters are the eight bytes of a number, absent ones 255, which stands in a small table of
# open addressing. What does not fit there is left to the caller, row by row: rows with more meters, those of a batch
# with more than 255 meters, and those of a 65th sequence.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define TF_SEQUENCES 64
    #define TF_SEQUENCE_SLOTS 256  /* a power of two */
    #define TF_SEQUENCE_WIDTH 8    /* meters */
    #define TF_SEQUENCE_ROWS 512   /* of a block */
    #define TF_SEQUENCE_CODES 255  /* of meters, so that each is a byte, and none 255 */
    struct tf_sequences {
        int64_t count;
        struct tf_sequence_slot { uint64_t key; int32_t *end; } slots[TF_SEQUENCE_SLOTS];  /* key 0: empty */
        int32_t meters[TF_SEQUENCES][TF_SEQUENCE_WIDTH];
        int32_t width[TF_SEQUENCES];
        int32_t slot[TF_SEQUENCES];
        int32_t firsts[TF_SEQUENCES][TF_SEQUENCE_ROWS];  /* the first item of each row */
    };
    /* How many items each of these rows has, if all have the same meters in the same order; 0: they do not. */
    static int64_t tf_even(const int32_t *starts, const int32_t *meters, int64_t rows) {
        int32_t width = starts[1] - starts[0], uneven = 0;
        for (int64_t row = 0; row < rows; row++) uneven |= (starts[row + 1] - starts[row]) ^ width;
        if (uneven || width == 0) return 0;
        return memcmp(meters, meters + width, sizeof(*meters) * (size_t)width * (rows - 1)) == 0 ? width : 0;
    }
    static void tf_sequences_clear(struct tf_sequences *all) {
        all->count = 0;
        memset(all->slots, 0, sizeof(all->slots));
    }
    /* A new sequence in an empty slot; 0: there are too many. */
    static int tf_sequence_add(struct tf_sequences *all, uint64_t slot, uint64_t key, const int32_t *meters,
                               int32_t width) {
        if (all->count == TF_SEQUENCES) return 0;
        all->slots[slot].key = key;
        all->slots[slot].end = all->firsts[all->count];
        all->slot[all->count] = (int32_t)slot;
        all->width[all->count] = width;
        if (width) memcpy(all->meters[all->count], meters, sizeof(*meters) * (size_t)width);  /* else may be null */
        all->count++;
        return 1;
    }
    static inline uint64_t tf_two_codes(const int32_t *meters) {
        uint64_t both;
        memcpy(&both, meters, sizeof(both));
        return both;
    }
    static inline uint64_t tf_sequence_key(const int32_t *meters, int32_t width) {
        static const uint64_t absent[TF_SEQUENCE_WIDTH + 1] = {  /* the bytes of as many meters are 0 */
            0xffffffffffffffff, 0xffffffffffffff00, 0xffffff00ffffff00, 0xffffff00ffff0000, 0xffff0000ffff0000,
            0xffff0000ff000000, 0xff000000ff000000, 0xff00000000000000, 0,
        };
        return tf_two_codes(meters) | tf_two_codes(meters + 2) << 8 | tf_two_codes(meters + 4) << 16
               | tf_two_codes(meters + 6) << 24 | absent[width];
    }
    /* Of the last rows of a batch, behind which there are not as many meters as are read at once. */
    static uint64_t tf_last_key(const int32_t *meters, int32_t width) {
        int32_t padded[TF_SEQUENCE_WIDTH] = {0};
        if (width) memcpy(padded, meters, sizeof(*meters) * (size_t)width);
        return tf_sequence_key(padded, width);
    }
    /* Where the rows of each sequence begin, in order. Marks those that have none here; whether there are such rows.
       `items`: how many `meters` there are, and `quantities`, which are fetched meanwhile. */
    static int tf_by_sequence(struct tf_sequences *restrict all, const int32_t *restrict starts,
                              const int32_t *restrict meters, const int64_t *restrict quantities, int64_t items,
                              int64_t rows, uint8_t *restrict marked) {
        int odd = 0;
        for (int64_t n = 0; n < all->count; n++) all->slots[all->slot[n]].end = all->firsts[n];
        for (int64_t row = 0; row < rows; row++) {
            const int32_t *first = meters + starts[row];
            int32_t width = starts[row + 1] - starts[row];
            uint64_t key = 0;
            __builtin_prefetch(quantities + starts[row]);
            if (width <= TF_SEQUENCE_WIDTH)
                key = starts[row] + TF_SEQUENCE_WIDTH <= items ? tf_sequence_key(first, width)
                                                               : tf_last_key(first, width);
            uint64_t slot = key * 0x9e3779b97f4a7c15ULL >> 56;
            while (__builtin_expect(all->slots[slot].key != key, 0)) {
                if (all->slots[slot].key == 0 && !tf_sequence_add(all, slot, key, first, width)) key = 0;
                else if (all->slots[slot].key != key) slot = (slot + 1) % TF_SEQUENCE_SLOTS;
            }
            if (__builtin_expect(key != 0, 1))
                *all->slots[slot].end++ = starts[row];
            else
                marked[row] = odd = 1;
        }
        return odd;
    }
    static inline int64_t tf_sequence_count(const struct tf_sequences *all, int64_t n) {
        return all->slots[all->slot[n]].end - all->firsts[n];
    }
    """
    enum:
        SEQUENCE_CODES "TF_SEQUENCE_CODES"
        SEQUENCE_ROWS "TF_SEQUENCE_ROWS"
    ctypedef struct Sequences "struct tf_sequences":
        int64_t count
        int32_t meters[64][8]
        int32_t width[64]
        int32_t firsts[64][512]
    int64_t even "tf_even"(const int32_t *starts, const int32_t *meters, int64_t rows) nogil
    void sequences_clear "tf_sequences_clear"(Sequences *all) nogil
    int64_t sequence_count "tf_sequence_count"(const Sequences *all, int64_t n) nogil
    bint by_sequence "tf_by_sequence"(
        Sequences *all, const int32_t *starts, const int32_t *meters, const int64_t *quantities, int64_t items,
        int64_t rows, uint8_t *marked) nogil
