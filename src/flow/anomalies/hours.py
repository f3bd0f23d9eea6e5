"""The hours of usage that are open: sums by customer, model and denominator, from the rows that blocks leave as."""

from typing import Any

import numpy as np
import pyarrow as pa

from ..config import Anomalies
from ..kernels import SLOTS
from ..kernels.anomalies import UsageSums
from ..schema import REQUESTS, meter_and_per
from .names import Names, packed_columns, unpacked_columns
from .tally import added_up, carried

PAIRS_PER_CUSTOMER = 4
_MODEL_BITS, _PER_BITS = 26, 6
_HOUR, _KEY, _SUMS = 0, 1, 2
WORDS = 10
"""int64 a row: hour, key, and the columns of usage below."""
EVENTS, UNPRICED, QUANTITY, AMOUNT = 0, 1, 2, 5
"""Columns of usage: events, those of them with something unpriced, priced quantity and amount in three limbs each."""
_CROWDED = 8
"""More than so many times the rows that an hour may have are cut down before the block ends."""


class OpenHours:
    """Adds rows up, and gives whole hours.

    Of too many customers those with the lowest hashes are watched: from the hash of the first that is left out on,
    nobody is in that hour any more, so that the sums of all others are whole.
    """

    def __init__(self, settings: Anomalies, customers: Names, models: Names) -> None:
        self._most = settings.tracked_max * PAIRS_PER_CUSTOMER
        self._names = (customers, models)
        self._sums = UsageSums()
        self._limits: dict[int, int] = {}  # by hour: the least hash that is left out
        self._pers: dict[int, int] = {1: 0}
        self._known: tuple[pa.Array, ...] = ()
        self._numbers: tuple[Any, Any, Any, Any]
        self._dumped = ""
        self.begun = -1
        """The first hour that is not closed; -1: none was."""

    def add(self, batch: pa.RecordBatch, sign: int = 1) -> None:
        """Adds rows of `rollup_minute` (takes them away, with sign -1) of hours that are open."""
        coded = [batch.column(name) for name in ("customer", "model", "meters")]
        known = tuple(column.dictionary for column in coded)
        if len(known) != len(self._known) or not all(map(_is_same, known, self._known)):
            self._known, self._numbers = known, self._numbered(*known)
        limited = sorted(self._limits)
        by_hour = np.full(limited[-1] - limited[0] + 1 if limited else 0, 2**64 - 1, np.uint64)
        for hour in limited:
            by_hour[hour - limited[0]] = self._limits[hour]
        hashes = self._names[0].hashes()[self._numbers[0]] if limited else np.empty(0, np.uint64)
        codes = tuple(column.indices.cast(pa.int32()).to_numpy() for column in coded)
        window_s, unpriced, events = (batch.column(name).to_numpy() for name in ("window_start", "unpriced", "events"))
        quantities, amounts = ([batch.column(f"{of}{slot}").buffers()[1] for slot in range(SLOTS)] for of in "qa")
        limits = (hashes, by_hour, limited[0] if limited else 0)
        self._sums.add(codes, window_s, unpriced, events, quantities, amounts, self._numbers, limits, self.begun, sign)
        self._dumped = ""
        if len(self._sums) > _CROWDED * self._most:
            self._bound(self._most)

    def _numbered(self, customers: pa.Array, models: pa.Array, meters: pa.Array) -> tuple[Any, Any, Any, Any]:
        """What the codes of a block stand for."""
        rows = [text.split(",") for text in meters.to_pylist()]
        pers = [[self._pers.setdefault(meter_and_per(name)[1], len(self._pers)) for name in row] for row in rows]
        return (
            self._names[0].numbers(customers.to_pylist()),
            self._names[1].numbers(models.to_pylist()),
            np.array([row + [0] * (SLOTS - len(row)) for row in pers], np.uint8).ravel(),
            np.array([row[0] == REQUESTS for row in rows], np.uint8),
        )

    def _rows(self, *, whole_units: bool = False) -> Any:
        pers = b"".join(per.to_bytes(16, "little") for per in self._pers) if whole_units else b""
        return np.frombuffer(self._sums.rows(pers), np.int64).reshape(-1, WORDS)

    def _bound(self, most: int) -> None:
        """If there are more rows: leaves customers out of the hours that have too many, from the highest hash down."""
        if len(self._sums) <= most:
            return
        rows = self._rows()
        hours, counts = np.unique(rows[:, _HOUR], return_counts=True)
        crowded = hours[counts > self._most].tolist()
        if not crowded:
            return
        hashes, stay = self._names[0].hashes(), np.ones(len(rows), bool)
        for hour in crowded:
            chosen = np.flatnonzero(rows[:, _HOUR] == hour)
            ranks = hashes[customers_of(rows[chosen, _KEY] >> _PER_BITS)]
            ordered = np.sort(ranks)
            limit = ordered[self._most]  # of the first row too many; all of its customer go
            self._limits[hour] = int(limit)
            stay[chosen[ranks >= limit]] = False
        self._load(rows[stay])

    def close(self, begin: int) -> list[tuple[int, Any, Any]]:
        """The hours before `begin`, which are closed: (hour, keys of pairs, ascending; usage of each) in order.

        Amounts are in femto-units, those of each denominator rounded down.
        """
        closes = self._sums.oldest < begin
        self._bound(self._most if closes else self._most * 5 // 4)
        self.begun = max(self.begun, begin)
        if not closes:
            return []
        gone, rows = self._rows(whole_units=True), self._rows()
        self._load(rows[rows[:, _HOUR] >= begin])
        gone = gone[gone[:, _HOUR] < begin]
        self._limits = {hour: limit for hour, limit in self._limits.items() if hour >= begin}
        passed = []
        for hour in np.unique(gone[:, _HOUR]).tolist():
            of_hour = gone[gone[:, _HOUR] == hour]
            pairs, sums = added_up(of_hour[:, _KEY] >> _PER_BITS, of_hour[:, _SUMS:])
            carried(sums, AMOUNT)
            passed.append((hour, pairs, sums))
        return passed

    def _load(self, rows: Any) -> None:
        self._sums.load(np.ascontiguousarray(rows))
        self._dumped = ""

    def numbers(self) -> tuple[Any, Any]:
        """Of customers and models that are named here."""
        pairs = self._rows()[:, _KEY] >> _PER_BITS
        return customers_of(pairs), models_of(pairs)

    def renumber(self, customers: Any, models: Any) -> None:
        """Names have other numbers now: the new ones, by the old ones."""
        rows = self._rows().copy()
        pairs, pers = rows[:, _KEY] >> _PER_BITS, rows[:, _KEY] & ((1 << _PER_BITS) - 1)
        rows[:, _KEY] = (pair_of(customers[customers_of(pairs)], models[models_of(pairs)]) << _PER_BITS) + pers
        self._load(rows)
        self._known = ()

    # -- the snapshot

    def dump(self) -> dict[str, Any]:
        """For a manifest."""
        if not self._dumped:
            rows = self._rows()
            hours, keys, *sums = np.ascontiguousarray(rows[np.argsort(rows[:, _KEY])].T)
            self._dumped = packed_columns([hours, np.diff(keys, prepend=0), *sums])
        limits = [[hour, str(limit)] for hour, limit in self._limits.items()]
        pers = [str(per) for per in self._pers]
        return {"begun": self.begun, "pers": pers, "limits": limits, "rows": self._dumped}

    def load(self, dumped: dict[str, Any]) -> None:
        """Goes on from a dump."""
        self.begun = dumped["begun"]
        self._pers = {int(per): n for n, per in enumerate(dumped["pers"])}
        self._limits = {hour: int(limit) for hour, limit in dumped["limits"]}
        hours, steps, *sums = unpacked_columns(dumped["rows"])
        self._load(np.stack([hours, np.cumsum(steps), *sums], axis=1))
        self._known = ()


def pair_of(first: Any, second: Any) -> Any:
    """int64 of two numbers, of a customer and a model (or project)."""
    return (first << _MODEL_BITS) + second


def customers_of(pairs: Any) -> Any:
    """The first numbers of pairs."""
    return pairs >> _MODEL_BITS


def models_of(pairs: Any) -> Any:
    """The second numbers of pairs."""
    return pairs & ((1 << _MODEL_BITS) - 1)


def _is_same(values: pa.Array, known: pa.Array) -> bool:
    """Whether these are the same values in memory, which `known` keeps from being used again."""
    return len(values) == len(known) and all(
        a == b or (a is not None and b is not None and a.address == b.address and a.size == b.size)
        for a, b in zip(values.buffers(), known.buffers(), strict=True)
    )
