"""Quantity x price for every usage item of a batch, in integers.

Layout: a *class* is what the price book can tell apart: a number a row for each of the four narrowing dimensions, 0
where the book does not name the value. A combination of four classes is packed into 64 bits (customer 24, model 20,
region 10, service tier 10) and found in an open-addressing table; it leads to a *vector*, which has the number of a
*timeline* for each book meter, or UNPRICED or UNBILLED. A timeline is a run of steps (from_us ascending, rule); a step
is in force from its instant on, that instant included, until the next. A *rule* is a 128-bit rate; or a choice between
two rules by the hours of a schedule; or a grid of rates, in which the event's context and the quantities of other
meters choose one. Amounts are whole numbers of 10^-15 / per; `per` has a number, 0 for 1, that goes into the flag.

Rows are taken 32 at a time: hash and prefetch their combinations, then rate.

Cost: about 10 ns a usage item at one rate, 19 ns with context tiers and a book of 20,000 prices, on a busy machine.
Proved by: tests/parity/test_rate.py and tests/parity/test_rate_rules.py against flow/oracle/rating.py.
"""

cimport cython
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t, uintptr_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from .int128 cimport (
    i128, i128_add, i128_from_int64, i128_load, i128_mul, i128_mul_wide, i128_started, i128_store, int64_add_saturating,
    prefetch,
)
from .hash cimport fmix64
from .hours cimport DAY_KINDS, DAY_MINUTES, Schedule, hours_hold, hours_open
from .memory cimport grown as _grown
from .rules cimport CHOICE, GRID, RATE, RATES, TABLES_MAX, TIERS, TIMES_MAX, Grid, Kind, Rule, Step, Timeline
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

PRICED, UNPRICED, UNBILLED = 0, 1, 2
PER_SHIFT = 2
CLASS_BITS = (24, 20, 10, 10)  # customer, model, region, service_tier

cdef enum:
    F_UNPRICED = 1
    F_UNBILLED = 2
    F_PER_SHIFT = 2  # a priced item's flag is the number of its `per`, shifted by this
    T_UNPRICED = -1
    T_UNBILLED = -2
    MISSING_MAX = 65536
    BLOCK = 32
    ERROR_OVERFLOW = 1

cdef struct Combination:
    uint64_t packed_plus_one  # 0 is an empty slot
    int64_t base  # of its vector, in `timeline_of`

cdef struct Event:  # the one that is rated
    const int32_t *meter
    const int32_t *book_meter
    const int64_t *quantity
    int64_t time_us
    int64_t first
    int64_t end
    int64_t context  # the one whose sum is known
    int64_t context_sum
    int64_t thresholds  # and those by which its tier is known
    int32_t tiers
    int32_t tier


cdef inline uint64_t pack(int64_t customer, int64_t model, int64_t region, int64_t tier) noexcept nogil:
    return (<uint64_t>customer << 40) | (<uint64_t>model << 20) | (<uint64_t>region << 10) | <uint64_t>tier


cdef inline bint quantity_of(Event *event, int32_t meter, int64_t *quantity) noexcept nogil:
    """Whether the event has a meter, and how much of it."""
    cdef int64_t j
    for j in range(event.first, event.end):
        if event.book_meter[event.meter[j]] == meter:
            quantity[0] = event.quantity[j]
            return True
    return False


