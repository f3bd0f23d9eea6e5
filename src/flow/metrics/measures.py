"""The metrics that are counted as things happen, once a batch, an epoch or a block, never once an event.

What the job knows anyway is not counted here but asked for at each scrape: `flow/metrics/collector.py`.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

STAGES = ("decode", "route", "deduplicate", "rate", "combine", "shard_snapshot", "writer_snapshot", "publish")
"""What `tallyflow_stage_seconds` tells apart; the steps in order, what an epoch's end costs, and a block's way out."""

_STAGE_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
_EPOCH_SECONDS = (0.1, 0.3, 1, 3, 6, 10, 30, 60, 300)


class Measures:
    """Counters and histograms of one process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.stage_seconds = Histogram(
            "tallyflow_stage_seconds",
            "Time of one call: a batch, the end of an epoch, or a block.",
            ["stage"],
            buckets=_STAGE_SECONDS,
            registry=registry,
        )
        for stage in STAGES:
            self.stage_seconds.labels(stage)  # so that each is there from the first scrape
        self.epoch_seconds = Histogram(
            "tallyflow_epoch_seconds",
            "Between two snapshots of one writer; longer than `epoch`: the steps cannot keep up.",
            buckets=_EPOCH_SECONDS,
            registry=registry,
        )
        self.verdicts = Counter(
            "tallyflow_dedup_verdicts",
            "Events judged by deduplication in this run.",
            ["verdict"],
            registry=registry,
        )
        self.rejected = Counter(
            "tallyflow_rejected_events", "Events rejected in this run, by reason.", ["reason"], registry=registry
        )
        self.dedup_fingerprints = Gauge(
            "tallyflow_dedup_fingerprints",
            "Events remembered, at the last epoch.",
            ["shard"],
            registry=registry,
        )
        self.dedup_memory = Gauge(
            "tallyflow_dedup_memory_bytes",
            "Memory of fingerprints and filters, at the last epoch.",
            ["shard"],
            registry=registry,
        )
        self.dedup_filter = Counter(
            "tallyflow_dedup_filter_lookups",
            "Questions to the Bloom filters of generations on disk, by answer: `new` (certainly), `known` (it was) or "
            "`false_positive` (looked closer for nothing).",
            ["shard", "answer"],
            registry=registry,
        )
        self.watermark = Gauge(
            "tallyflow_watermark_timestamp_seconds",
            "The latest event time of an accepted event; how far it is behind now is the watermark delay.",
            ["shard"],
            registry=registry,
        )
        self.view_published = Gauge(
            "tallyflow_view_published_timestamp_seconds",
            "When the store took the last block with rows of this view.",
            ["view"],
            registry=registry,
        )
        self.view_event_time = Gauge(
            "tallyflow_view_event_timestamp_seconds",
            "The watermark of the last block that the store took of this view: how far in event time it shows.",
            ["view"],
            registry=registry,
        )
