"""Quantity x price for every usage item of a batch, in integers.

Layout: a *class* is what the price book can tell apart: a number a row for each of the four narrowing dimensions, 0
where the book does not name the value. A combination of four classes is packed into 64 bits (customer 24, model 20,
region 10, service tier 10) and found in an open-addressing table; it leads to a *vector*, which has the number of a
*timeline* for each book meter. A timeline is a run of steps (from_us ascending, rule); a step is in force from its
instant on, that instant included, until the next. A *rule* is a rate, perhaps one for each of up to three context
tiers; or a choice between two rules by the hours of a schedule; or a grid of 128-bit rates, in which the event's
context and the quantities of other meters choose one. Rules and timelines 0 and 1 are unpriced and unbilled. Amounts
are whole numbers of 10^-15 / per; `per` has a number, 0 for 1, that goes into the flag.

A vector keeps its rules, side by side, for one *stretch* of time in which none of them changes: a usage item is one
load and one multiplication. It moves to another stretch at the fourth event that is outside; the ones before have their
timelines searched, so that events out of order about a change of prices cost little more than others.

Rows are taken 32 at a time, and what the next step reads of each is prefetched: combination, stretch, rules.

Cost: about 5 ns a usage item where the book is small, 10 ns with context tiers, a book of 20,000 prices and 1,000
customers with prices of their own (benchmarks/rating.py), on a quiet machine.
Proved by: tests/parity/test_rate.py and tests/parity/test_rate_rules.py against flow/oracle/rating.py.
"""

cimport cython
from libc.stdint cimport INT64_MAX, INT64_MIN, int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .classes cimport MODEL_MASK, NO_MODEL, SEVERAL, Combination, Customer, slot_of
from .int128 cimport (
    i128, i128_add, i128_from_int64, i128_load, i128_mul, i128_mul_wide, i128_started, i128_store, int64_add_saturating,
    prefetch,
)
from .event cimport Batch, Event, context_before, context_of, meter_at, quantity_of
from .hours cimport DAY_KINDS, DAY_MINUTES, Schedule, hours_hold, hours_open
from .memory cimport grown as _grown, grown_aligned as _grown_aligned
from .rules cimport (
    CHOICE, GRID, RATE, RATES, TABLES_MAX, TIMES_MAX, Grid, Kind, Rule, Step, Stretch, Tiering, Timeline, is_plain,
    rate_plain, rule_at, tier_of,
)
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

PRICED, UNPRICED, UNBILLED = 0, 1, 2
PER_SHIFT = 2
CLASS_BITS = (24, 20, 10, 10)  # customer, model, region, service_tier

cdef enum:
    F_UNPRICED = 1
    F_UNBILLED = 2
    F_PER_SHIFT = 2  # a priced item's flag is the number of its `per`, shifted by this
    R_UNPRICED = 0  # the first two rules, and timelines of them
    R_UNBILLED = 1
    BLOCK = 32
    STRAYS = 4  # events outside of a vector's stretch until it moves
    PREFETCHED = 8  # rules of a vector; most books have few meters
    ERROR_OVERFLOW = 1

cdef int SHIFTS[4]
SHIFTS[:] = [40, 20, 10, 0]  # of CLASS_BITS


