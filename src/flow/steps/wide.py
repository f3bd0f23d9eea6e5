"""128-bit integers in numpy: each is a row of two uint64, the low half and the high one, in two's complement."""

from typing import Any

import numpy as np
import pyarrow as pa

_LOW_32 = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_LOW_64 = 0xFFFFFFFFFFFFFFFF


def halves(numbers: pa.Buffer, count: int) -> Any:
    """The first `count` 128-bit integers of a buffer: (count, 2) uint64."""
    return np.frombuffer(numbers, np.uint64)[: 2 * count].reshape(-1, 2)


def picked(numbers: Any, which: Any) -> Any:
    """The numbers at these places, or those that a mask has."""
    # As elements of 16 bytes: numpy takes rows of two numbers many times more slowly.
    return numbers.view(np.complex128).reshape(-1)[which].view(np.uint64).reshape(-1, 2)


def is_not_zero(numbers: Any) -> Any:
    """bool a number."""
    return (numbers[:, 0] | numbers[:, 1]) != 0


def sums_at(numbers: Any, starts: Any) -> Any:
    """The sums of runs of numbers, modulo 2^128; `starts`: where each run begins, the first at 0."""
    found = np.empty((len(starts), 2), np.uint64)
    low, high = numbers[:, 0], numbers[:, 1]
    if _fit_in_64_bits(low.view(np.int64), high.view(np.int64), starts):
        found[:, 0] = _runs(low, starts)
        found[:, 1] = found[:, 0].view(np.int64) >> 63
        return found
    # 32 bits at a time: the sums of fewer than 2^32 of them do not wrap.
    first = _runs(low & _LOW_32, starts)
    second = _runs(low >> _32, starts)
    second += first >> _32
    found[:, 0] = second << _32 | first & _LOW_32
    found[:, 1] = _runs(high, starts) + (second >> _32)
    return found


def _fit_in_64_bits(low: Any, high: Any, starts: Any) -> bool:
    """Whether the sum of each run is certain to be within 63 bits and a sign."""
    if not len(starts) or (low >> 63 != high).any():
        return False
    longest = int(np.diff(starts, append=len(low)).max())
    return max(int(low.max()), -int(low.min())) * longest < 1 << 63


def _runs(numbers: Any, starts: Any) -> Any:
    """The sums of runs, modulo 2^64: quicker than `np.add.reduceat` where runs are short."""
    before = np.zeros(len(numbers) + 1, np.uint64)
    np.cumsum(numbers, out=before[1:])
    return np.diff(before[starts], append=before[-1:])


def as_integers(numbers: Any) -> Any:
    """Python integers, in an array of objects."""
    return (numbers[:, 1].view(np.int64).astype(object) << 64) | numbers[:, 0].astype(object)


def as_halves(integers: Any) -> Any:
    """The opposite of `as_integers`: what is beyond 128 bits is cut off."""
    return np.stack([(integers & _LOW_64).astype(np.uint64), (integers >> 64 & _LOW_64).astype(np.uint64)], axis=1)


def total(numbers: Any) -> int:
    """The sum, which may be beyond 128 bits."""
    low, high = numbers[:, 0], numbers[:, 1]
    top = high.view(np.int64)
    parts = ((top >> 32, 96), (high & _LOW_32, 64), (low >> _32, 32), (low & _LOW_32, 0))
    return sum(int(part.sum()) << shift for part, shift in parts)
