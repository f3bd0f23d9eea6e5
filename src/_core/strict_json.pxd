# A strict reader of RFC 8259, in place. Every function gives the place behind what it read, or NULL where
# it is not certain: malformed text, invalid UTF-8, a lone surrogate, deeper than 64.
#
# The text ends in a sentinel that no JSON may hold unescaped (a newline, or the NUL behind a `bytes`): it
# ends every scan without a bounds check. Loads of 16 bytes look at `wide` first. Strings without escapes are
# used where they stand, others are unescaped into `scratch`.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcpy

from .text_table cimport Text

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #ifdef __SSE2__
    #include <emmintrin.h>
    #endif
    /* The first place from p on that is not plain in a JSON string: a quote, a backslash, a control, not ASCII. Gives
       up behind `wide`, at a place that may be plain. */
    static inline const uint8_t *tf_plain_end(const uint8_t *p, const uint8_t *wide) {
    #ifdef __SSE2__
        const __m128i quote = _mm_set1_epi8(0x22), slash = _mm_set1_epi8(0x5c), space = _mm_set1_epi8(0x20);
        for (; p <= wide; p += 16) {
            __m128i w = _mm_loadu_si128((const __m128i *)p);
            __m128i marks = _mm_or_si128(_mm_cmpeq_epi8(w, quote), _mm_cmpeq_epi8(w, slash));
            /* Signed: what is not ASCII is below a space too. */
            unsigned bits = (unsigned)_mm_movemask_epi8(_mm_or_si128(marks, _mm_cmplt_epi8(w, space)));
            if (bits) return p + __builtin_ctz(bits);
        }
    #else
        const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
        for (; p <= wide; p += 8) {
            uint64_t w;
            memcpy(&w, p, 8);
            uint64_t quote = w ^ (ones * 0x22), slash = w ^ (ones * 0x5c);
            uint64_t controls = (w - ones * 0x20) & ~w;
            /* A borrow can only raise a false mark above a true one, so the lowest mark is exact (little-endian). */
            uint64_t marks = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | controls | w) & tops;
            if (marks) return p + (__builtin_ctzll(marks) >> 3);
        }
    #endif
        return p;
    }
    """
    const uint8_t *plain_end "tf_plain_end"(const uint8_t *p, const uint8_t *wide) noexcept nogil

cdef enum:
    DEPTH_MAX = 64  # the top value is 1

cdef enum Kind:
    ABSENT = 0
    IS_NULL = 1
    IS_STRING = 2
    IS_INTEGER = 3
    IS_OBJECT = 4
    IS_OTHER = 5

cdef struct Value:
    Kind kind
    Text text  # of a string, unescaped; of an integer, its literal

cdef struct Reader:
    const uint8_t *wide  # the last place where 16 bytes may be loaded
    const uint8_t *start
    const uint8_t *end  # the sentinel
    uint8_t *scratch
    size_t scratch_used
    size_t scratch_room
    bint out_of_memory


cdef inline const uint8_t *skip_space(const uint8_t *p) noexcept nogil:
    while p[0] == c' ' or p[0] == c'\t' or p[0] == c'\r':
        p += 1
    return p


cdef inline bint is_tail(uint8_t c) noexcept nogil:
    return c & 0xc0 == 0x80


cdef inline int utf8_size(const uint8_t *p) noexcept nogil:
    # Bytes of the character at p (Unicode table 3-7: no overlong forms, no surrogates); 0 if it is none.
    cdef uint8_t c = p[0]
    if c < 0x80:
        return 1
    if c < 0xc2 or c > 0xf4:
        return 0
    if c < 0xe0:
        return 2 if is_tail(p[1]) else 0
    if c < 0xf0:
        if not is_tail(p[1]) or (c == 0xe0 and p[1] < 0xa0) or (c == 0xed and p[1] > 0x9f):
            return 0
        return 3 if is_tail(p[2]) else 0
    if not is_tail(p[1]) or (c == 0xf0 and p[1] < 0x90) or (c == 0xf4 and p[1] > 0x8f):
        return 0
    return 4 if is_tail(p[2]) and is_tail(p[3]) else 0


cdef inline int hex_digit(uint8_t c) noexcept nogil:
    if c'0' <= c <= c'9':
        return c - c'0'
    c |= 0x20
    return c - c'a' + 10 if c'a' <= c <= c'f' else -1


cdef inline int32_t hex4(const uint8_t *p) noexcept nogil:
    cdef int32_t value = 0
    cdef int i, digit
    for i in range(4):
        digit = hex_digit(p[i])
        if digit < 0:  # also stops at the sentinel
            return -1
        value = value * 16 + digit
    return value


cdef inline uint8_t *put_character(uint8_t *to, uint32_t point) noexcept nogil:
    if point < 0x80:
        to[0] = <uint8_t>point
        return to + 1
    if point < 0x800:
        to[0] = <uint8_t>(0xc0 | point >> 6)
        to[1] = <uint8_t>(0x80 | point & 0x3f)
        return to + 2
    if point < 0x10000:
        to[0] = <uint8_t>(0xe0 | point >> 12)
        to[1] = <uint8_t>(0x80 | point >> 6 & 0x3f)
        to[2] = <uint8_t>(0x80 | point & 0x3f)
        return to + 3
    to[0] = <uint8_t>(0xf0 | point >> 18)
    to[1] = <uint8_t>(0x80 | point >> 12 & 0x3f)
    to[2] = <uint8_t>(0x80 | point >> 6 & 0x3f)
    to[3] = <uint8_t>(0x80 | point & 0x3f)
    return to + 4


cdef inline const uint8_t *read_escape(const uint8_t *p, uint8_t **to) noexcept nogil:
    # p stands at the backslash.
    cdef int32_t point, low
    cdef uint8_t c = p[1]
    if c == c'u':
        point = hex4(p + 2)
        if point < 0 or 0xdc00 <= point <= 0xdfff:
            return NULL
        p += 6
        if 0xd800 <= point <= 0xdbff:
            if p[0] != c'\\' or p[1] != c'u':
                return NULL
            low = hex4(p + 2)
            if not 0xdc00 <= low <= 0xdfff:
                return NULL
            point = 0x10000 + ((point - 0xd800) << 10) + (low - 0xdc00)
            p += 6
        to[0] = put_character(to[0], <uint32_t>point)
        return p
    if c == c'n':
        c = 10
    elif c == c't':
        c = 9
    elif c == c'r':
        c = 13
    elif c == c'b':
        c = 8
    elif c == c'f':
        c = 12
    elif c != c'"' and c != c'\\' and c != c'/':
        return NULL
    to[0][0] = c
    to[0] += 1
    return p + 2


cdef inline const uint8_t *read_escaped(
    Reader *r, const uint8_t *start, const uint8_t *p, Text *out
) noexcept nogil:
    # The rest of a string whose first escape stands at p. No escape is shorter than what it stands for, so
    # all strings of a text fit a scratch of its size, and the scratch never moves while the text is read.
    cdef size_t size = <size_t>(r.end - r.start)
    cdef void *moved
    cdef uint8_t *to
    cdef int run
    if r.scratch_room < size:
        moved = realloc(r.scratch, size)
        if moved == NULL:
            r.out_of_memory = True
            return NULL
        r.scratch = <uint8_t *>moved
        r.scratch_room = size
    to = r.scratch + r.scratch_used
    out.at = to
    memcpy(to, start, <size_t>(p - start))
    to += p - start
    while p[0] != c'"':
        if p[0] == c'\\':
            p = read_escape(p, &to)
            if p == NULL:
                return NULL
            continue
        run = utf8_size(p) if p[0] >= 0x20 else 0
        if run == 0:
            return NULL
        memcpy(to, p, <size_t>run)
        to += run
        p += run
    out.size = to - out.at
    r.scratch_used = <size_t>(to - r.scratch)
    return p + 1


cdef inline const uint8_t *read_rest(
    Reader *r, const uint8_t *start, const uint8_t *p, Text *out
) noexcept nogil:
    # The rest of a string with something rare at p: not ASCII, an escape, an error, or the end of the text.
    cdef int run
    while p[0] != c'"':
        if p[0] == c'\\':
            return read_escaped(r, start, p, out)
        run = utf8_size(p) if p[0] >= 0x20 else 0
        if run == 0:
            return NULL
        p += run
    out.at = start
    out.size = p - start
    return p + 1


cdef inline const uint8_t *read_string(Reader *r, const uint8_t *p, Text *out) noexcept nogil:
    # p stands behind the opening quote.
    cdef const uint8_t *start = p
    p = plain_end(p, r.wide)
    if p[0] != c'"':
        return read_rest(r, start, p, out)
    out.at = start
    out.size = p - start
    return p + 1


cdef inline bint is_digit(uint8_t c) noexcept nogil:
    return c'0' <= c <= c'9'


cdef inline const uint8_t *read_number(const uint8_t *p, Value *out) noexcept nogil:
    out.kind = IS_INTEGER
    out.text.at = p
    if p[0] == c'-':
        p += 1
    if p[0] == c'0':
        p += 1
    elif is_digit(p[0]):
        while is_digit(p[0]):
            p += 1
    else:
        return NULL
    out.text.size = p - out.text.at
    if p[0] == c'.':
        out.kind = IS_OTHER
        p += 1
        if not is_digit(p[0]):
            return NULL
        while is_digit(p[0]):
            p += 1
    if p[0] == c'e' or p[0] == c'E':
        out.kind = IS_OTHER
        p += 1
        if p[0] == c'+' or p[0] == c'-':
            p += 1
        if not is_digit(p[0]):
            return NULL
        while is_digit(p[0]):
            p += 1
    return p


cdef inline const uint8_t *skip_members(Reader *r, const uint8_t *p, int depth) noexcept nogil:
    # p stands behind the brace of an object at `depth` in which nothing is wanted.
    cdef Text name
    cdef Value value
    p = skip_space(p)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"':
            return NULL
        p = read_string(r, p + 1, &name)
        if p == NULL:
            return NULL
        p = skip_space(p)
        if p[0] != c':':
            return NULL
        p = read_value(r, skip_space(p + 1), depth, &value)
        if p == NULL:
            return NULL
        p = skip_space(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = skip_space(p + 1)


cdef inline const uint8_t *skip_items(Reader *r, const uint8_t *p, int depth) noexcept nogil:
    cdef Value value
    p = skip_space(p)
    if p[0] == c']':
        return p + 1
    while True:
        p = read_value(r, p, depth, &value)
        if p == NULL:
            return NULL
        p = skip_space(p)
        if p[0] == c']':
            return p + 1
        if p[0] != c',':
            return NULL
        p = skip_space(p + 1)


cdef inline const uint8_t *read_value(Reader *r, const uint8_t *p, int depth, Value *out) noexcept nogil:
    # A value in an object or array at `depth`. Strings and integers keep their text; containers are checked.
    if p[0] == c'"':
        out.kind = IS_STRING
        return read_string(r, p + 1, &out.text)
    if p[0] == c'-' or is_digit(p[0]):
        return read_number(p, out)
    out.kind = IS_OTHER
    if p[0] == c'n' and p[1] == c'u' and p[2] == c'l' and p[3] == c'l':
        out.kind = IS_NULL
        return p + 4
    if p[0] == c't' and p[1] == c'r' and p[2] == c'u' and p[3] == c'e':
        return p + 4
    if p[0] == c'f' and p[1] == c'a' and p[2] == c'l' and p[3] == c's' and p[4] == c'e':
        return p + 5
    if depth >= DEPTH_MAX:
        return NULL
    if p[0] == c'{':
        out.kind = IS_OBJECT
        return skip_members(r, p + 1, depth + 1)
    if p[0] == c'[':
        return skip_items(r, p + 1, depth + 1)
    return NULL
