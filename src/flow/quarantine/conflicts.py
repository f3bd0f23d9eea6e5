"""Conflicting events beside those that were counted: which fields differ."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..config import Config
from ..prices.values import instant_text
from ..sinks.committed import committed_ledger
from ..state.directory import StateDirectory
from ..state.ledger_lookup import LedgerEvent, find_events
from ..steps.amend import canonical
from ..store import StoreClient
from ..store.queries.conflicting import Conflicting, Filter, SourceConflicts, conflicting, conflicts_by_source

Fields = dict[str, str | int]
"""An event by field: `time`, the dimensions, and a quantity for each `usage.<meter>`."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A field that the two do not agree on; None where one of them lacks it."""

    field: str
    counted: str | int | None
    came: str | int | None


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflicting event, and what was counted in its place."""

    event: Conflicting
    counted: LedgerEvent | None
    """None: the ledger does not have it, or there is none."""
    differences: tuple[Difference, ...]
    """In the order of the fields; none where it is not known what was counted."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """The conflicts of one source."""

    conflicts: SourceConflicts
    compared: int
    """How many of them, the latest, were held against what was counted."""
    fields: Counter[str] = field(default_factory=Counter)
    """In how many of these each field differs."""


def conflicts(client: StoreClient, config: Config, filter: Filter, limit: int) -> list[Conflict]:
    """The latest ones that a filter leaves, the latest first. Raises StateError, StoreError."""
    events = conflicting(client, filter, limit)
    counted = _counted(config, events)
    return [_compared(event, counted.get((event.source, event.id))) for event in events]


def by_source(client: StoreClient, config: Config, filter: Filter, limit: int) -> list[SourceReport]:
    """All that a filter leaves, by source; fields are those of the latest `limit`. Raises StateError, StoreError."""
    sources = conflicts_by_source(client, filter)
    compared: Counter[str] = Counter()
    fields: dict[str, Counter[str]] = {found.source: Counter() for found in sources}
    for conflict in conflicts(client, config, filter, limit):
        if conflict.counted is not None and conflict.event.source in fields:
            compared[conflict.event.source] += 1
            fields[conflict.event.source].update(difference.field for difference in conflict.differences)
    return [SourceReport(found, compared[found.source], fields[found.source]) for found in sources]


def _counted(config: Config, events: Sequence[Conflicting]) -> Mapping[tuple[str, str], LedgerEvent]:
    directory = StateDirectory(config.state_dir)
    lineage = directory.existing_lineage()
    if config.ledger is None or lineage is None:
        return {}
    expected_us = {(event.source, event.id): event.event_time_us for event in events}
    return find_events(config.ledger, lineage.id, expected_us, committed_ledger(directory))


def _compared(event: Conflicting, counted: LedgerEvent | None) -> Conflict:
    differences = () if counted is None else tuple(_differences(fields_counted(counted), fields_came(event)))
    return Conflict(event, counted, differences)


def _differences(counted: Fields, came: Fields) -> Iterator[Difference]:
    for name in dict.fromkeys([*counted, *came]):
        before, now = counted.get(name), came.get(name)
        if before != now:
            yield Difference(name, before, now)


def fields_counted(event: LedgerEvent) -> Fields:
    """What was counted, by field."""
    said = json.loads(event.amends) if event.amends else {}
    amends = _texts(said) if said.get("kind") == "correction" else {}
    return {"time": instant_text(event.event_time_us), **event.dimensions, **amends, **_usage(event.usage)}


def fields_came(event: Conflicting) -> Fields:
    """What came, by field."""
    payload = json.loads(event.payload)
    usage = payload.pop("usage")
    plain = {name: value for name, value in payload.items() if name not in ("id", "source", "time")}
    return {"time": instant_text(event.event_time_us), **_texts(plain), **_usage(usage)}


def _texts(said: Mapping[str, Any]) -> Fields:
    """What is no text, such as what a correction names, as JSON."""
    told = {name: value for name, value in said.items() if name not in ("kind", "type")}
    return {name: value if isinstance(value, str) else canonical(value) for name, value in told.items()}


def _usage(usage: Mapping[str, int]) -> Fields:
    return {f"usage.{meter}": quantity for meter, quantity in sorted(usage.items())}
