"""What was found to be out of line: one row of the table `anomalies`."""

import hashlib
from decimal import Decimal
from enum import StrEnum
from typing import Any, NamedTuple

from .levels import NONE, STEPS, levels_of, number_of
from .rules import Above, Share
from .series import Usual

UNIT = 10**15
"""All numbers of a row are in 10^-15 of their unit, as amounts are."""
SPIKE_RULE = "{} over {} times the usual hour and {} times the highest"


class Kind(StrEnum):
    """What can be out of line; docs/anomalies.md says how each is told."""

    USAGE_SPIKE = "usage_spike"
    SILENCE = "silence"
    NEW_LARGE = "new_large"
    DUPLICATE_RATE = "duplicate_rate"
    REJECT_RATE = "reject_rate"
    UNPRICED_RATE = "unpriced_rate"
    SOURCE_RATE = "source_rate"
    REQUEST_LOOP = "request_loop"
    PRICE_PER_UNIT = "price_per_unit"


class Found(NamedTuple):
    """One writer's finding. What does not apply is the empty text."""

    kind: Kind
    hour: int
    """Of event time, since 1970."""
    unit: str
    seen: int
    expected: int
    low: int
    high: int
    score: int
    """How many doublings `seen` is from `expected`, in thousandths."""
    rule: str
    """What has been crossed, in words."""
    customer: str = ""
    project: str = ""
    model: str = ""
    source: str = ""

    @property
    def id(self) -> str:
        """The same for every writer, and again when the input is replayed."""
        who = (self.kind, str(self.hour), self.customer, self.project, self.model, self.source)
        return hashlib.blake2b("\0".join(who).encode(), digest_size=8).hexdigest()

    def as_row(self) -> dict[str, Any]:
        """The columns of the table `anomalies` that the finding tells."""
        return {
            "id": self.id,
            "kind": str(self.kind),
            **{name: getattr(self, name) for name in ("customer", "project", "model", "source", "unit", "rule")},
            "window_start": self.hour * 3600,
            **{name: _decimal(getattr(self, name), 15, 38) for name in ("seen", "expected", "low", "high")},
            "score": _decimal(self.score, 3, 18),
            "status": "open",
            "author": "",
            "note": "",
        }


def _decimal(number: int, scale: int, digits: int) -> Decimal:
    """number / 10^scale exactly; at most what so many digits can say."""
    number = min(max(number, 1 - 10**digits), 10**digits - 1)
    return Decimal((int(number < 0), tuple(map(int, str(abs(number)))), -scale))


def leveled(
    kind: Kind, hour: int, unit: str, seen: int, level: int, found: Above, n: int, scale: int, rule: str, **who: str
) -> Found:
    """Row n of what is above its usual level; levels are of numbers in `scale`."""
    median = int(found.usual.median[n])
    return Found(
        kind,
        hour,
        unit,
        seen,
        number_of(median, scale),
        0,
        number_of(int(found.high[n]), scale),
        (level - median) * 1000 // STEPS,
        rule,
        **who,
    )


def shared(kind: Kind, hour: int, found: Share, n: int, part: int, whole: int, rule: str, **who: str) -> Found:
    """Row n of what has too large a share."""
    expected_ppm, high_ppm = int(found.expected_ppm[n]), int(found.high_ppm[n])
    level, usual = (int(levels_of([ppm])[0]) for ppm in (part * 1_000_000 // whole, max(expected_ppm, 1)))
    ppm = UNIT // 1_000_000
    score = (level - usual) * 1000 // STEPS
    return Found(kind, hour, "share", part * UNIT // whole, expected_ppm * ppm, 0, high_ppm * ppm, score, rule, **who)


def silence(first: int, hours: int, usual: Usual, n: int, **who: str) -> Found:
    """Row n of who is gone since the hour `first`."""
    median, least = int(usual.median[n]), int(usual.least[n])
    rule = f"no event for {hours} hours, after use in each of 24"
    expected, low = number_of(median, UNIT), number_of(least, UNIT)
    high = number_of(int(usual.most[n]), UNIT)
    return Found(Kind.SILENCE, first, "events", 0, expected, low, high, (median - NONE) * 1000 // STEPS, rule, **who)
