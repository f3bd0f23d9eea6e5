"""A store, and the ledger beside it, as one side of a reconciliation."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ..config import Store
from ..errors import RefusedStart, StateError
from ..schema import LEDGER
from ..sources.ledger import as_events
from ..state.ledger import ledger_files, unsealed_files
from ..state.ledger_file import LedgerFile
from ..steps.amend import kinds_in
from ..steps.batches import Amends
from ..store import StoreClient, check_schema, connect
from ..store.queries.buckets import SUM_WORDS, lineages, usage_buckets, usage_quantities
from .asked import Scope
from .buckets import Buckets, Ints, Names, added, keys_of, starts_of, window_starts
from .sides import EVENT_ROWS, Quantities, event_rows

T = TypeVar("T")
BATCH_ROWS = 65_536
ASKED_AT_ONCE = 500
CUSTOMERS_MAX = 1_000
"""Of more customers than this the store is asked as of all."""


class StoreSide:
    """A store. It is opened for each question unless it is held: a process can have one embedded store open."""

    def __init__(self, store: Store, names: Names, ledger: Path | None = None, threads: int | None = None) -> None:
        """`ledger`: the folder in which the store's lineage keeps its events, if it does. `threads`: how many the store
        may use for a question; None: as it likes."""
        self._threads = threads
        self._held: StoreClient | None = None
        self.label = store.url
        self.store = store
        self._names = names
        self._ledger = ledger

    @contextmanager
    def open(self) -> Iterator[StoreClient]:
        """A connection that only reads; the one that is held, if there is one. Raises StoreError."""
        if self._held is not None:
            yield self._held
            return
        with connect(self.store, readonly=True, threads=self._threads) as client:
            check_schema(client)
            yield client

    @contextmanager
    def held(self) -> Iterator[None]:
        """While inside, the store stays open between questions. Raises StoreError."""
        with self.open() as client:
            self._held = client
            try:
                yield
            finally:
                self._held = None

    def buckets(self, grain: str, scope: Scope) -> Buckets:
        """Events and digests by customer and window of the grain. Raises StoreError."""
        with self.open() as client:
            rows = usage_buckets(client, grain, scope.from_s, scope.before_s, _asked(scope))
        customer = rows.column("customer").combine_chunks().dictionary_encode()
        numbers = self._names.numbers(customer.dictionary.to_pylist())
        of_rows = numbers[customer.indices.to_numpy()] if len(customer) else numbers[:0]
        keys = keys_of(of_rows, rows.column("start").to_numpy().astype(np.int64))
        sums = np.stack([rows.column(name).to_numpy() for name in SUM_WORDS], axis=1)
        return added(keys, rows.column("events").to_numpy().astype(np.int64), sums)

    def quantities(self, scope: Scope) -> Quantities:
        """What they used. Raises StoreError."""
        with self.open() as client:
            return usage_quantities(client, scope.from_s, scope.before_s, _asked(scope))

    def events(self, minutes: Ints) -> pa.Table | None:
        """EVENT_ROWS of the ledger in these minutes; None without a ledger. Raises RefusedStart, StateError."""
        if self._ledger is None:
            return None
        with self.open() as client:
            known = lineages(client)
        if unsealed := [path for path in unsealed_files(self._ledger) if path.name.partition("-")[0] in known]:
            raise RefusedStart(
                f"{unsealed[0]}: not sealed yet, a run is on or was cut short; events can be named once it has ended "
                "(`--no-events` compares without naming them)"
            )
        files = [path for path in ledger_files(self._ledger) if path.name.partition("-")[0] in known]
        found = [batch for path in files for batch in self._picked(path, minutes)]
        return pa.Table.from_batches(found, EVENT_ROWS)

    def _picked(self, path: Path, minutes: Ints) -> Iterator[pa.RecordBatch]:
        starts_s = np.unique(starts_of(minutes))
        try:
            with LedgerFile(path) as file:
                metadata = file.metadata
                groups = [n for n in range(metadata.num_row_groups) if _may_hold(metadata.row_group(n), starts_s)]
                for batch in file.batches(BATCH_ROWS, row_groups=groups):
                    yield from self._of_batch(batch, minutes)
        except (OSError, pa.ArrowException) as error:
            raise StateError(
                f"{path}: cannot be read ({str(error).splitlines()[0]}); restore it from a backup"
            ) from error

    def _of_batch(self, batch: pa.RecordBatch, minutes: Ints) -> Iterator[pa.RecordBatch]:
        seconds = batch.column("time").cast(pa.int64()).to_numpy() // 1_000_000
        customer = batch.column("customer").dictionary_encode()
        numbers = self._names.numbers(customer.dictionary.to_pylist())
        wanted = np.isin(keys_of(numbers[customer.indices.to_numpy()], window_starts(seconds, "minute")), minutes)
        if wanted.any():
            rows = batch.filter(pa.array(wanted))
            for kind, of_kind in kinds_in(rows):
                chosen = rows.filter(pa.array(of_kind))
                amends = Amends(kind, chosen.column("amends")) if kind else None
                yield event_rows(as_events(chosen, 0), chosen.column("source_position"), amends)


def in_parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    """As many of them as one question to the store may name."""
    return (items[n : n + ASKED_AT_ONCE] for n in range(0, len(items), ASKED_AT_ONCE))


def _asked(scope: Scope) -> Sequence[str] | None:
    return None if scope.customers is None or len(scope.customers) > CUSTOMERS_MAX else scope.customers


def _may_hold(group: pq.RowGroupMetaData, starts_s: Ints) -> bool:
    """Whether a row group has events within one of these minutes, as far as its statistics tell."""
    found = group.column(LEDGER.get_field_index("time")).statistics
    if found is None or not found.has_min_max:
        return True
    first, last = (
        int(np.datetime64(time.replace(tzinfo=None), "s").astype(np.int64)) for time in (found.min, found.max)
    )
    place = int(np.searchsorted(starts_s, first - first % 60))
    return place < len(starts_s) and int(starts_s[place]) <= last
