"""Usage as columns, in plain Python."""

from collections.abc import Sequence

from .batches import PlainEvent

Columns = list[list[int | None]]
Lists = list[list[tuple[str, int]]]


def spread(events: Sequence[PlainEvent], meters: Sequence[str]) -> tuple[Columns, Lists]:
    """The quantities of each meter, event by event, and for each event what is left."""
    usages = [dict(event["usage"]) for event in events]
    columns = [[usage.get(meter) for usage in usages] for meter in meters]
    left = [[item for item in event["usage"] if item[0] not in meters] for event in events]
    return columns, left
