# The members of an event's objects: which of them are fields of its own, and where their values stand.

from libc.stdint cimport int64_t, uint8_t, uint32_t

from .strict_json cimport IS_NULL, IS_OBJECT, IS_STRING, Reader, Value, read_string, read_value, skip_space
from .text_table cimport Text, equals

cdef enum:
    METERS_ROOM = 1024  # meters of one event; `Limits` allows no more

# Fields by number; the texts first, in the order of the EVENTS schema.
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
    DETAILS = (1 << F_PROJECT) | (1 << F_FEATURE) | (1 << F_MODEL) | (1 << F_REGION) | (1 << F_SERVICE_TIER)
    OWN_FIELDS = DETAILS | (1 << F_USAGE)  # what `data` of a CloudEvent is for
    # Fields without meaning in the top object of a CloudEvent, in its `data`, in a flat event.
    UNKNOWN_IN_ENVELOPE = OWN_FIELDS | (1 << F_CUSTOMER)
    UNKNOWN_IN_DATA = ((1 << FIELDS) - 1) & ~OWN_FIELDS
    UNKNOWN_IN_FLAT = (1 << F_SUBJECT) | (1 << F_DATA)

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

cdef struct LineReader:
    Reader json
    Members top
    Members inner


cdef inline int field_of(Text name) noexcept nogil:
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


cdef inline const uint8_t *read_usage(Reader *r, const uint8_t *p, int depth, Meters *meters) noexcept nogil:
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


cdef inline const uint8_t *read_member(
    LineReader *r, const uint8_t *p, int depth, Members *found, int field
) noexcept nogil:
    # The value of one field of the top object (depth 1) or of its `data` (depth 2).
    cdef Value other
    if field >= FIELDS:
        if field == F_IGNORED:
            found.ignored += 1
        else:
            found.unknown += 1
        return read_value(&r.json, p, depth, &other)
    if found.present >> field & 1:
        return NULL
    found.present |= 1 << field
    if p[0] == c'{':
        found.values[field].kind = IS_OBJECT
        if field == F_USAGE:
            return read_usage(&r.json, p + 1, depth + 1, &found.meters)
        if field == F_DATA and depth == 1:
            return read_members(r, p + 1, 2, &r.inner)
    return read_value(&r.json, p, depth, &found.values[field])


cdef inline const uint8_t *read_members(LineReader *r, const uint8_t *p, int depth, Members *found) noexcept nogil:
    cdef Text name
    p = skip_space(p)
    if p[0] == c'}':
        return p + 1
    while True:
        if p[0] != c'"':
            return NULL
        p = read_string(&r.json, p + 1, &name)
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


cdef inline bint has_text(const Members *found, int field) noexcept nogil:
    return found.present >> field & 1 and found.values[field].kind == IS_STRING


cdef inline bint says(const Members *found, int field, const char *word, int64_t size) noexcept nogil:
    return found.values[field].kind == IS_STRING and equals(found.values[field].text, word, size)


cdef inline bint take_text(const Members *found, int field, int64_t size_max, Text *out) noexcept nogil:
    # A text that may be missing or null, which is the empty string.
    out.at = <const uint8_t *>b""
    out.size = 0
    if not found.present >> field & 1 or found.values[field].kind == IS_NULL:
        return True
    out[0] = found.values[field].text
    return found.values[field].kind == IS_STRING and out.size <= size_max
