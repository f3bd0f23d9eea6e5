"""Synthetic events, made as they are read: event i is a function of the seed and i, so a position is just a number."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bytewax.inputs import FixedPartitionedSource

from ..generate import Synthetic, batches
from ..state.manifest import seal, unseal
from ..steps.batches import Columns
from .ahead import Ahead
from .pausing import Flow, Item, PausingPartition

MANIFEST = "synthetic"


@dataclass(frozen=True)
class SyntheticSource(FixedPartitionedSource[Item, bytes]):
    """Each reader makes every n-th batch, and keeps the batch size that it began with, so that none is left out."""

    spec: Synthetic
    readers: int
    batch_rows: int
    flow: Flow
    prepare: Callable[[Item], Item]
    """Done to each batch on a thread of the reader, ahead of the dataflow."""

    def list_parts(self) -> list[str]:
        return [f"reader-{number:03d}" for number in range(self.readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        number = int(for_part.rpartition("-")[2])
        if resume_state is None:
            return _Reader(self, number, number * self.batch_rows, self.batch_rows)
        kept = unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}")
        return _Reader(self, number, kept["next"], kept["batch_rows"])


class _Reader(PausingPartition[Item]):
    def __init__(self, source: SyntheticSource, number: int, first: int, batch_rows: int) -> None:
        super().__init__(source.flow, leads=number == 0)
        self._next = first
        self._batch_rows = batch_rows
        self._made = Ahead(_batches(source, first, batch_rows), source.prepare, source.readers)

    def read(self) -> list[Item] | None:
        made = self._made.take()
        if made is None:
            return None
        item, self._next = made
        return [item]

    def close(self) -> None:
        self._made.close()

    def snapshot(self) -> bytes:
        return seal(MANIFEST, {"next": self._next, "batch_rows": self._batch_rows})


def _batches(source: SyntheticSource, first: int, rows: int) -> Iterator[tuple[Item, int]]:
    """Batches from `first` on, each with the event at which the reader goes on behind it."""
    spec = source.spec
    while first < spec.events:
        batch_end = (first // rows + 1) * rows
        # A batch that the end of the spec cuts short is finished first, should the spec have more events one day.
        end = min(batch_end, spec.events)
        item = Columns(f"synthetic seed {spec.seed}", first, next(batches(spec, first, end - first)))
        first = end + rows * (source.readers - 1) if end == batch_end else end
        yield item, first
