"""The worker processes of one host: started, watched, asked to stop, and killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum

from ..config import Config
from ..errors import EngineStopped, TallyflowError
from ..prices.book import PriceBook
from ..run import Share
from ..start import Claim
from ..steps.shelf import Shelf
from .task import Board, Report, Sign, Task, new_paper, read_paper

BEGIN_S = 60.0
"""How long a process may take to show its first sign of life: it has yet to be loaded."""
GAP_S = 1.0
ARROW_KEEPS = {"MIMALLOC_PURGE_DELAY": "5000"}
"""Milliseconds for which Arrow's allocator keeps what a batch has left, where it would give that back after a second,
and have the kernel clear it page by page for a batch to come."""


class Quiet:
    """For how long a number has not changed, as seen by somebody who may have been frozen himself."""

    def __init__(self) -> None:
        self._value: object = None
        self._seen_at = time.monotonic()
        self.seconds = 0.0

    def look(self, value: object) -> float:
        """Looks again; what is longer than GAP_S between two looks was our own sleep, not theirs."""
        now = time.monotonic()
        self.seconds = 0.0 if value != self._value else self.seconds + min(now - self._seen_at, GAP_S)
        self._value, self._seen_at = value, now
        return self.seconds


class Kind(IntEnum):
    """What a failure says about its reason; of several, the lowest says most."""

    FATAL = 0  # an error that no new attempt would mend
    ENDED = 1  # killed, hung, or gone without a word
    SYMPTOM = 2  # Bytewax stopped, mostly since it lost another process


@dataclass(frozen=True)
class Failure:
    """Why an attempt cannot go on."""

    kind: Kind
    reason: str
    error: TallyflowError | None = None
    """What to raise, if it is fatal."""
    final: bool = False
    """Whether nobody will know better, however long one waits."""


@dataclass(frozen=True)
class Attempt:
    """What all hosts are told."""

    number: int
    claim: Claim
    holder: str
    """Who holds the lock of the state directory."""
    addresses: tuple[str, ...]
    """Of all processes."""


@dataclass(frozen=True)
class Look:
    """What the processes of a host are up to."""

    steps: int = 0
    """All calls into the dataflow so far; -1: in one of them it has ended."""
    waiting_bytes: int = 0
    running: bool = True
    """Whether any of them still runs."""
    failure: Failure | None = None
    shares: Sequence[Share] | None = None
    """What each did, once all have got to the end."""


class Crew:
    """The processes of this host. Between `end` and `start` there are none."""

    def __init__(self, config: Config, book: PriceBook, processes: int, threads: int, host: int = 0) -> None:
        self._config, self._book, self._host = config, book, host
        self.processes, self._threads = processes, threads
        self._workers: list[_Worker] = []
        self._board: Board | None = None

    def start(self, attempt: Attempt, first: int, lock: int) -> None:
        """Starts them; `first` is the number of the first among all of the cluster, `lock` the lock they work under."""
        board, shelf = Board.new(self.processes), Shelf.new(self.processes)
        try:
            self._board = Board(board)
            for number in range(first, first + self.processes):
                task = Task(
                    *(self._config, self._book, attempt.claim, number, attempt.addresses, self._threads),
                    *(self._host, first),
                )
                self._workers.append(_Worker(task, lock, board, shelf))
        except BaseException:
            self.end()
            raise
        finally:
            os.close(board)
            os.close(shelf)

    def stop(self) -> None:
        """Asks them to end their input."""
        for worker in self._workers:
            worker.stop()

    def show_others(self, waiting_bytes: int) -> None:
        """Tells them what waits for the store on other hosts."""
        if self._board is not None:
            self._board.show_others(waiting_bytes)

    def look(self) -> Look:
        """What they are up to."""
        assert self._board is not None  # whoever looks has started them
        signs = self._board.signs()
        waiting_bytes = sum(sign.waiting_bytes for sign in signs)
        steps = -1 if any(sign.steps < 0 for sign in signs) else sum(sign.steps for sign in signs)
        running = any(not worker.ended() for worker in self._workers)
        allowed_s = self._config.limits.stall_us // 10**6
        found = [worker.failure(sign, allowed_s) for worker, sign in zip(self._workers, signs, strict=True)]
        failure = min((one for one in found if one is not None), key=lambda one: one.kind, default=None)
        shares = None
        if failure is None and not running:
            shares = [worker.share() for worker in self._workers]
        return Look(steps, waiting_bytes, running, failure, shares)

    def end(self) -> None:
        """Kills what is still there; nothing of it goes on when this returns."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()
        self._board = None


class _Worker:
    """One worker process, seen from the supervisor."""

    def __init__(self, task: Task, lock: int, board: int, shelf: int) -> None:
        self._number = task.process
        self._quiet = Quiet()
        self._paper = new_paper(task)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.worker", *map(str, (lock, self._paper, board, shelf))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # Bytewax says there that it waits for the others
                pass_fds=(lock, self._paper, board, shelf),
                env={**ARROW_KEEPS, **os.environ},
                start_new_session=True,  # or the keys of a terminal would reach it
                bufsize=0,
            )
        except BaseException:
            os.close(self._paper)
            raise

    def ended(self) -> bool:
        return self._process.poll() is not None

    def failure(self, sign: Sign, allowed_s: int) -> Failure | None:
        """Why it has not got to the end, and will not."""
        who = f"process {self._number} of the cluster (pid {self._process.pid})"
        if not self.ended():
            quiet_s = self._quiet.look(sign.beats)
            if quiet_s <= (allowed_s if sign.beats else max(allowed_s, BEGIN_S)):
                return None
            return Failure(Kind.ENDED, f"{who} has shown no sign of life for {round(quiet_s)} s", final=True)
        report = self._report()
        if isinstance(report, Share):
            return None
        if isinstance(report, EngineStopped):
            return Failure(Kind.SYMPTOM, f"{who} stopped ({report})")
        if report is not None:
            return Failure(Kind.FATAL, f"{who} stopped ({report})", report)
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        # Who was killed from outside is no victim of another process, as one that aborts may be.
        return Failure(Kind.ENDED, f"{who} {how}", final=code == -signal.SIGKILL)

    def share(self) -> Share:
        """What it did; it has got to the end."""
        report = self._report()
        assert isinstance(report, Share)  # or it would have failed
        return report

    def _report(self) -> Report | None:
        if self._process.returncode < 0:
            return None  # killed; perhaps while it wrote
        content = read_paper(self._paper)
        return None if isinstance(content, Task) else content

    def stop(self) -> None:
        """Asks it to end its input."""
        assert self._process.stdin is not None  # it is a pipe
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"s")

    def end(self) -> None:
        """Kills it if it is still there; nothing of it goes on when this returns."""
        assert self._process.stdin is not None  # it is a pipe
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        os.close(self._paper)
