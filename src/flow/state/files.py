"""Durable writes: a file is either whole and on the disk, or absent."""

import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import FileIO
from pathlib import Path

from isal.isal_zlib import crc32

from ..errors import RefusedStart, StateError, TallyflowError

_PIECE_BYTES = 1 << 20


def explain(error: OSError, path: Path, doing: str) -> TallyflowError:
    """One clear line for a failed file operation."""
    reason = {
        errno.ENOSPC: "the disk is full; free space and start again, nothing is lost",
        errno.EDQUOT: "the disk quota is used up; free space and start again, nothing is lost",
        errno.EROFS: "the file system is read-only; mount it writable or choose another directory in the config",
        errno.EACCES: "permission denied; give this user write access or choose another directory in the config",
        errno.EMFILE: "too many files are open (ulimit -n); raise it and start again, nothing is lost",
        errno.EFBIG: "the file-size limit is reached (ulimit -f); raise it and start again, nothing is lost",
    }.get(error.errno or 0, error.strerror or str(error))
    return StateError(f"{path}: cannot {doing}: {reason}")


def sync_folder(folder: Path) -> None:
    """Makes the names in a folder durable. Raises StateError."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise explain(error, folder, "sync the directory") from error


def settle(folder: Path) -> None:
    """Makes durable what another process has named in a folder: killed between a rename and the sync behind it, it
    leaves a name that a loss of power takes away, with whatever was built on it. Raises StateError.
    """
    sync_folder(folder)


def make_folder(folder: Path, inside: Path | None = None) -> None:
    """Makes a folder and its parents, and syncs the name of each that it made or that lies `inside` (folder.parent).

    Also of those that exist: a process that was killed may have made them and not come to the sync. Raises StateError.
    """
    try:
        levels = [folder, *folder.parents]
        ours = levels.index(inside or folder.parent)
        missing = [level for level in levels if not level.exists()]
        for level in reversed(missing or [folder]):
            level.mkdir(exist_ok=True)
        for level in reversed(levels[: max(ours, len(missing))]):
            if os.access(level.parent, os.R_OK):  # else it was made by somebody else, in a place that is theirs
                sync_folder(level.parent)
    except OSError as error:
        raise explain(error, folder, "make the directory") from error


def write_whole(path: Path, *pieces: bytes | memoryview) -> None:
    """Writes a file under a temporary name, syncs it and renames it into place. Raises StateError."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            for piece in pieces:
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path, "write") from error


def _write_all(file: FileIO, piece: bytes | memoryview) -> None:
    rest = memoryview(piece)
    while rest:  # a single write ends at 2 GiB
        rest = rest[file.write(rest) :]


def write_pieces(path: Path, pieces: Sequence[bytes | memoryview]) -> None:
    """Writes a file that can be made anew, in the place of any that is there: not synced. Raises StateError."""
    try:
        path.unlink(missing_ok=True)  # and not cut: it may be read
        with path.open("wb", buffering=0) as file:
            for piece in pieces:
                _write_all(file, piece)
    except OSError as error:
        raise explain(error, path, "write") from error


class SummedFile:
    """A new file that something else will name: written piece by piece, summed up on the way, synced at the end."""

    def __init__(self, path: Path) -> None:
        self.bytes = 0
        self.crc32 = 0
        self.closed = False
        self._file = path.open("wb", buffering=0)

    def write(self, piece: bytes) -> int:
        _write_all(self._file, piece)
        self.crc32 = crc32(piece, self.crc32)
        self.bytes += len(piece)
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def sync(self) -> None:
        """Makes durable what is there; many small syncs beside other work end sooner than one behind it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            try:
                self.sync()
            finally:
                self._file.close()

    def abandon(self) -> None:
        """Lets go of a file that nothing will name."""
        self.closed = True
        self._file.close()


def summed_up(path: Path, begin: int = 0, checksum: int = 0) -> tuple[int, int]:
    """Length and CRC-32 of a file from `begin` on, where it is `checksum`; read in pieces that stay in the cache.

    Raises OSError.
    """
    length = begin
    with path.open("rb", buffering=0) as file:
        rest = max(os.fstat(file.fileno()).st_size - begin, 0)
        piece = memoryview(bytearray(min(_PIECE_BYTES, rest + 1)))  # many files are small
        file.seek(begin)
        while read := file.readinto(piece):
            length += read
            checksum = crc32(piece[:read], checksum)
    return length, checksum


def append(path: Path, at: int, pieces: Sequence[bytes | memoryview]) -> None:
    """Writes the pieces one behind the other from offset `at` on, which must be the file's end, and syncs them.

    Raises StateError.
    """
    try:
        with path.open("ab", buffering=0) as file:
            if file.tell() != at:
                raise StateError(f"{path}: is {file.tell()} bytes long, {at} are recorded; was it changed by hand?")
            for piece in pieces:
                _write_all(file, piece)
            os.fsync(file.fileno())
    except OSError as error:
        raise explain(error, path, "append") from error


def sync_file(path: Path) -> None:
    """Makes durable what was appended to a file. Raises StateError."""
    try:
        with path.open("ab", buffering=0) as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise explain(error, path, "sync") from error


def cut_back(path: Path, length: int) -> None:
    """Cuts a file back to its recorded length. Raises StateError if it is shorter than that."""
    try:
        size = path.stat().st_size
        if size < length:
            raise StateError(
                f"{path}: {size} bytes long, {length} are recorded; restore it from a backup, or start a new lineage"
            )
        if size > length:
            os.truncate(path, length)
    except FileNotFoundError as error:
        raise StateError(f"{path}: missing; restore it from a backup, or start a new lineage") from error
    except OSError as error:
        raise explain(error, path, "cut back") from error


@contextmanager
def locked(lock: Path, busy: str = "") -> Iterator[None]:
    """Holds a lock file while inside: waits for it, or, where `busy` says what another one does, raises RefusedStart.

    Raises StateError.
    """
    try:
        file = lock.open("w")
    except OSError as error:
        raise explain(error, lock, "open") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (fcntl.LOCK_NB if busy else 0))
        except BlockingIOError:
            raise RefusedStart(f"{lock}: another command is {busy}; wait for its end") from None
        except OSError as error:
            raise explain(error, lock, "lock") from error
        yield


def delete(path: Path) -> None:
    """Deletes a file that is there. Raises StateError."""
    try:
        path.unlink()
    except OSError as error:
        raise explain(error, path, "delete") from error
