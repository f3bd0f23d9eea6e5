"""What correction deltas add up to by customer, window and meter: the rows of the table `corrections`.

An amount in the table is rounded down to 10^-15, and `amount_remainder` beside it has the rest, as in the views
`exact_usage_by_...` (docs/decisions/012-fractional-rates.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from ..kernels import SLOTS
from ..kernels.corrections import CorrectionSums as Sums
from ..kernels.corrections import SumColumns
from ..schema import PER_OF_ALL, meter_and_per
from .combine import TableRows, table_rows
from .wide import as_halves, as_integers, halves, picked, sums_at, total

ROWS_PER_TABLE_MAX = 1_000_000
_NONE = np.zeros((0, 2), np.uint64)


@dataclass(frozen=True)
class Corrections:
    """Sums, one row a customer, window and meter, in this order; 128-bit integers as in wide.py."""

    customers: pa.Array
    """What the numbers of customers stand for."""
    meters: Sequence[str]
    customer: Any
    """int32"""
    window_start_s: Any
    """uint32"""
    meter: Any
    """int32"""
    unpriced_quantity: Any
    amount: Any
    """In 10^-15 currency units, rounded down."""
    remainder: Any
    """The rest of each amount in 10^-15 / PER_OF_ALL; None: there is none at all."""

    @property
    def rows(self) -> int:
        return len(self.customer)

    def amount_femto(self) -> int | Fraction:
        """All amounts together."""
        whole = total(self.amount)
        return whole if self.remainder is None else whole + Fraction(total(self.remainder), PER_OF_ALL)

    def coarser(self, window_start_s: Any) -> "Corrections":
        """The same by other windows, which are told for each row and do not descend within a customer."""
        begins = _changes(self.customer, window_start_s)
        code = (np.cumsum(begins) - 1) * max(len(self.meters), 1) + self.meter
        order = np.argsort(code, kind="stable")
        firsts = np.flatnonzero(_changes(code[order]))
        amount, remainder = sums_at(picked(self.amount, order), firsts), self.remainder
        if remainder is not None:
            rests = np.add.reduceat(as_integers(picked(remainder, order)), firsts)
            amount, remainder = as_halves(as_integers(amount) + rests // PER_OF_ALL), as_halves(rests % PER_OF_ALL)
        return replace(
            self,
            customer=self.customer[order[firsts]],
            window_start_s=window_start_s[order[firsts]],
            meter=self.meter[order[firsts]],
            unpriced_quantity=sums_at(picked(self.unpriced_quantity, order), firsts),
            amount=amount,
            remainder=remainder,
        )

    def table(self) -> pa.Table:
        """customer, window_start (seconds), meter, unpriced_quantity, amount, amount_remainder; 16 bytes a number."""
        remainder = np.zeros_like(self.amount) if self.remainder is None else self.remainder
        return pa.table(
            {
                "customer": pa.DictionaryArray.from_arrays(pa.array(self.customer), self.customers),
                "window_start": pa.array(self.window_start_s),
                "meter": pa.DictionaryArray.from_arrays(pa.array(self.meter), pa.array(self.meters, pa.string())),
                "unpriced_quantity": _column(self.unpriced_quantity, pa.binary(16)),
                "amount": _column(self.amount, pa.decimal128(38, 15)),
                "amount_remainder": _column(remainder, pa.binary(16)),
            }
        )


class CorrectionSums:
    """Adds up the rows of one block for one of the rollups, which come in the store's order."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._customers = pa.array([], pa.string())
        self._meters: list[str] = []
        self._slot_names = pa.array([], pa.int32())
        self._sums: Sums | None = None
        self._exact = False
        self._found: list[SumColumns] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows of a rollup. Raises OverflowStop."""
        if self._sums is None:
            self._customers = batch.column("customer").dictionary  # like the meters, the same for the whole block
            self._sums = self._sums_of(batch.column("meters").dictionary.to_pylist())
        quantities = [batch.column(f"q{slot}") for slot in range(SLOTS)] if "q0" in batch.schema.names else None
        found = self._sums.add(
            batch.column("customer").indices.cast(pa.int32()),
            batch.column("window_start"),
            batch.column("meters").indices,
            self._slot_names,
            batch.column("unpriced"),
            [batch.column(f"a{slot}") for slot in range(SLOTS)],
            quantities,
        )
        self._found.append(found)

    def _sums_of(self, texts: list[str]) -> Sums:
        """`texts`: four names of meters each, with commas between."""
        of_text = [text.split(",") for text in texts]
        names = sorted({name for four in of_text for name in four}, key=meter_and_per)
        places = {name: place for place, name in enumerate(names)}
        self._slot_names = pa.array([places[name] for four in of_text for name in four], pa.int32())
        told = [meter_and_per(name) for name in names]
        self._exact = any(per > 1 for _, per in told)
        self._meters = list(dict.fromkeys(meter for meter, _ in told))
        return Sums([(self._meters.index(meter), per) for meter, per in told])

    def cut(self) -> Corrections:
        """What was added, without what adds up to nothing, and begins anew. Raises OverflowStop."""
        if self._sums is not None:
            self._found.append(self._sums.end())
        customer, window_start_s, meter = (
            np.concatenate([np.frombuffer(of[n], kind) for of in self._found] or [np.zeros(0, kind)])
            for n, kind in enumerate((np.int32, np.uint32, np.int32))
        )
        unpriced, amount, remainder = (
            np.concatenate([halves(of[n], of[n].size // 16) for of in self._found] or [_NONE]) for n in (3, 4, 5)
        )
        rest = remainder if self._exact else None
        found = Corrections(self._customers, self._meters, customer, window_start_s, meter, unpriced, amount, rest)
        self._begin()
        return found

    def units(self) -> int:
        """The sum of all amounts so far, each in the unit that its meter's name in the rollups tells."""
        return self._sums.units if self._sums is not None else 0


def correction_rows(found: Corrections, said: dict[str, Any]) -> Iterator[tuple[str, TableRows]]:
    """Rows of the table `corrections`; `said`: the columns that are the same in all of them."""
    whole = found.table()
    if found.remainder is None:
        whole = whole.drop_columns(["amount_remainder"])
    if not found.unpriced_quantity.any():
        whole = whole.drop_columns(["unpriced_quantity"])
    for first in range(0, found.rows, ROWS_PER_TABLE_MAX):
        table = whole.slice(first, ROWS_PER_TABLE_MAX).combine_chunks()
        columns = {name: _same(value, table.num_rows) for name, value in said.items()}
        columns |= {name: table[name].combine_chunks() for name in table.column_names}
        yield "corrections", table_rows(pa.table(columns))


def _same(value: Any, rows: int) -> pa.Array:
    """A column with one value: a text once, for all rows."""
    if not isinstance(value, str):
        return pa.repeat(pa.scalar(value), rows)
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([value]))


def _changes(*columns: Any) -> Any:
    """Whether each row differs from the one before; the first does."""
    begins = np.zeros(len(columns[0]), bool)
    begins[:1] = True
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def _column(numbers: Any, kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])
