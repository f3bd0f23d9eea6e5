"""One price, and which events it is for."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

NARROWING = ("model", "service_tier", "region", "customer")
"""The dimensions that narrow a price."""

Selector = tuple[str | None, str | None, str | None, str | None]
"""One value, or None for any, for each of NARROWING."""


@dataclass(frozen=True, slots=True)
class Price:
    """One row of a price book: `price` currency units for `per` units of `meter`, from an instant on."""

    meter: str
    selector: Selector
    from_us: int
    """Microseconds since 1970-01-01T00:00:00Z; the price holds for events at this instant and later."""
    per: int
    price: str
    """Decimal text, as written."""
    rate_femto: int
    """price / per in 10^-15 currency units per unit of the meter; exact."""
    line: int
    """The line of the file on which it stands."""


def narrowness(selector: Selector) -> int:
    """How many dimensions a selector names."""
    return sum(value is not None for value in selector)


def covers(selector: Selector) -> Iterator[Selector]:
    """Every selector that matches all events which `selector` matches, itself included; at most 16."""
    model, service_tier, region, customer = ((None,) if value is None else (None, value) for value in selector)
    return itertools.product(model, service_tier, region, customer)
