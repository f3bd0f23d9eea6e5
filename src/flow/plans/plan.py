"""A plan: the charges of a contract, each a price model on a meter, and what holds for all of them."""

from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from ..errors import ConfigError
from .events import Percentage
from .lines import EXACT, NOTHING, UNLIMITED, Limits, Rounding
from .models import Blocks, Flat, Packages, Tiered
from .quantities import Conversion, UsageDiscount

Accumulate = Literal["period", "contract"]


@dataclass(frozen=True, slots=True)
class Charge:
    """The usage of a meter -> conversion -> usage discount -> model -> discount -> limits."""

    meter: str
    model: Tiered | Packages | Blocks | Percentage | Flat
    conversion: Conversion | None = None
    usage_discount: UsageDiscount | None = None
    discount_percent: Fraction = NOTHING
    """Off each line, before the maximum."""
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        if not 0 <= self.discount_percent <= 100:
            raise ConfigError(f"{self.meter}: a discount is 0 to 100 percent")
        if isinstance(self.model, Percentage) and self.model.per_event and (self.conversion or self.usage_discount):
            raise ConfigError(f"{self.meter}: what is charged by the event takes no conversion and no usage discount")
        check_limits(self.limits)

    def billed(self, quantity: Fraction) -> Fraction:
        """The quantity that is billed where `quantity` was metered."""
        converted = quantity if self.conversion is None else self.conversion.apply(quantity)
        return converted if self.usage_discount is None else self.usage_discount.apply(converted)


@dataclass(frozen=True, slots=True)
class Plan:
    """Charges in one currency. Limits of the plan hold after those of its charges."""

    name: str
    currency: str
    charges: tuple[Charge, ...]
    accumulate: Accumulate
    """Whether tiers, packages, flat fees, discounts and limits start again with each period, or run through the
    contract."""
    rounding: Rounding = EXACT
    limits: Limits = UNLIMITED

    def __post_init__(self) -> None:
        meters = [charge.meter for charge in self.charges]
        if not meters or len(set(meters)) < len(meters):
            raise ConfigError(f"{self.name}: a plan has at least one charge, and one for each meter")
        check_limits(self.limits)


def check_limits(limits: Limits) -> None:
    """Raises ConfigError for limits that cannot hold together."""
    least, most = limits.minimum_femto, limits.maximum_femto
    if (least or 0) < 0 or (most or 0) < 0 or (least is not None and most is not None and least > most):
        raise ConfigError("minimum and maximum are not below 0, and the minimum is not above the maximum")
