"""Correction deltas: what usage costs more than before, and what deltas add up to; see `_core/correct.pyx`."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from _core import correct as _correct

from ..errors import OverflowStop
from ..schema import PER_OF_ALL
from . import SLOTS


class Costs(NamedTuple):
    """What the usage of a batch costs by one book."""

    amounts: pa.Buffer
    """16 bytes an item: signed, in units of 10^-15 / per."""
    per: pa.Buffer
    """int64 an item: the denominator; 0: it has no price."""
    requests: pa.Buffer
    """16 bytes a row: amounts of the implicit meter in 10^-15."""


class Differences(NamedTuple):
    """By how much costs differ."""

    amounts: pa.Buffer
    """As in Costs; 0 for an item that has moved: that has another denominator than before."""
    requests: pa.Buffer
    selection: pa.Buffer
    """uint32: the rows in which anything differs."""
    rows: int
    """How many they are."""
    moved: int
    """How many items have moved."""


def differences(rows: int, items: int, usage_offsets: pa.Buffer, before: Costs, after: Costs) -> Differences:
    """`after` less `before`, item by item of so many rows. Raises OverflowStop."""
    for costs in (before, after):
        if min(costs.amounts.size, 2 * costs.per.size) < 16 * items or costs.requests.size < 16 * rows:
            raise ValueError(f"costs of {rows} rows and {items} items are expected")
    amounts, requests, selection = (pa.allocate_buffer(size) for size in (16 * items, 16 * rows, 4 * rows))
    was, becomes = (tuple(buffer.address for buffer in costs) for costs in (before, after))
    try:
        count, moved = _correct.differences(
            rows, usage_offsets.address, was, becomes, amounts.address, requests.address, selection.address
        )
    except OverflowError as error:
        raise OverflowStop(f"rerate: {error} would not fit in 128 bits; look for an absurd price") from error
    return Differences(amounts, requests, selection, count, moved)


class SumColumns(NamedTuple):
    """Sums by customer, window and meter, in this order."""

    customer: pa.Buffer  # int32
    window_start_s: pa.Buffer  # uint32
    meter: pa.Buffer  # int32
    unpriced: pa.Buffer  # 16 bytes each, as all below
    amount: pa.Buffer
    """In 10^-15 currency units, rounded down."""
    remainder: pa.Buffer
    """The rest of each amount in 10^-15 / PER_OF_ALL."""


_WIDTHS = (4, 4, 4, 16, 16, 16)


class CorrectionSums:
    """Adds up rows of a rollup, which come in the store's order."""

    def __init__(self, names: Sequence[tuple[int, int]]) -> None:
        """`names`: (number of the meter, denominator of its amounts) of each name of a meter, by meter."""
        if any(PER_OF_ALL % per for _, per in names):
            raise ValueError(f"a denominator does not divide {PER_OF_ALL}")
        self._sums = _correct.Sums(list(names), PER_OF_ALL)
        self._names = len(names)

    @property
    def units(self) -> int:
        """The sum of all amounts so far, each in the unit of its name."""
        return self._sums.units

    def add(
        self,
        customers: pa.Int32Array,
        windows: pa.UInt32Array,
        slots: pa.Int32Array,
        slot_names: pa.Int32Array,
        unpriced: pa.UInt8Array,
        amounts: Sequence[pa.Array],
        quantities: Sequence[pa.Array] | None,
    ) -> SumColumns:
        """Adds rows; returns what the groups that end in them add up to.

        `slots`: a code a row for four of the `slot_names`, which are numbers of names; `quantities`: None where all are
        0. Raises OverflowStop.
        """
        rows = len(customers)
        columns = (customers, windows, slots, slot_names, unpriced, *amounts, *(quantities or ()))
        if any(column.offset or column.null_count for column in columns):
            raise ValueError("a kernel reads whole arrays without nulls")
        if len(amounts) != SLOTS or any(len(column) != rows for column in columns if column is not slot_names):
            raise ValueError(f"{rows} rows of {SLOTS} slots are expected")
        at = [column.buffers()[1].address for column in columns]
        if quantities is None:
            at += [0] * SLOTS
        wide = tuple(at[5 : 5 + SLOTS]), tuple(at[5 + SLOTS :])
        return self._written(
            SLOTS * rows, lambda out: self._sums.add(rows, at[0], at[1], at[2], at[3], at[4], *wide, out)
        )

    def end(self) -> SumColumns:
        """What the last group adds up to. Raises OverflowStop."""
        return self._written(0, self._sums.end)

    def _written(self, rows: int, write: Callable[[tuple[int, ...]], int]) -> SumColumns:
        """What a kernel writes, which is no more than so many rows, and one a name of a group that has begun before."""
        out = [pa.allocate_buffer(width * (rows + self._names), resizable=True) for width in _WIDTHS]
        try:
            count = write(tuple(buffer.address for buffer in out))
        except OverflowError as error:
            raise OverflowStop(f"rerate: {error} would not fit in 128 bits; look for an absurd price") from error
        for buffer, width in zip(out, _WIDTHS, strict=True):
            buffer.resize(width * count, shrink_to_fit=True)
        return SumColumns(*out)
