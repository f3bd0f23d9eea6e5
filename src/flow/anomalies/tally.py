"""Sums by key, in columns: 64-bit keys in ascending order, and a row of int64 sums for each."""

from typing import Any

import numpy as np

from .names import packed_columns, unpacked_columns

_PENDING_MAX = 1 << 16


class Tally:
    """Adds rows up by key; `width` sums each."""

    def __init__(self, width: int) -> None:
        self._keys = np.empty(0, np.int64)
        self._sums = np.empty((0, width), np.int64)
        self._pending: list[tuple[Any, Any]] = []
        self._pending_rows = 0

    def add(self, keys: Any, sums: Any) -> None:
        """Adds a row of sums for each key, in any order, also repeated."""
        self._pending.append((keys, sums))
        self._pending_rows += len(keys)
        if self._pending_rows > _PENDING_MAX:
            self._gather()

    def _gather(self) -> None:
        if self._pending:
            every = [(self._keys, self._sums), *self._pending]
            self._keys, self._sums = added_up(*(np.concatenate(column) for column in zip(*every, strict=True)))
            self._pending, self._pending_rows = [], 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def keys(self) -> Any:
        """Ascending."""
        self._gather()
        return self._keys

    @property
    def sums(self) -> Any:
        """Of each key."""
        self._gather()
        return self._sums

    def dump(self) -> str:
        """Everything as a short text, for a manifest."""
        return packed_columns([np.diff(self.keys, prepend=0), *self.sums.T])

    def load(self, dumped: str) -> None:
        """Takes the place of what is here."""
        steps, *columns = unpacked_columns(dumped)
        self._keys, self._sums = np.cumsum(steps), np.stack(columns, axis=1)
        self._pending, self._pending_rows = [], 0

    def keep(self, chosen: Any) -> None:
        """Drops the rows that are not chosen."""
        self._keys, self._sums = self.keys[chosen], self.sums[chosen]


def added_up(keys: Any, sums: Any) -> tuple[Any, Any]:
    """Each key once, ascending, with the sum of its rows."""
    if not len(keys):
        return keys, sums
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    if len(first) == len(keys):
        return ordered, sums[order]
    return ordered[first], np.add.reduceat(sums[order], first, axis=0)


def carried(sums: Any, at: int) -> None:
    """Makes the three limbs in columns [at, at + 3) canonical again, in place."""
    for n in (at, at + 1):
        sums[:, n + 1] += sums[:, n] >> 32
        sums[:, n] &= 0xFFFFFFFF


def shifted(sums: Any, at: int, bits: int) -> Any:
    """int64 of canonical limbs: the number / 2^bits (at most 32), rounded down; 0 if negative, below 2^62 else."""
    low, middle, high = sums[:, at], sums[:, at + 1], sums[:, at + 2]
    upper = (np.clip(high, 0, (1 << 29) - 1) << 32) + middle
    fits = (upper < 1 << (30 + bits)) & (high < 1 << 29)
    number = np.where(fits, (np.where(fits, upper, 0) << (32 - bits)) + (low >> bits), (1 << 62) - 1)
    return np.where(high < 0, 0, number)


def whole(sums: Any, row: int, at: int) -> int:
    """The exact number of one row's limbs."""
    low, middle, high = (int(value) for value in sums[row, at : at + 3])
    return (high << 64) + (middle << 32) + low
