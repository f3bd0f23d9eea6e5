-- What is known of completeness (docs/confidence.md). Both tables are written with the block that they tell of.

-- How far each block went. `began` is the watermark of its writer when the block began, `watermark` when it was cut;
-- began = 1970-01-01: nothing had been accepted before, or not been told yet. The earliest of all writers' last
-- watermarks is how far in event time the store is.
CREATE TABLE IF NOT EXISTS watermarks (
    lineage String,
    writer String,
    block UInt64,
    began DateTime64(6, 'UTC'),
    watermark DateTime64(6, 'UTC'),
    seen_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (lineage, writer, block)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- What came behind: one row a block, customer and hour of event time that had ended, by the watermark, when the block
-- began. What of an hour had arrived when the watermark was at W is its sum in the rollups less what is here with
-- W <= began. Usage that comes in order is in no row. amount is rounded down to 10^-15 where a rate is a fraction.
CREATE TABLE IF NOT EXISTS arrivals (
    customer LowCardinality(String),
    window_start DateTime('UTC'),
    began DateTime64(6, 'UTC'),
    currency LowCardinality(String),
    events UInt64,
    amount Decimal(38, 15),
    lineage String,
    writer String,
    block UInt64,
    seen_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(window_start)
ORDER BY (customer, window_start, began)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
