"""Why a worker process stopped, in its own words; and whether it goes on.

A step that raises ends the worker threads of its process, and Bytewax then raises what it was told. In a cluster it
also loses the other processes in that moment, and raises this instead: nothing is left of the reason. So it is kept
here, where it is raised.
"""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

X = TypeVar("X")

_METHODS = (
    *("source", "decode", "route", "deduplicate", "rate"),
    *("list_parts", "build_part", "next_batch", "next_awake", "on_batch", "write_batch", "snapshot"),
)
"""All that Bytewax calls of a job, its source and its sink, their parts, and the logic of a shard."""


class FirstFailure:
    """Keeps the first exception that anything which is watched raises, and counts the calls."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.calls = 0
        """Into the dataflow, so far; threads may lose one to each other, since only a change means anything."""

    def watch(self, thing: X) -> X:
        """The same thing; what its methods make is watched as well."""
        for name in _METHODS:
            if (method := getattr(thing, name, None)) is not None:
                object.__setattr__(thing, name, self._watched(method))
        return thing

    def _watched(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            try:
                made = method(*arguments)
                if isinstance(made, Iterator):
                    made = list(made)  # it may raise too
            except StopIteration:  # the end of the input
                raise
            except Exception as error:
                if self.error is None:
                    self.error = error
                raise
            return self.watch(made) if hasattr(made, "build_part") or hasattr(made, "snapshot") else made

        return call
