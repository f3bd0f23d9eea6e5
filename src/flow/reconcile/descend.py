"""From the month down to the minute, only where two sources differ. Equal digests end the comparison of a bucket."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from .asked import Scope
from .buckets import GRAINS, Buckets, Comparison, Ints, Names, compared, customers_of, starts_of, window_starts
from .sides import Side

_LONGEST_S = {"month": 31 * 86_400, "day": 86_400, "hour": 3_600}


@dataclass(frozen=True, slots=True)
class Level:
    """How many buckets of a grain were compared, and how many of them differ."""

    grain: str
    compared: int
    differing: int


@dataclass(frozen=True, slots=True)
class Descent:
    """What came of it."""

    levels: list[Level]
    """Down to the grain at which nothing differed, or to the minute."""
    events_here: int
    events_there: int
    minutes: Comparison
    """The minutes that differ."""


def descend(here: Side, there: Side, names: Names, scope: Scope, on_grain: Callable[[str], None]) -> Descent:
    """Compares two sources. Raises what they raise."""
    levels, events, keys = [], (0, 0), np.empty(0, np.int64)
    found = compared(Buckets.none(), Buckets.none())
    for coarser, grain in pairwise(("", *GRAINS)):
        on_grain(grain)
        narrowed = scope if not coarser else _narrowed(scope, coarser, keys, names)
        sides = [_within(side.buckets(grain, narrowed), coarser, keys) for side in (here, there)]
        found = compared(*sides)
        keys = found.differing
        levels.append(Level(grain, len(found.here), len(keys)))
        if not coarser:
            events = int(found.here.events.sum()), int(found.there.events.sum())
        if not len(keys):
            break
    return Descent(levels, *events, found.of_keys(keys))


def _within(buckets: Buckets, coarser: str, keys: Ints) -> Buckets:
    return buckets.within(coarser, keys) if coarser else buckets


def _narrowed(scope: Scope, grain: str, keys: Ints, names: Names) -> Scope:
    """The part of a scope that has all the buckets with these keys."""
    customers = tuple(names[number] for number in np.unique(customers_of(keys)))
    starts_s = starts_of(keys)
    end = window_starts(starts_s.max(keepdims=True) + _LONGEST_S[grain], grain)[0]
    return replace(
        scope,
        from_s=max(scope.from_s, int(starts_s.min())),
        before_s=min(scope.before_s, int(end)),
        customers=customers,
    )
