"""The main path on one screen: source -> decode -> route -> deduplicate -> rate -> outbox -> ClickHouse.

`dataflow` builds it; `flow/run.py` runs it to the end of the input, or a signal, and checks the balance.

The ids of the flow and its steps are part of every snapshot: a step that is renamed begins without its state. They
never change.
"""

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource

from .config import Config, FilesSource, KafkaSource, LedgerSource
from .prices.book import PriceBook
from .rules.book import RuleBook
from .schema import STANDARD_METERS
from .sinks.outbox import Outbox
from .sinks.publisher import Publisher
from .sinks.sink import BlockSink
from .sinks.writer import Writer
from .sources import files, inbox
from .sources.pausing import Flow
from .state.beside import Beside
from .state.directory import Lineage, StateDirectory
from .state.inbox import Inbox
from .state.ledger import LedgerWriter
from .steps.batches import Columns, Decoded, Heartbeat, Limits, Lines, Unreadable
from .steps.decode import decode
from .steps.deduplicate import DeduplicateLogic, Judged, MakeDeduplicator
from .steps.parcel import Parcel, parcels
from .steps.rate import Rated, Rater
from .steps.route import Routed, identified, route, route_heartbeat
from .steps.shards import shard_keys, shard_name
from .steps.watch_prices import PriceWatch, UsedVersions
from .steps.watch_rules import RulesWatch, UsedRules
from .steps.watch_usage import UsageWatch

if TYPE_CHECKING:
    from .reconcile.in_job import Reconciler
    from .sources.kafka import KafkaSource as KafkaMessages

FLOW_ID = "tallyflow"
LEDGER_AHEAD = 16
"""Batches that may wait for a writer's ledger."""
LEARN_US = 10_000_000
"""Within this, every process of a job has learnt of a new version of the price book; each looks every second."""


