-- A correction of a rate without a finite decimal: amount is rounded down, and amount_remainder is what it leaves of
-- 10^-15, in the parts of exact_usage_by_... (docs/decisions/012-fractional-rates.md).
ALTER TABLE corrections ADD COLUMN IF NOT EXISTS amount_remainder UInt128 AFTER amount;
