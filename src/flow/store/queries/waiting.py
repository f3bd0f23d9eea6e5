"""A customer's events that are in no amount yet: rejected ones that may go back, and late ones."""

from collections import Counter
from dataclasses import dataclass, field

from ..client import StoreClient

PAYLOADS_MAX = 10_000
"""Payloads that are read to be rated; beyond, events are only counted."""

_SUBJECT = "JSONExtractString(payload, 'subject')"
_OF_CUSTOMER = f"if({_SUBJECT} != '', {_SUBJECT}, JSONExtractString(payload, 'customer')) AS named"
_TIME = "parseDateTime64BestEffortOrNull(JSONExtractString(payload, 'time'), 6, 'UTC') AS at"
_WAITING = "status IN ('open', 'fixed', 'waiting')"
"""What went back in has become an event, or another rejected one."""
_UNDECIDED = (
    "(seen_at, source_position) NOT IN (SELECT seen_at, source_position FROM late_resolutions "
    "WHERE decision != 'billed' OR file IN (SELECT file FROM inbox_events))"
)
_IN_PERIOD = "(at >= toDateTime({start_s:UInt32}, 'UTC') AND at < toDateTime({end_s:UInt32}, 'UTC'))"


@dataclass(slots=True)
class Waiting:
    """Events of one kind."""

    events: Counter[str] = field(default_factory=Counter)
    """By reason."""
    payloads: list[str] = field(default_factory=list)
    """Of the first PAYLOADS_MAX."""


def rejected_waiting(client: StoreClient, customer: str, start_s: int, end_s: int) -> Waiting:
    """Rejected events that name the customer, and a time in the period or none that can be read. Raises StoreError."""
    return _waiting(
        client, f"rejected_outcomes WHERE {_WAITING}", "toString(reason)", "isNull(at)", (customer, start_s, end_s)
    )


def late_waiting(client: StoreClient, customer: str, start_s: int, end_s: int) -> Waiting:
    """Late events of the customer and the period that nobody has decided on, or that wait in the inbox.

    Raises StoreError.
    """
    return _waiting(client, f"late_events WHERE {_UNDECIDED}", "''", "0", (customer, start_s, end_s))


def rejected_of_nobody(client: StoreClient, start_s: int, end_s: int) -> int:
    """Rejected events that name no customer which could be read, seen in the period. Raises StoreError."""
    ((count,),) = client.rows(
        f"SELECT count() FROM (SELECT {_OF_CUSTOMER} FROM rejected_outcomes "
        f"WHERE {_WAITING} AND seen_at >= toDateTime({{start_s:UInt32}}, 'UTC') "
        "AND seen_at < toDateTime({end_s:UInt32}, 'UTC')) WHERE named = ''",
        {"start_s": start_s, "end_s": end_s},
    )
    return int(count)


def _waiting(client: StoreClient, source: str, reason: str, also: str, asked: tuple[str, int, int]) -> Waiting:
    parameters = {"customer": asked[0], "start_s": asked[1], "end_s": asked[2]}
    rows = (
        f"FROM (SELECT payload, {reason} AS why, {_OF_CUSTOMER}, {_TIME} FROM {source}) "
        f"WHERE named = {{customer:String}} AND ({_IN_PERIOD} OR {also})"
    )
    counted = client.rows(f"SELECT why, count() {rows} GROUP BY why", parameters)
    payloads = client.rows(f"SELECT toValidUTF8(payload) {rows} LIMIT {PAYLOADS_MAX}", parameters) if counted else []
    return Waiting(Counter({str(why): int(count) for why, count in counted}), [str(payload) for (payload,) in payloads])
