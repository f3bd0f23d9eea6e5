# Growing buffers, and the dictionary of a text column: an open-addressing table over Arrow offsets and bytes,
# compared byte for byte. The hash only spreads the texts of one batch; nothing that lasts depends on it.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.stdlib cimport realloc
from libc.string cimport memcmp, memcpy, memset

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t tf_text_load64(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }
    static inline uint64_t tf_text_load32(const void *p) { uint32_t v; memcpy(&v, p, 4); return v; }

    static inline uint64_t tf_fold(uint64_t a, uint64_t b) {
        unsigned __int128 product = (unsigned __int128)a * b;
        return (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    static inline uint64_t tf_text_hash(const uint8_t *p, size_t size) {
        uint64_t hash = 0x9e3779b97f4a7c15ULL ^ size, tail = 0;
        while (size > 8) {
            hash = tf_fold(hash ^ tf_text_load64(p), 0xd6e8feb86659fd93ULL);
            p += 8;
            size -= 8;
        }
        if (size >= 4) tail = tf_text_load32(p) | tf_text_load32(p + size - 4) << 32;
        else if (size) tail = p[0] | (uint64_t)p[size >> 1] << 8 | (uint64_t)p[size - 1] << 16;
        return tf_fold(hash ^ tail, 0xa0761d6478bd642fULL);
    }
    /* memcmp() == 0 of short texts, without a call. */
    static inline int tf_text_same(const uint8_t *a, const uint8_t *b, size_t size) {
        uint64_t differ = 0;
        if (size >= 8) {
            for (size_t at = 0; at < size - 8; at += 8) differ |= tf_text_load64(a + at) ^ tf_text_load64(b + at);
            differ |= tf_text_load64(a + size - 8) ^ tf_text_load64(b + size - 8);
        } else if (size >= 4) {
            differ = tf_text_load32(a) ^ tf_text_load32(b);
            differ |= tf_text_load32(a + size - 4) ^ tf_text_load32(b + size - 4);
        } else if (size) {
            differ = (uint64_t)((a[0] ^ b[0]) | (a[size >> 1] ^ b[size >> 1]) | (a[size - 1] ^ b[size - 1]));
        }
        return differ == 0;
    }
    """
    bint text_same "tf_text_same"(const uint8_t *a, const uint8_t *b, size_t size) noexcept nogil
    uint64_t text_hash "tf_text_hash"(const uint8_t *p, size_t size) noexcept nogil

cdef struct Text:
    const uint8_t *at
    int64_t size

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


cdef inline bint grow_slots(Table *table) noexcept nogil:
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


cdef inline int32_t entry_of(Table *table, Text text) noexcept nogil:
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
                text_same(table.text.at + offsets[entry], text.at, <size_t>text.size)
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


cdef inline bint equals(Text text, const char *word, int64_t size) noexcept nogil:
    return text.size == size and memcmp(text.at, word, <size_t>size) == 0
