"""Holds the store against a second source: a gateway's log, another store, a provider's report. See reconciling.py."""
