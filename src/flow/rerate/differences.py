"""Correction deltas cut into blocks, and what they add up to."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..sinks.outbox import Outbox
from ..steps.combine import Tables
from ..steps.correct import Corrector, added_up, correction_rows

BLOCK_ROWS = 1 << 19
"""Rows that differ, in a block: some 300 bytes of memory each."""
_MERGE_ROWS = 1_000_000


class Difference(NamedTuple):
    """By how much a meter of a customer's window changes."""

    customer: str
    window_start_s: int
    meter: str
    unpriced_quantity: int
    amount_femto: int


class Differences:
    """The blocks of a re-rating, from any number of threads; without an outbox, only what they would add up to."""

    def __init__(self, outbox: Outbox | None, said: dict[str, Any], grain: str) -> None:
        """`said`: the columns of `corrections` that are alike in all rows. `grain`: the windows that are shown."""
        self.blocks = 0
        self.amount_femto = 0
        self.corrections = 0
        """Rows of the table `corrections`."""
        self._outbox = outbox
        self._said = said
        self._grain = grain
        self._found: list[pa.Table] = []
        self._rows = 0
        self._lock = threading.Lock()

    def cut_if_full(self, corrector: Corrector, book_before: str) -> None:
        """`cut` once there is much in it."""
        if corrector.rows >= BLOCK_ROWS:
            self.cut(corrector, book_before)

    def cut(self, corrector: Corrector, book_before: str) -> None:
        """Cuts the block of a corrector, if anything is in it. Raises OverflowStop, StateError."""
        if not corrector.rows:
            return
        tables = self._tables(corrector, book_before)
        if self._outbox is None:
            for _, rows in tables:
                for _ in rows.batches:
                    pass
            return
        with self._lock:
            self.blocks += 1
            number = self.blocks
        self._outbox.cut(number, tables)

    def _tables(self, corrector: Corrector, book_before: str) -> Tables:
        yield from corrector.cut()
        found = corrector.differences()
        self._add(found)
        yield from correction_rows(found, {**self._said, "book_before": book_before})

    def _add(self, found: pa.Table) -> None:
        shown = _starts(found["window_start"].to_numpy(), self._grain)
        amount = int(pc.sum(found["amount"]).as_py() or 0)
        coarser = added_up(found.set_column(1, "window_start", pa.array(shown, pa.uint32())))
        with self._lock:
            self.amount_femto += amount
            self.corrections += found.num_rows
            self._found.append(coarser)
            self._rows += coarser.num_rows
            if self._rows > _MERGE_ROWS:
                self._found = [added_up(pa.concat_tables(self._found))]
                self._rows = 2 * self._found[0].num_rows - _MERGE_ROWS

    def rows(self) -> list[Difference]:
        """By customer, window and meter, in this order; what adds up to nothing is left out."""
        if not self._found:
            return []
        found = added_up(pa.concat_tables(self._found)).sort_by(
            [(name, "ascending") for name in ("customer", "window_start", "meter")]
        )
        return [Difference(*row) for row in _plain(found)]


def _starts(minutes: Any, grain: str) -> Any:
    """The start, in seconds, of the window that each minute is in."""
    if grain == "month":
        return minutes.astype("datetime64[s]").astype("datetime64[M]").astype("datetime64[s]").astype(np.uint32)
    return minutes - minutes % np.uint32({"minute": 60, "hour": 3600, "day": 86_400}[grain])


def _plain(found: pa.Table) -> Iterator[tuple[Any, ...]]:
    texts = (found[name].to_pylist() for name in ("customer", "window_start", "meter"))
    numbers = ([int(value) for value in found[name].to_pylist()] for name in ("unpriced_quantity", "amount"))
    return zip(*texts, *numbers, strict=True)


def instant(time_us: int) -> datetime:
    """A datetime, to the microsecond."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
