# 128-bit integers for all kernels: checked where they count money or tokens, wrapping only where a digest is meant.
#
# a) per-value maths as C inline functions (this file), b) one nogil loop per batch (the .pyx files), c) a `def` that
# checks lengths and calls it, d) no policy in Cython. Cython believes the types to be `long long`, so never let it do
# mixed arithmetic on them: use the functions below.

cdef extern from *:
    """
    #include <stdint.h>
    typedef __int128 tf_i128;
    typedef unsigned __int128 tf_u128;

    /* Returns 1 on overflow and leaves *acc as it was. */
    static inline int tf_i128_add(tf_i128 *acc, tf_i128 value) {
        tf_i128 sum;
        if (__builtin_expect(__builtin_add_overflow(*acc, value, &sum), 0)) return 1;
        *acc = sum;
        return 0;
    }
    /* quantity x rate; the product of two 64-bit numbers always fits, so only wide rates pay for the check. */
    static inline int tf_i128_mul(int64_t quantity, tf_i128 rate, tf_i128 *out) {
        if (__builtin_expect((tf_i128)(int64_t)rate == rate, 1)) {
            *out = (tf_i128)quantity * (tf_i128)(int64_t)rate;
            return 0;
        }
        return __builtin_mul_overflow((tf_i128)quantity, rate, out);
    }
    static inline int tf_i128_mul_wide(tf_i128 a, tf_i128 b, tf_i128 *out) { return __builtin_mul_overflow(a, b, out); }
    /* How many packages of a size are begun by some units; neither is negative, and no size is 0. */
    static inline tf_i128 tf_i128_started(tf_i128 units, int64_t size) { return units / size + (units % size != 0); }
    static inline int64_t tf_int64_add_saturating(int64_t a, int64_t b) {
        int64_t sum;
        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
    }
    static inline tf_i128 tf_i128_from_int64(int64_t value) { return (tf_i128)value; }
    static inline tf_u128 tf_u128_make(uint64_t hi, uint64_t lo) { return ((tf_u128)hi << 64) | lo; }
    static inline uint64_t tf_u128_lo(tf_u128 value) { return (uint64_t)value; }
    static inline uint64_t tf_u128_hi(tf_u128 value) { return (uint64_t)(value >> 64); }
    static inline tf_u128 tf_u128_wrapping_add(tf_u128 a, tf_u128 b) { return a + b; }
    static inline int tf_u128_less(tf_u128 a, tf_u128 b) { return a < b; }
    static inline tf_i128 tf_i128_load(const void *p) { tf_i128 v; __builtin_memcpy(&v, p, 16); return v; }
    static inline void tf_i128_store(void *p, tf_i128 v) { __builtin_memcpy(p, &v, 16); }
    static inline tf_u128 tf_u128_load(const void *p) { tf_u128 v; __builtin_memcpy(&v, p, 16); return v; }
    static inline void tf_u128_store(void *p, tf_u128 v) { __builtin_memcpy(p, &v, 16); }
    /* GCC takes a function that only prefetches for one that does nothing, and leaves its calls out: the empty
       statement is an effect. */
    static inline void tf_prefetch(const void *p) { __builtin_prefetch(p); __asm__ volatile(""); }
    """
    ctypedef long long i128 "tf_i128"
    ctypedef unsigned long long u128 "tf_u128"
    int i128_add "tf_i128_add"(i128 *acc, i128 value) nogil
    int i128_mul "tf_i128_mul"(long long quantity, i128 rate, i128 *out) nogil
    int i128_mul_wide "tf_i128_mul_wide"(i128 a, i128 b, i128 *out) nogil
    i128 i128_started "tf_i128_started"(i128 units, long long size) nogil
    long long int64_add_saturating "tf_int64_add_saturating"(long long a, long long b) nogil
    i128 i128_from_int64 "tf_i128_from_int64"(long long value) nogil
    u128 u128_make "tf_u128_make"(unsigned long long hi, unsigned long long lo) nogil
    unsigned long long u128_lo "tf_u128_lo"(u128 value) nogil
    unsigned long long u128_hi "tf_u128_hi"(u128 value) nogil
    bint u128_less "tf_u128_less"(u128 a, u128 b) nogil
    u128 u128_wrapping_add "tf_u128_wrapping_add"(u128 a, u128 b) nogil
    i128 i128_load "tf_i128_load"(const void *p) nogil
    void i128_store "tf_i128_store"(void *p, i128 value) nogil
    u128 u128_load "tf_u128_load"(const void *p) nogil
    void u128_store "tf_u128_store"(void *p, u128 value) nogil
    void prefetch "tf_prefetch"(const void *p) nogil
