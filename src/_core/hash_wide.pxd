# The hashes of hash.pxd of eight rows at once, in vectors of 512 bits: a lane a row, the same operations and bits.
# Chosen while running, where the processor has AVX-512 with its multiplication of 64 bits (DQ). Narrower vectors have
# none, and one that is made of smaller ones takes longer than to go row by row, as is done everywhere else.
#
# A lane whose text is longer, or whose row has more meters, goes on by itself under a mask: most rows are alike. Texts
# shorter than 16 bytes are hashed row by row.
#
# Proved by: tests/parity/test_hash.py and tests/parity/test_combine.py, with and without vectors.

from libc.stdint cimport int32_t, int64_t, uint64_t

from .hash cimport murmur3  # noqa: F401 - the C functions of its header are used below

cdef extern from *:
    """
    #ifdef __x86_64__
    #include <immintrin.h>
    #define TF_WIDE static inline __attribute__((target("avx512f,avx512dq")))
    #define TF_WIDE_LOOP static __attribute__((target("avx512f,avx512dq"), noinline)) int64_t
    typedef struct { __m512i low, high; } tf_wide;
    static int tf_wide_wanted = 1;
    static int tf_is_wide(void) {
        return tf_wide_wanted && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
    }
    TF_WIDE __m512i tf_wide_of(uint64_t x) { return _mm512_set1_epi64((long long)x); }
    TF_WIDE __m512i tf_wide_gather(__m512i bytes, const void *from, int64_t at) {
        return _mm512_i64gather_epi64(bytes, (const char *)from + at, 1);
    }
    /* Lanes stand in the order 0 4 1 5 2 6 3 7 of the rows, which is what unpacking numbers of 128 bits gives. */
    TF_WIDE __m512i tf_wide_lanes(__m512i in_order) {
        return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), in_order);
    }
    TF_WIDE __m512i tf_wide_codes(const int32_t *codes) {
        return tf_wide_lanes(_mm512_cvtepi32_epi64(_mm256_loadu_si256((const __m256i *)codes)));
    }
    TF_WIDE tf_wide tf_wide_unpacked(__m512i first, __m512i last) {
        return (tf_wide){_mm512_unpacklo_epi64(first, last), _mm512_unpackhi_epi64(first, last)};
    }
    /* Writes eight numbers of 128 bits, one behind the other. */
    TF_WIDE void tf_wide_store(void *out, tf_wide x) {
        _mm512_storeu_si512(out, _mm512_unpacklo_epi64(x.low, x.high));
        _mm512_storeu_si512((char *)out + 64, _mm512_unpackhi_epi64(x.low, x.high));
    }
    /* The entries of a table of them that eight lanes, or eight codes, say. */
    TF_WIDE tf_wide tf_wide_look_up(const void *table, __m512i lanes) {
        __m512i bytes = _mm512_slli_epi64(lanes, 4);
        return (tf_wide){tf_wide_gather(bytes, table, 0), tf_wide_gather(bytes, table, 8)};
    }
    TF_WIDE tf_wide tf_wide_pick(const void *table, const int32_t *codes) {
    #define TF_ENTRY(n) _mm_loadu_si128((const __m128i *)table + codes[n])
        __m512i first = _mm512_castsi128_si512(TF_ENTRY(0)), last = _mm512_castsi128_si512(TF_ENTRY(4));
        first = _mm512_inserti64x2(first, TF_ENTRY(1), 1);
        last = _mm512_inserti64x2(last, TF_ENTRY(5), 1);
        first = _mm512_inserti64x2(first, TF_ENTRY(2), 2);
        last = _mm512_inserti64x2(last, TF_ENTRY(6), 2);
        first = _mm512_inserti64x2(first, TF_ENTRY(3), 3);
        last = _mm512_inserti64x2(last, TF_ENTRY(7), 3);
    #undef TF_ENTRY
        return tf_wide_unpacked(first, last);
    }
    /* The same of a table of eight at most, its halves in a vector each. */
    TF_WIDE tf_wide tf_wide_choose(tf_wide table, __m512i lanes) {
        return (tf_wide){_mm512_permutexvar_epi64(lanes, table.low), _mm512_permutexvar_epi64(lanes, table.high)};
    }
    TF_WIDE tf_wide tf_wide_add(tf_wide sum, __mmask8 has, tf_wide more) {
        sum.low = _mm512_mask_add_epi64(sum.low, has, sum.low, more.low);
        __mmask8 carried = _mm512_mask_cmplt_epu64_mask(has, sum.low, more.low);
        sum.high = _mm512_mask_add_epi64(sum.high, has, sum.high, more.high);
        sum.high = _mm512_mask_add_epi64(sum.high, carried, sum.high, _mm512_set1_epi64(1));
        return sum;
    }
    TF_WIDE __m512i tf_wide_mix_first(__m512i k) {
        k = _mm512_rol_epi64(_mm512_mullo_epi64(k, tf_wide_of(0x87c37b91114253d5ULL)), 31);
        return _mm512_mullo_epi64(k, tf_wide_of(0x4cf5ad432745937fULL));
    }
    TF_WIDE __m512i tf_wide_mix_second(__m512i k) {
        k = _mm512_rol_epi64(_mm512_mullo_epi64(k, tf_wide_of(0x4cf5ad432745937fULL)), 33);
        return _mm512_mullo_epi64(k, tf_wide_of(0x87c37b91114253d5ULL));
    }
    TF_WIDE __m512i tf_wide_step(__m512i h, int turn, __m512i other, uint64_t more) {
        h = _mm512_add_epi64(turn == 27 ? _mm512_rol_epi64(h, 27) : _mm512_rol_epi64(h, 31), other);
        return _mm512_add_epi64(_mm512_add_epi64(h, _mm512_slli_epi64(h, 2)), tf_wide_of(more));
    }
    TF_WIDE tf_wide tf_wide_take(tf_wide state, __m512i first, __m512i second) {
        state.low = tf_wide_step(_mm512_xor_si512(state.low, first), 27, state.high, 0x52dce729);
        state.high = tf_wide_step(_mm512_xor_si512(state.high, second), 31, state.low, 0x38495ab5);
        return state;
    }
    TF_WIDE __m512i tf_wide_fmix(__m512i k) {
        k = _mm512_xor_si512(k, _mm512_srli_epi64(k, 33));
        k = _mm512_mullo_epi64(k, tf_wide_of(0xff51afd7ed558ccdULL));
        k = _mm512_xor_si512(k, _mm512_srli_epi64(k, 33));
        k = _mm512_mullo_epi64(k, tf_wide_of(0xc4ceb9fe1a85ec53ULL));
        return _mm512_xor_si512(k, _mm512_srli_epi64(k, 33));
    }
    TF_WIDE tf_wide tf_wide_end(tf_wide state, __m512i sizes) {
        __m512i low = _mm512_xor_si512(state.low, sizes), high = _mm512_xor_si512(state.high, sizes);
        low = _mm512_add_epi64(low, high);
        high = _mm512_add_epi64(high, low);
        low = tf_wide_fmix(low);
        high = tf_wide_fmix(high);
        low = _mm512_add_epi64(low, high);
        return (tf_wide){low, _mm512_add_epi64(high, low)};
    }
    TF_WIDE tf_wide tf_wide_pair(tf_wide a, tf_wide b) {
        tf_wide state = {_mm512_setzero_si512(), _mm512_setzero_si512()};
        state = tf_wide_take(state, tf_wide_mix_first(a.low), tf_wide_mix_second(a.high));
        state = tf_wide_take(state, tf_wide_mix_first(b.low), tf_wide_mix_second(b.high));
        return tf_wide_end(state, tf_wide_of(32));
    }
    /* murmur3 of eight texts of 16 bytes and more, each under its seed. What is behind the last whole block of a text
       is the end of its last 16 bytes: a shift by 64 bits and more, or by less than none, leaves nothing. */
    TF_WIDE tf_wide tf_wide_murmur3(const char *text, __m512i starts, __m512i sizes, tf_wide state) {
        __m512i blocks = _mm512_srli_epi64(sizes, 4);
        int64_t most = _mm512_reduce_max_epi64(blocks);
        for (int64_t n = 0; n < most; n++) {
            __mmask8 has = _mm512_cmpgt_epi64_mask(blocks, tf_wide_of((uint64_t)n));
            __m512i none = _mm512_setzero_si512();
            __m512i first = _mm512_mask_i64gather_epi64(none, has, starts, text + 16 * n, 1);
            __m512i second = _mm512_mask_i64gather_epi64(none, has, starts, text + 16 * n + 8, 1);
            tf_wide next = tf_wide_take(state, tf_wide_mix_first(first), tf_wide_mix_second(second));
            state.low = _mm512_mask_mov_epi64(state.low, has, next.low);
            state.high = _mm512_mask_mov_epi64(state.high, has, next.high);
        }
        __m512i ends = _mm512_add_epi64(starts, sizes);
        __m512i low = tf_wide_gather(ends, text, -16), high = tf_wide_gather(ends, text, -8);
        __m512i tail = _mm512_and_si512(sizes, tf_wide_of(15));
        __m512i gone = _mm512_sub_epi64(tf_wide_of(128), _mm512_slli_epi64(tail, 3));  /* bits */
        low = _mm512_srlv_epi64(low, gone);
        low = _mm512_or_si512(low, _mm512_sllv_epi64(high, _mm512_sub_epi64(tf_wide_of(64), gone)));
        low = _mm512_or_si512(low, _mm512_srlv_epi64(high, _mm512_sub_epi64(gone, tf_wide_of(64))));
        high = _mm512_srlv_epi64(high, gone);
        state.high = _mm512_xor_si512(state.high, tf_wide_mix_second(high));
        state.low = _mm512_xor_si512(state.low, tf_wide_mix_first(low));
        return tf_wide_end(state, sizes);
    }
    /* As hash.fingerprints, of the first rows; how many. */
    TF_WIDE_LOOP tf_wide_fingerprints(int64_t rows, const int32_t *starts, const char *text, const int32_t *index,
                                        const char *seeds, char *out) {
        int64_t i = 0;
        for (; i + 8 <= rows; i += 8) {
            __m512i from = tf_wide_codes(starts + i), sizes = _mm512_sub_epi64(tf_wide_codes(starts + i + 1), from);
            if (_mm512_cmplt_epi64_mask(sizes, tf_wide_of(16))) {
                for (int64_t n = i; n < i + 8; n++) {
                    uint64_t seed[2];
                    memcpy(seed, seeds + 16 * (int64_t)index[n], 16);
                    unsigned __int128 found = tf_murmur3(text + starts[n], starts[n + 1] - starts[n], seed[0], seed[1]);
                    memcpy(out + 16 * n, &found, 16);
                }
                continue;
            }
            tf_wide seed = tf_wide_look_up(seeds, tf_wide_codes(index + i));
            tf_wide_store(out + 16 * i, tf_wide_murmur3(text, from, sizes, seed));
        }
        return i;
    }
    /* As hash.payload_hashes, of the first rows; how many. Eight values of a dimension are eight loads, which take less
       than to gather both their halves; names of few meters are in two vectors. */
    TF_WIDE_LOOP tf_wide_payloads(
        int64_t rows, const int32_t *const *index, const uint64_t *const *mixed, const int32_t *starts,
        const int32_t *meters, const int64_t *quantity, const char *names, int64_t name_count, char *out_dims,
        char *out_payload
    ) {
        const __m512i none = _mm512_setzero_si512(), one = _mm512_set1_epi64(1);
        uint64_t few[16] = {0};
        int64_t i = 0;
        for (int64_t n = 0; n < name_count && name_count <= 8; n++) {
            memcpy(few + n, names + 16 * n, 8);
            memcpy(few + n + 8, names + 16 * n + 8, 8);
        }
        const tf_wide known = {_mm512_loadu_si512(few), _mm512_loadu_si512(few + 8)};
        for (; i + 8 <= rows; i += 8) {
            tf_wide dims = {none, none}, usage = {none, none};
            for (int d = 0; d < 6; d++) {
                tf_wide words = tf_wide_pick(mixed[d], index[d] + i);
                dims = tf_wide_take(dims, words.low, words.high);
            }
            dims = tf_wide_end(dims, tf_wide_of(16 * 6));
            __m512i at = tf_wide_codes(starts + i), end = tf_wide_codes(starts + i + 1);
            for (__mmask8 has; (has = _mm512_cmplt_epi64_mask(at, end)); at = _mm512_add_epi64(at, one)) {
                __m256i codes = _mm512_mask_i64gather_epi32(_mm256_setzero_si256(), has, at, meters, 4);
                __m512i meter = _mm512_cvtepi32_epi64(codes);
                __m512i amount = _mm512_mask_i64gather_epi64(none, has, at, quantity, 8);
                tf_wide name = name_count <= 8 ? tf_wide_choose(known, meter) : tf_wide_look_up(names, meter);
                __m512i high = tf_wide_fmix(_mm512_xor_si512(name.high, amount));
                __m512i low = tf_wide_fmix(_mm512_add_epi64(name.low, amount));
                usage = tf_wide_add(usage, has, (tf_wide){low, high});
            }
            tf_wide_store(out_dims + 16 * i, dims);
            tf_wide_store(out_payload + 16 * i, tf_wide_pair(dims, usage));
        }
        return i;
    }
    /* hash_pair of two numbers of each of the rows that are named, of the first of them; how many. */
    TF_WIDE_LOOP tf_wide_digests(int64_t count, const int64_t *rows, const char *a, const char *b, char *out) {
        int64_t n = 0;
        for (; n + 8 <= count; n += 8) {
            __m512i named = tf_wide_lanes(_mm512_loadu_si512(rows + n));
            tf_wide_store(out + 16 * n, tf_wide_pair(tf_wide_look_up(a, named), tf_wide_look_up(b, named)));
        }
        return n;
    }
    static int tf_want_wide(int wanted) {
        tf_wide_wanted = wanted;
        return tf_is_wide();
    }
    #else
    static int tf_is_wide(void) { return 0; }
    static int tf_want_wide(int wanted) { return 0; }
    static int64_t tf_wide_fingerprints(int64_t rows, const int32_t *starts, const char *text, const int32_t *index,
                                        const char *seeds, char *out) { return 0; }
    static int64_t tf_wide_payloads(
        int64_t rows, const int32_t *const *index, const uint64_t *const *mixed, const int32_t *starts,
        const int32_t *meters, const int64_t *quantity, const char *names, int64_t name_count, char *out_dims,
        char *out_payload
    ) { return 0; }
    static int64_t tf_wide_digests(int64_t count, const int64_t *rows, const char *a, const char *b, char *out) {
        return 0;
    }
    #endif
    """
    bint is_wide "tf_is_wide"() nogil  # to be asked before each of the others: within, the compiler may go ahead
    bint want_wide "tf_want_wide"(bint wanted) nogil  # whether it is so from now on
    # Each does the first of its rows, and says how many.
    int64_t wide_fingerprints "tf_wide_fingerprints"(
        int64_t rows, const int32_t *starts, const char *text, const int32_t *index, const char *seeds, char *out
    ) nogil
    int64_t wide_payloads "tf_wide_payloads"(
        int64_t rows, const int32_t **index, const uint64_t **mixed, const int32_t *starts, const int32_t *meters,
        const int64_t *quantity, const char *names, int64_t name_count, char *out_dims, char *out_payload
    ) nogil
    int64_t wide_digests "tf_wide_digests"(
        int64_t count, const int64_t *rows, const char *a, const char *b, char *out
    ) nogil
