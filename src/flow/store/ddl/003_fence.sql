-- Who may publish a lineage: the highest (term, holder). A run takes a term above all others when it starts, and the
-- publisher asks around each block whether that is still the highest; one that was overtaken stops. Rows are never
-- changed: two runs that took the same term at the same moment are told apart by their holders.
CREATE TABLE IF NOT EXISTS fence (
    lineage String,
    term UInt64,
    holder String,
    taken_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY (lineage, term, holder)
SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1;
