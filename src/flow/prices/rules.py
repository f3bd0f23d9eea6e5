"""What a price says of quantities, without names or instants: a rate for every case that it tells apart.

Rules are what the kernel is given and what a timeline consists of. They compare by what they mean, so that equal
prices are one rule.
"""

import itertools
import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache

from .price import Price, Schedule, rate_femto


@dataclass(frozen=True, slots=True)
class Table:
    """An index that the quantity of another meter of the event decides."""

    meter: str
    values: tuple[int, ...]
    """Ascending; the place of the quantity among them is the index."""
    otherwise: bool
    """Whether there is one more index, for any other quantity or none at all; if not, such an event has no price."""

    @property
    def size(self) -> int:
        return len(self.values) + self.otherwise


@dataclass(frozen=True, slots=True)
class Rule:
    """A rate for each context tier and each index of each table."""

    cells: tuple[Fraction, ...]
    """10^-15 currency units a unit (or a package), exact; the tiers are next to each other, then comes the next index
    of the last table."""
    thresholds: tuple[int, ...] = ()
    """Ascending; a context above n of them is in tier n."""
    context: tuple[str, ...] = ()
    part: bool = False
    package: int = 0
    """If not 0: what is paid for is each started package of so many units."""
    times: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()

    def adjusted(self, factor: Fraction) -> "Rule":
        """The same at `factor` times the price."""
        return self if factor == 1 else replace(self, cells=tuple(cell * factor for cell in self.cells))

    @property
    def per(self) -> int:
        """The common denominator of the cells: amounts are whole numbers of 10^-15 / per."""
        return math.lcm(*(cell.denominator for cell in self.cells))


@dataclass(frozen=True, slots=True)
class Switch:
    """One rule in the hours of a schedule, another one outside of them."""

    schedule: Schedule
    within: Rule
    otherwise: "Rule | Switch | None"


Node = Rule | Switch | None
"""What holds at an instant; None: no price."""

FREE = Rule((Fraction(0),))


@lru_cache(maxsize=1 << 16)
def rule_of(price: Price) -> Rule:
    """What a price says, before adjustments."""
    tiers = [price.rate_femto, *(rate_femto(t.price, 1 if price.started else t.per) for t in price.tiers)]
    factors = [
        [Fraction(factor) for _, factor in m.table] + ([Fraction(m.otherwise)] if m.otherwise is not None else [])
        for m in price.multipliers
    ]
    return Rule(
        tuple(rate * math.prod(chosen) for chosen in itertools.product(*factors) for rate in tiers)
        if factors
        else tuple(tiers),
        tuple(tier.above for tier in price.tiers),
        price.context if price.tiers else (),
        price.part,
        price.per if price.started else 0,
        price.times,
        tuple(Table(m.meter, tuple(value for value, _ in m.table), m.otherwise is not None) for m in price.multipliers),
    )
