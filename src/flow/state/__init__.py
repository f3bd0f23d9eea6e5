"""What a job keeps on disk besides Bytewax's recovery store: lock, lineage, fingerprint segments, open ledger."""
