"""The metrics that the job knows anyway: asked for at each scrape, and so of no cost between two of them."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from .. import __version__
from ..anomalies.found import Kind
from ..errors import StoreError
from ..job import Job
from ..reconcile.in_job import Reconciler, Verdict
from ..schema import REQUESTS, STANDARD_METERS, meter_and_per
from ..sources.kafka import KafkaSource
from ..steps.combine import OUTCOMES
from ..store.client import StoreClient
from ..store.queries.anomalies import open_anomalies
from .depth import outbox_depth

OTHER_METERS = "other"
"""Meters that are neither standard nor in the price book; events may make up any number of names."""


def counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(f"tallyflow_{name}", text, value=value)


def gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"tallyflow_{name}", text, value=value)


class JobCollector(Collector):
    """Everything that one process's job knows. `writers` names its writers."""

    def __init__(self, job: Job, writers: set[str], ready: Callable[[], bool]) -> None:
        self._job = job
        self._writers = writers
        self._ready = ready
        self._open: dict[str, int] | None = None
        self._known = frozenset(STANDARD_METERS) | job.book.meters | job.book.unbilled | {REQUESTS}

    def describe(self) -> list[Metric]:
        return []  # or the registry would collect once before there is anything

    def collect(self) -> Iterator[Metric]:
        yield from self._run()
        yield from self._events()
        yield from self._rules()
        yield from self._quantities()
        yield from self._outbox()
        if self._job.reconciler is not None:
            yield from _reconciliations(self._job.reconciler)
        yield from self._anomalies()
        source = self._job.kafka_source
        if source is not None:
            yield from _kafka(source)

    def _run(self) -> Iterator[Metric]:
        job = self._job
        values = {
            "version": __version__,
            "lineage": job.lineage.id,
            "currency": job.lineage.currency,
            "shards": str(job.config.shards),
            "process": str(job.process),
            "processes": str(job.processes),
            "source": job.config.source.kind,
        }
        yield InfoMetricFamily("tallyflow", "What runs here.", value=values)
        yield gauge("ready", "1 if /readyz says so.", self._ready())

    def _events(self) -> Iterator[Metric]:
        job = self._job
        text = "Events by outcome, in blocks that this process's writers have cut"
        run = CounterMetricFamily("tallyflow_events", f"{text} in this run.", labels=["outcome"])
        lineage = GaugeMetricFamily("tallyflow_lineage_events", f"{text} in the whole lineage.", labels=["outcome"])
        writers = list(job.sink.writers)
        for outcome in OUTCOMES[1:]:  # the first is their sum
            total = sum(writer.totals[outcome] for writer in writers)
            run.add_metric([outcome], total - sum(writer.totals_before[outcome] for writer in writers))
            lineage.add_metric([outcome], total)
        yield run
        yield lineage
        yield counter("events_read", "Events read in this run, as they are decoded.", job.read)
        yield counter("unknown_fields", "Fields of events that no column is for; ignored.", job.unknown_fields)

    def _rules(self) -> Iterator[Metric]:
        rules = self._job.rules
        if rules is None:
            return
        failures = CounterMetricFamily(
            "tallyflow_rule_failures", "Events read that fail a rule; duplicates too.", labels=["rule", "severity"]
        )
        for (rule, severity), count in rules.failures.copy().items():
            failures.add_metric([rule, severity], count)
        yield failures
        yield counter("rules_refused_versions", "Versions of the rule book that were refused.", rules.refused)
        yield gauge(
            "rules_trouble", "1 while the rule book's files are bad; an older one is in use.", bool(rules.trouble)
        )

    def _quantities(self) -> Iterator[Metric]:
        quantity: Counter[str] = Counter()
        unpriced: Counter[str] = Counter()
        for writer in list(self._job.sink.writers):
            for meter, sums in list(writer.meters.items()):
                name, _ = meter_and_per(meter)
                name = name if name in self._known else OTHER_METERS
                quantity[name] += sums[0]
                unpriced[name] += sums[2]
        billed = CounterMetricFamily("tallyflow_quantity", "Quantities of this run's blocks.", labels=["meter"])
        none = CounterMetricFamily("tallyflow_unpriced_quantity", "The part that had no price.", labels=["meter"])
        for name in sorted(quantity):
            billed.add_metric([name], quantity[name])
            none.add_metric([name], unpriced[name])
        yield billed
        yield none

    def _anomalies(self) -> Iterator[Metric]:
        found = CounterMetricFamily("tallyflow_anomalies", "Found out of line in this run.", labels=["kind"])
        waiting = GaugeMetricFamily(
            "tallyflow_anomalies_open",
            "In the store, of all writers, and not acknowledged; asked once a minute.",
            labels=["kind"],
        )
        for kind in map(str, Kind):
            found.add_metric([kind], sum(writer.anomalies[kind] for writer in list(self._job.sink.writers)))
            if self._open is not None:
                waiting.add_metric([kind], self._open.get(kind, 0))
        yield found
        yield waiting

    def look(self, client: StoreClient) -> None:
        """Asks the store what is open; if it cannot tell, what it said before stays."""
        with suppress(StoreError):
            self._open = open_anomalies(client)

    def _outbox(self) -> Iterator[Metric]:
        job = self._job
        depth = outbox_depth(job.directory.outbox, self._writers)
        yield gauge("outbox_blocks", "Blocks that the store does not have yet.", depth.blocks)
        yield gauge("outbox_bytes", "What they take on disk.", depth.bytes)
        yield gauge("outbox_oldest_block_age_seconds", "Since the oldest was cut; 0: there is none.", depth.age_s)
        limit = job.config.limits.outbox_bytes_max
        yield gauge("outbox_limit_bytes", "limits.outbox_bytes_max, of all processes; then sources pause.", limit)
        yield gauge("source_paused", "1 while sources wait for the outbox to empty.", job.outbox_full())
        yield gauge("store_reachable", "0 while the last try to publish has failed.", not job.publisher.trouble)
        published = job.publisher.published
        yield counter("published_blocks", "Blocks published in this run.", published.blocks)
        yield counter("published_bytes", "Their size.", published.bytes)
        yield counter("publish_retries", "Tries that failed and were repeated.", published.retries)


