"""A chunk of made-up lines by its seed, tried."""

from collections.abc import Sequence
from random import Random
from traceback import format_exc
from typing import NamedTuple

from tests.fuzz.compare import NARROW, WIDE, compare, smallest
from tests.fuzz.messages import lines_of

LINES_PER_CHUNK = 200


class Tried(NamedTuple):
    """What became of a chunk; where decode and the oracle differ, how, and the fewest lines of it that show it."""

    seed: int
    read: int = 0
    accepted: int = 0
    corrections: int = 0
    difference: str | None = None
    lines: Sequence[bytes] = ()


def try_chunk(seed: int) -> Tried:
    rng = Random(seed)
    limits, late = rng.choice((NARROW, WIDE)), rng.random() < 0.05
    lines = lines_of(rng, LINES_PER_CHUNK)
    try:
        expected = compare(b"\n".join(lines), limits, seed, late)
    except AssertionError:
        return Tried(seed, difference=format_exc(limit=-1), lines=smallest(lines, limits, late))
    apart = sum(len(found) for found in expected.apart.values())
    return Tried(seed, expected.read, len(expected.events) + apart, apart)
