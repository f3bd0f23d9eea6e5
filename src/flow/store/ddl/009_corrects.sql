-- What a correction names: JSON with the `source` and `id` of an event (and its `usage` before), or the `window_start` and
-- `grain` of a window. Empty for a re-rating and for a late event.
ALTER TABLE corrections ADD COLUMN IF NOT EXISTS corrects String DEFAULT '' AFTER created;
