-- What is said of a correction is the same in all rows of a re-rating: read and inserted as numbers of texts.
ALTER TABLE corrections MODIFY COLUMN reason LowCardinality(String);
ALTER TABLE corrections MODIFY COLUMN author LowCardinality(String);
ALTER TABLE corrections MODIFY COLUMN book_before LowCardinality(String);
ALTER TABLE corrections MODIFY COLUMN book_after LowCardinality(String);
-- Many rows at once, seldom read: as reluctant to merge as the rollups.
ALTER TABLE corrections MODIFY SETTING merge_selector_base = 16;
