"""What events would do to a bill, before they are put into the inbox: by the decoder and the rater of a run."""

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from ..config import Config
from ..errors import EventError
from ..job import event_limits
from ..kernels import Verdicts
from ..prices.book import PriceBook
from ..schema import PER_OF_ALL
from ..steps.amend import Change
from ..steps.batches import Decoded, Lines
from ..steps.combine import changes_of
from ..steps.decode import decode
from ..steps.deduplicate import Judged
from ..steps.rate import Rater
from ..steps.route import route


class Effect(NamedTuple):
    """By how much a meter of a customer's window changes."""

    customer: str
    window_start_s: int
    meter: str
    quantity: int
    unpriced_quantity: int
    amount_femto: Fraction


def changes(config: Config, book: PriceBook, lines: bytes, now_us: int, *, late: bool = False) -> list[Change]:
    """What each of these events would change, meter by meter, by the prices in force at its time.

    Raises EventError for what a run would reject, OverflowStop.
    """
    decoded = decode(Lines("inbox", 0, lines, late=late), event_limits(config, book), now_us)
    if decoded.rejected.num_rows:
        first = decoded.rejected.to_pylist()[0]
        raise EventError(f"a run would reject this: {first['reason']}: {first['detail']}")
    rater = Rater(book)
    return [
        change
        for part in decoded.parts
        if part.amends is not None
        for judged in _accepted(part)
        for change in changes_of(rater.rate(judged))
    ]


def _accepted(part: Decoded) -> Iterator[Judged]:
    for routed in route(part, 1):
        rows = pa.py_buffer(np.arange(routed.count, dtype=np.uint32))
        nothing = pa.py_buffer(b"")
        yield Judged(routed, Verdicts(rows, routed.count, 0, nothing, 0, nothing, 0), 0)


def added_up(found: Sequence[Change], window_s: int) -> list[Effect]:
    """By customer, window of so many seconds and meter."""
    sums: dict[tuple[str, int, str], tuple[int, int, Fraction]] = {}
    for change in found:
        key = change.customer, change.window_start - change.window_start % window_s, change.meter
        quantity, unpriced, amount = sums.get(key, (0, 0, Fraction(0)))
        amount += change.amount_femto + Fraction(change.amount_remainder, PER_OF_ALL)
        sums[key] = quantity + change.quantity, unpriced + change.unpriced_quantity, amount
    return [Effect(*key, *numbers) for key, numbers in sorted(sums.items())]
