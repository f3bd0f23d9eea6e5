"""What a table says of one kind of payload."""

from collections.abc import Mapping
from dataclasses import dataclass, field

Paths = str | tuple[str, ...]
"""Where a field stands, names joined by dots; an item of a list by its modality, type or ttl: `details[AUDIO].tokens`.
Several: names that one number goes by; the first that is there is read. A path that ends in a dot: all beneath it."""

INERT: tuple[str, ...] = ()
"""The classes of a field that is known, and is counted elsewhere or no count."""


@dataclass(frozen=True, slots=True)
class Beside:
    """A list of usage objects, some of which the payload's own sums leave out. Each of those is an event of its own."""

    path: str
    included: frozenset[str]
    """The `type` of the items that are in the sums."""


@dataclass(frozen=True)
class Kind:
    """One provider's way of reporting usage by one API."""

    rows: Mapping[Paths, tuple[str, ...]]
    """Which field adds to which classes of `classes.CLASSES`."""
    roots: tuple[str, ...] = ()
    """Where usage stands. Every count beneath that no row names is reported."""
    event: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where the id, the time and the dimensions of the event stand, best first."""
    beside: Beside | None = None
    by_span: bool = False
    """Whether a payload is OpenTelemetry spans: several events, or none."""

    counted: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(init=False)
    """(names, classes) of the rows that count."""
    row_of: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = field(init=False)
    """The row of each of their paths."""
    inert: frozenset[str] = field(init=False)
    """Every path of the rows that do not count."""
    inert_beneath: tuple[str, ...] = field(init=False)
    """Beginnings of further such paths."""

    def __post_init__(self) -> None:
        rows = [((paths,) if isinstance(paths, str) else paths, classes) for paths, classes in self.rows.items()]
        inert = [name for names, classes in rows if not classes for name in names]
        object.__setattr__(self, "counted", [(names, classes) for names, classes in rows if classes])
        object.__setattr__(self, "row_of", {name: row for row in self.counted for name in row[0]})
        object.__setattr__(self, "inert", frozenset(inert))
        object.__setattr__(self, "inert_beneath", tuple(name for name in inert if name.endswith(".")))

    def is_inert(self, path: str) -> bool:
        return path in self.inert or (bool(self.inert_beneath) and path.startswith(self.inert_beneath))
