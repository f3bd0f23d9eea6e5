-- What was decided of a late event, which is named by its seen_at and source_position: billed (it is in the inbox, in
-- `file`), duplicate (it was billed before, with the same payload) or conflicting (with another one, `counted`). A late
-- event without a row waits. Appended to, never changed. Sort key: the question is what has become of one of them.
CREATE TABLE IF NOT EXISTS late_resolutions (
    created DateTime64(6, 'UTC'),
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    source LowCardinality(String),
    id String,
    decision LowCardinality(String),
    counted String,
    author String,
    reason String,
    file String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created)
ORDER BY (seen_at, source_position)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
