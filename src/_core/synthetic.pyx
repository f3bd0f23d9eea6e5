"""Synthetic events of `flow/generate.py`: event i from (seed, i) alone, straight into Arrow buffers.

Every random draw is the splitmix64 finaliser, twice, over an index and a base of the seed and of what is drawn; fields
of its 64 bits choose codes, quantities and times. A number below a bound is `bits * bound >> width`; only a time takes
a division.

Memory: reads lookup tables of the caller, a quarter of a megabyte for a thousand customers, most of it the customers of
65,536 slots; writes one row after the other into the columns of a batch, bitmaps of absent meters included.
Cost: 65 to 110 ns an event, more where the memory it writes to was never used before (benchmarks/kernels.py).
Proved by: tests/parity/test_synthetic.py against tests/oracle/synthetic.py.
"""

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t
from libc.string cimport memset

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()
PLAIN, UNPRICED, DUPLICATE, CONFLICTING, BAD = range(5)

cdef enum:
    STEPS = 4096  # of a table of quantities or models
    TIERS = 64
    PPM = 1_000_000
    CODES = 7  # source, customer, project, feature, model, region, service_tier
    METERS = 5  # input, cached input, output and reasoning tokens, images

cdef enum:
    K_PLAIN = 0
    K_UNPRICED = 1
    K_DUPLICATE = 2
    K_CONFLICTING = 3
    K_BAD = 4  # and the numbers behind it: what is wrong

cdef enum:  # what is wrong with a bad one
    MISSING_ID
    TIME_OUT_OF_RANGE
    MISSING_CUSTOMER
    MISSING_METER
    NEGATIVE_QUANTITY
    QUANTITY_TOO_LARGE
    WRONGS

