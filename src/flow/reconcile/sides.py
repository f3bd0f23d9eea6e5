"""What a source of usage is asked, be it a store or a gateway's log."""

from typing import Protocol

import pyarrow as pa

from ..schema import EVENTS
from ..steps.amend import identify_amending
from ..steps.batches import Amends
from .asked import Scope
from .buckets import Buckets, Ints

Quantities = dict[tuple[str, str], int]
"""By customer and meter; `requests` is among the meters."""

EVENT_ROWS = pa.schema(
    [
        *EVENTS,
        pa.field("source_position", pa.string(), nullable=False),
        pa.field("fingerprint", pa.binary(16), nullable=False),
        pa.field("payload", pa.binary(16), nullable=False),  # its hash
    ]
)
"""Events that are to be compared one by one."""


class Side(Protocol):
    """One of the two."""

    label: str

    def buckets(self, grain: str, scope: Scope) -> Buckets:
        """Events and digests by customer and window of the grain, of the scope at least. Raises StoreError."""

    def quantities(self, scope: Scope) -> Quantities:
        """What was used in the scope. Raises StoreError."""

    def events(self, minutes: Ints) -> pa.Table | None:
        """EVENT_ROWS of the events in the minutes with these keys; None where events are not kept.

        Raises RefusedStart, SourceError, StateError.
        """


def event_rows(events: pa.RecordBatch, positions: pa.Array, amends: Amends | None = None) -> pa.RecordBatch:
    """EVENTS, with where they come from, as EVENT_ROWS."""
    identity = identify_amending(events, amends)
    hashes = [
        pa.Array.from_buffers(pa.binary(16), events.num_rows, [None, buffer])
        for buffer in (identity.fingerprint, identity.payload)
    ]
    return pa.RecordBatch.from_arrays([*events.columns, positions, *hashes], schema=EVENT_ROWS)
