"""Publishes frozen blocks, first in first out, on a thread of its own, so that the dataflow never waits for the store."""

import queue
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from ..store.client import StoreClient, StoreUnavailable
from ..store.publish import insert_arrow_file
from ..store.tables import TABLES
from .outbox import Block, Outbox

T = TypeVar("T")

RETRY_FIRST_S = 0.1
RETRY_LAST_S = 30.0


@dataclass
class Published:
    """What has been published in this run."""

    blocks: int = 0
    rows_bytes: int = 0
    retries: int = 0
    last_error: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Publisher:
    """One thread and one connection a process. A failure that no retry mends is kept and raised to whoever asks next."""

    def __init__(self, connect: Callable[[], StoreClient]) -> None:
        self._connect = connect
        self._waiting: queue.SimpleQueue[tuple[Outbox, Block] | None] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._backlog_bytes = 0
        self.published = Published()
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def submit(self, outbox: Outbox, block: Block) -> None:
        """Hands over a frozen block. Raises what stopped the publisher, if anything did."""
        self.check()
        with self.published.lock:
            self._backlog_bytes += block.bytes
        self._waiting.put((outbox, block))

    def check(self) -> None:
        """Raises what stopped the publisher, if anything did."""
        if self._failure is not None:
            raise self._failure

    @property
    def backlog_bytes(self) -> int:
        """Bytes of frozen blocks that wait for the store."""
        return self._backlog_bytes

    def finish(self) -> None:
        """Publishes all that was submitted, then ends the thread. Raises what stopped the publisher, if anything did."""
        self._waiting.put(None)
        self._thread.join()
        self.check()

    def abandon(self) -> None:
        """Ends the thread soon; what waits stays in the outbox for the next start."""
        self._stop.set()
        self._waiting.put(None)
        self._thread.join(timeout=60)

    def _run(self) -> None:
        try:
            client = self._retrying(self._connect)
            if client is None:
                return
            with client:
                while (item := self._waiting.get()) is not None and not self._stop.is_set():
                    outbox, block = item
                    self._publish(client, outbox, block)
        except BaseException as error:  # reported to the dataflow by `check`
            self._failure = error

    def _publish(self, client: StoreClient, outbox: Outbox, block: Block) -> None:
        outbox.check(block)
        for n, file in enumerate(block.files):
            path, columns = outbox.folder / file.name, TABLES[file.table].names
            token = f"{block.token}-{n}"
            done = self._retrying(
                lambda p=path, c=columns, t=file.table, k=token: insert_arrow_file(client, t, c, p, k) or True
            )
            if done is None:
                return
        outbox.done(block)
        with self.published.lock:
            self._backlog_bytes -= block.bytes
            self.published.blocks += 1
            self.published.rows_bytes += block.bytes

    def _retrying(self, attempt: Callable[[], T]) -> T | None:
        """Repeats while the store is out of reach, ever more slowly; None when asked to stop meanwhile."""
        wait_s = RETRY_FIRST_S
        while not self._stop.is_set():
            try:
                return attempt()
            except StoreUnavailable as error:
                self.published.retries += 1
                self.published.last_error = str(error)
            self._stop.wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_LAST_S)
        return None
