"""Sums by key, in columns: 64-bit keys in ascending order, and a row of int64 sums for each."""

import base64
import zlib
from typing import Any

import numpy as np


class Tally:
    """Adds rows up by key; `width` sums each."""

    def __init__(self, width: int) -> None:
        self.keys = np.empty(0, np.int64)
        self.sums = np.empty((0, width), np.int64)

    def add(self, keys: Any, sums: Any, sign: int = 1) -> None:
        """Adds (takes away, with sign -1) a row of sums for each key, in any order, also repeated."""
        self.keys, self.sums = added_up(
            np.concatenate([self.keys, keys]), np.concatenate([self.sums, sums if sign == 1 else -sums])
        )

    def dump(self) -> str:
        """Everything as a short text, for a manifest."""
        table = np.column_stack([self.keys, self.sums]).astype("<i8")
        return base64.b64encode(zlib.compress(np.ascontiguousarray(table.T).tobytes(), 1)).decode()

    def load(self, dumped: str) -> None:
        """Takes the place of what is here."""
        table = np.frombuffer(zlib.decompress(base64.b64decode(dumped)), "<i8")
        table = table.reshape(self.sums.shape[1] + 1, -1).T.astype(np.int64)
        self.keys, self.sums = table[:, 0].copy(), np.ascontiguousarray(table[:, 1:])

    def keep(self, chosen: Any) -> None:
        """Drops the rows that are not chosen."""
        self.keys, self.sums = self.keys[chosen], self.sums[chosen]


def added_up(keys: Any, sums: Any) -> tuple[Any, Any]:
    """Each key once, ascending, with the sum of its rows."""
    if not len(keys):
        return keys, sums
    order = np.argsort(keys)
    ordered = keys[order]
    first = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
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
