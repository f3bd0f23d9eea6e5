"""The price book: read from YAML, checked whole, and asked for the rates of one class of events.

A price names a meter and, to narrow it, any of model, service tier, region and customer; it holds from an
instant until a later price with the same names supersedes it. A *timeline* is the answer for one class of
events: from which instant which rate holds. Rates are integers of 10^-15 currency units per unit of the
meter, so nothing is ever rounded (DESIGN 3.2 and 3.3).
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..schema import REQUESTS
from ..yaml_nodes import read_text
from .price import NARROWING, Price, Selector, covers, narrowness
from .reading import read_prices

QUANTITY_MAX = 10**12
"""The default of `limits.quantity_max`, against which a rate is checked for room in 128 bits."""

Timeline = tuple[tuple[int, int], ...]
"""(from_us, rate_femto) in ascending order; a step holds until the next one begins."""


@dataclass(frozen=True)
class PriceBook:
    """Prices without ties; build one with `load_price_book` or `parse_price_book`, which check it."""

    currency: str
    prices: tuple[Price, ...]
    unbilled: frozenset[str]
    """Meters that are not for sale: their amount is 0. `requests` is one unless it has a price."""
    meters: frozenset[str] = field(init=False, compare=False)
    """Meters that have a price."""
    named: Mapping[str, frozenset[str]] = field(init=False, compare=False)
    """For each of NARROWING, the values that some price names. All other values of it are rated alike."""
    _by_meter: Mapping[str, Mapping[Selector, Timeline]] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        grouped: dict[str, dict[Selector, list[tuple[int, int]]]] = {}
        for price in self.prices:
            of_meter = grouped.setdefault(price.meter, {})
            of_meter.setdefault(price.selector, []).append((price.from_us, price.rate_femto))
        by_meter = {
            meter: {selector: tuple(sorted(steps)) for selector, steps in of_meter.items()}
            for meter, of_meter in grouped.items()
        }
        named = {
            dimension: frozenset(name for price in self.prices if (name := price.selector[n]) is not None)
            for n, dimension in enumerate(NARROWING)
        }
        object.__setattr__(self, "meters", frozenset(by_meter))
        object.__setattr__(self, "named", named)
        object.__setattr__(self, "_by_meter", by_meter)

    def timeline(self, meter: str, *, model: str, service_tier: str, region: str, customer: str) -> Timeline:
        """When which rate holds for a meter of such events; the narrowest price in force wins.

        Before the first step the quantity is unpriced; no step at all means that it always is, unless the
        meter is unbilled. `requests` alone is free, not unpriced, where no price is in force (DESIGN 3.2):
        where it has any price, its timeline begins with a rate of 0.
        """
        of_meter = self._by_meter.get(meter)
        if of_meter is None:
            return ()
        matching = [
            (narrowness(selector), of_meter[selector][0][0], of_meter[selector])
            for selector in covers((model, service_tier, region, customer))
            if selector in of_meter
        ]
        # Once two prices of one narrowness hold, a narrower one holds as well (checked at load): their
        # order is of no weight.
        steps: list[tuple[int, int]] = [(0, 0)] if meter == REQUESTS else []
        for _, first_us, narrower in sorted(matching):
            steps = [step for step in steps if step[0] < first_us]
            steps.extend(narrower)
        return tuple(step for n, step in enumerate(steps) if n == 0 or step[1] != steps[n - 1][1])

    def digest(self) -> str:
        """SHA-256 of what the book means: the same for any order, spelling or comments of the same prices."""
        rows = sorted(
            [price.meter, *(name or "" for name in price.selector), price.from_us, str(price.rate_femto)]
            for price in self.prices
        )
        meaning = {"currency": self.currency, "unbilled": sorted(self.unbilled), "prices": rows}
        return hashlib.sha256(json.dumps(meaning, ensure_ascii=True, sort_keys=True).encode()).hexdigest()


def load_price_book(path: Path, quantity_max: int = QUANTITY_MAX) -> PriceBook:
    """Reads a price book. Raises ConfigError with every error of the file, each with its line."""
    return parse_price_book(read_text(path), str(path), quantity_max)


def parse_price_book(text: str, name: str, quantity_max: int = QUANTITY_MAX) -> PriceBook:
    """`load_price_book` of text; `name` stands for the file in messages."""
    return PriceBook(*read_prices(text, name, quantity_max))
