"""Runs a job as several processes of this machine: `tallyflow run --processes N`.

The supervisor holds the lock, the term and the lineage, starts the workers, and checks the balance over all of them at
the end. Bytewax cannot replace one process of a cluster: if one dies, all are killed and started again, and go on from
the last epoch, each with the state of the shards that it is given. How many there are may change from run to run.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

from ..config import Config
from ..errors import ClusterError, EngineStopped, RefusedStart, TallyflowError
from ..prices.book import PriceBook, load_price_book
from ..run import Claim, Outcome, Share, conclude, prepare, stopping
from ..state.directory import StateDirectory
from .task import Backlog, Report, Task, new_paper, read_paper

RESTARTS_MAX = 5
"""More than this within CALM_S, and the job ends."""
CALM_S = 600.0
WAIT_FIRST_S = 0.5
WAIT_LAST_S = 30.0
LOOK_S = 0.05
GRACE_S = 5.0
"""How long the others may take to say what is wrong, once one has ended without a reason of its own."""


def run_cluster(config: Config, processes: int, threads: int, say: Callable[[str], None]) -> Outcome:
    """Runs to the end of the input, or to SIGINT or SIGTERM, and publishes everything.

    `threads` are worker threads of each process; `say` is told when processes are started again.
    Raises what `run` raises, and ClusterError.
    """
    _check(config, processes)
    book = load_price_book(config.prices, config.limits.quantity_max)
    with StateDirectory(config.state_dir) as directory:
        claim = prepare(config, directory, book.currency)
        begun = time.monotonic()
        stop = threading.Event()
        with stopping(stop):
            shares = _Supervisor(config, book, claim, directory, processes, threads, stop, say).run()
        return conclude(config, directory, claim.lineage, shares, begun)


def _check(config: Config, processes: int) -> None:
    if config.store.kind == "chdb":
        raise RefusedStart(
            f"--processes {processes}: the store {config.store.url} is embedded, which serves one process; set "
            "`store: clickhouse://user:password@host:8123/tallyflow`, or use --workers"
        )
    if config.shards < processes:
        raise RefusedStart(
            f"--processes {processes}: there are {config.shards} shards (`shards:` in the config), and a process "
            f"without one has nothing to do; use at most --processes {config.shards}. The number of shards is fixed "
            "for the life of a state directory: more of them need a new one, and an empty store"
        )


class _Supervisor:
    """Attempts, one after the other, until one gets to the end."""

    def __init__(
        self,
        config: Config,
        book: PriceBook,
        claim: Claim,
        directory: StateDirectory,
        processes: int,
        threads: int,
        stop: threading.Event,
        say: Callable[[str], None],
    ) -> None:
        self._config, self._book, self._claim, self._directory = config, book, claim, directory
        self._processes, self._threads = processes, threads
        self._stop, self._say = stop, say

    def run(self) -> list[Share]:
        """What each process did, of the attempt that got to the end. Raises what a worker stopped for, ClusterError."""
        failures: deque[float] = deque()
        while True:
            workers = self._start()
            try:
                reason = self._wait(workers)
                if reason is None:
                    return [worker.share() for worker in workers]
            finally:
                for worker in workers:
                    worker.end()
            now = time.monotonic()
            failures.append(now)
            while failures[0] < now - CALM_S:
                failures.popleft()
            if len(failures) > RESTARTS_MAX:
                raise ClusterError(
                    f"{reason}, and that was failure {len(failures)} in {round(CALM_S / 60)} minutes; find out "
                    "why, then start again: nothing is lost"
                )
            wait_s = min(WAIT_FIRST_S * 2 ** (len(failures) - 1), WAIT_LAST_S)
            self._say(f"{reason}; all processes start again from the last epoch in {wait_s:g} s")
            self._stop.wait(wait_s)

    def _start(self) -> list["_Worker"]:
        addresses = _free_addresses(self._processes)
        backlog = Backlog.new(self._processes)
        workers: list[_Worker] = []
        try:
            for number in range(self._processes):
                task = Task(self._config, self._book, self._claim, number, addresses, self._threads)
                workers.append(_Worker(task, self._directory.lock, backlog))
        except BaseException:
            for worker in workers:
                worker.end()
            raise
        finally:
            os.close(backlog)
        return workers

    def _wait(self, workers: list["_Worker"]) -> str | None:
        """None when all have got to the end, else why one did not. Raises what no new attempt would mend."""
        told = False
        while True:
            if self._stop.is_set() and not told:
                told = True
                for worker in workers:
                    worker.stop()
            failed = [worker for worker in workers if worker.failed()]
            if failed:
                return self._reason(failed[0], workers)
            if all(worker.ended() for worker in workers):
                return None
            time.sleep(LOOK_S)

    def _reason(self, first: "_Worker", workers: list["_Worker"]) -> str:
        """What happened to the first that failed; it may be only the first to feel that another has."""
        until = time.monotonic() + GRACE_S
        while True:
            for worker in workers:
                error = worker.error()
                if error is not None and not isinstance(error, EngineStopped):
                    raise error
            if time.monotonic() > until or all(worker.ended() for worker in workers):
                killed = [worker for worker in workers if worker.failed() and worker.error() is None]
                return (killed or [first])[0].reason()
            time.sleep(LOOK_S)


class _Worker:
    """One worker process, seen from the supervisor."""

    def __init__(self, task: Task, lock: int, backlog: int) -> None:
        self._number = task.process
        self._paper = new_paper(task)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.worker", *map(str, (lock, self._paper, backlog))],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,  # Bytewax says there that it waits for the others
                pass_fds=(lock, self._paper, backlog),
                start_new_session=True,  # or the keys of a terminal would reach it
                bufsize=0,
            )
        except BaseException:
            os.close(self._paper)
            raise

    def ended(self) -> bool:
        return self._process.poll() is not None

    def failed(self) -> bool:
        """Whether it has ended, and not got to the end."""
        return self.ended() and not isinstance(self._report(), Share)

    def error(self) -> TallyflowError | None:
        """What it has stopped for, if it has said so."""
        report = self._report() if self.ended() else None
        return report if isinstance(report, TallyflowError) else None

    def reason(self) -> str:
        """Why it has ended."""
        code = self._process.returncode
        how = f"was killed by signal {-code}" if code is not None and code < 0 else f"ended with exit code {code}"
        error = self.error()
        if error is not None:
            how = f"stopped ({error})"
        return f"process {self._number} of the cluster (pid {self._process.pid}) {how}"

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


def _free_addresses(count: int) -> tuple[str, ...]:
    """Addresses of this machine that nobody listens on.

    If another program takes one first, the attempt fails, and the next one asks again.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return tuple(f"127.0.0.1:{one.getsockname()[1]}" for one in sockets)
    finally:
        for one in sockets:
            one.close()
