"""The kernel of anomalies: usage by hour, and sizes of samples. It takes anything that has a buffer."""

from _core import usage as _usage

UsageSums, sampled = _usage.UsageSums, _usage.sampled
