"""The rows of a price book as they were written: which events each is for, from when on, and what it says."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache

FEMTO = 10**15
"""Rates and amounts are counted in 10^-15 currency units."""

NARROWING = ("model", "service_tier", "region", "customer")
"""The dimensions that narrow a price."""

PROMPT = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "cache_write_1h_tokens",
    "cache_write_12h_tokens",
    "tool_input_tokens",
    "input_audio_tokens",
    "input_image_tokens",
    "input_video_tokens",
    "cached_input_audio_tokens",
    "cached_input_image_tokens",
    "cached_input_video_tokens",
)
"""The meters that together are the context of an event, unless a price names others: all that an adapter may count of
what goes into a request, so that a tier is the same one whether a book has a price for audio or not."""

HOLIDAY = 7
"""The day kind of a schedule's holidays; 0 is Monday, 6 Sunday."""

Selector = tuple[str | None, str | None, str | None, str | None]
"""One value, or None for any, for each of NARROWING."""


@dataclass(frozen=True, slots=True)
class Hours:
    """Hours of the day on some kinds of days, by the clock on the wall."""

    days: frozenset[int]
    """Of the days on which the hours begin: 0 (Monday) to 6 and HOLIDAY."""
    from_minute: int
    to_minute: int
    """Minutes since midnight; one that is not after `from_minute` is on the next day."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Hours of the week in a named zone."""

    name: str
    zone: str
    """Of the IANA time zone database."""
    hours: tuple[Hours, ...]
    holidays: frozenset[date]
    """Dates that count as HOLIDAY, whatever their weekday."""


@dataclass(frozen=True, slots=True)
class Tier:
    """The price of a context above so many units."""

    above: int
    price: str
    per: int


@dataclass(frozen=True, slots=True)
class Multiplier:
    """A factor that the quantity of another meter of the event decides."""

    meter: str
    table: tuple[tuple[int, str], ...]
    """(quantity, factor), ascending."""
    otherwise: str | None
    """The factor of any other quantity, or none at all; None: the price is then no price for the event."""


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
    line: int
    """The line of the file on which it stands."""
    started: bool = False
    """Each started package of `per` units costs the price, in each event."""
    tiers: tuple[Tier, ...] = ()
    """Ascending."""
    context: tuple[str, ...] = ()
    """The meters whose quantities together decide the tier."""
    part: bool = False
    """Only the units above a tier's edge have its price, and not all of the event; the meters stand in the context in
    the order of `context`."""
    times: tuple[str, ...] = ()
    """Meters whose quantities multiply the quantity; one that the event does not have counts as 1."""
    multipliers: tuple[Multiplier, ...] = ()
    schedule: Schedule | None = None
    """The hours in which it holds, before one of the same names without a schedule; None: always."""
    withdrawn: bool = False
    """From this instant on there is no such price any more, and wider ones hold again."""

    @property
    def deciding(self) -> tuple[str, ...]:
        """The meters whose quantities, beside its own, decide what it comes to."""
        return (*self.context, *self.times, *(multiplier.meter for multiplier in self.multipliers))

    @property
    def rate_femto(self) -> Fraction:
        """What a unit costs in the lowest tier, in 10^-15 currency units; a package where `started`."""
        return rate_femto(self.price, 1 if self.started else self.per)


@dataclass(frozen=True, slots=True)
class Adjustment:
    """Some percent more or less on the prices of some events, from an instant on."""

    meter: str | None
    """None is every meter."""
    selector: Selector
    from_us: int
    percent: str
    """Signed decimal text, as written."""
    line: int

    @property
    def factor(self) -> Fraction:
        return 1 + Fraction(self.percent) / 100

    @property
    def names(self) -> frozenset[str]:
        """What it names of an event."""
        return named_by(self.meter, self.selector)


def named_by(meter: str | None, selector: Selector) -> frozenset[str]:
    """Which of `meter` and NARROWING have a value."""
    given = [name for name, value in zip(NARROWING, selector, strict=True) if value is not None]
    return frozenset(given if meter is None else ["meter", *given])


@lru_cache(maxsize=1 << 16)
def rate_femto(price: str, per: int) -> Fraction:
    """price / per in 10^-15 currency units, exact."""
    units, of = Decimal(
        price
    ).as_integer_ratio()  # whatever the number of digits; many times as fast as Fraction(price)
    return Fraction(units * FEMTO, of * per)


def narrowness(selector: Selector) -> int:
    """How many dimensions a selector names."""
    return sum(value is not None for value in selector)


def covers(selector: Selector) -> Iterator[Selector]:
    """Every selector that matches all events which `selector` matches, itself included; at most 16."""
    model, service_tier, region, customer = ((None,) if value is None else (None, value) for value in selector)
    return itertools.product(model, service_tier, region, customer)


def names_of(selector: Selector) -> str:
    """A selector for people: `{model: m, region: eu}`."""
    both = zip(NARROWING, selector, strict=True)
    return "{" + ", ".join(f"{dimension}: {name}" for dimension, name in both if name is not None) + "}"
