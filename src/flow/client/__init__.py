"""Events from an application into Tallyflow: accepted on disk, delivered in batches, never waited for by the caller."""

from .client import Client, Stats

__all__ = ["Client", "Stats"]
