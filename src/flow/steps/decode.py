"""Decode and validate: bytes or foreign columns in, EVENTS and REJECTED out. Bad input never raises.

Lines go through the native parser, those of which it is not certain through `decode_json`; columns go through
`decode_columns`.
"""

from ..kernels import LineParser, parsed_events
from .batches import Columns, Decoded, Limits, Lines, Rejects, Unreadable, no_events
from .decode_columns import decode_columns
from .decode_json import TIME_END_US, read_line

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
        event_bytes_max=limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_max=limits.meters_per_event_max,
        time_max_us=min(now_us + limits.clock_skew_us, TIME_END_US - 1),
    )
    rejected = Rejects(item.origin, item.messages)
    unknown_fields = 0
    while parser.run():
        line = item.data[parser.line_start : parser.line_end]
        outcome = read_line(line, limits, now_us)
        unknown_fields += outcome.unknown_fields
        event = outcome.event
        if event is not None:
            parser.append(
                event.id.encode(),
                event.event_time_us,
                [text.encode() for text in event.texts],
                [(meter.encode(), quantity) for meter, quantity in event.usage],
            )
        elif outcome.reason is not None:
            rejected.add(item.offset + parser.line_start, outcome.reason, outcome.detail, line)
    return Decoded(
        item.origin,
        parsed_events(parser),
        rejected.batch(),
        parser.read,
        parser.unknown_fields + unknown_fields,
        item.messages,
    )
