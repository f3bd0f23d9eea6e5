"""The pricing cases of other billing systems, put to our plans: one function that takes any case of KINDS.

`outcome_of(case)` reads the fields that the data's README describes (kind, model, params, tiers, quantity, steps,
currency, rounding, and peer and file) and nothing of what is expected. What a case leaves unsaid, because its system
always does it, is said here by the name of the system; docs/decisions/011-plan-rating.md has the reasons. A parameter
that is not known here is an error, so that no case passes by being read half.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from flow.errors import PlanError
from flow.plans.events import Percentage
from flow.plans.lines import (
    EXACT,
    FEMTO,
    Limits,
    Line,
    Rounding,
    amount_of,
    charged,
    credited,
    difference,
    discounted,
    limited,
    line,
)
from flow.plans.models import Blocks, BlockTier, Flat, Packages, Tier, Tiered
from flow.plans.plan import Charge, Plan
from flow.plans.prorating import HeldRow, held_lines
from flow.plans.quantities import Conversion, DiscountTier, UsageDiscount
from flow.plans.rating import Rating, charge_lines, rate, rate_change
from flow.rounding import RoundingRule, minor_digits

KINDS = (
    "rate",
    "rate_multi_unit",
    "steps_cumulative",
    "min_spend",
    "package_count",
    "rounding",
    "usage_discount",
    "unit_conversion",
)

OTHER_MODELS = ("graduated_prorated", "minimum_commitment", "rounding", "unit_conversion", "usage_discount")
"""Models without a charge of their own."""

Case = Mapping[str, Any]

PARAMS = (
    "unit_price package_size package_price package_rounding free_units percent fixed_amount_per_event free_events "
    "free_amount events_count running_total_of_first_events event_amounts per_event_min per_event_max multiplier "
    "precise_total_cents amount payment_term line_position previous_quantity previous_billed_amount credits min_spend "
    "max_spend commitment used_amount fees unit_conversion op factor precision zero_usage_flat_fee "
    "usage_discount_quantity usage_discount_percent usage_discount_tiers discount_percent units event_quantities "
    "event_prorated_quantities"
)

USUAL: Case = dict.fromkeys(("params", "tiers", "quantity", "currency", "rounding"), None) | {"peer": "", "file": ""}
"""Fields that a case may leave out."""

ALWAYS_FIRST_FLAT_FEE = ("openmeter", "lago")
"""Whose flat fee of the first tier is due without usage, even where a case does not say so."""

RULES: tuple[tuple[str, RoundingRule], ...] = (
    ("half[_ -]?up", "half-up"),
    ("half[_ -]?even|bank", "half-even"),
    ("half[_ -]?down", "half-down"),
    ("ceil", "ceil"),
    ("floor", "floor"),
    ("trunc|^(round[_ -]?)?down\\b", "down"),
    ("^(round[_ -]?)?up\\b", "up"),
    ("to cents", "half-up"),
)


class PeerError(Exception):
    """What a peer refuses, by the name that the cases give it."""


@dataclass(frozen=True)
class Outcome:
    """What our rules make of a case."""

    amount: Fraction | None = None
    """In currency units, or a count where the case asks for one."""
    error: str | None = None
    lines: tuple[Line, ...] = ()
    steps: tuple[Rating, ...] = ()


def outcome_of(case: Case) -> Outcome:
    """Raises ValueError for a kind, model or parameter that is not known here."""
    case = {**USUAL, **case}
    case["params"] = case["params"] or {}
    unknown = set(case["params"]) - set(PARAMS.split())
    if unknown or case["kind"] not in KINDS or case["model"] not in (*_MODELS, *OTHER_MODELS):
        raise ValueError(f"{case['id']}: a kind, model or parameters not known here: {sorted(unknown)}")
    try:
        return _KINDS[case["kind"]](case)
    except PeerError as error:
        return Outcome(error=str(error))


def agrees(ours: Fraction, expected: str) -> bool:
    """Whether an amount is the expected one. A peer's decimals end where ours have no end: then by its digits."""
    peers = Fraction(expected)
    _, _, digits = expected.partition(".")
    finite = ours.denominator
    for prime in (2, 5):
        while finite % prime == 0:
            finite //= prime
    return ours == peers or (finite != 1 and abs(ours - peers) * 10 ** len(digits) <= Fraction(1, 2))


