"""Decode and validate: bytes or foreign columns in, EVENTS and REJECTED out. Bad input never raises.

Lines go through the native parser, those of which it is not certain through `decode_json`; columns go through
`decode_columns`.
"""

from collections.abc import Sequence

import pyarrow as pa

from ..kernels import LineParser, parsed_events
from ..schema import DIMENSIONS, EVENTS
from .amend import CORRECTION, LATE
from .batches import Amends, Columns, Decoded, Limits, Lines, Rejects, Unreadable, no_events
from .decode_columns import decode_columns
from .decode_json import TIME_END_US, Event, read_line

__all__ = ["Limits", "decode"]


def decode(item: Lines | Columns | Unreadable, limits: Limits, now_us: int) -> Decoded:
    """One source item to events and rejects, in input order; events long after `now_us` are rejected."""
    if isinstance(item, Lines):
        return _decode_lines(item, limits, now_us)
    if isinstance(item, Columns):
        return decode_columns(item, limits, now_us)
    rejected = Rejects(item.origin)
    rejected.add(item.offset, item.reason, item.detail, item.data)
    return Decoded(item.origin, no_events(), rejected.batch(), 1, 0)


def _decode_lines(item: Lines, limits: Limits, now_us: int) -> Decoded:
    parser = LineParser(
        item.data,
        item.offset,
        # Below 0 every line is handed over: those that bill late events say more than the parser keeps.
        event_bytes_max=-1 if item.late else limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_max=limits.meters_per_event_max,
        time_max_us=min(now_us + limits.clock_skew_us, TIME_END_US - 1),
    )
    rejected = Rejects(item.origin, item.messages)
    unknown_fields = 0
    amending: dict[str, list[tuple[int, Event]]] = {CORRECTION: [], LATE: []}
    while parser.run():
        line = item.data[parser.line_start : parser.line_end]
        outcome = read_line(line, limits, now_us, late=item.late)
        unknown_fields += outcome.unknown_fields
        event = outcome.event
        if event is not None and event.kind:
            amending[event.kind].append((item.offset + parser.line_start, event))
        elif event is not None:
            parser.append(
                event.id.encode(),
                event.event_time_us,
                [text.encode() for text in event.texts],
                [(meter.encode(), quantity) for meter, quantity in event.usage],
            )
        elif outcome.reason is not None:
            rejected.add(item.offset + parser.line_start, outcome.reason, outcome.detail, line)
    apart = tuple(_apart(item, kind, found) for kind, found in amending.items() if found)
    return Decoded(
        item.origin,
        parsed_events(parser),
        rejected.batch(),
        parser.read - sum(part.read for part in apart),
        parser.unknown_fields + unknown_fields,
        item.messages,
        admitted=item.admitted,
        apart=apart,
    )


def _apart(item: Lines, kind: str, found: Sequence[tuple[int, Event]]) -> Decoded:
    """The events of one kind that are no plain events, each with its position."""
    rows = [
        {
            "id": event.id,
            "event_time_us": event.event_time_us,
            **dict(zip(("source", *DIMENSIONS), event.texts, strict=True)),
            "usage": [{"meter": meter, "quantity": quantity} for meter, quantity in event.usage],
            "position": position,
        }
        for position, event in found
    ]
    amends = Amends(kind, pa.array([event.amends for _, event in found], pa.string()))
    return Decoded(
        item.origin,
        pa.RecordBatch.from_pylist(rows, schema=EVENTS),
        Rejects(item.origin).batch(),
        len(found),
        0,
        item.messages,
        amends=amends,
        admitted=item.admitted,
    )
