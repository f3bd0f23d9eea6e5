"""What a job keeps on disk besides Bytewax's recovery store: its lock, its lineage, fingerprint segments, the open ledger."""
