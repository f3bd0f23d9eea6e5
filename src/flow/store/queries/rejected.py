"""Rejected events, and what has become of them since: the view `rejected_outcomes`, by any filter."""

import base64
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from ..client import StoreClient

STATUSES = ("open", "fixed", "waiting", "accepted", "duplicate", "conflicting", "late", "rejected")
WAY_BACK_OPEN = ("open", "fixed")
"""Statuses of events that can go back."""

_DETAIL_CHARACTERS = 500
_MICROS = "toUnixTimestamp64Micro({})"


@dataclass(frozen=True, slots=True)
class Filter:
    """Which rejected events are meant; what is empty or None leaves all."""

    reasons: tuple[str, ...] = ()
    prefix: str = ""
    """How their source position begins."""
    position: str | None = None
    """Their source position."""
    from_us: int | None = None
    """They were seen in [from_us, before_us)."""
    before_us: int | None = None
    text: str = ""
    """In the detail, whatever its case."""
    statuses: tuple[str, ...] = ()

    def where(self) -> tuple[str, dict[str, Any]]:
        """The condition, and its parameters."""
        given = {
            "has(splitByChar(',', {reasons:String}), reason)": ("reasons", ",".join(self.reasons)),
            "startsWith(source_position, {prefix:String})": ("prefix", self.prefix),
            "source_position = {position:String}": ("position", self.position),
            "seen_at >= fromUnixTimestamp64Micro({from_us:Int64}, 'UTC')": ("from_us", self.from_us),
            "seen_at < fromUnixTimestamp64Micro({before_us:Int64}, 'UTC')": ("before_us", self.before_us),
            "positionCaseInsensitiveUTF8(detail, {text:String}) > 0": ("text", self.text),
            "has(splitByChar(',', {statuses:String}), status)": ("statuses", ",".join(self.statuses)),
        }
        chosen = {condition: pair for condition, pair in given.items() if pair[1] not in ("", None)}
        return " AND ".join(chosen) or "1", dict(chosen.values())


@dataclass(frozen=True, slots=True)
class Group:
    """All rejected events of one reason that a filter leaves."""

    reason: str
    events: int
    can_go_back: int
    """Those that did not yet."""
    first_seen: datetime
    last_seen: datetime
    example: str
    """A detail."""


@dataclass(frozen=True, slots=True)
class RejectedEvent:
    """One rejected event."""

    seen_at_us: int
    source_position: str
    reason: str
    detail: str
    payload_bytes: int
    status: str
    rejected_again_for: str
    inbox_position: str
    """The source position that it has come with again, or will; "" if it was not redriven."""

    @property
    def key(self) -> tuple[int, str]:
        return self.seen_at_us, self.source_position


@dataclass(frozen=True, slots=True)
class Note:
    """What somebody did with a rejected event: a fix, or its way back."""

    created_us: int
    what: str
    author: str
    reason: str
    payload: bytes


def groups(client: StoreClient, filter: Filter) -> list[Group]:
    """The most frequent reason first. Raises StoreError."""
    where, parameters = filter.where()
    found = client.rows(
        f"SELECT toString(reason), count(), countIf(has({list(WAY_BACK_OPEN)}, status)), min(seen_at), max(seen_at), "
        f"leftUTF8(toValidUTF8(any(detail)), {_DETAIL_CHARACTERS}) "
        f"FROM rejected_outcomes WHERE {where} GROUP BY reason ORDER BY count() DESC, reason",
        parameters,
    )
    return [Group(str(row[0]), int(row[1]), int(row[2]), row[3], row[4], str(row[5])) for row in found]


def by_status(client: StoreClient, filter: Filter) -> Counter[str]:
    """How many events a filter leaves of each status. Raises StoreError."""
    where, parameters = filter.where()
    found = client.rows(f"SELECT status, count() FROM rejected_outcomes WHERE {where} GROUP BY status", parameters)
    return Counter({str(status): int(count) for status, count in found})


