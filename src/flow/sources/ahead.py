"""Items that are made ahead of who takes them, on threads of their own: while the dataflow works on a batch, or cuts a
block, the next ones are read, and those before them decoded and hashed, on a second core."""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

X = TypeVar("X")
Y = TypeVar("Y")
Where = TypeVar("Where")

AHEAD = 4
"""Items that all readers of a source together hold ahead: enough for the time in which the dataflow cuts a block."""


class Ahead(Generic[X, Y, Where]):
    """What an iterator reads, item by item, each with how far it is read with it. Reading is done on one thread, and
    `prepare` to each item on another. The `readers` of a source share what may be held ahead."""

    def __init__(self, items: Iterator[tuple[X, Where]], prepare: Callable[[X], Y], readers: int) -> None:
        self._items = items
        self._prepare = prepare
        # Pools of one, and no threads of our own: they end with the reader, and hand exceptions on.
        self._reading = ThreadPoolExecutor(1, "reader")
        self._preparing = ThreadPoolExecutor(1, "decoder")
        self._next = deque(self._begin() for _ in range(AHEAD // readers))

    def _begin(self) -> "Future[tuple[Y, Where] | None]":
        return self._preparing.submit(self._prepared, self._reading.submit(next, self._items, None))

    def _prepared(self, reading: "Future[tuple[X, Where] | None]") -> tuple[Y, Where] | None:
        read = reading.result()
        if read is None:
            return None
        item, where = read
        return self._prepare(item), where

    def take(self) -> tuple[Y, Where] | None:
        """The next item; None at the end. Raises what reading or preparing it has raised."""
        self._next.append(self._begin())
        return self._next.popleft().result()

    def close(self) -> None:
        """Lets go of what was made, and ends the threads."""
        for pool in (self._preparing, self._reading):
            pool.shutdown(wait=False, cancel_futures=True)
