"""What an event costs, by looking at every price there is."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Protocol

from ..schema import REQUESTS

NARROWING = ("model", "service_tier", "region", "customer")
"""What a price's selector names, in order."""


class PriceRow(Protocol):
    """A row of a price book: `price` (decimal text) for `per` units of what it selects, from then on."""

    @property
    def meter(self) -> str: ...
    @property
    def selector(self) -> tuple[str | None, str | None, str | None, str | None]: ...
    @property
    def from_us(self) -> int: ...
    @property
    def per(self) -> int: ...
    @property
    def price(self) -> str: ...
    @property
    def line(self) -> int: ...


Rated = list[tuple[str, int, int | None]]
"""(meter, quantity, amount_femto): 10^-15 currency units; None is unpriced."""


@dataclass(frozen=True)
class Event:
    """What of an event its price depends on."""

    event_time_us: int
    """Microseconds since 1970-01-01T00:00:00Z."""
    usage: tuple[tuple[str, int], ...]
    """(meter, quantity), without `requests`."""
    dims: Mapping[str, str] = field(default_factory=dict)
    """A value for each of schema.DIMENSIONS; one that is left out is the empty string."""


def rate_event(prices: Iterable[PriceRow], unbilled: Collection[str], event: Event) -> Rated:
    """Rates each item of an event's usage, and at last its `requests`.

    Raises ArithmeticError if an amount is no whole number of 10^-15, which a price book does not let happen.
    """
    prices = list(prices)
    rated: Rated = []
    for meter, quantity in (*event.usage, (REQUESTS, 1)):
        price = price_in_force(prices, meter, event)
        if price is not None:
            amount_femto = Fraction(price.price) / price.per * quantity * 10**15
            if amount_femto.denominator != 1:
                raise ArithmeticError(f"line {price.line}: {quantity} {meter} cost {amount_femto} x 10^-15")
            rated.append((meter, quantity, amount_femto.numerator))
        elif meter in unbilled or meter == REQUESTS:
            rated.append((meter, quantity, 0))
        else:
            rated.append((meter, quantity, None))
    return rated


def price_in_force(prices: Iterable[PriceRow], meter: str, event: Event) -> PriceRow | None:
    """Of the prices that match and have begun, the narrowest; of these the one begun last.

    Raises ArithmeticError if the narrowest name different dimensions, which a price book does not let happen.
    """
    begun = [price for price in prices if price.meter == meter and price.from_us <= event.event_time_us]
    matching = [price for price in begun if _matches(price, event)]
    if not matching:
        return None
    most = max(_narrowness(price) for price in matching)
    narrowest = [price for price in matching if _narrowness(price) == most]
    if len({price.selector for price in narrowest}) > 1:
        raise ArithmeticError(f"{meter}: prices in lines {[price.line for price in narrowest]} tie")
    return max(narrowest, key=lambda price: price.from_us)


def _matches(price: PriceRow, event: Event) -> bool:
    wanted = zip(NARROWING, price.selector, strict=True)
    return all(name is None or event.dims.get(dimension, "") == name for dimension, name in wanted)


def _narrowness(price: PriceRow) -> int:
    return sum(name is not None for name in price.selector)
