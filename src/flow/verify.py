"""Holds what the store says against the ledger, with the slow oracle. Start at `verify`.

Every accepted event is read back from the ledger's Parquet files, hashed, priced and added up in plain Python integers
(`flow/oracle`; no kernel takes part), and the five views are compared row by row: quantity, amount, currency, events,
unpriced quantity and digest. Events are priced by the config's book, and those that were re-rated by the book of the
last re-rating that they were in. Customers are taken in groups, in the order of their names, so that memory follows the
size of a group (and of the largest customer) and not that of the ledger: 16 bytes an event are kept of all, to find an
id that was accepted twice.
"""

from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .config import Config
from .errors import ConfigError, RefusedStart, StateError
from .oracle.hashing import fingerprint, words
from .oracle.rollup import GRAINS, Dims, Key, Rates, Rollup, Row, Rows, window_end_s, window_start_s
from .prices.book import PriceBook, load_price_book
from .schema import DIMENSIONS, LEDGER_AMENDED
from .sinks.outbox import empty_outbox
from .state.directory import Lineage, StateDirectory
from .state.ledger import ledger_files, unsealed_files, writer_and_number
from .state.ledger_file import LedgerFile
from .state.rerates import Rerate, Rerates
from .steps.books import Books
from .store.client import StoreClient, connect
from .store.migrate import check_schema
from .store.queries.storage_agreement import (
    accepted_by_writer,
    ambiguous_keys,
    customer_rows,
    day_disagreements,
)
from .store.queries.view_rows import CustomerRange, ViewRow, view_rows

GROUP_EVENTS = 200_000
"""Events of one group of customers; about 1 KB of memory each."""
BATCH_ROWS = 65_536
TIME_END_S = 2**32 - 1
"""Behind every window: what a DateTime can hold."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that the ledger and the store do not agree on."""

    where: str
    """A view, a storage table, or `ledger`."""
    window_start: str
    """ISO 8601, empty where there is no window."""
    dimensions: dict[str, str]
    meter: str
    column: str
    ledger: str
    """What it should be."""
    store: str
    """What it is."""


@dataclass
class Report:
    """What was compared, and what differs."""

    differences_max: int
    events: int = 0
    rows: int = 0
    difference_count: int = 0
    differences: list[Difference] = field(default_factory=list)
    """The first `differences_max` of them."""

    def add(self, difference: Difference) -> None:
        self.difference_count += 1
        if len(self.differences) < self.differences_max:
            self.differences.append(difference)


@dataclass(frozen=True, slots=True)
class Scope:
    """What is compared: everything, one customer, the windows that a period touches."""

    customer: str | None = None
    start_s: int = 0
    end_s: int = TIME_END_S

    @property
    def whole(self) -> bool:
        return self.customer is None and (self.start_s, self.end_s) == (0, TIME_END_S)

    def starts(self, grain: str) -> tuple[int, int]:
        """The first window of a grain that is compared, and the first one that is not any more."""
        return window_start_s(grain, self.start_s), self.end_s

    def event_times_us(self) -> tuple[int, int]:
        """The event times that all compared windows together hold: weeks and months reach beyond the period."""
        first = min(window_start_s(grain, self.start_s) for grain in GRAINS)
        last_s = self.end_s - 1
        before = max(window_end_s(grain, window_start_s(grain, last_s)) for grain in GRAINS)
        return first * 1_000_000, before * 1_000_000


