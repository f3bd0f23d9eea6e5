# What the quantities of events have to do with checks: bounds, sums and speeds, of 512 rows at a time.
#
# Most events pass, and most batches have the same meters in each row. So it is asked first, and without a branch,
# whether there is any row that may fail; only such rows are looked at one by one.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #define TF_FEW 8
    struct tf_meter {  /* what the checks have to do with a meter, one bit each */
        uint64_t bounded;    /* those that bound its quantity, */
        uint64_t told_by;    /* to which it tells the sum or the milliseconds, */
        uint64_t added;      /* and that add it up */
        uint64_t looked_at;  /* of all these: those to be looked at whatever the quantity */
        int64_t low;         /* a quantity of [low, high] is within the bounds of all checks */
        int64_t high;
    };
    /* The checks that a row's quantities give a reason to look at. */
    static inline uint64_t tf_look(const struct tf_meter *of, const int32_t *meters, const int64_t *quantities,
                                   int64_t first, int64_t end) {
        uint64_t bits = 0;
        for (int64_t i = first; i < end; i++) {
            const struct tf_meter *meter = of + meters[i];
            uint64_t outside = (quantities[i] < meter->low) | (quantities[i] > meter->high);
            bits |= meter->looked_at | (meter->bounded & -outside);
        }
        return bits;
    }
    /* Rows that have the same meters in the same order: one behind the other, or where each begins. */
    struct tf_alike {
        const int32_t *meters;
        int64_t width;  /* how many meters */
        int64_t count;
        const int64_t *quantities;
        const int32_t *firsts;  /* the first item of each; NULL: one behind the other */
        const int32_t *starts;  /* of all rows of the block, which are `rows` */
        int64_t rows;
    };
    /* The number in the block of the i-th of these rows, which have meters: the last that begins where it does. */
    static int64_t tf_row(const struct tf_alike *like, int64_t i) {
        int64_t row = 0, behind = like->rows;
        if (like->firsts == NULL) return i;
        while (behind - row > 1) {
            int64_t middle = (row + behind) / 2;
            if (like->starts[middle] <= like->firsts[i]) row = middle;
            else behind = middle;
        }
        return row;
    }
    /* Gathering numbers into vectors costs more than it saves: the compiler must not see that rows could be taken two
       at a time. */
    #define TF_ONE_BY_ONE(pointer) if (!even) __asm__("" : "+r"(pointer))
    #define TF_QUANTITIES(i) (like->quantities + (even ? (i) * width : like->firsts[i]))
    /* Nothing here is negative, so that a difference is where it should not be. */
    static inline __attribute__((always_inline)) uint64_t tf_outside_by(
        const int even, const int marking, const int64_t width, const struct tf_meter *restrict of,
        const struct tf_alike *restrict like, uint8_t *restrict marked) {
        int64_t outside = 0;
        for (int64_t i = 0; i < like->count; i++) {
            const int64_t *quantities = TF_QUANTITIES(i);
            TF_ONE_BY_ONE(quantities);
            int64_t here = 0;
            for (int64_t n = 0; n < width; n++) {
                const struct tf_meter *meter = of + like->meters[n];
                here |= (quantities[n] - meter->low) | (meter->high - quantities[n]);
            }
            if (marking && here < 0) marked[tf_row(like, i)] = 1;
            outside |= here;
        }
        return (uint64_t)outside >> 63;
    }
    /* As tf_outside_by, of `count` meters with a greatest quantity, where none has a least one. */
    static inline __attribute__((always_inline)) uint64_t tf_above_by(
        const int even, const int64_t count, const int32_t *restrict places, const int64_t *restrict high,
        const struct tf_alike *restrict like) {
        int64_t outside = 0, width = like->width;
        for (int64_t i = 0; i < like->count; i++) {
            const int64_t *quantities = TF_QUANTITIES(i);
            TF_ONE_BY_ONE(quantities);
            for (int64_t n = 0; n < count; n++) outside |= high[n] - quantities[places[n]];
        }
        return (uint64_t)outside >> 63;
    }
    /* Marks the rows with a quantity outside of the bounds of its meter; whether there are any. */
    static int tf_outside(const struct tf_meter *restrict of, const struct tf_alike *restrict like,
                          uint8_t *restrict marked) {
        int even = like->firsts == NULL;
        uint64_t lowest = 0, found;
        int64_t high[TF_FEW], bounded = 0;
        int32_t places[TF_FEW];
        for (int64_t n = 0; n < like->width; n++) {
            const struct tf_meter *meter = of + like->meters[n];
            lowest |= meter->low;
            if (meter->high == INT64_MAX || bounded++ >= TF_FEW) continue;
            places[bounded - 1] = (int32_t)n;
            high[bounded - 1] = meter->high;
        }
    #define TF_ABOVE(n) case n: \\
        found = even ? tf_above_by(1, n, places, high, like) : tf_above_by(0, n, places, high, like); break;
        switch (lowest ? TF_FEW + 1 : bounded) {
            case 0: return 0;
            TF_ABOVE(1) TF_ABOVE(2) TF_ABOVE(3) TF_ABOVE(4) TF_ABOVE(5) TF_ABOVE(6) TF_ABOVE(7) TF_ABOVE(8)
            default:
                found = even ? tf_outside_by(1, 0, like->width, of, like, marked)
                             : tf_outside_by(0, 0, like->width, of, like, marked);
        }
    #undef TF_ABOVE
        if (found && even) tf_outside_by(1, 1, like->width, of, like, marked);
        if (found && !even) tf_outside_by(0, 1, like->width, of, like, marked);
        return found != 0;
    }
    struct tf_group {  /* checks that make the same sum, or speed, of an event */
        int speed;
        int check;      /* the first of them */
        int64_t bound;  /* the least of theirs, and 2^20 at most if they are of speeds */
    };
    /* Whether any of the rows may fail: 1, and more if quantities have more than 32 bits. Where the compiler knows the
       arguments named first, a row's sum stays in registers, and nothing branches. */
    static inline __attribute__((always_inline)) uint64_t tf_weigh_by(
        const int speed, const int even, const int marking, const int count, const int32_t *restrict places,
        int32_t told_at, uint64_t bound, const struct tf_alike *restrict like, uint8_t *restrict marked) {
        uint64_t bits = 0, any = 0;
        int64_t width = like->width;
        for (int64_t i = 0; i < like->count; i++) {
            const int64_t *quantities = TF_QUANTITIES(i);
            TF_ONE_BY_ONE(quantities);
            if (even) __builtin_prefetch(quantities + like->count * width);  /* of the next block, line by line */
            uint64_t told = quantities[told_at], added = 0;
            bits |= told;
            for (int n = 0; n < count; n++) {
                uint64_t quantity = quantities[places[n]];
                added += quantity;
                bits |= quantity;
            }
            uint64_t apart = added - told;  /* with the sign in the last bit, as what follows */
            uint64_t found = speed ? told * bound - added * 1000 : (apart + bound) | (bound - apart);
            if (marking && found >> 63) marked[tf_row(like, i)] = 1;
            any |= found;
        }
        return any >> 63 | (bits >> 32) << 1;
    }
    static inline __attribute__((always_inline)) uint64_t tf_weigh_count(
        const int speed, const int even, int count, const int32_t *restrict places, int32_t told_at, uint64_t bound,
        const struct tf_alike *restrict like, uint8_t *restrict marked) {
    #define TF_WEIGH(n) tf_weigh_by(speed, even, 0, n, places, told_at, bound, like, marked)
        switch (count) {
            case 0: return TF_WEIGH(0);
            case 1: return TF_WEIGH(1);
            case 2: return TF_WEIGH(2);
            case 3: return TF_WEIGH(3);
            case 4: return TF_WEIGH(4);
            case 5: return TF_WEIGH(5);
            default: return TF_WEIGH(count);
        }
    #undef TF_WEIGH
    }
    /* Marks the rows that may fail a check of the group; all of them, if quantities have more than 32 bits, of which
       sums might not fit. `places`: room for as many as a row has meters. Whether any is marked. */
    static int tf_weigh(const struct tf_meter *restrict of, const struct tf_group *restrict group,
                        const struct tf_alike *restrict like, int32_t *restrict places, uint8_t *restrict marked) {
        uint64_t found;
        int32_t told_at = -1;
        int count = 0, even = like->firsts == NULL;
        for (int32_t n = 0; n < like->width; n++) {
            if (of[like->meters[n]].told_by >> group->check & 1) told_at = n;
            if (of[like->meters[n]].added >> group->check & 1) places[count++] = n;
        }
        if (told_at < 0) return 0;
    #define TF_WEIGH(speed, even) tf_weigh_count(speed, even, count, places, told_at, group->bound, like, marked)
        if (group->speed) found = even ? TF_WEIGH(1, 1) : TF_WEIGH(1, 0);
        else found = even ? TF_WEIGH(0, 1) : TF_WEIGH(0, 0);
    #undef TF_WEIGH
        if (found >> 1)
            for (int64_t i = 0; i < like->count; i++) marked[tf_row(like, i)] = 1;
        else if (found && even)
            tf_weigh_by(group->speed, 1, 1, count, places, told_at, group->bound, like, marked);
        else if (found)
            tf_weigh_by(group->speed, 0, 1, count, places, told_at, group->bound, like, marked);
        return found != 0;
    }
    #undef TF_QUANTITIES
    #undef TF_ONE_BY_ONE
    /* Quantities are below 2^63, at most 1024 a row: nothing reaches 2^127, and small ones need 64 bits at most. */
    static inline int tf_disagrees(const struct tf_meter *of, const int32_t *meters, const int64_t *quantities,
                                   int64_t first, int64_t end, int check, int speed, int64_t high) {
        uint64_t all = 0, told = 0, added = 0;
        for (int64_t i = first; i < end; i++) {
            const struct tf_meter *meter = of + meters[i];
            uint64_t quantity = (uint64_t)quantities[i];
            all |= quantity;
            told += quantity & -(meter->told_by >> check & 1);
            added += quantity & -(meter->added >> check & 1);
        }
        __int128 wide_told = told, wide_added = added;
        if (__builtin_expect(all >> 52 != 0, 0)) {
            wide_told = wide_added = 0;
            for (int64_t i = first; i < end; i++) {
                if (of[meters[i]].told_by >> check & 1) wide_told += quantities[i];
                if (of[meters[i]].added >> check & 1) wide_added += quantities[i];
            }
        }
        if (speed) return wide_added * 1000 > wide_told * high;
        return wide_added - wide_told > high || wide_told - wide_added > high;
    }
    """
    ctypedef struct Meter "struct tf_meter":
        uint64_t bounded
        uint64_t told_by
        uint64_t added
        uint64_t looked_at
        int64_t low
        int64_t high
    ctypedef struct Group "struct tf_group":
        bint speed
        int check
        int64_t bound
    uint64_t look "tf_look"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t first, int64_t end) nogil
    ctypedef struct Alike "struct tf_alike":
        const int32_t *meters
        int64_t width
        int64_t count
        const int64_t *quantities
        const int32_t *firsts
        const int32_t *starts
        int64_t rows
    bint outside "tf_outside"(const Meter *of_meter, const Alike *like, uint8_t *marked) nogil
    bint weigh "tf_weigh"(
        const Meter *of_meter, const Group *group, const Alike *like, int32_t *places, uint8_t *marked) nogil
    bint disagrees "tf_disagrees"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t first, int64_t end, int check,
        bint speed, int64_t high) nogil
