"""Correction deltas cut into blocks, and what they add up to."""

import threading
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from ..sinks.outbox import Outbox
from ..steps.combine import Tables
from ..steps.correct import Corrected, Corrector
from ..steps.corrections import correction_rows
from ..store.queries.view_rows import exact_femto

BLOCK_ROWS = 1 << 19
"""Rows of minutes in a block: some 300 bytes of memory each."""
_MERGE_ROWS = 1_000_000
_KEYS = ["customer", "window_start", "meter"]
_NUMBERS = ["unpriced_quantity", "amount", "amount_remainder"]


class Difference(NamedTuple):
    """By how much a meter of a customer's window changes."""

    customer: str
    window_start_s: int
    meter: str
    unpriced_quantity: int
    amount_femto: int | Fraction


class Differences:
    """The blocks of a re-rating, from any number of threads; without an outbox, only what they would add up to."""

    def __init__(self, outbox: Outbox | None, said: dict[str, Any], grain: str) -> None:
        """`said`: the columns of `corrections` that are alike in all rows. `grain`: the windows that are shown."""
        self.blocks = 0
        self.amount_femto: int | Fraction = 0
        self.rollup_amount = 0
        """The sum of all amounts of the deltas, each in the unit that its meter's name in the rollups tells."""
        self.corrections = 0
        """Rows of the table `corrections`."""
        self.deltas = 0
        """Rows of the rollups; with none of them nothing differs."""
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
        found = corrector.corrected()
        self._add(found)
        yield from correction_rows(found.minutes, {**self._said, "book_before": book_before})

    def _add(self, found: Corrected) -> None:
        shown = found.days if self._grain in ("day", "month") else found.minutes
        if self._grain in ("hour", "month"):
            shown = shown.coarser(_starts(shown.window_start_s, self._grain))
        table = _summable(shown.table())
        with self._lock:
            self.amount_femto += found.days.amount_femto()
            self.rollup_amount += found.rollup_amount
            self.corrections += found.minutes.rows
            self.deltas += found.deltas
            self._found.append(table)
            self._rows += table.num_rows
            if self._rows > _MERGE_ROWS:
                self._found = [_added_up(pa.concat_tables(self._found))]
                self._rows = 2 * self._found[0].num_rows - _MERGE_ROWS

    def rows(self) -> list[Difference]:
        """By customer, window and meter, in this order; what adds up to nothing is left out."""
        if not self._found:
            return []
        found = _added_up(pa.concat_tables(self._found)).sort_by([(name, "ascending") for name in _KEYS])
        columns = (found[name].to_pylist() for name in (*_KEYS, *_NUMBERS))
        rows = [
            Difference(customer, start_s, meter, int(unpriced), exact_femto(int(amount), int(remainder)))
            for customer, start_s, meter, unpriced, amount, remainder in zip(*columns, strict=True)
        ]
        return [row for row in rows if row.unpriced_quantity or row.amount_femto]


def _summable(corrections: pa.Table) -> pa.Table:
    """Numbers with room for their sums."""
    for name in _NUMBERS:
        column = corrections[name].combine_chunks()
        number = pa.Array.from_buffers(pa.decimal128(38, 0), len(column), column.buffers())
        corrections = corrections.set_column(
            corrections.schema.get_field_index(name), name, number.cast(pa.decimal256(76, 0))
        )
    for name in ("customer", "meter"):
        text = corrections[name].cast(pa.string())  # blocks number their texts each in its own way
        corrections = corrections.set_column(corrections.schema.get_field_index(name), name, text)
    return corrections


def _added_up(found: pa.Table) -> pa.Table:
    """One row for each of the keys."""
    added = found.group_by(_KEYS, use_threads=False).aggregate([(name, "sum") for name in _NUMBERS])
    return added.select([*_KEYS, *(f"{name}_sum" for name in _NUMBERS)]).rename_columns([*_KEYS, *_NUMBERS])


def _starts(starts_s: Any, grain: str) -> Any:
    """The start, in seconds, of the hour or month that each smaller window is in."""
    if grain == "month":
        return starts_s.astype("datetime64[s]").astype("datetime64[M]").astype("datetime64[s]").astype(np.uint32)
    return starts_s - starts_s % np.uint32(3600)


def instant(time_us: int) -> datetime:
    """A datetime, to the microsecond."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
