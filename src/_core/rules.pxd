# What a price book is compiled to: timelines of rules, see rate.pyx.

from libc.stdint cimport int32_t, int64_t

cdef enum:
    TIMES_MAX = 8
    TABLES_MAX = 4
    RATES = 5

cdef enum Kind:
    RATE
    CHOICE
    TIERS  # a small grid of which the context alone chooses, for all units
    GRID  # of 128-bit rates

cdef struct Timeline:  # with its last two steps, which most events are in
    int64_t last_from_us
    int64_t before_from_us
    int32_t last_rule
    int32_t before_rule  # -1 where there is one step only
    int32_t start
    int32_t steps

cdef struct Step:
    int64_t from_us
    int64_t rule

cdef struct Rule:  # 64 bytes: what most events need of it is on one cache line
    int32_t kind
    int32_t flag  # what a priced item's flag is
    int32_t what  # CHOICE: its schedule; TIERS: its context; GRID: its grid
    int32_t within  # CHOICE: the rule in the hours; TIERS: where its thresholds are
    int32_t otherwise  # CHOICE: the rule outside of them
    int32_t tiers
    int64_t rates[RATES]  # of each tier; RATE has one

cdef struct Table:
    int64_t start  # into `numbers`
    int32_t meter
    int32_t values
    int32_t otherwise  # the index of any other quantity; -1: there is no price for it
    int32_t stride  # in cells

cdef struct Grid:
    int64_t cells  # into `cells`
    int64_t thresholds  # into `numbers`
    int64_t package  # units of a package; 0: units are paid for
    int64_t context  # into `numbers`: for each book meter 0, or its place in the context, from 1; -1 without tiers
    int32_t tiers
    int32_t part
    int32_t times_count
    int32_t table_count
    int32_t times[TIMES_MAX]
    Table tables[TABLES_MAX]
