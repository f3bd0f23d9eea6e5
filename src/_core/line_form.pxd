# The form of a line: all of its bytes but the values of an event's own fields, learnt from a line read with care.
#
# Producers write every event with the same code, so the next line mostly differs in those values only. A line that has
# the same bytes between them, a plain string (ASCII, without escapes) where one was, and an integer where one was, says
# the same things in the same places: it is read here at a third of the cost. Strings and integers end where JSON says,
# and all else is compared byte for byte, so there is nothing that could be read otherwise. A line that differs in
# anything gets no answer here, and is read with care.
#
# Loads of 8 bytes may go beyond what is compared: `wide` is the last place at which they may begin.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

from .text_table cimport Text

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    static inline uint64_t tf_form_load(const void *p) { uint64_t v; memcpy(&v, p, 8); return v; }

    static inline int tf_same_words(const uint8_t *p, const uint64_t *words, int count, uint64_t last_mask) {
        uint64_t differ = 0;
        for (int i = 0; i < count - 1; i++) differ |= tf_form_load(p + 8 * i) ^ words[i];
        return (differ | ((tf_form_load(p + 8 * (count - 1)) ^ words[count - 1]) & last_mask)) == 0;
    }

    /* The number that the digits at p make, and how many they are: 1 to 8; 0: another number of digits. */
    static inline int tf_short_number(const uint8_t *p, int64_t *number) {
        const uint64_t zeros = 0x3030303030303030ULL;
        uint64_t w = tf_form_load(p) ^ zeros;
        uint64_t marks = (((w & 0x7f7f7f7f7f7f7f7fULL) + 0x7676767676767676ULL) | w) & 0x8080808080808080ULL;
        int digits = marks ? __builtin_ctzll(marks) >> 3 : 8;
        if (digits == 0 || (digits == 8 && (uint8_t)(p[8] - 0x30) < 10)) return 0;
        w <<= 64 - 8 * digits;  /* digits that are missing are zeros in front */
        w = (w & 0x0f0f0f0f0f0f0f0fULL) * 2561 >> 8;
        w = (w & 0x00ff00ff00ff00ffULL) * 6553601 >> 16;
        w = (w & 0x0000ffff0000ffffULL) * 42949672960001ULL >> 32;
        *number = (int64_t)w;
        return digits;
    }
    """
    bint same_words "tf_same_words"(
        const uint8_t *p, const uint64_t *words, int count, uint64_t last_mask
    ) noexcept nogil
    int short_number "tf_short_number"(const uint8_t *p, int64_t *number) noexcept nogil

cdef enum:
    PLACES_MAX = 32  # values of one line
    WORDS_MAX = 256  # of the bytes between them: 2 KiB
    PLACE_END = -1  # no value, but the end of the line

cdef struct Place:  # some bytes that stand in every line of the form, then a value
    int size
    int first_word
    int words
    uint64_t last_mask
    int field  # the number of a text field, or PLACE_METER and beyond
    const uint8_t *value  # in the line that the form is learnt from
    int64_t value_size

cdef struct Form:
    int places
    int words_used
    uint64_t words[WORDS_MAX]
    Place place[PLACES_MAX]


cdef inline bint add_place(Form *form, int field, Text value) noexcept nogil:
    """One more value, in any order; False if there are too many."""
    cdef int at = form.places
    if at == PLACES_MAX:
        return False
    while at > 0 and form.place[at - 1].value > value.at:
        form.place[at] = form.place[at - 1]
        at -= 1
    form.place[at].field = field
    form.place[at].value = value.at
    form.place[at].value_size = value.size
    form.places += 1
    return True


cdef inline bint keep_between(Form *form, const uint8_t *line, const uint8_t *end) noexcept nogil:
    """Keeps what stands between the values of a line; False if that is too much, or a value is not in the line."""
    cdef Place *place
    cdef const uint8_t *p = line
    cdef int64_t i
    cdef uint8_t *to
    form.words_used = 0
    for n in range(form.places):
        place = &form.place[n]
        if place.value < p or place.value > end:
            return False
        place.size = <int>(place.value - p)
        place.words = (place.size + 7) // 8
        if place.size == 0 or form.words_used + place.words > WORDS_MAX:
            return False
        place.first_word = form.words_used
        form.words_used += place.words
        form.words[form.words_used - 1] = 0
        to = <uint8_t *>&form.words[place.first_word]
        for i in range(place.size):
            to[i] = p[i]
        place.last_mask = ~<uint64_t>0 >> (8 * (8 * place.words - place.size))
        p = place.value + place.value_size
    return True


cdef inline const uint8_t *behind(
    const Form *form, const Place *place, const uint8_t *p, const uint8_t *wide
) noexcept nogil:
    """The place of a value, if what stands before it is at p; NULL: it is not."""
    if p + place.size > wide or not same_words(p, &form.words[place.first_word], place.words, place.last_mask):
        return NULL
    return p + place.size
