"""What every format is read into: prices of a book, and a remark for all that is not in the file as it stands."""

import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

from ..price import PROMPT, Price, Schedule, Selector, Tier, rate_femto
from ..rows import is_finite
from ..values import INT128_MAX, unit_problem
from .numbers import as_decimal, meant, plain, times

TOKENS = 1_000_000
"""Token prices are written for so many tokens."""
QUANTITY_MAX = 10**12
"""The default of `limits.quantity_max`: what fits with it fits with every smaller one."""
EDGE_MAX = 10**18


class Kind(StrEnum):
    """Why something is said of a place in a file."""

    LEFT_OUT = "left out"
    SNAPPED = "snapped"
    ASSUMED = "assumed"


@dataclass(frozen=True, slots=True)
class Remark:
    """Something about the file that the user should know."""

    kind: Kind
    where: str
    """Model and key as the file has them."""
    text: str


@dataclass(frozen=True, slots=True)
class Money:
    """`price` currency units for `per` units; exact."""

    price: str
    """Decimal text."""
    per: int

    def scaled(self, factor: Decimal) -> "Money":
        return Money(plain(times(Decimal(self.price), factor)), self.per)


Tiers = dict[int, Money]
"""The price of a context above so many tokens; the one above 0 is that of all others."""


@dataclass(slots=True)
class Names:
    """Which events of one model a price is for."""

    model: str
    service_tier: str | None = None
    region: str | None = None

    @property
    def selector(self) -> Selector:
        return self.model, self.service_tier, self.region, None


@dataclass(slots=True)
class Imported:
    """A price file, read."""

    prices: list[Price] = field(default_factory=list)
    remarks: list[Remark] = field(default_factory=list)
    models: int = 0
    """Models that have a price in the book."""


_Key = tuple[Selector, str, Schedule | None]
_Step = tuple[int, Tiers | None]


class Collector:
    """Takes prices as a format gives them; `finish` makes a book's prices of them."""

    def __init__(self, provider: str | None, from_us: int, in_use: Iterable[str] = ()) -> None:
        """provider: take this provider's models only, without `provider/` before their names; from_us: since when
        prices hold of which the file does not say it; in_use: names of the book that patterns may stand for."""
        self.from_us = from_us
        self.in_use = frozenset(in_use)
        self._provider = provider
        self._remarks: list[Remark] = []
        self._steps: dict[_Key, list[_Step]] = defaultdict(list)
        self._context: dict[str, set[str]] = defaultdict(set)

    # -- names

    def name(self, provider: str, model: str) -> str | None:
        """What a provider's model is called in the book; None: it is not to be imported."""
        if self._provider is not None and provider != self._provider:
            return None
        name = model.removeprefix(f"{provider}/") if self._provider is not None else model
        if name and name.isprintable():
            return name
        self.remark(Kind.LEFT_OUT, repr(model), "no name for a model")
        return None

    def in_use_of(self, provider: str) -> list[str]:
        """The names in use that can be of a provider, as it calls them."""
        if self._provider is not None:
            return sorted(self.in_use) if provider == self._provider else []
        return sorted(name.removeprefix(f"{provider}/") for name in self.in_use if name.startswith(f"{provider}/"))

    def remark(self, kind: Kind, where: str, text: str) -> None:
        self._remarks.append(Remark(kind, where, text))

    def silent(self) -> "Collector":
        """The same collector, deaf to remarks: for a model that has several names."""
        twin = copy.copy(self)
        twin._remarks = []
        return twin

    # -- numbers

    def money(self, where: str, value: Any, per: int, written_for: int = TOKENS) -> Money | None:
        """A price of the file, for `per` units there and `written_for` in the book, where it goes into one."""
        written = as_decimal(value)
        if written is None:
            self.remark(Kind.LEFT_OUT, where, f"{value!r} is no number")
            return None
        price, divisor = meant(written)
        if (price, divisor) != (written, 1):
            short = plain(price) if divisor == 1 else f"{plain(price)} / {divisor}"
            self.remark(Kind.SNAPPED, where, f"{value} is {short} with the noise of a binary float")
        scale = written_for // per if written_for % per == 0 else 1
        money = Money(plain(times(price, scale)), per * scale * divisor)
        if (problem := _problem(money)) is None:
            return money
        self.remark(Kind.LEFT_OUT, where, f"{value} {problem}")
        return None

    def scaled(self, where: str, money: Money, factor: Decimal) -> Money | None:
        """The price times a factor of the file, where it goes into a book."""
        found = money.scaled(factor)
        if (problem := _problem(found)) is None:
            return found
        self.remark(Kind.LEFT_OUT, where, f"{money.price} times {factor} {problem}")
        return None

    def whole(self, where: str, value: Any) -> int | None:
        """A number of tokens at which a price changes."""
        number = as_decimal(value)
        if number is not None and number == number.to_integral_value() and 0 <= number <= EDGE_MAX:
            return int(number)
        self.remark(Kind.LEFT_OUT, where, f"{value!r} is no number of tokens")
        return None

    # -- prices

    def offer(
        self,
        names: Names,
        meter: str,
        from_us: int,
        tiers: Mapping[int, Money] | None,
        schedule: Schedule | None = None,
    ) -> None:
        """From an instant on a meter has these prices; None: it has none any more."""
        self._steps[names.selector, meter, schedule].append((from_us, None if tiers is None else dict(tiers)))

    def count_as_context(self, model: str, meters: Iterable[str]) -> None:
        """Meters that, besides the usual ones, belong to the context of a model's requests."""
        self._context[model].update(meters)

    def finish(self) -> Imported:
        """The prices, each only from where it differs from the one before it."""
        prices = []
        for (selector, meter, schedule), steps in self._steps.items():
            before: Tiers | None = None
            for from_us, tiers in sorted(steps, key=lambda step: step[0]):
                if tiers != before:
                    prices.append(self._price(selector, meter, from_us, tiers, schedule))
                before = tiers
        prices.sort(key=_order)
        models = len({price.selector[0] for price in prices})
        return Imported(prices, self._remarks, models)

    def _price(
        self, selector: Selector, meter: str, from_us: int, tiers: Tiers | None, schedule: Schedule | None
    ) -> Price:
        if tiers is None:
            return Price(meter, selector, from_us, 1, "0", 0, schedule=schedule, withdrawn=True)
        base, edges = tiers[0], sorted(edge for edge in tiers if edge)
        above = tuple(Tier(edge, tiers[edge].price, tiers[edge].per) for edge in edges)
        context = tuple(sorted({*PROMPT, *self._context[selector[0] or ""]})) if above else ()
        return Price(meter, selector, from_us, base.per, base.price, 0, tiers=above, context=context, schedule=schedule)


def _problem(money: Money) -> str | None:
    """Why a price does not go into a book; None: it does."""
    rate = rate_femto(money.price, money.per)
    if rate < 0:
        return "is negative"
    if rate * QUANTITY_MAX > INT128_MAX:
        return "is more than can be rated"
    if rate.denominator == 1:
        return None
    if is_finite(rate):
        return "is finer than 10^-15 a unit"
    return unit_problem(rate)


def _order(price: Price) -> tuple[str, str, str, str, str, int]:
    model, service_tier, region, _ = price.selector
    schedule = price.schedule.name if price.schedule is not None else ""
    return model or "", service_tier or "", region or "", price.meter, schedule, price.from_us
