-- What has become of the events that came by the inbox of the state directory: one row each, whatever its outcome
-- (accepted, duplicate, conflicting, rejected, late), in the block in which it was counted. `source_position` of such an
-- event in other tables, and in the ledger, is inbox/<file>:<position>. A rejected event has a reason and no identity.
-- Sort key: the question is always what has become of the events of a file.
CREATE TABLE IF NOT EXISTS inbox_events (
    seen_at DateTime64(6, 'UTC'),
    file String,
    position UInt64,
    outcome LowCardinality(String),
    reason LowCardinality(String),
    source LowCardinality(String),
    id String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(seen_at)
ORDER BY (file, position)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
