-- Events that were accepted and fail a rule, one row for each rule that they fail. severity is that of the rule: where a
-- ledger is replayed, nothing is rejected, and rules that would reject are in here too.
CREATE TABLE IF NOT EXISTS flagged_events (
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    rule LowCardinality(String),
    severity LowCardinality(String),
    detail String,
    customer LowCardinality(String),
    source LowCardinality(String),
    id String,
    event_time DateTime64(6, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(seen_at)
ORDER BY (seen_at, source, id, rule)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
