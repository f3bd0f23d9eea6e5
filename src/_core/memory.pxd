# Zeroed memory for large tables, on huge pages where the system gives them: a random probe of a table of many megabytes
# otherwise pays for a page walk besides its cache miss (measured: 2.5 times the time of a probe at 400 MB).

from libc.stdlib cimport free, realloc
from libc.string cimport memcpy
from posix.stdlib cimport posix_memalign

cdef extern from *:
    """
    #include <stddef.h>
    #include <string.h>
    #ifndef _GNU_SOURCE
    #define _GNU_SOURCE
    #endif
    #include <sys/mman.h>
    #include <unistd.h>
    #if defined(__linux__) && !defined(MADV_POPULATE_WRITE)
    #define MADV_POPULATE_WRITE 23 /* headers of a C library may be older than the system */
    #endif
    /* Has the system find and zero pages now, as it does when each is first written: 0.1 to 0.2 ns a byte, 1 to 3 where
       a hypervisor has to find them. What is in them already stays, and nothing is read or written here: another thread
       may use the memory meanwhile, or even give it back. Without MADV_POPULATE_WRITE (before Linux 5.14), nothing. */
    static void tf_touch(void *p, size_t bytes) {
    #ifdef MADV_POPULATE_WRITE
        const size_t page = (size_t)sysconf(_SC_PAGESIZE), step = 2u << 20;
        char *at = (char *)((size_t)p & ~(page - 1)), *end = (char *)p + bytes;
        for (; at < end; at += step) /* step by step: whoever maps memory waits for one of them */
            madvise(at, (size_t)(end - at) < step ? (size_t)(end - at) : step, MADV_POPULATE_WRITE);
    #else
        (void)p, (void)bytes;
    #endif
    }
    static void *tf_table_alloc(size_t bytes) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
    #ifdef MADV_HUGEPAGE
        if (bytes >= (4u << 20)) madvise(p, bytes, MADV_HUGEPAGE);
    #endif
        tf_touch(p, bytes); /* one pass now; else a read fault and a write fault on every page */
        return p;
    }
    static void tf_table_free(void *p, size_t bytes) { if (p) munmap(p, bytes); }
    /* Gives back what lies behind `bytes`. */
    static void tf_table_shrink(void *p, size_t old_bytes, size_t bytes) {
        size_t page = (size_t)sysconf(_SC_PAGESIZE);
        size_t kept = (bytes + page - 1) / page * page;
        if (kept < old_bytes) munmap((char *)p + kept, old_bytes - kept);
    }
    /* A table that may double has as much again behind it, which nobody has touched: `tf_touch` may, ahead of that. */
    static void *tf_doubling_alloc(size_t bytes) {
        void *p = mmap(NULL, 2 * bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
    #ifdef MADV_HUGEPAGE
        if (bytes >= (4u << 20)) madvise(p, 2 * bytes, MADV_HUGEPAGE);
    #endif
        tf_touch(p, bytes);
        return p;
    }
    static void tf_doubling_free(void *p, size_t bytes) { if (p) munmap(p, 2 * bytes); }
    /* A table of twice the size, the old one its first half; on Linux nothing is copied. */
    static void *tf_doubling_double(void *old, size_t bytes) {
    #ifdef __linux__
        void *p = mremap(old, 2 * bytes, 4 * bytes, MREMAP_MAYMOVE);
        if (p == MAP_FAILED) return NULL;
    #ifdef MADV_HUGEPAGE
        if (bytes >= (2u << 20)) madvise(p, 4 * bytes, MADV_HUGEPAGE);
    #endif
        tf_touch((char *)p + bytes, bytes);
    #else
        void *p = tf_doubling_alloc(2 * bytes);
        if (p == NULL) return NULL;
        memcpy(p, old, bytes);
        tf_doubling_free(old, bytes);
    #endif
        return p;
    }
    /* Memory that is filled from its beginning, and never grows. */
    static void *tf_block_alloc(size_t bytes, int huge) {
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
    #ifdef MADV_HUGEPAGE
        if (huge) madvise(p, bytes, MADV_HUGEPAGE);
    #endif
        return p;
    }
    /* Memory that is filled from its beginning: nothing is touched ahead, and on Linux nothing is copied to grow. */
    static void *tf_arena_grow(void *old, size_t old_bytes, size_t bytes) {
    #ifdef __linux__
        void *p = old ? mremap(old, old_bytes, bytes, MREMAP_MAYMOVE)
                      : mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
    #else
        void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (p == MAP_FAILED) return NULL;
        if (old) { memcpy(p, old, old_bytes); munmap(old, old_bytes); }
    #endif
    #ifdef MADV_HUGEPAGE
        if (bytes >= (4u << 20)) madvise(p, bytes, MADV_HUGEPAGE);
    #endif
        return p;
    }
    """
    void *table_alloc "tf_table_alloc"(size_t bytes) nogil
    void table_free "tf_table_free"(void *p, size_t bytes) nogil
    void table_shrink "tf_table_shrink"(void *p, size_t old_bytes, size_t bytes) nogil  # freed as of `bytes`, not 0
    void *doubling_alloc "tf_doubling_alloc"(size_t bytes) nogil
    void *doubling_double "tf_doubling_double"(void *old, size_t bytes) nogil
    void doubling_free "tf_doubling_free"(void *p, size_t bytes) nogil
    void touch "tf_touch"(void *p, size_t bytes) nogil
    void *block_alloc "tf_block_alloc"(size_t bytes, bint huge) nogil  # freed by table_free
    void *arena_grow "tf_arena_grow"(void *old, size_t old_bytes, size_t bytes) nogil  # freed by table_free


cdef inline void *grown(void *old, size_t size) except NULL:
    """realloc, to the next power of two so that growing stays cheap; the caller keeps no size. Raises MemoryError."""
    cdef size_t rounded = 64
    while rounded < size:
        rounded *= 2
    cdef void *larger = realloc(old, rounded)
    if larger == NULL:
        raise MemoryError()
    return larger


cdef inline void *grown_aligned(void *old, size_t old_size, size_t size) except NULL:
    """`grown`, and begins on a cache line, so that no entry of 64 bytes is on two. Raises MemoryError."""
    cdef size_t rounded = 64
    cdef void *larger = NULL
    while rounded < size:
        rounded *= 2
    if old != NULL and old_size > rounded // 2:
        return old
    if posix_memalign(&larger, 64, rounded):
        raise MemoryError()
    if old != NULL:
        memcpy(larger, old, old_size)
        free(old)
    return larger
