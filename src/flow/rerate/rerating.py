"""Re-rates the usage of a config: from two price books to correction deltas in the store, exactly once.

1. Under the lock of the state directory, what changes is cut into blocks in a folder of its own; a process that is
   killed here has done nothing, and the next one begins anew.
2. The small file rerate.json makes it happen: the blocks can never change, and every later reading of the ledger knows
   by which book these events are rated now.
3. The blocks are published like those of a run, under tokens of their own, and repeated until the store has them.

So the same command, once more, goes on with 3, or finds that nothing differs.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from enum import StrEnum
from fractions import Fraction
from itertools import cycle
from math import floor
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from ..config import Config
from ..errors import BalanceError, ConfigError, RefusedStart, StateError
from ..faults import point
from ..prices.book import PriceBook, parse_price_book
from ..prices.versions import unapproved
from ..schema import PER_OF_ALL
from ..sinks.outbox import Outbox
from ..sinks.publisher import Publisher
from ..start import Claim, open_store, prepare
from ..state.directory import Lineage, StateDirectory
from ..state.files import settle, write_whole
from ..state.ledger import unsealed_files
from ..state.rerates import Rerate, Rerates
from ..steps.books import Books
from ..steps.correct import Corrector, cost_of
from ..steps.rate import Rater
from ..store.client import StoreClient, connect
from ..store.fence import check_term
from ..store.migrate import check_schema
from ..store.queries.rerating import corrected_femto
from ..store.queries.view_rows import exact_femto
from ..verify import refuse_unfinished
from ..yaml_nodes import read_text
from .asked import Scope, last_covering
from .differences import Difference, Differences, instant
from .from_ledger import Group, files_of, groups_near, last_files, rated_events, runs
from .from_rollups import minute_rows, obstacle, rows_in

KIND = "rerate"
PUBLISHERS = 2
"""The store works at an insert with one thread, and blocks are as good in any order."""
ROW_EVENTS = 4
"""Events of the ledger that are re-rated in the time that a row of the rollups takes (benchmarks/rerate.py)."""


class Source(StrEnum):
    """Where usage is read from."""

    AUTO = "auto"
    """From the rollups where the book allows it and they are the faster way, else from the ledger."""
    LEDGER = "ledger"
    ROLLUPS = "rollups"


@dataclass(frozen=True)
class Asked:
    """What is to be re-rated, and by which book."""

    scope: Scope
    prices: Path
    author: str = ""
    reason: str = ""
    """Empty, like the author: what the book's version says."""
    source: Source = Source.AUTO
    grain: str = "day"
    """By which windows differences are told; deltas are by the minute always."""


@dataclass
class Outcome:
    """What was found, and done."""

    source: Source
    book_after: str
    currency: str
    why: str = ""
    """Why the rollups would not do, where the ledger was read though either might be."""
    books_before: list[str] = field(default_factory=list)
    rows: int = 0
    """Events, or rows of the rollups, that were rated."""
    differences: list[Difference] = field(default_factory=list)
    amount_femto: int | Fraction = 0
    corrections: int = 0
    unsealed_files: int = 0
    """Of a dry run: files that a run still writes; their events are not in here."""
    rerate: Rerate | None = None
    """What was put into the store; None: nothing."""


def dry_run(
    config: Config, asked: Asked, workers: int = 2, on_rows: Callable[[int], None] = lambda rows: None
) -> Outcome:
    """What a re-rating would do; changes nothing, and needs no lock. Raises as `rerate` does."""
    book, _ = _new_book(config, asked)
    lineage = _lineage(config, book)
    Rerates(config.state_dir).refuse_unfinished()
    work = _Work(config, asked, book, lineage, Differences(None, {}, asked.grain), workers, on_rows)
    work.outcome.unsealed_files = len(_unsealed(config, lineage))
    return work.run()


def rerate(
    config: Config, asked: Asked, workers: int = 2, on_rows: Callable[[int], None] = lambda rows: None
) -> Outcome:
    """Re-rates, and publishes the correction deltas; one that was cut short before is published first.

    Raises ConfigError, RefusedStart, TakenOver, SourceError, StateError, StoreError, OverflowStop, BalanceError.
    """
    book, text = _new_book(config, asked)
    lineage = _lineage(config, book)
    with StateDirectory(config.state_dir) as directory:
        refuse_unfinished(directory, config.ledger, lineage)
        claim = prepare(config, directory, lineage.currency)
        _publish_unfinished(config, directory, claim)
        rerates = Rerates(directory.path)
        number, folder = rerates.prepare()
        point("rerate.begun")
        made = _described(config, asked, book, number, lineage)
        outbox = Outbox(folder, lineage.id, made.name, compression="lz4")
        said = {
            "id": made.name,
            "kind": KIND,
            "currency": lineage.currency,
            "reason": made.reason,
            "author": made.author,
            "book_after": made.book,
            "created": instant(made.created_us),
        }
        differences = Differences(outbox, said, asked.grain)
        outcome = _Work(config, asked, book, lineage, differences, workers, on_rows).run()
        if not differences.deltas:
            rerates.drop(number)
            return outcome
        write_whole(folder / "prices.yaml", text.encode())
        point("rerate.before_commit")
        whole = floor(differences.amount_femto)
        made = replace(
            made,
            blocks=differences.blocks,
            amount_femto=whole,
            amount_remainder=int((differences.amount_femto - whole) * PER_OF_ALL),
            rollup_amount=differences.rollup_amount,
        )
        rerates.commit(made)
        point("rerate.after_commit")
        _publish(config, rerates, made, claim)
        outcome.rerate = made
        return outcome


