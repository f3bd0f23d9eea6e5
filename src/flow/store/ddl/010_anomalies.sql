-- What was found out of line (docs/anomalies.md), and what people have said about it. Appended to, never changed.
-- A finding is a row of each writer that has seen it, with the block in which it was found, and status `open`; rows of
-- people have no writer, and the status that they give. id is the same for all of them. All numbers are in `unit`.
-- Sort key: the question is what is open in some time.
CREATE TABLE IF NOT EXISTS anomalies (
    id String,
    kind LowCardinality(String),
    customer LowCardinality(String),
    project LowCardinality(String),
    model LowCardinality(String),
    source LowCardinality(String),
    window_start DateTime('UTC'),
    unit LowCardinality(String),
    seen Decimal(38, 15),
    expected Decimal(38, 15),
    low Decimal(38, 15),
    high Decimal(38, 15),
    score Decimal(18, 3),
    rule LowCardinality(String),
    status LowCardinality(String),
    author String,
    note String,
    lineage String,
    writer LowCardinality(String),
    block UInt64,
    changed_at DateTime64(6, 'UTC')
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(window_start)
ORDER BY (window_start, id, changed_at)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Each anomaly once, as it is now. Writers see a share each of amounts and events, which add up; of a share or a price
-- the one that is furthest out of line is shown.
CREATE OR REPLACE VIEW anomalies_now AS
SELECT
    found.id AS id,
    any(found.kind) AS kind,
    any(found.customer) AS customer,
    any(found.project) AS project,
    any(found.model) AS model,
    any(found.source) AS source,
    any(found.window_start) AS window_start,
    any(found.unit) AS unit,
    if(unit IN ('amount', 'events'), sum(found.seen), argMax(found.seen, found.score)) AS seen,
    if(unit IN ('amount', 'events'), sum(found.expected), argMax(found.expected, found.score)) AS expected,
    if(unit IN ('amount', 'events'), sum(found.low), argMax(found.low, found.score)) AS low,
    if(unit IN ('amount', 'events'), sum(found.high), argMax(found.high, found.score)) AS high,
    max(found.score) AS score,
    any(found.rule) AS rule,
    uniqExact(found.writer) AS writers,
    min(found.changed_at) AS found_at,
    if(any(said.last_status) = '', 'open', any(said.last_status)) AS status,
    any(said.last_author) AS author,
    any(said.last_note) AS note,
    any(said.last_at) AS changed_at
FROM (SELECT * FROM anomalies WHERE writer != '') AS found
LEFT JOIN (
    SELECT
        id,
        argMax(status, changed_at) AS last_status,
        argMax(author, changed_at) AS last_author,
        argMax(note, changed_at) AS last_note,
        max(changed_at) AS last_at
    FROM anomalies WHERE writer = '' GROUP BY id
) AS said ON found.id = said.id
GROUP BY found.id;
