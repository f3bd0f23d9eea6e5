"""What was re-rated in the life of a state directory: which events, by which price book, and whether the store has it.

    rerates/000001/prices.yaml      the book, as it was written
    rerates/000001/rerate.json      what is re-rated; written when all its blocks are cut: from then on it has happened
    rerates/000001/rerate-...       its blocks, while they wait for the store
    rerates/000001/done             there once the store has all of them

A folder without rerate.json is what a killed process was preparing: nothing of it has left this directory.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import RefusedStart, StateError
from .files import explain, make_folder, sync_folder, write_whole

FORMAT = 2


@dataclass(frozen=True)
class Rerate:
    """Events that were rated anew: of some times, of one customer or all, as far as the ledger went then."""

    number: int
    from_us: int
    before_us: int
    """Event times in [from_us, before_us)."""
    customer: str | None
    book: str
    """The digest of the book that these events are rated by since."""
    author: str
    reason: str
    created_us: int
    ledger: Mapping[str, int]
    """The number of the last file that each writer of the ledger had then; what came later is not in it."""
    blocks: int
    amount_femto: int
    """By how much all amounts together have changed, rounded down."""
    amount_remainder: int = 0
    """The rest in 10^-15 / PER_OF_ALL."""
    rollup_amount: int | None = None
    """What the amounts of all deltas add up to, each in the unit that its meter's name in the rollups tells. None, as
    in format 1: the same as amount_femto, since no rate was a fraction."""

    @property
    def name(self) -> str:
        return f"rerate-{self.number:06d}"

    def covers(self, writer: str, file: int) -> bool:
        """Whether the events of a ledger file were there."""
        return file <= self.ledger.get(writer, 0)

    def times(self, first_us: int, before_us: int) -> bool:
        """Whether any of these event times are among its own."""
        return first_us < self.before_us and self.from_us < before_us


class Rerates:
    """The re-ratings of one state directory; who changes something holds its lock."""

    def __init__(self, state_dir: Path) -> None:
        self.path = state_dir / "rerates"

    def folder(self, number: int) -> Path:
        return self.path / f"{number:06d}"

    def all(self) -> list[Rerate]:
        """Those that have happened, oldest first. Raises StateError."""
        return [_read(path) for path in sorted(self.path.glob("[0-9]*/rerate.json"))]

    def unfinished(self) -> Rerate | None:
        """The one that the store may not have all of. Raises StateError."""
        return next((rerate for rerate in self.all() if not self._done(rerate.number).exists()), None)

    def refuse_unfinished(self) -> None:
        """Raises RefusedStart where one has to be published first: until then the store has a part of it."""
        unfinished = self.unfinished()
        if unfinished is not None:
            raise RefusedStart(
                f"{self.folder(unfinished.number)}: a re-rating was cut short, and the store may have a part of it; "
                "`tallyflow rerate --resume` publishes the rest"
            )

    def prepare(self) -> tuple[int, Path]:
        """The number and the empty folder of the next one. Raises StateError."""
        number = max((rerate.number for rerate in self.all()), default=0) + 1
        folder = self.folder(number)
        self.drop(number)
        make_folder(folder, inside=self.path.parent)
        return number, folder

    def drop(self, number: int) -> None:
        """Forgets what was prepared and has not happened. Raises StateError."""
        folder = self.folder(number)
        try:
            if folder.exists():
                shutil.rmtree(folder)
        except OSError as error:
            raise explain(error, folder, "delete") from error

    def commit(self, rerate: Rerate) -> None:
        """From now on it has happened, and its blocks can never change. Raises StateError."""
        body = json.dumps({"format": FORMAT, **asdict(rerate)}, indent=1, ensure_ascii=False)
        write_whole(self.folder(rerate.number) / "rerate.json", body.encode())

    def finish(self, rerate: Rerate) -> None:
        """The store has all of it. Raises StateError."""
        path = self._done(rerate.number)
        try:
            path.touch()
        except OSError as error:
            raise explain(error, path, "make") from error
        sync_folder(path.parent)

    def rollup_amount(self) -> int:
        """By how much all of them have changed what the rollups add up to, number by number."""
        return sum(
            rerate.amount_femto if rerate.rollup_amount is None else rerate.rollup_amount for rerate in self.all()
        )

    def _done(self, number: int) -> Path:
        return self.folder(number) / "done"


def _read(path: Path) -> Rerate:
    try:
        body = json.loads(path.read_text())
        if body.pop("format") > FORMAT:
            raise StateError(f"{path}: written by a newer Tallyflow; upgrade this one")
        return Rerate(**body)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise StateError(f"{path}: cannot be read ({error}); restore it from a backup") from error
