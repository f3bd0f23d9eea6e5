"""Items that are made ahead of who takes them, on a thread of their own: while the dataflow works on a batch, or cuts a
block, the next ones are read, decoded and hashed on a second core."""

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

X = TypeVar("X")

AHEAD = 4
"""Items that all readers of a source together hold ahead: enough for the time in which the dataflow cuts a block."""


class Ahead(Generic[X]):
    """The items of an iterator; one of `readers`, which share what may be held ahead."""

    def __init__(self, items: Iterator[X], readers: int) -> None:
        self._items = items
        # A pool of one, and no thread of our own: it ends with the reader, and hands exceptions on.
        self._pool = ThreadPoolExecutor(1, "reader")
        self._next = deque(self._begin() for _ in range(AHEAD // readers))

    def _begin(self) -> "Future[X | None]":
        return self._pool.submit(next, self._items, None)

    def take(self) -> X | None:
        """The next item; None at the end. Raises what making it has raised."""
        self._next.append(self._begin())
        return self._next.popleft().result()

    def close(self) -> None:
        """Lets go of what was made, and ends the thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
