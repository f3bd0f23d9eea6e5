-- Storage of the rollups and of everything else a run leaves behind. Readers of usage go through the views of
-- 002; rejected_events, conflicting_events, late_events and pipeline_balance are read as they are.
--
-- merge_selector_base: a part is merged with others that are together 16 times as large (the engine's default: 5), because adding up
-- 128-bit columns costs more in a merge than on insert; it leaves more parts, which one customer's rows are found in quickly.
--
-- Settings repeated on every table:
--   non_replicated_deduplication_window: the insert tokens of the last 10,000 blocks are remembered, so that
--     publishing a block again does nothing. It is a count, not a time: it must exceed what others
--     insert between an insert and its repetition, however many blocks wait (docs/guarantees.md, Long outages).
--   fsync_after_insert, fsync_part_directory: an acknowledged insert survives a power cut; the outbox deletes
--     its copy on the strength of that.

-- One row a (customer, minute, key) and block; merges add rows of the same key up. The key is a hash of the columns
-- between it and `events`: project, feature, model, region, service tier, currency and up to four meters. Fewer, wider
-- rows are smaller and faster to insert than one row a meter.
-- `meters` are four names joined by commas, '' for an empty slot; bit j of `unpriced` says that slot j has no price: its
-- quantity counts, its amount is unknown.
-- Sort key: customer first, because every question of a bill is about one customer; then time, because a bill
-- is about a period; the key last, only to make the sums distinct. Equal keys have equal dimensions, so that a merge,
-- which keeps those of any one row, keeps all of them.
-- Merges add up in 128 bits and would wrap unseen. So no block brings 2^100 or more in one row (the kernel stops the job
-- first): it takes 2^27 such blocks, one every five seconds for twenty years, before the sum of one window could wrap.
CREATE TABLE IF NOT EXISTS rollup_minute (
    customer LowCardinality(String),
    window_start DateTime('UTC'),
    key UInt128,
    project LowCardinality(String),
    feature LowCardinality(String),
    model LowCardinality(String),
    region LowCardinality(String),
    service_tier LowCardinality(String),
    currency LowCardinality(String),
    meters LowCardinality(String),
    unpriced UInt8,
    events UInt64,
    digest UInt128,
    q0 Int128, q1 Int128, q2 Int128, q3 Int128,
    a0 Decimal(38, 15), a1 Decimal(38, 15), a2 Decimal(38, 15), a3 Decimal(38, 15)
)
ENGINE = SummingMergeTree((events, digest, q0, q1, q2, q3, a0, a1, a2, a3))
PARTITION BY toYYYYMM(window_start)
ORDER BY (customer, window_start, key)
SETTINGS merge_selector_base = 16, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- The same by UTC day, without project and model: what the week and month views need, and many times fewer rows where customers use
-- many combinations. It is fed by the sink and not by a materialized view: a failing view leaves the row in the table it is on, and
-- two tables that were fed apart can be compared.
CREATE TABLE IF NOT EXISTS rollup_day (
    customer LowCardinality(String),
    window_start DateTime('UTC'),
    key UInt128,
    feature LowCardinality(String),
    region LowCardinality(String),
    service_tier LowCardinality(String),
    currency LowCardinality(String),
    meters LowCardinality(String),
    unpriced UInt8,
    events UInt64,
    digest UInt128,
    q0 Int128, q1 Int128, q2 Int128, q3 Int128,
    a0 Decimal(38, 15), a1 Decimal(38, 15), a2 Decimal(38, 15), a3 Decimal(38, 15)
)
ENGINE = SummingMergeTree((events, digest, q0, q1, q2, q3, a0, a1, a2, a3))
PARTITION BY toYYYYMM(window_start)
ORDER BY (customer, window_start, key)
SETTINGS merge_selector_base = 16, non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS rejected_events (
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    reason LowCardinality(String),
    detail String,
    payload String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(seen_at)
ORDER BY (seen_at, source_position)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS conflicting_events (
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    source LowCardinality(String),
    id String,
    event_time DateTime64(6, 'UTC'),
    fingerprint UInt128,
    payload String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(seen_at)
ORDER BY (seen_at, source, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS late_events (
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    source LowCardinality(String),
    id String,
    event_time DateTime64(6, 'UTC'),
    watermark DateTime64(6, 'UTC'),
    payload String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(seen_at)
ORDER BY (seen_at, source, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS pipeline_balance (
    lineage String,
    writer String,
    block UInt64,
    shard String,
    read UInt64,
    accepted UInt64,
    duplicate UInt64,
    conflicting UInt64,
    rejected UInt64,
    late UInt64
)
ENGINE = MergeTree
ORDER BY (lineage, writer, block, shard)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

CREATE TABLE IF NOT EXISTS lineages (
    lineage String,
    created DateTime64(6, 'UTC'),
    state_dir String,
    currency String
)
ENGINE = MergeTree
ORDER BY (created, lineage)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
