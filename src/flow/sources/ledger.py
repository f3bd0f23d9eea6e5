"""Replay: the events of a ledger, in the order in which they were accepted. They were validated then, not again."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from bytewax.inputs import FixedPartitionedSource

from ..errors import SourceError
from ..schema import DIMENSIONS, EVENTS, LEDGER_AMENDED, USAGE
from ..state.ledger import ledger_files, unsealed_files
from ..state.ledger_file import LedgerFile
from ..state.manifest import seal, unseal
from ..steps.amend import kinds_in
from ..steps.batches import Amends, Decoded, Rejects, no_events
from .ahead import Ahead
from .pausing import Flow, Item, PausingPartition

MANIFEST = "ledger"
_READ = [name for name in LEDGER_AMENDED.names if name != "source_position"]


class LedgerSource(FixedPartitionedSource[Item, bytes]):
    """Reads the sealed files of a ledger folder; a file belongs to one of a fixed number of readers by its name."""

    def __init__(
        self, folder: Path, readers: int, batch_rows: int, flow: Flow, prepare: Callable[[Decoded], Item]
    ) -> None:
        """`prepare` is done to each batch on a thread of the reader, ahead of the dataflow."""
        self._files = ledger_files(folder)
        if not self._files:
            raise SourceError(f"{folder}: no ledger files there; look at source.path and ledger in the config")
        if unsealed := unsealed_files(folder):
            raise SourceError(
                f"{unsealed[0]}: not sealed yet, a run is on or ended badly; let `tallyflow run` of that config finish"
            )
        self._folder = folder
        self._readers = readers
        self._batch_rows = batch_rows
        self._flow = flow
        self._prepare = prepare

    def list_parts(self) -> list[str]:
        return [f"reader-{number:03d}" for number in range(self._readers)]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        number = int(for_part.rpartition("-")[2])
        names = [str(path.relative_to(self._folder)) for path in self._files]
        mine = [name for name in names if zlib.crc32(name.encode()) % self._readers == number]
        done: dict[str, int] = {}
        if resume_state is not None:
            done = unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}")["rows"]
        items = Ahead(self._all(mine, dict(done)), self._prepare, self._readers)
        return _Reader(items, done, self._flow, leads=number == 0)

    def _all(self, names: list[str], done: dict[str, int]) -> Iterator[tuple[Decoded, tuple[str, int]]]:
        """Batches behind what is `done` of each file, and how far it is read with them."""
        for name in names:
            path = self._folder / name
            try:
                with LedgerFile(path) as file:
                    row = 0
                    for batch in file.batches(self._batch_rows, _READ):
                        end = row + batch.num_rows
                        if row >= done.get(name, 0):
                            yield _decoded(str(path), row, batch), (name, end)
                        row = end
            except (OSError, pa.ArrowException) as error:
                raise SourceError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error


class _Reader(PausingPartition[Item]):
    def __init__(
        self, items: Ahead[Decoded, Item, tuple[str, int]], done: dict[str, int], flow: Flow, *, leads: bool
    ) -> None:
        super().__init__(flow, leads=leads)
        self._done = done
        self._items = items

    def read(self) -> list[Item] | None:
        read = self._items.take()
        if read is None:
            return None
        item, (name, self._done[name]) = read
        return [item]

    def close(self) -> None:
        self._items.close()

    def snapshot(self) -> bytes:
        return seal(MANIFEST, {"rows": self._done})


def _decoded(origin: str, row: int, batch: pa.RecordBatch) -> Decoded:
    """What was accepted once is not too late now."""
    events, nothing, apart = as_events(batch, row), Rejects(origin).batch(), []
    plain = no_events()
    for kind, rows in kinds_in(batch):
        if not kind:
            plain = events if rows.all() else events.filter(pa.array(rows))
            continue
        amends = Amends(kind, batch.column("amends").filter(pa.array(rows)))
        chosen = events.filter(pa.array(rows))
        apart.append(Decoded(origin, chosen, nothing, chosen.num_rows, 0, amends=amends, admitted=True))
    return Decoded(origin, plain, nothing, plain.num_rows, 0, apart=tuple(apart))


def as_events(batch: pa.RecordBatch, row: int) -> pa.RecordBatch:
    """LEDGER rows as EVENTS; `row`: the place of the first one in its file."""
    usage = batch.column("usage")
    items = pa.StructArray.from_arrays(
        [_coded(usage.keys), usage.items.cast(pa.int64())], fields=list(USAGE.value_type)
    )
    # the offsets of a batch of a larger array do not begin at 0
    first = usage.offsets[0].as_py()
    offsets = pa.compute.subtract(usage.offsets, pa.scalar(first, pa.int32()))
    items = items.slice(first, usage.offsets[-1].as_py() - first)
    columns = {
        "id": batch.column("id"),
        "source": _coded(batch.column("source")),
        "event_time_us": batch.column("time").cast(pa.int64()),
        **{name: _coded(batch.column(name)) for name in DIMENSIONS},
        "usage": pa.ListArray.from_arrays(offsets, items, type=USAGE),
        "position": pa.array(range(row, row + batch.num_rows), pa.int64()),
    }
    return pa.RecordBatch.from_arrays([_whole(columns[name]) for name in EVENTS.names], schema=EVENTS)


def _coded(column: pa.Array) -> pa.DictionaryArray:
    return column if pa.types.is_dictionary(column.type) else column.dictionary_encode()


def _whole(column: pa.Array) -> pa.Array:
    """The same without an offset into a larger array, which kernels do not follow."""
    return pa.concat_arrays([column]) if column.offset == 0 else column.take(pa.array(range(len(column))))
