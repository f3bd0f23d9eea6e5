# The columns that a decoder fills: one row an event, texts as codes into a dictionary a column.
#
# All fixed-width columns of events have the same room, so that one comparison tells whether another row fits; what is
# reserved ahead and never written costs no memory.

from libc.stdint cimport int32_t, int64_t, uint8_t
from libc.stdlib cimport free
from libc.string cimport memcpy

from .text_table cimport Growing, Table, Text, room_for

cdef enum:
    TEXTS = 7  # source and the six dimensions
    TABLES = 8  # the texts and the meter names
    METER_TABLE = 7
    BYTES_AN_EVENT = 320  # a guess, for the room at first
    METERS_AN_EVENT = 4
    ID_BYTES = 40

cdef struct EventColumns:
    int64_t rows
    int64_t rows_room
    Growing ids
    Growing id_offsets  # int32, one more than there are rows
    Growing times  # int64
    Growing positions  # int64
    Growing usage_offsets  # int32, one more than there are rows
    Growing meters  # int32 an item
    Growing quantities  # int64 an item
    Growing codes[TEXTS]  # int32
    Table tables[TABLES]


cdef inline bint room_for_rows(EventColumns *columns, int64_t rows) noexcept nogil:
    """Room for so many rows in all; False without memory."""
    cdef size_t room = <size_t>rows
    cdef int i
    # `used` of fixed-width columns is set by `close_columns`; what counts while they grow is `rows`.
    if not (
        room_for(&columns.id_offsets, 4 * (room + 1)) and room_for(&columns.usage_offsets, 4 * (room + 1))
        and room_for(&columns.times, 8 * room) and room_for(&columns.positions, 8 * room)
    ):
        return False
    for i in range(TEXTS):
        if not room_for(&columns.codes[i], 4 * room):
            return False
    columns.rows_room = rows
    return True


cdef inline bint open_columns(EventColumns *columns, int64_t text_bytes) noexcept nogil:
    """For the events of so many bytes of text; the struct is zeroed. False without memory."""
    cdef int64_t rows = text_bytes // BYTES_AN_EVENT + 16
    if not (
        room_for_rows(columns, rows) and room_for(&columns.ids, <size_t>rows * ID_BYTES)
        and room_for(&columns.meters, <size_t>rows * METERS_AN_EVENT * 4)
        and room_for(&columns.quantities, <size_t>rows * METERS_AN_EVENT * 8)
    ):
        return False
    (<int32_t *>columns.id_offsets.at)[0] = 0
    (<int32_t *>columns.usage_offsets.at)[0] = 0
    return True


cdef inline bint append_row(
    EventColumns *columns, Text id, int64_t time_us, int64_t position, const int32_t *codes, int items,
    const int32_t *meters, const int64_t *quantities,
) noexcept nogil:
    """One more event, of texts and meters that are in the tables; False without memory."""
    cdef int64_t row = columns.rows
    cdef size_t count = <size_t>items
    cdef int i
    if row == columns.rows_room and not room_for_rows(columns, row * 2):
        return False
    if not (
        room_for(&columns.ids, <size_t>id.size) and room_for(&columns.meters, 4 * count)
        and room_for(&columns.quantities, 8 * count)
    ):
        return False
    memcpy(columns.ids.at + columns.ids.used, id.at, <size_t>id.size)
    columns.ids.used += <size_t>id.size
    for i in range(items):
        (<int32_t *>(columns.meters.at + columns.meters.used))[i] = meters[i]
        (<int64_t *>(columns.quantities.at + columns.quantities.used))[i] = quantities[i]
    columns.meters.used += 4 * count
    columns.quantities.used += 8 * count
    for i in range(TEXTS):
        (<int32_t *>columns.codes[i].at)[row] = codes[i]
    (<int64_t *>columns.times.at)[row] = time_us
    (<int64_t *>columns.positions.at)[row] = position
    (<int32_t *>columns.id_offsets.at)[row + 1] = <int32_t>columns.ids.used
    (<int32_t *>columns.usage_offsets.at)[row + 1] = <int32_t>(columns.meters.used // 4)
    columns.rows = row + 1
    return True


cdef inline void close_columns(EventColumns *columns) noexcept nogil:
    """Sets how much of each column is used."""
    cdef size_t rows = <size_t>columns.rows
    cdef int i
    columns.id_offsets.used = columns.usage_offsets.used = 4 * (rows + 1)
    columns.times.used = columns.positions.used = 8 * rows
    for i in range(TEXTS):
        columns.codes[i].used = 4 * rows


cdef inline void free_columns(EventColumns *columns) noexcept nogil:
    cdef int i
    free(columns.ids.at)
    free(columns.id_offsets.at)
    free(columns.times.at)
    free(columns.positions.at)
    free(columns.usage_offsets.at)
    free(columns.meters.at)
    free(columns.quantities.at)
    for i in range(TEXTS):
        free(columns.codes[i].at)
    for i in range(TABLES):
        free(columns.tables[i].text.at)
        free(columns.tables[i].offsets.at)
        free(columns.tables[i].hashes.at)
        free(columns.tables[i].slots)
