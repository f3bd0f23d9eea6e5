"""Late events, and what was decided of them."""

import base64
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..client import StoreClient

STATES = ("waiting", "billed", "duplicate", "conflicting")

_MICROS = "toUnixTimestamp64Micro({})"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which late events are meant; what is empty or None leaves all."""

    sources: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    from_us: int | None = None
    """Their event times are in [from_us, before_us)."""
    before_us: int | None = None
    states: tuple[str, ...] = ()

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition, and its parameters."""
        given = {
            "has({sources:Array(String)}, late.source)": ("sources", list(self.sources)),
            "has({customers:Array(String)}, JSONExtractString(late.payload, 'customer'))": (
                "customers",
                list(self.customers),
            ),
            "late.event_time >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')": ("from_us", self.from_us),
            "late.event_time < fromUnixTimestamp64Micro({before_us:Int64}, 'UTC')": ("before_us", self.before_us),
            "has({states:Array(String)}, state)": ("states", list(self.states)),
        }
        chosen = {condition: pair for condition, pair in given.items() if pair[1] not in ([], None)}
        return " AND ".join(chosen) or "1", dict(chosen.values())


@dataclass(frozen=True, slots=True)
class LateEvent:
    """One late event."""

    seen_at_us: int
    source_position: str
    source: str
    id: str
    event_time_us: int
    watermark_us: int
    payload: bytes
    """JSON of the flat event."""
    state: str
    counted: str
    """JSON of what the ledger has under this identity, if it is conflicting."""
    author: str
    reason: str
    file: str
    """In the inbox."""

    @property
    def key(self) -> tuple[int, str]:
        return self.seen_at_us, self.source_position


def late_events(client: StoreClient, filter: Filter, limit: int) -> list[LateEvent]:
    """The first ones, by when they were seen, then by position, of which a shorter one has the smaller number.

    Raises StoreError.
    """
    where, parameters = filter.where()
    times = (_MICROS.format(f"late.{name}") for name in ("event_time", "watermark"))
    found = client.rows(
        f"SELECT {_MICROS.format('late.seen_at')} AS seen_us, late.source_position, toString(late.source), late.id, "
        f"{', '.join(times)}, base64Encode(late.payload), "
        "if(decided.decision = '', 'waiting', toString(decided.decision)) AS state, decided.counted, decided.author, "
        "decided.reason, decided.file "
        "FROM late_events AS late LEFT JOIN late_resolutions AS decided "
        "ON decided.seen_at = late.seen_at AND decided.source_position = late.source_position "
        f"WHERE {where} ORDER BY seen_us, length(late.source_position), late.source_position LIMIT {{limit:UInt64}} "
        "SETTINGS join_use_nulls = 0",
        {**parameters, "limit": limit},
    )
    return [LateEvent(*(*row[:6], base64.b64decode(row[6]), *row[7:])) for row in found]


def billed_payloads(client: StoreClient, ids: Collection[str]) -> dict[tuple[str, str], bytes]:
    """Of late events with one of these ids that were billed already: their payloads by source and id.

    Raises StoreError.
    """
    found = client.rows(
        "SELECT toString(late.source), late.id, base64Encode(late.payload) "
        "FROM late_events AS late INNER JOIN late_resolutions AS decided "
        "ON decided.seen_at = late.seen_at AND decided.source_position = late.source_position "
        "WHERE decided.decision = 'billed' AND has({ids:Array(String)}, late.id)",
        {"ids": sorted(ids)},
    )
    return {(source, id_): base64.b64decode(payload) for source, id_, payload in found}
