"""Numbers on a scale of doublings, in whole steps: what a baseline remembers of an hour.

A *level* is floor(16 x log2 of the number): 16 steps a doubling, each 4.4 %. Usage differs by factors and not by
differences, so that a median and bounds are taken of levels; and a level takes two bytes, whatever it is a level of.
All of it is in integers, so that the same input has the same levels on every machine.
"""

from math import isqrt
from typing import Any

import numpy as np

STEPS = 16
"""Levels a doubling."""
NONE = -1
"""The level of 0, and of an hour that is not there."""
NUMBER_MAX = 2**62
"""Larger numbers have its level."""


def _root(number: int) -> int:
    """floor(number ^ (1/16)); a root of a root needs no rounding but down."""
    return isqrt(isqrt(isqrt(isqrt(number))))


def _least_of(level: int) -> int:
    """The least number of a level."""
    root = _root(1 << level)
    return root + int(root**STEPS < 1 << level)


_LEAST: Any = np.array([_least_of(level) for level in range(62 * STEPS + 1)], np.int64)


def levels_of(numbers: Any) -> Any:
    """int16 level of each int64; NONE for 0 and what is below."""
    levels: Any = np.searchsorted(_LEAST, numbers, side="right") - 1
    return levels.astype(np.int16)


def number_of(level: int, scale: int = 1) -> int:
    """`scale` times the number at which a level begins, rounded down; 0 for NONE."""
    return _root((scale**STEPS) << level) if level >= 0 else 0


def steps_of(factor: int) -> int:
    """How many levels a factor is, rounded down."""
    return int(levels_of(np.array([factor]))[0])
