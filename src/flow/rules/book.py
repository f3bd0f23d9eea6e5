"""A rule book: the rules of one file, with the lists that it names. Start at `load_rule_book`."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import ConfigError
from ..yaml_nodes import read_text
from .reading import read_rules
from .rule import Rule, Version


@dataclass(frozen=True)
class RuleBook:
    """What events must be like."""

    version: Version | None
    rules: tuple[Rule, ...]
    text: str
    """As it was written."""
    lists: Mapping[str, bytes]
    """The content of each list, by the name that stands in the text."""

    @cached_property
    def digest(self) -> str:
        """Of the text and its lists: two books with one digest are the same file."""
        hashed = hashlib.sha256(self.text.encode())
        for name, content in sorted(self.lists.items()):
            hashed.update(hashlib.sha256(name.encode()).digest() + hashlib.sha256(content).digest())
        return hashed.hexdigest()

    @cached_property
    def label(self) -> str:
        """By which a rejected or flagged event names the book; the kept version has the digest in its name."""
        return f"rules {self.version.name + ' ' if self.version else ''}{self.digest[:12]}"


def load_rule_book(path: Path) -> RuleBook:
    """Reads a rule book and its lists, whose paths are relative to it. Raises ConfigError with every error found."""
    return parse_rule_book(read_text(path), str(path), lambda name: _read(path.parent / name))


def parse_rule_book(text: str, name: str, read_list: Callable[[str], bytes]) -> RuleBook:
    """`load_rule_book` of text; `read_list` gives the content of a list. Raises ConfigError."""
    contents = read_rules(text, name, read_list)
    return RuleBook(contents.version, contents.rules, text, contents.lists)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from None
