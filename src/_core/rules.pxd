# What a price book is compiled to: timelines of rules, see rate.pyx.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t

from .event cimport Event, context_of
from .int128 cimport i128, i128_from_int64, i128_mul, i128_store

cdef enum:
    TIMES_MAX = 8
    TABLES_MAX = 4
    RATES = 3

cdef enum Kind:
    RATE  # one of a few 64-bit rates, by the tier of the context alone
    CHOICE
    GRID  # of 128-bit rates

cdef struct Timeline:
    int32_t start
    int32_t steps

cdef struct Stretch:  # of time, in which no timeline of a vector changes; its end is not in it
    int64_t from_us
    int64_t to_us
    int64_t strays  # events outside of it since it began

cdef struct Step:
    int64_t from_us
    int64_t rule

cdef struct Rule:  # 32 bytes, so that two are on a cache line
    uint16_t kind
    uint16_t flag  # what a priced item's flag is
    int32_t what  # RATE: its tiering; CHOICE: its schedule; GRID: its grid
    int64_t rates[RATES]  # RATE: of each tier; CHOICE: the rules in the hours and outside of them

cdef struct Tiering:  # what tells the tiers of a context apart
    int64_t context  # into `numbers`: for each book meter 0, or its place in the context, from 1
    int64_t thresholds  # into `numbers`
    int64_t edges
    int64_t first  # threshold, and the second; INT64_MAX where there is none
    int64_t second

cdef struct Table:
    int64_t start  # into `numbers`
    int32_t meter
    int32_t values
    int32_t otherwise  # the index of any other quantity; -1: there is no price for it
    int32_t stride  # in cells

cdef struct Grid:
    int64_t cells  # into `cells`
    int64_t package  # units of a package; 0: units are paid for
    int32_t tiering  # 0: one tier
    int32_t part
    int32_t times_count
    int32_t table_count
    int32_t times[TIMES_MAX]
    Table tables[TABLES_MAX]


cdef inline Rule rule_at(
    const Timeline *timeline, const Step *all_steps, const Rule *rules, int64_t time_us, Stretch *stretch
) noexcept nogil:
    """What holds at an instant, rule 0 before the first step; narrows `stretch` to when it does."""
    cdef const Step *steps = all_steps + timeline.start
    cdef int32_t low = 0, high = timeline.steps, middle
    while low < high:  # `low` becomes the number of steps that have begun
        middle = (low + high) // 2
        if steps[middle].from_us <= time_us:
            low = middle + 1
        else:
            high = middle
    if low < timeline.steps:
        stretch.to_us = min(stretch.to_us, steps[low].from_us)
    if low == 0:
        return rules[0]
    stretch.from_us = max(stretch.from_us, steps[low - 1].from_us)
    return rules[steps[low - 1].rule]


cdef inline int32_t tier_of(const Event *event, const Tiering *tiering, const int64_t *numbers) noexcept nogil:
    """The tier of a RATE, without a loop or a branch, which would often be foreseen wrongly."""
    cdef int64_t context = context_of(event, numbers + tiering.context)
    return (context > tiering.first) + (context > tiering.second)


cdef inline bint is_plain(const Rule *rule) noexcept nogil:
    """Whether it is one rate, whatever the context."""
    return rule.kind == RATE and rule.what == 0


cdef inline int64_t rate_plain(
    const Rule *rules, const int32_t *book_meter, const int32_t *meters, const int64_t *quantities, int64_t first,
    int64_t end, char *amounts, uint8_t *flags,
) noexcept nogil:
    """Rates items up to one whose rule is not plain; where that is. Its arguments stay in registers, where members of a
    struct would be read again behind each amount that is written."""
    cdef const Rule *rule
    cdef int64_t j
    cdef int32_t meter
    cdef i128 product
    for j in range(first, end):
        meter = book_meter[meters[j]]
        if meter < 0 or not is_plain(&rules[meter]):
            return j
        rule = &rules[meter]
        i128_mul(quantities[j], i128_from_int64(rule.rates[0]), &product)  # of 64 bits: it fits
        i128_store(amounts + 16 * j, product)
        flags[j] = <uint8_t>rule.flag
    return end
