"""One worker process of a cluster: `python -m flow.cluster.worker LOCK PAPER BOARD SHELF`, as only the supervisor
calls it.

It owns nothing: lock, term and balance are the supervisor's. It may die at any time, by itself or because the
supervisor went: the next attempt goes on from the last epoch.
"""

import itertools
import os
import select
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

from ..errors import EngineStopped, StateError, TallyflowError
from ..logs import set_up
from ..run import make_job, work
from ..state.directory import StateDirectory
from ..state.manifest import DamagedManifest
from ..steps.shards import rated_where_written
from ..steps.shelf import Shelf, use
from .failure import FirstFailure
from .task import Board, Sign, Task, read_paper, write_paper

STDIN = 0
LOOK_S = 0.1


def main(lock: int, paper: int, board: int, shelf: int) -> None:
    """Does the task that stands on the paper, and leaves a report there. The arguments are descriptors."""
    # A terminal or a service manager may signal all processes of the job. The supervisor decides what that means.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    task = read_paper(paper)
    assert isinstance(task, Task)  # the supervisor wrote it
    set_up(task.config.log)
    first = FirstFailure()
    try:
        directory = StateDirectory.under(task.config.state_dir, lock, task.host)
        job = make_job(task.config, task.book, directory, task.claim)
        shared = Board(board)
        job.process, job.processes = task.process - task.first, shared.processes
        job.in_cluster = True
        if _shares_memory(task, shared.processes):
            use(Shelf(shelf, job.process))
        job.waiting_bytes = shared.waiting_bytes

        def show(beats: int) -> None:
            sign = Sign(job.publisher.backlog_bytes, beats, -1 if job.drained else first.calls)
            shared.show(task.process - task.first, sign)

        threading.Thread(target=_watch, args=(job.stop, show), name="line", daemon=True).start()
        first.watch(job)
        first.watch(job.sink)
        write_paper(paper, work(job, task.threads, task.addresses, task.process))
    except TallyflowError as error:
        write_paper(paper, _explained(error, first.error, task.config.state_dir))


def _shares_memory(task: Task, processes: int) -> bool:
    """Whether batches are sent by the shelf: all processes are of this host, and only batches have to be sent, not what
    is made of them, which would take along all that lies there."""
    workers = len(task.addresses) * task.threads
    return len(task.addresses) == processes and rated_where_written(task.claim.lineage.keys, workers)


def _explained(error: TallyflowError, first: Exception | None, state_dir: Path) -> TallyflowError:
    """What a step raised, if Bytewax lost it."""
    if not isinstance(error, EngineStopped) or first is None:
        return error
    if isinstance(first, DamagedManifest):
        return StateError(f"{StateDirectory(state_dir).recovery}: {first}")
    if isinstance(first, TallyflowError):
        return first
    traceback.print_exception(first)  # a defect: whoever mends it needs to see where
    return EngineStopped(f"{type(first).__name__}: {first}")


def _watch(stop: threading.Event, show: Callable[[int], None]) -> None:
    for beats in itertools.count(1):
        show(beats)
        if select.select([STDIN], [], [], LOOK_S)[0]:
            if not os.read(STDIN, 1):
                os._exit(1)  # the supervisor is gone: whatever is under way is as good as never begun
            stop.set()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
    # The report is written, and nothing else is left to do: threads of Bytewax that still wait for a peer which has
    # gone could only turn a clean end into an abort.
    sys.stderr.flush()
    os._exit(0)
