"""Work that is done beside the dataflow, in order, on a thread of its own."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


class Beside:
    """At most `ahead` tasks wait for the thread; with 0 there is none, and each task is done at once.

    Behind a task that has raised no other is done: each raises the same.
    """

    def __init__(self, ahead: int, name: str = "beside") -> None:
        """`name`: of the thread, by which it is found in a dump of the process."""
        self._ahead = ahead
        self._thread = ThreadPoolExecutor(1, name) if ahead else None
        self._begun: deque[Future[Any]] = deque()
        self._failure: BaseException | None = None

    def begin(self, task: Callable[[], T]) -> Future[T]:
        """Begins a task. Raises what one before it has raised."""
        if self._thread is None:
            done: Future[T] = Future()
            done.set_result(self._do(task))
            return done
        while len(self._begun) >= self._ahead:
            self._begun.popleft().result()
        self._begun.append(self._thread.submit(self._do, task))
        return self._begun[-1]

    def _do(self, task: Callable[[], T]) -> T:
        if self._failure is not None:
            raise self._failure
        try:
            return task()
        except BaseException as failure:
            self._failure = failure
            raise

    def close(self) -> None:
        """Waits for all that was begun, and ends the thread. Raises what any of it has raised."""
        try:
            self.wait()
        finally:
            self.end()

    def end(self) -> None:
        """Ends the thread behind what was begun, whatever becomes of that."""
        if self._thread is not None:
            self._thread.shutdown()

    def wait(self) -> None:
        """Waits for all that was begun. Raises what any of it has raised."""
        while self._begun:
            self._begun.popleft().result()
