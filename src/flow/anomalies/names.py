"""Numbers for names, by which everything else goes; and columns of numbers as short texts, for a manifest."""

import base64
import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from isal import isal_zlib

_HIGH = np.uint64(0xFFFF_FFFF_FFFF_0000)
_WIDTHS = ((0, 0), (1, 8), (2, 16), (4, 32), (8, 64))


class Names:
    """Numbers in the order in which names were first met. Which number a name has decides nothing: where names are
    ranked, it is by their hashes."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._hashes: Any = np.empty(0, np.uint64)

    def __len__(self) -> int:
        return len(self._numbers)

    def numbers(self, names: Sequence[str]) -> Any:
        """int64 a name; a new one gets the next number."""
        known = self._numbers
        return np.array([known.setdefault(name, len(known)) for name in names], np.int64)

    def load(self, names: Sequence[str]) -> None:
        """Takes the place of what is here."""
        self._numbers = {name: n for n, name in enumerate(names)}
        self._hashes = np.empty(0, np.uint64)

    def texts(self) -> list[str]:
        """By number."""
        return list(self._numbers)

    def hashes(self) -> Any:
        """uint64 by number: by which it is chosen who is watched where there are too many."""
        if len(self._hashes) < len(self._numbers):
            new = [hash_of(name) for name in self.texts()[len(self._hashes) :]]
            self._hashes = np.concatenate([self._hashes, np.array(new, np.uint64)])
        return self._hashes

    def keep(self, numbers: Iterable[Any]) -> Any:
        """Forgets all names but those of these numbers. The new number by the old one; their order stays."""
        stay = np.zeros(len(self), bool)
        for of in numbers:
            stay[of] = True
        texts, self._hashes = self.texts(), self.hashes()[stay]
        self._numbers = {texts[old]: new for new, old in enumerate(np.flatnonzero(stay).tolist())}
        moved: Any = np.cumsum(stay) - 1
        return moved


def hash_of(name: str) -> int:
    """64 bits, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def hashes_of_pairs(first: Any, second: Any) -> Any:
    """uint64 of pairs, by the hashes of both: in the order of the first ones, so that all of a customer stays."""
    return first & _HIGH | second >> np.uint64(48)


def packed(plain: Any) -> str:
    """Plain values as a short text."""
    return _text(json.dumps(plain, separators=(",", ":")).encode())


def unpacked(text: str) -> Any:
    """What `packed` was given."""
    return json.loads(_content(text))


def packed_columns(columns: Sequence[Any]) -> str:
    """Columns of integers as a short text: each value as what it is above the least of its column, in as few bytes as
    the column needs."""
    heads, parts = [], []
    for column in columns:
        least = int(column.min()) if len(column) else 0
        above = column.astype(np.int64).view(np.uint64) - np.uint64(least & (1 << 64) - 1)
        bits = int(above.max()).bit_length() if len(column) else 0
        width = next(width for width, holds in _WIDTHS if bits <= holds)
        heads.append([least, width, len(column)])
        parts.append(above.astype(f"<u{width}").tobytes() if width else b"")
    return _text(json.dumps(heads).encode() + b"\n" + b"".join(parts))


def unpacked_columns(text: str) -> list[Any]:
    """int64 columns: what `packed_columns` was given."""
    heads, _, content = _content(text).partition(b"\n")
    columns, at = [], 0
    for least, width, count in json.loads(heads):
        column = np.zeros(count, np.uint64)
        if width:
            column = np.frombuffer(content, f"<u{width}", count, at).astype(np.uint64)
        columns.append((column + np.uint64(least & (1 << 64) - 1)).view(np.int64))
        at += width * count
    return columns


def _text(content: bytes) -> str:
    return base64.b64encode(isal_zlib.compress(content, 1)).decode()


def _content(text: str) -> bytes:
    return isal_zlib.decompress(base64.b64decode(text))
