# The hours of the week in which a schedule holds, by the clock on the wall of its zone.
#
# A schedule is made of offsets of its zone (a run of instants, and of the seconds that are added to UTC from each of
# them on), of minutes of eight kinds of days (Monday 0 to Sunday 6, and holidays), and of the holidays' days. It
# remembers where it was last: events come nearly in order.

from libc.stdint cimport int32_t, int64_t, uint8_t

cdef enum:
    HOLIDAY = 7
    DAY_KINDS = 8
    DAY_MINUTES = 1440
    DAY_S = 86400

cdef struct Schedule:
    int64_t instants  # where its instants (seconds) are among the numbers; the offsets (seconds) follow
    int64_t count
    int64_t holidays  # where these are: local days since 1970-01-01, ascending
    int64_t holiday_count
    int64_t valid_from  # seconds: where the offset that was last used holds
    int64_t valid_to
    int64_t offset
    int64_t day  # the local day that was last looked up, and its kind and that of the day before
    int32_t kind
    int32_t kind_before
    uint8_t today[DAY_KINDS][DAY_MINUTES]  # whether a minute is in hours that began on that day
    uint8_t after[DAY_KINDS][DAY_MINUTES]  # in hours that began the day before, by the kind of that day


cdef inline void hours_open(Schedule *schedule) noexcept nogil:
    """A schedule that has not been anywhere yet."""
    schedule.valid_from, schedule.valid_to, schedule.day = 0, -1, -(<int64_t>1 << 40)


cdef inline int32_t day_kind(const Schedule *schedule, const int64_t *numbers, int64_t day) noexcept nogil:
    """The kind of a local day since 1970-01-01, which was a Thursday."""
    cdef const int64_t *holidays = numbers + schedule.holidays
    cdef int64_t low = 0, high = schedule.holiday_count, middle
    while low < high:
        middle = (low + high) // 2
        if holidays[middle] < day:
            low = middle + 1
        else:
            high = middle
    if low < schedule.holiday_count and holidays[low] == day:
        return HOLIDAY
    return <int32_t>((day + 10) % 7)


cdef inline bint hours_hold(Schedule *schedule, const int64_t *numbers, int64_t time_us) noexcept nogil:
    """Whether an instant is in the hours of a schedule."""
    cdef int64_t second = time_us // 1000000, low, high, middle, local, day, minute
    cdef const int64_t *instants = numbers + schedule.instants
    if not (schedule.valid_from <= second < schedule.valid_to):
        low, high = 0, schedule.count
        while high - low > 1:
            middle = (low + high) // 2
            if instants[middle] <= second:
                low = middle
            else:
                high = middle
        schedule.valid_from = instants[low]
        schedule.valid_to = instants[low + 1] if low + 1 < schedule.count else <int64_t>1 << 62
        schedule.offset = instants[schedule.count + low]
    # Days of a west longitude may begin before 1970: counted from ten days earlier, all numbers are positive.
    local = second + schedule.offset + 10 * DAY_S
    day, minute = local // DAY_S - 10, local % DAY_S // 60
    if day != schedule.day:
        schedule.day = day
        schedule.kind = day_kind(schedule, numbers, day)
        schedule.kind_before = day_kind(schedule, numbers, day - 1)
    return schedule.today[schedule.kind][minute] | schedule.after[schedule.kind_before][minute]
