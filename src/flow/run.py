"""Runs the job of a config: from a locked state directory to a balance that was checked in the store."""

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType
from typing import TYPE_CHECKING

from bytewax.errors import BytewaxRuntimeError
from bytewax.recovery import InconsistentPartitionsError, RecoveryConfig
from bytewax.testing import cluster_main

from .config import Config
from .errors import BalanceError, StateError, TallyflowError
from .faults import point
from .job import Job, dataflow
from .metrics.observed import observed
from .panics import engine_error, panics_explained
from .prices.book import PriceBook
from .rules.book import RuleBook
from .sinks.publisher import Publisher
from .start import Claim, Start, open_store, starting
from .state.directory import Lineage, StateDirectory
from .state.manifest import DamagedManifest
from .state.rerates import Rerates
from .steps.combine import OUTCOMES, MeterTotals, add_totals
from .steps.watch_prices import UsedVersions, begin
from .steps.watch_rules import UsedRules
from .steps.watch_rules import begin as begin_rule_book
from .store.fence import check_term
from .store.queries.totals import Totals, rollup_totals

if TYPE_CHECKING:
    from .reconcile.in_job import Reconciler


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    lineage: str
    currency: str
    read: int
    """Events read in this run; if a cluster was restarted in it, since then."""
    balance: dict[str, int]
    """Of the whole lineage, as the store has it."""
    seconds: float
    unknown_fields: int
    interrupted: bool
    blocks: int
    retries: int
    meters: MeterTotals
    """What was billed in this run; if a cluster was restarted in it, since then."""


@dataclass(frozen=True)
class Share:
    """What one process did of a run, and what its writers have counted."""

    read: int
    unknown_fields: int
    interrupted: bool
    blocks: int
    retries: int
    meters: MeterTotals
    totals: Counter[str]
    """The balance of the lineage so far."""
    read_before: int
    """Events read in the lineage before this run."""
    quantity: int
    """All quantities that were billed in the lineage so far, whatever their meter."""
    amount_femto: int
    """The same of amounts, each counted in the unit that its meter's name tells."""


def run(config: Config, workers: int = 1, on_read: Callable[[int], None] | None = None) -> Outcome:
    """Runs to the end of the input, or to SIGINT or SIGTERM, and publishes everything.

    Raises ConfigError, RefusedStart, TakenOver, SourceError, StateError, StoreError, OverflowStop, BalanceError.
    """
    with starting(config) as start:
        return go_on(start, workers, on_read)


def go_on(start: Start, workers: int = 1, on_read: Callable[[int], None] | None = None) -> Outcome:
    """Runs what was started. Raises as `run` does."""
    config, directory, claim = start.config, start.directory, start.claim()
    begin_prices(config, directory)
    begin_rules(config, directory)
    begun = time.monotonic()
    job = make_job(config, start.book, directory, claim)
    if on_read is not None:
        job.on_read = on_read
    with stopping(job.stop):
        share = work(job, workers)
    return conclude(config, directory, claim.lineage, [share], begun)


# A run has three parts. The first and the last are done once, the one between by each process of a cluster.


