"""From the quantity that was metered to the one that is billed: unit conversion first, then usage discount."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ..errors import ConfigError
from ..rounding import RULES, RoundingRule
from .lines import NOTHING, PERCENT


@dataclass(frozen=True, slots=True)
class Conversion:
    """Units that are billed for each unit that is metered: 1/1000 to bill thousands, 60 to bill minutes as seconds."""

    factor: Fraction
    rule: RoundingRule | None = None
    """None: the quantity stays exact."""
    digits: int = 0
    """How many digits the rule leaves."""

    def __post_init__(self) -> None:
        if self.factor <= 0 or self.digits < 0:
            raise ConfigError("a conversion multiplies or divides by more than 0, and leaves no less than 0 digits")

    def apply(self, quantity: Fraction) -> Fraction:
        """The quantity in billed units."""
        converted = quantity * self.factor
        if self.rule is None:
            return converted
        scale = 10**self.digits
        return Fraction(RULES[self.rule](converted.numerator * scale, converted.denominator), scale)


@dataclass(frozen=True, slots=True)
class DiscountTier:
    """What is taken off the part of a quantity above the tier before, and not above `up_to`."""

    up_to: Fraction | None
    percent: Fraction


@dataclass(frozen=True, slots=True)
class UsageDiscount:
    """Units that are not billed: the first `quantity`, and of each part of the rest the percentage of its tier."""

    quantity: Fraction = NOTHING
    tiers: tuple[DiscountTier, ...] = ()
    """By the quantity after the first ones came off. What is above a last tier with a bound is billed whole."""

    def __post_init__(self) -> None:
        if self.quantity < 0 or any(not 0 <= tier.percent <= 100 for tier in self.tiers):
            raise ConfigError("a usage discount takes off no less than 0 units, and 0 to 100 percent")
        if self.tiers:
            check_bounds([tier.up_to for tier in self.tiers])

    def apply(self, quantity: Fraction) -> Fraction:
        """The quantity that is left. One below 0 has nothing that could be taken off."""
        left = rest = quantity - min(self.quantity, max(quantity, NOTHING))
        below = NOTHING
        for tier in self.tiers:
            part = max((rest if tier.up_to is None else min(rest, tier.up_to)) - below, NOTHING)
            left -= part * tier.percent * PERCENT
            below = below if tier.up_to is None else tier.up_to
        return left


def check_bounds(bounds: Sequence[Fraction | None]) -> None:
    """Raises ConfigError unless the upper bounds of tiers rise from above 0, and only the last may be None."""
    if not bounds:
        raise ConfigError("at least one tier is needed")
    if None in bounds[:-1]:
        raise ConfigError("only the last tier is without bound")
    finite = [NOTHING, *(bound for bound in bounds if bound is not None)]
    if any(upper <= lower for lower, upper in pairwise(finite)):
        raise ConfigError("each tier ends above the one before, and the first above 0")
