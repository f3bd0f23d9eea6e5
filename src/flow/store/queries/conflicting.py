"""Conflicting events, as they came: one by one, and counted by source."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..client import StoreClient

_MICROS = "toUnixTimestamp64Micro({})"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which conflicting events are meant; what is empty or None leaves all."""

    source: str | None = None
    prefix: str = ""
    """How their source position begins."""
    position: str | None = None
    """Their source position."""
    from_us: int | None = None
    """They were seen in [from_us, before_us)."""
    before_us: int | None = None

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition, and its parameters."""
        given = {
            "source = {source:String}": ("source", self.source),
            "startsWith(source_position, {prefix:String})": ("prefix", self.prefix or None),
            "source_position = {position:String}": ("position", self.position),
            "seen_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')": ("from_us", self.from_us),
            "seen_at < fromUnixTimestamp64Micro({before_us:Int64}, 'UTC')": ("before_us", self.before_us),
        }
        chosen = {condition: pair for condition, pair in given.items() if pair[1] is not None}
        return " AND ".join(chosen) or "1", dict(chosen.values())


@dataclass(frozen=True, slots=True)
class Conflicting:
    """One event that says something else than the one that was counted."""

    seen_at_us: int
    source_position: str
    source: str
    id: str
    event_time_us: int
    payload: str
    """A flat event in JSON."""


@dataclass(frozen=True, slots=True)
class SourceConflicts:
    """The conflicting events of one source."""

    source: str
    events: int
    identities: int
    """How many events they conflict with."""
    first_seen: datetime
    last_seen: datetime


def conflicting(client: StoreClient, filter: Filter, limit: int) -> list[Conflicting]:
    """The latest ones, the latest first. Raises StoreError."""
    where, parameters = filter.where()
    found = client.rows(
        f"SELECT {_MICROS.format('seen_at')} AS seen_us, source_position, toString(source), id, "
        f"{_MICROS.format('event_time')}, payload FROM conflicting_events WHERE {where} "
        "ORDER BY seen_us DESC, source_position DESC LIMIT {limit:UInt64}",
        {**parameters, "limit": limit},
    )
    return [Conflicting(*row) for row in found]


def conflicts_by_source(client: StoreClient, filter: Filter) -> list[SourceConflicts]:
    """The source with the most events first. Raises StoreError."""
    where, parameters = filter.where()
    found = client.rows(
        "SELECT toString(source), count(), uniqExact(id), min(seen_at), max(seen_at) "
        f"FROM conflicting_events WHERE {where} GROUP BY source ORDER BY count() DESC, source",
        parameters,
    )
    return [SourceConflicts(*row) for row in found]
