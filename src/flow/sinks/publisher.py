"""Publishes frozen blocks, first in first out, on a thread of its own, so that the dataflow never waits for the store.

A block's files are inserted each under a token that names its block and place; an insert may therefore be repeated
after any failure, and is, until the store has answered. The rollups come first, large ones two at a time, because an
insert keeps one core busy; what says that the block is there comes last. Then the block leaves the outbox.
"""

import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from ..errors import StoreError, Unpublished
from ..faults import point
from ..store.client import StoreBusy, StoreClient, StoreUnavailable
from ..store.publish import insert_arrow_file
from ..store.tables import ROLLUPS, TABLES
from .outbox import Block, BlockFile, Outbox

LOG = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_LAST_S = 30.0
LOOK_S = 0.05
LOOK_EVERY_S = 60.0
ABANDON_S = 5.0
"""How long to wait for the insert that is on, once its answer matters no more."""
BESIDE_BYTES_MIN = 8 << 20
"""A file of this size is worth a second connection."""
BUSY_TRIES_MAX = 64
"""After so many answers in a row that it is busy, some 20 minutes, somebody has to look at the store."""


@dataclass
class Published:
    """What this process has published."""

    blocks: int = 0
    bytes: int = 0
    retries: int = 0


class Publisher:
    """The queue of frozen blocks of one process. `publish_next` can be driven by hand; `start` drives it from a thread.

    A failure that no retry mends is kept, and raised to whoever asks next.
    """

    def __init__(
        self, connect: Callable[[], StoreClient], fence: Callable[[StoreClient], None] = lambda client: None
    ) -> None:
        """`fence` is asked before and after each block, and raises if another process may publish instead."""
        self._connect = connect
        self._fence = fence
        self._client: StoreClient | None = None
        self._second: StoreClient | None = None
        self._waiting: deque[tuple[Outbox, Block]] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._abandoned = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None
        self.backlog_bytes = 0
        """Bytes of blocks that were cut and are not in the store."""
        self.published = Published()
        self.trouble = ""
        """Why the store could not be reached at the last try; empty: it could."""
        self.on_published: Callable[[Block, int], None] = lambda block, begun_ns: None
        """Told of each block that the store has taken, and when the try that did it began, in ns since 1970."""
        self.look: Callable[[StoreClient], None] = lambda client: None
        """May ask the store something, behind a block, every LOOK_EVERY_S at most."""
        self._look_at = 0.0

    # -- for the dataflow

    def expect(self, block: Block) -> None:
        """Counts a block that was cut: it takes room from now on, also while it is not frozen."""
        with self._changed:
            self.backlog_bytes += block.bytes

    def submit(self, outbox: Outbox, block: Block) -> None:
        """Hands over a frozen block that is expected. Raises what stopped the publisher, if anything did."""
        self.check()
        with self._changed:
            self._waiting.append((outbox, block))
            self._changed.notify()

    def check(self) -> None:
        """Raises what stopped the publisher, if anything did."""
        if self._failure is not None:
            raise self._failure

    # -- publishing

    def publish_next(self) -> bool:
        """Publishes the oldest block; False if none waits.

        Raises StoreUnavailable (call again), StoreError, StateError, TakenOver.
        """
        with self._changed:
            if not self._waiting:
                return False
            outbox, block = self._waiting[0]
        begun_ns = time.time_ns()
        if self._client is None:
            self._client = self._connect()
        self._fence(self._client)
        outbox.check(block)
        outbox.begin(block)
        files = list(enumerate(block.files))
        rollups = deque(file for file in files if file[1].table in ROLLUPS)
        large = sum(file.bytes >= BESIDE_BYTES_MIN for _, file in rollups)
        if large > 1 and self._client.cluster is None:  # replicas take one insert at a time
            self._insert_two_at_a_time(outbox, block, rollups)
        else:
            _insert_all(self._client, outbox, block, rollups)
        _insert_all(self._client, outbox, block, deque(file for file in files if file[1].table not in ROLLUPS))
        self._fence(self._client)  # before the block leaves: were it somebody else's turn, this copy may be needed
        outbox.done(block)
        with self._changed:
            self._waiting.popleft()
            self.backlog_bytes -= block.bytes
        self.published.blocks += 1
        self.published.bytes += block.bytes
        self.on_published(block, begun_ns)
        if time.monotonic() >= self._look_at:
            self._look_at = time.monotonic() + LOOK_EVERY_S
            self.look(self._client)
        return True

    def _insert_two_at_a_time(self, outbox: Outbox, block: Block, files: deque[tuple[int, BlockFile]]) -> None:
        """Raises what stopped either of the two, once both have ended."""
        assert self._client is not None  # the caller is connected
        if self._second is None:
            self._second = self._connect()
        second = self._second
        failure: BaseException | None = None

        def insert() -> None:
            nonlocal failure
            try:
                _insert_all(second, outbox, block, files)
            except BaseException as error:  # raised below, on the thread that asked
                failure = error

        # A daemon: an insert that is never answered must not hold up the end of the process.
        thread = threading.Thread(target=insert, name="publisher-2", daemon=True)
        thread.start()
        try:
            _insert_all(self._client, outbox, block, files)
        finally:
            thread.join()
        if failure is not None:
            raise failure

    # -- the thread

    def start(self) -> None:
        """Begins to publish from a thread."""
        self._thread = threading.Thread(target=self._run, name="publisher", daemon=True)
        self._thread.start()

    def finish(self, stopped: Callable[[], bool] = lambda: False, wait_s: int = 0) -> None:
        """Publishes all that was submitted, then ends the thread. Raises what stopped the publisher, if anything.

        Waits for the store for as long as it takes; from the moment that `stopped` says so, for `wait_s`. Raises
        Unpublished if blocks are left then: they stay in the outbox.
        """
        self._end()
        give_up_at: float | None = None
        while self._thread is not None and self._thread.is_alive():
            if give_up_at is None and stopped():
                give_up_at = time.monotonic() + wait_s
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise self._unpublished(wait_s)
            self._thread.join(LOOK_S)
        self._thread = None
        self.check()

    def abandon(self) -> None:
        """Ends the thread with the insert that is on; what waits stays in the outbox for the next start.

        An insert that is not answered soon is left alone: it goes with the process, and is repeated under its token.
        """
        self._abandoned.set()
        self._end()
        if self._thread is not None:
            self._thread.join(ABANDON_S)
            self._thread = None

    def _end(self) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _unpublished(self, wait_s: int) -> Unpublished:
        with self._changed:
            blocks, folder = len(self._waiting), self._waiting[0][0].folder if self._waiting else ""
        return Unpublished(
            f"stopped by a signal, and the store has not taken all blocks within {wait_s} s "
            f"({self.trouble or 'it is slow, or does not answer'}); {blocks} of them wait in {folder}: nothing is "
            "lost, the next run publishes them"
        )

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._publish_patiently()
        except BaseException as error:  # kept for the dataflow, which asks with `check`
            self._failure = error
        finally:
            for client in (self._client, self._second):
                if client is not None:
                    client.close()

    def _wait_for_work(self) -> bool:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._ending)
            return bool(self._waiting) and not self._abandoned.is_set()

    def _publish_patiently(self) -> None:
        """Repeats while the store is out of reach, ever more slowly and never in step with other writers.

        A store that does not answer is waited for, however long. Raises StoreError if it answers, but stays busy.
        """
        wait_s, busy = RETRY_FIRST_S, 0
        while not self._abandoned.is_set():
            try:
                self.publish_next()
                if self.trouble:
                    self.trouble = ""
                    LOG.warning("the store takes blocks again")
                return
            except StoreUnavailable as error:
                if not self.trouble:
                    LOG.warning("%s; blocks wait in the outbox, and nothing is lost", error)
                self.trouble = str(error)
                self.published.retries += 1
                busy = busy + 1 if isinstance(error, StoreBusy) else 0
                if busy == BUSY_TRIES_MAX:
                    raise StoreError(
                        f"{error}; it said so {busy} times in a row. Give it more memory, or fewer and larger blocks "
                        "(a longer `epoch`), and start again: nothing was lost"
                    ) from error
            self._abandoned.wait(wait_s * random.uniform(0.5, 1.0))
            wait_s = min(wait_s * 2, RETRY_LAST_S)


def _insert_all(client: StoreClient, outbox: Outbox, block: Block, files: deque[tuple[int, BlockFile]]) -> None:
    """Inserts files, by their places in the block, for as long as there are any."""
    while True:
        try:
            n, file = files.popleft()
        except IndexError:  # the other thread may have taken the last one
            return
        point("publisher.before_insert")
        columns = file.columns or TABLES[file.table].names
        insert_arrow_file(client, file.table, columns, outbox.folder / file.name, f"{block.token}-{n}")
        point("publisher.after_insert")
