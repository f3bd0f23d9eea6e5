"""Rating a plan: the usage of a span so far, as one quantity a meter, to its charge, exactly and line by line.

The charge depends on the sum of a meter's usage and not on how it came: any order and any batches give the same.
What a period costs within a longer span is the charge at its end less the charge at its start, both rounded; so the
bills of a span add up to the rounded charge of the whole, and a late or negative correction needs no rule of its own.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from ..errors import OverflowStop, PlanError
from .events import Percentage
from .lines import EXACT, INT128_MAX, NOTHING, Line, Rounding, amount_of, charged, difference, discounted, limited
from .plan import Charge, Plan

Use = int | Fraction | Sequence[int | Fraction]
"""The quantity of a meter, or the amounts of its events where a Percentage needs them."""

Usage = Mapping[str, Use]
"""By meter; one that is left out was not used."""


@dataclass(frozen=True, slots=True)
class Rating:
    """What usage costs. The amounts of the lines add up to `amount_femto`, always."""

    currency: str
    amount_femto: int
    """In 10^-15 currency units; on the grid of the plan's rounding."""
    exact_femto: Fraction
    """What it would be without rounding."""
    lines: tuple[Line, ...]
    billed: Mapping[str, Fraction]
    """By meter, the quantity after conversion and usage discount."""

    @property
    def remainder_femto(self) -> Fraction:
        """What rounding took away; below 0 where it added."""
        return self.exact_femto - self.amount_femto


def rate(plan: Plan, usage: Usage, *, final: bool = True) -> Rating:
    """The charge of a span's usage so far.

    final: the span has ended, so that minimums are due. Raises PlanError for a meter without a charge, and for usage
    of which a model says nothing; OverflowStop for a quantity or an amount beyond 128 bits.
    """
    lines = _lines(plan, usage, plan.rounding, final)
    done = charged(lines, plan.rounding)
    exact = _net(lines if plan.rounding.at == "total" else _lines(plan, usage, EXACT, final))
    billed = {charge.meter: charge.billed(total_of(usage.get(charge.meter, 0))) for charge in plan.charges}
    return Rating(plan.currency, amount_of(done), exact, done, billed)


def rate_change(plan: Plan, before: Usage | None, after: Usage, *, final: bool = True) -> Rating:
    """What is owed when the usage of a span has gone from `before` to `after`; negative where it is owed back.

    before None: nothing of the span was charged yet, not even what is due without usage.
    """
    now = rate(plan, after, final=final)
    if before is None:
        return now
    earlier = rate(plan, before, final=False)
    lines = difference(now.lines, earlier.lines)
    billed = {meter: quantity - earlier.billed[meter] for meter, quantity in now.billed.items()}
    amount_femto = now.amount_femto - earlier.amount_femto
    return Rating(plan.currency, amount_femto, now.exact_femto - earlier.exact_femto, lines, billed)


def rate_periods(plan: Plan, periods: Sequence[Usage], *, ended: bool = True) -> list[Rating]:
    """The charge of each period, from its own usage. Where tiers accumulate over the contract, each begins where the
    one before has stopped, and minimums are due in the last one.

    ended: the last period given is over, and with it the contract.
    """
    ratings = []
    before: Usage | None = None
    for number, usage in enumerate(periods, 1):
        last = number == len(periods)
        if plan.accumulate == "period":
            ratings.append(rate(plan, usage, final=ended or not last))
        else:
            after = added(before or {}, usage)
            ratings.append(rate_change(plan, before, after, final=ended and last))
            before = after
    return ratings


def charge_lines(charge: Charge, use: Use) -> list[Line]:
    """The lines of one charge as its model makes them: before rounding, discount and limits."""
    if isinstance(use, Sequence):
        if not isinstance(charge.model, Percentage):
            raise PlanError(f"{charge.meter}: amounts of events are for a percentage; give one quantity")
        return charge.model.lines_of_events([Fraction(amount) for amount in use])
    if isinstance(charge.model, Percentage) and charge.model.per_event and use == 0:
        return charge.model.lines_of_events([])
    return charge.model.lines(charge.billed(Fraction(use)))


def exact_charge(plan: Plan, usage: Usage) -> Fraction:
    """The charge without rounding and before minimums, in 10^-15 currency units."""
    return _net(_lines(plan, usage, EXACT, final=False))


def added(usage: Usage, more: Usage) -> dict[str, Use]:
    """Both usages together: quantities added up, events one after the other."""
    found = dict(usage)
    for meter, use in more.items():
        before = found.get(meter)
        if before is None:
            found[meter] = use
        elif isinstance(before, Sequence) and isinstance(use, Sequence):
            found[meter] = [*before, *use]
        elif isinstance(before, Sequence) or isinstance(use, Sequence):
            raise PlanError(f"{meter}: its usage is a quantity once and events another time; give it one way")
        else:
            found[meter] = before + use
    return found


def total_of(use: Use) -> Fraction:
    """The quantity of a use. Raises PlanError for what is neither a whole number nor a Fraction."""
    numbers = use if isinstance(use, Sequence) else (use,)
    for number in numbers:
        if not isinstance(number, int | Fraction):
            raise PlanError(f"{number!r} is neither a whole number nor a Fraction; quantities are exact")
    return sum(map(Fraction, numbers), NOTHING)


def _net(lines: Iterable[Line]) -> Fraction:
    return sum((each.net_femto for each in lines), NOTHING)


def _lines(plan: Plan, usage: Usage, rounding: Rounding, final: bool) -> list[Line]:
    _check_usage(plan, usage)
    lines: list[Line] = []
    for charge in plan.charges:
        own = discounted(charge_lines(charge, usage.get(charge.meter, 0)), charge.discount_percent, rounding)
        own = limited(own, charge.limits, rounding, final=final)
        lines.extend(replace(each, meter=charge.meter) for each in own)
    return limited(lines, plan.limits, rounding, final=final)


def _check_usage(plan: Plan, usage: Usage) -> None:
    meters = [charge.meter for charge in plan.charges]
    for meter, use in usage.items():
        if meter not in meters:
            raise PlanError(f"{plan.name} has no charge for {meter}; it has one for {', '.join(meters)}")
        total = total_of(use)
        if abs(total) > INT128_MAX:
            raise OverflowStop(f"{meter}: a quantity of {total} is beyond 128 bits")
