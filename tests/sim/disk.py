"""A disk that forgets what was not synced, and that is sometimes full.

Goal: after a power loss the real code must find only what a real disk guarantees: file contents as of their
last fsync, names as of the last fsync of their directory; of everything later any part may have survived,
in any order. Method: the code under test works on real files under `root`; `os.fsync` is replaced and only
notes what became durable (an image of inodes, each held open so that its number is not given away). A power
loss rebuilds the tree from that image and a random choice of what came later. This is harsher than a
journaling file system, on which renames and unlinks at least survive in order.
"""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

Tree = dict[str, "Tree | bytes"]


@dataclass
class _Inode:
    """What is durable of one file or directory, and a descriptor that keeps its number."""

    pin: int
    content: bytes = b""
    begun_anew: bool = False  # opened for writing from the start since it was synced
    names: dict[str, int] = field(default_factory=dict)  # of a directory: name to inode number

    @property
    def is_folder(self) -> bool:
        return stat.S_ISDIR(os.fstat(self.pin).st_mode)

    def kept(self, latest: bytes) -> int:
        """How many of the latest bytes are durable in their place: those in front of what was cut off or appended."""
        return 0 if self.begun_anew else _common(self.content, latest)


class FakeDisk:
    """`on_call(name)` is told before and after every call that changes the disk, and may raise.

    `full(path)` says whether this write meets a full disk.
    """

    def __init__(self, root: Path, rng: Random, on_call: Callable[[str], None], full: Callable[[str], bool]) -> None:
        self.root = root
        self._root = f"{root}/"
        self._rng = rng
        self._on_call = on_call
        self._full = full
        self._inodes: dict[int, _Inode] = {}
        self._real = {"open": Path.open, "rename": Path.rename, "unlink": Path.unlink, "mkdir": Path.mkdir}
        root.mkdir(parents=True, exist_ok=True)
        self._sync_everything()

    # -- what the code under test calls

    @contextmanager
    def mounted(self) -> Iterator[None]:
        """While inside, this disk takes the calls for paths under its root."""
        with ExitStack() as patches:
            patches.enter_context(patch.object(os, "fsync", lambda descriptor: self.fsync(descriptor)))
            for name in self._real:
                patches.enter_context(patch.object(Path, name, self._wrapped(name)))
            yield

    def _wrapped(self, name: str) -> Callable[..., Any]:
        real = self._real[name]

        def call(path: Path, *args: Any, **kwargs: Any) -> Any:
            mode = args[0] if args else kwargs.get("mode", "r")
            if not str(path).startswith(self._root) or (name == "open" and not set("wa+x") & set(mode)):
                return real(path, *args, **kwargs)
            if name in ("open", "mkdir") and not path.exists():
                self._meet_full_disk(path)
            self._on_call(f"disk.{name}")
            result = real(path, *args, **kwargs)
            if name != "open":
                self._on_call(f"disk.{name} done")
            elif "w" in mode:
                self._inode(result.fileno()).begun_anew = True
            return result

        return call

    def _meet_full_disk(self, path: Path) -> None:
        if self._full(path.name):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    def fsync(self, descriptor: int) -> None:
        self._on_call("disk.fsync")
        inode = self._inode(descriptor)
        if inode.is_folder:
            inode.names = self._names(descriptor)
        else:
            content = _content(inode.pin)
            name = Path(f"/proc/self/fd/{descriptor}").readlink()
            if content != inode.content and self._full(name.name):
                kept = inode.kept(content)
                os.truncate(name, kept + int((len(content) - kept) * self._rng.random()))
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(name))
            inode.content, inode.begun_anew = content, False
        self._on_call("disk.fsync done")

    # -- the durable image

    def _inode(self, descriptor: int) -> _Inode:
        number = os.fstat(descriptor).st_ino
        if number not in self._inodes:
            self._inodes[number] = _Inode(os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY))
        return self._inodes[number]

    def _names(self, folder: int) -> dict[str, int]:
        """What a directory holds now, each pinned."""
        names = {}
        for name in sorted(os.listdir(folder)):
            descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
            self._inode(descriptor)
            names[name] = os.fstat(descriptor).st_ino
            os.close(descriptor)
        return names

    def _sync_everything(self) -> None:
        self.close()
        for folder, _, files in os.walk(self.root):
            descriptor = os.open(folder, os.O_RDONLY)
            self._inode(descriptor).names = self._names(descriptor)
            os.close(descriptor)
            for name in files:
                descriptor = os.open(Path(folder) / name, os.O_RDONLY)
                self._inode(descriptor).content = _content(descriptor)
                os.close(descriptor)

    def close(self) -> None:
        """Lets go of every file."""
        for inode in self._inodes.values():
            os.close(inode.pin)
        self._inodes = {}

    # -- power loss

    def lose_power(self, survival: float) -> None:
        """Leaves what was durable and, of each later change, with probability `survival`, all or some."""
        tree = self._survivors(self.root.stat().st_ino, survival)
        for path in self.root.iterdir():
            shutil.rmtree(path) if path.is_dir() else self._real["unlink"](path)
        self._build(self.root, tree)
        self._sync_everything()

    def _survivors(self, number: int, survival: float) -> Tree:
        inode = self._inodes[number]
        now, tree = self._names(inode.pin), Tree()
        for name in sorted({*inode.names, *now}):
            durable, latest = inode.names.get(name), now.get(name)
            chosen = latest if latest == durable or self._rng.random() < survival else durable
            if chosen is None:
                continue
            if self._inodes[chosen].is_folder:
                tree[name] = self._survivors(chosen, survival)
            else:
                tree[name] = self._surviving_content(self._inodes[chosen], survival)
        return tree

    def _surviving_content(self, inode: _Inode, survival: float) -> bytes:
        durable, latest = inode.content, _content(inode.pin)
        if durable == latest or self._rng.random() >= survival:
            return durable
        kept = inode.kept(latest)
        written = kept + int((len(latest) - kept) * self._rng.random())
        # All of it; a torn write; or a file of the new length whose end was never written.
        return self._rng.choice((latest, latest[:written], latest[:written] + bytes(len(latest) - written)))

    def _build(self, folder: Path, tree: Tree) -> None:
        for name, node in tree.items():
            if isinstance(node, dict):
                self._real["mkdir"](folder / name)
                self._build(folder / name, node)
            else:
                with self._real["open"](folder / name, "wb") as file:
                    file.write(node)

    def used(self) -> list[str]:
        """Every file, relative to the root."""
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*") if path.is_file())


def _common(one: bytes, other: bytes) -> int:
    """How many bytes two contents begin with alike."""
    shorter = min(len(one), len(other))
    if one[:shorter] == other[:shorter]:
        return shorter
    return next(n for n in range(shorter) if one[n] != other[n])


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)
