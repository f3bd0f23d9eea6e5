"""Events and digests by customer and window, as columns: how two sources are compared without their events.

A bucket is one customer's window of one grain. Its digest is a sum modulo 2^128 over its events, so that buckets of a
coarser grain are sums of finer ones, and equal buckets need no look at what is in them. An event's time is no part of
its hash: an hour would look the same, were the event moved by a minute. So a second sum goes with the digest, of each
minute's digest times the minute's number. It is linear as well, and an event that moves changes it by its own
hash times the distance: that is 0 modulo 2^128 for no distance below 2^27 minutes, but by a chance of 2^-101.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

GRAINS = ("month", "day", "hour", "minute")
"""From the first to be compared to the last."""

Ints = NDArray[np.int64]
Words = NDArray[np.uint64]
_HALF = np.uint64(0xFFFFFFFF)
_HALF_BITS = np.uint64(32)
_START_BITS = 32


class Names:
    """Numbers for customers, the same for both sources."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._names: list[str] = []

    def numbers(self, names: Iterable[str]) -> Ints:
        """The number of each name; one that is new gets the next."""
        found = []
        for name in names:
            number = self._numbers.setdefault(name, len(self._numbers))
            if number == len(self._names):
                self._names.append(name)
            found.append(number)
        return np.array(found, np.int64)

    def __getitem__(self, number: int) -> str:
        return self._names[number]


def keys_of(customers: Ints, starts_s: Ints) -> Ints:
    """A key for each bucket, by the customer's number and the second at which the window starts."""
    return customers << _START_BITS | starts_s


def customers_of(keys: Ints) -> Ints:
    """The number of each bucket's customer."""
    return keys >> _START_BITS


def starts_of(keys: Ints) -> Ints:
    """The second at which each bucket's window starts."""
    return keys & ((1 << _START_BITS) - 1)


def window_starts(times_s: Ints, grain: str) -> Ints:
    """The start of the window that each second is in; windows are in UTC."""
    if grain == "month":
        months = times_s.astype("datetime64[s]").astype("datetime64[M]")
        return months.astype("datetime64[s]").astype(np.int64)
    length_s = {"day": 86_400, "hour": 3_600, "minute": 60}[grain]
    return times_s - times_s % length_s


def moments(digests: Words, starts_s: Ints) -> Words:
    """Each minute's digest times its number since 1970, modulo 2^128; 128-bit numbers are rows of a low and a high
    word."""
    minutes = (starts_s // 60).astype(np.uint64)
    return _joined(_quarters(digests) * minutes[:, np.newaxis])


@dataclass(frozen=True, slots=True)
class Buckets:
    """One row a bucket, in the order of their keys, none twice."""

    keys: Ints
    events: Ints
    sums: Words
    """Four words a row: low and high of the digest, low and high of the sum that tells minutes apart."""

    @classmethod
    def none(cls) -> "Buckets":
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 4), np.uint64))

    @classmethod
    def together(cls, parts: Sequence["Buckets"]) -> "Buckets":
        """All of them, buckets of the same key added up."""
        found = [cls.none(), *parts]
        return added(
            np.concatenate([part.keys for part in found]),
            np.concatenate([part.events for part in found]),
            np.concatenate([part.sums for part in found]),
        )

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def customers(self) -> Ints:
        return customers_of(self.keys)

    @property
    def starts_s(self) -> Ints:
        return starts_of(self.keys)

    def coarser(self, grain: str) -> "Buckets":
        """The same events by a grain that is no finer."""
        return added(keys_of(self.customers, window_starts(self.starts_s, grain)), self.events, self.sums)

    def of_keys(self, keys: Ints) -> "Buckets":
        """Only the buckets of these keys."""
        return self._picked(np.isin(self.keys, keys))

    def within(self, grain: str, keys: Ints) -> "Buckets":
        """Only the buckets that are in one of a coarser grain with these keys."""
        return self._picked(np.isin(keys_of(self.customers, window_starts(self.starts_s, grain)), keys))

    def _picked(self, rows: NDArray[np.bool_]) -> "Buckets":
        return Buckets(self.keys[rows], self.events[rows], self.sums[rows])


def added(keys: Ints, events: Ints, sums: Words) -> Buckets:
    """Rows of the same key added up; words in pairs, modulo 2^128."""
    if not len(keys):
        return Buckets.none()
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
    halves = [_joined(np.add.reduceat(_quarters(sums[order, n : n + 2]), first)) for n in (0, 2)]
    return Buckets(keys[first], np.add.reduceat(events[order], first), np.concatenate(halves, axis=1))


def _quarters(wide: Words) -> Words:
    """128-bit numbers in four parts of 32 bits, so that 2^32 of them can be added, or one multiplied, without loss."""
    return np.stack(
        [wide[:, 0] & _HALF, wide[:, 0] >> _HALF_BITS, wide[:, 1] & _HALF, wide[:, 1] >> _HALF_BITS], axis=1
    )


def _joined(quarters: Words) -> Words:
    """The 128-bit numbers again, with carries; modulo 2^128."""
    carry = np.zeros(len(quarters), np.uint64)
    parts = []
    for n in range(4):
        total = quarters[:, n] + carry
        parts.append(total & _HALF)
        carry = total >> _HALF_BITS
    return np.stack([parts[0] | parts[1] << _HALF_BITS, parts[2] | parts[3] << _HALF_BITS], axis=1)


@dataclass(frozen=True, slots=True)
class Comparison:
    """The buckets of two sources, side by side: `here` and `there` have the same keys, with 0 where one has nothing."""

    here: Buckets
    there: Buckets

    @property
    def differing(self) -> Ints:
        """The keys of buckets that do not hold the same events in the same minutes."""
        here, there = self.here, self.there
        differ: NDArray[np.bool_] = (here.events != there.events) | (here.sums != there.sums).any(axis=1)
        return here.keys[differ]

    def of_keys(self, keys: Ints) -> "Comparison":
        """Only the buckets of these keys."""
        return Comparison(self.here.of_keys(keys), self.there.of_keys(keys))


def compared(here: Buckets, there: Buckets) -> Comparison:
    """Two sources side by side."""
    keys = np.union1d(here.keys, there.keys)
    return Comparison(_spread(here, keys), _spread(there, keys))


def _spread(buckets: Buckets, keys: Ints) -> Buckets:
    places = np.searchsorted(keys, buckets.keys)
    events, sums = np.zeros(len(keys), np.int64), np.zeros((len(keys), 4), np.uint64)
    events[places], sums[places] = buckets.events, buckets.sums
    return Buckets(keys, events, sums)
