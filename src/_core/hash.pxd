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
    static inline unsigned __int128 tf_murmur3(const void *data, int64_t n, uint64_t h1, uint64_t h2) {
        const uint64_t c1 = 0x87c37b91114253d5ULL, c2 = 0x4cf5ad432745937fULL;
        const uint8_t *p = (const uint8_t *)data;
        int64_t blocks = n / 16;
        for (int64_t i = 0; i < blocks; i++, p += 16) {
            uint64_t k1, k2;
            memcpy(&k1, p, 8); memcpy(&k2, p + 8, 8);
            k1 *= c1; k1 = tf_rotl64(k1, 31); k1 *= c2; h1 ^= k1;
            h1 = tf_rotl64(h1, 27); h1 += h2; h1 = h1 * 5 + 0x52dce729;
            k2 *= c2; k2 = tf_rotl64(k2, 33); k2 *= c1; h2 ^= k2;
            h2 = tf_rotl64(h2, 31); h2 += h1; h2 = h2 * 5 + 0x38495ab5;
        }
        int tail = (int)(n & 15);
        if (tail) {
            uint64_t k1 = 0, k2 = 0;
            if (tail > 8) {
                memcpy(&k1, p, 8); memcpy(&k2, p + 8, (size_t)(tail - 8));
                k2 *= c2; k2 = tf_rotl64(k2, 33); k2 *= c1; h2 ^= k2;
            } else {
                memcpy(&k1, p, (size_t)tail);
            }
            k1 *= c1; k1 = tf_rotl64(k1, 31); k1 *= c2; h1 ^= k1;
        }
        h1 ^= (uint64_t)n; h2 ^= (uint64_t)n;
        h1 += h2; h2 += h1;
        h1 = tf_fmix64(h1); h2 = tf_fmix64(h2);
        h1 += h2; h2 += h1;
        return ((unsigned __int128)h2 << 64) | h1;
    }
    /* murmur3 of two 128-bit numbers, little endian, one after the other */
    static inline unsigned __int128 tf_hash_pair(unsigned __int128 a, unsigned __int128 b) {
        unsigned __int128 both[2] = {a, b};
        return tf_murmur3(both, 32, 0, 0);
    }
    """
    unsigned long long fmix64 "tf_fmix64"(unsigned long long k) nogil
    u128 murmur3 "tf_murmur3"(const void *data, long long n, unsigned long long h1, unsigned long long h2) nogil
    u128 hash_pair "tf_hash_pair"(u128 a, u128 b) nogil
