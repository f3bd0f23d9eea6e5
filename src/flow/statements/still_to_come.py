"""What hours that have ended may still get: an interval, from what such hours got later in the past.

A *moment* is a whole hour of event time; at a moment, hours have been over for 0, 1, 2, ... hours (and for the minutes
since, which are the same for all moments that are compared). The point estimate is the chain ladder of claims
reserving (T. Mack, "Distribution-free calculation of the standard error of chain ladder reserve estimates", ASTIN
Bulletin 23, 1993), with ages in hours: of what hours of an age had come to, this share came later. The interval lies
between two ranks of what came later as a multiple of that estimate, at past moments: the ranks of conformal prediction
(V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005; moments at which nothing was to be
expected are a Mondrian category of their own). Its guarantee is for moments that are exchangeable, with errors of an
estimate made without them. Neither is quite so here: neighbouring hours are alike, and a past moment has its share in
the estimate (holding half of the moments back made the intervals worse on short pasts). So it is measured:
benchmarks/confidence.py, and `Development.backtest` on the customer's own past.

All numbers are integers: amounts in 10^-15 currency units, errors as fractions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

CONFIDENCE = Fraction(9, 10)
MOMENTS_MIN = 48
"""Two days: with fewer moments the hours of a day are not all among them, and they are too much alike."""
BACKTESTS_MAX = 100
_SHARE_UNITS = 10**12  # a share is a whole number of these


@dataclass(frozen=True, slots=True)
class Moment:
    """Hours that had ended, by how long they had: what had come of each, and what came later."""

    come: tuple[int, ...]
    later: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Interval:
    """What is still to come, in 10^-15 currency units."""

    low: int
    middle: int
    high: int


@dataclass(frozen=True, slots=True)
class Past:
    """One customer's hours, numbered from 1970, and what came of each behind."""

    amounts: Mapping[int, int]
    """What each hour has come to; an hour that is missing had no usage."""
    behind: Mapping[tuple[int, int], int]
    """What came of an hour after a moment at which it had ended for n hours, but not after the next: by (hour, n)."""
    known_from: int
    """The first moment after which all that came is told."""


class Development:
    """How a customer's hours went on to grow, at the moments of the past and at one now."""

    def __init__(self, past: Past, now: int, ages: range, hours_max: int) -> None:
        """`ages`: for how many hours those that are asked about have ended now (0: the last whole one); `hours_max`:
        the age from which an hour gets nothing any more."""
        self._past = past
        self._ages = ages
        self._hours_max = hours_max
        self._later = _later_by_hour(past, now, hours_max)
        self.moments = [self._moment(moment) for moment in range(past.known_from, now - hours_max + 1)]
        """The past ones, oldest first: those whose hours get nothing any more."""
        self.now = self._moment(now)

    def _moment(self, moment: int) -> Moment:
        hours = [moment - 1 - age for age in self._ages]
        later = [
            self._later[hour][age] if hour in self._later else 0 for hour, age in zip(hours, self._ages, strict=True)
        ]
        come = [self._past.amounts.get(hour, 0) - after for hour, after in zip(hours, later, strict=True)]
        # A credit may have made less of an hour than came of it.
        return Moment(tuple(max(amount, 0) for amount in come), tuple(later))

    def interval(self) -> Interval | None:
        """What is still to come of the hours that are asked about; None: the past is too short to say."""
        return interval_at(self.now, self.moments)

    def backtest(self) -> tuple[int, int]:
        """For how many of the last past moments the interval, made of what was known then, held; and how many had
        one."""
        held = made = 0
        for n in reversed(range(self._hours_max, len(self.moments))):
            found = interval_at(self.moments[n], self.moments[: n - self._hours_max + 1])
            if found is None or made == BACKTESTS_MAX:
                break
            made += 1
            held += found.low <= sum(self.moments[n].later) <= found.high
        return held, made

    def late_share(self) -> Fraction:
        """Of what the youngest of the hours came to at the past moments, the part that came later."""
        come, later = (
            sum(of_moment[0] for of_moment in of_moments)
            for of_moments in ([m.come for m in self.moments], [m.later for m in self.moments])
        )
        return Fraction(later, come + later) if come + later > 0 else Fraction(0)


def interval_at(moment: Moment, past: Sequence[Moment]) -> Interval | None:
    """What is still to come at a moment, with CONFIDENCE; None if fewer than MOMENTS_MIN past ones are of its kind."""
    shares = _shares_to_come(past)
    expected = _expected(moment, shares)
    errors = []
    for known in past:
        then = _expected(known, shares)
        if bool(then) == bool(expected):
            errors.append(Fraction(sum(known.later), then or 1))
    if len(errors) < MOMENTS_MIN:
        return None
    errors.sort()
    outside = Fraction(1 - CONFIDENCE) / 2
    low = errors[floor((len(errors) + 1) * outside) - 1]
    high = errors[ceil((len(errors) + 1) * (1 - outside)) - 1]
    middle = errors[len(errors) // 2]
    by = expected or 1
    return Interval(floor(low * by), floor(middle * by), ceil(high * by))


def _later_by_hour(past: Past, now: int, hours_max: int) -> dict[int, list[int]]:
    """For each hour of which anything came behind: what came at each age or after it."""
    later: dict[int, list[int]] = {}
    for (hour, age), amount in past.behind.items():
        if hour < now and age < hours_max:
            later.setdefault(hour, [0] * hours_max)[age] += amount
    for amounts in later.values():
        for age in reversed(range(hours_max - 1)):
            amounts[age] += amounts[age + 1]
    return later


def _shares_to_come(past: Sequence[Moment]) -> list[int]:
    """By age: what came later, as a share of what had come, over all moments together."""
    come = [sum(of_age) for of_age in zip(*(moment.come for moment in past), strict=True)]
    later = [sum(of_age) for of_age in zip(*(moment.later for moment in past), strict=True)]
    return [max(after, 0) * _SHARE_UNITS // before if before else 0 for before, after in zip(come, later, strict=True)]


def _expected(moment: Moment, shares: Sequence[int]) -> int:
    """The point estimate of the chain ladder."""
    return sum(come * share for come, share in zip(moment.come, shares, strict=False)) // _SHARE_UNITS
