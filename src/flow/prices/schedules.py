"""The `schedules:` of a price book: named hours of the week, by the clock on the wall of a zone."""

import re
from datetime import date
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from ..yaml_nodes import Problems, Steps, did_you_mean, line_of, pairs, shown
from .price import HOLIDAY, Hours, Schedule
from .values import Place, list_of

SCHEDULE_KEYS = ("zone", "hours", "holidays")
HOURS_KEYS = ("days", "from", "to")
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun", "holiday")
MINUTES_A_DAY = 1440

_CLOCK = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])|(24:00)")


def read_schedules(node: yaml.Node | None, problems: Problems) -> dict[str, Schedule]:
    """By name."""
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        problems.add(line_of(node), ("schedules",), f"names and their hours are expected, not {shown(node)}")
        return {}
    found = {}
    for name, (_, value) in pairs(node, ("schedules",), problems).items():
        place = Place(value, ("schedules", name), problems, SCHEDULE_KEYS)
        place.require("zone", "hours")
        zone = _zone(place)
        items = list_of(place.found.get("hours"), (*place.steps, "hours"), problems)
        hours = [_hours(item, (*place.steps, "hours", n), problems) for n, item in enumerate(items)]
        holidays = frozenset(_holidays(place))
        # A schedule with a problem stays known, so that prices that name it are no second problem.
        found[name] = Schedule(name, zone or "UTC", tuple(one for one in hours if one is not None), holidays)
    return found


def _zone(place: Place) -> str | None:
    zone = place.text("zone")
    if zone is None:
        return None
    try:
        ZoneInfo(zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        place.problem("zone", "is no zone of the IANA time zone database; write Europe/Berlin or UTC")
        return None
    return zone


def _hours(node: yaml.Node, steps: Steps, problems: Problems) -> Hours | None:
    place = Place(node, steps, problems, HOURS_KEYS)
    place.require("from", "to")
    minutes = [_minute(place, key) for key in ("from", "to")]
    days = _days(place)
    if minutes[0] is None or minutes[1] is None or not days:
        return None
    if minutes[0] == minutes[1]:
        place.problem("to", 'is no time at all after `from`; a whole day is "00:00" to "24:00"')
    return Hours(frozenset(days), minutes[0], minutes[1])


def _minute(place: Place, key: str) -> int | None:
    node = place.found.get(key)
    if node is None:
        return None
    match = _CLOCK.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
    if match is None or (match[3] and key == "from"):
        place.problem(key, 'is no time of the day; write it in quotes: "08:30"')
        return None
    return MINUTES_A_DAY if match[3] else int(match[1]) * 60 + int(match[2])


def _days(place: Place) -> set[int]:
    """Day kinds; all of them where none are given. `mon-fri` is a range."""
    node = place.found.get("days")
    if node is None:
        return set(range(len(DAYS)))
    days: set[int] = set()
    items = node.value if isinstance(node, yaml.SequenceNode) else [node]
    for item in items:
        first, _, last = str(item.value).partition("-") if isinstance(item, yaml.ScalarNode) else ("", "", "")
        last = last or first
        if first not in DAYS or last not in DAYS:
            place.problem("days", f"is no day; {did_you_mean(first, DAYS)}", item)
            continue
        begin, end = DAYS.index(first), DAYS.index(last)
        if begin != end and HOLIDAY in (begin, end):
            place.problem("days", "is no range of weekdays", item)
            continue
        days |= {(begin + n) % HOLIDAY for n in range((end - begin) % HOLIDAY + 1)} if begin != HOLIDAY else {HOLIDAY}
    return days


def _holidays(place: Place) -> set[date]:
    found = set()
    for n, item in enumerate(list_of(place.found.get("holidays"), (*place.steps, "holidays"), place.problems)):
        try:
            found.add(date.fromisoformat(item.value if isinstance(item, yaml.ScalarNode) else ""))
        except ValueError:
            message = f"{shown(item)} is not a date; write 2026-12-25"
            place.problems.add(line_of(item), (*place.steps, "holidays", n), message)
    return found


def overlap(one: Schedule, other: Schedule) -> bool:
    """Whether some minute may be in both; schedules of two zones, or with other holidays, may always."""
    if one.zone != other.zone or one.holidays != other.holidays:
        return True
    return bool(_minutes(one) & _minutes(other))


def _minutes(schedule: Schedule) -> set[tuple[int, int]]:
    """(day kind, minute of that day) of every minute that may be within the hours."""
    found = set()
    for hours in schedule.hours:
        end = hours.to_minute + (MINUTES_A_DAY if hours.to_minute <= hours.from_minute else 0)
        for day in hours.days:
            following = set(range(HOLIDAY)) if day == HOLIDAY else {(day + 1) % HOLIDAY}
            following |= {HOLIDAY} if schedule.holidays else set()
            for minute in range(hours.from_minute, end):
                days = {day} if minute < MINUTES_A_DAY else following
                found |= {(one, minute % MINUTES_A_DAY) for one in days}
    return found
