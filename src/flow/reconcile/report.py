"""What a reconciliation has found, and how it is told as JSON."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

from .asked import TIME_END_S, Scope
from .descend import Level
from .naming import EventDifference, Kind
from .variance import Variance, percent

SHOWN_MAX = 10_000
"""Minutes, and events of each kind, that are kept for the report."""


@dataclass(frozen=True, slots=True)
class MinuteDifference:
    """A minute of a customer in which the two do not hold the same events."""

    customer: str
    window_start: str
    events_here: int
    events_there: int


@dataclass(frozen=True, slots=True)
class UsageDifference:
    """A bucket of a provider's report in which a meter does not come to the same."""

    window_start: str
    grain: str
    customer: str
    """Empty where the report does not tell customers apart."""
    model: str
    meter: str
    here: int
    there: int


@dataclass
class Reconciliation:
    """The store ("here") held against another source ("there")."""

    here: str
    there: str
    kind: str
    """store, log or report: what the other source is."""
    scope: Scope
    threshold: Fraction
    levels: list[Level] = field(default_factory=list)
    """By grain, the coarsest first."""
    events_here: int = 0
    events_there: int = 0
    variances: list[Variance] = field(default_factory=list)
    minute_count: int = 0
    minutes: list[MinuteDifference] = field(default_factory=list)
    """The first of them."""
    counts: dict[Kind, int] | None = None
    """How many events differ, and how; None: they were not compared one by one."""
    events: list[EventDifference] = field(default_factory=list)
    """The first of each kind."""
    usage: list[UsageDifference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        """Whether the two say the same."""
        return not (self.minute_count or self.usage or (self.counts and any(self.counts.values())))

    @property
    def beyond(self) -> list[Variance]:
        """What is further apart than the threshold."""
        return [one for one in self.variances if one.beyond(self.threshold)]

    @property
    def passes(self) -> bool:
        """Whether it is within the threshold; at 0 nothing at all may differ."""
        return self.agrees if not self.threshold else not self.beyond

    def verdict(self) -> str:
        """One line."""
        if self.agrees:
            return f"{self.here} and {self.there} agree"
        what = [f"{self.minute_count:,} customer minutes differ"] if self.minute_count else []
        what += [f"{len(self.usage):,} buckets differ"] if self.usage else []
        what += [f"{count:,} events {_SAID[kind]}" for kind, count in (self.counts or {}).items() if count]
        within = "within" if self.passes else "beyond"
        return f"{', '.join(what)}; {within} the threshold of {percent(self.threshold)}"


_SAID = {
    Kind.ONLY_HERE: "only here",
    Kind.ONLY_THERE: "only there",
    Kind.DIFFERENT: "different",
    Kind.CONFLICTING: "conflicting",
}


def iso(time_s: int) -> str:
    """A window's start."""
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def as_json(found: Reconciliation) -> dict[str, Any]:
    """For JSON; quantities are strings, since readers of JSON would not hold them exactly."""
    scope = found.scope
    return {
        "here": found.here,
        "there": found.there,
        "against": found.kind,
        "from": iso(scope.from_s) if scope.from_s else None,
        "before": iso(scope.before_s) if scope.before_s != TIME_END_S else None,
        "customers": list(scope.customers) if scope.customers is not None else None,
        "agrees": found.agrees,
        "within_threshold": found.passes,
        "threshold": percent(found.threshold),
        "events_here": found.events_here,
        "events_there": found.events_there,
        "grains": [asdict(level) for level in found.levels],
        "variances": [variance_json(one, found.threshold) for one in found.variances],
        "differing_minutes": found.minute_count,
        "minutes": [asdict(one) for one in found.minutes],
        "differing_events": found.counts,
        "events": [_event_json(one) for one in found.events],
        "usage": [asdict(one) | {"here": str(one.here), "there": str(one.there)} for one in found.usage],
        "notes": found.notes,
    }


def variance_json(one: Variance, threshold: Fraction) -> dict[str, Any]:
    """One meter of a customer or model (null: of all)."""
    return {
        "customer": one.customer,
        "model": one.model,
        "meter": one.meter,
        "here": str(one.here),
        "there": str(one.there),
        "variance": percent(one.ratio),
        "beyond_threshold": one.beyond(threshold),
    }


def _event_json(one: EventDifference) -> Mapping[str, Any]:
    fields = {name: {"here": here, "there": there} for name, (here, there) in one.fields.items()}
    return asdict(one) | {"fields": fields}
