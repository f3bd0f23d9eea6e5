"""A store that keeps its promise and nothing more.

Goal: what ClickHouse does to a publisher: it refuses, loses replies, inserts some partitions of a file and
then fails, and remembers the tokens of a bounded number of blocks. Method: `FakeStore.connect` gives what
`sinks/publisher.py` needs of a StoreClient; rows go from the Arrow file into Python values. A token that is
known drops the rows in silence, as the real one does, whatever they are.
"""

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa

from flow.store.client import StoreUnavailable

from .options import Options

TOKENS_MAX = 100
"""Tokens remembered by table and partition, of the real 10,000: more than one publisher can have under way."""

Row = dict[str, Any]


class FakeStore:
    """The server: it outlives every process. `on_call(name)` may raise; `calm` ends all faults."""

    def __init__(self, rng: Random, options: Options, on_call: Callable[[str], None]) -> None:
        self.rows: dict[str, list[Row]] = defaultdict(list)
        self.calm = False
        self.inserts = 0
        self._rng = rng
        self._options = options
        self._on_call = on_call
        self._tokens: dict[tuple[str, int], deque[str]] = defaultdict(lambda: deque(maxlen=TOKENS_MAX))
        self._away = 0  # calls that will still be refused

    def connect(self) -> "FakeClient":
        """A connection. Raises StoreUnavailable."""
        self._refuse()
        return FakeClient(self)

    def insert(self, table: str, token: str, content: bytes) -> None:
        """One INSERT of an Arrow file. Raises StoreUnavailable, before or after some or all of it is in."""
        self._on_call("store.insert")
        self._refuse()
        partitions = sorted(_partitioned(table, read_rows(content)).items())
        if self._happens(self._options.store_inserts_part):
            partitions = [pair for pair in partitions if self._rng.random() < 0.5]
            self._apply(table, token, partitions)
            raise StoreUnavailable("the simulated store inserted some partitions and went away")
        self._apply(table, token, partitions)
        self._on_call("store.insert done")
        if self._happens(self._options.store_loses_reply):
            raise StoreUnavailable("the simulated store inserted everything, but its reply was lost")

    def _refuse(self) -> None:
        if self._away == 0 and self._happens(self._options.store_refuses):
            self._away = self._rng.choice((1, 3, 30))
        if self._away and not self.calm:
            self._away -= 1
            raise StoreUnavailable("the simulated store is away")

    def _happens(self, rate: float) -> bool:
        return not self.calm and self._rng.random() < rate

    def _apply(self, table: str, token: str, partitions: Iterable[tuple[int, list[Row]]]) -> None:
        for month, rows in partitions:
            known = self._tokens[table, month]
            if token not in known:
                known.append(token)
                self.rows[table].extend(rows)
                self.inserts += 1


@dataclass
class FakeClient:
    """What `insert_arrow_file` and the publisher use of a StoreClient."""

    store: FakeStore
    embedded: bool = False

    def knows_setting(self, name: str) -> bool:
        return name == "deduplicate_insert"

    def insert_file(self, table: str, columns: Sequence[str], path: Path, settings: dict[str, str]) -> None:
        assert settings["insert_deduplicate"] == "1" and settings["async_insert"] == "0"
        self.store.insert(table, settings["insert_deduplication_token"], path.read_bytes())

    def close(self) -> None:
        pass


def read_rows(content: bytes) -> list[Row]:
    """The rows of an Arrow file; 128-bit values, amounts (10^-15) and times (seconds or microseconds) as int."""
    table = pa.ipc.open_file(pa.BufferReader(content)).read_all().combine_chunks()
    columns = {name: _values(name, table.column(name)) for name in table.column_names}
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _values(name: str, column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if pa.types.is_decimal(kind) or kind == pa.binary(16):
        signed = name not in ("digest", "key", "fingerprint")
        content = b"".join(bytes(c.buffers()[1])[16 * c.offset : 16 * (c.offset + len(c))] for c in column.chunks)
        return [int.from_bytes(content[n : n + 16], "little", signed=signed) for n in range(0, len(content), 16)]
    if pa.types.is_timestamp(kind):
        return column.cast(pa.int64()).to_pylist()
    return column.to_pylist()


def _partitioned(table: str, rows: list[Row]) -> dict[int, list[Row]]:
    """Rows by month, as the real tables are partitioned; about: any fixed cut by time will do."""
    months: dict[int, list[Row]] = {}
    for row in rows:
        when_s = row["window_start"] if "window_start" in row else row.get("seen_at", 0) // 1_000_000
        months.setdefault(when_s // (30 * 86_400), []).append(row)
    return months
