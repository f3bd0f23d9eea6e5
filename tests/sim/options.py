"""Swarm testing: every seed enables another subset of faults, at other rates, on another small
configuration.

Goal: reach corners that a run with every fault at a medium rate never reaches (a life long enough to seal
and retire segments, a store that is away for a whole life, a crash always at the same point). Method: most
options are off or extreme in most seeds.
"""

from dataclasses import dataclass, fields
from random import Random

from flow.faults import LATE_POINTS, POINTS, REDRIVE_POINTS

DISK_CALLS = (
    "disk.open",
    *(f"disk.{call}{when}" for call in ("fsync", "rename", "unlink", "mkdir") for when in ("", " done")),
)
"""What a crash may come before or after; see disk.py."""

CRASH_POINTS = tuple(dict.fromkeys((*POINTS, *REDRIVE_POINTS, *LATE_POINTS)))

_MINUTE_US = 60_000_000


@dataclass(frozen=True)
class Options:
    """One seed's configuration and fault rates; a rate is a probability at each opportunity."""

    # -- the job
    shards: int
    horizon_us: int | None
    generations: int
    segment_ids_max: int
    append_records: int
    rows_per_table_max: int
    ledger_file_bytes: int | None  # None: no ledger is kept
    outbox_bytes_max: int
    clock_skew_us: int
    # -- the input
    partitions: int
    events: int
    customers: int
    gap_us: int  # event time between two events
    hot_customer: float
    duplicate: float
    retimed: float  # of the duplicates
    conflicting: float
    bad: float
    future: float
    late: float
    disorder: float  # in events
    corrections: float  # of the events, each corrected by another one
    put: float  # of the lines, which a command puts into the inbox
    commands: int  # that are run beside the job
    inbox_chunk_bytes: int  # what the inbox is read by
    # -- the loop
    batch_lines_max: int
    epoch_steps_max: int
    publish_weight: float
    step_us_max: int  # wall time between two steps
    # -- faults
    lives_max: int  # lives with faults; the one after them is left in peace
    crash_step: float
    crash_point: tuple[tuple[str, float], ...]
    crash_disk: tuple[tuple[str, float], ...]
    crash_store: float
    crash_command: float  # at each of the points above, while a command is on
    power_loss: float  # of the crashes: what was not synced is lost; else the process alone dies
    survival: float  # how much of what was not synced survives a power loss
    clean_stop: float
    disk_full: float
    store_refuses: float
    store_loses_reply: float
    store_inserts_part: float
    second_start: float

    def lines(self) -> list[str]:
        """The options for a trace, one a line."""
        return [f"{field.name} = {getattr(self, field.name)}" for field in fields(self)]


def draw_options(rng: Random) -> Options:
    """The options of a seed."""

    def rate(*choices: float) -> float:
        """Off in half of the seeds."""
        return rng.choice(choices) if rng.random() < 0.5 else 0.0

    gap_us = rng.choice((1_000_000, 20_000_000, 7 * _MINUTE_US))
    bounded = rng.random() < 0.6
    points = _crash_points(rng)
    return Options(
        shards=rng.randint(1, 5),
        horizon_us=gap_us * rng.randint(8, 60) if bounded else None,
        generations=rng.randint(1, 6),
        segment_ids_max=rng.choice((4, 20, 1 << 20)),
        append_records=rng.choice((1, 7, 1 << 17)),
        rows_per_table_max=rng.choice((5, 1_000_000, 1_000_000)),
        ledger_file_bytes=rng.choice((None, 1, 6_000, 1 << 20)) if rng.random() < 0.7 else 4_000,
        outbox_bytes_max=rng.choice((0, 20_000, 1 << 30)),
        clock_skew_us=rng.choice((1_000_000, 5 * _MINUTE_US)),
        partitions=rng.randint(1, 4),
        events=rng.choice((12, 30, 60)),
        customers=rng.randint(1, 4),
        gap_us=gap_us,
        hot_customer=rate(0.9),
        duplicate=rate(0.05, 0.3, 0.6),
        retimed=rate(0.5, 1.0),
        conflicting=rate(0.05, 0.2),
        bad=rate(0.02, 0.2),
        future=rate(0.02, 0.1),
        late=rate(0.02, 0.1),
        disorder=rate(2.0, 30.0),
        batch_lines_max=rng.choice((3, 12, 60)),
        epoch_steps_max=rng.choice((8, 40)),
        publish_weight=rng.choice((0.2, 1.0, 3.0)),
        step_us_max=rng.choice((100_000, 2_000_000, 20 * _MINUTE_US)),
        lives_max=rng.choice((2, 3, 7)),
        crash_step=rate(0.002, 0.02),
        crash_point=points,
        crash_disk=_crash_calls(rng),
        crash_store=rate(0.02, 0.1),
        power_loss=rng.choice((0.0, 0.5, 0.5, 1.0)),
        survival=rng.choice((0.0, 0.5, 0.5, 1.0)),
        clean_stop=rate(0.1, 0.5),
        disk_full=rate(0.002, 0.01),
        store_refuses=rate(0.02, 0.1),
        store_loses_reply=rate(0.02, 0.1),
        store_inserts_part=rate(0.02, 0.1),
        second_start=rate(0.02),
        corrections=rate(0.1, 0.4),
        put=rate(0.1, 0.4),
        commands=rng.choice((0, 3, 6)),
        crash_command=rate(0.03, 0.1),
        inbox_chunk_bytes=rng.choice((1, 900, 1 << 20)),
    )


def _crash_calls(rng: Random) -> tuple[tuple[str, float], ...]:
    """The same for calls that change the disk, before and after each."""
    kind = rng.random()
    if kind < 0.4:
        return ()
    if kind < 0.7:
        return tuple((name, 0.005) for name in DISK_CALLS)
    return ((rng.choice(DISK_CALLS), rng.choice((0.05, 0.3))),)


def _crash_points(rng: Random) -> tuple[tuple[str, float], ...]:
    """Nowhere, seldom everywhere, or often at one point."""
    kind = rng.random()
    if kind < 0.3:
        return ()
    if kind < 0.6:
        return tuple((name, 0.01) for name in CRASH_POINTS)
    return ((rng.choice(CRASH_POINTS), rng.choice((0.1, 0.5))),)
