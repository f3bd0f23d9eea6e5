"""A provider's usage report: quantities by bucket of time and model. What its forms have in common, and are held to.

A report is compared only if it is certain what it counts: whole units, in buckets of UTC, of one size, each once.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from ..adapters.classes import CLASSES, meters_of
from ..errors import ConfigError
from ..schema import REQUESTS

GRAIN_S = {"minute": 60, "hour": 3_600, "day": 86_400}
SIZES = {"1m": "minute", "1h": "hour", "1d": "day"}
"""The sizes of buckets that can be compared, as they are written."""
PROBLEMS_MAX = 20


class Refusal:
    """What is wrong with a report; all of it is told at once."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._problems: list[str] = []

    def add(self, place: str, found: str, expected: str) -> None:
        """One problem: where, what stands there, and what should."""
        self._problems.append(f"{self.name}: {place}: {found}; expected {expected}")

    def raise_if_any(self) -> None:
        """Raises ConfigError with all of them, or with the first and their number."""
        if len(self._problems) > PROBLEMS_MAX:
            more = len(self._problems) - PROBLEMS_MAX
            raise ConfigError([*self._problems[:PROBLEMS_MAX], f"{self.name}: and {more:,} more"])
        if self._problems:
            raise ConfigError(self._problems)


@dataclass(frozen=True, slots=True)
class Row:
    """What a report says of one bucket, model and customer; several may be of the same."""

    place: str
    """Where it stands in the file."""
    start_s: int
    customer: str
    """Empty where the report does not tell customers apart; so is `model`."""
    model: str
    counts: Mapping[str, int]
    """By class (`adapters/classes.py`), by `requests`, or by `=meter` for a meter that no class is for."""

    def meters(self) -> dict[str, int]:
        """Disjoint quantities; one below 0 says that the counts contradict each other."""
        found = meters_of({name: count for name, count in self.counts.items() if name in CLASSES})
        for name, count in self.counts.items():
            if name not in CLASSES:
                found[name.removeprefix("=")] = count
        return found


@dataclass(frozen=True, slots=True)
class UsageReport:
    """The whole of it: windows of a grain that start in [from_s, before_s). A bucket without a row has no usage."""

    label: str
    grain: str
    from_s: int
    before_s: int
    rows: list[Row]
    tells_customers: bool
    tells_models: bool
    notes: list[str] = field(default_factory=list)

    def told(self) -> frozenset[str]:
        """The meters that it tells apart; finer ones of ours are added to those that they are a part of."""
        return frozenset(meter for name in {name for row in self.rows for name in row.counts} for meter in _added(name))


def _added(name: str) -> Collection[str]:
    """The meters that a count adds to."""
    if name in CLASSES:
        return [meter for meter, sign in CLASSES[name].items() if sign > 0]
    return [REQUESTS if name == REQUESTS else name.removeprefix("=")]


def check_rows(rows: Iterable[Row], refusal: Refusal) -> None:
    """Adds a problem for each row whose counts contradict each other."""
    for row in rows:
        for meter, quantity in row.meters().items():
            if quantity < 0:
                refusal.add(row.place, f"{meter} comes to {quantity}", "parts that are no larger than their whole")


def check_start(start_s: int, grain: str, place: str, refusal: Refusal) -> None:
    """Adds a problem where a bucket does not begin with a window of the grain in UTC."""
    if start_s % GRAIN_S[grain]:
        behind = start_s % 86_400
        clock = f"{behind // 3600:02}:{behind // 60 % 60:02}:{behind % 60:02}"
        found = f"a bucket that begins at {clock} UTC"
        refusal.add(place, found, f"one that begins with its {grain} in UTC; is it of another zone?")


def check_size(starts_s: Collection[int], grain: str, refusal: Refusal) -> None:
    """Adds a problem where buckets are said to be shorter than they are: all of them begin with longer windows."""
    for longer in ("day", "hour"):
        if GRAIN_S[longer] <= GRAIN_S[grain]:
            return
        if len(set(starts_s)) > 1 and not any(start_s % GRAIN_S[longer] for start_s in starts_s):
            refusal.add("buckets", f"each begins with a {longer}", f"buckets of one {grain}, as is said")
            return