def verify(
    config: Config,
    scope: Scope | None = None,
    differences_max: int = 20,
    on_events: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Compares the ledger of a config's lineage with the store; `on_events` is told how many of how many are done.

    Raises ConfigError, RefusedStart, StateError, StoreError.
    """
    if config.ledger is None:
        raise ConfigError("ledger: this config keeps none; `tallyflow verify` recomputes from it: add `ledger: FOLDER`")
    book = load_price_book(config.prices, config.limits.quantity_max)
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None:
        raise StateError(f"{config.state_dir}: no run has begun here yet; run `tallyflow run` first")
    with StateDirectory(config.state_dir) as directory:
        refuse_unfinished(directory, config.ledger, lineage)
        rerates = Rerates(directory.path)
        rerates.refuse_unfinished()
        ledger = Ledger(config.ledger, lineage, rerates.all())
        books = Books(directory.path, config.limits.quantity_max)
        with connect(config.store, readonly=True) as client:
            check_schema(client)
            _refuse_other_lineage(client, lineage)
            verification = _Verification(client, book, books, ledger, scope or Scope(), Report(differences_max))
            return verification.run(on_events)


def refuse_unfinished(directory: StateDirectory, folder: Path | None, lineage: Lineage) -> None:
    """Events in open files, or blocks in the outbox, are not in what is read. Raises RefusedStart."""
    if folder is not None and any(path.name.startswith(f"{lineage.id}-") for path in unsealed_files(folder)):
        raise RefusedStart(
            f"{folder}: the last run was cut short and has files of the ledger unsealed; run `tallyflow run` first"
        )
    if not empty_outbox(directory.outbox):
        raise RefusedStart(f"{directory.outbox}: blocks wait there for the store; run `tallyflow run` first")


def _refuse_other_lineage(client: StoreClient, lineage: Lineage) -> None:
    known = {row[0] for row in client.rows("SELECT lineage FROM lineages")}
    if known != {lineage.id}:
        raise RefusedStart(
            f"store {client.label}: holds lineage {', '.join(sorted(known)) or 'none'}, the state directory is of "
            f"lineage {lineage.id}; name the store that belongs to it in the config"
        )


# ---- The ledger ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LedgerEvent:
    """One accepted event."""

    source: str
    id: str
    event_time_us: int
    dims: Dims
    usage: list[tuple[str, int]]
    book: str = ""
    """The digest of the price book by which it was re-rated last; "": it never was."""
    amends: str = ""
    """JSON of what it says besides, if it is a correction or was billed late."""


class Ledger:
    """The sealed files of one lineage."""

    def __init__(self, folder: Path, lineage: Lineage, rerates: Sequence[Rerate] = ()) -> None:
        self._rerates = rerates
        self.files = [path for path in ledger_files(folder) if path.name.startswith(f"{lineage.id}-")]

    def batches(self, columns: list[str], path: Path | None = None) -> Iterator[pa.RecordBatch]:
        """The rows of all files, or of one. Raises StateError for a file that is not whole."""
        for one in self.files if path is None else [path]:
            try:
                with LedgerFile(one) as file:
                    yield from file.batches(BATCH_ROWS, columns)
            except (OSError, pa.ArrowException) as error:
                raise StateError(
                    f"{one}: cannot be read ({str(error).splitlines()[0]}); restore it from a backup"
                ) from error

    def events(self, customers: CustomerRange, times_us: tuple[int, int]) -> Iterator[LedgerEvent]:
        """The events of some customers with times in [first, before). Raises StateError."""
        for path in self.files:
            covering = [rerate for rerate in self._rerates if rerate.covers(*writer_and_number(path))]
            for event in self._events_of(path, customers, times_us):
                yield _rerated(event, covering)

    def _events_of(self, path: Path, customers: CustomerRange, times_us: tuple[int, int]) -> Iterator[LedgerEvent]:
        for batch in self.batches(LEDGER_AMENDED.names, path):
            customer, time = batch.column("customer"), batch.column("time").cast(pa.int64())
            wanted = pc.and_(
                pc.and_(pc.greater_equal(customer, customers.first), pc.less_equal(customer, customers.last)),
                pc.and_(pc.greater_equal(time, times_us[0]), pc.less(time, times_us[1])),
            )
            yield from _ledger_events(batch.filter(wanted))


def _rerated(event: LedgerEvent, rerates: Sequence[Rerate]) -> LedgerEvent:
    """The event with the book of the last re-rating that it was in."""
    customer = event.dims[DIMENSIONS.index("customer")]
    for rerate in reversed(rerates):
        if rerate.customer in (None, customer) and rerate.from_us <= event.event_time_us < rerate.before_us:
            return replace(event, book=rerate.book)
    return event


def _ledger_events(batch: pa.RecordBatch) -> Iterator[LedgerEvent]:
    usage = batch.column("usage")
    meters, quantities = usage.keys.to_pylist(), usage.items.to_pylist()
    items = list(zip(meters, quantities, strict=True))
    offsets = usage.offsets.to_pylist()
    first = offsets[0] if batch.num_rows else 0
    dims = zip(*(batch.column(name).to_pylist() for name in DIMENSIONS), strict=True)
    times = batch.column("time").cast(pa.int64()).to_pylist()
    sources, ids = batch.column("source").to_pylist(), batch.column("id").to_pylist()
    amended = "amends" in batch.schema.names
    amends = batch.column("amends").to_pylist() if amended else [None] * batch.num_rows
    for n, (source, id_, time, of_event, text) in enumerate(zip(sources, ids, times, dims, amends, strict=True)):
        usage_of = items[offsets[n] - first : offsets[n + 1] - first]
        yield LedgerEvent(source, id_, time, of_event, usage_of, amends=text or "")


# ---- The comparison -----------------------------------------------------------------------------------------------


class _Verification:
    """One run of `verify`."""

    def __init__(
        self, client: StoreClient, book: PriceBook, books: Books, ledger: Ledger, scope: Scope, report: Report
    ) -> None:
        self._client = client
        self._book = book
        self._books = books
        self._ledger = ledger
        self._scope = scope
        self._report = report
        self._rates = {"": Rates(book.prices, book.unbilled, book.adjustments)}
        self._seen = (array("Q"), array("Q"))  # low and high halves of every fingerprint

    def run(self, on_events: Callable[[int, int], None]) -> Report:
        counts = self._count_customers()
        if self._scope.whole:
            self._compare_balance()
        total = sum(counts.values())
        for customers in self._groups(counts):
            rollup = Rollup(self._rates[""])
            by_book = {"": rollup}
            for event in self._ledger.events(customers, self._scope.event_times_us()):
                if event.book not in by_book:
                    by_book[event.book] = Rollup(self._rates_of(event.book), rollup.minutes)
                adding = by_book[event.book]
                said = (event.source, event.id, event.event_time_us, event.dims, event.usage, event.amends)
                low, high = words(adding.add(*said))
                self._seen[0].append(low)
                self._seen[1].append(high)
                self._report.events += 1
                if self._report.events % 10_000 == 0:
                    on_events(self._report.events, total)
            for grain, rows in rollup.grains():
                self._compare_view(grain, rows, customers)
            self._compare_storage(customers)
            on_events(self._report.events, total)
        self._find_duplicates()
        return self._report

    def _rates_of(self, digest: str) -> Rates:
        """What a book says by which something was re-rated. Raises StateError."""
        if digest not in self._rates:
            book = self._books.of(digest, "a re-rating")
            self._rates[digest] = Rates(book.prices, book.unbilled, book.adjustments)
        return self._rates[digest]

    def _count_customers(self) -> Counter[str]:
        """The events of each customer in scope."""
        counts: Counter[str] = Counter()
        first_us, before_us = self._scope.event_times_us()
        for batch in self._ledger.batches(["customer", "time"]):
            time = batch.column("time").cast(pa.int64())
            batch = batch.filter(pc.and_(pc.greater_equal(time, first_us), pc.less(time, before_us)))
            for entry in batch.column("customer").value_counts().to_pylist():
                counts[entry["values"]] += entry["counts"]
        if self._scope.customer is not None:
            return Counter({self._scope.customer: counts[self._scope.customer]})
        return counts

    def _groups(self, counts: Counter[str]) -> Iterator[CustomerRange]:
        """Ranges of customers, of the ledger's and the store's, that together have all of them."""
        weights = dict(counts)
        if self._scope.customer is None:
            for customer, rows in customer_rows(self._client).items():
                weights[customer] = max(weights.get(customer, 0), rows // 4)
        first, last, weight = "", "", 0
        for customer in sorted(weights, key=str.encode):
            if weight and weight + weights[customer] > GROUP_EVENTS:
                yield CustomerRange(first, last)
                weight = 0
            first = first if weight else customer
            last, weight = customer, weight + max(weights[customer], 1)
        if weight:
            yield CustomerRange(first, last)

    def _compare_view(self, grain: str, expected: Rows, customers: CustomerRange) -> None:
        first_s, before_s = self._scope.starts(grain)
        missing = {key: row for key, row in expected.items() if first_s <= key[0] < before_s}
        for found in view_rows(self._client, grain, GRAINS[grain], customers, first_s, before_s):
            self._report.rows += 1
            key = (found.window_start_s, found.dims, found.meter)
            row = missing.pop(key, None)
            if row is None:
                self._differ(grain, key, "row", "none", _described(found))
            else:
                self._compare_row(grain, key, row, found)
        for key, row in missing.items():
            self._differ(grain, key, "row", _described(row), "none")

    def _compare_row(self, grain: str, key: Key, row: Row, found: ViewRow) -> None:
        if found.currency != self._book.currency:
            self._differ(grain, key, "currency", self._book.currency, found.currency)
        for column, should, does in (
            ("quantity", row.quantity, found.quantity),
            ("amount", row.amount_femto, found.amount_femto),
            ("events", row.events, found.events),
            ("unpriced_quantity", row.unpriced_quantity, found.unpriced_quantity),
            ("digest", row.digest, found.digest),
        ):
            if should != does:
                shown = map(_amount if column == "amount" else str, (should, does))
                self._differ(grain, key, column, *shown)

    def _differ(self, grain: str, key: Key, column: str, ledger: str, store: str) -> None:
        start_s, dims, meter = key
        named = dict(zip(GRAINS[grain], dims, strict=True))
        self._report.add(Difference(f"usage_by_{grain}", _iso(start_s), named, meter, column, ledger, store))

    def _compare_storage(self, customers: CustomerRange) -> None:
        first_s, before_s = self._scope.starts("day")
        rows_max = self._report.differences_max
        for customer, day_s, column, minutes, days in day_disagreements(
            self._client, customers, first_s, before_s, rows_max
        ):
            dims = {"customer": customer}
            shown = (f"rollup_minute adds up to {minutes}", days)
            self._report.add(Difference("rollup_day", _iso(day_s), dims, "", column, *shown))
        for customer, key, meanings in ambiguous_keys(self._client, customers, rows_max):
            dims = {"customer": customer, "key": key}
            self._report.add(Difference("rollups", "", dims, "", "meanings of a key", "1", str(meanings)))

    def _compare_balance(self) -> None:
        """Every file that was written must be there, with every event that was accepted."""
        events: Counter[str] = Counter()
        numbers: dict[str, set[int]] = {}
        for path in self._ledger.files:
            writer, number = writer_and_number(path)
            numbers.setdefault(writer, set()).add(number)
            events[writer] += sum(batch.num_rows for batch in self._ledger.batches(["id"], path))
        for writer, found in sorted(numbers.items()):
            for number in sorted(set(range(1, max(found))) - found):
                self._report.add(Difference("ledger", "", {"writer": writer}, "", f"file {number:06d}", "missing", ""))
        accepted = accepted_by_writer(self._client, self._lineage_id())
        for writer in sorted(events.keys() | accepted.keys()):
            counts = events[writer], accepted.get(writer, 0)
            if counts[0] != counts[1]:
                self._report.add(
                    Difference("pipeline_balance", "", {"writer": writer}, "", "accepted", *map(str, counts))
                )

    def _lineage_id(self) -> str:
        return str(self._client.rows("SELECT lineage FROM lineages")[0][0])

    def _find_duplicates(self) -> None:
        """An identity that was accepted twice was billed twice, whatever the sums say."""
        low, high = (np.frombuffer(half, np.uint64) if half else np.empty(0, np.uint64) for half in self._seen)
        order = np.lexsort((low, high))
        low, high = low[order], high[order]
        twice = np.flatnonzero((low[1:] == low[:-1]) & (high[1:] == high[:-1]))
        if not len(twice):
            return
        doubled = {int(high[n]) << 64 | int(low[n]) for n in twice}
        positions: dict[tuple[str, str], list[str]] = {}
        for batch in self._ledger.batches(["source", "id", "source_position"]):
            for event in batch.to_pylist():
                if fingerprint(event["source"], event["id"]) in doubled:
                    positions.setdefault((event["source"], event["id"]), []).append(event["source_position"])
        for (source, id_), found in sorted(positions.items()):
            dims = {"source": source, "id": id_}
            shown = f"{len(found)} times: {', '.join(found[:4])}"
            self._report.add(Difference("ledger", "", dims, "", "accepted", "once", shown))


def _described(row: Row | ViewRow) -> str:
    return f"quantity {row.quantity}, amount {_amount(row.amount_femto)}, events {row.events}"


def _amount(femto: int | Fraction) -> str:
    """Currency units, exact: what has no finite decimal is rounded down, with what is left behind it."""
    whole = floor(femto)
    sign, digits = "-" if whole < 0 else "", f"{abs(whole):016d}"
    left = f" + {femto - whole} x 10^-15" if femto != whole else ""
    return f"{sign}{digits[:-15]}.{digits[-15:]}{left}"


def _iso(time_s: int) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"