# ---- Kinds ----


def _rate(case: Case) -> Outcome:
    rounding = rounding_of(case)
    params = case["params"]
    if case["model"] == "graduated_prorated":
        lines = charged(held_lines(_tiered(case), _held_rows(params)), rounding)
    else:
        lines = _bill(case, rounding)
    return Outcome(_units(amount_of(lines)), lines=lines)


def _bill(case: Case, rounding: Rounding) -> tuple[Line, ...]:
    """One bill of a period, which may be one of several: it rounds its own lines, and knows what was billed."""
    params = case["params"]
    position = params.get("line_position", "single")
    charge = _charge(case)
    final = position in ("single", "last")
    lines = discounted(_own_lines(case, charge, position), charge.discount_percent, rounding)
    # A flat price has no limits in the one system that has positions.
    limits = Limits() if isinstance(charge.model, Flat) else charge.limits
    billed_femto = int(_femto(params.get("previous_billed_amount", "0")))
    lines = limited(lines, limits, rounding, billed_femto=billed_femto, final=final)
    try:
        lines = credited(lines, [int(_femto(credit)) for credit in params.get("credits", ())], rounding)
    except PlanError:
        raise PeerError("credits_not_fully_consumed") from None
    return charged(lines, rounding)


def _own_lines(case: Case, charge: Charge, position: str) -> Sequence[Line]:
    params = case["params"]
    if isinstance(charge.model, Percentage) and charge.model.per_event:
        return charge_lines(charge, _event_amounts(case))
    if isinstance(charge.model, Flat):
        due = ("single", "first") if params.get("payment_term") == "in_advance" else ("single", "last")
        return charge_lines(charge, 0) if position in due else []
    volume = isinstance(charge.model, Tiered) and charge.model.whole
    if volume and position in ("first", "mid"):
        return []  # volume tiers are billed when the period has ended
    # Each bill converts what is its own (and rounds it): the sum is not the conversion of the sum.
    convert = charge.conversion.apply if charge.conversion else Fraction
    charge = replace(charge, conversion=None)
    before = convert(Fraction(params.get("previous_quantity", "0")))
    after = before + convert(_quantity(case))
    if volume or position in ("single", "first"):
        return charge_lines(charge, after)
    return difference(charge_lines(charge, after), charge_lines(charge, before))


def _rate_multi_unit(case: Case) -> Outcome:
    units = case["params"]["units"]
    charges = tuple(_charge({**case, **unit, "params": {}}, meter) for meter, unit in units.items())
    plan = Plan(case["id"], case["currency"] or "", charges, "period", rounding_of(case), _limits(case["params"]))
    rating = rate(plan, {meter: Fraction(unit["quantity"]) for meter, unit in units.items()})
    return Outcome(_units(rating.amount_femto), lines=rating.lines)


def _steps_cumulative(case: Case) -> Outcome:
    plan = Plan(case["id"], case["currency"] or "", (_charge(case),), "contract", rounding_of(case))
    before = None
    steps = []
    for number, step in enumerate(case["steps"], 1):
        after = {"meter": Fraction(step["cumulative_quantity"])}
        steps.append(rate_change(plan, before, after, final=number == len(case["steps"])))
        before = after
    return Outcome(_units(sum(step.amount_femto for step in steps)), steps=tuple(steps))


def _min_spend(case: Case) -> Outcome:
    """The top-up: what is missing to the minimum."""
    params, rounding = case["params"], rounding_of(case)
    if "used_amount" in params or "fees" in params:
        used = [line("usage", 0, Fraction(1), _femto(fee)) for fee in params.get("fees", [params.get("used_amount")])]
        own = discounted(used, Fraction(0), rounding)
    else:
        own = discounted(charge_lines(_charge(case), _quantity(case)), Fraction(0), rounding)
    limits = Limits(minimum_femto=_femto(params.get("commitment", params.get("min_spend"))))
    lines = charged(limited(own, limits, rounding), rounding)
    return Outcome(_units(sum(each.amount_femto for each in lines if each.kind == "minimum")), lines=lines)


