-- What a job's reconciliations against a second source came to (docs/reconcile.md), one row each. Appended to, never
-- changed. verdict: agrees, within or beyond the threshold, or failed, when nothing is known. differing: minutes of
-- customers, or buckets of a provider's report. detail: the report as JSON, with the first rows of each kind, or the
-- error. Sort key: time, because one asks for the latest.
CREATE TABLE IF NOT EXISTS reconciliations (
    lineage String,
    begun DateTime64(6, 'UTC'),
    finished DateTime64(6, 'UTC'),
    against String,
    window_from DateTime('UTC'),
    window_before DateTime('UTC'),
    verdict LowCardinality(String),
    events_here UInt64,
    events_there UInt64,
    differing UInt64,
    threshold String,
    detail String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(begun)
ORDER BY (begun, lineage)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
