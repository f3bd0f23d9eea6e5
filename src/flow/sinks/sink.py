"""The Bytewax sink: one partition a shard, each with a Writer of its own.

Always a FixedPartitionedSink: the progress of a DynamicSink is not part of Bytewax's recovery, which could then lose
blocks.
"""

from collections.abc import Callable, Sequence

from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition

from ..state.manifest import seal, unseal
from ..steps.combine import MeterTotals, add_totals
from ..steps.rate import Rated
from ..steps.shards import shard_name
from .writer import MANIFEST, Writer


class BlockSink(FixedPartitionedSink[Rated, bytes]):
    """`make_writer` makes the Writer of a shard; the ones of this process are kept, so that the job can finish them.
    `keys` are those of the shards, by their numbers."""

    def __init__(self, keys: Sequence[str], make_writer: Callable[[str], Writer]) -> None:
        self._shards = [shard_name(number) for number in range(len(keys))]
        self._number_of = {key: number for number, key in enumerate(keys)}
        self._make_writer = make_writer
        self.writers: list[Writer] = []

    def billed(self) -> MeterTotals:
        """What the writers of this process have billed in this run."""
        totals: MeterTotals = {}
        for writer in self.writers:
            add_totals(totals, writer.meters)
        return totals

    def list_parts(self) -> list[str]:
        return self._shards

    def part_fn(self, item_key: str) -> int:
        return self._number_of[item_key]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_BlockPartition":
        writer = self._make_writer(for_part)
        where = f"recovery store, step {step_id}, {for_part}"
        writer.resume(unseal(resume_state, MANIFEST, where) if resume_state is not None else None)
        self.writers.append(writer)
        return _BlockPartition(writer)


class _BlockPartition(StatefulSinkPartition[Rated, bytes]):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write_batch(self, values: list[Rated]) -> None:
        for rated in values:
            self._writer.add(rated)

    def snapshot(self) -> bytes:
        return seal(MANIFEST, self._writer.snapshot())

    # No close(): Bytewax calls it on a crash as well, where flushing would count twice.
