"""The rule book of a running job: its file and the lists that it names are watched, a good new version is taken over.

A rule holds from an event time on, so that a version whose rules begin later than what is read judges all events alike,
whenever a process learns of it; what a version changes for events of the past holds for those that are read from then
on. Each version that was used is kept under `rules/` of the state directory: `<number>-<digest>.yaml`, never changed,
and what was in its lists under `rules/lists/`.
"""

import hashlib
import json
import logging
import threading
from collections import Counter
from pathlib import Path

from ..errors import ConfigError, StateError, TallyflowError
from ..rules.book import RuleBook, load_rule_book, parse_rule_book
from ..rules.checker import NO_CLOCK_US, Checker
from ..rules.examples import failed_examples
from ..state.files import make_folder, settle, write_whole
from ..yaml_nodes import read_text
from .batches import Decoded
from .check import check, check_accepted
from .inbox_rows import ORIGIN

LOG = logging.getLogger(__name__)
LOOK_S = 1
"""Seconds between two looks at the files."""
_KEPT_WITH = "\n# kept with the lists "


class UsedRules:
    """The versions that were used in the life of a state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("[0-9]*-*.yaml"))

    def has(self, book: RuleBook) -> bool:
        """Whether the last version is this one."""
        files = self.files()
        return bool(files) and files[-1].stem.partition("-")[2] == book.digest[:32]

    def last(self) -> RuleBook | None:
        """Raises StateError for a file that is damaged."""
        files = self.files()
        if not files:
            return None
        try:
            text, _, names = read_text(files[-1]).rpartition(_KEPT_WITH)
            lists: dict[str, str] = json.loads(names)
            book = parse_rule_book(text, str(files[-1]), lambda name: self._list(lists[name]).read_bytes())
        except (ConfigError, OSError, KeyError, ValueError) as error:
            told = error.errors[0] if isinstance(error, ConfigError) else str(error)
            raise StateError(f"{files[-1]}: a version of the rule book is damaged: {told}; restore it") from None
        if not self.has(book):
            raise StateError(f"{files[-1]}: a version of the rule book was changed after it was used; restore it")
        return book

    def keep(self, book: RuleBook) -> None:
        """Remembers a version as the last one. Raises StateError."""
        if self.has(book):
            settle(self.folder)
            return
        make_folder(self.folder / "lists", self.folder)
        names = {name: hashlib.sha256(content).hexdigest()[:32] for name, content in book.lists.items()}
        for name, digest in names.items():
            if not self._list(digest).exists():
                write_whole(self._list(digest), book.lists[name])
        settle(self.folder / "lists")
        files = self.files()
        number = int(files[-1].name.partition("-")[0]) + 1 if files else 1
        text = f"{book.text}{_KEPT_WITH}{json.dumps(names)}"
        write_whole(self.folder / f"{number:06d}-{book.digest[:32]}.yaml", text.encode())

    def _list(self, digest: str) -> Path:
        return self.folder / "lists" / f"{digest}.txt"


def refusals(used: RuleBook | None, new: RuleBook) -> list[str]:
    """What speaks against a version: examples of its own, and a name under which another one was used."""
    found = [f"line {one.line}: example of {one.rule}: {one.message}" for one in failed_examples(new)]
    names = [book.version.name for book in (used, new) if book is not None and book.version is not None]
    if used is not None and len(names) == 2 and names[0] == names[1] and used.text != new.text:
        found.append(f"another rule book was used under the name of version {names[0]!r}; give this one its own")
    return found


def begin(used: UsedRules, path: Path) -> None:
    """Makes the rule book of a run that begins the last version. Raises ConfigError, StateError."""
    book = load_rule_book(path)
    if wrong := refusals(used.last(), book):
        raise ConfigError([f"{path}: {problem}" for problem in wrong])
    used.keep(book)


class RulesWatch:
    """Looks at the files in a thread of its own; what it finds good holds for the next batch."""

    def __init__(self, path: Path, book: RuleBook, used: UsedRules) -> None:
        self.refused = 0
        """Versions that were refused."""
        self.trouble: list[str] = []
        """What is wrong with the files as they are now."""
        self.failures: Counter[tuple[str, str]] = Counter()
        """How many events read in this run fail a rule, by its id and severity; duplicates count too."""
        self._path = path
        self._used = used
        self._in_use = book, Checker(book.rules)
        self._stamps: list[tuple[int, int, int]] = []
        self._settled = False
        self._count_lock = threading.Lock()
        self._stop = threading.Event()

    @property
    def book(self) -> RuleBook:
        """The version in use."""
        return self._in_use[0]

    def check(self, decoded: Decoded, now_us: int, *, accepted_before: bool) -> Decoded:
        """Holds a batch to the rules in use, but for corrections and late events, which somebody has decided on.

        What comes by the inbox was read before, and clocks say nothing of it.
        """
        book, checker = self._in_use
        if not book.rules or decoded.amends is not None:
            return decoded
        if decoded.origin.startswith(ORIGIN):
            now_us = NO_CLOCK_US
        found, failures = (
            check_accepted(decoded, checker, book.label)
            if accepted_before
            else check(decoded, checker, book.label, now_us)
        )
        if failures:
            with self._count_lock:
                self.failures.update(failures)
        return found

    def look(self) -> None:
        """Reads the files if they have changed, and are not being written: they are the same in two looks."""
        stamps = [_stamp(self._path), *(_stamp(self._path.parent / name) for name in self.book.lists)]
        if stamps != self._stamps:
            self._stamps, self._settled = stamps, False
        elif not self._settled or self.trouble:
            self._settled = True
            self._read()

    def start(self) -> None:
        """Looks from now on."""
        threading.Thread(target=self._run, name="rules", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()

    def _read(self) -> None:
        try:
            book = load_rule_book(self._path)
            if book.digest == self.book.digest:
                self.trouble = []
                return
            wrong = [f"{self._path}: {problem}" for problem in refusals(self.book, book)]
            if not wrong:
                self._used.keep(book)
        except ConfigError as error:
            wrong = error.errors
        except TallyflowError as error:  # what cannot be kept cannot be used: nobody could explain it
            wrong = [str(error)]
        if wrong:
            self._refuse(wrong)
            return
        self.trouble = []
        news = _news(self.book, book)
        LOG.warning("%s: a new version of the rule book is in use: %s; %s", self._path, book.label, news)
        self._in_use = book, Checker(book.rules)

    def _refuse(self, wrong: list[str]) -> None:
        if wrong == self.trouble:
            return
        self.trouble, self.refused = wrong, self.refused + 1
        for problem in wrong:
            LOG.error("%s", problem)
        LOG.error("%s: this version of the rule book is refused; %s stays in use", self._path, self.book.label)


def _news(before: RuleBook, after: RuleBook) -> str:
    """Which rules are new, gone or others."""
    old, new = ({rule.id: rule for rule in book.rules} for book in (before, after))
    told = {
        "new": new.keys() - old.keys(),
        "gone": old.keys() - new.keys(),
        "changed": {id_ for id_ in old.keys() & new.keys() if old[id_] != new[id_]},
    }
    texts = [f"{what}: {', '.join(sorted(ids))}" for what, ids in told.items() if ids]
    return "; ".join(texts) or "its rules say the same"


def _stamp(path: Path) -> tuple[int, int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return found.st_mtime_ns, found.st_size, found.st_ino
