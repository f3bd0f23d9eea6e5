"""Events that stand in a log with two payloads: which of them the store has not set aside as well."""

import pyarrow as pa

from ..steps.amend import identify_amending
from ..steps.batches import Limits, Lines
from ..steps.decode import decode
from ..store.queries.buckets import conflicting_payloads
from .from_log import LogSide
from .from_store import StoreSide, in_parts
from .naming import EventDifference, Kind, Unequal, pair
from .report import SHOWN_MAX
from .sides import EVENT_ROWS

Pair = tuple[bytes, bytes]
"""A fingerprint and the hash of a payload."""


def conflicts_there(
    here: StoreSide, log: LogSide, named: Unequal | None, limits: Limits, now_us: int
) -> tuple[int, list[EventDifference]]:
    """How many the store does not know, and the first of them.

    `named`: what differs otherwise; what the store has counted may be what stands second in the log. Raises StoreError,
    SourceError.
    """
    rows = pa.Table.from_batches(log.conflicts, EVENT_ROWS)
    known = _set_aside(here, rows, limits, now_us)
    if named is not None:
        known |= set(_pairs(named.here))
    unknown = rows.filter(pa.array([one not in known for one in _pairs(rows)], pa.bool_()))
    shown = unknown.slice(0, SHOWN_MAX)
    counted = log.counted(shown.column("fingerprint").combine_chunks()) if shown.num_rows else shown
    firsts = {row["fingerprint"]: row for row in counted.to_pylist()}
    events = [
        # One whose first is outside of the scope has nothing to be held against but itself.
        pair(Kind.CONFLICTING, firsts.get(row["fingerprint"], row), row, "stands there twice; the first was counted")
        for row in shown.to_pylist()
    ]
    return unknown.num_rows, events


def _pairs(rows: pa.Table) -> list[Pair]:
    return list(zip(rows.column("fingerprint").to_pylist(), rows.column("payload").to_pylist(), strict=True))


def _set_aside(here: StoreSide, rows: pa.Table, limits: Limits, now_us: int) -> set[Pair]:
    """Those that the store has in `conflicting_events`."""
    fingerprints = [int.from_bytes(one, "little") for one in rows.column("fingerprint").unique().to_pylist()]
    with here.open() as client:
        payloads = [one for part in in_parts(fingerprints) for one in conflicting_payloads(client, part)]
    decoded = decode(Lines(here.label, 0, b"".join(line + b"\n" for line in payloads)), limits, now_us)
    found: set[Pair] = set()
    for part in decoded.parts:
        identity = identify_amending(part.events, part.amends)
        halves = [
            pa.Array.from_buffers(pa.binary(16), part.events.num_rows, [None, buffer]).to_pylist()
            for buffer in (identity.fingerprint, identity.payload)
        ]
        found |= set(zip(*halves, strict=True))
    return found
