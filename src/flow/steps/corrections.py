"""What correction deltas add up to by customer, window and meter: the rows of the table `corrections`.

An amount in the table is rounded down to 10^-15, and `amount_remainder` beside it has the rest, as in the views
`exact_usage_by_...` (docs/decisions/012-fractional-rates.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa

from ..kernels import SLOTS
from ..schema import PER_OF_ALL, meter_and_per
from .combine import TableRows, table_rows
from .wide import as_halves, as_integers, halves, is_not_zero, sums_at, total

ROWS_PER_TABLE_MAX = 1_000_000


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
    """10^-15 currency units, rounded down."""
    remainder: Any
    """The rest of each amount in 10^-15 / PER_OF_ALL, an array of Python integers; None: there is none at all."""
    rollup_amount: int
    """What the amounts of the deltas add up to, each in the unit that its meter's name in the rollups tells."""

    @property
    def rows(self) -> int:
        return len(self.customer)

    def amount_femto(self) -> int | Fraction:
        """All amounts together."""
        whole = total(self.amount)
        return whole if self.remainder is None else whole + Fraction(int(self.remainder.sum()), PER_OF_ALL)

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

    def coarser(self, window_start_s: Any) -> "Corrections":
        """The same by other windows, which are told for each row and do not descend within a customer."""
        begins = _changes(self.customer, window_start_s)
        group = np.cumsum(begins) - 1
        firsts = np.flatnonzero(begins)
        sums = _Sums(group, self.meter, len(self.meters), self.unpriced_quantity, self.amount, self.remainder)
        if sums.remainder is not None:
            whole = as_integers(sums.amount) + sums.remainder // PER_OF_ALL
            sums.amount, sums.remainder = as_halves(whole), sums.remainder % PER_OF_ALL
        return Corrections(
            self.customers,
            self.meters,
            self.customer[firsts][sums.group],
            window_start_s[firsts][sums.group],
            sums.meter,
            sums.unpriced_quantity,
            sums.amount,
            sums.remainder,
            self.rollup_amount,
        )


