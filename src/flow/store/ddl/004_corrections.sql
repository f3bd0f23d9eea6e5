-- What was changed after it had been billed, and why: for each correction delta in the rollups the sum by customer,
-- window and meter. Appended to, never changed; a reader who takes these amounts away from usage_by_minute has what was
-- billed at first. Sort key: customer and time first, like the rollups.
-- quantity, unpriced_quantity and amount are differences. A re-rating changes no quantity: it moves some between priced
-- and unpriced.
CREATE TABLE IF NOT EXISTS corrections (
    customer LowCardinality(String),
    window_start DateTime('UTC'),
    meter LowCardinality(String),
    id String,
    kind LowCardinality(String),
    currency LowCardinality(String),
    quantity Int128,
    unpriced_quantity Int128,
    amount Decimal(38, 15),
    reason String,
    author String,
    book_before String,
    book_after String,
    created DateTime64(6, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(window_start)
ORDER BY (customer, window_start, meter, id)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
