# NDJSON lines to event columns, and meter columns to usage lists.
#
# What it does. `LineParser.run` walks a chunk line by line. A line it can read with certainty (strict RFC 8259, a valid
# usage event) is appended to growable columns; at any other line (an error, or a shape too rare to be worth code here)
# it stops, and the caller reads that line with the exact Python reader (`flow/steps/decode_json.py`), perhaps appends the
# event, and goes on. So this file knows one answer only, "accepted", and never has to name a reason.
#
# Memory layout. The chunk is a Python `bytes`, so the byte behind it is a readable NUL: that NUL, or the line's "\n", is
# a sentinel no JSON text may hold unescaped, and ends every scan without a bounds check. Loads of 8 bytes look at `wide`
# first. Strings without escapes are used in place; others are unescaped into `scratch` (as large as the line). Each text
# column has an open-addressing table over its own Arrow dictionary (offsets and bytes), compared byte for byte.
#
# Cost. One pass; 0.1 us per 100 bytes of event or so, no allocation per event. Proved by tests/parity/test_decode.py
# against tests/oracle/decode.py.

from libc.stdint cimport int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memcmp, memcpy, memset

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t tf_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline uint64_t tf_load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }

    /* How many of the next 8 bytes need no look inside a JSON string: all but quote, backslash, control, non-ASCII.
       A borrow can only raise a false mark above a true one, so the lowest mark is exact (little-endian). */
    static inline int tf_plain_run(const uint8_t *p) {
        const uint64_t ones = 0x0101010101010101ULL, tops = 0x8080808080808080ULL;
        uint64_t w = tf_load64(p);
        uint64_t quote = w ^ (ones * 0x22), slash = w ^ (ones * 0x5c);
        uint64_t marks = (((quote - ones) & ~quote) | ((slash - ones) & ~slash) | ((w - ones * 0x20) & ~w) | w) & tops;
        return marks ? __builtin_ctzll(marks) >> 3 : 8;
    }
    static inline uint64_t tf_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    /* Only spreads strings over a table of one batch; nothing that lasts depends on it. */
    static inline uint64_t tf_text_hash(const uint8_t *p, size_t size) {
        uint64_t hash = 0x9e3779b97f4a7c15ULL ^ size, tail = 0;
        while (size > 8) {
            hash = tf_fold(hash ^ tf_load64(p), 0xd6e8feb86659fd93ULL);
            p += 8;
            size -= 8;
        }
        if (size >= 4) tail = tf_load32(p) | tf_load32(p + size - 4) << 32;
        else if (size) tail = p[0] | (uint64_t)p[size >> 1] << 8 | (uint64_t)p[size - 1] << 16;
        return tf_fold(hash ^ tail, 0xa0761d6478bd642fULL);
    }
    static inline int tf_popcount(uint32_t bits) { return __builtin_popcount(bits); }
    """
    int plain_run "tf_plain_run"(const uint8_t *p) noexcept nogil
    uint64_t text_hash "tf_text_hash"(const uint8_t *p, size_t size) noexcept nogil
    int popcount "tf_popcount"(uint32_t bits) noexcept nogil

cdef enum:
    DEPTH_MAX = 64  # nesting; the top object is 1
    METERS_ROOM = 1024  # meters of one event; `Limits` allows no more
    TEXTS = 7  # source and the six dimensions
    TABLES = 8  # the texts and the meter names
    METER_TABLE = 7
    DIGITS_MAX = 18  # digits that always fit an int64; longer numbers are handed over
    METER_NAME_MAX = 64

# Fields by number. ID..SERVICE_TIER are the columns in the order of the EVENTS schema, but for TIME.
cdef enum:
    F_SOURCE = 0
    F_CUSTOMER = 1
    F_PROJECT = 2
    F_FEATURE = 3
    F_MODEL = 4
    F_REGION = 5
    F_SERVICE_TIER = 6
    F_ID = 7
    F_TIME = 8
    F_TYPE = 9
    F_SPECVERSION = 10
    F_SUBJECT = 11
    F_USAGE = 12
    F_DATA = 13
    FIELDS = 14
    F_IGNORED = 14  # datacontenttype, dataschema
    F_UNKNOWN = 15

cdef enum:
    OWN_FIELDS = (1 << F_PROJECT) | (1 << F_FEATURE) | (1 << F_MODEL) | (1 << F_REGION) | (1 << F_SERVICE_TIER) | (1 << F_USAGE)
    # Fields that mean nothing where they stand: in the top object of a CloudEvent, in its `data`, in a flat event.
    UNKNOWN_IN_ENVELOPE = OWN_FIELDS | (1 << F_CUSTOMER)
    UNKNOWN_IN_DATA = ((1 << FIELDS) - 1) & ~OWN_FIELDS
    UNKNOWN_IN_FLAT = (1 << F_SUBJECT) | (1 << F_DATA)

cdef enum Kind:
    ABSENT = 0
    IS_NULL = 1
    IS_STRING = 2
    IS_INTEGER = 3
    IS_OBJECT = 4
    IS_OTHER = 5

cdef struct Text:
    const uint8_t *at
    int64_t size

cdef struct Value:
    Kind kind
    Text text  # of a string, unescaped; of an integer, its literal

cdef struct Meters:
    int count
    Text names[METERS_ROOM]
    Value values[METERS_ROOM]

cdef struct Members:  # what was found in one object: the top one or its `data`
    uint32_t present  # a bit a field
    int64_t ignored
    int64_t unknown
    Value values[FIELDS]
    Meters meters

cdef struct Reader:
    const uint8_t *wide  # the last place where 8 bytes may be loaded
    const uint8_t *line
    const uint8_t *end  # the sentinel
    uint8_t *scratch
    size_t scratch_used
    size_t scratch_room
    bint out_of_memory
    Members top
    Members inner

cdef struct Growing:
    uint8_t *at
    size_t used
    size_t room

cdef struct Table:
    Growing text
    Growing offsets  # int32, one more than there are entries
    Growing hashes  # uint64 an entry
    int32_t *slots  # entry number, or -1
    size_t slots_size  # a power of two, or 0
    size_t count

cdef struct Event:
    Text id
    Text texts[TEXTS]
    int64_t time_us
    int64_t position
    int meters
    Text names[METERS_ROOM]
    int64_t quantities[METERS_ROOM]


# --- growing memory ------------------------------------------------------------------------------------

cdef inline bint room_for(Growing *buffer, size_t extra) noexcept nogil:
    cdef size_t room
    cdef void *moved
    if buffer.used + extra <= buffer.room:
        return True
    room = buffer.room * 2 if buffer.room else 256
    while room < buffer.used + extra:
        room *= 2
    moved = realloc(buffer.at, room)
    if moved == NULL:
        return False
    buffer.at = <uint8_t *>moved
    buffer.room = room
    return True


cdef inline void put(Growing *buffer, const void *item, size_t size) noexcept nogil:
    # The caller has made room.
    memcpy(buffer.at + buffer.used, item, size)
    buffer.used += size


cdef bint grow_slots(Table *table) noexcept nogil:
    cdef size_t size = table.slots_size * 2 if table.slots_size else 64
    cdef uint64_t *hashes = <uint64_t *>table.hashes.at
    cdef int32_t *slots = <int32_t *>realloc(table.slots, size * sizeof(int32_t))
    cdef size_t entry, slot
    if slots == NULL:
        return False
    table.slots = slots
    table.slots_size = size
    memset(slots, 0xff, size * sizeof(int32_t))
    for entry in range(table.count):
        slot = hashes[entry] & (size - 1)
        while slots[slot] >= 0:
            slot = (slot + 1) & (size - 1)
        slots[slot] = <int32_t>entry
    return True


cdef int32_t entry_of(Table *table, Text text) noexcept nogil:
    # The number of `text` in the table's dictionary, new or old; -1 without memory.
    cdef uint64_t hash = text_hash(text.at, <size_t>text.size)
    cdef size_t slot
    cdef int32_t entry, offset
    cdef int32_t *offsets
    if 2 * (table.count + 1) > table.slots_size and not grow_slots(table):
        return -1
    slot = hash & (table.slots_size - 1)
    while table.slots[slot] >= 0:
        entry = table.slots[slot]
        if (<uint64_t *>table.hashes.at)[entry] == hash:
            offsets = <int32_t *>table.offsets.at
            if offsets[entry + 1] - offsets[entry] == text.size and (
                memcmp(table.text.at + offsets[entry], text.at, <size_t>text.size) == 0
            ):
                return entry
        slot = (slot + 1) & (table.slots_size - 1)
    if not (
        room_for(&table.text, <size_t>text.size + 1)
        and room_for(&table.offsets, 2 * sizeof(int32_t))
        and room_for(&table.hashes, sizeof(uint64_t))
    ):
        return -1
    if table.count == 0:
        offset = 0
        put(&table.offsets, &offset, sizeof(int32_t))
    put(&table.text, text.at, <size_t>text.size)
    offset = <int32_t>table.text.used
    put(&table.offsets, &offset, sizeof(int32_t))
    put(&table.hashes, &hash, sizeof(uint64_t))
    entry = <int32_t>table.count
    table.slots[slot] = entry
    table.count += 1
    return entry


# --- strict JSON; every reader gives the place behind what it read, or NULL where it is not certain ----

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


cdef int32_t hex4(const uint8_t *p) noexcept nogil:
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


cdef const uint8_t *read_escape(const uint8_t *p, uint8_t **to) noexcept nogil:
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


cdef const uint8_t *read_escaped(Reader *r, const uint8_t *start, const uint8_t *p, Text *out) noexcept nogil:
    # The rest of a string whose first escape stands at p. No escape is shorter than what it stands for, so all the
    # strings of a line fit a scratch of the line's size, and it never moves while a line is read.
    cdef size_t size = <size_t>(r.end - r.line)
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


cdef inline const uint8_t *read_string(Reader *r, const uint8_t *p, Text *out) noexcept nogil:
    # p stands behind the opening quote.
    cdef const uint8_t *start = p
    cdef int run
    while True:
        if p <= r.wide:
            run = plain_run(p)
            p += run
            if run == 8:
                continue
        if p[0] == c'"':
            out.at = start
            out.size = p - start
            return p + 1
        if p[0] == c'\\':
            return read_escaped(r, start, p, out)
        run = utf8_size(p) if p[0] >= 0x20 else 0
        if run == 0:
            return NULL
        p += run


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


cdef const uint8_t *skip_members(Reader *r, const uint8_t *p, int depth) noexcept nogil:
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


cdef const uint8_t *skip_items(Reader *r, const uint8_t *p, int depth) noexcept nogil:
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


cdef const uint8_t *read_value(Reader *r, const uint8_t *p, int depth, Value *out) noexcept nogil:
    # A value inside an object or array at `depth`. Strings and integers keep their text; containers are only checked.
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


# --- the event's own fields ----------------------------------------------------------------------------

cdef inline bint equals(Text text, const char *word, int64_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, <size_t>size) == 0


cdef int field_of(Text name) noexcept nogil:
    if name.size == 2:
        return F_ID if equals(name, b"id", 2) else F_UNKNOWN
    if name.size == 4:
        if equals(name, b"time", 4):
            return F_TIME
        if equals(name, b"type", 4):
            return F_TYPE
        return F_DATA if equals(name, b"data", 4) else F_UNKNOWN
    if name.size == 5:
        if equals(name, b"model", 5):
            return F_MODEL
        return F_USAGE if equals(name, b"usage", 5) else F_UNKNOWN
    if name.size == 6:
        if equals(name, b"source", 6):
            return F_SOURCE
        return F_REGION if equals(name, b"region", 6) else F_UNKNOWN
    if name.size == 7:
        if equals(name, b"subject", 7):
            return F_SUBJECT
        if equals(name, b"project", 7):
            return F_PROJECT
        return F_FEATURE if equals(name, b"feature", 7) else F_UNKNOWN
    if name.size == 8:
        return F_CUSTOMER if equals(name, b"customer", 8) else F_UNKNOWN
    if name.size == 10:
        return F_IGNORED if equals(name, b"dataschema", 10) else F_UNKNOWN
    if name.size == 11:
        return F_SPECVERSION if equals(name, b"specversion", 11) else F_UNKNOWN
    if name.size == 12:
        return F_SERVICE_TIER if equals(name, b"service_tier", 12) else F_UNKNOWN
    if name.size == 15:
        return F_IGNORED if equals(name, b"datacontenttype", 15) else F_UNKNOWN
    return F_UNKNOWN


cdef const uint8_t *read_usage(Reader *r, const uint8_t *p, int depth, Meters *meters) noexcept nogil:
    # p stands behind the brace of a `usage` object at `depth`.
    p = skip_space(p)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"' or meters.count == METERS_ROOM:
            return NULL
        p = read_string(r, p + 1, &meters.names[meters.count])
        if p == NULL:
            return NULL
        p = skip_space(p)
        if p[0] != c':':
            return NULL
        p = read_value(r, skip_space(p + 1), depth, &meters.values[meters.count])
        if p == NULL:
            return NULL
        meters.count += 1
        p = skip_space(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = skip_space(p + 1)


cdef const uint8_t *read_member(Reader *r, const uint8_t *p, int depth, Members *found, int field) noexcept nogil:
    # The value of one field of the top object (depth 1) or of its `data` (depth 2).
    cdef Value other
    if field >= FIELDS:
        if field == F_IGNORED:
            found.ignored += 1
        else:
            found.unknown += 1
        return read_value(r, p, depth, &other)
    if found.present >> field & 1:
        return NULL
    found.present |= 1 << field
    if p[0] == c'{':
        found.values[field].kind = IS_OBJECT
        if field == F_USAGE:
            return read_usage(r, p + 1, depth + 1, &found.meters)
        if field == F_DATA and depth == 1:
            return read_members(r, p + 1, 2, &r.inner)
    return read_value(r, p, depth, &found.values[field])


cdef const uint8_t *read_members(Reader *r, const uint8_t *p, int depth, Members *found) noexcept nogil:
    cdef Text name
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
        p = read_member(r, skip_space(p + 1), depth, found, field_of(name))
        if p == NULL:
            return NULL
        p = skip_space(p)
        if p[0] == c'}':
            return p + 1
        if p[0] != c',':
            return NULL
        p = skip_space(p + 1)


# --- values --------------------------------------------------------------------------------------------

cdef inline int number2(const uint8_t *p) noexcept nogil:
    return (p[0] - c'0') * 10 + p[1] - c'0' if is_digit(p[0]) and is_digit(p[1]) else -1


cdef inline int64_t days_before(int64_t year, int64_t month, int64_t day) noexcept nogil:
    # Days from 1970-01-01 in the proleptic Gregorian calendar; years counted from March, so that a leap day comes last.
    cdef int64_t y = year - (1 if month <= 2 else 0) + 400  # above 0 for the year 0000
    cdef int64_t from_march = (month + 9) % 12
    return y * 365 + y // 4 - y // 100 + y // 400 + (from_march * 153 + 2) // 5 + day - 1 - 719468 - 146097


cdef inline int month_days(int year, int month) noexcept nogil:
    if month == 2:
        return 29 if year % 4 == 0 and (year % 100 != 0 or year % 400 == 0) else 28
    return 30 if month == 4 or month == 6 or month == 9 or month == 11 else 31


cdef bint read_offset(const uint8_t *p, int64_t size, int64_t *offset_s) noexcept nogil:
    cdef int hours, minutes
    if size == 1 and p[0] | 0x20 == c'z':
        offset_s[0] = 0
        return True
    if size != 6 or p[3] != c':' or (p[0] != c'+' and p[0] != c'-'):
        return False
    hours = number2(p + 1)
    minutes = number2(p + 4)
    if hours < 0 or hours > 23 or minutes < 0 or minutes > 59:
        return False
    offset_s[0] = (hours * 60 + minutes) * 60
    if p[0] == c'-':
        offset_s[0] = -offset_s[0]
    return True


cdef bint read_time(Text text, int64_t *time_us) noexcept nogil:
    # `YYYY-MM-DD(T|t| )HH:MM:SS[.f{1,30}](Z|z|+HH:MM|-HH:MM)`; False for anything else.
    cdef const uint8_t *p = text.at
    cdef const uint8_t *end = text.at + text.size
    cdef int century, years, month, day, hour, minute, second, digits = 0
    cdef int64_t fraction_us = 0, offset_s = 0
    if text.size < 20 or p[4] != c'-' or p[7] != c'-' or p[13] != c':' or p[16] != c':':
        return False
    if p[10] != c'T' and p[10] != c't' and p[10] != c' ':
        return False
    century = number2(p)
    years = number2(p + 2)
    month = number2(p + 5)
    day = number2(p + 8)
    hour = number2(p + 11)
    minute = number2(p + 14)
    second = number2(p + 17)
    if century < 0 or years < 0 or month < 1 or month > 12 or day < 1 or hour < 0 or minute < 0 or second < 0:
        return False
    years += century * 100
    if day > month_days(years, month) or hour > 23 or minute > 59 or second > 60:
        return False
    p += 19
    if p[0] == c'.':
        p += 1
        while p < end and is_digit(p[0]):
            if digits < 6:
                fraction_us = fraction_us * 10 + p[0] - c'0'
            digits += 1
            p += 1
        if digits < 1 or digits > 30:
            return False
        while digits < 6:
            fraction_us *= 10
            digits += 1
    if not read_offset(p, end - p, &offset_s):
        return False
    time_us[0] = (
        (days_before(years, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset_s) * 1000000 + fraction_us
    )
    return True


cdef bint read_quantity(const Value *value, int64_t quantity_max, int64_t *quantity) noexcept nogil:
    cdef const uint8_t *p = value.text.at
    cdef const uint8_t *end = p + value.text.size
    cdef int64_t total = 0
    if (value.kind != IS_INTEGER and value.kind != IS_STRING) or p == end:
        return False
    while end - p > 1 and p[0] == c'0':
        p += 1
    if end - p > DIGITS_MAX:
        return False
    while p < end:
        if not is_digit(p[0]):  # a minus sign too: -0 is rare, all else negative is rejected
            return False
        total = total * 10 + (p[0] - c'0')
        p += 1
    quantity[0] = total
    return total <= quantity_max


cdef bint is_meter_name(Text name) noexcept nogil:
    cdef int64_t i
    cdef uint8_t c
    if name.size < 1 or name.size > METER_NAME_MAX or not c'a' <= name.at[0] <= c'z':
        return False
    for i in range(1, name.size):
        c = name.at[i]
        if not (c'a' <= c <= c'z' or is_digit(c) or c == c'_'):
            return False
    return not equals(name, b"requests", 8)


cdef inline bint take_text(const Members *found, int field, int64_t size_max, Text *out) noexcept nogil:
    # A text that may be missing or null, which is the empty string.
    out.at = <const uint8_t *>b""
    out.size = 0
    if not found.present >> field & 1 or found.values[field].kind == IS_NULL:
        return True
    out[0] = found.values[field].text
    return found.values[field].kind == IS_STRING and out.size <= size_max


# --- the parser ----------------------------------------------------------------------------------------

cdef class LineParser:
    """Reads the lines of one chunk into event columns; see the head of this file.

    Args: data: whole lines, below 2 GiB; base: the chunk's byte offset in its origin; string_bytes_max, quantity_max,
    meters_max (at most 1024), event_bytes_max: the limits of an event; time_max_us: the latest acceptable event time.
    Raises ValueError for a chunk that is too long, MemoryError.
    """

    cdef bytes data
    cdef int64_t base, event_bytes_max, string_bytes_max, quantity_max, meters_max, time_max_us
    cdef const uint8_t *at  # the next line
    cdef const uint8_t *chunk
    cdef const uint8_t *chunk_end
    cdef Reader *reader
    cdef Event *event
    cdef Growing ids, id_offsets, times, positions, usage_offsets, meters, quantities
    cdef Growing codes[TEXTS]
    cdef Table tables[TABLES]
    cdef readonly int64_t read  # lines that are not blank
    cdef readonly int64_t unknown_fields
    cdef readonly int64_t events
    cdef readonly int64_t line_start  # of the line handed over: its place in `data`
    cdef readonly int64_t line_end

    def __cinit__(
        self, bytes data, int64_t base, *, int64_t event_bytes_max, int64_t string_bytes_max, int64_t quantity_max,
        int64_t meters_max, int64_t time_max_us,
    ):
        if len(data) >= 2**31 - 1:
            raise ValueError(f"a chunk of {len(data)} bytes is too long; chunks must be below 2 GiB")
        self.data = data
        self.base = base
        self.event_bytes_max = event_bytes_max
        self.string_bytes_max = string_bytes_max
        self.quantity_max = quantity_max
        self.meters_max = min(meters_max, METERS_ROOM)
        self.time_max_us = time_max_us
        self.chunk = <const uint8_t *><const char *>data
        self.chunk_end = self.chunk + len(data)
        self.at = self.chunk
        self.reader = <Reader *>realloc(NULL, sizeof(Reader))
        self.event = <Event *>realloc(NULL, sizeof(Event))
        if self.reader == NULL or self.event == NULL:
            raise MemoryError()
        memset(self.reader, 0, sizeof(Reader))
        self.reader.wide = self.chunk_end - 8
        cdef int32_t zero = 0
        if not (room_for(&self.id_offsets, 4) and room_for(&self.usage_offsets, 4)):
            raise MemoryError()
        put(&self.id_offsets, &zero, 4)
        put(&self.usage_offsets, &zero, 4)

    def __dealloc__(self):
        cdef int i
        if self.reader != NULL:
            free(self.reader.scratch)
        free(self.reader)
        free(self.event)
        free(self.ids.at)
        free(self.id_offsets.at)
        free(self.times.at)
        free(self.positions.at)
        free(self.usage_offsets.at)
        free(self.meters.at)
        free(self.quantities.at)
        for i in range(TEXTS):
            free(self.codes[i].at)
        for i in range(TABLES):
            free(self.tables[i].text.at)
            free(self.tables[i].offsets.at)
            free(self.tables[i].hashes.at)
            free(self.tables[i].slots)

    def run(self) -> bool:
        """Reads on until a line needs the exact reader (True; see `line_start`, `line_end`) or the chunk ends (False)."""
        cdef int outcome
        with nogil:
            outcome = self.advance()
        if outcome < 0:
            raise MemoryError()
        return outcome == 1

    def append(self, bytes id, int64_t event_time_us, list texts, list usage):
        """Appends an event that the exact reader accepted, at the line handed over last.

        Args: texts: source and the six dimensions, as UTF-8; usage: (meter, quantity) pairs. Nothing is checked again.
        """
        cdef Event *event = self.event
        cdef int i
        if len(texts) != TEXTS or not 0 < len(usage) <= METERS_ROOM:
            raise ValueError("an event has 7 texts and 1 to 1024 meters")
        event.id = text_of(id)
        event.time_us = event_time_us
        event.position = self.base + self.line_start
        for i in range(TEXTS):
            event.texts[i] = text_of(texts[i])
        event.meters = <int>len(usage)
        for i in range(event.meters):
            event.names[i] = text_of(usage[i][0])
            event.quantities[i] = usage[i][1]
        if not self.emit():
            raise MemoryError()

    def columns(self) -> dict[str, bytes]:
        """The columns so far: ids (id_offsets i32, id_text), event_time_us i64, position i64, usage_offsets i32,
        meter i32 and quantity i64 an item, and codes_0..codes_6 i32 (source, then the dimensions)."""
        columns = {
            "id_offsets": copied(&self.id_offsets),
            "id_text": copied(&self.ids),
            "event_time_us": copied(&self.times),
            "position": copied(&self.positions),
            "usage_offsets": copied(&self.usage_offsets),
            "meter": copied(&self.meters),
            "quantity": copied(&self.quantities),
        }
        cdef int i
        for i in range(TEXTS):
            columns[f"codes_{i}"] = copied(&self.codes[i])
        return columns

    def dictionary(self, int number) -> tuple[int, bytes, bytes]:
        """Entries, offsets (i32) and UTF-8 of a dictionary: 0 source, 1 to 6 the dimensions, 7 the meters."""
        if not 0 <= number < TABLES:
            raise ValueError(f"there is no dictionary {number}")
        cdef Table *table = &self.tables[number]
        if table.count == 0:
            return 0, bytes(4), b""
        return table.count, copied(&table.offsets), copied(&table.text)

    cdef int advance(self) noexcept nogil:
        # 1: a line is handed over; 0: end of the chunk; -1: no memory.
        cdef const uint8_t *line
        cdef const uint8_t *first
        cdef const uint8_t *end
        cdef const uint8_t *stop  # the end without CR LF
        while self.at < self.chunk_end:
            line = self.at
            end = <const uint8_t *>memchr(line, c'\n', <size_t>(self.chunk_end - line))
            if end == NULL:
                end = stop = self.at = self.chunk_end
            else:
                self.at = end + 1
                stop = end - 1 if end > line and (end - 1)[0] == c'\r' else end
            first = skip_space(line)
            if first == end:
                continue
            self.read += 1
            if stop - line <= self.event_bytes_max and self.take_line(line, first, end):
                continue
            if self.reader.out_of_memory:
                return -1
            self.line_start = line - self.chunk
            self.line_end = stop - self.chunk
            return 1
        return 0

    cdef bint take_line(self, const uint8_t *line, const uint8_t *first, const uint8_t *end) noexcept nogil:
        cdef Reader *r = self.reader
        cdef const uint8_t *p
        if first[0] != c'{':
            return False
        r.line = line
        r.end = end
        r.scratch_used = 0
        r.top.present = r.inner.present = 0
        r.top.ignored = r.inner.ignored = r.top.unknown = r.inner.unknown = 0
        r.top.meters.count = r.inner.meters.count = 0
        p = read_members(r, first + 1, 1, &r.top)
        if p == NULL or skip_space(p) != end:
            return False
        self.event.position = self.base + (line - self.chunk)
        return self.take_event()

    cdef bint take_event(self) noexcept nogil:
        # From the members found to one more row, if every rule holds.
        cdef Members *top = &self.reader.top
        cdef Members *inner = &self.reader.inner
        cdef Members *own = top  # where project..usage stand
        cdef Event *event = self.event
        cdef bint typed = top.present >> F_TYPE & 1
        cdef int customer = F_CUSTOMER
        cdef int64_t unknown
        cdef int i
        if top.present >> F_SPECVERSION & 1:
            if top.values[F_SPECVERSION].kind != IS_STRING or not equals(top.values[F_SPECVERSION].text, b"1.0", 3):
                return False
            if not typed or not top.present >> F_DATA & 1 or top.values[F_DATA].kind != IS_OBJECT:
                return False
            own = inner
            customer = F_SUBJECT
            unknown = top.unknown + inner.unknown + inner.ignored
            unknown += popcount(top.present & UNKNOWN_IN_ENVELOPE) + popcount(inner.present & UNKNOWN_IN_DATA)
        else:
            typed = typed and top.values[F_TYPE].kind != IS_NULL
            unknown = top.unknown + top.ignored + popcount(top.present & UNKNOWN_IN_FLAT)
        if typed and (top.values[F_TYPE].kind != IS_STRING or not equals(top.values[F_TYPE].text, b"llm.usage", 9)):
            return False
        if not (
            take_text(top, F_ID, self.string_bytes_max, &event.id) and event.id.size > 0
            and take_text(top, F_SOURCE, self.string_bytes_max, &event.texts[F_SOURCE])
            and take_text(top, customer, self.string_bytes_max, &event.texts[F_CUSTOMER])
            and event.texts[F_CUSTOMER].size > 0
        ):
            return False
        for i in range(F_PROJECT, F_SERVICE_TIER + 1):
            if not take_text(own, i, self.string_bytes_max, &event.texts[i]):
                return False
        if not self.take_time(top) or not self.take_usage(own) or not self.emit():
            return False
        self.unknown_fields += unknown
        return True

    cdef bint take_time(self, const Members *top) noexcept nogil:
        cdef Event *event = self.event
        if not top.present >> F_TIME & 1 or top.values[F_TIME].kind != IS_STRING:
            return False
        if not read_time(top.values[F_TIME].text, &event.time_us):
            return False
        return 0 <= event.time_us <= self.time_max_us

    cdef bint take_usage(self, const Members *own) noexcept nogil:
        cdef const Meters *meters = &own.meters
        cdef Event *event = self.event
        cdef int i, j
        if not own.present >> F_USAGE & 1 or own.values[F_USAGE].kind != IS_OBJECT:
            return False
        if meters.count == 0 or meters.count > self.meters_max:
            return False
        for i in range(meters.count):
            if not is_meter_name(meters.names[i]):
                return False
            if not read_quantity(&meters.values[i], self.quantity_max, &event.quantities[i]):
                return False
            event.names[i] = meters.names[i]
            for j in range(i):
                if equals(event.names[j], <const char *>event.names[i].at, event.names[i].size):
                    return False
        event.meters = meters.count
        return True

    cdef bint emit(self) noexcept nogil:
        # Appends `event` to the columns; False without memory.
        cdef Event *event = self.event
        cdef size_t items = <size_t>event.meters
        cdef int32_t code, offset
        cdef int i
        self.reader.out_of_memory = True
        if not (
            room_for(&self.ids, <size_t>event.id.size) and room_for(&self.id_offsets, 4) and room_for(&self.times, 8)
            and room_for(&self.positions, 8) and room_for(&self.usage_offsets, 4)
            and room_for(&self.meters, 4 * items) and room_for(&self.quantities, 8 * items)
        ):
            return False
        for i in range(TEXTS):
            code = entry_of(&self.tables[i], event.texts[i])
            if code < 0 or not room_for(&self.codes[i], 4):
                return False
            put(&self.codes[i], &code, 4)
        for i in range(event.meters):
            code = entry_of(&self.tables[METER_TABLE], event.names[i])
            if code < 0:
                return False
            put(&self.meters, &code, 4)
        put(&self.quantities, event.quantities, 8 * items)
        put(&self.ids, event.id.at, <size_t>event.id.size)
        offset = <int32_t>self.ids.used
        put(&self.id_offsets, &offset, 4)
        put(&self.times, &event.time_us, 8)
        put(&self.positions, &event.position, 8)
        offset = <int32_t>(self.meters.used // 4)
        put(&self.usage_offsets, &offset, 4)
        self.events += 1
        self.reader.out_of_memory = False
        return True


cdef Text text_of(bytes value):
    # Points into `value`, which must outlive its use.
    cdef Text text
    text.at = <const uint8_t *><const char *>value
    text.size = len(value)
    return text


cdef bytes copied(const Growing *buffer):
    return (<const char *>buffer.at)[:buffer.used] if buffer.used else b""


# --- meter columns -------------------------------------------------------------------------------------

cdef struct MeterColumn:
    const uint8_t *values
    const uint8_t *validity  # an Arrow bitmap, or NULL: no nulls
    int64_t offset
    int width  # bytes a value; negative: unsigned


cdef inline int64_t quantity_at(const MeterColumn *column, int64_t row) noexcept nogil:
    # Negative for any value that is negative or above int64.
    cdef const uint8_t *values = column.values
    row += column.offset
    if column.width == 8 or column.width == -8:
        return (<const int64_t *>values)[row]
    if column.width == 4:
        return (<const int32_t *>values)[row]
    if column.width == -4:
        return (<const uint32_t *>values)[row]
    if column.width == 2:
        return (<const int16_t *>values)[row]
    if column.width == -2:
        return (<const uint16_t *>values)[row]
    return (<const int8_t *>values)[row] if column.width == 1 else values[row]


cdef int64_t fill_usage(
    const MeterColumn *columns, int count, int64_t rows, int64_t quantity_max,
    int32_t *offsets, int32_t *meters, int64_t *quantities,
) noexcept nogil:
    cdef int64_t row, at, quantity, items = 0
    cdef int i
    offsets[0] = 0
    for row in range(rows):
        for i in range(count):
            if columns[i].validity != NULL:
                at = row + columns[i].offset
                if not columns[i].validity[at >> 3] >> (at & 7) & 1:
                    continue
            quantity = quantity_at(&columns[i], row)
            if quantity < 0 or quantity > quantity_max:
                return -1
            meters[items] = i
            quantities[items] = quantity
            items += 1
        offsets[row + 1] = <int32_t>items
    return items


def interleave(
    list columns, int64_t rows, int64_t quantity_max, size_t offsets, size_t meters, size_t quantities
) -> int:
    """Turns meter columns into the usage list of every row: (offsets, meter number, quantity), nulls left out.

    Args: columns: (values address, validity address or 0, Arrow offset, width in bytes, negative if unsigned) each;
    offsets: rows + 1 int32; meters, quantities: rows x columns int32 and int64. Returns the items written, or -1 if a
    quantity is negative or above quantity_max. Raises ValueError if the items could pass 2^31, MemoryError.
    """
    cdef int count = <int>len(columns)
    cdef int64_t items
    cdef int i
    if rows * count >= 2**31:
        raise ValueError(f"a batch of {rows} rows and {count} meters is too large; read smaller batches")
    cdef MeterColumn *table = <MeterColumn *>realloc(NULL, (count + 1) * sizeof(MeterColumn))
    if table == NULL:
        raise MemoryError()
    try:
        for i in range(count):
            table[i].values = <const uint8_t *><size_t>columns[i][0]
            table[i].validity = <const uint8_t *><size_t>columns[i][1]
            table[i].offset = columns[i][2]
            table[i].width = columns[i][3]
        with nogil:
            items = fill_usage(
                table, count, rows, quantity_max, <int32_t *>offsets, <int32_t *>meters, <int64_t *>quantities
            )
        return items
    finally:
        free(table)
