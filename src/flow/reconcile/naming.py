"""Which events differ: only here, only there, or not the same in both. Sources are compared by fingerprint and payload
hash, as columns; only what differs becomes objects."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..schema import DIMENSIONS

_MINUTE_US = 60_000_000


class Kind(StrEnum):
    """How an event differs."""

    ONLY_HERE = "only_here"
    ONLY_THERE = "only_there"
    DIFFERENT = "different"
    """Known to both, but in another minute, or with another payload."""
    CONFLICTING = "conflicting"
    """Stands in the other source twice, with another payload the second time; the store knows of one only."""


@dataclass(frozen=True, slots=True)
class EventDifference:
    """One event that is not the same in both sources."""

    kind: Kind
    source: str
    id: str
    customer: str
    time: str
    fields: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    """What differs: (here, there)."""
    position_here: str = ""
    """Where it was read from."""
    position_there: str = ""
    note: str = ""

    def noted(self, note: str) -> "EventDifference":
        """The same with a note."""
        return replace(self, note=note)


def minutes_touched(rows: pa.Table) -> Collection[tuple[str, int]]:
    """(customer, start of the minute in seconds) of events."""
    starts = rows.column("event_time_us").to_numpy() // _MINUTE_US * 60
    return set(zip(rows.column("customer").cast(pa.string()).to_pylist(), map(int, starts), strict=True))


@dataclass(frozen=True, slots=True)
class Unequal:
    """EVENT_ROWS of what differs; `here` and `there` are the same events, row by row."""

    only_here: pa.Table
    only_there: pa.Table
    here: pa.Table
    there: pa.Table

    def minutes(self) -> set[tuple[str, int]]:
        """The minutes of all of them."""
        tables = (self.only_here, self.only_there, self.here, self.there)
        return {minute for table in tables for minute in minutes_touched(table)}

    def counts(self) -> dict[Kind, int]:
        """How many there are."""
        return {
            Kind.ONLY_HERE: self.only_here.num_rows,
            Kind.ONLY_THERE: self.only_there.num_rows,
            Kind.DIFFERENT: self.here.num_rows,
        }

    def described(self, events_max: int) -> Iterator[EventDifference]:
        """At most so many of each kind."""
        for row in self.only_here.slice(0, events_max).to_pylist():
            yield _of(Kind.ONLY_HERE, row, position_here=row["source_position"])
        for row in self.only_there.slice(0, events_max).to_pylist():
            yield _of(Kind.ONLY_THERE, row, position_there=row["source_position"])
        for here, there in zip(
            *(rows.slice(0, events_max).to_pylist() for rows in (self.here, self.there)), strict=True
        ):
            yield pair(Kind.DIFFERENT, here, there)


def unequal(here: pa.Table, there: pa.Table) -> Unequal:
    """Compares EVENT_ROWS in which no fingerprint stands twice."""
    place = pc.index_in(here.column("fingerprint"), value_set=there.column("fingerprint").combine_chunks())
    both = here.filter(place.is_valid())
    other = there.take(place.drop_null())
    starts = [rows.column("event_time_us").to_numpy() // _MINUTE_US for rows in (both, other)]
    moved = pa.array(starts[0] != starts[1])
    differ = pc.or_(moved, pc.not_equal(both.column("payload"), other.column("payload")))
    known = pc.is_in(there.column("fingerprint"), value_set=here.column("fingerprint").combine_chunks())
    return Unequal(
        here.filter(place.is_null()), there.filter(pc.invert(known)), both.filter(differ), other.filter(differ)
    )


def pair(kind: Kind, here: Mapping[str, Any], there: Mapping[str, Any], note: str = "") -> EventDifference:
    """One event of EVENT_ROWS as both have it."""
    says = [_said(row) for row in (here, there)]
    names = [*says[0], *(name for name in says[1] if name not in says[0])]
    fields = {name: (says[0].get(name, ""), says[1].get(name, "")) for name in names}
    return EventDifference(
        kind,
        here["source"],
        here["id"],
        here["customer"],
        _iso(here["event_time_us"]),
        {name: values for name, values in fields.items() if values[0] != values[1]},
        here["source_position"],
        there["source_position"],
        note,
    )


def _of(kind: Kind, row: Mapping[str, Any], **positions: str) -> EventDifference:
    return EventDifference(kind, row["source"], row["id"], row["customer"], _iso(row["event_time_us"]), {}, **positions)


def _said(row: Mapping[str, Any]) -> dict[str, str]:
    """What an event says, apart from its identity."""
    usage = {item["meter"]: str(item["quantity"]) for item in row["usage"]}
    return {"time": _iso(row["event_time_us"])} | {name: row[name] for name in DIMENSIONS} | dict(sorted(usage.items()))


def _iso(time_us: int) -> str:
    instant = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    return instant.isoformat().replace("+00:00", "Z")
