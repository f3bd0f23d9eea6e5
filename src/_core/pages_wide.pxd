# What pages_plain.pxd does for numbers and codes, for eight at once in a vector of 512 bits: the same bytes.
# Chosen while running, where the processor has AVX-512 with vectors of any length (VL), and BMI2, whose extraction of
# bits (PEXT) packs eight values of up to 8 bits, or four of up to 16, or two of up to 32, with one instruction.
#
# Selected rows mostly stand beside each other, and eight that do are one load.
#
# Proved by: tests/parity/test_pages.py, with and without vectors.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from .pages_plain cimport Column

cdef extern from *:
    """
    #ifdef __x86_64__
    #include <immintrin.h>
    #define TF_WIDE_FEATURES __attribute__((target("avx512f,avx512vl,bmi2")))
    #define TF_WIDE static inline TF_WIDE_FEATURES
    static int tf_wide_wanted = 1;
    static int tf_is_wide(void) {
        return tf_wide_wanted && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl")
            && __builtin_cpu_supports("bmi2");
    }
    /* As tf_pack_eight. */
    TF_WIDE uint8_t *tf_wide_pack(uint8_t *out, __m512i eight, int width) {
        uint64_t ones = width < 64 ? ((uint64_t)1 << width) - 1 : ~(uint64_t)0;
        if (width <= 8) {
            uint64_t bytes = (uint64_t)_mm_cvtsi128_si64(_mm512_cvtepi64_epi8(eight));
            bytes = _pext_u64(bytes, ones * 0x0101010101010101);
            memcpy(out, &bytes, 8);
        } else if (width <= 16) {
            __m128i values = _mm512_cvtepi64_epi16(eight);
            uint64_t mask = ones * 0x0001000100010001;
            unsigned __int128 low = _pext_u64((uint64_t)_mm_cvtsi128_si64(values), mask);
            unsigned __int128 high = _pext_u64((uint64_t)_mm_extract_epi64(values, 1), mask);
            low |= high << 4 * width;
            memcpy(out, &low, 16);
        } else if (width < 32) {
            uint64_t pairs[4], mask = ones * 0x0000000100000001;
            _mm256_storeu_si256((__m256i *)pairs, _mm512_cvtepi64_epi32(eight));
            unsigned __int128 low = _pext_u64(pairs[0], mask);
            unsigned __int128 high = _pext_u64(pairs[2], mask);
            low |= (unsigned __int128)_pext_u64(pairs[1], mask) << 2 * width;
            high |= (unsigned __int128)_pext_u64(pairs[3], mask) << 2 * width;
            int used = 4 * width - 64;  /* bits of the second word that low takes */
            uint64_t words[4] = {(uint64_t)low, (uint64_t)(low >> 64) | (uint64_t)high << used,
                                 (uint64_t)(high >> (64 - used)), (uint64_t)(high >> 64) >> (64 - used)};
            memcpy(out, words, 32);
        } else if (width == 32) {
            _mm256_storeu_si256((__m256i *)out, _mm512_cvtepi64_epi32(eight));
        } else {
            uint64_t values[8];
            _mm512_storeu_si512(values, eight);
            return tf_pack_eight(out, values, width);
        }
        return out + width;
    }
    TF_WIDE int tf_wide_beside(__m256i rows) {  /* whether each is the one behind the one before */
        __m256i first = _mm256_broadcastd_epi32(_mm256_castsi256_si128(rows));
        __m256i expected = _mm256_add_epi32(first, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
        return !_mm256_cmpneq_epi32_mask(rows, expected);
    }
    /* Eight selected numbers of a column; codes are one too. */
    TF_WIDE __m512i tf_wide_eight(tf_column numbers, const uint32_t *rows, int64_t at) {
        const int32_t *narrow = numbers.values;
        const int64_t *wide = numbers.values;
        if (rows) {
            __m256i eight = _mm256_loadu_si256((const __m256i *)(rows + at));
            if (!tf_wide_beside(eight)) {
                __m512i apart = _mm512_cvtepu32_epi64(eight);
                if (numbers.narrow) return _mm512_cvtepi32_epi64(_mm512_i64gather_epi32(apart, narrow, 4));
                return _mm512_i64gather_epi64(apart, wide, 8);
            }
            at = rows[at];
        }
        tf_fetch_ahead(numbers.narrow ? (const void *)(narrow + at) : wide + at);
        if (numbers.narrow) return _mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)(narrow + at)));
        return _mm512_loadu_si512(wide + at);
    }
    TF_WIDE __mmask8 tf_wide_valid(const uint8_t *valid, const uint32_t *rows, int64_t at) {
        unsigned bits = 0;
        if (!rows) return (__mmask8)((valid[at >> 3] | valid[(at + 7) >> 3] << 8) >> (at & 7));
        for (int i = 0; i < 8; i++) bits |= (unsigned)tf_bit(valid, rows[at + i]) << i;
        return (__mmask8)bits;
    }
    /* As tf_gather. */
    TF_WIDE_FEATURES static int tf_wide_gather(
        uint64_t *out, tf_column numbers, const uint32_t *rows, const uint8_t *valid, int64_t at, int64_t count
    ) {
        int64_t i = 0;
        int held = 0;
        if (!valid) for (; i + 8 <= count; i += 8) _mm512_storeu_si512(out + i, tf_wide_eight(numbers, rows, at + i));
        else for (; i + 8 <= count; i += 8) {
            __mmask8 has = tf_wide_valid(valid, rows, at + i);
            __m512i eight = tf_wide_eight(numbers, rows, at + i);
            _mm512_storeu_si512(out + held, _mm512_maskz_compress_epi64(has, eight));
            held += __builtin_popcount(has);
        }
        held = valid ? held : (int)i;
        return held + tf_gather(out + held, numbers, rows, valid, at + i, count - i);
    }
    /* As tf_put_block, of 128 numbers. */
    TF_WIDE_FEATURES static uint8_t *tf_wide_block(uint8_t *out, uint64_t *numbers) {
        __m512i differences[16], least = _mm512_set1_epi64(INT64_MAX);
        for (int i = 0; i < 16; i++) {
            __m512i sooner = _mm512_loadu_si512(numbers + 8 * i), later = _mm512_loadu_si512(numbers + 8 * i + 1);
            differences[i] = _mm512_sub_epi64(later, sooner);
            least = _mm512_min_epi64(least, differences[i]);
        }
        int64_t floor = _mm512_reduce_min_epi64(least);
        numbers[0] = numbers[128];
        out = tf_put_varint(out, tf_zigzag(floor));
        uint8_t *widths = out;
        out += 4;
        for (int mini = 0; mini < 4; mini++) {
            __m512i above[4], any = _mm512_setzero_si512();
            for (int i = 0; i < 4; i++) {
                above[i] = _mm512_sub_epi64(differences[4 * mini + i], _mm512_set1_epi64(floor));
                any = _mm512_or_si512(any, above[i]);
            }
            widths[mini] = (uint8_t)tf_width((uint64_t)_mm512_reduce_or_epi64(any));
            if (widths[mini])
                for (int i = 0; i < 4; i++) out = tf_wide_pack(out, above[i], widths[mini]);
        }
        return out;
    }
    /* Packs the first of the codes; how many. */
    TF_WIDE_FEATURES static int64_t tf_wide_fill_codes(
        uint8_t *out, int64_t count, const uint32_t *rows, const int32_t *codes, int width
    ) {
        tf_column numbers = {codes, 1};
        int64_t at = 0;
        for (; at + 8 <= count; at += 8) out = tf_wide_pack(out, tf_wide_eight(numbers, rows, at), width);
        return at;
    }
    static int tf_want_wide(int wanted) {
        tf_wide_wanted = wanted;
        return tf_is_wide();
    }
    #else
    static int tf_is_wide(void) { return 0; }
    static int tf_want_wide(int wanted) { return 0; }
    static int tf_wide_gather(
        uint64_t *out, tf_column numbers, const uint32_t *rows, const uint8_t *valid, int64_t at, int64_t count
    ) { return tf_gather(out, numbers, rows, valid, at, count); }
    static uint8_t *tf_wide_block(uint8_t *out, uint64_t *numbers) { return tf_put_block(out, numbers, 128); }
    static int64_t tf_wide_fill_codes(
        uint8_t *out, int64_t count, const uint32_t *rows, const int32_t *codes, int width
    ) { return 0; }
    #endif
    """
    bint is_wide "tf_is_wide"() nogil  # to be asked before each of the others: within, the compiler may go ahead
    bint want_wide "tf_want_wide"(bint wanted) nogil  # whether it is so from now on
    int wide_gather "tf_wide_gather"(
        uint64_t *out, Column numbers, const uint32_t *rows, const uint8_t *valid, int64_t at, int64_t count
    ) noexcept nogil
    uint8_t *wide_block "tf_wide_block"(uint8_t *out, uint64_t *numbers) noexcept nogil
    int64_t wide_codes "tf_wide_fill_codes"(
        uint8_t *out, int64_t count, const uint32_t *rows, const int32_t *codes, int width
    ) noexcept nogil