def _package_count(case: Case) -> Outcome:
    return Outcome(Fraction(_packages(case["params"]).count(_quantity(case))))


def _rounding(case: Case) -> Outcome:
    return Outcome(_units(rounding_of(case).nearest(_femto(case["params"]["amount"]))))


def _usage_discount(case: Case) -> Outcome:
    """The quantity that is left to bill; its charge where the case has a price."""
    if case["tiers"] or {"unit_price", "package_price", "multiplier"} & set(case["params"]):
        return _rate(case)
    discount = _usage_discount_of(case["params"])
    before = Fraction(case["params"].get("previous_quantity", "0"))
    return Outcome(discount.apply(before + _quantity(case)) - discount.apply(before) if discount else _quantity(case))


def _unit_conversion(case: Case) -> Outcome:
    params = {"rounding": case["rounding"], **case["params"]}
    return Outcome(_conversion(params).apply(_quantity(case)))


_KINDS: Mapping[str, Callable[[Case], Outcome]] = {
    "rate": _rate,
    "rate_multi_unit": _rate_multi_unit,
    "steps_cumulative": _steps_cumulative,
    "min_spend": _min_spend,
    "package_count": _package_count,
    "rounding": _rounding,
    "usage_discount": _usage_discount,
    "unit_conversion": _unit_conversion,
}


# ---- Fields ----


def rounding_of(case: Case) -> Rounding:
    """`half_up to currency scale, per line` and the like; `none` is exact."""
    text = (case["rounding"] or "none").lower()
    rule = rule_of(text)
    if rule is None:
        return EXACT
    decimals = re.search(r"(\d+) decimals", text)
    digits = int(decimals[1]) if decimals else 2 if "cents" in text else minor_digits(case["currency"] or "")
    # What is rounded before something is done with it is rounded by itself.
    return Rounding(rule, digits, "line" if "per line" in text or " first" in text else "total")


def rule_of(text: str) -> RoundingRule | None:
    if text.startswith("none"):
        return None
    for pattern, rule in RULES:
        if re.search(pattern, text):
            return rule
    raise ValueError(f"a rounding that is not known here: {text}")


def _charge(case: Case, meter: str = "meter") -> Charge:
    params = case["params"]
    conversion = params.get("unit_conversion")
    if conversion and not conversion.get("enabled", True):
        raise PeerError("unit_conversion_disabled")  # a switch of that system; our plans have none
    return Charge(
        meter,
        _MODELS[case["model"]](case),
        _conversion(conversion) if conversion else None,
        _usage_discount_of(params),
        Fraction(params.get("discount_percent", "0")),
        _limits(params),
    )


def _limits(params: Case) -> Limits:
    least, most = params.get("min_spend"), params.get("max_spend")
    return Limits(None if least is None else _femto(least), None if most is None else _femto(most))


def _tiered(case: Case) -> Tiered:
    usual = "first_tier" if case["peer"] in ALWAYS_FIRST_FLAT_FEE else "none"
    zero = case["params"].get("zero_usage_flat_fee", usual)
    return Tiered(tuple(map(_tier, case["tiers"])), case["model"].startswith("volume"), zero == "first_tier")


def _tier(tier: Case) -> Tier:
    up_to = tier.get("up_to")
    price = Fraction(tier["percent"]) * Fraction(1, 100) if "percent" in tier else Fraction(tier.get("unit_price", "0"))
    return Tier(None if up_to is None else Fraction(up_to), price * FEMTO, _femto(tier.get("flat_fee") or "0"))


def _blocks(case: Case) -> Blocks:
    tiers = [
        BlockTier(
            Fraction(tier["block_size"]),
            _femto(tier["block_price"]),
            None if tier.get("max_blocks") is None else int(tier["max_blocks"]),
        )
        for tier in case["tiers"]
    ]
    whole = case["model"] == "volume_blocks"
    if tiers[-1].blocks_max is not None:
        # That system charges nothing for what is above the last tier; by volume the last tier has no end.
        if whole:
            tiers[-1] = replace(tiers[-1], blocks_max=None)
        else:
            tiers.append(BlockTier(Fraction(1), Fraction(0)))
    return Blocks(tuple(tiers), whole)