class CorrectionSums:
    """Adds up the minute rows of one block, which come in the store's order."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._names: dict[str, int] = {}
        self._customers = pa.array([], pa.string())
        self._groups = 0
        self._last: tuple[int, int] | None = None
        # of each group: the customer's number, the window
        self._customer: list[Any] = []
        self._window_start_s: list[Any] = []
        # of each slot that has something
        self._group: list[Any] = []
        self._meter: list[Any] = []
        self._unpriced: list[Any] = []
        self._amount: list[Any] = []

    def add(self, batch: pa.RecordBatch) -> None:
        """Adds rows of `rollup_minute`."""
        rows, meters, unpriced = batch.num_rows, batch.column("meters"), batch.column("unpriced").to_numpy()
        names = [text.split(",") for text in meters.dictionary.to_pylist()]
        numbers = np.array(
            [[self._names.setdefault(name, len(self._names)) for name in of_row] for of_row in names], np.int32
        )
        codes = meters.indices.to_numpy()
        group = self._number_groups(batch)
        for slot in range(SLOTS):
            amounts = halves(batch.column(f"a{slot}").buffers()[1], rows)
            quantities = halves(batch.column(f"q{slot}").buffers()[1], rows)
            is_unpriced = (unpriced >> slot & 1).astype(bool)
            chosen = np.flatnonzero(is_not_zero(amounts) | (is_unpriced & is_not_zero(quantities)))
            self._group.append(group[chosen])
            self._meter.append(numbers[codes[chosen], slot])
            self._unpriced.append(np.where(is_unpriced[chosen, None], quantities[chosen], np.uint64(0)))
            self._amount.append(amounts[chosen])

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
        """What was added, and begins anew; rows that add up to nothing are left out."""
        names = list(self._names)
        by_slot = _Sums(
            np.concatenate(self._group or [np.zeros(0, np.int64)]),
            np.concatenate(self._meter or [np.zeros(0, np.int32)]),
            len(names),
            np.concatenate(self._unpriced or [np.zeros((0, 2), np.uint64)]),
            np.concatenate(self._amount or [np.zeros((0, 2), np.uint64)]),
        )
        rollup_amount = total(by_slot.amount)
        meters = sorted({meter_and_per(name)[0] for name in names})
        sums = _by_meter(by_slot, names, meters)
        kept = np.flatnonzero(sums.differ())
        group = sums.group[kept]
        customer, window = (
            np.concatenate(parts or [np.zeros(0, kind)])[group]
            for parts, kind in ((self._customer, np.int32), (self._window_start_s, np.uint32))
        )
        found = Corrections(
            self._customers,
            meters,
            customer,
            window,
            sums.meter[kept],
            sums.unpriced_quantity[kept],
            sums.amount[kept],
            None if sums.remainder is None else sums.remainder[kept],
            rollup_amount,
        )
        self._begin()
        return found


class _Sums:
    """Numbers added up by group and meter, in this order."""

    def __init__(
        self, group: Any, meter: Any, meters: int, unpriced_quantity: Any, amount: Any, remainder: Any = None
    ) -> None:
        code = group * max(meters, 1) + meter
        order = np.argsort(code, kind="stable")  # a few runs that ascend: quick
        code = code[order]
        starts = np.flatnonzero(_changes(code))
        self.group, self.meter = np.divmod(code[starts], max(meters, 1))
        self.meter = self.meter.astype(np.int32)
        self.unpriced_quantity: Any = sums_at(unpriced_quantity[order], starts)
        self.amount: Any = sums_at(amount[order], starts)
        self.remainder: Any = remainder if remainder is None else np.add.reduceat(remainder[order], starts)

    def differ(self) -> Any:
        """Which rows are not 0."""
        found = is_not_zero(self.unpriced_quantity) | is_not_zero(self.amount)
        return found if self.remainder is None else found | (self.remainder != 0)


def _by_meter(sums: _Sums, names: Sequence[str], meters: Sequence[str]) -> _Sums:
    """Sums of meters as the rollups name them, by their own names, which are sorted; amounts rounded down to 10^-15,
    with their remainders."""
    told = [meter_and_per(name) for name in names]
    plain = np.array([meters.index(meter) for meter, _ in told], np.int32)
    meter = plain[sums.meter]
    if not len(meter) or all(per == 1 for _, per in told):
        return _Sums(sums.group, meter, len(meters), sums.unpriced_quantity, sums.amount)
    weights = np.array([PER_OF_ALL // per for _, per in told], object)
    parts = as_integers(sums.amount) * weights[sums.meter]
    found = _Sums(sums.group, meter, len(meters), sums.unpriced_quantity, np.zeros_like(sums.amount), parts)
    found.amount, found.remainder = as_halves(found.remainder // PER_OF_ALL), found.remainder % PER_OF_ALL
    return found


def _changes(*columns: Any) -> Any:
    """Whether each row differs from the one before; the first does."""
    begins = np.ones(len(columns[0]), bool)
    begins[1:] = False
    for column in columns:
        begins[1:] |= column[1:] != column[:-1]
    return begins


def correction_rows(found: Corrections, said: dict[str, Any]) -> Iterator[tuple[str, TableRows]]:
    """Rows of the table `corrections`; `said`: the columns that are the same in all of them."""
    whole = found.table()
    for first in range(0, found.rows, ROWS_PER_TABLE_MAX):
        table = whole.slice(first, ROWS_PER_TABLE_MAX).combine_chunks()
        columns = {name: pa.repeat(pa.scalar(value), table.num_rows) for name, value in said.items()}
        columns |= {name: table[name].combine_chunks() for name in table.column_names}
        columns["corrects"] = pa.repeat(pa.scalar(""), table.num_rows)
        columns["quantity"] = _column(np.zeros((table.num_rows, 2), np.uint64), pa.binary(16))
        yield "corrections", table_rows(pa.table(columns))


def _column(numbers: Any, kind: pa.DataType) -> pa.Array:
    return pa.Array.from_buffers(kind, len(numbers), [None, pa.py_buffer(np.ascontiguousarray(numbers))])
