"""The simulator must find every invariant that is broken on purpose, within a few seeds.

It finds one by a verdict: of the oracle, or that the code stopped although no fault made it. A mutation that breaks
itself raises something else, which ends its test.
"""

import pytest

from . import SimulationFailed, simulate
from .mutations import MUTATIONS, Mutation

SEEDS_MAX = 60


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_the_simulator_finds(mutation: Mutation) -> None:
    for seed in (mutation.found_by, *range(SEEDS_MAX)):
        try:
            simulate(seed, broken=mutation.broken, given=mutation.given)
        except SimulationFailed:
            return
    pytest.fail(f"{mutation.name}: {SEEDS_MAX} seeds passed, though {mutation.why}")
