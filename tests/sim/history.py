"""What was committed, in the order in which each shard judged it: what the oracle starts from."""

from collections import defaultdict
from dataclasses import dataclass, field

from .workload import Line


@dataclass(frozen=True, eq=False)
class Batch:
    """What of one batch that a source gave goes on together, and the wall clock when it was decoded.

    Plain events and rejected lines are one part of it; corrections, and late events that are billed now, one each.
    """

    lines: tuple[Line, ...]
    now_us: int
    admitted: bool = False
    """Whether its events are accepted however old they are."""


@dataclass
class History:
    """Per shard, the batches that it judged in committed epochs, in order."""

    judged: dict[str, list[Batch]] = field(default_factory=lambda: defaultdict(list))

    def commit(self, epoch_log: dict[str, list[Batch]]) -> None:
        for shard, batches in epoch_log.items():
            self.judged[shard].extend(batches)

    def batches(self) -> list[Batch]:
        """Every committed batch, once."""
        return list(dict.fromkeys(batch for batches in self.judged.values() for batch in batches))
