# What the quantities of events have to do with checks: bounds, sums and speeds, of 512 rows at a time.
#
# Most events pass, and most batches have the same meters in each row. So it is asked first, and without a branch,
# whether there is any row that may fail; only such rows are looked at one by one.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint64_t

cdef extern from *:
    """
    #include <stdint.h>
    #include <string.h>
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
    /* How many items each of these rows has, if all have the same meters in the same order; 0: they do not. */
    static int64_t tf_even(const int32_t *starts, const int32_t *meters, int64_t rows) {
        int32_t width = starts[1] - starts[0], uneven = 0;
        for (int64_t row = 0; row < rows; row++) uneven |= (starts[row + 1] - starts[row]) ^ width;
        if (uneven || width == 0) return 0;
        return memcmp(meters, meters + width, sizeof(*meters) * (size_t)width * (rows - 1)) == 0 ? width : 0;
    }
    /* Whether a quantity is outside of the bounds of its meter. Nothing here is negative, so that a difference is where
       it should not be; `width`: of even rows, which are read a meter after the other. */
    static int tf_outside(const struct tf_meter *restrict of, const int32_t *restrict meters,
                          const int64_t *restrict quantities, int64_t items, int64_t width) {
        int64_t outside = 0;
        for (int64_t n = 0; n < width; n++) {
            int64_t low = of[meters[n]].low, high = of[meters[n]].high;
            if (low > 0)
                for (int64_t i = n; i < items; i += width) outside |= (quantities[i] - low) | (high - quantities[i]);
            else if (high < INT64_MAX)
                for (int64_t i = n; i < items; i += width) outside |= high - quantities[i];
        }
        for (int64_t i = 0; width == 0 && i < items; i++) {
            const struct tf_meter *meter = of + meters[i];
            outside |= (quantities[i] - meter->low) | (meter->high - quantities[i]);
        }
        return outside < 0;
    }
    struct tf_group {  /* checks that make the same sum, or speed, of an event */
        int speed;
        int check;      /* the first of them */
        int64_t bound;  /* the least of theirs, and 2^20 at most if they are of speeds */
    };
    #define TF_ABSENT INT64_MIN  /* what a row has in place of a quantity by which it would tell something */
    /* Uneven rows as even ones: each quantity at the place of its meter; 0, or TF_ABSENT, where a row has none. */
    static void tf_lay_out(const struct tf_meter *restrict of, const int32_t *restrict place_of,
                           const int32_t *restrict layout, int64_t width, const int32_t *restrict starts,
                           const int32_t *restrict meters, const int64_t *restrict quantities, int64_t rows,
                           int64_t *restrict out) {
        memset(out, 0, sizeof(*out) * (size_t)(rows * width));
        for (int64_t n = 0; n < width; n++)
            for (int64_t row = 0; of[layout[n]].told_by && row < rows; row++) out[row * width + n] = TF_ABSENT;
        for (int64_t row = 0; row < rows; row++, out += width)
            for (int64_t i = starts[row]; i < starts[row + 1]; i++) out[place_of[meters[i]]] = quantities[i];
    }
    /* Marks the rows that may fail; the answer is 1 if there are any, and more if quantities have more than 32 bits.
       Where the compiler knows the arguments named first, a row's sum stays in registers, and nothing branches. */
    static inline __attribute__((always_inline)) uint64_t tf_weigh_by(
        const int speed, const int laid_out, const int count, const int32_t *restrict places, int32_t told_at,
        uint64_t bound, const int64_t *restrict quantities, int64_t rows, int64_t width, uint8_t *restrict marked) {
        uint64_t bits = 0, any = 0;
        for (int64_t row = 0; row < rows; row++, quantities += width) {
            if (!laid_out) __builtin_prefetch(quantities + rows * width);  /* of the next block, line by line */
            uint64_t told = quantities[told_at], added = 0;
            for (int n = 0; n < count; n++) {
                uint64_t quantity = quantities[places[n]];
                if (laid_out) quantity &= INT64_MAX;  /* 0 for TF_ABSENT */
                added += quantity;
                bits |= quantity;
            }
            bits |= laid_out ? told & INT64_MAX : told;
            uint64_t apart = added - told;  /* with the sign in the last bit, as what follows */
            uint64_t far = speed ? told * bound - added * 1000 : (apart + bound) | (bound - apart);
            uint64_t found = (laid_out ? far & ~told : far) >> 63;
            marked[row] |= found;
            any |= found;
        }
        return any | (bits >> 32) << 1;
    }
    static inline __attribute__((always_inline)) uint64_t tf_weigh_count(
        const int speed, const int laid_out, int count, const int32_t *restrict places, int32_t told_at,
        uint64_t bound, const int64_t *restrict quantities, int64_t rows, int64_t width, uint8_t *restrict marked) {
    #define TF_WEIGH(n) tf_weigh_by(speed, laid_out, n, places, told_at, bound, quantities, rows, width, marked)
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
    /* Marks the even rows that may fail a check of the group; all of them, if quantities have more than 32 bits, of
       which sums might not fit. `layout`: the meters of a row; `places`: room for as many. Whether any is marked. */
    static int tf_weigh(const struct tf_meter *restrict of, const struct tf_group *restrict group,
                        const int32_t *restrict layout, int32_t *restrict places, const int64_t *restrict quantities,
                        int64_t rows, int64_t width, int laid_out, uint8_t *restrict marked) {
        uint64_t found;
        int32_t told_at = -1;
        int count = 0;
        for (int32_t n = 0; n < width; n++) {
            if (of[layout[n]].told_by >> group->check & 1) told_at = n;
            if (of[layout[n]].added >> group->check & 1) places[count++] = n;
        }
        if (told_at < 0) return 0;
    #define TF_WEIGH(speed, laid_out) \\
        tf_weigh_count(speed, laid_out, count, places, told_at, group->bound, quantities, rows, width, marked)
        if (group->speed) found = laid_out ? TF_WEIGH(1, 1) : TF_WEIGH(1, 0);
        else found = laid_out ? TF_WEIGH(0, 1) : TF_WEIGH(0, 0);
    #undef TF_WEIGH
        if (found >> 1) memset(marked, 1, rows);
        return found != 0;
    }
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
    int64_t even "tf_even"(const int32_t *starts, const int32_t *meters, int64_t rows) nogil
    bint outside "tf_outside"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t items, int64_t width) nogil
    void lay_out "tf_lay_out"(
        const Meter *of_meter, const int32_t *place_of, const int32_t *layout, int64_t width, const int32_t *starts,
        const int32_t *meters, const int64_t *quantities, int64_t rows, int64_t *out) nogil
    bint weigh "tf_weigh"(
        const Meter *of_meter, const Group *group, const int32_t *layout, int32_t *places, const int64_t *quantities,
        int64_t rows, int64_t width, bint laid_out, uint8_t *marked) nogil
    bint disagrees "tf_disagrees"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t first, int64_t end, int check,
        bint speed, int64_t high) nogil
