# What a price book is compiled to: timelines of rules, see rate.pyx.

from libc.stdint cimport int32_t, int64_t, uint16_t

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