def resume(config: Config) -> Rerate | None:
    """Publishes what a re-rating that was cut short has left; None: there is none. Raises as `rerate` does."""
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None or Rerates(config.state_dir).unfinished() is None:
        return None
    with StateDirectory(config.state_dir) as directory:
        return _publish_unfinished(config, directory, prepare(config, directory, lineage.currency))


# ---- What is asked ------------------------------------------------------------------------------------------------


def _new_book(config: Config, asked: Asked) -> tuple[PriceBook, str]:
    asked.scope.check()
    text = read_text(asked.prices)
    book = parse_price_book(text, str(asked.prices), config.limits.quantity_max)
    problem = unapproved(book) if config.require_approval else None
    if problem is not None:
        raise RefusedStart(f"{asked.prices}: {problem}")
    return book, text


def _lineage(config: Config, book: PriceBook) -> Lineage:
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None:
        raise StateError(f"{config.state_dir}: no run has begun here yet; run `tallyflow run` first")
    if book.currency != lineage.currency:
        raise ConfigError(f"--prices: is in {book.currency}, and all amounts so far are in {lineage.currency}")
    return lineage


def _described(config: Config, asked: Asked, book: PriceBook, number: int, lineage: Lineage) -> Rerate:
    version = book.version
    author = asked.author or (version.author if version is not None else "")
    reason = asked.reason or (version.reason if version is not None else "")
    if not author or not reason:
        raise ConfigError(
            "--author and --reason: say who changes what was billed, and why; or let the book's `version` do"
        )
    ledger = last_files(files_of(config.ledger, lineage.id)) if config.ledger is not None else {}
    scope = asked.scope
    return Rerate(
        number,
        scope.from_us,
        scope.before_us,
        scope.customer,
        book.digest(),
        author,
        reason,
        time.time_ns() // 1000,
        ledger,
        blocks=0,
        amount_femto=0,
    )


def _unsealed(config: Config, lineage: Lineage) -> list[Path]:
    if config.ledger is None:
        return []
    return [path for path in unsealed_files(config.ledger) if path.name.startswith(f"{lineage.id}-")]


# ---- What differs -------------------------------------------------------------------------------------------------


