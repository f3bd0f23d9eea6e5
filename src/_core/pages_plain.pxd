# Numbers and texts to the bytes of a page, one by one, on any processor.
#
# Proved by: tests/parity/test_pages.py.

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t

cdef extern from *:
    """
    #include <string.h>
    /* Another thread has written what is read here, and the processor itself fetches no further than to the end of a
       page of memory. The address may be behind the end of a buffer: fetching does not fail. */
    static inline void tf_fetch_ahead(const void *from) { __builtin_prefetch((const void *)((uintptr_t)from + 2048)); }
    static inline uint8_t *tf_put_varint(uint8_t *out, uint64_t value) {
        for (; value >= 128; value >>= 7) *out++ = (uint8_t)(value | 128);
        *out = (uint8_t)value;
        return out + 1;
    }
    static inline uint64_t tf_zigzag(int64_t value) { return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63); }
    static inline int tf_width(uint64_t value) { return value ? 64 - __builtin_clzll(value) : 0; }
    static inline int tf_bit(const uint8_t *bits, int64_t at) { return bits ? bits[at >> 3] >> (at & 7) & 1 : 1; }
    /* Length and bytes of a text, behind whose beginning `readable` bytes lie; writes up to 64 bytes too many. */
    static inline uint8_t *tf_put_text(uint8_t *out, const uint8_t *text, uint32_t length, uint64_t readable) {
        memcpy(out, &length, 4);
        tf_fetch_ahead(text);
        if (length <= 64 && readable >= 64) memcpy(out + 4, text, 64);
        else if (length) memcpy(out + 4, text, length);
        return out + 4 + length;
    }
    /* Eight values in `width` bytes, the lowest bits first; writes up to 16 bytes too many. */
    static inline uint8_t *tf_pack_eight(uint8_t *out, const uint64_t *v, int width) {
        if (width <= 16) {
            unsigned __int128 low = v[0] | v[1] << width | v[2] << 2 * width | v[3] << 3 * width;
            unsigned __int128 high = v[4] | v[5] << width | v[6] << 2 * width | v[7] << 3 * width;
            low |= high << 4 * width;
            memcpy(out, &low, 16);
            return out + width;
        }
        uint64_t held = 0;
        int filled = 0;
        for (int i = 0; i < 8; i++) {
            held |= v[i] << filled;
            filled += width;
            if (filled >= 64) {
                memcpy(out, &held, 8);
                out += 8;
                filled -= 64;
                held = filled ? v[i] >> (width - filled) : 0;
            }
        }
        memcpy(out, &held, 8);
        return out + filled / 8;
    }
    /* Signed numbers of 64 bits, or of 32. */
    typedef struct { const void *values; int narrow; } tf_column;
    static inline uint64_t tf_number(tf_column of, int64_t row) {
        return (uint64_t)(of.narrow ? ((const int32_t *)of.values)[row] : ((const int64_t *)of.values)[row]);
    }
    /* The numbers of `count` selected rows that are valid; how many. */
    static inline int tf_gather(
        uint64_t *out, tf_column numbers, const uint32_t *rows, const uint8_t *valid, int64_t at, int64_t count
    ) {
        int held = 0;
        if (!valid && !rows && !numbers.narrow) memcpy(out, (const int64_t *)numbers.values + at, 8 * (size_t)count);
        else if (!valid) for (int64_t i = 0; i < count; i++) out[i] = tf_number(numbers, rows ? rows[at + i] : at + i);
        else for (int64_t i = 0; i < count; i++) {
            int64_t row = rows ? rows[at + i] : at + i;
            out[held] = tf_number(numbers, row);
            held += tf_bit(valid, row);
        }
        return valid ? held : (int)count;
    }
    /* A block of up to 128 numbers, behind the one before them, which the last takes the place of. */
    static uint8_t *tf_put_block(uint8_t *out, uint64_t *numbers, int count) {
        uint64_t differences[128] = {0};
        int64_t least = INT64_MAX;
        if (!count) return out;
        for (int i = 0; i < count; i++) differences[i] = numbers[i + 1] - numbers[i];
        numbers[0] = numbers[count];
        for (int i = 0; i < count; i++) {
            int64_t one = (int64_t)differences[i];
            least = one < least ? one : least;
        }
        for (int i = 0; i < count; i++) differences[i] -= (uint64_t)least;
        out = tf_put_varint(out, tf_zigzag(least));
        uint8_t *widths = out;
        out += 4;
        for (int mini = 0; mini < 4; mini++) {
            const uint64_t *values = differences + 32 * mini;
            uint64_t any = 0;
            for (int i = 0; i < 32; i++) any |= values[i];
            widths[mini] = (uint8_t)tf_width(any);
            if (any)
                for (int i = 0; i < 32; i += 8) out = tf_pack_eight(out, values + i, widths[mini]);
        }
        return out;
    }
    """
    uint8_t *put_varint "tf_put_varint"(uint8_t *out, uint64_t value) noexcept nogil
    uint64_t zigzag "tf_zigzag"(int64_t value) noexcept nogil
    int bit_at "tf_bit"(const uint8_t *bits, int64_t at) noexcept nogil
    uint8_t *put_text "tf_put_text"(
        uint8_t *out, const uint8_t *text, uint32_t length, uint64_t readable
    ) noexcept nogil
    uint8_t *pack_eight "tf_pack_eight"(uint8_t *out, const uint64_t *values, int width) noexcept nogil
    ctypedef struct Column "tf_column":
        const void *values
        bint narrow
    uint64_t number_at "tf_number"(Column numbers, int64_t row) noexcept nogil
    int gather "tf_gather"(
        uint64_t *out, Column numbers, const uint32_t *rows, const uint8_t *valid, int64_t at, int64_t count
    ) noexcept nogil
    uint8_t *put_block "tf_put_block"(uint8_t *out, uint64_t *numbers, int count) noexcept nogil
