"""The price book of a running job: its file is watched, and a good new version is taken over between two batches.

A new version may only change prices at instants that no rated event has reached: so every worker, and a replay, rate
each event alike whenever they learn of it. Each version that is used is kept under `prices/` of the state directory:
`<number>-<digest>.yaml`, never changed.
"""

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigError, RefusedStart, StateError
from ..prices.book import PriceBook, load_price_book, parse_price_book
from ..prices.values import instant_text
from ..prices.versions import first_change, refusals, refusals_at_start, unapproved
from ..state.files import make_folder, settle, write_whole
from ..yaml_nodes import read_text

LOG = logging.getLogger(__name__)
LOOK_S = 1
"""Seconds between two looks at the file."""


class UsedVersions:
    """The versions that were used in the life of a state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def files(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob("[0-9]*-*.yaml"))

    def has(self, book: PriceBook) -> bool:
        """Whether the last version is this one."""
        files = self.files()
        return bool(files) and files[-1].stem.partition("-")[2] == book.digest()[:32]

    def text(self) -> str | None:
        """The last version as it was written."""
        files = self.files()
        return read_text(files[-1]) if files else None

    def last(self, quantity_max: int) -> PriceBook | None:
        """Raises StateError for a file that is damaged."""
        files = self.files()
        if not files:
            return None
        try:
            book = load_price_book(files[-1], quantity_max)
        except ConfigError as error:
            raise StateError(f"{files[-1]}: a version of the price book is damaged: {error.errors[0]}") from None
        if not self.has(book):
            raise StateError(f"{files[-1]}: a version of the price book was changed after it was used; restore it")
        return book

    def keep(self, book: PriceBook, text: str) -> None:
        """Remembers a version as the last one. Raises StateError."""
        if self.has(book):
            settle(self.folder)
            return
        make_folder(self.folder)
        files = self.files()
        number = int(files[-1].name.partition("-")[0]) + 1 if files else 1
        write_whole(self.folder / f"{number:06d}-{book.digest()[:32]}.yaml", text.encode())


def begin(versions: UsedVersions, path: Path, quantity_max: int, require_approval: bool, now_us: int) -> None:
    """Makes the price book of a run that begins the last version, once it is known to follow the one before.

    Raises ConfigError, RefusedStart, StateError.
    """
    text = read_text(path)
    if text == versions.text() and not require_approval:
        settle(versions.folder)
        return
    book = parse_price_book(text, str(path), quantity_max)
    used = versions.last(quantity_max)
    wrong = refusals_at_start(used, book, now_us) if used is not None else []
    if require_approval and (problem := unapproved(book)) is not None:
        wrong.append(problem)
    if wrong:
        raise RefusedStart(f"{path}: {'; '.join(wrong)}")
    versions.keep(book, text)


class PriceWatch:
    """Looks at the file in a thread of its own; what it finds is taken over, or refused, by whoever rates next."""

    def __init__(
        self,
        path: Path,
        book: PriceBook,
        versions: UsedVersions,
        quantity_max: int,
        require_approval: bool,
        not_rated_us: Callable[[], int] = lambda: 0,
    ) -> None:
        """`not_rated_us`: an instant that other processes may have rated up to."""
        self.refused = 0
        """Versions that were refused."""
        self._path = path
        self._book = book
        self._versions = versions
        self._quantity_max = quantity_max
        self._require_approval = require_approval
        self._not_rated_us = not_rated_us
        self._rated_until_us = -1
        self._candidate: tuple[PriceBook, str] | None = None
        self._seen = (-1, 0, 0)
        self._digest: tuple[PriceBook, str] | None = None
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def book_for(self, events: pa.RecordBatch) -> PriceBook:
        """The book by which a batch of EVENTS is rated. Raises StateError."""
        last_event_us = pc.max(events.column("event_time_us")).as_py() if events.num_rows else -1
        with self._lock:
            if self._candidate is not None:
                candidate, self._candidate = self._candidate, None
                self._take(*candidate)
            self._rated_until_us = max(self._rated_until_us, last_event_us)
            return self._book

    def digest(self) -> str:
        """Of the book in use: all events that were rated so far in this run are rated as it says."""
        book = self._book
        if self._digest is None or self._digest[0] is not book:
            self._digest = book, book.digest()
        return self._digest[1]

    def look(self) -> None:
        """Reads the file if it has changed since the last look."""
        stamp = self._stamp()
        if stamp == self._seen:
            return
        self._seen = stamp
        try:
            text = read_text(self._path)
            if self._versions.has(self._book) and text == self._versions.text():
                return
            book = parse_price_book(text, str(self._path), self._quantity_max)
        except ConfigError as error:
            self._refuse(error.errors)
            return
        with self._lock:
            self._candidate = (book, text)

    def start(self) -> None:
        """Looks from now on."""
        threading.Thread(target=self._run, name="prices", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(LOOK_S):
            self.look()

    def _take(self, book: PriceBook, text: str) -> None:
        if book.digest() == self._book.digest():
            return
        if not self._versions.has(book):  # else another process of this job has taken it over already
            wrong = refusals(self._book, book, max(self._rated_until_us, self._not_rated_us()))
            if self._require_approval and (problem := unapproved(book)) is not None:
                wrong.append(problem)
            if wrong:
                self._refuse([f"{self._path}: {problem}" for problem in wrong])
                return
            self._versions.keep(book, text)
        change = first_change(self._book, book)
        since = f"the first change is at {instant_text(change[0])}" if change is not None else "nothing changes"
        LOG.warning("%s: a new version of the price book is in use; %s", self._path, since)
        self._book = book

    def _refuse(self, problems: list[str]) -> None:
        self.refused += 1
        for problem in problems:
            LOG.error("%s", problem)
        LOG.error("%s: the new version of the price book is refused; the one before stays in use", self._path)

    def _stamp(self) -> tuple[int, int, int]:
        try:
            found = self._path.stat()
        except OSError:
            return (0, 0, 0)
        return found.st_mtime_ns, found.st_size, found.st_ino
