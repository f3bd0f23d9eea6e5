"""What all sources share: they stop at a signal, and wait while the outbox is full."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Generic, TypeVar

from bytewax.inputs import StatefulSourcePartition

from ..steps.batches import Columns, Decoded, Heartbeat, Lines, Unreadable

Item = Lines | Columns | Unreadable | Decoded | Heartbeat
X = TypeVar("X")

_PAUSE = timedelta(milliseconds=50)


@dataclass(frozen=True)
class Flow:
    """How a source is held back: by a signal for good, by a full outbox for a while."""

    stop: Event
    full: Callable[[], bool]


class PausingPartition(StatefulSourcePartition[X | Heartbeat, bytes], Generic[X]):
    """A partition that gives items from `read()` until that returns None, the end of the input.

    One partition of a source `leads`: it begins with a heartbeat to all shards, whatever is to be read. Bytewax keeps
    snapshots of an epoch that was never committed, and would load them as if it had been, after an execution that
    commits this epoch without a snapshot of the same shard (tests/contract watches that). So each execution takes one
    of every shard in its first epoch.
    """

    def __init__(self, flow: Flow, *, leads: bool) -> None:
        self._flow = flow
        self._paused = False
        self._leads = leads

    def read(self) -> list[X] | None:
        """The next items; None at the end."""
        raise NotImplementedError

    def next_batch(self) -> Iterable[X | Heartbeat]:
        if self._leads:
            self._leads = False
            return [Heartbeat()]
        # At the end of input Bytewax takes a last snapshot and stops cleanly: a signal is an early end.
        if self._flow.stop.is_set():
            raise StopIteration
        self._paused = self._flow.full()
        if self._paused:
            return [Heartbeat()]  # else the block that fills the outbox would never be frozen, nor ever published
        items = self.read()
        if items is None:
            raise StopIteration
        return items

    def next_awake(self) -> datetime | None:
        return datetime.now(UTC) + _PAUSE if self._paused else None
