"""What the filters of retired generations say of late events: which were certainly never counted, and which perhaps.

A late event was in none of the generations that the horizon still had when it came. If every generation that was
retired by then has left a filter (`state/retired.py`), and none of those may have the event, it was never counted.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum

from ..kernels import fingerprints_of, split_by_shard
from ..state.directory import Lineage, StateDirectory
from ..state.retired import MISTAKEN_PER_MILLION, RetiredFilters
from ..steps.shards import shard_name


class Before(StrEnum):
    """Whether an event was billed before it came late."""

    NEVER = "never"
    LIKELY = "likely"
    UNKNOWN = "unknown"
    """No filter has it, and some are missing."""


@dataclass(frozen=True, slots=True)
class BilledBefore:
    """What is known of one event."""

    before: Before
    mistaken_per_million: int
    """Of a million events that were never billed, at most so many are told to be `likely`."""


def billed_before(
    directory: StateDirectory,
    lineage: Lineage,
    identities: Iterable[tuple[str, str]],
    advance: Callable[[int], None] = lambda shards: None,
) -> dict[tuple[str, str], BilledBefore]:
    """Asks the filters of the shards that late events (`source`, `id`) belong to.

    `advance` is told after each shard how many more are done. Raises StateError, naming a damaged file.
    """
    asked = list(dict.fromkeys(identities))
    prints = fingerprints_of(asked)
    known = {}
    for shard, (rows, count) in enumerate(split_by_shard(prints, lineage.shards)):
        chosen = memoryview(rows).cast("b").cast("I")[:count].tolist()
        if chosen:
            wanted = b"".join(bytes(prints[16 * row : 16 * row + 16]) for row in chosen)
            found = RetiredFilters(directory.shard(shard_name(shard))).ask(wanted)
            mistaken = min(found.filters * MISTAKEN_PER_MILLION, 1_000_000)
            for row, perhaps in zip(chosen, found.perhaps, strict=True):
                before = Before.LIKELY if perhaps else Before.NEVER if found.complete else Before.UNKNOWN
                known[asked[row]] = BilledBefore(before, mistaken)
        advance(1)
    return known
