"""Which accepted events fail which rules: the rows of `flagged_events`."""

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from .batches import source_positions
from .canonical import instant
from .deduplicate import Judged


def flag_rows(judged: Judged) -> Iterator[dict[str, Any]]:
    """The rows, but for `seen_at`, of a batch: one for each rule that an accepted event fails."""
    routed, (rows, count) = judged.routed, judged.accepted
    if routed.flags is None or not count:
        return
    accepted = pa.Array.from_buffers(pa.uint32(), count, [None, rows])
    flags = routed.flags.filter(pc.is_in(routed.flags.column("row"), value_set=accepted))
    events = routed.events.take(flags.column("row"))
    columns = {
        "source_position": source_positions(routed.origin, events.column("position"), routed.messages),
        **{name: flags.column(name) for name in ("rule", "severity", "detail")},
        **{name: events.column(name) for name in ("customer", "source", "id")},
    }
    for row, time_us in zip(pa.table(columns).to_pylist(), events.column("event_time_us").to_pylist(), strict=True):
        yield {**row, "event_time": instant(time_us)}