def rejected(client: StoreClient, filter: Filter, limit: int) -> list[RejectedEvent]:
    """The first ones, by when they were seen, then by position. Raises StoreError."""
    where, parameters = filter.where()
    found = client.rows(
        f"SELECT {_MICROS.format('seen_at')} AS seen_us, source_position, toString(reason), "
        f"leftUTF8(toValidUTF8(detail), {_DETAIL_CHARACTERS}), length(payload), status, rejected_again_for, "
        "if(inbox_file = '', '', concat('inbox/', inbox_file, ':', toString(inbox_position))) "
        f"FROM rejected_outcomes WHERE {where} ORDER BY seen_us, source_position LIMIT {{limit:UInt64}}",
        {**parameters, "limit": limit},
    )
    return [RejectedEvent(*row) for row in found]


def payloads(
    client: StoreClient, filter: Filter, events: list[RejectedEvent], bytes_max: int
) -> Iterator[tuple[RejectedEvent, bytes | None, bytes | None]]:
    """(event, its payload, its last fix), in the order of `events`, which `rejected` has given for this filter.

    A payload of more than `bytes_max` is None, and so is a fix that there is not. Raises StoreError.
    """
    if not events:
        return
    where, parameters = replace(filter, statuses=()).where()
    first, last = events[0].key, events[-1].key
    seen = _MICROS.format("seen_at")
    found = client.rows(
        f"SELECT {seen}, source_position, base64Encode(if(length(payload) > {{max:UInt64}}, '', payload)), "
        "base64Encode(fixed_payload) "
        f"FROM rejected_outcomes WHERE {where} AND ({seen}, source_position) "
        "BETWEEN ({first_us:Int64}, {first:String}) AND ({last_us:Int64}, {last:String})",
        {
            **parameters,
            "max": bytes_max,
            "first_us": first[0],
            "first": first[1],
            "last_us": last[0],
            "last": last[1],
        },
    )
    of_key = {(int(row[0]), str(row[1])): row[2:] for row in found}
    for event in events:
        payload, fix = (base64.b64decode(text) for text in of_key[event.key])
        yield event, None if event.payload_bytes > bytes_max else payload, fix or None


def payload_slices(client: StoreClient, event: RejectedEvent, bytes_max: int | None = None) -> Iterator[bytes]:
    """The payload as it was rejected, or its beginning, in pieces of at most 4 MiB. Raises StoreError."""
    length = event.payload_bytes if bytes_max is None else min(event.payload_bytes, bytes_max)
    piece = 1 << 22
    for start in range(0, length, piece):
        ((text,),) = client.rows(
            "SELECT base64Encode(substring(payload, {start:UInt64}, {length:UInt64})) FROM rejected_events "
            "WHERE seen_at = fromUnixTimestamp64Micro({seen_us:Int64}, 'UTC') AND source_position = {position:String} "
            "LIMIT 1",
            {
                "start": start + 1,
                "length": min(piece, length - start),
                "seen_us": event.seen_at_us,
                "position": event.source_position,
            },
        )
        yield base64.b64decode(text)


def notes(client: StoreClient, event: RejectedEvent) -> list[Note]:
    """What was done with an event, oldest first. Raises StoreError."""
    of_event = (
        "WHERE seen_at = fromUnixTimestamp64Micro({seen_us:Int64}, 'UTC') AND source_position = {position:String}"
    )
    columns = f"{_MICROS.format('created')} AS created_us"
    found = client.rows(
        f"SELECT * FROM (SELECT {columns}, 'fixed' AS what, author, reason, base64Encode(payload) FROM rejected_fixes "
        f"{of_event} UNION ALL "
        f"SELECT {columns}, 'redriven' AS what, author, reason, base64Encode(payload) FROM redrives {of_event}) "
        "ORDER BY created_us",
        {"seen_us": event.seen_at_us, "position": event.source_position},
    )
    return [Note(int(row[0]), row[1], row[2], row[3], base64.b64decode(row[4])) for row in found]
