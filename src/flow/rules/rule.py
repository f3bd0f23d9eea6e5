"""What stands in a rule book: frozen values, and what each check saw in an event that fails it, for people."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from ..prices.values import instant_text
from ..schema import DIMENSIONS

COLUMNS = ("source", *DIMENSIONS)
"""The texts of an event that rules are about."""
DURATION = "duration_ms"
"""The meter that tells how long a request took; it is not for sale."""
REJECT, FLAG = "reject", "flag"
Severity = Literal["reject", "flag"]

Plain = Mapping[str, Any]
"""An event as EVENTS has it, in Python's own values."""


@dataclass(frozen=True, slots=True)
class Values:
    """Texts that belong to something, and beginnings of texts."""

    whole: frozenset[str]
    beginnings: frozenset[str]
    file: str = ""
    """The file that they were read from, as the rule book names it."""

    def told(self) -> str:
        count = len(self.whole) + len(self.beginnings)
        return f"not in {self.file}" if self.file else f"none of the {count} that are known"


@dataclass(frozen=True, slots=True)
class Known:
    """The text of a column is one of these."""

    column: str
    values: Values

    def seen(self, event: Plain, now_us: int) -> str:
        return f"{self.column} {_shown(event[self.column])} is {self.values.told()}"


@dataclass(frozen=True, slots=True)
class Required:
    """The text of none of these columns is empty."""

    columns: tuple[str, ...]

    def seen(self, event: Plain, now_us: int) -> str:
        return f"{', '.join(name for name in self.columns if not event[name])}: empty"


@dataclass(frozen=True, slots=True)
class Range:
    """The quantity of a meter is within [least, most], where the event has that meter."""

    meter: str
    least: int
    most: int | None

    def seen(self, event: Plain, now_us: int) -> str:
        quantity = _usage(event)[self.meter]
        bound = f"below {self.least}" if quantity < self.least else f"above {self.most}"
        return f"{self.meter} {quantity} is {bound}"


@dataclass(frozen=True, slots=True)
class Sum:
    """The quantity of a meter is what others add up to, where the event has that meter."""

    meter: str
    of: tuple[str, ...]
    tolerance: int

    def seen(self, event: Plain, now_us: int) -> str:
        usage = _usage(event)
        return f"{self.meter} is {usage[self.meter]}, and the meters add up to {_added(usage, self.of)}"


@dataclass(frozen=True, slots=True)
class Speed:
    """No more than so many units a second of DURATION, where the event has that meter."""

    meters: tuple[str, ...]
    per_second_max: int

    def seen(self, event: Plain, now_us: int) -> str:
        usage = _usage(event)
        return f"{_added(usage, self.meters)} in {usage[DURATION]} ms is more than {self.per_second_max} a second"


@dataclass(frozen=True, slots=True)
class Clock:
    """The event's time is near the instant at which it is read; None: no bound on that side."""

    behind_us: int | None
    ahead_us: int | None

    def seen(self, event: Plain, now_us: int) -> str:
        apart_us = now_us - event["event_time_us"]
        side = "behind" if apart_us > 0 else "ahead of"
        return (
            f"time {instant_text(event['event_time_us'])} is {timedelta(microseconds=abs(apart_us))} {side} the clock"
        )


Check = Known | Required | Range | Sum | Speed | Clock


@dataclass(frozen=True, slots=True)
class Example:
    """One event of a rule's own, and whether it passes."""

    event: Mapping[str, Any]
    """As EVENTS has it; `usage` by meter."""
    read_us: int
    """When it is read."""
    passes: bool
    line: int


@dataclass(frozen=True, slots=True)
class Rule:
    """What events of some kind must be like, and what becomes of one that is not."""

    id: str
    severity: Severity
    since_us: int
    until_us: int
    """Event times in [since_us, until_us)."""
    where: tuple[tuple[str, Values], ...]
    """The columns whose texts tell which events it is for; none of them is what the check is about."""
    check: Check
    examples: tuple[Example, ...] = field(compare=False)
    line: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class Version:
    """Who wrote a rule book, and why."""

    name: str
    author: str
    reason: str


def _usage(event: Plain) -> dict[str, int]:
    return {item["meter"]: item["quantity"] for item in event["usage"]}


def _added(usage: Mapping[str, int], meters: Iterable[str]) -> int:
    return sum(usage.get(meter, 0) for meter in meters)


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")
