"""Accepted events by their identity: what the ledger has of a source and id, exactly.

No index is kept for it. Ids are looked for in the ids alone, a row group at a time, and only of a row group that has
some is the rest read: about 10 million events a second and core, however many identities are asked for at once. Row
groups with times near those that are expected come first, and nothing more is read once all is found.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ..errors import StateError
from ..schema import DIMENSIONS, LEDGER
from .ledger import ledger_files, unsealed_files, unsealed_rows
from .ledger_file import LedgerFile, is_ledger

EventIdentity = tuple[str, str]
"""`source` and `id`."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
BATCH_ROWS = 1 << 16
NEAR_US = 3_600_000_000
"""A retry seldom has a time further from that of the first try."""


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """An event as it was accepted."""

    source: str
    id: str
    event_time_us: int
    dimensions: dict[str, str]
    usage: dict[str, int]
    source_position: str
    file: Path
    """The file of the ledger that has it."""
    amends: str = ""
    """JSON of what it says besides, if it is a correction or was billed late."""


def find_events(
    folder: Path, lineage: str, expected_us: Mapping[EventIdentity, int], committed: Mapping[str, int]
) -> dict[EventIdentity, LedgerEvent]:
    """What a ledger has of these identities; whoever is not in the answer was never accepted.

    If a ledger has an identity more than once (it came again behind the horizon), the answer is one of them.

    Args:
        folder: the ledger. Files that are not sealed yet are looked through too, as far as they are committed.
        lineage: whose events they are; a folder may have those of others.
        expected_us: at which event time each is expected, which decides nothing but where to look first.
        committed: how many bytes of each open file are, by its name.
    Raises:
        StateError: a file cannot be read.
    """
    search = _Search(expected_us)
    for path in unsealed_files(folder):  # first: one that is sealed meanwhile is among the sealed ones then
        if _is_of(path, lineage):
            search.look_through_open(path, committed.get(path.name, 0))
    groups = [group for path in ledger_files(folder) if _is_of(path, lineage) for group in _groups(path)]
    expected = sorted(expected_us.values())
    groups.sort(key=lambda group: not group.has_time_near(expected))
    for group in groups:
        search.look_through(group)
    return search.found


def _is_of(path: Path, lineage: str) -> bool:
    return path.name.startswith(f"{lineage}-")


@dataclass(frozen=True, slots=True)
class _Group:
    """One row group of a sealed file."""

    path: Path
    number: int
    times_us: tuple[int, int] | None
    """The first and the last; None: the file does not tell."""

    def has_time_near(self, expected_us: Sequence[int]) -> bool:
        """`expected_us`: ascending."""
        if self.times_us is None:
            return True
        first, last = self.times_us
        at = bisect_left(expected_us, first - NEAR_US)
        return at < len(expected_us) and expected_us[at] <= last + NEAR_US


def _groups(path: Path) -> Iterator[_Group]:
    try:
        metadata = pq.read_metadata(path)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(path, error) from error
    if not is_ledger(metadata.schema.to_arrow_schema()):
        raise StateError(f"{path}: its columns are not those of a ledger; restore it from a backup")
    for number in range(metadata.num_row_groups):
        times = metadata.row_group(number).column(LEDGER.names.index("time")).statistics
        if times is None or not times.has_min_max:
            yield _Group(path, number, None)
        else:
            yield _Group(path, number, (_microseconds(times.min), _microseconds(times.max)))


class _Search:
    """Looks for identities until all are found."""

    def __init__(self, wanted: Iterable[EventIdentity]) -> None:
        self.found: dict[EventIdentity, LedgerEvent] = {}
        self._wanted = set(wanted)
        self._ids = pa.array(sorted({id_ for _, id_ in self._wanted}), pa.string())

    def look_through(self, group: _Group) -> None:
        if not self._wanted:
            return
        try:
            with LedgerFile(group.path, memory_map=True) as file:
                if any(found.num_rows for found in file.batches(BATCH_ROWS, ["id"], [group.number], self._ids_wanted)):
                    for events in file.batches(BATCH_ROWS, row_groups=[group.number], where=self._ids_wanted):
                        self._take(events, group.path)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(group.path, error) from error

    def look_through_open(self, path: Path, length: int) -> None:
        try:
            for events in unsealed_rows(path, length):
                if self._wanted:
                    self._take(events.filter(self._ids_wanted(events)), path)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(path, error) from error

    def _ids_wanted(self, events: pa.RecordBatch) -> pa.BooleanArray:
        return pc.is_in(events.column("id"), self._ids)

    def _take(self, events: pa.RecordBatch, path: Path) -> None:
        """Keeps the events that are wanted, of rows whose ids are."""
        for row in events.to_pylist():
            identity = row["source"], row["id"]
            if identity in self._wanted:
                self._wanted.remove(identity)
                self.found[identity] = _event(row, path)


def _event(row: dict[str, Any], path: Path) -> LedgerEvent:
    return LedgerEvent(
        row["source"],
        row["id"],
        _microseconds(row["time"]),
        {name: row[name] for name in DIMENSIONS},
        dict(row["usage"]),
        row["source_position"],
        path,
        row.get("amends") or "",
    )


def _microseconds(time: datetime) -> int:
    return (time - EPOCH) // timedelta(microseconds=1)


def _unreadable(path: Path, error: Exception) -> StateError:
    return StateError(f"{path}: cannot be read: {str(error).splitlines()[0]}; restore it from a backup")
