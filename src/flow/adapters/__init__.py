"""Providers' usage payloads into our disjoint meters: a table of data (`tables.py`) and one reader (`reading.py`)."""