class _Work:
    """One pass over the usage in scope."""

    def __init__(
        self,
        config: Config,
        asked: Asked,
        book: PriceBook,
        lineage: Lineage,
        differences: Differences,
        workers: int,
        on_rows: Callable[[int], None],
    ) -> None:
        self._config = config
        self._scope = asked.scope
        self._book = book
        self._lineage = lineage
        self._differences = differences
        self._workers = workers
        self._on_rows = on_rows
        self._lock = threading.Lock()
        self._failed = threading.Event()
        self._rerates = Rerates(config.state_dir).all()
        self.outcome = Outcome(asked.source, book.digest(), book.currency)

    def run(self) -> Outcome:
        """Cuts all blocks. Raises ConfigError, SourceError, StateError, StoreError, OverflowStop, RefusedStart."""
        outcome = self.outcome
        if outcome.source is not Source.LEDGER:
            self._try_rollups()
        if outcome.source is Source.LEDGER:
            self._from_ledger()
        outcome.differences = self._differences.rows()
        outcome.amount_femto = self._differences.amount_femto
        outcome.corrections = self._differences.corrections
        return outcome

    def _try_rollups(self) -> None:
        outcome = self.outcome
        with connect(self._config.store, readonly=True) as client:
            check_schema(client)
            problem = obstacle(client, self._book, self._scope)
            if problem is None and outcome.source is Source.AUTO and self._config.ledger is not None:
                groups = groups_near(files_of(self._config.ledger, self._lineage.id), self._scope)
                events = sum(group.rows for group in groups)
                if rows_in(client, self._scope) * ROW_EVENTS > events:
                    problem = "the rollups have so many rows that the events are read faster"
            if problem is None:
                outcome.source = Source.ROLLUPS
                self._from_rollups(client)
            elif outcome.source is Source.ROLLUPS:
                raise ConfigError(f"--source rollups: {problem}; re-rate from the ledger")
            elif self._config.ledger is None:
                raise ConfigError(f"ledger: this config keeps none, and the rollups will not do: {problem}")
            else:
                outcome.source, outcome.why = Source.LEDGER, problem

    def _from_rollups(self, client: Any) -> None:
        last = last_covering(self._rerates, self._scope)
        books = (
            [last.book] if last is not None else Books(self._config.state_dir, self._config.limits.quantity_max).all()
        )
        self.outcome.books_before = books
        corrector = Corrector(self._lineage.currency)
        for events, before, after in minute_rows(client, self._book, self._scope):
            corrector.add(events, before, after)
            self._count(events.num_rows)
            self._differences.cut_if_full(corrector, ",".join(books))
        self._differences.cut(corrector, ",".join(books))

    def _from_ledger(self) -> None:
        folder = self._config.ledger
        if folder is None:
            raise ConfigError("ledger: this config keeps none; add `ledger: FOLDER`, or re-rate from the rollups")
        waiting: SimpleQueue[list[Group]] = SimpleQueue()
        for run in runs(groups_near(files_of(folder, self._lineage.id), self._scope)):
            waiting.put(run)
        books = Books(self._config.state_dir, self._config.limits.quantity_max)
        with ThreadPoolExecutor(self._workers) as pool:
            for done in [pool.submit(self._worker, waiting, books) for _ in range(self._workers)]:
                done.result()

    def _worker(self, waiting: "SimpleQueue[list[Group]]", books: Books) -> None:
        """One thread: rates the events of one run after the other by both books."""
        raters: dict[str, Rater | None] = {}  # None: the new book itself
        after = Rater(self._book)
        correctors: dict[str, Corrector] = {}
        try:
            while not self._failed.is_set():
                try:
                    run = waiting.get_nowait()
                except Empty:
                    break
                for digest, sign, path, events in rated_events(run, self._scope, self._rerates):
                    if digest not in raters:
                        raters[digest] = self._rater(books, digest, path)
                    self._count(max(sign, 0) * events.num_rows)
                    if (before := raters[digest]) is None:
                        continue
                    corrector = correctors.setdefault(digest, Corrector(self._lineage.currency))
                    costs = (cost_of(before, events), cost_of(after, events))
                    corrector.add(events, *costs[::sign])  # what is taken away was taken away by the other book
                    self._differences.cut_if_full(corrector, digest)
            for digest, corrector in correctors.items():
                self._differences.cut(corrector, digest)
        except BaseException:
            self._failed.set()
            raise

    def _rater(self, books: Books, digest: str, path: Path) -> Rater | None:
        with self._lock:
            book = books.of(digest, path)
            found = book.digest()
            self.outcome.books_before = sorted({*self.outcome.books_before, found})
        return None if found == self.outcome.book_after else Rater(book)

    def _count(self, rows: int) -> None:
        with self._lock:
            self.outcome.rows += rows
        self._on_rows(rows)


# ---- Publishing ---------------------------------------------------------------------------------------------------


def _publish_unfinished(config: Config, directory: StateDirectory, claim: Claim) -> Rerate | None:
    rerates = Rerates(directory.path)
    unfinished = rerates.unfinished()
    if unfinished is not None:
        settle(rerates.folder(unfinished.number))
        _publish(config, rerates, unfinished, claim)
    return unfinished


def _publish(config: Config, rerates: Rerates, made: Rerate, claim: Claim) -> None:
    """Publishes what the store has not taken yet, and checks that it has it all."""
    outbox = Outbox(rerates.folder(made.number), claim.lineage.id, made.name)
    opening = threading.Lock()  # an embedded store is opened by one thread after the other

    def open_next() -> StoreClient:
        with opening:
            return open_store(config)

    publishers = [Publisher(open_next, lambda client: check_term(client, claim.term)) for _ in range(PUBLISHERS)]
    for block, publisher in zip(outbox.resume(made.blocks), cycle(publishers)):
        publisher.expect(block)
        publisher.submit(outbox, block)
    for publisher in publishers:
        publisher.start()
    try:
        for publisher in publishers:
            publisher.finish()
    except BaseException:
        for publisher in publishers:
            publisher.abandon()
        raise
    with open_store(config) as client:
        found = corrected_femto(client, made.name)
    expected = exact_femto(made.amount_femto, made.amount_remainder)
    if found != expected:
        raise BalanceError(
            f"{rerates.folder(made.number)}: the corrections of {made.name} in the store add up to {found} x 10^-15, "
            f"not to {expected}; was a block of it deleted? Restore the state directory and the store from one backup"
        )
    point("rerate.before_done")
    rerates.finish(made)
