"""What a restart of the job would begin with now: read from Bytewax's recovery store, also beside a running job.

A job appends to its files before the epoch is committed, and a crash in between takes that back; in the replay, another
event of the same identity may come first. So a command that decides anything by what these files hold reads no further
than the last committed snapshot says. Not for the process of a job itself: Bytewax brings an SQLite of its own, and two
of them in one process undo each other's locks.
"""

import pickle
import sqlite3
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from ..errors import StateError

_BUSY_S = 30


def last_snapshots(recovery: Path, step: str) -> dict[str, bytes]:
    """The snapshot that a restart would load, of each key of a step. Raises StateError."""
    with ExitStack() as opened:
        parts = {path: _open(path, opened) for path in sorted(recovery.glob("part-*.sqlite3"))}
        return _last_snapshots(parts, step) if parts else {}


def _open(path: Path, opened: ExitStack) -> sqlite3.Connection:
    try:
        part = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S, isolation_level=None)
    except sqlite3.Error as error:
        raise _damaged(path, error) from error
    return opened.enter_context(closing(part))


def _last_snapshots(parts: dict[Path, sqlite3.Connection], step: str) -> dict[str, bytes]:
    execution, _ = _resume_point(parts)
    while True:
        kept = _rows(parts, "SELECT snap_epoch, state_key, ser_change FROM snaps WHERE step_id = ?", step)
        # Only now: what is committed meanwhile makes no snapshot wrong. A new execution could: it
        # replaces what the one before has left of an epoch that was never committed.
        now, resume_epoch = _resume_point(parts)
        if now == execution:
            break
        execution = now
    committed = sorted((row for row in kept if row[1] < resume_epoch), key=lambda row: row[1])
    last = {key: (path, change) for path, _, key, change in committed}
    return {key: _unpickled(path, change) for key, (path, change) in last.items() if change is not None}


def _unpickled(path: Path, change: bytes) -> bytes:
    try:
        snapshot = pickle.loads(change)
    except Exception as error:  # of damaged bytes it raises whatever they happen to lead it to
        raise _damaged(path, error) from error
    if not isinstance(snapshot, bytes):
        raise _damaged(path, f"a snapshot is {type(snapshot).__name__}")
    return snapshot


def _damaged(path: Path, why: object) -> StateError:
    return StateError(f"{path}: cannot be read ({why}); see whether the disk is well")


def _resume_point(parts: dict[Path, sqlite3.Connection]) -> tuple[int, int]:
    """The newest execution, and the epoch in which the next one begins: the least that all its workers have reached."""
    executions = _rows(parts, "SELECT ex_num, worker_count, resume_epoch FROM exs")
    number, workers, began = max((row[1:] for row in executions), default=(0, 0, 0))
    reached = [epoch for _, epoch in _rows(parts, "SELECT worker_frontier FROM fronts WHERE ex_num = ?", number)]
    return number, min(reached) if workers and len(reached) == workers else began


def _rows(parts: dict[Path, sqlite3.Connection], query: str, *values: object) -> list[tuple[Any, ...]]:
    """Each behind the file that it is of."""
    rows: list[tuple[Any, ...]] = []
    for path, part in parts.items():
        try:
            rows += [(path, *row) for row in part.execute(query, values)]
        except sqlite3.Error as error:
            raise _damaged(path, error) from error
    return rows
