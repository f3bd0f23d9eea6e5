"""A line of a rating: one part of a charge, with how it came about."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from ..errors import OverflowStop, PlanError
from ..rounding import FEMTO_DIGITS, RULES, RoundingRule, share

FEMTO = 10**FEMTO_DIGITS
INT128_MAX = 2**127 - 1

NOTHING = Fraction(0)
PERCENT = Fraction(1, 100)

LineKind = Literal["usage", "flat", "fee", "bounds", "minimum"]
"""What is charged for: units, packages or blocks; the flat fee of a tier or plan; the fee of an event; what the bounds
of an event's charge add or take; what is missing to a minimum."""


@dataclass(frozen=True, slots=True)
class Line:
    """quantity x price, less discount and credit. Amounts are in 10^-15 currency units."""

    kind: LineKind
    tier: int
    """The number of its tier, from 1; 0 where there are no tiers."""
    quantity: Fraction
    """Units (after conversion and usage discount), packages or blocks; 1 of a fee that is due once."""
    price_femto: Fraction
    gross_femto: Fraction
    """quantity x price; rounded where the plan rounds each line."""
    discount_femto: Fraction = NOTHING
    """What a discount or a maximum takes off."""
    credit_femto: Fraction = NOTHING
    amount_femto: int = 0
    """What is charged. The amounts of all lines of a rating add up to its amount."""
    meter: str = ""

    @property
    def net_femto(self) -> Fraction:
        """What is left of `gross_femto`, before the total is rounded."""
        return self.gross_femto - self.discount_femto - self.credit_femto


def line(kind: LineKind, tier: int, quantity: Fraction, price_femto: Fraction) -> Line:
    """A line as a price makes it."""
    return Line(kind, tier, quantity, price_femto, quantity * price_femto)


@dataclass(frozen=True, slots=True)
class Rounding:
    """To how many digits, by which rule, and whether each line or their total. The default keeps all that amounts
    can hold."""

    rule: RoundingRule = "half-even"
    digits: int = FEMTO_DIGITS
    at: Literal["line", "total"] = "total"

    def nearest(self, femto: Fraction) -> int:
        """`femto` on the grid, as an integer count of 10^-15 units."""
        unit = int(10 ** (FEMTO_DIGITS - self.digits))
        return RULES[self.rule](femto.numerator, femto.denominator * unit) * unit

    def of_line(self, femto: Fraction) -> Fraction:
        """`femto` as it stands in a line."""
        return Fraction(self.nearest(femto)) if self.at == "line" else femto


EXACT = Rounding()


@dataclass(frozen=True, slots=True)
class Limits:
    """The least and the most that a span costs, over which tiers accumulate."""

    minimum_femto: Fraction | None = None
    maximum_femto: Fraction | None = None


UNLIMITED = Limits()


def discounted(lines: Iterable[Line], percent: Fraction, rounding: Rounding) -> list[Line]:
    """The lines rounded, if each is, and with a percentage taken off."""
    if not percent and rounding.at == "total":
        return list(lines)
    found = []
    for each in lines:
        gross = rounding.of_line(each.gross_femto)
        found.append(replace(each, gross_femto=gross, discount_femto=rounding.of_line(gross * percent * PERCENT)))
    return found


def limited(
    lines: Sequence[Line], limits: Limits, rounding: Rounding, *, billed_femto: int = 0, final: bool = True
) -> list[Line]:
    """The lines within limits: the last ones lose what is above the maximum; one more is what the minimum lacks.

    billed_femto: what was billed before for the same span. final: the span has ended, so that a minimum is due.
    """
    if limits == UNLIMITED:
        return list(lines)
    found = []
    total = Fraction(billed_femto)
    for each in lines:
        if limits.maximum_femto is not None:
            above = total + each.net_femto - rounding.of_line(limits.maximum_femto)
            off = min(max(above, NOTHING), max(each.net_femto, NOTHING))
            each = replace(each, discount_femto=each.discount_femto + off)
        total += each.net_femto
        found.append(each)
    if final and limits.minimum_femto is not None:
        missing = rounding.of_line(limits.minimum_femto) - total
        if missing > 0:
            found.append(line("minimum", 0, Fraction(1), missing))
    return found


def credited(lines: Sequence[Line], credits_femto: Iterable[int], rounding: Rounding) -> list[Line]:
    """The lines with credits taken off, each credit from the first line on.

    Raises PlanError where a credit is more than what is left to pay.
    """
    found = list(lines)
    for credit_femto in credits_femto:
        left = rounding.of_line(Fraction(credit_femto))
        for number, each in enumerate(found):
            used = min(left, max(each.net_femto, NOTHING))
            found[number] = replace(each, credit_femto=each.credit_femto + used)
            left -= used
        if left > 0:
            raise PlanError("the credits are more than the charge; apply no more than is left to pay")
    return found


def charged(lines: Sequence[Line], rounding: Rounding) -> tuple[Line, ...]:
    """The lines with what each is charged: their total is rounded once, and shared out so that they add up to it.

    Raises OverflowStop beyond 128 bits.
    """
    nets = [each.net_femto for each in lines]
    amounts = share(nets, rounding.nearest(sum(nets, NOTHING)))
    if any(abs(amount) > INT128_MAX for amount in (*amounts, sum(amounts))):
        raise OverflowStop("an amount of a plan is beyond 128 bits; no usage costs that much: check the prices")
    return tuple(replace(each, amount_femto=amount) for each, amount in zip(lines, amounts, strict=True))


def difference(after: Iterable[Line], before: Iterable[Line]) -> tuple[Line, ...]:
    """What turns the lines `before` into those `after`: quantities and amounts of equal parts subtracted.

    Lines are of one part if meter, kind, tier and price agree; what is only in `before` comes back as its reversal.
    """
    found: dict[tuple[str, LineKind, int, Fraction], Line] = {}
    for each, sign in (*((each, -1) for each in before), *((each, 1) for each in after)):
        part = (each.meter, each.kind, each.tier, each.price_femto)
        found[part] = _plus(found.get(part), each, sign)
    return tuple(each for each in found.values() if each.quantity or each.amount_femto or each.gross_femto)


def _plus(sum_: Line | None, each: Line, sign: int) -> Line:
    base = sum_ or replace(
        each,
        quantity=NOTHING,
        gross_femto=NOTHING,
        discount_femto=NOTHING,
        credit_femto=NOTHING,
        amount_femto=0,
    )
    return replace(
        base,
        quantity=base.quantity + sign * each.quantity,
        gross_femto=base.gross_femto + sign * each.gross_femto,
        discount_femto=base.discount_femto + sign * each.discount_femto,
        credit_femto=base.credit_femto + sign * each.credit_femto,
        amount_femto=base.amount_femto + sign * each.amount_femto,
    )


def amount_of(lines: Iterable[Line]) -> int:
    """The sum of what the lines are charged, in 10^-15 currency units."""
    return sum(each.amount_femto for each in lines)


def by_tier(lines: Iterable[Line]) -> Mapping[tuple[str, int], int]:
    """The split over tiers: what each (meter, tier) is charged, in 10^-15 currency units."""
    found: dict[tuple[str, int], int] = {}
    for each in lines:
        place = (each.meter, each.tier)
        found[place] = found.get(place, 0) + each.amount_femto
    return found
