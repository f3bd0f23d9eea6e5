"""The state directory: one lock, one lineage.

A lineage is one life of a state directory: everything it ever published carries its id. The directory is locked while
a job runs, because two jobs on one recovery store would both run to the end and count every event twice.
"""

import fcntl
import json
import os
import socket
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from ..errors import RefusedStart, StateError
from .files import explain, make_folder, write_whole

FORMAT = 1


@dataclass(frozen=True)
class Lineage:
    """What is fixed for the life of a state directory."""

    id: str
    created: str
    shards: int
    currency: str
    horizon_us: int | None


class StateDirectory:
    """The locked state directory; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @classmethod
    def under(cls, path: Path, lock: int) -> Self:
        """The directory for a process that was handed the lock's descriptor by the one that holds it.

        The lock is held until all of them are gone: no job can start while a process of the last one still writes.
        Raises StateError if it is not the lock, or is not held.
        """
        try:
            theirs, ours = os.fstat(lock), (path / "LOCK").stat()
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which changes nothing for a descriptor that holds it
        except OSError as error:
            raise explain(error, path / "LOCK", "go on under the lock") from error
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            raise StateError(f"{path / 'LOCK'}: was replaced while a job is on; stop the job, then start it again")
        return cls(path)

    @property
    def lock(self) -> int:
        """The descriptor of the lock, to hand to processes that work under it."""
        if self._lock is None:
            raise StateError(f"{self.path}: is not locked by this process")
        return self._lock

    @property
    def recovery(self) -> Path:
        return self.path / "recovery"

    @property
    def outbox(self) -> Path:
        return self.path / "outbox"

    def shard(self, name: str) -> Path:
        return self.path / "shards" / name

    def __enter__(self) -> Self:
        for folder in (self.path, self.path / "shards", self.outbox):
            make_folder(folder)  # which also syncs what else a killed process has made here and not synced
        lock = self.path / "LOCK"
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise explain(error, lock, "open") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 4096).decode(errors="replace").strip() or "an unknown process"
            os.close(descriptor)
            raise RefusedStart(
                f"{self.path}: in use by {holder}; stop that one first, or use another state_dir"
            ) from None
        owner = f"pid {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, owner.encode(), 0)
        except OSError as error:
            os.close(descriptor)
            raise explain(error, lock, "write") from error
        self._lock = descriptor
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            with suppress(OSError):
                os.ftruncate(self._lock, 0)
            os.close(self._lock)
            self._lock = None

    def lineage(self, shards: int, currency: str, horizon_us: int | None) -> Lineage:
        """The lineage of this directory; begins one where there is none.

        Raises RefusedStart if the config differs in what a lineage fixes, StateError if the file is damaged.
        """
        path = self.path / "lineage.json"
        if not path.exists():
            if self.recovery.exists():
                raise StateError(f"{path}: missing, beside the state of a lineage; restore it from a backup")
            begun = Lineage(uuid.uuid4().hex, f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", shards, currency, horizon_us)
            write_whole(path, json.dumps({"format": FORMAT, **begun.__dict__}, indent=1).encode())
            return begun
        kept = self._read(path)
        wanted = {"shards": shards, "currency": currency}
        for name, value in wanted.items():
            if getattr(kept, name) != value:
                raise RefusedStart(
                    f"{self.path}: was begun with {name} {getattr(kept, name)!r}, the config says {value!r}; {name} is "
                    "fixed for the life of a state directory: change the config back, or begin anew with another "
                    "state_dir and an empty store"
                )
        return kept

    def term(self) -> int:
        """The last term that was taken with this directory; 0 before the first. Raises StateError."""
        path = self.path / "term"
        try:
            return int(path.read_text()) if path.exists() else 0
        except (OSError, ValueError) as error:
            raise StateError(f"{path}: damaged ({error}); restore the state directory from a backup") from error

    def keep_term(self, number: int) -> None:
        """Remembers, synced, which term is about to be taken. Raises StateError."""
        write_whole(self.path / "term", str(number).encode())

    def existing_lineage(self) -> Lineage | None:
        """The lineage of this directory, or None where no run has begun one."""
        path = self.path / "lineage.json"
        return self._read(path) if path.exists() else None

    @staticmethod
    def _read(path: Path) -> Lineage:
        try:
            body = json.loads(path.read_text())
            if body.pop("format") > FORMAT:
                raise StateError(f"{path}: written by a newer Tallyflow; upgrade this one")
            return Lineage(**body)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise StateError(f"{path}: cannot be read ({error}); restore it from a backup") from error
