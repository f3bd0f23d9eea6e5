"""Synthetic events, made as they are read: event i is a function of the seed and i, so a position is just a number."""

from dataclasses import dataclass

from bytewax.inputs import FixedPartitionedSource

from ..generate import Synthetic, batches
from ..state.manifest import seal, unseal
from ..steps.batches import Columns
from .pausing import Flow, Item, PausingPartition

MANIFEST = "synthetic"


@dataclass(frozen=True)
class SyntheticSource(FixedPartitionedSource[Item, bytes]):
    """Each reader makes every n-th batch."""

    spec: Synthetic
    readers: int
    batch_rows: int
    flow: Flow

    def list_parts(self) -> list[str]:
        return [f"reader-{number:03d}" for number in range(self.readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        first = int(for_part.rpartition("-")[2]) * self.batch_rows
        if resume_state is not None:
            first = unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}")["next"]
        return _Reader(self, first)


class _Reader(PausingPartition[Item]):
    def __init__(self, source: SyntheticSource, first: int) -> None:
        super().__init__(source.flow)
        self._source = source
        self._next = first

    def read(self) -> list[Item] | None:
        spec, rows = self._source.spec, self._source.batch_rows
        if self._next >= spec.events:
            return None
        first = self._next
        table = next(batches(spec, first, min(rows, spec.events - first)))
        self._next = first + rows * self._source.readers
        return [Columns(f"synthetic seed {spec.seed}", first, table)]

    def snapshot(self) -> bytes:
        return seal(MANIFEST, {"next": self._next})
