-- The way back of rejected events; nothing here is changed or deleted. A rejected event is named by its seen_at and
-- source_position. Sort keys: the question is always what has become of one of them.

-- A corrected payload for a rejected event; the last one counts.
CREATE TABLE IF NOT EXISTS rejected_fixes (
    created DateTime64(6, 'UTC'),
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    payload String,
    author String,
    reason String
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created)
ORDER BY (seen_at, source_position, created)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- One row for each rejected event that was put into the inbox again: as which payload, and where in the inbox it is.
CREATE TABLE IF NOT EXISTS redrives (
    created DateTime64(6, 'UTC'),
    seen_at DateTime64(6, 'UTC'),
    source_position String,
    payload String,
    author String,
    reason String,
    file String,
    position UInt64
)
ENGINE = MergeTree
PARTITION BY toYYYYMM(created)
ORDER BY (seen_at, source_position)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;

-- Rejected events with what has become of them: `status` is open, fixed (a corrected payload is there), waiting (in the
-- inbox), or what the run has made of it since: accepted, duplicate, conflicting, late, or rejected again, for
-- `rejected_again_for`, in a row of its own with the position inbox/<inbox_file>:<inbox_position>.
-- ifNull: a reader whose profile has join_use_nulls gets the same.
CREATE OR REPLACE VIEW rejected_outcomes AS
SELECT
    rejected.seen_at AS seen_at,
    rejected.source_position AS source_position,
    rejected.reason AS reason,
    rejected.detail AS detail,
    rejected.payload AS payload,
    multiIf(
        ifNull(outcome.file, '') != '', toString(ifNull(outcome.outcome, '')),
        ifNull(redrive.file, '') != '', 'waiting',
        ifNull(fix.fixes, 0) != 0, 'fixed',
        'open'
    ) AS status,
    toString(ifNull(outcome.reason, '')) AS rejected_again_for,
    ifNull(fix.payload, '') AS fixed_payload,
    ifNull(redrive.author, '') AS redriven_by,
    ifNull(redrive.reason, '') AS redriven_because,
    redrive.created AS redriven_at,
    ifNull(redrive.file, '') AS inbox_file,
    ifNull(redrive.position, 0) AS inbox_position
FROM rejected_events AS rejected
LEFT JOIN (
    SELECT seen_at, source_position, count() AS fixes, argMax(payload, created) AS payload
    FROM rejected_fixes
    GROUP BY seen_at, source_position
) AS fix ON fix.seen_at = rejected.seen_at AND fix.source_position = rejected.source_position
LEFT JOIN redrives AS redrive
    ON redrive.seen_at = rejected.seen_at AND redrive.source_position = rejected.source_position
LEFT JOIN inbox_events AS outcome ON outcome.file = redrive.file AND outcome.position = redrive.position;