@dataclass
class Job:
    """What the steps of one process need: config and prices, the locked state, the publisher and the clock."""

    config: Config
    book: PriceBook
    directory: StateDirectory
    lineage: Lineage
    publisher: Publisher
    clock: Callable[[], int]
    last_blocks: Mapping[str, int]
    """The last block that the store has of each writer."""
    rule_book: RuleBook | None = None
    """None: the config names no rules."""
    stop: threading.Event = field(default_factory=threading.Event)
    read: int = 0
    """Events read in this run, as decode counts them."""
    unknown_fields: int = 0
    kafka_source: "KafkaMessages | None" = None
    """The source, once it is made, if it is Kafka."""
    on_read: Callable[[int], None] = lambda events: None
    """Told how many events each batch had, for a progress display."""
    reconciler: "Reconciler | None" = None
    """Holds the store against a second source, in the process that does."""
    waiting_bytes: Callable[[], int] | None = None
    """Bytes of blocks that wait for the store in the outbox; None: only this process puts any there."""
    process: int = 0
    """Number of this process among those of its host, and how many they are."""
    processes: int = 1
    in_cluster: bool = False
    """Whether batches may go to other processes."""
    drained: bool = False
    """Whether the dataflow has ended; what is left is to publish."""

    def __post_init__(self) -> None:
        self._raters: dict[int, Rater] = {}
        self._count_lock = threading.Lock()
        self.prices = PriceWatch(
            self.config.prices,
            self.book,
            UsedVersions(self.directory.path / "prices"),
            self.config.limits.quantity_max,
            self.config.require_approval,
            self._rated_elsewhere_until_us,
        )
        self.rules: RulesWatch | None = None
        if self.config.rules is not None and self.rule_book is not None:
            used = UsedRules(self.directory.path / "rules")
            self.rules = RulesWatch(self.config.rules, self.rule_book, used)
        self._limits = event_limits(self.config, self.book)
        keys = shard_keys(self.config.shards, self.lineage.keys)
        self._keys = {shard_name(number): key for number, key in enumerate(keys)}
        self.sink = BlockSink(keys, self._make_writer)
        self._filters: list[Beside] = []

    # -- the steps, in order

    def source(self) -> FixedPartitionedSource[Any, bytes]:
        """The source that the config names. Raises SourceError."""
        config, source = self.config, self.config.source
        held = self._held()
        rows, readers = config.limits.batch_rows, config.shards
        if isinstance(source, FilesSource):
            return files.FilesSource(source.path, source.format, readers, rows, held, self._ahead)
        # A source is loaded, with the libraries behind it, by who has one.
        if isinstance(source, KafkaSource):
            from .sources.kafka import KafkaSource as KafkaMessages

            self.kafka_source = KafkaMessages(source, self.directory.path / "kafka", rows, config.epoch_us, held)
            return self.kafka_source
        if isinstance(source, LedgerSource):
            from .sources.ledger import LedgerSource as Ledger

            folder = source.path or config.ledger
            assert folder is not None  # the config was checked for it
            return Ledger(folder, readers, rows, held, self._ahead)
        from .generate import Synthetic
        from .sources.synthetic import SyntheticSource

        return SyntheticSource(Synthetic(**source.given()), readers, rows, held, self._ahead)

    def inbox(self) -> FixedPartitionedSource[Any, bytes]:
        """The source of what commands have put into the state directory."""
        config, source = self.config, self.config.source
        ends = not isinstance(source, KafkaSource) or source.until is not None
        return inbox.InboxSource(Inbox(self.directory.path), self._held(), config.epoch_us, ends)

    def _held(self) -> Flow:
        return Flow(self.stop, self.outbox_full)

    def outbox_full(self) -> bool:
        """Whether so much waits for the store that sources pause."""
        waiting_bytes = self.waiting_bytes() if self.waiting_bytes is not None else self.publisher.backlog_bytes
        return waiting_bytes > self.config.limits.outbox_bytes_max

    def finish_source(self) -> None:
        """The run has ended and its last snapshot is durable."""
        if self.kafka_source is not None:
            self.kafka_source.finish()

    def decode(self, item: Lines | Columns | Unreadable | Decoded | Heartbeat) -> Decoded | Heartbeat:
        """Bytes to columns; a bad event, or one that fails a rule, becomes a rejected row. What readers have
        prepared comes decoded."""
        decoded = self._decoded(item)
        if isinstance(decoded, Heartbeat):
            return decoded
        read = sum(part.read for part in decoded.parts)
        with self._count_lock:
            self.read += read
            self.unknown_fields += decoded.unknown_fields
        self.on_read(read)
        return decoded

    def _ahead(self, item: Lines | Columns | Unreadable | Decoded | Heartbeat) -> Decoded | Heartbeat:
        """What a reader's own thread does to a batch: all that depends on nothing else."""
        decoded = self._decoded(item)
        return decoded if isinstance(decoded, Heartbeat) else identified(decoded)

    def _decoded(self, item: Lines | Columns | Unreadable | Decoded | Heartbeat) -> Decoded | Heartbeat:
        if isinstance(item, Heartbeat):
            return item
        now_us = self.clock()
        decoded = item if isinstance(item, Decoded) else decode(item, self._limits, now_us)
        if self.rules is None or decoded.checked:
            return decoded
        return self.rules.check(decoded, now_us, accepted_before=isinstance(item, Decoded))

    def route(self, decoded: Decoded | Heartbeat) -> Iterator[tuple[str, Routed | Parcel]]:
        """Splits a batch over the shards, under their Bytewax keys."""
        shards = self.config.shards
        parts = route_heartbeat(shards) if isinstance(decoded, Heartbeat) else route(decoded, shards)
        if self.in_cluster:
            return ((self._keys[parcel.routed.shard], parcel) for parcel in parcels(parts))
        return ((self._keys[routed.shard], routed) for routed in parts)

    def deduplicate(self, resume_state: bytes | None) -> DeduplicateLogic:
        """The logic of one shard, from its snapshot or new."""
        dedup = self.config.dedup
        memory_bytes_max = dedup.memory_bytes_max // self.config.shards
        make = MakeDeduplicator(
            self.directory.shard,
            dedup.horizon_us,
            dedup.generations,
            memory_bytes_max,
            dedup.filters_kept_us,
            self._filling,
        )
        return DeduplicateLogic(make, resume_state, self.last_blocks)

    def _filling(self) -> Beside:
        """The thread that makes the filters of one shard."""
        self._filters.append(Beside(1, "filters"))
        return self._filters[-1]

    def end_filters(self) -> None:
        """The dataflow has ended, or was given up: no thread of it writes to the state directory any more."""
        for beside in self._filters:
            beside.end()

    def rate(self, judged: Judged) -> Rated:
        """Amounts of the accepted events. A compiled book belongs to one worker thread.

        Not a threading.local: Bytewax's workers are no threads of Python's, so that their locals last for one call only
        (measured: a book compiled anew for every batch).
        """
        worker, book = threading.get_ident(), self.prices.book_for(judged.routed.events)
        rater = self._raters.get(worker)
        if rater is None or rater.book is not book:
            rater = self._raters[worker] = Rater(book)
        return rater.rate(judged)

    def _rated_elsewhere_until_us(self) -> int:
        """An instant that other processes will not have rated beyond when they learn of what is known here now: no
        event is accepted whose time is further ahead than the clock skew."""
        return self.clock() + self.config.limits.clock_skew_us + LEARN_US if self.in_cluster else -1

    def _make_writer(self, name: str) -> Writer:
        """Combine and outbox of one shard."""
        config, lineage = self.config, self.lineage
        outbox = Outbox(self.directory.outbox, lineage.id, name)
        kept = None
        if config.ledger is not None:
            kept = LedgerWriter(config.ledger, lineage.id, name, book=self.prices.digest)
        return Writer(
            lineage.id,
            name,
            self.book.currency,
            outbox,
            kept,
            self.publisher,
            self.clock,
            self.last_blocks.get(name, 0),
            UsageWatch(self.book.currency, config.anomalies) if config.anomalies.enabled else None,
            Beside(LEDGER_AHEAD if kept is not None else 0),
        )


def event_limits(config: Config, book: PriceBook) -> Limits:
    """What decode holds every event against."""
    limits = config.limits
    return Limits(
        event_bytes_max=limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_per_event_max=limits.meters_per_event_max,
        clock_skew_us=limits.clock_skew_us,
        known_meters=frozenset(STANDARD_METERS) | book.meters | book.unbilled,
    )


def dataflow(job: Job) -> Dataflow:
    """The dataflow of a job. Raises SourceError."""
    flow = Dataflow(FLOW_ID)
    items = op.input("source", flow, job.source())
    put = op.input("inbox", flow, job.inbox())
    decoded = op.map("decode", op.merge("merge", items, put), job.decode)
    routed = op.flat_map("route", decoded, job.route)
    judged = op.stateful_batch("deduplicate", routed, job.deduplicate)
    rated = op.map_value("rate", judged, job.rate)
    op.output("outbox", rated, job.sink)
    return flow


def __getattr__(name: str) -> Any:
    """`python -m bytewax.run flow.job` looks for `flow`: a whole run, which is far above this room."""
    if name == "flow":
        return import_module(".bytewax_run", __package__).flow
    raise AttributeError(f"module {__name__} has no attribute {name}")