@cython.final  # so that C may put one function into another
cdef class RateTable:
    """A compiled price book: filled combination by combination as they are met, then only read.

    One thread at a time: a schedule remembers where it was.
    """

    cdef readonly int64_t meters  # book meters; number 0 is `requests`
    cdef Combination *table
    cdef uint64_t mask
    cdef int64_t used
    cdef int32_t *profile  # of each customer class
    cdef uint64_t *pairs  # (customer << 20 | model) of the pairs that rows name; 0 is an empty slot
    cdef uint64_t pair_mask
    cdef int32_t *timeline_of
    cdef int64_t vectors
    cdef Timeline *timelines
    cdef int64_t timeline_count
    cdef Step *steps
    cdef int64_t step_count
    cdef Rule *rules
    cdef int64_t rule_count
    cdef Grid *grids
    cdef int64_t grid_count
    cdef char *cells  # 16 bytes each
    cdef int64_t cell_count
    cdef int64_t *numbers
    cdef int64_t number_count
    cdef dict runs  # of numbers: where each begins
    cdef Schedule *schedules
    cdef int64_t schedule_count

    def __cinit__(self, int64_t meters):
        self.meters = meters
        self.mask, self.runs = 1023, {}
        self.table = <Combination *>calloc(self.mask + 1, sizeof(Combination))
        if self.table == NULL:
            raise MemoryError()
        self.tell_profiles([0], [])

    def __dealloc__(self):
        free(self.table)
        free(self.profile)
        free(self.pairs)
        free(self.timeline_of)
        free(self.timelines)
        free(self.steps)
        free(self.rules)
        free(self.grids)
        free(self.cells)
        free(self.numbers)
        free(self.schedules)

    # -- what the book says, piece by piece

    def tell_profiles(self, list profiles not None, list pairs not None):
        """The profile of each customer class, and the (customer class, model class) that some row names together."""
        cdef uint64_t size = 64, pair, at
        cdef int64_t i
        while size < 4 * <uint64_t>len(pairs):
            size *= 2
        free(self.pairs)
        self.pairs = <uint64_t *>calloc(size, sizeof(uint64_t))
        if self.pairs == NULL:
            raise MemoryError()
        self.pair_mask = size - 1
        for customer, model in pairs:
            pair = <uint64_t>customer << 20 | <uint64_t>model
            at = fmix64(pair) & self.pair_mask
            while self.pairs[at]:
                at = (at + 1) & self.pair_mask
            self.pairs[at] = pair
        self.profile = <int32_t *>_grown(self.profile, len(profiles) * sizeof(int32_t))
        for i, number in enumerate(profiles):
            self.profile[i] = number

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

    cdef Rule *_new_rule(self, Kind kind) except NULL:
        self.rules = <Rule *>_grown(self.rules, (self.rule_count + 1) * sizeof(Rule))
        memset(&self.rules[self.rule_count], 0, sizeof(Rule))
        self.rules[self.rule_count].kind = kind
        self.rule_count += 1
        return &self.rules[self.rule_count - 1]

    def _check_rule(self, number):
        if not -1 <= number < self.rule_count:
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
        """A rule: one rule in the hours of a schedule, another one outside of them; -1 is unpriced."""
        self._check_rule(within)
        self._check_rule(otherwise)
        if not 0 <= schedule < self.schedule_count:
            raise ValueError(f"there is no schedule {schedule}")
        cdef Rule *rule = self._new_rule(CHOICE)
        rule.what, rule.within, rule.otherwise = schedule, within, otherwise
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
        grid.tiers, grid.context, grid.part, grid.package = stride, context, part, package
        grid.times_count, grid.table_count = len(times), len(tables)
        grid.thresholds = self._add_numbers(thresholds)
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
        if 1 < grid.tiers <= RATES and small and not (part or package or times or tables):
            rule = self._new_rule(TIERS)
            rule.what, rule.within, rule.tiers = context, grid.thresholds, grid.tiers
            for i in range(grid.tiers):
                rule.rates[i] = rates[i]
        else:
            rule = self._new_rule(GRID)
            rule.what = self.grid_count
            self.grid_count += 1
        rule.flag = per << F_PER_SHIFT
        return self.rule_count - 1

    def add_timeline(self, list from_us not None, list rules not None):
        """A run of steps: ascending instants, and the rule from each of them on (-1 unpriced). Returns its number."""
        cdef int64_t n = len(from_us), i
        cdef Timeline *line
        if len(rules) != n or not n:
            raise ValueError("one rule a step is expected")
        for rule in rules:
            self._check_rule(rule)
        self.timelines = <Timeline *>_grown(self.timelines, (self.timeline_count + 1) * sizeof(Timeline))
        self.steps = <Step *>_grown(self.steps, (self.step_count + n) * sizeof(Step))
        for i in range(n):
            self.steps[self.step_count + i].from_us = from_us[i]
            self.steps[self.step_count + i].rule = rules[i]
        line = &self.timelines[self.timeline_count]
        line.start, line.steps = self.step_count, n
        line.last_from_us, line.last_rule, line.before_from_us, line.before_rule = from_us[n - 1], rules[n - 1], 0, -1
        if n > 1:
            line.before_from_us, line.before_rule = from_us[n - 2], rules[n - 2]
        self.step_count += n
        self.timeline_count += 1
        return self.timeline_count - 1

    def add_vector(self, list timeline_of not None):
        """The timeline of each book meter (-1 unpriced, -2 unbilled). Returns the vector's number."""
        cdef int64_t i
        if len(timeline_of) != self.meters:
            raise ValueError("one timeline a book meter is expected")
        if not all(-2 <= number < self.timeline_count for number in timeline_of):
            raise ValueError("there is no such timeline")
        self.timeline_of = <int32_t *>_grown(self.timeline_of, (self.vectors + 1) * self.meters * sizeof(int32_t))
        for i in range(self.meters):
            self.timeline_of[self.vectors * self.meters + i] = timeline_of[i]
        self.vectors += 1
        return self.vectors - 1

    cdef inline Combination *_find(self, uint64_t packed) noexcept nogil:
        cdef uint64_t at = fmix64(packed) & self.mask
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
        if <uint64_t>(self.used + 1) * 2 > self.mask + 1:
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
        entry.base = vector * self.meters
        self.used += 1

    # -- the kernel

    cdef inline int64_t _customer(self, int64_t customer, int64_t model) noexcept nogil:
        """The class that a customer is looked up as beside a model."""
        cdef uint64_t pair = <uint64_t>customer << 20 | <uint64_t>model
        cdef uint64_t at = fmix64(pair) & self.pair_mask
        while self.pairs[at]:
            if self.pairs[at] == pair:
                return customer
            at = (at + 1) & self.pair_mask
        return self.profile[customer]

    cdef inline int64_t _context(self, Event *event, int64_t context) noexcept nogil:
        """The quantities of the meters of a context together; at most INT64_MAX, which is above every threshold."""
        cdef const int64_t *members = self.numbers + context
        cdef int64_t j, total = 0
        cdef int32_t meter
        if event.context != context:
            for j in range(event.first, event.end):
                meter = event.book_meter[event.meter[j]]
                if meter >= 0 and members[meter]:
                    total = int64_add_saturating(total, event.quantity[j])
            event.context, event.context_sum = context, total
        return event.context_sum

    cdef inline int32_t _tier(
        self, Event *event, int64_t context, int64_t thresholds, int32_t tiers
    ) noexcept nogil:
        """The number of the tier that an event's context is in: mostly the same for all its meters."""
        cdef int64_t size
        cdef int32_t i
        if event.context != context or event.thresholds != thresholds or event.tiers != tiers:
            size = self._context(event, context)
            event.thresholds, event.tiers, event.tier = thresholds, tiers, 0
            for i in range(tiers - 1):  # to the end: a few comparisons cost less than a branch foreseen wrongly
                event.tier += size > self.numbers[thresholds + i]
        return event.tier

    cdef int64_t _before(self, Event *event, int64_t context, int32_t own) noexcept nogil:
        """How much of a context stands before a meter's own units."""
        cdef const int64_t *members = self.numbers + context
        cdef int64_t j, total = 0
        cdef int32_t meter
        for j in range(event.first, event.end):
            meter = event.book_meter[event.meter[j]]
            if meter >= 0 and members[meter] and members[meter] < members[own]:
                total = int64_add_saturating(total, event.quantity[j])
        return total

    cdef int _grid(
        self, Event *event, Grid *grid, int32_t meter, int64_t quantity, i128 *amount, bint *priced
    ) noexcept nogil:
        """The amount of a quantity by a grid of rates."""
        cdef const char *cell = self.cells + 16 * grid.cells
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
        if grid.tiers > 1:
            cell += 16 * self._tier(event, grid.context, grid.thresholds, grid.tiers)
        return ERROR_OVERFLOW if i128_mul_wide(units, i128_load(cell), amount) else 0

    cdef int _parts(
        self, Event *event, Grid *grid, const char *cell, int32_t meter, int64_t quantity, i128 *amount
    ) noexcept nogil:
        """The amount of a quantity whose units are each at the tier of their own place in the context."""
        cdef const int64_t *thresholds = self.numbers + grid.thresholds
        cdef int64_t place = self._before(event, grid.context, meter), left = quantity, part
        cdef int32_t tier
        cdef i128 product
        amount[0] = i128_from_int64(0)
        for tier in range(grid.tiers):
            part = left
            if tier < grid.tiers - 1:
                part = min(left, max(thresholds[tier] - place, 0))
            if i128_mul(part, i128_load(cell + 16 * tier), &product) or i128_add(amount, product):
                return ERROR_OVERFLOW
            left -= part
            place = int64_add_saturating(place, part)
        return 0

    cdef inline int _rate(
        self, Event *event, int64_t base, int32_t meter, int64_t quantity, char *amount, uint8_t *flag
    ) noexcept nogil:
        cdef int32_t number = self.timeline_of[base + meter] if meter >= 0 else T_UNPRICED
        cdef Timeline *line
        cdef Rule *rule
        cdef int64_t step, chosen
        cdef i128 product = i128_from_int64(0)
        cdef bint priced = True, within
        cdef int32_t tier
        i128_store(amount, product)
        if number < 0:
            flag[0] = F_UNBILLED if number == T_UNBILLED else F_UNPRICED
            return 0
        line = &self.timelines[number]
        chosen = line.last_rule
        if event.time_us < line.last_from_us:
            chosen = line.before_rule
            if event.time_us < line.before_from_us:
                step = line.start + line.steps - 3
                while step >= line.start and self.steps[step].from_us > event.time_us:
                    step -= 1
                chosen = self.steps[step].rule if step >= line.start else -1
        while chosen >= 0 and self.rules[chosen].kind == CHOICE:
            rule = &self.rules[chosen]
            within = hours_hold(&self.schedules[rule.what], self.numbers, event.time_us)
            chosen = rule.within if within else rule.otherwise
        if chosen < 0:
            flag[0] = F_UNPRICED
            return 0
        rule = &self.rules[chosen]
        if rule.kind == GRID:
            if self._grid(event, &self.grids[rule.what], meter, quantity, &product, &priced):
                return ERROR_OVERFLOW
        else:
            tier = self._tier(event, rule.what, rule.within, rule.tiers) if rule.kind == TIERS else 0
            i128_mul(quantity, i128_from_int64(rule.rates[tier]), &product)  # of 64 bits each: it fits
        i128_store(amount, product)
        flag[0] = <uint8_t>rule.flag if priced else F_UNPRICED
        return 0

    cdef int _rate_event(
        self, Event *event, int64_t base, char *amounts, uint8_t *flags, char *request_amount, uint8_t *request_flag
    ) noexcept nogil:
        cdef int64_t j
        cdef int error
        event.context = event.thresholds = -1
        for j in range(event.first, event.end):
            error = self._rate(
                event, base, event.book_meter[event.meter[j]], event.quantity[j], amounts + 16 * j, flags + j
            )
            if error:
                return error
        return self._rate(event, base, 0, 1, request_amount, request_flag)

    def rate(
        self, int64_t rows, uintptr_t selection, uintptr_t event_time_us, tuple dim_index, tuple dim_class,
        uintptr_t usage_offsets, uintptr_t meter_index, uintptr_t meter_map, uintptr_t quantities,
        uintptr_t amounts, uintptr_t flags, uintptr_t request_amounts, uintptr_t request_flags,
    ):
        """Rates the selected rows; returns the packed combinations that are not known yet (then nothing is to be used).

        `selection` uint32 [rows] or 0. `dim_index`, `dim_class`: int32 code a row and int32 class a dictionary value,
        for customer, model, region, service_tier. `meter_map` int32 a dictionary value: the book meter's number, -1
        where the book has none. `amounts` (16 bytes) and `flags` (uint8) per usage item; `request_amounts`,
        `request_flags` per row of the batch. Raises OverflowError.
        """
        cdef const int32_t *index[4]
        cdef const int32_t *classes[4]
        cdef const uint32_t *chosen = <const uint32_t *>selection
        cdef const int64_t *time_us = <const int64_t *>event_time_us
        cdef const int32_t *starts = <const int32_t *>usage_offsets
        cdef int64_t i = 0, n, count, model, row = 0
        cdef int d, error = 0
        cdef uint64_t packed[BLOCK]
        cdef Combination *entry
        cdef Event event
        cdef set missing = set()
        event.meter, event.book_meter = <const int32_t *>meter_index, <const int32_t *>meter_map
        event.quantity = <const int64_t *>quantities
        for d in range(4):
            index[d] = <const int32_t *><uintptr_t>dim_index[d]
            classes[d] = <const int32_t *><uintptr_t>dim_class[d]
        with nogil:
            while i < rows and not error:
                count = min(<int64_t>BLOCK, rows - i)
                for n in range(count):
                    row = chosen[i + n] if chosen != NULL else i + n
                    model = classes[1][index[1][row]]
                    packed[n] = pack(
                        self._customer(classes[0][index[0][row]], model), model, classes[2][index[2][row]],
                        classes[3][index[3][row]],
                    )
                    prefetch(&self.table[fmix64(packed[n]) & self.mask])
                for n in range(count):
                    row = chosen[i + n] if chosen != NULL else i + n
                    entry = self._find(packed[n])
                    if not entry.packed_plus_one:
                        with gil:
                            if len(missing) < MISSING_MAX:
                                missing.add(packed[n])
                        continue
                    event.time_us, event.first, event.end = time_us[row], starts[row], starts[row + 1]
                    error = self._rate_event(
                        &event, entry.base, <char *>amounts, <uint8_t *>flags, <char *>request_amounts + 16 * row,
                        <uint8_t *>request_flags + row,
                    )
                    if error:
                        break
                i += count
        if error:
            raise OverflowError(f"quantity x rate does not fit in 128 bits at row {row} of the batch")
        return list(missing)
