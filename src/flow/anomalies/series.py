"""What is usual for each of many: rings of the levels of their last hours, and counters, in columns."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .levels import NONE
from .names import packed_columns, unpacked_columns

RING = 24
"""Hours that a ring holds; of whom there are fewer is still being learnt."""
FORGOTTEN_HOURS = 30 * 24
"""Who was not there for so long is forgotten."""


class Usual(NamedTuple):
    """What some rings hold, int64 each."""

    hours: Any
    median: Any
    least: Any
    most: Any


class Series:
    """Rows by key, in ascending order of keys. Of more than `limit` those with the lowest hash are kept, whatever came
    first: so that which ones depends on nothing but who there is."""

    def __init__(self, rings: Sequence[str], counts: Sequence[str], limit: int) -> None:
        self._limit = limit
        self.keys = np.empty(0, np.int64)
        self.rings = {name: np.empty((0, RING), np.int16) for name in rings}
        self.counts = {name: np.empty(0, np.int64) for name in (*counts, "last")}
        """`last` is the hour in which a key was last there."""

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: Any) -> Any:
        """The row of each key, of which none is there twice, ascending; new ones get empty rings and zeros."""
        known = np.isin(keys, self.keys, assume_unique=True)
        if not known.all():
            new = len(keys) - int(known.sum())
            self.keys = np.concatenate([self.keys, keys[~known]])
            order = np.argsort(self.keys, kind="stable")
            self.keys = self.keys[order]
            for name, ring in self.rings.items():
                self.rings[name] = np.concatenate([ring, np.full((new, RING), NONE, np.int16)])[order]
            for name, column in self.counts.items():
                self.counts[name] = np.concatenate([column, np.zeros(new, np.int64)])[order]
        return np.searchsorted(self.keys, keys)

    def usual(self, ring: str, rows: Any) -> Usual:
        """The upper median, the least and the most of what the rings of these rows hold; NONE of an empty ring."""
        ordered = np.sort(self.rings[ring][rows], axis=1)
        hours = (ordered != NONE).sum(axis=1)
        lines = np.arange(len(ordered))
        empty = np.minimum(RING - hours, RING - 1)
        middle = np.minimum(empty + hours // 2, RING - 1)
        return Usual(hours, *(ordered[lines, place].astype(np.int64) for place in (middle, empty, RING - 1)))

    def push(self, ring: str, rows: Any, levels: Any) -> None:
        """Puts one more hour into the rings of these rows, none of which is there twice; NONE is left out."""
        there = levels != NONE
        rows, levels = rows[there], levels[there]
        moved = self.rings[ring][rows]
        moved[:, :-1] = moved[:, 1:]
        moved[:, -1] = levels
        self.rings[ring][rows] = moved

    def forget(self, hour: int, hashes: Callable[[Any], Any]) -> None:
        """Drops who was not there for long, and those beyond the limit, by the hashes of keys."""
        stay = self.counts["last"] > hour - FORGOTTEN_HOURS
        if len(self) > self._limit:
            stay[np.argsort(hashes(self.keys), kind="stable")[self._limit :]] = False
        if stay.all():
            return
        self.keys = self.keys[stay]
        self.rings = {name: ring[stay] for name, ring in self.rings.items()}
        self.counts = {name: column[stay] for name, column in self.counts.items()}

    def dump(self) -> str:
        """Everything, for a manifest."""
        rings = [ring.ravel() for ring in self.rings.values()]
        return packed_columns([np.diff(self.keys, prepend=0), *self.counts.values(), *rings])

    def load(self, dumped: str) -> None:
        """Takes the place of what is here."""
        steps, *columns = unpacked_columns(dumped)
        self.keys = np.cumsum(steps)
        self.counts = dict(zip(self.counts, columns, strict=False))
        rings = columns[len(self.counts) :]
        self.rings = {
            name: ring.astype(np.int16).reshape(-1, RING) for name, ring in zip(self.rings, rings, strict=True)
        }
