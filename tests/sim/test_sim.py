"""A few hundred seeds of the simulator, each one exact; TALLYFLOW_SIM_SEEDS for more, TALLYFLOW_SIM_FROM for others."""

import os

import pytest

from . import simulate

SEEDS = int(os.environ.get("TALLYFLOW_SIM_SEEDS", "200"))
FIRST = int(os.environ.get("TALLYFLOW_SIM_FROM", "0"))
OF_COMMANDS = ("inbox_events", "corrections", "late_resolutions", "redrives", "rejected_fixes")
_TOLD = 45
"""The first seeds, which the last test simulates: it has to see what they tell (seed 42 is the first with a signal)."""
_RUN = 30
"""Seeds a test: enough that starting one costs nothing, few enough to share them out between processes."""


@pytest.mark.parametrize("first", range(FIRST, FIRST + SEEDS, _RUN))
def test_every_seed_is_exact(first: int) -> None:
    for seed in range(max(first, _TOLD), min(first + _RUN, FIRST + SEEDS)):
        simulate(seed)


def test_row_4_power_is_lost_with_every_crash() -> None:
    """All that was not synced is gone each time; mutations.py shows that a missing sync would be found."""
    lost = {"power_loss": 1.0, "survival": 0.0, "crash_step": 0.02, "lives_max": 7, "events": 30}
    for seed in range(2):
        world = simulate(seed, given=lost)
        assert "\n".join(world.trace).count("power was lost") > 2


def test_a_seed_always_tells_the_same_story() -> None:
    for seed in (3, 11):
        assert simulate(seed).trace == simulate(seed).trace


def test_the_seeds_meet_what_they_are_for() -> None:
    """Given the first seeds, each one exact, together they crash, lose power and see every outcome of an event."""
    worlds = [simulate(seed) for seed in range(_TOLD)]
    told = "\n".join(line for world in worlds for line in world.trace)
    for fault in (
        "CRASH at disk.",
        "CRASH at store.insert",
        "CRASH at between two steps",
        "power was lost",
        "DISK FULL",
        "inserted some partitions",
        "its reply was lost",
        "ended by a signal",
        "the command died alone",
    ):
        assert fault in told, fault
    for table in ("rejected_events", "conflicting_events", "late_events", "arrivals", *OF_COMMANDS):
        assert any(world.store.rows[table] for world in worlds), table