@cython.final  # so that C may put one function into another
cdef class RateTable:
    """A compiled price book: filled combination by combination as they are met, then only read.

    One thread at a time: a schedule remembers where it was.
    """

    cdef readonly int64_t meters  # book meters; number 0 is `requests`
    cdef Combination *table
    cdef uint64_t mask
    cdef int64_t used
    cdef Customer *customers  # by class
    cdef uint64_t *pairs  # (customer << 20 | model) of the pairs that rows name; 0 is an empty slot
    cdef uint64_t pair_mask
    cdef int32_t *timeline_of  # vectors x meters
    cdef Stretch *stretches
    cdef Rule *rule_of  # vectors x meters: what holds in the vector's stretch
    cdef Rule *astray  # and for an event that is in another one
    cdef int64_t vectors
    cdef Timeline *timelines
    cdef int64_t timeline_count
    cdef Step *steps
    cdef int64_t step_count
    cdef Rule *rules
    cdef int64_t rule_count
    cdef Grid *grids
    cdef int64_t grid_count
    cdef Tiering *tierings
    cdef dict tiering_of  # number by (context, thresholds); 0 has no tiers
    cdef char *cells  # 16 bytes each
    cdef int64_t cell_count
    cdef int64_t *numbers
    cdef int64_t number_count
    cdef dict runs  # of numbers: where each begins
    cdef Schedule *schedules
    cdef int64_t schedule_count

    def __cinit__(self, int64_t meters):
        self.meters = meters
        self.mask, self.runs, self.tiering_of = 1023, {}, {}
        self.table = <Combination *>calloc(self.mask + 1, sizeof(Combination))
        if self.table == NULL:
            raise MemoryError()
        self.tell_profiles([0], [])
        self.astray = <Rule *>_grown(NULL, meters * sizeof(Rule))
        self._tiering(self.add_context([0] * meters), [])
        for number in (R_UNPRICED, R_UNBILLED):
            self._new_rule(RATE).flag = F_UNBILLED if number == R_UNBILLED else F_UNPRICED
            self.add_timeline([INT64_MIN], [number])

    def __dealloc__(self):
        free(self.table)
        free(self.customers)
        free(self.pairs)
        free(self.timeline_of)
        free(self.rule_of)
        free(self.stretches)
        free(self.astray)
        free(self.timelines)
        free(self.steps)
        free(self.rules)
        free(self.grids)
        free(self.tierings)
        free(self.cells)
        free(self.numbers)
        free(self.schedules)

    # -- what the book says, piece by piece

    def tell_profiles(self, list profiles not None, list pairs not None):
        """The profile of each customer class, and the (customer class, model class) that some row names together."""
        cdef uint64_t size = 64, pair, at
        cdef int64_t i
        while size < 8 * <uint64_t>len(pairs):
            size *= 2
        free(self.pairs)
        self.pairs = <uint64_t *>calloc(size, sizeof(uint64_t))
        if self.pairs == NULL:
            raise MemoryError()
        self.pair_mask = size - 1
        for customer, model in pairs:
            pair = <uint64_t>customer << 20 | <uint64_t>model
            at = slot_of(pair, self.pair_mask)
            while self.pairs[at]:
                at = (at + 1) & self.pair_mask
            self.pairs[at] = pair
        self.customers = <Customer *>_grown(self.customers, len(profiles) * sizeof(Customer))
        for i, number in enumerate(profiles):
            self.customers[i].profile, self.customers[i].model = number, NO_MODEL
        for customer, model in pairs:
            i = customer
            self.customers[i].model = model if self.customers[i].model == NO_MODEL else SEVERAL

    cdef int64_t _add_numbers(self, list values) except -1:
        """Where these numbers are among all; equal runs are there once."""
        cdef int64_t first = self.number_count, i, n = len(values)
        run = tuple(values)
        if run in self.runs:
            return self.runs[run]
        self.runs[run] = first
        self.numbers = <int64_t *>_grown(self.numbers, (first + n + 1) * sizeof(int64_t))
        for i in range(n):
            self.numbers[first + i] = values[i]
        self.number_count += n
        return first

    cdef int32_t _tiering(self, int64_t context, list thresholds) except -1:
        """The number of the tiers of a context."""
        cdef Tiering *tiering
        key = context, tuple(thresholds)
        if key not in self.tiering_of:
            self.tierings = <Tiering *>_grown(self.tierings, (len(self.tiering_of) + 1) * sizeof(Tiering))
            tiering = &self.tierings[len(self.tiering_of)]
            tiering.context, tiering.edges = context, len(thresholds)
            tiering.thresholds = self._add_numbers(thresholds)
            tiering.first, tiering.second = [*thresholds, INT64_MAX, INT64_MAX][:2]
            self.tiering_of[key] = len(self.tiering_of)
        return self.tiering_of[key]

    cdef Rule *_new_rule(self, Kind kind) except NULL:
        self.rules = <Rule *>_grown(self.rules, (self.rule_count + 1) * sizeof(Rule))
        memset(&self.rules[self.rule_count], 0, sizeof(Rule))
        self.rules[self.rule_count].kind = kind
        self.rule_count += 1
        return &self.rules[self.rule_count - 1]

    def _check_rule(self, number):
        if not 0 <= number < self.rule_count:
            raise ValueError(f"there is no rule {number}")

    def add_schedule(
        self, list instants not None, list offsets not None, bytes today not None, bytes after not None,
        list holidays not None,
    ):
        """Hours by the clock on the wall. Returns the schedule's number.

        `instants` ascending seconds since 1970, the first of them before every event, from each of which on the offset
        (seconds) of the same place holds; `today`, `after`: 0 or 1 for each of 8 kinds of days (Monday 0, a holiday 7)
        and 1440 minutes, of what begins on that day, and of what began the day before, by the kind of that day;
        `holidays` ascending local days since 1970-01-01.
        """
        cdef Schedule *schedule
        if len(instants) != len(offsets) or not instants or not len(today) == len(after) == DAY_KINDS * DAY_MINUTES:
            raise ValueError("an offset for each instant and 8 x 1440 minutes are expected")
        self.schedules = <Schedule *>_grown(self.schedules, (self.schedule_count + 1) * sizeof(Schedule))
        schedule = &self.schedules[self.schedule_count]
        hours_open(schedule)
        schedule.instants = self._add_numbers(instants + offsets)
        schedule.count = len(instants)
        schedule.holidays = self._add_numbers(holidays)
        schedule.holiday_count = len(holidays)
        memcpy(schedule.today, <const char *>today, DAY_KINDS * DAY_MINUTES)
        memcpy(schedule.after, <const char *>after, DAY_KINDS * DAY_MINUTES)
        self.schedule_count += 1
        return self.schedule_count - 1

    def add_context(self, list places not None):
        """For each book meter its place among the meters that make the context, from 1, or 0. Returns its number."""
        if len(places) != self.meters:
            raise ValueError("one place a book meter is expected")
        return self._add_numbers(places)

    def add_rate(self, bytes rate not None, int per):
        """A rule: 16 little-endian bytes times the quantity, in units of the number `per`."""
        if len(rate) != 16 or not 0 <= per < 64:
            raise ValueError("16 bytes and the number of one of 64 denominators are expected")
        cdef Rule *rule
        value = int.from_bytes(rate, "little", signed=True)
        if not -(1 << 63) <= value < 1 << 63:
            return self.add_grid(rate, per, [], -1, False, 0, [], [])
        rule = self._new_rule(RATE)
        rule.rates[0], rule.flag = value, per << F_PER_SHIFT
        return self.rule_count - 1

    def add_choice(self, int schedule, int within, int otherwise):
        """A rule: one rule in the hours of a schedule, another one outside of them; 0 is unpriced."""
        self._check_rule(within)
        self._check_rule(otherwise)
        if not 0 <= schedule < self.schedule_count:
            raise ValueError(f"there is no schedule {schedule}")
        cdef Rule *rule = self._new_rule(CHOICE)
        rule.what, rule.rates[0], rule.rates[1] = schedule, within, otherwise
        return self.rule_count - 1

    def add_grid(
        self, bytes cells not None, int per, list thresholds not None, int64_t context, bint part, int64_t package,
        list times not None, list tables not None,
    ):
        """A rule: a rate (16 bytes) for each context tier and each index of each table; see `flow/prices/rules.py`.

        `context` its number, -1 without thresholds; `times` book meters; `tables` (book meter, ascending values,
        whether there is one index more for any other quantity).
        """
        cdef Grid *grid
        cdef Rule *rule
        cdef int i
        cdef int64_t stride = len(thresholds) + 1
        if len(times) > TIMES_MAX or len(tables) > TABLES_MAX or not 0 <= per < 64 or package < 0:
            raise ValueError("too many factors, or an impossible package or denominator")
        if not -1 <= context < self.number_count or (context < 0 and len(thresholds) > 0):
            raise ValueError("thresholds need a context")
        self.grids = <Grid *>_grown(self.grids, (self.grid_count + 1) * sizeof(Grid))
        grid = &self.grids[self.grid_count]
        grid.tiering, grid.part, grid.package = self._tiering(context, thresholds), part, package
        grid.times_count, grid.table_count = len(times), len(tables)
        for i, meter in enumerate(times):
            grid.times[i] = meter
        for i in reversed(range(grid.table_count)):
            meter, values, otherwise = tables[i]
            grid.tables[i].start = self._add_numbers(values)
            grid.tables[i].meter, grid.tables[i].values = meter, len(values)
            grid.tables[i].otherwise = len(values) if otherwise else -1
            grid.tables[i].stride = stride
            stride *= len(values) + bool(otherwise)
        if len(cells) != 16 * stride:
            raise ValueError("a rate of 16 bytes is expected for each tier and each index of each table")
        self.cells = <char *>_grown(self.cells, (self.cell_count + stride) * 16)
        memcpy(self.cells + 16 * self.cell_count, <const char *>cells, 16 * stride)
        grid.cells = self.cell_count
        self.cell_count += stride
        rates = [int.from_bytes(cells[16 * i : 16 * i + 16], "little", signed=True) for i in range(stride)]
        small = all(-(1 << 63) <= rate < 1 << 63 for rate in rates)
        if stride <= RATES and small and not (part or package or times or tables):
            rule = self._new_rule(RATE)
            rule.what = grid.tiering
            for i in range(stride):
                rule.rates[i] = rates[i]
        else:
            rule = self._new_rule(GRID)
            rule.what = self.grid_count
            self.grid_count += 1
        rule.flag = per << F_PER_SHIFT
        return self.rule_count - 1

    def add_timeline(self, list from_us not None, list rules not None):
        """A run of steps: ascending instants, and the rule from each of them on (0 unpriced). Returns its number."""
        cdef int64_t n = len(from_us), i
        if len(rules) != n or not n:
            raise ValueError("one rule a step is expected")
        for rule in rules:
            self._check_rule(rule)
        self.timelines = <Timeline *>_grown(self.timelines, (self.timeline_count + 1) * sizeof(Timeline))
        self.steps = <Step *>_grown(self.steps, (self.step_count + n) * sizeof(Step))
        for i in range(n):
            self.steps[self.step_count + i].from_us = from_us[i]
            self.steps[self.step_count + i].rule = rules[i]
        self.timelines[self.timeline_count].start, self.timelines[self.timeline_count].steps = self.step_count, n
        self.step_count += n
        self.timeline_count += 1
        return self.timeline_count - 1

    def add_vector(self, list timeline_of not None):
        """The timeline of each book meter (0 unpriced, 1 unbilled). Returns the vector's number."""
        cdef int64_t i, size = self.vectors * self.meters
        if len(timeline_of) != self.meters:
            raise ValueError("one timeline a book meter is expected")
        if not all(0 <= number < self.timeline_count for number in timeline_of):
            raise ValueError("there is no such timeline")
        self.timeline_of = <int32_t *>_grown(self.timeline_of, (size + self.meters) * sizeof(int32_t))
        self.rule_of = <Rule *>_grown_aligned(self.rule_of, size * sizeof(Rule), (size + self.meters) * sizeof(Rule))
        self.stretches = <Stretch *>_grown(self.stretches, (self.vectors + 1) * sizeof(Stretch))
        for i in range(self.meters):
            self.timeline_of[size + i] = timeline_of[i]
        self.stretches[self.vectors] = Stretch(0, 0, STRAYS - 1)  # holds nothing, and moves to the first event
        self.vectors += 1
        return self.vectors - 1

    cdef inline Combination *_find(self, uint64_t packed) noexcept nogil:
        cdef uint64_t at = slot_of(packed, self.mask)
        while self.table[at].packed_plus_one and self.table[at].packed_plus_one != packed + 1:
            at = (at + 1) & self.mask
        return &self.table[at]

    def add_combination(self, uint64_t packed, int64_t vector):
        """Says which vector is for one combination of classes."""
        cdef Combination *old
        cdef Combination *entry
        cdef uint64_t i, size
        if not 0 <= vector < self.vectors:
            raise ValueError(f"there is no vector {vector}")
        if packed + 1 == 0:
            raise ValueError("this combination of classes would look like an empty slot")
        if <uint64_t>(self.used + 1) * 4 > self.mask + 1:
            old, size = self.table, self.mask + 1
            self.table = <Combination *>calloc(size * 2, sizeof(Combination))
            if self.table == NULL:
                self.table = old
                raise MemoryError()
            self.mask = size * 2 - 1
            for i in range(size):
                if old[i].packed_plus_one:
                    entry = self._find(old[i].packed_plus_one - 1)
                    entry[0] = old[i]
            free(old)
        entry = self._find(packed)
        if entry.packed_plus_one:
            raise ValueError("this combination is known already")
        entry.packed_plus_one = packed + 1
        entry.vector = vector
        self.used += 1

    # -- the kernel

    cdef inline uint64_t _with_profile(self, uint64_t packed) noexcept nogil:
        """The combination, with the customer's profile for the customer where no row names it beside the model."""
        cdef uint64_t customer = packed >> SHIFTS[0], pair = packed >> SHIFTS[1], at
        cdef Customer *known = &self.customers[customer]
        if known.model == <int32_t>(pair & MODEL_MASK):
            return packed
        if known.model == SEVERAL:
            at = slot_of(pair, self.pair_mask)
            while self.pairs[at]:
                if self.pairs[at] == pair:
                    return packed
                at = (at + 1) & self.pair_mask
        return packed ^ (customer ^ <uint64_t>known.profile) << SHIFTS[0]

    cdef int _grid(
        self, const Event *event, const Grid *grid, int32_t meter, int64_t quantity, i128 *amount, bint *priced
    ) noexcept nogil:
        """The amount of a quantity by a grid of rates."""
        cdef const char *cell = self.cells + 16 * grid.cells
        cdef const Tiering *tiering
        cdef const int64_t *values
        cdef i128 units = i128_from_int64(quantity)
        cdef int64_t other
        cdef int32_t i, j, at
        priced[0] = True
        for i in range(grid.table_count):
            at = grid.tables[i].otherwise
            if quantity_of(event, grid.tables[i].meter, &other):
                values = self.numbers + grid.tables[i].start
                for j in range(grid.tables[i].values):
                    if values[j] == other:
                        at = j
                        break
            if at < 0:
                priced[0] = False
                return 0
            cell += 16 * at * grid.tables[i].stride
        if grid.part:
            return self._parts(event, grid, cell, meter, quantity, amount)
        for i in range(grid.times_count):
            if quantity_of(event, grid.times[i], &other) and i128_mul_wide(units, i128_from_int64(other), &units):
                return ERROR_OVERFLOW
        if grid.package:
            units = i128_started(units, grid.package)
        if grid.tiering:
            tiering = &self.tierings[grid.tiering]
            other = context_of(event, self.numbers + tiering.context)
            for i in range(tiering.edges):
                cell += 16 * (other > self.numbers[tiering.thresholds + i])
        return ERROR_OVERFLOW if i128_mul_wide(units, i128_load(cell), amount) else 0

    cdef int _parts(
        self, const Event *event, const Grid *grid, const char *cell, int32_t meter, int64_t quantity, i128 *amount
    ) noexcept nogil:
        """The amount of a quantity whose units are each at the tier of their own place in the context."""
        cdef const Tiering *tiering = &self.tierings[grid.tiering]
        cdef const int64_t *thresholds = self.numbers + tiering.thresholds
        cdef int64_t place = context_before(event, self.numbers + tiering.context, meter), left = quantity, part
        cdef int32_t tier
        cdef i128 product
        amount[0] = i128_from_int64(0)
        for tier in range(tiering.edges + 1):
            part = left
            if tier < tiering.edges:
                part = min(left, max(thresholds[tier] - place, 0))
            if i128_mul(part, i128_load(cell + 16 * tier), &product) or i128_add(amount, product):
                return ERROR_OVERFLOW
            left -= part
            place = int64_add_saturating(place, part)
        return 0

    cdef const Rule *_other_rules(self, const Event *event, int64_t vector) noexcept nogil:
        """The rules of an event's meters, by book meter, where its vector is kept for another stretch."""
        cdef Stretch *stretch = &self.stretches[vector]
        cdef Stretch unused = Stretch(INT64_MIN, INT64_MAX, 0)
        cdef const int32_t *timelines = self.timeline_of + vector * self.meters
        cdef Rule *rules = self.rule_of + vector * self.meters
        cdef int64_t j
        cdef int32_t meter
        stretch.strays += 1
        if stretch.strays == STRAYS:
            stretch[0] = Stretch(INT64_MIN, INT64_MAX, 0)
            for j in range(self.meters):
                rules[j] = rule_at(&self.timelines[timelines[j]], self.steps, self.rules, event.time_us, stretch)
            return rules
        self.astray[0] = rule_at(&self.timelines[timelines[0]], self.steps, self.rules, event.time_us, &unused)
        for j in range(event.first, event.end):
            meter = meter_at(event, j)
            if meter >= 0:
                self.astray[meter] = rule_at(
                    &self.timelines[timelines[meter]], self.steps, self.rules, event.time_us, &unused
                )
        return self.astray

    cdef int _rate_by(
        self, const Event *event, const Rule *rule, int32_t meter, int64_t quantity, char *amount, uint8_t *flag
    ) noexcept nogil:
        """Rates a quantity by whatever rule."""
        cdef i128 product = i128_from_int64(0)
        cdef int64_t rate
        cdef bint priced = True, within
        while rule.kind == CHOICE:
            within = hours_hold(&self.schedules[rule.what], self.numbers, event.time_us)
            rule = &self.rules[rule.rates[0 if within else 1]]
        if rule.kind == RATE:
            rate = rule.rates[tier_of(event, &self.tierings[rule.what], self.numbers)]
            i128_mul(quantity, i128_from_int64(rate), &product)
        elif self._grid(event, &self.grids[rule.what], meter, quantity, &product, &priced):
            return ERROR_OVERFLOW
        i128_store(amount, product)
        flag[0] = <uint8_t>rule.flag if priced else F_UNPRICED
        return 0

    cdef inline int _rate_event(self, const Event *event, int64_t vector, int64_t row) noexcept nogil:
        """Rates each item of an event, and its `requests`; nearly all have a plain rate, or one of a tier."""
        cdef const Batch *batch = event.batch
        cdef const Stretch *stretch = &self.stretches[vector]
        cdef const Rule *rules = self.rule_of + vector * self.meters
        cdef int64_t plain
        if not stretch.from_us <= event.time_us < stretch.to_us:
            rules = self._other_rules(event, vector)
        plain = rate_plain(
            rules, batch.book_meter, batch.meter, batch.quantity, event.first, event.end, batch.amounts, batch.flags
        )
        if plain < event.end and self._rate_rest(event, rules, plain):
            return ERROR_OVERFLOW
        if is_plain(rules):
            i128_store(batch.request_amounts + 16 * row, i128_from_int64(rules.rates[0]))
            batch.request_flags[row] = <uint8_t>rules.flag
            return 0
        return self._rate_by(event, rules, 0, 1, batch.request_amounts + 16 * row, batch.request_flags + row)

    cdef int _rate_rest(self, const Event *event, const Rule *rules, int64_t first) noexcept nogil:
        """Rates an event's items from `first` on."""
        cdef const Batch *batch = event.batch
        cdef const Rule *rule
        cdef int64_t j, quantity
        cdef int32_t meter, tiering = 0, tier = 0
        cdef i128 product
        for j in range(first, event.end):
            meter, quantity = batch.book_meter[batch.meter[j]], batch.quantity[j]
            rule = &rules[meter] if meter >= 0 else self.rules  # R_UNPRICED
            if rule.kind == RATE:
                if rule.what != tiering and rule.what:
                    tiering, tier = rule.what, tier_of(event, &self.tierings[rule.what], self.numbers)
                i128_mul(quantity, i128_from_int64(rule.rates[tier if rule.what else 0]), &product)  # 64 bits: it fits
                i128_store(batch.amounts + 16 * j, product)
                batch.flags[j] = <uint8_t>rule.flag
            elif self._rate_by(event, rule, meter, quantity, batch.amounts + 16 * j, batch.flags + j):
                return ERROR_OVERFLOW
        return 0

    cdef int _find_vectors(
        self, const Batch *batch, const int64_t *rows, int64_t count, uint64_t *packed, int64_t *vectors
    ) noexcept nogil:
        """The packed combination and the vector of each row; a vector of -1 is not known. Returns how many are not."""
        cdef const int32_t *index
        cdef const int32_t *classes
        cdef const Combination *table = self.table
        cdef const Combination *entry
        cdef const Rule *rules
        cdef int64_t n, meter, meters = self.meters, prefetched = min(meters, <int64_t>PREFETCHED)
        cdef uint64_t mask = self.mask
        cdef int d, missing = 0
        memset(packed, 0, count * sizeof(uint64_t))
        for d in range(4):
            index, classes = batch.index[d], batch.classes[d]
            if classes != NULL:
                for n in range(count):
                    packed[n] |= <uint64_t>classes[index[rows[n]]] << SHIFTS[d]
        if batch.classes[0] != NULL:
            for n in range(count):
                packed[n] = self._with_profile(packed[n])
        for n in range(count):
            prefetch(&table[slot_of(packed[n], mask)])
        for n in range(count):
            entry = self._find(packed[n])
            vectors[n] = entry.vector if entry.packed_plus_one else -1
            missing += entry.packed_plus_one == 0
            prefetch(&self.stretches[entry.vector])
            rules = &self.rule_of[entry.vector * meters]
            for meter in range(0, prefetched, 2):
                prefetch(&rules[meter])
        return missing

    def rate(
        self, int64_t rows, uintptr_t selection, uintptr_t event_time_us, tuple dim_index, tuple dim_class,
        uintptr_t usage_offsets, uintptr_t meter_index, uintptr_t meter_map, uintptr_t quantities,
        uintptr_t amounts, uintptr_t flags, uintptr_t request_amounts, uintptr_t request_flags,
    ):
        """Rates the selected rows; returns the packed combinations that are not known yet (then nothing is to be used).

        `selection` uint32 [rows] or 0. `dim_index`, `dim_class`: int32 code a row and int32 class a dictionary value,
        for customer, model, region, service_tier; a class of 0 where every row's class is 0. `meter_map` int32 a
        dictionary value: the book meter's number, -1 where the book has none. `amounts` (16 bytes) and `flags` (uint8)
        per usage item; `request_amounts`, `request_flags` per row of the batch. Raises OverflowError.
        """
        cdef Batch batch
        cdef Event event
        cdef uint64_t packed[BLOCK]
        cdef int64_t row_of[BLOCK]
        cdef int64_t vectors[BLOCK]
        cdef int64_t i = 0, n, count, row = 0
        cdef int d, error = 0
        cdef set missing = set()
        batch.selection, batch.time_us = <const uint32_t *>selection, <const int64_t *>event_time_us
        batch.starts, batch.meter = <const int32_t *>usage_offsets, <const int32_t *>meter_index
        batch.book_meter, batch.quantity = <const int32_t *>meter_map, <const int64_t *>quantities
        batch.amounts, batch.flags = <char *>amounts, <uint8_t *>flags
        batch.request_amounts, batch.request_flags = <char *>request_amounts, <uint8_t *>request_flags
        for d in range(4):
            batch.index[d] = <const int32_t *><uintptr_t>dim_index[d]
            batch.classes[d] = <const int32_t *><uintptr_t>dim_class[d]
        event.batch = &batch
        with nogil:
            while i < rows and not error:
                count = min(<int64_t>BLOCK, rows - i)
                for n in range(count):
                    row_of[n] = batch.selection[i + n] if batch.selection != NULL else i + n
                if self._find_vectors(&batch, row_of, count, packed, vectors):
                    with gil:
                        missing |= {packed[n] for n in range(count) if vectors[n] < 0}
                for n in range(count):
                    if vectors[n] < 0:
                        continue
                    row = row_of[n]
                    event.time_us, event.first, event.end = batch.time_us[row], batch.starts[row], batch.starts[row + 1]
                    error = self._rate_event(&event, vectors[n], row)
                    if error:
                        break
                i += count
        if error:
            raise OverflowError(f"quantity x rate does not fit in 128 bits at row {row} of the batch")
        return list(missing)
