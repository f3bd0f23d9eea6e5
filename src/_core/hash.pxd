# 128-bit hashing for identity, payload, keys and digests: MurmurHash3 x64 128 (Austin Appleby, public domain), with its
# whole 128-bit state as the seed so that one string can be hashed "under" another without being copied beside it.
# Exactness rests on 128 bits being enough to tell events apart; it is no defence against a forger (docs/decisions).

from .int128 cimport u128

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t tf_rotl64(uint64_t x, int r) { return (x << r) | (x >> (64 - r)); }
    static inline uint64_t tf_fmix64(uint64_t k) {
        k ^= k >> 33; k *= 0xff51afd7ed558ccdULL; k ^= k >> 33; k *= 0xc4ceb9fe1a85ec53ULL; k ^= k >> 33;
        return k;
    }
    /* What a block's two words are made to before it is taken in: it depends on nothing that comes before. */
    static inline uint64_t tf_mix_first(uint64_t k) {
        return tf_rotl64(k * 0x87c37b91114253d5ULL, 31) * 0x4cf5ad432745937fULL;
    }
    static inline uint64_t tf_mix_second(uint64_t k) {
        return tf_rotl64(k * 0x4cf5ad432745937fULL, 33) * 0x87c37b91114253d5ULL;
    }
    typedef struct { uint64_t h1, h2; } tf_murmur;
    static inline void tf_murmur_take(tf_murmur *state, uint64_t first, uint64_t second) {
        uint64_t h1 = state->h1 ^ first, h2 = state->h2;
        h1 = (tf_rotl64(h1, 27) + h2) * 5 + 0x52dce729;
        h2 = (tf_rotl64(h2 ^ second, 31) + h1) * 5 + 0x38495ab5;
        state->h1 = h1; state->h2 = h2;
    }
    static inline unsigned __int128 tf_murmur_end(tf_murmur state, int64_t n) {
        uint64_t h1 = state.h1 ^ (uint64_t)n, h2 = state.h2 ^ (uint64_t)n;
        h1 += h2; h2 += h1;
        h1 = tf_fmix64(h1); h2 = tf_fmix64(h2);
        h1 += h2; h2 += h1;
        return ((unsigned __int128)h2 << 64) | h1;
    }
    static inline uint64_t tf_load64(const uint8_t *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    /* The 1 to 7 bytes at p, without a call of memcpy, which would take as long as all the rest. */
    static inline uint64_t tf_load_few(const uint8_t *p, int n) {
        uint32_t low, high;
        if (n < 4) return p[0] | (uint64_t)p[n >> 1] << 8 * (n >> 1) | (uint64_t)p[n - 1] << 8 * (n - 1);
        memcpy(&low, p, 4); memcpy(&high, p + n - 4, 4);
        return low | (uint64_t)high << 8 * (n - 4);
    }
    static inline unsigned __int128 tf_murmur3(const void *data, int64_t n, uint64_t h1, uint64_t h2) {
        const uint8_t *p = (const uint8_t *)data, *end = p + n;
        tf_murmur state = {h1, h2};
        for (int64_t i = 0; i < n / 16; i++, p += 16)
            tf_murmur_take(&state, tf_mix_first(tf_load64(p)), tf_mix_second(tf_load64(p + 8)));
        int tail = (int)(n & 15);
        if (tail > 8) state.h2 ^= tf_mix_second(tf_load64(end - 8) >> 8 * (16 - tail));
        if (tail >= 8) state.h1 ^= tf_mix_first(tf_load64(p));
        else if (tail && n > 8) state.h1 ^= tf_mix_first(tf_load64(end - 8) >> 8 * (8 - tail));
        else if (tail) state.h1 ^= tf_mix_first(tf_load_few(p, tail));
        return tf_murmur_end(state, n);
    }
    /* murmur3 of two 128-bit numbers, little endian, one after the other */
    static inline unsigned __int128 tf_hash_pair(unsigned __int128 a, unsigned __int128 b) {
        unsigned __int128 both[2] = {a, b};
        return tf_murmur3(both, 32, 0, 0);
    }
    """
    ctypedef struct Murmur "tf_murmur":
        unsigned long long h1
        unsigned long long h2
    unsigned long long fmix64 "tf_fmix64"(unsigned long long k) nogil
    unsigned long long mix_first "tf_mix_first"(unsigned long long k) nogil
    unsigned long long mix_second "tf_mix_second"(unsigned long long k) nogil
    void murmur_take "tf_murmur_take"(Murmur *state, unsigned long long first, unsigned long long second) nogil
    u128 murmur_end "tf_murmur_end"(Murmur state, long long n) nogil
    u128 murmur3 "tf_murmur3"(const void *data, long long n, unsigned long long h1, unsigned long long h2) nogil
    u128 hash_pair "tf_hash_pair"(u128 a, u128 b) nogil
