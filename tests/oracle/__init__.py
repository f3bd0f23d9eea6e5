"""The slow truth in plain Python: what every kernel is held against. Imported by tests only."""
