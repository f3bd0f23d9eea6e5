"""A schedule as arrays: when which UTC offset holds in its zone, and which minutes of which kind of day are in it."""

from bisect import bisect_right
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import lru_cache
from zoneinfo import ZoneInfo

from .price import HOLIDAY, Schedule
from .schedules import DAYS, MINUTES_A_DAY

_DAY_S = 86_400
_END_S = 2**32 + _DAY_S
"""Behind every event."""


@dataclass(frozen=True, slots=True)
class Week:
    """What `RateTable.add_schedule` is told of a schedule."""

    instants: tuple[int, ...]
    """Seconds since 1970-01-01T00:00:00Z, ascending, the first before every event."""
    offsets: tuple[int, ...]
    """Seconds that are added to UTC from each instant on."""
    today: bytes
    """0 or 1 for each kind of day and minute: in hours that began on that day."""
    after: bytes
    """The same for hours that began the day before, which was of that kind."""
    holidays: tuple[int, ...]
    """Days since 1970-01-01, ascending."""


def week_of(schedule: Schedule) -> Week:
    """The arrays of a schedule."""
    today, after = (bytearray(len(DAYS) * MINUTES_A_DAY) for _ in range(2))
    for hours in schedule.hours:
        over_midnight = hours.to_minute <= hours.from_minute
        for day in hours.days:
            first = day * MINUTES_A_DAY
            end = MINUTES_A_DAY if over_midnight else hours.to_minute
            today[first + hours.from_minute : first + end] = b"\1" * (end - hours.from_minute)
            if over_midnight:
                after[first : first + hours.to_minute] = b"\1" * hours.to_minute
    instants, offsets = zip(*offset_changes(schedule.zone), strict=True)
    holidays = sorted((day - date(1970, 1, 1)).days for day in schedule.holidays)
    return Week(instants, offsets, bytes(today), bytes(after), tuple(holidays))


@lru_cache(maxsize=64)
def offset_changes(zone: str) -> tuple[tuple[int, int], ...]:
    """(instant, UTC offset), in seconds, for each instant at which the offset of a zone changes.

    zoneinfo tells no transitions, so each day's offset is asked for, and a change is bisected to its second. No zone
    has gone forth and back within one day since 1970.
    """
    info = ZoneInfo(zone)

    def offset_s(time_s: int) -> int:
        offset = datetime.fromtimestamp(time_s, UTC).astimezone(info).utcoffset()
        assert offset is not None  # a zone always has one
        return offset.days * _DAY_S + offset.seconds

    found = [(-_DAY_S, offset_s(0))]
    for day_s in range(0, _END_S, _DAY_S):
        if offset_s(day_s + _DAY_S) != found[-1][1]:
            low, high = day_s, day_s + _DAY_S
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if offset_s(middle) == found[-1][1] else (low, middle)
            found.append((high, offset_s(high)))
    return tuple(found)


def within(schedule: Schedule, time_us: int) -> bool:
    """Whether an instant is in the hours of a schedule."""
    week, changes = week_of(schedule), offset_changes(schedule.zone)
    second = time_us // 1_000_000
    offset = changes[bisect_right(changes, second, key=lambda change: change[0]) - 1][1]
    day, rest = divmod(second + offset, _DAY_S)

    def row(table: bytes, of_day: int) -> int:
        # Day 0 was a Thursday, which is 3.
        kind = HOLIDAY if of_day in week.holidays else (of_day + 3) % HOLIDAY
        return table[kind * MINUTES_A_DAY + rest // 60]

    return bool(row(week.today, day) or row(week.after, day - 1))
