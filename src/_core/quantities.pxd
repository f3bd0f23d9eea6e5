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
    struct tf_weight {  /* of a meter, in what a check of sums or speeds makes of an event */
        int64_t weight;
        uint64_t told;  /* whether the event has what the check needs */
    };
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
    /* Marks the rows, 1024 at most, whose weighted sum is above `high`, or below -`low`; all of them, if there are
       quantities of more than 32 bits, with which sums might not fit. Whether any is marked. */
    static int tf_weigh(const struct tf_weight *restrict of, const int32_t *restrict starts,
                        const int32_t *restrict meters, const int64_t *restrict quantities, int64_t rows, int64_t width,
                        int64_t low, int64_t high, uint8_t *restrict marked) {
        int64_t sums[1024], bits = 0;
        uint64_t told = 0;
        int any = 0;
        const int32_t *of_row = meters + starts[0];
        for (int64_t n = 0; n < width; n++) told |= of[of_row[n]].told;
        if (width && !told) return 0;
        memset(sums, 0, sizeof(*sums) * rows);
        for (int64_t n = 0; n < width; n++) {
            int64_t weight = of[of_row[n]].weight;
            const int64_t *quantity = quantities + starts[0] + n;
            for (int64_t row = 0; weight && row < rows; row++) {
                sums[row] += quantity[row * width] * weight;
                bits |= quantity[row * width];
            }
        }
        for (int64_t row = 0; width == 0 && row < rows; row++) {
            int64_t sum = 0;
            told = 0;
            for (int64_t i = starts[row]; i < starts[row + 1]; i++) {
                sum += quantities[i] * of[meters[i]].weight;
                bits |= quantities[i];
                told |= of[meters[i]].told;
            }
            sums[row] = told ? sum : 0;
        }
        if (bits >> 32) memset(marked, any = 1, rows);
        for (int64_t row = 0; row < rows; row++) {
            int found = (sums[row] > high) | (sums[row] < -low);
            marked[row] |= found;
            any |= found;
        }
        return any;
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
    ctypedef struct Weight "struct tf_weight":
        int64_t weight
        uint64_t told
    uint64_t look "tf_look"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t first, int64_t end) nogil
    int64_t even "tf_even"(const int32_t *starts, const int32_t *meters, int64_t rows) nogil
    bint outside "tf_outside"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t items, int64_t width) nogil
    bint weigh "tf_weigh"(
        const Weight *of_meter, const int32_t *starts, const int32_t *meters, const int64_t *quantities, int64_t rows,
        int64_t width, int64_t low, int64_t high, uint8_t *marked) nogil
    bint disagrees "tf_disagrees"(
        const Meter *of_meter, const int32_t *meters, const int64_t *quantities, int64_t first, int64_t end, int check,
        bint speed, int64_t high) nogil