cdef enum:  # what is drawn: a part of the stream's definition
    CLASS
    DETAIL
    ID_HIGH
    ID_LOW
    WHO
    USAGE
    TIME
    COMBINATION
    DRAWN

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
    #define TF_GOLDEN 0x9E3779B97F4A7C15ULL
    static inline uint64_t tf_mix(uint64_t w) {
        w = (w ^ w >> 30) * 0xBF58476D1CE4E5B9ULL;
        w = (w ^ w >> 27) * 0x94D049BB133111EBULL;
        return w ^ w >> 31;
    }
    /* Eight hexadecimal digits, the highest first: a byte for each four bits, and all made text at once. */
    static inline uint64_t tf_digits(uint32_t word) {
        uint64_t x = __builtin_bswap32(word), beyond_9;
        x = (x | x << 16) & 0x0000FFFF0000FFFFULL;
        x = (x | x << 8) & 0x00FF00FF00FF00FFULL;
        x = (x >> 4 | x << 8) & 0x0F0F0F0F0F0F0F0FULL;
        beyond_9 = (x + 0x0606060606060606ULL) >> 4 & 0x0101010101010101ULL;
        return x + 0x3030303030303030ULL + beyond_9 * ('a' - '0' - 10);
    }
    static inline void tf_uuid(char *text, uint64_t high, uint64_t low) {
        uint64_t digits = tf_digits((uint32_t)(high >> 32));
        memcpy(text, &digits, 8);
        digits = tf_digits((uint32_t)high);
        memcpy(text + 9, &digits, 4);
        memcpy(text + 14, (char *)&digits + 4, 4);
        digits = tf_digits((uint32_t)(low >> 32));
        memcpy(text + 19, &digits, 4);
        memcpy(text + 24, (char *)&digits + 4, 4);
        digits = tf_digits((uint32_t)low);
        memcpy(text + 28, &digits, 8);
        text[8] = text[13] = text[18] = text[23] = '-';
    }
    """
    const uint64_t GOLDEN "TF_GOLDEN"
    uint64_t mix "tf_mix"(uint64_t word) nogil
    void uuid "tf_uuid"(char *text, uint64_t high, uint64_t low) nogil


cdef struct Spec:
    uint64_t bases[DRAWN]
    uint64_t edges[4]  # of a draw from a million: an event below them is a duplicate, conflicting, bad, unpriced
    uint64_t retimed_ppm, distance_max
    uint64_t events, step_us, rest_us, disorder_us  # two events are step_us + rest_us / events from each other
    int64_t start_us
    uint64_t combinations, projects, features, regions, sources
    int32_t unknown_customer, unpriced_model
    const int32_t *customer_of
    uint64_t slots
    const int32_t *model_of
    const int32_t *tier_of
    const uint8_t *reasons
    const int64_t *inputs
    const int64_t *outputs


cdef struct Event:
    uint64_t payload_of  # the event that it repeats, or itself
    uint64_t timed_as
    int kind
    bint unpriced


cdef struct Columns:
    char *text
    int32_t *text_ends
    int64_t *time_us
    int32_t *codes[CODES]
    int64_t *quantities[METERS]
    uint8_t *valid[METERS]
    int64_t absent[METERS]


# ---- What an event is -----------------------------------------------------------------------------------------------


cdef inline uint64_t draw(const Spec *spec, int what, uint64_t index) noexcept nogil:
    return mix(mix(index + spec.bases[what]) + GOLDEN)


cdef inline uint64_t field(uint64_t word, int shift, int bits) noexcept nogil:
    return (word >> shift) & ((<uint64_t>1 << bits) - 1)


cdef inline uint64_t below(uint64_t word, int shift, int bits, uint64_t bound) noexcept nogil:
    """A draw from 0 .. bound - 1; bound << bits fits 64 bits."""
    return field(word, shift, bits) * bound >> bits


cdef inline int kind_drawn(const Spec *spec, uint64_t index) noexcept nogil:
    cdef uint64_t ppm = below(draw(spec, CLASS, index), 0, 32, PPM)
    if ppm >= spec.edges[3]:
        return K_PLAIN
    if ppm < spec.edges[0]:
        return K_DUPLICATE
    if ppm < spec.edges[1]:
        return K_CONFLICTING
    return K_BAD if ppm < spec.edges[2] else K_UNPRICED


cdef inline Event event_of(const Spec *spec, uint64_t index) noexcept nogil:
    cdef Event event
    cdef uint64_t detail, reach, original
    cdef int drawn
    event.kind = kind_drawn(spec, index)
    event.payload_of = event.timed_as = index
    event.unpriced = event.kind == K_UNPRICED
    if event.kind == K_DUPLICATE or event.kind == K_CONFLICTING:
        detail = draw(spec, DETAIL, index)
        reach = min(index, spec.distance_max)
        # Event 0 has no event before it: it is drawn as itself, which is no original.
        original = index - min(below(detail, 0, 32, reach) + 1, reach)
        drawn = kind_drawn(spec, original)
        if drawn != K_PLAIN and drawn != K_UNPRICED:
            event.kind = K_PLAIN
        else:
            event.payload_of = event.timed_as = original
            event.unpriced = drawn == K_UNPRICED
            if event.kind == K_DUPLICATE and below(detail, 32, 32, PPM) < spec.retimed_ppm:
                event.timed_as = index
    elif event.kind == K_BAD:
        event.kind += <int>below(draw(spec, DETAIL, index), 0, 32, WRONGS)
    return event


# ---- Its columns ----------------------------------------------------------------------------------------------------


cdef inline int64_t time_of(const Spec *spec, uint64_t index) noexcept nogil:
    cdef uint64_t time = index * spec.step_us + index * spec.rest_us // spec.events
    # 20 of 32 bits suffice for a second's part, and keep the product within 64 bits.
    time += below(draw(spec, TIME, index), 0, 20, spec.disorder_us)
    return <int64_t>time + spec.start_us


cdef inline int32_t place(const Spec *spec, const Event *event, Columns *out, int64_t at) noexcept nogil:
    """Puts who used what into the columns; returns the code of the model."""
    cdef uint64_t who = draw(spec, WHO, event.payload_of)
    cdef int32_t customer = spec.customer_of[who & (spec.slots - 1)]
    cdef uint64_t number = <uint64_t>customer * spec.combinations + below(who, 24, 20, spec.combinations)
    cdef uint64_t combination = draw(spec, COMBINATION, number)
    cdef int32_t model = spec.unpriced_model if event.unpriced else spec.model_of[field(combination, 0, 12)]
    out.codes[0][at] = <int32_t>below(who, 44, 10, spec.sources)
    out.codes[1][at] = customer
    out.codes[2][at] = <int32_t>below(combination, 12, 14, spec.projects)
    out.codes[3][at] = <int32_t>below(combination, 26, 14, spec.features)
    out.codes[4][at] = model
    out.codes[5][at] = <int32_t>below(combination, 40, 14, spec.regions)
    out.codes[6][at] = spec.tier_of[field(combination, 54, 6)]
    return model


cdef inline void measure(Columns *out, int meter, int64_t at, int64_t quantity, bint there) noexcept nogil:
    out.quantities[meter][at] = quantity
    out.valid[meter][at >> 3] |= <uint8_t>(there << (at & 7))
    out.absent[meter] += not there


cdef inline void use(
    const Spec *spec, const Event *event, int32_t model, bint any, Columns *out, int64_t at
) noexcept nogil:
    cdef uint64_t word = draw(spec, USAGE, event.payload_of)
    cdef int64_t input = spec.inputs[field(word, 0, 12)], output = spec.outputs[field(word, 18, 12)]
    cdef int64_t reasoning = 2 * spec.outputs[field(word, 30, 12)]
    # A conflicting event says one token more than its original.
    measure(out, 0, at, input, any)
    measure(out, 1, at, <int64_t>(field(word, 12, 4) + 1) << 6, any and field(word, 16, 2) == 0)  # blocks of 64 tokens
    measure(out, 2, at, output + (event.kind == K_CONFLICTING), any)
    measure(out, 3, at, reasoning, any and spec.reasons[model])
    measure(out, 4, at, <int64_t>field(word, 42, 2) + 1, any and field(word, 44, 6) == 0)


cdef void spoil(const Spec *spec, int wrong, Columns *out, int64_t at) noexcept nogil:
    if wrong == TIME_OUT_OF_RANGE:
        out.time_us[at] = -86_400_000_000 + 1  # 1969-12-31T00:00:00.000001Z
    elif wrong == MISSING_CUSTOMER:
        out.codes[1][at] = spec.unknown_customer
    elif wrong == NEGATIVE_QUANTITY:
        out.quantities[0][at] *= -1
    elif wrong == QUANTITY_TOO_LARGE:
        out.quantities[2][at] = 0x7FFFFFFFFFFFFFFF


cdef void make(const Spec *spec, uint64_t first, int64_t rows, Columns *out) noexcept nogil:
    cdef Event event
    cdef int64_t at
    cdef int32_t model, end = 0
    cdef int meter, wrong
    for meter in range(METERS):
        memset(out.valid[meter], 0, (rows + 7) // 8)
        out.absent[meter] = 0
    out.text_ends[0] = 0
    for at in range(rows):
        event = event_of(spec, first + at)
        wrong = event.kind - K_BAD
        if wrong != MISSING_ID:
            # A UUID of version 8: made by a rule of ours.
            uuid(
                out.text + end,
                draw(spec, ID_HIGH, event.payload_of) & ~<uint64_t>0xF000 | 0x8000,
                draw(spec, ID_LOW, event.payload_of) >> 2 | <uint64_t>1 << 63,
            )
            end += 36
        out.text_ends[at + 1] = end
        out.time_us[at] = time_of(spec, event.timed_as)
        model = place(spec, &event, out, at)
        use(spec, &event, model, wrong != MISSING_METER, out, at)
        if wrong >= 0:
            spoil(spec, wrong, out, at)


cdef class Maker:
    """The events of one spec; keeps its tables."""

    cdef Spec spec
    cdef tuple _tables

    def __init__(
        self, dict numbers, const int32_t[::1] customer_of, const int32_t[::1] model_of, const int32_t[::1] tier_of,
        const uint8_t[::1] reasons, const int64_t[::1] inputs, const int64_t[::1] outputs,
    ):
        """numbers: `seed`, four `edges_ppm`, and by their names the other members of Spec; customer_of [a power of
        two]; model_of, inputs, outputs [4096]; tier_of [64]; reasons [unpriced_model + 1]: whether a model reasons.
        Raises ValueError for tables of another size, and for a stream without events."""
        cdef Spec *spec = &self.spec
        cdef int what
        spec.slots = customer_of.shape[0]
        if spec.slots == 0 or spec.slots & (spec.slots - 1):
            raise ValueError(f"{spec.slots} slots of customers are no power of two")
        if not model_of.shape[0] == inputs.shape[0] == outputs.shape[0] == STEPS or tier_of.shape[0] != TIERS:
            raise ValueError(f"there are {STEPS} steps of models and quantities, and {TIERS} of tiers")
        spec.unpriced_model, spec.events = numbers["unpriced_model"], numbers["events"]
        if spec.unpriced_model + 1 != reasons.shape[0] or spec.events == 0:
            raise ValueError("the model without a price is behind the others, and there are events at all")
        for what in range(DRAWN):
            spec.bases[what] = mix((<uint64_t>numbers["seed"] * 8 + what) * GOLDEN)
        for what, ppm in enumerate(numbers["edges_ppm"]):
            spec.edges[what] = ppm
        spec.retimed_ppm, spec.distance_max = numbers["retimed_ppm"], numbers["distance_max"]
        spec.step_us, spec.rest_us = numbers["step_us"], numbers["rest_us"]
        spec.disorder_us, spec.start_us = numbers["disorder_us"], numbers["start_us"]
        spec.combinations, spec.projects = numbers["combinations"], numbers["projects"]
        spec.features, spec.regions, spec.sources = numbers["features"], numbers["regions"], numbers["sources"]
        spec.unknown_customer = numbers["unknown_customer"]
        spec.customer_of, spec.model_of, spec.tier_of = &customer_of[0], &model_of[0], &tier_of[0]
        spec.reasons, spec.inputs, spec.outputs = &reasons[0], &inputs[0], &outputs[0]
        self._tables = (customer_of, model_of, tier_of, reasons, inputs, outputs)

    def kinds(self, uint64_t first, unsigned char[::1] out) -> None:
        """What each event from `first` on is; of a bad one BAD and what is wrong with it."""
        cdef int64_t at, rows = out.shape[0]
        with nogil:
            for at in range(rows):
                out[at] = <unsigned char>event_of(&self.spec, first + at).kind

    def make(
        self, uint64_t first, int64_t rows, size_t text, size_t text_ends, size_t time_us, tuple codes,
        tuple quantities, tuple valid,
    ) -> list[int]:
        """Fills the columns of `rows` events from `first` on.

        Args: text: 36 bytes a row; text_ends: rows + 1 int32; time_us: int64; codes: seven columns of int32;
        quantities: five of int64; valid: five bitmaps.
        Returns of each meter how many rows are without it.
        """
        cdef Columns out
        cdef int i
        out.text, out.text_ends, out.time_us = <char *>text, <int32_t *>text_ends, <int64_t *>time_us
        for i in range(CODES):
            out.codes[i] = <int32_t *><size_t>codes[i]
        for i in range(METERS):
            out.quantities[i] = <int64_t *><size_t>quantities[i]
            out.valid[i] = <uint8_t *><size_t>valid[i]
        with nogil:
            make(&self.spec, first, rows, &out)
        return [out.absent[i] for i in range(METERS)]
