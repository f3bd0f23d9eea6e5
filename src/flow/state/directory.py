"""The state directory: one lock, one lineage.

A lineage is one life of a state directory: everything it ever published carries its id. The directory is locked while
a job runs, because two jobs on one recovery store would both run to the end and count every event twice.

A job of several hosts has one state directory, on storage that all of them share. Host 0 holds LOCK, as the job of one
host does; host n holds LOCK-n while processes of it work there. Whoever takes LOCK finds those of the others free, or
does not start; and host n works only for the holder of LOCK. So nothing of an earlier job can still write, wherever it
ran.
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

FORMAT = 2
KEYS = 2
"""How the shards of a new lineage are keyed, see `steps/shards.py`; those that say nothing of it were begun with 1."""


@dataclass(frozen=True)
class Lineage:
    """What is fixed for the life of a state directory."""

    id: str
    created: str
    shards: int
    currency: str
    horizon_us: int | None
    keys: int = 1


class StateDirectory:
    """The locked state directory; use as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = ""
        """What LOCK says of who holds it; no two holders are alike."""
        self._lock: int | None = None

    @classmethod
    def under(cls, path: Path, lock: int, host: int = 0) -> Self:
        """The directory for a process of a host that was handed the lock's descriptor by the one that holds it.

        The lock is held until all of them are gone: no job can start while a process of the last one still writes.
        Raises StateError if it is not the lock, or is not held.
        """
        expected = _lock_path(path, host)
        try:
            theirs, ours = os.fstat(lock), expected.stat()
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # which changes nothing for a descriptor that holds it
        except OSError as error:
            raise explain(error, expected, "go on under the lock") from error
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            raise StateError(f"{expected}: was replaced while a job is on; stop the job, then start it again")
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
        self._lock, self.holder = _take(_lock_path(self.path, 0), f"{self.path}: in use by")
        try:
            self._refuse_other_hosts()
        except BaseException:
            self._release()
            raise
        return self

    def _refuse_other_hosts(self) -> None:
        """After the lock was taken: from now on none of them begins anew, see HostLock."""
        for path in sorted(self.path.glob("LOCK-*")):
            descriptor, _ = _take(path, f"{self.path}: processes of another host of the last job still work on it:")
            _give_back(descriptor)

    def _release(self) -> None:
        if self._lock is not None:
            _give_back(self._lock)
            self._lock = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._release()

    def lineage(self, shards: int, currency: str, horizon_us: int | None) -> Lineage:
        """The lineage of this directory; begins one where there is none.

        Raises RefusedStart if the config differs in what a lineage fixes, StateError if the file is damaged.
        """
        path = self.path / "lineage.json"
        if not path.exists():
            if self.recovery.exists():
                raise StateError(f"{path}: missing, beside the state of a lineage; restore it from a backup")
            created = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
            begun = Lineage(uuid.uuid4().hex, created, shards, currency, horizon_us, KEYS)
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


class HostLock:
    """The part of a host other than 0 in the lock of a state directory, while processes of it work there."""

    def __init__(self, path: Path, host: int, holder: str) -> None:
        """Takes it for a job whose LOCK is held by `holder`.

        Raises RefusedStart where processes of this host, or of one that was it, are still at work; StateError if what
        host 0 has locked is not what this host sees under that path, or locks do not reach from host to host.
        """
        self.descriptor, _ = _take(_lock_path(path, host), f"{path}: host {host} is still in use there by")
        try:
            # Only now: a holder that comes later looks for this lock after it has written its name.
            self._check(_lock_path(path, 0), holder)
        except BaseException:
            self.release()
            raise

    @staticmethod
    def _check(lock: Path, holder: str) -> None:
        try:
            descriptor = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
        except OSError as error:
            raise explain(error, lock, "open") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = False
        except BlockingIOError:
            held = True
        finally:
            found = os.read(descriptor, 4096).decode(errors="replace").strip()
            os.close(descriptor)
        if found != holder:
            raise StateError(
                f"{lock.parent}: is not the state directory that host 0 has locked: LOCK says {found or 'nothing'!r} "
                f"here, and {holder!r} there; all hosts of a job need the same one, on storage that they share"
            )
        if not held:
            raise StateError(
                f"{lock}: host 0 holds this lock, and here it is free: the storage does not pass locks from host to "
                "host; mount it so that it does (NFS: version 4, or 3 without nolock and local_lock)"
            )

    def release(self) -> None:
        """Nothing of this host works there any more."""
        _give_back(self.descriptor)


def _lock_path(path: Path, host: int) -> Path:
    return path / ("LOCK" if host == 0 else f"LOCK-{host}")


def _take(lock: Path, refused: str) -> tuple[int, str]:
    """Takes a lock: its descriptor, and what it says of the holder. Raises RefusedStart, StateError."""
    try:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise explain(error, lock, "open") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 4096).decode(errors="replace").strip() or "an unknown process"
        os.close(descriptor)
        raise RefusedStart(f"{refused} {holder}; stop that one first, or use another state_dir") from None
    owner = (
        f"pid {os.getpid()} on {socket.gethostname()}, since {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} "
        f"({uuid.uuid4().hex[:8]})"  # process ids repeat, and so do host names of containers
    )
    try:
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, owner.encode(), 0)
    except OSError as error:
        os.close(descriptor)
        raise explain(error, lock, "write") from error
    return descriptor, owner


def _give_back(descriptor: int) -> None:
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
    os.close(descriptor)
