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

from ..errors import OverflowStop
from ..kernels import SLOTS
from ..schema import PER_OF_ALL, meter_and_per
from .combine import TableRows, table_rows
from .wide import as_halves, as_integers, halves, is_not_zero, picked, sums_at, total

ROWS_PER_TABLE_MAX = 1_000_000
_NAME_BITS = 24
_NAMES = (1 << _NAME_BITS) - 1
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
    """The rest of each amount in 10^-15 / PER_OF_ALL, an array of Python integers; None: there is none at all."""

    @property
    def rows(self) -> int:
        return len(self.customer)

    def amount_femto(self) -> int | Fraction:
        """All amounts together."""
        whole = total(self.amount)
        return whole if self.remainder is None else whole + Fraction(int(self.remainder.sum()), PER_OF_ALL)

    def coarser(self, window_start_s: Any) -> "Corrections":
        """The same by other windows, which are told for each row and do not descend within a customer."""
        begins = _changes(self.customer, window_start_s)
        code = (np.cumsum(begins) - 1) * max(len(self.meters), 1) + self.meter
        order = np.argsort(code, kind="stable")
        firsts = np.flatnonzero(_changes(code[order]))
        amount, remainder = sums_at(picked(self.amount, order), firsts), self.remainder
        if remainder is not None:
            sums = as_integers(amount) * PER_OF_ALL + np.add.reduceat(remainder[order], firsts)
            amount, remainder = as_halves(sums // PER_OF_ALL), sums % PER_OF_ALL
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
        remainder = np.zeros_like(self.amount) if self.remainder is None else as_halves(self.remainder)
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
        self._names: list[str] = []
        self._groups = 0
        self._last: tuple[int, int] | None = None
        # of each group: the customer's number, the window
        self._customer: list[Any] = [np.zeros(0, np.int32)]
        self._window_start_s: list[Any] = [np.zeros(0, np.uint32)]
        # of each slot that has something: group << _NAME_BITS | its name's number, and the amount or the quantity
        self._amount_code: list[Any] = [np.zeros(0, np.int64)]
        self._amount: list[Any] = [_NONE]
        self._unpriced_code: list[Any] = [np.zeros(0, np.int64)]
        self._unpriced: list[Any] = [_NONE]

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows of a rollup."""
        rows, masks, has_quantities = batch.num_rows, batch.column("unpriced").to_numpy(), "q0" in batch.schema.names
        group, names = self._number_groups(batch) << _NAME_BITS, self._numbers(batch.column("meters"))
        for slot in range(SLOTS):
            code, amounts = group | names[slot], halves(batch.column(f"a{slot}").buffers()[1], rows)
            chosen = np.flatnonzero(is_not_zero(amounts))
            self._amount_code.append(code[chosen])
            self._amount.append(picked(amounts, chosen))
            if has_quantities:
                quantities = halves(batch.column(f"q{slot}").buffers()[1], rows)
                unpriced = np.flatnonzero((masks >> slot & 1).astype(bool) & is_not_zero(quantities))
                self._unpriced_code.append(code[unpriced])
                self._unpriced.append(picked(quantities, unpriced))

    def _numbers(self, meters: pa.DictionaryArray) -> list[Any]:
        """Of each slot, the numbers of the names that rows have there; names are the same for the whole block."""
        of_code = [text.split(",") for text in meters.dictionary.to_pylist()]
        self._names = sorted({name for names in of_code for name in names})
        if len(self._names) > 1 << _NAME_BITS:
            raise OverflowStop(f"rerate: a block has {len(self._names)} meters, more than {1 << _NAME_BITS}")
        places = {name: n for n, name in enumerate(self._names)}
        codes = meters.indices.to_numpy()
        return [np.array([places[names[slot]] for names in of_code], np.int64)[codes] for slot in range(SLOTS)]

    def _number_groups(self, batch: pa.RecordBatch) -> Any:
        """The number of each row's (customer, window), which stand together."""
        customer = batch.column("customer").indices.to_numpy().astype(np.int32)
        window = batch.column("window_start").to_numpy()
        self._customers = batch.column("customer").dictionary  # the same for the whole block
        begins = _changes(customer, window)
        begins[0] = self._last != (customer[0], window[0])
        group = self._groups + np.cumsum(begins) - 1
        firsts = np.flatnonzero(begins)
        self._customer.append(customer[firsts])
        self._window_start_s.append(window[firsts])
        self._groups += len(firsts)
        self._last = int(customer[-1]), int(window[-1])
        return group

    def cut(self) -> Corrections:
        """What was added, without what adds up to nothing, and begins anew."""
        told = [meter_and_per(name) for name in self._names]
        meters = list(dict.fromkeys(meter for meter, _ in told))  # as sorted as the names
        code, amount, unpriced = self._entries()
        name = code & _NAMES
        remainder, exact = None, any(per > 1 for _, per in told) and len(code) > 0
        if exact:
            weights = np.array([PER_OF_ALL // per for _, per in told], object)
            parts = as_integers(amount) * weights[name]
            code = code - name + np.array([meters.index(meter) for meter, _ in told], np.int64)[name]
        order = np.argsort(code, kind="stable")  # a few runs in order
        code = code[order]
        starts = np.flatnonzero(_changes(code))
        code = code[starts]
        if exact:
            parts = np.add.reduceat(parts[order], starts)
            amount, remainder = as_halves(parts // PER_OF_ALL), parts % PER_OF_ALL
        else:
            amount = sums_at(picked(amount, order), starts)
        unpriced = np.zeros_like(amount) if unpriced is None else sums_at(picked(unpriced, order), starts)
        differ = is_not_zero(amount) | is_not_zero(unpriced)
        kept = np.flatnonzero(differ if remainder is None else differ | (remainder != 0))
        group = code[kept] >> _NAME_BITS
        found = Corrections(
            self._customers,
            meters,
            np.concatenate(self._customer)[group],
            np.concatenate(self._window_start_s)[group],
            (code[kept] & _NAMES).astype(np.int32),
            picked(unpriced, kept),
            picked(amount, kept),
            None if remainder is None else remainder[kept],
        )
        self._begin()
        return found

    def units(self) -> int:
        """The sum of all amounts so far, each in the unit that its meter's name in the rollups tells."""
        return sum(total(amount) for amount in self._amount)

    def _entries(self) -> tuple[Any, Any, Any]:
        """Codes with amounts and unpriced quantities; None: there are none of the latter."""
        code, amount = np.concatenate(self._amount_code), np.concatenate(self._amount)
        unpriced = np.concatenate(self._unpriced)
        if not len(unpriced):
            return code, amount, None
        codes = np.concatenate([code, *self._unpriced_code])
        return (
            codes,
            np.concatenate([amount, np.zeros_like(unpriced)]),
            np.concatenate([np.zeros_like(amount), unpriced]),
        )


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
