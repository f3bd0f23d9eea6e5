"""Tallyflow: exact, provable, very fast metering and rating of AI usage. Start reading at `flow/job.py`."""

__version__ = "0.1.0"
