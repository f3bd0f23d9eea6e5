"""The price books by which the events of a state directory were rated, and re-rated."""

from pathlib import Path

from ..errors import ConfigError, StateError
from ..prices.book import PriceBook, load_price_book
from ..state.rerates import Rerates
from .watch_prices import UsedVersions


class Books:
    """The price books by which events of a state directory were rated, each read when it is first asked for."""

    def __init__(self, state_dir: Path, quantity_max: int) -> None:
        self._used = UsedVersions(state_dir / "prices").files()
        self._rerates = Rerates(state_dir)
        self._quantity_max = quantity_max
        self._books: dict[str, PriceBook] = {}

    def of(self, digest: str, what: object) -> PriceBook:
        """A book by its digest; "" is the only one that was ever used. `what` was rated by it.

        Raises StateError.
        """
        book = self._books.get(digest)
        if book is None:
            book = self._books[digest] = self._read(digest, what)
        return book

    def all(self) -> list[str]:
        """The digests of all that were used to rate or re-rate, oldest first. Raises StateError."""
        used = [load_price_book(path, self._quantity_max).digest() for path in self._used]
        return list(dict.fromkeys([*used, *(rerate.book for rerate in self._rerates.all())]))

    def _read(self, digest: str, what: object) -> PriceBook:
        paths = [path for path in self._used if path.stem.partition("-")[2] == digest[:32]] if digest else self._used
        if not digest and len(paths) > 1:
            raise StateError(
                f"{what}: does not say by which of {len(paths)} versions of the price book its events were rated; it "
                "was written by an older Tallyflow: replay the source into a new lineage"
            )
        if digest:
            paths += [
                self._rerates.folder(rerate.number) / "prices.yaml"
                for rerate in self._rerates.all()
                if rerate.book == digest
            ]
        if not paths:
            raise StateError(
                f"{self._rerates.path.parent}: the price book {digest[:32]} by which {what} was rated is missing; "
                "restore the state directory from a backup"
            )
        try:
            book = load_price_book(paths[0], self._quantity_max)
        except ConfigError as error:
            raise StateError(f"{paths[0]}: a version of the price book is damaged: {error.errors[0]}") from None
        if digest and book.digest() != digest:
            raise StateError(f"{paths[0]}: a version of the price book was changed after it was used; restore it")
        return book
