"""When one version of a price book may follow another: what was used is never edited, and what was rated stays so."""

from collections import Counter

from ..schema import REQUESTS
from .book import PriceBook
from .price import Adjustment, Price, names_of
from .rules import rule_of
from .values import instant_text

Said = tuple[object, ...]


def first_change(old: PriceBook, new: PriceBook) -> tuple[int, str] | None:
    """The first instant (microseconds) from which some event could be rated otherwise, and by which row; None: never.

    Rows of the past that merely stand in another order, or are written otherwise, change nothing.
    """
    before, after = _rows(old), _rows(new)
    changed = [*((before - after).elements()), *((after - before).elements())]
    unbilled = (old.unbilled ^ new.unbilled) - {REQUESTS}
    if unbilled:
        return 0, f"{', '.join(sorted(unbilled))} in unbilled, which holds for every instant"
    if not changed:
        return None
    row = min(changed, key=_from_us)
    return _from_us(row), str(row[-1])


def refusals(used: PriceBook, new: PriceBook, rated_until_us: int) -> list[str]:
    """Why a new version may not follow the one in use while it runs; empty: it may.

    rated_until_us: no event behind this instant has been rated yet.
    """
    found = _of_any_version(used, new)
    change = first_change(used, new)
    if change is not None and change[0] <= rated_until_us:
        found.append(
            f"changes prices from {instant_text(change[0])} on ({change[1]}), and events until "
            f"{instant_text(rated_until_us)} may have been rated; let it begin later"
        )
    return found


def refusals_at_start(used: PriceBook, new: PriceBook, now_us: int) -> list[str]:
    """Why a book may not follow the one that was used last in a state directory; empty: it may.

    Rows that have begun must still be there. Rows may have been added, also for the past: what was rated without them
    is then to be re-rated.
    """
    found = _of_any_version(used, new)
    gone = [row for row in (_rows(used) - _rows(new)).elements() if _from_us(row) <= now_us]
    if gone:
        row = min(gone, key=_from_us)
        found.append(
            f"{len(gone)} rows that have been in force are gone or edited, the first of them {row[-1]} from "
            f"{instant_text(_from_us(row))}; bring them back, and supersede or withdraw them by a later row"
        )
    return found


def unapproved(book: PriceBook) -> str | None:
    """What is wrong with the approval of a book; None: nothing."""
    if book.version is None or not book.version.approver:
        return "require_approval: its `version` names no approver"
    if book.version.approver == book.version.author:
        return f"require_approval: {book.version.author} has approved a version of their own"
    return None


def _of_any_version(used: PriceBook, new: PriceBook) -> list[str]:
    found = []
    if used.currency != new.currency:
        found.append(f"is in {new.currency}, and all amounts so far are in {used.currency}")
    names = [book.version.name for book in (used, new) if book.version is not None]
    if len(names) == 2 and names[0] == names[1] and used.digest() != new.digest():
        found.append(f"is another book under the name of version {names[0]!r}, which has been used; give it its own")
    return found


def _from_us(said: Said) -> int:
    time_us = said[0]
    assert isinstance(time_us, int)  # which _rows puts first
    return time_us


def _rows(book: PriceBook) -> Counter[Said]:
    """What each row says: (from_us, ..., the row for people)."""
    rows: list[Price | Adjustment] = [*book.prices, *book.adjustments]
    return Counter(
        (row.from_us, row.meter, row.selector, _meaning(row), f"{row.meter or 'adjustment'} {names_of(row.selector)}")
        for row in rows
    )


def _meaning(row: Price | Adjustment) -> object:
    if isinstance(row, Adjustment):
        return row.factor
    return (row.schedule, None if row.withdrawn else rule_of(row))
