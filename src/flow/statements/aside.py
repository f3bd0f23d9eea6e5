"""Events that are in no amount yet, rejected or late, and what they may come to: as a run would rate them now."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..prices.book import PriceBook
from ..schema import meter_and_per
from ..steps.batches import Limits, Lines
from ..steps.decode import decode
from ..steps.rate import Rater
from ..store.queries.waiting import Waiting

_UNPRICED = 1
_FAR_US = 2**62
"""A clock by which no event is in the future."""


@dataclass(frozen=True, slots=True)
class Aside:
    """Events of one kind."""

    events: Counter[str]
    """By reason."""
    rated: int
    """How many of them can be read and have a price for all that they count."""
    amount_femto: Fraction
    """What those come to, in 10^-15 currency units."""


def set_aside(waiting: Waiting, book: Callable[[], PriceBook]) -> Aside:
    """Rates what can be read of waiting events by a price book."""
    if not waiting.payloads:
        return Aside(waiting.events, 0, Fraction(0))
    lines = [payload.strip().encode() for payload in waiting.payloads]
    text = b"".join(line + b"\n" for line in lines if line and b"\n" not in line)
    events = decode(Lines("waiting", 0, text), Limits(), _FAR_US).events
    amounts, named = Rater(book()).amounts(events, None, events.num_rows)
    usage = named.column("usage")
    bounds, meters = usage.offsets.to_pylist(), usage.values.field("meter").to_pylist()
    of_items, of_requests = memoryview(amounts.amounts), memoryview(amounts.requests)
    rated, total = 0, Fraction(0)
    for row in range(events.num_rows):
        items = range(bounds[row], bounds[row + 1])
        if any(amounts.flags[item] & _UNPRICED for item in items):
            continue
        rated += 1
        total += _wide(of_requests, row)
        total += sum(Fraction(_wide(of_items, item), meter_and_per(meters[item])[1]) for item in items)
    return Aside(waiting.events, rated, total)


def _wide(amounts: memoryview, place: int) -> int:
    return int.from_bytes(amounts[16 * place : 16 * place + 16], "little", signed=True)
