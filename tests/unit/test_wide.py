"""128-bit integers in numpy, against Python's."""

import random
from itertools import pairwise

import numpy as np
import pytest

from flow.steps.wide import as_halves, as_integers, halves, is_not_zero, picked, sums_at, total

EDGES = (0, 1, -1, 2**31, -(2**32), 2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64, 2**100, -(2**100))


def wide(integers: list[int]) -> np.ndarray:
    return halves(b"".join(number.to_bytes(16, "little", signed=True) for number in integers), len(integers))


@pytest.mark.parametrize("bits", [10, 62, 63, 100])
def test_sums_of_runs(bits: int) -> None:
    draw = random.Random(bits)
    integers = [draw.randrange(-(2**bits), 2**bits + 1) for _ in range(500)] + [2**bits] * 40 + [-(2**bits)] * 40
    starts = [0, *sorted(draw.sample(range(1, 500), 60)), 500, 540]
    sums = [sum(integers[first:end]) for first, end in pairwise([*starts, len(integers)])]
    found = sums_at(wide(integers), np.array(starts))
    assert as_integers(found).tolist() == sums
    assert total(wide(integers)) == sum(integers)
    assert len(sums_at(wide([]), np.array([], int))) == 0


def test_there_and_back() -> None:
    numbers = wide(list(EDGES))
    assert as_integers(numbers).tolist() == list(EDGES)
    assert (as_halves(as_integers(numbers)) == numbers).all()
    assert is_not_zero(numbers).tolist() == [number != 0 for number in EDGES]
    assert as_integers(picked(numbers, np.array([8, 1]))).tolist() == [EDGES[8], EDGES[1]]
    assert as_integers(picked(numbers, is_not_zero(numbers))).tolist() == list(EDGES[1:])
    assert total(numbers) == sum(EDGES)