def begin_prices(config: Config, directory: StateDirectory) -> None:
    """Holds the price book against the one that was used last in the state directory, and remembers it.

    Raises ConfigError, RefusedStart (also where a re-rating is not finished), StateError.
    """
    Rerates(directory.path).refuse_unfinished()
    versions = UsedVersions(directory.path / "prices")
    begin(versions, config.prices, config.limits.quantity_max, config.require_approval, time.time_ns() // 1000)


def begin_rules(config: Config, directory: StateDirectory) -> None:
    """Remembers the rule book of the config as the one used last. Raises ConfigError, StateError."""
    if config.rules is not None:
        begin_rule_book(UsedRules(directory.path / "rules"), config.rules)


def make_job(config: Config, book: PriceBook, directory: StateDirectory, claim: Claim) -> Job:
    """The job of this process, with a publisher that is not started yet; with the version of the price book that was
    used last, if a process before this one has taken over a newer one."""
    versions = UsedVersions(directory.path / "prices")
    if not versions.has(book):
        book = versions.last(config.limits.quantity_max) or book
    rules: RuleBook | None = None
    if config.rules is not None:
        rules = UsedRules(directory.path / "rules").last()
    publisher = Publisher(lambda: open_store(config), lambda client: check_term(client, claim.term))

    def clock() -> int:
        return time.time_ns() // 1000

    return Job(config, book, directory, claim.lineage, publisher, clock, claim.last_blocks, rules)


def work(job: Job, workers: int, addresses: Sequence[str] = (), process: int = 0) -> Share:
    """Runs the dataflow to its end and publishes all blocks; in a cluster, as the process of this number.

    Raises Unpublished (after a signal, if the store does not take them in time), ConfigError, RefusedStart,
    SourceError, StateError, StoreError, TakenOver, OverflowStop, BalanceError.
    """
    with observed(job):
        return _work(job, workers, addresses, process)


def _work(job: Job, workers: int, addresses: Sequence[str], process: int) -> Share:
    publisher = job.publisher
    publisher.start()
    job.prices.start()
    if job.rules is not None:
        job.rules.start()
    reconciler = _reconciler(job) if process == 0 else None
    try:
        _run_dataflow(job, workers, addresses, process)
        job.drained = True
        point("run.before_finish")
        for writer in job.sink.writers:
            writer.finish()
        publisher.finish(job.stop.is_set, job.config.limits.stop_wait_us // 10**6)
        job.finish_source()
        point("run.after_finish")
    except BaseException:
        publisher.abandon()
        raise
    finally:
        job.end_filters()
        job.prices.stop()
        if job.rules is not None:
            job.rules.stop()
        if reconciler is not None:
            reconciler.stop()
    writers = job.sink.writers
    return Share(
        job.read,
        job.unknown_fields,
        job.stop.is_set(),
        publisher.published.blocks,
        publisher.published.retries,
        job.sink.billed(),
        sum((writer.totals for writer in writers), Counter()),
        sum(writer.totals_before["read"] for writer in writers),
        sum(writer.quantity for writer in writers),
        sum(writer.amount_femto for writer in writers),
    )


def _reconciler(job: Job) -> "Reconciler | None":
    """The thread that holds the store against a second source, begun; None where the config names none."""
    asked = job.config.reconcile
    if asked is not None:
        from .reconcile.in_job import Reconciler  # much to load for what few jobs have

        job.reconciler = Reconciler(job.config, asked, job.lineage.id, job.clock)
        job.reconciler.start()
    return job.reconciler


def conclude(
    config: Config, directory: StateDirectory, lineage: Lineage, shares: Sequence[Share], begun: float
) -> Outcome:
    """Checks the balance over all processes. Raises BalanceError, StoreError."""
    seconds = time.monotonic() - begun
    meters: MeterTotals = {}
    for share in shares:
        add_totals(meters, share.meters)
    balance = _check_balance(config, directory, lineage, shares)
    _mark_committed(directory)
    return Outcome(
        lineage.id,
        lineage.currency,
        sum(share.read for share in shares),
        balance,
        seconds,
        sum(share.unknown_fields for share in shares),
        any(share.interrupted for share in shares),
        sum(share.blocks for share in shares),
        sum(share.retries for share in shares),
        meters,
    )


def _run_dataflow(job: Job, workers: int, addresses: Sequence[str], process: int) -> None:
    """Runs Bytewax; what a step raised comes out as it was, not as Bytewax's wrapping of it."""
    flow = dataflow(job)
    try:
        with panics_explained(job.directory.recovery):
            cluster_main(
                flow,
                list(addresses),
                process,
                epoch_interval=timedelta(microseconds=job.config.epoch_us),
                recovery_config=RecoveryConfig(job.directory.recovery, timedelta(0)),
                worker_count_per_proc=workers,
            )
    except InconsistentPartitionsError as error:
        raise StateError(
            f"{job.directory.recovery}: its files are not of one time ({error}); restore the state directory, the "
            "ledger and the store from one backup, or start a new lineage"
        ) from error
    except (BytewaxRuntimeError, RuntimeError) as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, TallyflowError):
            cause = cause.__cause__ or cause.__context__
        if isinstance(cause, DamagedManifest):
            raise StateError(f"{job.directory.recovery}: {cause}") from None
        if cause is not None:
            raise cause from None
        raise engine_error(job.directory.recovery, str(error)) from error


@contextmanager
def stopping(stop: threading.Event) -> Iterator[None]:
    """While inside, SIGINT and SIGTERM end the input; a second one ends the process at once.

    That is safe, only slower to go on from.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        stop.set()

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _mark_committed(directory: StateDirectory) -> None:
    (directory.path / "committed").touch()


def _check_balance(
    config: Config, directory: StateDirectory, lineage: Lineage, shares: Sequence[Share]
) -> dict[str, int]:
    """The balance of the lineage as the store has it, held against the writers' own counts and against the rollups,
    which also have what was re-rated.

    Raises BalanceError.
    """
    with open_store(config) as client:
        sums = ", ".join(f"sum({name})" for name in OUTCOMES)
        row = client.rows(
            f"SELECT {sums} FROM pipeline_balance WHERE lineage = {{lineage:String}}", {"lineage": lineage.id}
        )[0]
        balance = dict(zip(OUTCOMES, map(int, row), strict=True))
        billed = rollup_totals(client)
        kept = {
            name: int(client.rows(f"SELECT count() FROM {name}_events")[0][0])
            for name in ("rejected", "conflicting", "late")
        }
    written: Counter[str] = sum((share.totals for share in shares), Counter())
    problems = []
    if balance["read"] != sum(balance[name] for name in OUTCOMES[1:]):
        problems.append("read is not the sum of the outcomes")
    if any(balance[name] != written[name] for name in OUTCOMES):
        problems.append(f"the store has {balance}, the writers counted {dict(written)}")
    corrected = Rerates(directory.path).rollup_amount()
    expected = Totals(sum(share.quantity for share in shares), sum(share.amount_femto for share in shares) + corrected)
    for table, totals in billed.items():
        if totals != expected:
            problems.append(f"{table} adds up to {totals}, the writers to {expected}")
    for name, count in kept.items():
        if count != balance[name]:
            problems.append(f"{name}_events has {count} rows, {balance[name]} events were {name}")
    decoded = sum(share.read for share in shares)
    if written["read"] - sum(share.read_before for share in shares) != decoded:
        problems.append(f"{decoded} events were decoded in this run, the writers saw another number")
    if problems:
        raise BalanceError("the balance does not hold: " + "; ".join(problems))
    return balance
