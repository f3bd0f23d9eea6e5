"""Price models: from a quantity to lines. Quantities and prices are Fractions, so nothing here is rounded.

Tiers: the upper bound belongs to its tier, and a tier is reached by more than the bound below it: with tiers up to 5
and up to 10, a quantity of 5 is in the first, and the least more than 5 reaches the second and owes its flat fee. A
quantity below 0 (corrections of more than there was) is charged like 0: what was charged before comes back, no more.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, Protocol

from ..errors import ConfigError, PlanError
from .lines import NOTHING, Line, line
from .quantities import check_bounds

ONE = Fraction(1)


class Model(Protocol):
    """What a charge is rated by."""

    def lines(self, quantity: Fraction) -> list[Line]:
        """The lines of a quantity. Raises PlanError where the model says nothing of it."""


@dataclass(frozen=True, slots=True)
class Tier:
    """Quantities above the bound of the tier before, and not above `up_to`."""

    up_to: Fraction | None
    """None: without bound; only in the last tier."""
    price_femto: Fraction = NOTHING
    """Of a unit, in 10^-15 currency units; any rational."""
    flat_femto: Fraction = NOTHING
    """Due once, when the tier is reached."""


@dataclass(frozen=True, slots=True)
class Tiered:
    """Graduated: each part of the quantity at its tier. Volume (`whole`): all of it at the tier that it falls in.

    One tier without bound is a price per unit; volume with flat fees alone is a stair-step; a price of percent / 100
    on a meter that counts money is a percentage, in tiers or not.
    """

    tiers: tuple[Tier, ...]
    whole: bool = False
    zero_usage_flat_fee: bool = False
    """Whether the flat fee of the first tier is due without usage."""

    def __post_init__(self) -> None:
        check_bounds([tier.up_to for tier in self.tiers])
        if any(tier.price_femto < 0 or tier.flat_femto < 0 for tier in self.tiers):
            raise ConfigError("a tier's price and flat fee are not below 0")

    def lines(self, quantity: Fraction) -> list[Line]:
        if quantity <= 0:
            return self._flat(0) if self.zero_usage_flat_fee else []
        number = self.tier_of(quantity)
        if self.whole:
            return [line("usage", number + 1, quantity, self.tiers[number].price_femto), *self._flat(number)]
        found = []
        below = NOTHING
        for reached, tier in enumerate(self.tiers[: number + 1]):
            top = quantity if reached == number or tier.up_to is None else tier.up_to
            found.append(line("usage", reached + 1, top - below, tier.price_femto))
            found.extend(self._flat(reached))
            below = top
        return found

    def tier_of(self, quantity: Fraction) -> int:
        """The index of the tier that a quantity falls in. Raises PlanError above the last one."""
        for number, tier in enumerate(self.tiers):
            if tier.up_to is None or quantity <= tier.up_to:
                return number
        raise PlanError(_above(quantity, f"the last tier, which ends at {self.tiers[-1].up_to}"))

    def _flat(self, number: int) -> list[Line]:
        flat_femto = self.tiers[number].flat_femto
        return [line("flat", number + 1, ONE, flat_femto)] if flat_femto else []


@dataclass(frozen=True, slots=True)
class Packages:
    """A price for each package of `size` units; a begun one is whole, or (`begun` "free") costs nothing yet."""

    size: Fraction
    price_femto: Fraction
    free_units: Fraction = NOTHING
    """Come off before packages are counted."""
    begun: Literal["whole", "free"] = "whole"

    def __post_init__(self) -> None:
        if self.size <= 0 or self.price_femto < 0 or self.free_units < 0:
            raise ConfigError("a package has a size above 0, and its price and free units are not below 0")

    def count(self, quantity: Fraction) -> int:
        """How many packages a quantity takes."""
        paid = max(quantity - self.free_units, NOTHING)
        return _ceil(paid, self.size) if self.begun == "whole" else paid // self.size

    def lines(self, quantity: Fraction) -> list[Line]:
        packages = self.count(quantity)
        return [line("usage", 0, Fraction(packages), self.price_femto)] if packages else []


@dataclass(frozen=True, slots=True)
class BlockTier:
    """Blocks of `size` units at `price_femto` each, up to `blocks_max` of them; None: without bound."""

    size: Fraction
    price_femto: Fraction
    blocks_max: int | None = None


@dataclass(frozen=True, slots=True)
class Blocks:
    """Tiers that are filled with blocks; a begun block is whole.

    Graduated: each tier's units in blocks of its own. `whole`: all units in blocks of the tier that they end in.
    """

    tiers: tuple[BlockTier, ...]
    whole: bool = False

    def __post_init__(self) -> None:
        if any(tier.size <= 0 or tier.price_femto < 0 for tier in self.tiers):
            raise ConfigError("a block has a size above 0, and its price is not below 0")
        check_bounds(self._bounds())

    def lines(self, quantity: Fraction) -> list[Line]:
        if quantity <= 0:
            return []
        found = []
        below = NOTHING
        for number, (tier, bound) in enumerate(zip(self.tiers, self._bounds(), strict=True)):
            last = bound is None or quantity <= bound
            if last or not self.whole:
                units = quantity if self.whole else (quantity if last or bound is None else bound) - below
                found.append(line("usage", number + 1, Fraction(_ceil(units, tier.size)), tier.price_femto))
            if last:
                return found
            below = bound or below
        raise PlanError(_above(quantity, f"the last tier, whose blocks end at {below}"))

    def _bounds(self) -> list[Fraction | None]:
        """The quantity at which each tier is full."""
        bounds: list[Fraction | None] = []
        top: Fraction | None = NOTHING
        for tier in self.tiers:
            top = None if top is None or tier.blocks_max is None else top + tier.size * tier.blocks_max
            bounds.append(top)
        return bounds


@dataclass(frozen=True, slots=True)
class Flat:
    """A fee whatever the usage."""

    fee_femto: Fraction

    def __post_init__(self) -> None:
        if self.fee_femto < 0:
            raise ConfigError("a flat fee is not below 0")

    def lines(self, quantity: Fraction) -> list[Line]:
        return [line("flat", 0, ONE, self.fee_femto)]


def _ceil(number: Fraction, divisor: Fraction) -> int:
    return -(-number // divisor)


def _above(quantity: Fraction, what: str) -> str:
    return f"{quantity} is above {what}; give the last tier no bound, or one that is high enough"
