"""What is usual for each of many names: rings of the levels of their last hours, and counters, in columns."""

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from .levels import NONE

RING = 24
"""Hours that a ring holds; a name with fewer is still being learnt."""
FORGOTTEN_HOURS = 30 * 24
"""A name that was not there for so long is forgotten."""

Name = tuple[str, ...]


class Usual(NamedTuple):
    """What the rings of some names hold, int64 each."""

    hours: Any
    median: Any
    least: Any
    most: Any


class Series:
    """Rows by name. Of more than `limit` names those with the lowest hash are kept, whatever came first: so that which
    ones depends on nothing but who there is."""

    def __init__(self, rings: Sequence[str], counts: Sequence[str], limit: int) -> None:
        self._limit = limit
        self._rows: dict[Name, int] = {}
        self.rings = {name: np.empty((0, RING), np.int16) for name in rings}
        self.counts = {name: np.empty(0, np.int64) for name in (*counts, "last")}
        """`last` is the hour in which a name was last there."""

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def names(self) -> list[Name]:
        """By row."""
        return list(self._rows)

    def rows(self, names: Iterable[Name]) -> Any:
        """The row of each name; new names get rows of empty rings and zeros."""
        found = np.fromiter((self._rows.setdefault(name, len(self._rows)) for name in names), np.int64)
        new = len(self._rows) - len(self.counts["last"])
        if new:
            for name, ring in self.rings.items():
                self.rings[name] = np.concatenate([ring, np.full((new, RING), NONE, np.int16)])
            for name, column in self.counts.items():
                self.counts[name] = np.concatenate([column, np.zeros(new, np.int64)])
        return found

    def usual(self, ring: str, rows: Any) -> Usual:
        """The upper median, the least and the most of what the rings of these rows hold; NONE of an empty ring."""
        ordered = np.sort(self.rings[ring][rows], axis=1).astype(np.int64)
        hours = (ordered != NONE).sum(axis=1)
        lines = np.arange(len(ordered))
        empty = np.minimum(RING - hours, RING - 1)
        middle = np.minimum(empty + hours // 2, RING - 1)
        return Usual(hours, ordered[lines, middle], ordered[lines, empty], ordered[:, -1])

    def push(self, ring: str, rows: Any, levels: Any) -> None:
        """Puts one more hour into the rings of these rows, none of which is there twice; NONE is left out."""
        there = levels != NONE
        rows, levels = rows[there], levels[there]
        moved = self.rings[ring][rows]
        moved[:, :-1] = moved[:, 1:]
        moved[:, -1] = levels
        self.rings[ring][rows] = moved

    def forget(self, hour: int) -> None:
        """Drops names that were not there for long, and those beyond the limit."""
        stay = self.counts["last"] > hour - FORGOTTEN_HOURS
        if len(self._rows) > self._limit:
            for name in sorted(self._rows, key=hash_of)[self._limit :]:
                stay[self._rows[name]] = False
        if stay.all():
            return
        self._rows = {name: n for n, name in enumerate(name for name, row in self._rows.items() if stay[row])}
        self.rings = {name: ring[stay] for name, ring in self.rings.items()}
        self.counts = {name: column[stay] for name, column in self.counts.items()}

    def dump(self) -> dict[str, Any]:
        """Plain lists, for a manifest."""
        columns: dict[str, Any] = {**self.rings, **self.counts}
        return {"names": self.names, **{name: column.tolist() for name, column in columns.items()}}

    def load(self, dumped: dict[str, Any]) -> None:
        """Takes the place of what is here."""
        self._rows = {}
        self.rows(tuple(name) for name in dumped["names"])
        self.rings = {name: np.array(dumped[name], np.int16).reshape(-1, RING) for name in self.rings}
        self.counts = {name: np.array(dumped[name], np.int64) for name in self.counts}


@lru_cache(maxsize=1 << 17)
def hash_of(name: Name) -> int:
    """By which names are chosen where there are too many; 64 bits."""
    return int.from_bytes(hashlib.blake2b("\0".join(name).encode(), digest_size=8).digest(), "little")


def packed(plain: Any) -> str:
    """Plain values as a short text."""
    return base64.b64encode(zlib.compress(json.dumps(plain, separators=(",", ":")).encode(), 1)).decode()


def unpacked(text: str) -> Any:
    """What `packed` was given."""
    return json.loads(zlib.decompress(base64.b64decode(text)))
