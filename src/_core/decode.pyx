# NDJSON lines to event columns.
#
# What it does. `LineParser.run` walks a chunk line by line. A line it can read with certainty (strict RFC
# 8259, a valid usage event) is appended to growing columns. At any other line (an error, or a shape too
# rare for code here) it stops, and the caller reads that line with the exact Python reader
# (`flow/steps/decode_json.py`), appends the event if there is one, and goes on. So this file knows one
# answer, "accepted", and never has to name a reason. A line of the form of one before it is read without
# parsing (`line_form.pxd`).
#
# Memory layout. The chunk is a Python `bytes`, so the byte behind it is a readable NUL: that NUL, or the
# line's newline, is the sentinel of `strict_json.pxd`. Texts stay in the chunk until they are copied into
# an Arrow column or into a column's dictionary (`text_table.pxd`).
#
# Cost. One pass, no allocation per event: 0.5 ns a byte for a line of a known form, 1.4 otherwise.
# Proved by tests/parity/test_decode.py against the oracle, and by tests/fuzz.

from cpython.buffer cimport PyBuffer_FillInfo
from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

from .event_columns cimport (
    METER_TABLE, TABLES, TEXTS, EventColumns, append_row, close_columns, free_columns, open_columns
)
from .event_members cimport (
    F_CUSTOMER, F_DATA, F_ID, F_PROJECT, F_SERVICE_TIER, F_SOURCE, F_SPECVERSION, F_SUBJECT, F_TIME, F_TYPE,
    F_USAGE, METERS_ROOM, UNKNOWN_IN_DATA, UNKNOWN_IN_ENVELOPE, UNKNOWN_IN_FLAT, LineReader, Members, Meters, has_text,
    read_members, says, take_text
)
from .event_values cimport Minute, is_meter_name, read_minute, read_quantity, read_time
from .line_form cimport PLACE_END, Form, Place, add_place, behind, keep_between, short_number
from .status cimport CORE_SOURCE_HASH
from .strict_json cimport IS_NULL, IS_OBJECT, IS_STRING, plain_end, skip_space
from .text_table cimport Growing, Table, Text, entry_of, equals, text_same

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef extern from *:
    int popcount "__builtin_popcount"(unsigned int bits) noexcept nogil

cdef enum:
    PLACE_METER = 16  # the field of the first meter in a form; the others follow
    FORMS = 4  # kept of one chunk: those of producers whose lines alternate
    METERS_LEARNT_MAX = 16  # of one event; with the texts they fit PLACES_MAX
    LEARNT_MAX = 64  # in one chunk; lines of a new form each would not earn what learning costs

cdef struct Event:
    Text id
    Text texts[TEXTS]
    int32_t codes[TEXTS]
    int64_t time_us
    int64_t position
    int meters
    int32_t meter_codes[METERS_ROOM]
    Text names[METERS_ROOM]
    int64_t quantities[METERS_ROOM]