def _packages(params: Case) -> Packages:
    return Packages(
        Fraction(params["package_size"]),
        _femto(params.get("package_price", "0")),
        Fraction(params.get("free_units", "0")),
        "free" if params.get("package_rounding", "up") == "down" else "whole",
    )


def _percentage(case: Case) -> Percentage:
    params = case["params"]
    free_events = params.get("free_events") or None
    free_amount = Fraction(params.get("free_amount") or 0) or None
    firsts = params.get("running_total_of_first_events")
    if free_amount and firsts:  # the first events are the ones that can be free
        free_events = min(free_events or len(firsts), len(firsts))
    bounds = [params.get(name) for name in ("per_event_min", "per_event_max")]
    least, most = (None if bound is None else _femto(bound) for bound in bounds)
    fee = _femto(params.get("fixed_amount_per_event") or "0")
    # An estimate is of one event that is there; a bill without usage has no fees.
    estimate = "estimate_instant" in case["file"]
    return Percentage(Fraction(params["percent"]), fee, free_events, free_amount, least, most, estimate)


def _event_amounts(case: Case) -> list[Fraction]:
    """The amounts of the events; where only the first sums are given, the rest of the quantity is in the last."""
    params = case["params"]
    if "event_amounts" in params:
        return list(map(Fraction, params["event_amounts"]))
    sums = list(map(Fraction, params.get("running_total_of_first_events", ())))
    amounts = [after - before for before, after in zip([Fraction(0), *sums], sums, strict=False)]
    count = params.get("events_count", 1)
    amounts += [Fraction(0)] * (count - len(amounts))
    if amounts:
        amounts[-1] += _quantity(case) - sum(amounts)
    return amounts


def _dynamic(case: Case) -> Tiered:
    """Usage that comes with its own price: what counts is the amount, times a factor."""
    params = case["params"]
    if "precise_total_cents" in params:
        quantity = _quantity(case)
        total = _femto(params["precise_total_cents"]) / 10 ** minor_digits(case["currency"] or "")
        return Tiered((Tier(None, Fraction(total, quantity) if quantity else Fraction(0)),))
    return Tiered((Tier(None, _femto(params["multiplier"])),))


_MODELS: Mapping[str, Callable[[Case], Any]] = {
    "per_unit": lambda case: Tiered((Tier(None, _femto(case["params"]["unit_price"])),)),
    "package": lambda case: _packages(case["params"]),
    "graduated": _tiered,
    "volume": _tiered,
    "graduated_percentage": _tiered,
    "volume_percentage": _tiered,
    "graduated_blocks": _blocks,
    "volume_blocks": _blocks,
    "percentage": _percentage,
    "dynamic": _dynamic,
    "flat": lambda case: Flat(_femto(case["params"]["amount"])),
}


def _conversion(params: Case) -> Conversion:
    factor = Fraction(params["factor"])
    factor = 1 / factor if params["op"] == "divide" else factor
    return Conversion(factor, rule_of(params.get("rounding") or "none"), int(params.get("precision", 0)))


def _usage_discount_of(params: Case) -> UsageDiscount | None:
    percent = params.get("usage_discount_percent")
    tiers = [{"up_to": None, "percent": percent}] if percent else params.get("usage_discount_tiers", [])
    if "usage_discount_quantity" not in params and not tiers:
        return None
    return UsageDiscount(
        Fraction(params.get("usage_discount_quantity", "0")),
        tuple(
            DiscountTier(None if tier["up_to"] is None else Fraction(tier["up_to"]), Fraction(tier["percent"]))
            for tier in tiers
        ),
    )


def _held_rows(params: Case) -> list[HeldRow]:
    both = zip(params["event_quantities"], params["event_prorated_quantities"], strict=True)
    return [HeldRow(Fraction(quantity), Fraction(priced)) for quantity, priced in both]


def _quantity(case: Case) -> Fraction:
    return Fraction(case["quantity"] or "0")


def _femto(amount: str) -> Fraction:
    return Fraction(amount) * FEMTO


def _units(femto: int) -> Fraction:
    return Fraction(femto, FEMTO)
