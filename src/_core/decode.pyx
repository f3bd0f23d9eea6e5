# NDJSON lines to event columns.
#
# What it does. `LineParser.run` walks a chunk line by line. A line it can read with certainty (strict RFC
# 8259, a valid usage event) is appended to growing columns. At any other line (an error, or a shape too
# rare for code here) it stops, and the caller reads that line with the exact Python reader
# (`flow/steps/decode_json.py`), appends the event if there is one, and goes on. So this file knows one
# answer, "accepted", and never has to name a reason.
#
# Memory layout. The chunk is a Python `bytes`, so the byte behind it is a readable NUL: that NUL, or the
# line's newline, is the sentinel of `strict_json.pxd`. Texts stay in the chunk until they are copied into
# an Arrow column or into a column's dictionary (`text_table.pxd`).
#
# Cost. One pass, no allocation per event, 1.4 ns a byte. Proved by tests/parity/test_decode.py against the
# oracle.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from .event_values cimport is_meter_name, read_quantity, read_time
from .status cimport CORE_SOURCE_HASH
from .strict_json cimport IS_NULL, IS_OBJECT, IS_STRING, Reader, Value, read_string, read_value, skip_space
from .text_table cimport Growing, Table, Text, entry_of, equals, put, room_for

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef extern from *:
    int popcount "__builtin_popcount"(unsigned int bits) noexcept nogil

cdef enum:
    METERS_ROOM = 1024  # meters of one event; `Limits` allows no more
    TEXTS = 7  # source and the six dimensions
    TABLES = 8  # the texts and the meter names
    METER_TABLE = 7

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

cdef struct Event:
    Text id
    Text texts[TEXTS]
    int64_t time_us
    int64_t position
    int meters
    Text names[METERS_ROOM]
    int64_t quantities[METERS_ROOM]


# --- the event's own fields ----------------------------------------------------------------------------

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


cdef const uint8_t *read_member(
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


cdef const uint8_t *read_members(LineReader *r, const uint8_t *p, int depth, Members *found) noexcept nogil:
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


# --- the parser ----------------------------------------------------------------------------------------

cdef class LineParser:
    """Reads the lines of one chunk into event columns; see the head of this file.

    Args: data: whole lines, below 2 GiB; base: the chunk's byte offset in its origin; event_bytes_max,
    string_bytes_max, quantity_max, meters_max (at most 1024): what an event may be; time_max_us: the latest
    acceptable event time. Raises ValueError for a chunk that is too long, MemoryError.
    """

    cdef bytes data
    cdef int64_t base, event_bytes_max, string_bytes_max, quantity_max, meters_max, time_max_us
    cdef const uint8_t *at  # the next line
    cdef const uint8_t *chunk
    cdef const uint8_t *chunk_end
    cdef LineReader *reader
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
        self, bytes data, int64_t base, *, int64_t event_bytes_max, int64_t string_bytes_max,
        int64_t quantity_max, int64_t meters_max, int64_t time_max_us,
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
        self.reader = <LineReader *>realloc(NULL, sizeof(LineReader))
        self.event = <Event *>realloc(NULL, sizeof(Event))
        if self.reader == NULL or self.event == NULL:
            raise MemoryError()
        memset(self.reader, 0, sizeof(LineReader))
        self.reader.json.wide = self.chunk_end - 8
        cdef int32_t zero = 0
        if not (room_for(&self.id_offsets, 4) and room_for(&self.usage_offsets, 4)):
            raise MemoryError()
        put(&self.id_offsets, &zero, 4)
        put(&self.usage_offsets, &zero, 4)

    def __dealloc__(self):
        cdef int i
        if self.reader != NULL:
            free(self.reader.json.scratch)
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
        """Reads on until a line is handed over (True; `line_start`, `line_end`) or the chunk ends (False)."""
        cdef int outcome
        with nogil:
            outcome = self.advance()
        if outcome < 0:
            raise MemoryError()
        return outcome == 1

    def append(self, bytes id, int64_t event_time_us, list texts, list usage):
        """Appends an event that the exact reader accepted, at the line handed over last.

        Args: texts: source and the six dimensions, as UTF-8; usage: (meter, quantity) pairs. Only how many
        they are is checked again. Raises ValueError, MemoryError.
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
        """The columns so far: id_offsets (i32), id_text, event_time_us and position (i64), usage_offsets
        (i32), an item's meter (i32) and quantity (i64), codes_0 to codes_6 (i32; source, the dimensions)."""
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
            if self.reader.json.out_of_memory:
                return -1
            self.line_start = line - self.chunk
            self.line_end = stop - self.chunk
            return 1
        return 0

    cdef bint take_line(self, const uint8_t *line, const uint8_t *first, const uint8_t *end) noexcept nogil:
        cdef LineReader *r = self.reader
        cdef const uint8_t *p
        if first[0] != c'{':
            return False
        r.json.start = line
        r.json.end = end
        r.json.scratch_used = 0
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
            if not says(top, F_SPECVERSION, b"1.0", 3):
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
        if typed and not says(top, F_TYPE, b"llm.usage", 9):
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
        self.reader.json.out_of_memory = True
        if not (
            room_for(&self.ids, <size_t>event.id.size) and room_for(&self.id_offsets, 4)
            and room_for(&self.times, 8) and room_for(&self.positions, 8) and room_for(&self.usage_offsets, 4)
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
        self.reader.json.out_of_memory = False
        return True


cdef Text text_of(bytes value):
    # Points into `value`, which must outlive its use.
    cdef Text text
    text.at = <const uint8_t *><const char *>value
    text.size = len(value)
    return text


cdef bytes copied(const Growing *buffer):
    return (<const char *>buffer.at)[:buffer.used] if buffer.used else b""