cdef struct Known:  # lines of one form
    Form form
    int64_t unknown  # unknown fields of each
    int32_t codes[TEXTS]  # of texts that all of them have in common; -1: a text has a place
    int meters
    int32_t meter_codes[METERS_LEARNT_MAX]


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
    cdef EventColumns kept
    cdef bint handed_over
    cdef Minute minute
    cdef Text source  # of the last event, and its code: most events have the same
    cdef int32_t source_code
    cdef Known known[FORMS]
    cdef int forms, last_form, learnt
    cdef int64_t line_unknown  # of the last line that was read with care
    cdef readonly int64_t read  # lines that are not blank
    cdef readonly int64_t known_lines  # of these, those of a form that was known
    cdef readonly int64_t unknown_fields
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
        self.reader.json.wide = self.chunk_end - 16
        read_minute(<const uint8_t *>b"1970-01-01T00:00:", &self.minute)
        if not open_columns(&self.kept, len(data)):
            raise MemoryError()

    def __dealloc__(self):
        if self.reader != NULL:
            free(self.reader.json.scratch)
        free(self.reader)
        free(self.event)
        free_columns(&self.kept)

    @property
    def events(self) -> int:
        """Events accepted so far."""
        return self.kept.rows

    def run(self) -> bool:
        """Reads on until a line is handed over (True; `line_start`, `line_end`) or the chunk ends (False)."""
        cdef int outcome
        self.check_not_handed_over()
        with nogil:
            outcome = self.advance()
        if outcome < 0:
            raise MemoryError()
        return outcome == 1

    def append(self, bytes id, int64_t event_time_us, list texts, list usage):
        """Appends an event that the exact reader accepted, at the line handed over last.

        Args: texts: source and the six dimensions, as UTF-8; usage: (meter, quantity) pairs. Only how many
        they are is checked again. Raises ValueError, also once the columns are handed over; MemoryError.
        """
        cdef Event *event = self.event
        cdef int i
        self.check_not_handed_over()
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

    def columns(self) -> dict[str, Column]:
        """Hands over the columns, once and at the end: id_offsets (i32), id_text, event_time_us and position (i64),
        usage_offsets (i32), an item's meter (i32) and quantity (i64), codes_0 to codes_6 (i32; source, the dimensions).
        """
        cdef int i
        self.check_not_handed_over()
        self.handed_over = True
        close_columns(&self.kept)
        columns = {
            "id_offsets": taken(&self.kept.id_offsets),
            "id_text": taken(&self.kept.ids),
            "event_time_us": taken(&self.kept.times),
            "position": taken(&self.kept.positions),
            "usage_offsets": taken(&self.kept.usage_offsets),
            "meter": taken(&self.kept.meters),
            "quantity": taken(&self.kept.quantities),
        }
        for i in range(TEXTS):
            columns[f"codes_{i}"] = taken(&self.kept.codes[i])
        return columns

    def dictionary(self, int number) -> tuple[int, bytes, bytes]:
        """Entries, offsets (i32) and UTF-8 of a dictionary: 0 source, 1 to 6 the dimensions, 7 the meters."""
        if not 0 <= number < TABLES:
            raise ValueError(f"there is no dictionary {number}")
        cdef Table *table = &self.kept.tables[number]
        if table.count == 0:
            return 0, bytes(4), b""
        return table.count, copied(&table.offsets), copied(&table.text)

    cdef int check_not_handed_over(self) except -1:
        if self.handed_over:
            raise ValueError("the columns of this parser are handed over; read on with another one")
        return 0

    cdef int advance(self) noexcept nogil:
        # 1: a line is handed over; 0: end of the chunk; -1: no memory.
        cdef const uint8_t *line
        cdef const uint8_t *first
        cdef const uint8_t *end
        cdef const uint8_t *stop  # the end without CR LF
        while self.at < self.chunk_end:
            line = self.at
            if self.take_known(line):
                continue
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
                self.learn(line, stop)
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
        self.line_unknown = unknown
        return True

    cdef bint take_time(self, const Members *top) noexcept nogil:
        cdef Event *event = self.event
        if not top.present >> F_TIME & 1 or top.values[F_TIME].kind != IS_STRING:
            return False
        if not read_time(top.values[F_TIME].text, &self.minute, &event.time_us):
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
        cdef int i
        self.reader.json.out_of_memory = True
        for i in range(TEXTS):
            event.codes[i] = entry_of(&self.kept.tables[i], event.texts[i])
            if event.codes[i] < 0:
                return False
        for i in range(event.meters):
            event.meter_codes[i] = entry_of(&self.kept.tables[METER_TABLE], event.names[i])
            if event.meter_codes[i] < 0:
                return False
        if not append_row(
            &self.kept, event.id, event.time_us, event.position, event.codes, event.meters, event.meter_codes,
            event.quantities,
        ):
            return False
        self.reader.json.out_of_memory = False
        return True

    # -- lines of a form that is known

    cdef void learn(self, const uint8_t *line, const uint8_t *stop) noexcept nogil:
        # The form of a line that was read with care just now, in the place of the one that was learnt first.
        cdef const Members *top = &self.reader.top
        cdef const Members *own = top
        cdef const Meters *meters
        cdef const Event *event = self.event
        cdef Known *known = &self.known[self.learnt % FORMS]
        cdef int customer = F_CUSTOMER, field, i
        cdef bint fits = True
        cdef Text line_end
        # A string with an escape has its value elsewhere.
        if self.learnt == LEARNT_MAX or self.reader.json.scratch_used or event.meters > METERS_LEARNT_MAX:
            return
        self.last_form = self.learnt % FORMS
        self.learnt += 1
        self.forms = min(self.learnt, FORMS)
        if top.present >> F_SPECVERSION & 1:
            own = &self.reader.inner
            customer = F_SUBJECT
        meters = &own.meters
        known.form.places = 0
        known.unknown = self.line_unknown
        known.meters = event.meters
        for i in range(TEXTS):
            field = customer if i == F_CUSTOMER else i
            known.codes[i] = event.codes[i]
            if has_text(own if i >= F_PROJECT else top, field):
                known.codes[i] = -1
                fits &= add_place(&known.form, i, (own if i >= F_PROJECT else top).values[field].text)
        fits &= add_place(&known.form, F_ID, event.id) and add_place(&known.form, F_TIME, top.values[F_TIME].text)
        for i in range(event.meters):
            known.meter_codes[i] = event.meter_codes[i]
            fits &= add_place(&known.form, PLACE_METER + i, meters.values[i].text)
        line_end.at = stop
        line_end.size = 0
        if not (fits and add_place(&known.form, PLACE_END, line_end) and keep_between(&known.form, line, stop)):
            known.form.places = 0

    cdef bint take_known(self, const uint8_t *line) noexcept nogil:
        # Whether the line is of a form that is known; then it is one more row, and `at` is behind it.
        cdef const Known *known
        cdef const uint8_t *behind_line
        cdef Event *event = self.event
        cdef int i
        for _ in range(self.forms):
            known = &self.known[self.last_form]
            behind_line = self.read_known(known, line)
            if behind_line != NULL:
                break
            self.last_form = (self.last_form + 1) % self.forms
        else:
            return False
        for i in range(TEXTS):
            event.codes[i] = known.codes[i]
        if known.codes[F_SOURCE] < 0:
            event.codes[F_SOURCE] = self.code_of_source(event.texts[F_SOURCE])
        for i in range(F_CUSTOMER, TEXTS):
            if known.codes[i] < 0:
                event.codes[i] = entry_of(&self.kept.tables[i], event.texts[i])
        for i in range(TEXTS):
            if event.codes[i] < 0:  # no memory, which will be found again by reading with care
                return False
        if not append_row(
            &self.kept, event.id, event.time_us, self.base + (line - self.chunk), event.codes, known.meters,
            known.meter_codes, event.quantities,
        ):
            return False
        self.read += 1
        self.known_lines += 1
        self.unknown_fields += known.unknown
        self.at = behind_line
        return True

    cdef const uint8_t *read_known(self, const Known *known, const uint8_t *line) noexcept nogil:
        # The values of a line of this form, to `event`; the place behind the line. NULL: it may be none.
        cdef const uint8_t *wide = self.reader.json.wide
        cdef const uint8_t *p = line
        cdef const Place *place
        cdef Event *event = self.event
        cdef Text text
        cdef int64_t quantity
        cdef int i, digits
        for i in range(known.form.places):
            place = &known.form.place[i]
            p = behind(&known.form, place, p, wide)
            if p == NULL:
                return NULL
            if place.field >= PLACE_METER:
                digits = short_number(p, &quantity)
                if digits == 0 or quantity > self.quantity_max or (p[0] == c'0' and digits > 1):
                    return NULL
                event.quantities[place.field - PLACE_METER] = quantity
                p += digits
                continue
            if place.field == PLACE_END:
                if p - line > self.event_bytes_max:
                    return NULL
                p += p[0] == c'\r'
                return p + 1 if p[0] == c'\n' else NULL
            text.at = p
            p = plain_end(p, wide)
            text.size = p - text.at
            if p[0] != c'"' or text.size > self.string_bytes_max:
                return NULL
            if place.field == F_TIME:
                if not read_time(text, &self.minute, &event.time_us) or not 0 <= event.time_us <= self.time_max_us:
                    return NULL
                continue
            if place.field == F_ID:
                event.id = text
            else:
                event.texts[place.field] = text
            if text.size == 0 and (place.field == F_ID or place.field == F_CUSTOMER):
                return NULL
        return NULL

    cdef int32_t code_of_source(self, Text source) noexcept nogil:
        if self.source.at == NULL or source.size != self.source.size or not text_same(
            source.at, self.source.at, <size_t>source.size
        ):
            self.source = source
            self.source_code = entry_of(&self.kept.tables[F_SOURCE], source)
        return self.source_code


cdef class Column:
    """Memory of a column, for as long as somebody reads it."""

    cdef uint8_t *at
    cdef Py_ssize_t size

    def __getbuffer__(self, Py_buffer *buffer, int flags):
        PyBuffer_FillInfo(buffer, self, self.at, self.size, 1, flags)

    def __dealloc__(self):
        free(self.at)


cdef Column taken(Growing *buffer):
    cdef Column column = Column.__new__(Column)
    column.at = buffer.at
    column.size = <Py_ssize_t>buffer.used
    memset(buffer, 0, sizeof(Growing))
    return column


cdef Text text_of(bytes value):
    # Points into `value`, which must outlive its use.
    cdef Text text
    text.at = <const uint8_t *><const char *>value
    text.size = len(value)
    return text


cdef bytes copied(const Growing *buffer):
    return (<const char *>buffer.at)[:buffer.used] if buffer.used else b""