def _reconciliations(reconciler: Reconciler) -> Iterator[Metric]:
    text = "Reconciliations in this run, by what they came to."
    made = CounterMetricFamily("tallyflow_reconciliations", text, labels=["verdict"])
    for verdict in Verdict:
        made.add_metric([verdict.value], reconciler.counts[verdict])
    yield made
    last = reconciler.last
    if last is not None:
        text = "When the last reconciliation ended."
        yield gauge("reconciliation_timestamp_seconds", text, last.finished_us / 1_000_000)
        text = "1 if the last reconciliation was within its threshold."
        yield gauge("reconciliation_passes", text, last.verdict in (Verdict.AGREES, Verdict.WITHIN))
        yield gauge("reconciliation_differing", "Minutes or buckets that differed in it.", last.differing)


def _kafka(source: KafkaSource) -> Iterator[Metric]:
    labels = ["topic", "partition"]
    messages = GaugeMetricFamily("tallyflow_source_lag_messages", "Messages behind the partition's end.", labels=labels)
    seconds = GaugeMetricFamily(
        "tallyflow_source_lag_seconds", "Age of the last message that was read, while there are more.", labels=labels
    )
    for reader in list(source.readers):
        names = [reader.topic, str(reader.number)]
        lag: Any = reader.lag
        messages.add_metric(names, lag)
        if reader.message_time_ms is not None:
            seconds.add_metric(names, max(time.time() - reader.message_time_ms / 1000, 0.0) if lag else 0.0)
    yield messages
    yield seconds
    yield gauge("source_reachable", "0 while the brokers do not answer.", source.reachable)
    yield gauge(
        "source_partitions_added", "Partitions that this run does not read; the next start takes them in.", source.added
    )
