"""The simulator must find every invariant that is broken on purpose, within a few seeds."""

import pytest

from . import SimulationFailed, simulate
from .mutations import MUTATIONS, Mutation

SEEDS_MAX = 60


@pytest.mark.parametrize("mutation", MUTATIONS, ids=str)
def test_the_simulator_finds(mutation: Mutation) -> None:
    for seed in range(SEEDS_MAX):
        try:
            simulate(seed, broken=mutation.broken, given=mutation.given)
        except SimulationFailed as failed:
            assert not isinstance(failed.__cause__, TypeError | AttributeError), f"it breaks itself: {failed.__cause__}"
            return
    pytest.fail(f"{mutation.name}: {SEEDS_MAX} seeds passed, though {mutation.why}")
