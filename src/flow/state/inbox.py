"""The inbox of a state directory: events that commands put there, for the job to read like all others.

    inbox/000000000001-redrive.ndjson                    whole lines; it never changes, and is never deleted
    inbox/000000000001-redrive.<hash of the key>.key     what it was put for; written before it
    inbox/LOCK                                           held while a file is put

Numbers only grow, and a file is there whole before the next one gets its number: a reader that goes through the files
in the order of their names passes none over. A command may be killed between giving a file its name and syncing that,
so whoever builds on a file that was there before syncs its name first.
"""

import hashlib
import re
from pathlib import Path
from typing import Literal

from ..faults import point
from .files import delete, explain, locked, make_folder, settle, write_whole

Kind = Literal["redrive", "late", "correction"]

_FILE = re.compile(r"\d{12}-[a-z]+\.ndjson")
_KEY = re.compile(r"\d{12}-[a-z]+\.[0-9a-f]{32}\.key")


class Inbox:
    """Needs no lock on the state directory: events may be put while a job is on."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "inbox"

    def put(self, kind: Kind, lines: bytes, key: str) -> str:
        """Puts events there, once for each kind and key, whatever the lines say the next time; returns the file's name.

        Args:
            lines: NDJSON, each line with its end.
            key: what the file is put for.
        Raises:
            ValueError: there are no lines, or the last one has no end.
            StateError: the file cannot be written.
        """
        if not lines.endswith(b"\n"):
            raise ValueError("an inbox file holds whole lines")
        make_folder(self.path)
        with locked(self.path / "LOCK"):
            names, keys = self._listed()
            there = set(names)
            for cut_short in [name for name in keys if _file_of(name) not in there]:
                delete(self.path / cut_short)  # its number is given to another file now
                keys.remove(cut_short)
            if (put_before := self._of(keys, kind, key)) is not None:
                self.settle()
                return put_before
            number = int(names[-1][:12]) + 1 if names else 1
            name = f"{number:012d}-{kind}.ndjson"
            write_whole(self._key(name, kind, key), key.encode())
            point("inbox.after_key")
            write_whole(self.path / name, lines)
            return name

    def find(self, kind: Kind, key: str) -> str | None:
        """The file that was put for a key, its name durable. Raises StateError."""
        names, keys = self._listed()
        found = self._of(keys, kind, key)
        if found not in names:
            return None
        self.settle()
        return found

    def names(self) -> list[str]:
        """All files, in their order. Raises StateError."""
        return self._listed()[0]

    def settle(self) -> None:
        """Makes the names of all files that are there durable. Raises StateError."""
        settle(self.path)

    def _listed(self) -> tuple[list[str], list[str]]:
        """The names of the files and of their keys, both ascending."""
        try:
            found = sorted(path.name for path in self.path.iterdir())
        except FileNotFoundError:
            found = []
        except OSError as error:
            raise explain(error, self.path, "read the directory") from error
        return [name for name in found if _FILE.fullmatch(name)], [name for name in found if _KEY.fullmatch(name)]

    @staticmethod
    def _of(keys: list[str], kind: str, key: str) -> str | None:
        ending = f".{_hash(kind, key)}.key"
        return next((_file_of(name) for name in keys if name.endswith(ending)), None)

    def _key(self, name: str, kind: str, key: str) -> Path:
        return self.path / f"{name.removesuffix('.ndjson')}.{_hash(kind, key)}.key"


def kind_of(name: str) -> str:
    """What a file was put there for."""
    return name[13:].removesuffix(".ndjson")


def _file_of(key_name: str) -> str:
    return f"{key_name.partition('.')[0]}.ndjson"


def _hash(kind: str, key: str) -> str:
    return hashlib.sha256(f"{kind}\n{key}".encode()).hexdigest()[:32]
