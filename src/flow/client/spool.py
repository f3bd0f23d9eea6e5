"""What was accepted and is not delivered yet, on disk: one folder a client, in it one file a batch.

    spool/
      20261101T120000123456-3f2a91c0/        one client's; LOCK is locked for as long as it lives
        LOCK
        20261101T120000123999-3f2a91c0-000001.events

A file is lines of CRC-32 in hex, a space, the event in JSON. It is appended to and synced until it is sealed, then
sent as one batch, and deleted when that was delivered. A folder whose client is gone is taken over by the next one
that starts: its files are sent with the ids, and the batch names, that they always had.
"""

import contextlib
import fcntl
import os
import shutil
import threading
import uuid
import zlib
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ..state.files import explain, make_folder, sync_folder

_SUFFIX = ".events"


@dataclass(frozen=True, slots=True)
class Segment:
    """A sealed file: one batch."""

    path: Path
    size_bytes: int

    @property
    def name(self) -> str:
        """The same whenever and by whomever it is sent."""
        return self.path.name.removesuffix(_SUFFIX)

    def lines(self) -> tuple[list[bytes], int]:
        """Its events, and how many lines are not what was written. A last line that was never finished is neither:
        nobody was told that it is accepted. Raises StateError."""
        try:
            *whole, _ = self.path.read_bytes()[: self.size_bytes].split(b"\n")
        except OSError as error:
            raise explain(error, self.path, "read") from error
        good = [line[9:] for line in whole if line[:9] == b"%08x " % zlib.crc32(line[9:])]
        return good, len(whole) - len(good)


class Spool:
    """The folder of one client, and those that it took over. Safe to use from two threads: one appends, one sends."""

    def __init__(self, root: Path, segment_bytes: int) -> None:
        """Makes a folder under `root` and locks it. Raises StateError."""
        self._root, self._segment_bytes = root, segment_bytes
        self._lock = threading.Lock()
        self._sealed: deque[Segment] = deque()
        self._descriptor, self._path, self._length, self._number = -1, root, 0, 0
        self._waiting_bytes = 0
        now = datetime.now(UTC)
        self._writer = uuid.uuid4().hex[:8]
        self._folder = root / f"{now:%Y%m%dT%H%M%S%f}-{self._writer}"
        self._locks: dict[Path, int] = {}
        make_folder(root)
        making = root / f".{self._folder.name}"  # hidden until it is locked: else another client might take it over
        try:
            making.mkdir()
            self._try_lock(making)
            making.rename(self._folder)
        except OSError as error:
            raise explain(error, self._folder, "make the spool") from error
        self._locks[self._folder] = self._locks.pop(making)
        sync_folder(root)
        self._take_over()

    @property
    def waiting_bytes(self) -> int:
        """How much is accepted and not delivered."""
        return self._waiting_bytes

    def append(self, lines: list[bytes]) -> None:
        """Adds events, as many files as they fill; when it returns they are on the disk.

        Raises StateError: then none is accepted, though those in files that were full before it are delivered.
        """
        records = deque(b"%08x %b\n" % (zlib.crc32(line), line) for line in lines)
        with self._lock:
            while records:
                room = self._segment_bytes - self._length
                content = bytearray()
                while records and len(content) < room:
                    content += records.popleft()
                self._add(content)
                if self._length >= self._segment_bytes:
                    self._seal()

    def _add(self, content: bytearray) -> None:
        try:
            if self._descriptor < 0:
                self._open()
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            os.fsync(self._descriptor)
        except OSError as error:
            self._abandon()
            raise explain(error, self._path, "append") from error
        self._length += len(content)
        self._waiting_bytes += len(content)

    def has_full(self) -> bool:
        """Whether a batch is full, or was left by another client: then there is no reason to wait for more."""
        return bool(self._sealed)

    def next(self) -> Segment | None:
        """The oldest batch, sealed if it was not; None if there is nothing to send. It stays until it is `done`."""
        with self._lock:
            if not self._sealed and self._length:
                self._seal()
            return self._sealed[0] if self._sealed else None

    def done(self, segment: Segment) -> None:
        """Forgets a batch that was delivered. Raises StateError."""
        with self._lock:
            try:
                segment.path.unlink()
            except OSError as error:
                raise explain(error, segment.path, "delete") from error
            self._sealed.remove(segment)
            self._waiting_bytes -= segment.size_bytes
            folder = segment.path.parent
            if folder != self._folder and not any(left.path.parent == folder for left in self._sealed):
                self._remove(folder)

    def keep_damaged(self, segment: Segment) -> Path:
        """Puts a copy of a file aside that has lines which cannot be read. Raises StateError."""
        aside = self._root / f"{segment.name}.damaged"
        try:
            shutil.copyfile(segment.path, aside)
        except OSError as error:
            raise explain(error, aside, "write") from error
        return aside

    def close(self) -> None:
        """Lets go of the folder, which goes if nothing is left in it; else the next client takes it over."""
        with self._lock:
            if self._length:
                self._seal()
            self._abandon()
            for folder in list(self._locks):
                if any(left.path.parent == folder for left in self._sealed):
                    os.close(self._locks.pop(folder))
                else:
                    self._remove(folder)

    def _open(self) -> None:
        self._number += 1
        name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{self._writer}-{self._number:06d}{_SUFFIX}"
        self._path = self._folder / name
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        sync_folder(self._folder)

    def _seal(self) -> None:
        self._sealed.append(Segment(self._path, self._length))
        os.close(self._descriptor)
        self._descriptor, self._length = -1, 0

    def _abandon(self) -> None:
        """After a failed write or sync nothing more is added to the file: only what was accepted before is sent."""
        if self._descriptor < 0:
            return
        path, length = self._path, self._length
        if length:
            self._seal()
        else:
            os.close(self._descriptor)
            self._descriptor = -1
        with contextlib.suppress(OSError):  # what stands behind the length is not read by us, with or without it
            if length:
                os.truncate(path, length)
            else:
                path.unlink()

    def _take_over(self) -> None:
        for folder in sorted(self._root.iterdir()):
            hidden = folder.name.startswith(".")
            if folder.is_dir() and not hidden and folder != self._folder and self._try_lock(folder):
                left = [Segment(path, path.stat().st_size) for path in sorted(folder.glob(f"*{_SUFFIX}"))]
                self._sealed.extend(left)
                self._waiting_bytes += sum(segment.size_bytes for segment in left)
                if not left:
                    self._remove(folder)

    def _try_lock(self, folder: Path) -> bool:
        """Whether the folder is ours now."""
        try:
            descriptor = os.open(folder / "LOCK", os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # another client is just removing it
            return False
        except OSError as error:
            raise explain(error, folder, "lock") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._locks[folder] = descriptor
        return True

    def _remove(self, folder: Path) -> None:
        (folder / "LOCK").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # something of somebody else is in it, or another client was faster
            folder.rmdir()
        os.close(self._locks.pop(folder))
