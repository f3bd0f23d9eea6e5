"""Goal: a plan charges what it says, at every edge; and whatever is split adds up, exactly.

Method: every model against the oracle, which walks usage slice by slice, on tiers, quantities and prices (thirds and
sevenths among them) that hypothesis makes up; then tables for the edges and the rules that are a choice.
"""

import math
from collections.abc import Callable, Sequence
from decimal import ROUND_CEILING, ROUND_FLOOR, ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.errors import ConfigError, OverflowStop, PlanError
from flow.plans.events import Percentage
from flow.plans.lines import (
    FEMTO,
    INT128_MAX,
    Limits,
    Rounding,
    amount_of,
    by_tier,
    charged,
    credited,
    line,
)
from flow.plans.models import Blocks, BlockTier, Flat, Packages, Tier, Tiered
from flow.plans.plan import Accumulate, Charge, Plan
from flow.plans.prorating import HeldRow, held_lines
from flow.plans.quantities import Conversion, DiscountTier, UsageDiscount
from flow.plans.rating import Rating, Use, rate, rate_change, rate_periods
from flow.plans.splitting import split_by_quantity, split_in_order
from flow.rounding import RoundingRule

from ..oracle import plans as oracle

M = 10**6


def money(amount: str | int | Fraction) -> Fraction:
    return Fraction(amount) * FEMTO


def plan(model: Any, accumulate: Accumulate = "period", rounding: Rounding | None = None, **terms: Any) -> Plan:
    """A plan of one charge, on the meter `m`."""
    return Plan("p", "USD", (Charge("m", model, **terms),), accumulate, rounding or Rounding())


def cost(model: Any, quantity: str | int | Fraction, **terms: Any) -> Fraction:
    """In currency units, exactly."""
    return Fraction(rate(plan(model, **terms), {"m": Fraction(quantity)}).exact_femto, FEMTO)


def amounts(ratings: Sequence[Rating]) -> list[Fraction]:
    return [Fraction(rating.amount_femto, FEMTO) for rating in ratings]


SEED = Tiered(
    (
        Tier(Fraction(10 * M), money(5) / M),
        Tier(Fraction(100 * M), money(4) / M),
        Tier(None, money(3) / M),
    )
)


@pytest.mark.parametrize(("accumulate", "second"), [("contract", Fraction("390.20")), ("period", Fraction("410.00"))])
def test_whether_tiers_run_on_is_a_property_of_the_plan(accumulate: Accumulate, second: Fraction) -> None:
    """Given 9.9 M tokens in month one and 100 M in month two;
    when tiers accumulate over the contract, or start again each month;
    then month two costs 390.20 or 410.00."""
    months = rate_periods(plan(SEED, accumulate), [{"m": 9_900_000}, {"m": 100 * M}])
    assert amounts(months) == [Fraction("49.50"), second]
    if accumulate == "contract":
        in_tiers = [money("0.50"), money(360), money("29.70")]
        assert by_tier(months[1].lines) == {("m", n): amount for n, amount in enumerate(in_tiers, 1)}


# ---- Every model against the oracle ----

FEWER = settings(max_examples=40)
"""Of what costs many ratings an example."""

QUANTITIES = st.one_of(
    st.integers(0, 40).map(Fraction), st.fractions(0, 40, max_denominator=4), st.fractions(0, 12, max_denominator=7)
)
PRICES = st.one_of(st.integers(0, 9).map(Fraction), st.fractions(0, 3, max_denominator=12))
BOUNDS = st.lists(st.fractions(Fraction(1, 4), 30, max_denominator=4), unique=True, max_size=4).map(sorted)


@st.composite
def tier_rows(draw: st.DrawFn) -> list[oracle.Row]:
    bounds = [*draw(BOUNDS), None]
    return [(bound, draw(PRICES), draw(PRICES)) for bound in bounds]


def tiered(rows: Sequence[oracle.Row], whole: bool = False, zero_usage_flat_fee: bool = False) -> Tiered:
    tiers = tuple(Tier(up_to, money(price), money(flat)) for up_to, price, flat in rows)
    return Tiered(tiers, whole, zero_usage_flat_fee)


@st.composite
def block_rows(draw: st.DrawFn) -> list[oracle.Block]:
    many: list[int | None] = draw(st.lists(st.integers(1, 4), max_size=3))
    sizes = st.fractions(Fraction(1, 2), 9, max_denominator=3)
    return [(draw(sizes), draw(PRICES), most) for most in (*many, None)]


@given(tier_rows(), QUANTITIES, st.booleans())
def test_graduated(rows: list[oracle.Row], quantity: Fraction, zero: bool) -> None:
    model = tiered(rows, zero_usage_flat_fee=zero)
    assert cost(model, quantity) == oracle.graduated(rows, quantity, zero)
    assert sum(each.quantity for each in model.lines(quantity) if each.kind == "usage") == quantity


@given(tier_rows(), QUANTITIES, st.booleans())
def test_volume(rows: list[oracle.Row], quantity: Fraction, zero: bool) -> None:
    assert cost(tiered(rows, True, zero), quantity) == oracle.volume(rows, quantity, zero)


@given(
    st.fractions(Fraction(1, 3), 9, max_denominator=3),
    PRICES,
    st.fractions(0, 5, max_denominator=2),
    QUANTITIES,
    st.booleans(),
)
def test_packages(size: Fraction, price: Fraction, free: Fraction, quantity: Fraction, whole: bool) -> None:
    model = Packages(size, money(price), free, "whole" if whole else "free")
    assert cost(model, quantity) == oracle.packages(size, price, free, quantity, whole)


@given(block_rows(), QUANTITIES)
def test_blocks(rows: list[oracle.Block], quantity: Fraction) -> None:
    tiers = tuple(BlockTier(size, money(price), most) for size, price, most in rows)
    assert cost(Blocks(tiers), quantity) == oracle.graduated_blocks(rows, quantity)
    assert cost(Blocks(tiers, whole=True), quantity) == oracle.volume_blocks(rows, quantity)


@given(
    st.fractions(0, 9, max_denominator=2),
    BOUNDS,
    st.lists(st.integers(0, 100).map(Fraction), min_size=5, max_size=5),
    st.booleans(),
    QUANTITIES,
)
def test_usage_discounts(
    first: Fraction, bounds: list[Fraction], percents: list[Fraction], unbounded: bool, quantity: Fraction
) -> None:
    rows = list(zip([*bounds, *([None] if unbounded else [])], percents, strict=False))
    discount = UsageDiscount(first, tuple(DiscountTier(up_to, percent) for up_to, percent in rows))
    assert discount.apply(quantity) == oracle.discounted_usage(first, rows, quantity)


# ---- What always holds ----

MODELS = st.one_of(
    tier_rows().map(tiered),
    tier_rows().map(lambda rows: tiered(rows, True, True)),
    st.just(Packages(Fraction(7, 2), money("0.35"), Fraction(2))),
    block_rows().map(lambda rows: Blocks(tuple(BlockTier(a, money(b), c) for a, b, c in rows))),
)
ROUNDINGS = st.builds(
    Rounding,
    st.sampled_from(["half-even", "half-up", "ceil", "floor"]),
    st.sampled_from([0, 2, 15]),
    st.sampled_from(["line", "total"]),
)
LIMITS = st.sampled_from([Limits(), Limits(money(5), money(60)), Limits(None, money("9.99")), Limits(money("0.005"))])
TERMS = st.fixed_dictionaries(
    {
        "conversion": st.sampled_from([None, Conversion(Fraction(1, 3)), Conversion(Fraction(1, 3), "ceil", 1)]),
        "usage_discount": st.sampled_from([None, UsageDiscount(Fraction(3))]),
        "discount_percent": st.sampled_from([Fraction(0), Fraction(15)]),
        "limits": LIMITS,
    }
)
CORRECTIONS = st.lists(st.integers(-15, 25), min_size=1, max_size=6)
"""Usage of rows or periods; below 0 takes back."""


@given(tier_rows(), st.booleans(), LIMITS, st.booleans(), st.sampled_from([0, 15, 100]), ROUNDINGS, QUANTITIES)
def test_a_whole_bill(
    rows: list[oracle.Row],
    whole: bool,
    limits: Limits,
    of_plan: bool,
    percent: int,
    rounding: Rounding,
    quantity: Fraction,
) -> None:
    """Thirds of a unit are converted and rounded up, each part is charged, discounted, capped, topped up and rounded;
    in steps it comes to the same."""
    conversion, converted = Conversion(Fraction(1, 3), "ceil", 1), Fraction(math.ceil(quantity / 3 * 10), 10)
    charge = Charge(
        "m",
        tiered(rows, whole),
        conversion,
        discount_percent=Fraction(percent),
        limits=Limits() if of_plan else limits,
    )
    contract = Plan("p", "USD", (charge,), "contract", rounding, limits if of_plan else Limits())
    unit = Fraction(1, 10**rounding.digits)
    least, most = (None if femto is None else femto / FEMTO for femto in (limits.minimum_femto, limits.maximum_femto))
    wanted = oracle.bill(
        oracle.parts(rows, converted, whole),
        Fraction(percent),
        least,
        most,
        lambda amount: oracle.ROUNDED[rounding.rule](amount / unit) * unit,
        rounding.at == "line",
    )
    assert amounts([rate(contract, {"m": quantity})]) == [wanted]
    steps = rate_periods(contract, [{"m": quantity / 4}, {"m": quantity / 2}, {"m": quantity / 4}])
    assert sum(amounts(steps)) == wanted


@FEWER
@given(MODELS, TERMS, ROUNDINGS, CORRECTIONS)
def test_bills_of_a_contract_add_up_to_the_charge_of_the_whole(
    model: Any, terms: dict[str, Any], rounding: Rounding, uses: list[int]
) -> None:
    contract = plan(model, "contract", rounding, **terms)
    bills = rate_periods(contract, [{"m": use} for use in uses])
    assert sum(bill.amount_femto for bill in bills) == rate(contract, {"m": sum(uses)}).amount_femto
    assert all(bill.amount_femto == amount_of(bill.lines) == sum(by_tier(bill.lines).values()) for bill in bills)


@FEWER
@given(MODELS, TERMS, ROUNDINGS, CORRECTIONS)
def test_periods_that_start_again_are_rated_alone(
    model: Any, terms: dict[str, Any], rounding: Rounding, uses: list[int]
) -> None:
    periodic, contract = (plan(model, how, rounding, **terms) for how in ("period", "contract"))
    bills = rate_periods(periodic, [{"m": use} for use in uses])
    assert bills == [rate(periodic, {"m": use}) for use in uses]
    assert amounts(rate_periods(contract, [{"m": uses[0]}])) == amounts(bills[:1])


@FEWER
@given(MODELS, TERMS, ROUNDINGS, st.integers(0, 40))
def test_lines_add_up_and_the_remainder_is_what_rounding_took(
    model: Any, terms: dict[str, Any], rounding: Rounding, quantity: int
) -> None:
    rating = rate(plan(model, rounding=rounding, **terms), {"m": quantity})
    assert amount_of(rating.lines) == rating.amount_femto == rating.exact_femto - rating.remainder_femto
    unit = 10 ** (15 - rounding.digits)
    assert rating.amount_femto % unit == 0
    # A maximum, a discount and a minimum are rounded as well where each line is.
    most = (3 * len(rating.lines) + 3 if rounding.at == "line" else 1) * unit
    assert abs(rating.remainder_femto) <= most


@FEWER
@given(tier_rows(), st.lists(st.integers(0, 30), min_size=2, max_size=5).map(sorted))
def test_more_usage_never_costs_less_where_each_part_is_at_its_tier(rows: list[oracle.Row], uses: list[int]) -> None:
    costs = [cost(tiered(rows), use) for use in uses]
    assert all(less <= more for less, more in pairwise(costs))


@FEWER
@given(MODELS, TERMS, CORRECTIONS, st.randoms(use_true_random=False))
def test_the_order_of_rows_changes_no_total(model: Any, terms: dict[str, Any], uses: list[int], random: Any) -> None:
    contract = plan(model, "contract", **terms)
    shuffled = list(uses)
    random.shuffle(shuffled)
    both = [rate_periods(contract, [{"m": use} for use in order]) for order in (uses, shuffled)]
    assert sum(amounts(both[0])) == sum(amounts(both[1]))


@FEWER
@given(MODELS, TERMS, ROUNDINGS, CORRECTIONS, st.integers(0, 20))
def test_splits_over_rows_add_up(
    model: Any, terms: dict[str, Any], rounding: Rounding, uses: list[int], before: int
) -> None:
    contract = plan(model, "contract", rounding, **terms)
    bill = rate_change(contract, {"m": before}, {"m": before + sum(uses)})
    in_order = split_in_order(contract, [("m", use) for use in uses], bill.amount_femto, before={"m": before})
    assert sum(in_order) == sum(split_by_quantity(bill.amount_femto, uses)) == bill.amount_femto


# ---- Splits ----


def test_in_order_the_row_that_crosses_a_bound_pays_the_price_of_the_next_tier() -> None:
    model = tiered([(Fraction(5), Fraction(1), Fraction(0)), (None, Fraction(2), Fraction(100))])
    rows: list[tuple[str, Use]] = [("m", 4), ("m", 1), ("m", 1), ("m", -2)]
    amount_femto = rate(plan(model), {"m": 4}).amount_femto
    in_order = split_in_order(plan(model), rows, amount_femto)
    assert in_order == [money(4), money(1), money(102), money(-103)]
    assert split_by_quantity(amount_femto, [4, 1, 1, -2]) == [money(4), money(1), money(1), money(-2)]


def test_a_row_that_brings_all_units_into_a_cheaper_tier_bears_less_than_nothing() -> None:
    model = tiered([(Fraction(15), Fraction(10), Fraction(0)), (None, Fraction(5), Fraction(0))], whole=True)
    rating = rate_change(plan(model), {"m": 15}, {"m": 16})
    assert rating.amount_femto == money(-70)
    assert [(each.tier, each.quantity, each.amount_femto) for each in rating.lines] == [
        (1, -15, money(-150)),
        (2, 16, money(80)),
    ]
    assert split_in_order(plan(model), [("m", 15), ("m", 1)], int(money(80))) == [money(150), money(-70)]


def test_shares_by_quantity_lose_nothing() -> None:
    assert split_by_quantity(100, [1, 1, 1]) == [34, 33, 33]
    assert split_by_quantity(7, [0, 0]) == [4, 3]
    assert split_by_quantity(0, []) == []
    with pytest.raises(ValueError, match="no parts"):
        split_by_quantity(1, [])


def test_what_no_row_caused_is_spread_by_what_they_cost() -> None:
    contract = plan(SEED, limits=Limits(minimum_femto=money(100)))
    amount_femto = rate(contract, {"m": 3 * M}).amount_femto
    assert amount_femto == money(100)
    assert split_in_order(contract, [("m", 1 * M), ("m", 2 * M)], amount_femto) == [
        33333333333333333,
        66666666666666667,
    ]


# ---- Edges ----

STEPS = [
    (Fraction(5), Fraction(1), Fraction(100)),
    (Fraction(10), Fraction(2), Fraction(200)),
    (None, Fraction(3), Fraction(0)),
]


@pytest.mark.parametrize(
    ("quantity", "graduated", "volume"),
    [
        ("-4", 0, 0),
        ("0", 0, 0),
        ("0.001", "100.001", "100.001"),
        ("5", "105", "105"),
        ("5.001", "305.002", "210.002"),
        ("10", "315", "220"),
        ("10.001", "315.003", "30.003"),
        (2**70, 3 * 2**70 + 285, 3 * 2**70),
    ],
)
def test_a_bound_belongs_to_the_tier_below_it(quantity: str, graduated: str, volume: str) -> None:
    assert cost(tiered(STEPS), quantity) == Fraction(graduated)
    assert cost(tiered(STEPS, whole=True), quantity) == Fraction(volume)


@pytest.mark.parametrize("whole", [False, True])
def test_without_usage_the_first_flat_fee_is_due_where_the_plan_says_so(whole: bool) -> None:
    assert cost(tiered(STEPS, whole, zero_usage_flat_fee=True), 0) == 100
    assert cost(tiered(STEPS, whole, zero_usage_flat_fee=True), 1) == 101
    assert cost(tiered(STEPS, whole), 0) == 0


def test_a_stair_step_costs_the_step_and_nothing_a_unit() -> None:
    steps = tiered([(Fraction(10), Fraction(0), Fraction(7)), (None, Fraction(0), Fraction(9))], whole=True)
    assert [cost(steps, quantity) for quantity in (0, 1, 10, 11, 1000)] == [0, 7, 7, 9, 9]


def test_a_correction_gives_back_what_its_units_cost_and_the_fee_of_the_tier_that_is_left() -> None:
    bills = rate_periods(plan(tiered(STEPS), "contract"), [{"m": 7}, {"m": -3}, {"m": -9}, {"m": 5}])
    assert amounts(bills) == [309, -205, -104, 0]
    assert by_tier(bills[1].lines) == {("m", 1): money(-1), ("m", 2): money(-204)}


def test_usage_above_a_last_tier_with_a_bound_is_refused_and_not_dropped() -> None:
    closed = tiered([(Fraction(5), Fraction(1), Fraction(0))])
    assert cost(closed, 5) == 5
    blocks = Blocks((BlockTier(Fraction(10), money(1), 2),))
    assert cost(blocks, 20) == 2
    for model, quantity in ((closed, "5.01"), (blocks, "20.01"), (Blocks(blocks.tiers, whole=True), "20.01")):
        with pytest.raises(PlanError, match="is above the last tier"):
            cost(model, quantity)


@pytest.mark.parametrize(
    ("quantity", "packages"), [("-1", 0), ("0", 0), ("1", 0), ("1.01", 1), ("11", 1), ("11.5", 2), ("21", 2)]
)
def test_free_units_come_off_before_packages_are_counted(quantity: str, packages: int) -> None:
    assert cost(Packages(Fraction(10), money(15), Fraction(1)), quantity) == 15 * packages


def test_a_quantity_or_an_amount_beyond_128_bits_stops() -> None:
    per_unit = tiered([(None, Fraction(1), Fraction(0))])
    assert cost(tiered([(None, Fraction(0), Fraction(1))]), INT128_MAX) == 1
    with pytest.raises(OverflowStop, match="quantity"):
        cost(per_unit, INT128_MAX + 1)
    assert cost(per_unit, INT128_MAX // FEMTO) == INT128_MAX // FEMTO
    with pytest.raises(OverflowStop, match="amount"):
        cost(per_unit, INT128_MAX // FEMTO + 1)


@pytest.mark.parametrize("use", [0.5, "15", Decimal("0.5"), ["1"]])
def test_only_exact_numbers_are_quantities(use: Any) -> None:
    with pytest.raises(PlanError, match="neither a whole number nor a Fraction"):
        rate(plan(SEED), {"m": use})


def test_usage_that_the_plan_says_nothing_of_is_refused() -> None:
    with pytest.raises(PlanError, match="no charge for n; it has one for m"):
        rate(plan(SEED), {"n": 1})
    with pytest.raises(PlanError, match="amounts of events are for a percentage"):
        rate(plan(SEED), {"m": [1, 2]})


# ---- Rates and quantities without an end ----


def test_a_price_of_a_twelfth_is_exact_and_its_remainder_is_kept() -> None:
    twelfths = plan(Tiered((Tier(None, money(1) / (12 * M)),)), "contract")
    bills = rate_periods(twelfths, [{"m": 5}, {"m": 7}, {"m": 12 * M - 12}])
    assert bills[0].exact_femto == Fraction(FEMTO * 5, 12 * M)
    assert bills[0].remainder_femto == Fraction(FEMTO * 5, 12 * M) - 416_666_667
    assert sum(bill.amount_femto for bill in bills) == FEMTO


def test_a_third_of_a_unit_is_no_rounded_unit() -> None:
    model = tiered([(Fraction(1, 3), Fraction(3), Fraction(0)), (None, Fraction(30), Fraction(0))])
    assert cost(model, 1, conversion=Conversion(Fraction(1, 3))) == 1
    assert cost(model, 2, conversion=Conversion(Fraction(1, 3))) == 11


@pytest.mark.parametrize(
    ("rule", "digits", "billed"),
    [
        (None, 0, "1.45"),
        ("ceil", 0, "2"),
        ("floor", 0, "1"),
        ("half-up", 0, "1"),
        ("half-up", 1, "1.5"),
        ("half-even", 1, "1.4"),
        ("half-down", 1, "1.4"),
        ("ceil", 1, "1.5"),
        ("ceil", 2, "1.45"),
    ],
)
def test_units_are_converted_then_rounded(rule: RoundingRule | None, digits: int, billed: str) -> None:
    assert Conversion(Fraction(1, 1000), rule, digits).apply(Fraction(1450)) == Fraction(billed)


def test_conversion_comes_before_the_usage_discount_and_both_before_tiers() -> None:
    rating = rate(
        plan(
            tiered([(Fraction(2), Fraction(10), Fraction(0)), (None, Fraction(1), Fraction(0))]),
            conversion=Conversion(Fraction(1, 1000), "ceil"),
            usage_discount=UsageDiscount(Fraction(2)),
        ),
        {"m": 4001},
    )
    assert rating.billed == {"m": 3}
    assert rating.amount_femto == money(21)


def test_a_usage_discount_of_tiers_takes_off_each_part_its_percentage() -> None:
    half = UsageDiscount(tiers=(DiscountTier(Fraction(10), Fraction(0)), DiscountTier(None, Fraction(50))))
    assert [half.apply(Fraction(quantity)) for quantity in (-3, 0, 10, 12)] == [-3, 0, 10, 11]
    assert UsageDiscount(Fraction(5)).apply(Fraction(3)) == 0
    assert UsageDiscount(tiers=(DiscountTier(None, Fraction(100)),)).apply(Fraction(3)) == 0


# ---- Rounding ----

DECIMAL_RULES = {
    "half-even": ROUND_HALF_EVEN,
    "half-up": ROUND_HALF_UP,
    "ceil": ROUND_CEILING,
    "floor": ROUND_FLOOR,
}


@given(st.decimals(-1000, 1000, places=15), st.sampled_from(sorted(DECIMAL_RULES)), st.sampled_from([0, 2, 3]))
def test_rounding_is_that_of_decimals(amount: Decimal, rule: Any, digits: int) -> None:
    expected = amount.quantize(Decimal(1).scaleb(-digits), DECIMAL_RULES[rule])
    assert Rounding(rule, digits).nearest(money(Fraction(amount))) == money(Fraction(expected))


@pytest.mark.parametrize(("at", "expected"), [("line", "0.02"), ("total", "0.01")])
def test_each_line_or_their_total_is_rounded(at: Any, expected: str) -> None:
    """Given two tiers that cost half a cent each; then by line each is rounded up, in total there is nothing to."""
    rows = [(Fraction(1), Fraction("0.005"), Fraction(0)), (None, Fraction("0.005"), Fraction(0))]
    rating = rate(plan(tiered(rows), rounding=Rounding("half-up", 2, at)), {"m": 2})
    assert rating.amount_femto == money(expected)
    assert rating.exact_femto == money("0.01")
    assert amount_of(rating.lines) == rating.amount_femto


def test_bills_that_are_rounded_do_not_drift() -> None:
    """Given a cost of 0.333 a period; then the second bill is 0.34, because 0.33 of 0.666 was billed."""
    rounding = Rounding("half-up", 2)
    bills = rate_periods(plan(tiered([(None, Fraction("0.001"), Fraction(0))]), "contract", rounding), [{"m": 333}] * 3)
    assert amounts(bills) == [Fraction("0.33"), Fraction("0.34"), Fraction("0.33")]


# ---- Discounts, limits, credits ----


def test_the_discount_comes_before_the_maximum_and_the_maximum_before_the_minimum() -> None:
    per_unit = tiered([(None, Fraction(10), Fraction(0))])
    terms: dict[str, Any] = {"discount_percent": Fraction(50), "limits": Limits(money(20), money(25))}
    assert [cost(per_unit, quantity, **terms) for quantity in (0, 3, 5, 6)] == [20, 20, 25, 25]
    rating = rate(plan(per_unit, **terms), {"m": 6})
    assert [(each.gross_femto, each.discount_femto) for each in rating.lines] == [(money(60), money(35))]


def test_the_maximum_comes_off_the_last_lines() -> None:
    rating = rate(plan(tiered(STEPS), limits=Limits(None, money(300))), {"m": 10})
    charges = [(each.kind, each.tier, Fraction(each.amount_femto, FEMTO)) for each in rating.lines]
    assert charges == [("usage", 1, 5), ("flat", 1, 100), ("usage", 2, 10), ("flat", 2, 185)]


def test_a_minimum_is_due_when_the_span_has_ended() -> None:
    least = plan(tiered([(None, Fraction(10), Fraction(0))]), "contract", limits=Limits(money(100)))
    assert amounts(rate_periods(least, [{"m": 2}, {}, {"m": 3}])) == [20, 0, 80]
    assert amounts(rate_periods(least, [{"m": 2}, {}, {"m": 3}], ended=False)) == [20, 0, 30]
    assert amounts(rate_periods(least, [{"m": 20}])) == [200]
    assert amounts(rate_periods(least, [{"m": Fraction("9.9999")}, {}])) == [Fraction("99.999"), Fraction("0.001")]


def test_the_limits_of_a_plan_hold_over_all_its_charges() -> None:
    one, two = (tiered([(None, Fraction(price), Fraction(0))]) for price in (1, 2))
    charges = (Charge("a", one, limits=Limits(money(10))), Charge("b", two))
    both = Plan("p", "USD", charges, "period", limits=Limits(money(20), money(30)))
    found = [rate(both, usage).amount_femto for usage in ({}, {"a": 5, "b": 8}, {"b": 100})]
    assert found == [money(20), money(26), money(30)]


def test_credits_are_taken_from_the_first_line_on() -> None:
    lines = [line("flat", 1, Fraction(1), money(100)), line("flat", 2, Fraction(1), money(50))]
    paid = charged(credited(lines, [int(money(75))] * 2, Rounding()), Rounding())
    assert [each.credit_femto for each in paid] == [money(100), money(50)]
    assert amount_of(paid) == 0
    with pytest.raises(PlanError, match="more than the charge"):
        credited(lines, [int(money(75)), int(money(75)) + 1], Rounding())


# ---- Percentages and what is held ----


def of_events(model: Percentage, *event_amounts: str | int) -> Fraction:
    rating = rate(plan(model), {"m": [Fraction(amount) for amount in event_amounts]})
    return Fraction(rating.exact_femto, FEMTO)


def test_free_events_are_the_first_ones_as_long_as_the_free_amount_lasts() -> None:
    events = (50, 100, 250, 400)
    terms = {"percent": Fraction(1), "fee_femto": money(2)}
    assert of_events(Percentage(**terms), *events) == 8 + 8
    assert of_events(Percentage(**terms, free_events=3), *events) == 4 + 2
    assert of_events(Percentage(**terms, free_events=9), *events) == 0
    assert of_events(Percentage(**terms, free_amount=Fraction(250)), *events) == Fraction("5.5") + 4
    assert of_events(Percentage(**terms, free_events=1, free_amount=Fraction(250)), *events) == Fraction("7.5") + 6
    assert of_events(Percentage(**terms, free_events=3, free_amount=Fraction(100)), *events) == 7 + 6


def test_an_event_that_reaches_the_free_amount_owes_its_fee() -> None:
    model = Percentage(Fraction(1), money(2), free_amount=Fraction(150))
    assert of_events(model, 50, 99) == 0
    assert of_events(model, 50, 100) == 2
    assert of_events(model, 50, 101) == Fraction("2.01")


def test_bounds_hold_for_each_paid_event() -> None:
    model = Percentage(Fraction(10), money(1), free_events=1, min_femto=money(3), max_femto=money(5))
    assert of_events(model, 100, 0, 30, 100) == 3 + 4 + 5
    assert of_events(model) == of_events(model, 5) == of_events(model, 5, -6) == 0
    rating = rate(plan(model), {"m": [Fraction(1), Fraction(100)]})
    assert {each.kind: each.amount_femto for each in rating.lines} == {
        "usage": money(10),
        "fee": money(1),
        "bounds": money(-6),
    }


def test_a_sum_is_enough_for_a_percentage_alone() -> None:
    assert cost(Percentage(Fraction("2.9")), 4) == Fraction("0.116")
    assert cost(Percentage(Fraction("2.9")), -4) == 0
    assert cost(Percentage(Fraction(3), money(1)), 0) == 0
    with pytest.raises(PlanError, match="need the amount of each event"):
        cost(Percentage(Fraction(3), money(1)), 4)
    with pytest.raises(PlanError, match="give it one way"):
        rate_periods(plan(Percentage(Fraction(3)), "contract"), [{"m": 4}, {"m": [4]}])


def test_what_is_held_is_placed_by_its_quantity_and_priced_by_its_share_of_the_period() -> None:
    model = tiered([(Fraction(5), Fraction(10), Fraction(100)), (None, Fraction(5), Fraction(50))])

    def held(*rows: tuple[str, str]) -> Fraction:
        lines = held_lines(model, [HeldRow(Fraction(a), Fraction(b)) for a, b in rows])
        return Fraction(sum(each.gross_femto for each in lines), FEMTO)

    assert held() == 0
    assert held(("10", "5")) == Fraction("25") + Fraction("12.5") + 150
    assert held(("4", "2"), ("1", "0.5")) == 25 + 100
    assert held(("10", "5"), ("-10", "-5")) == 150
    assert held(("4", "2"), ("-5", "-1")) == 0
    assert held(("9", "0"), ("-9", "0"), ("1", "1")) == 110
    assert held(("1", "0.5"), ("-1", "-0.75")) == 100
    with pytest.raises(PlanError, match="not by volume"):
        held_lines(Tiered(model.tiers, whole=True), [])


def test_a_flat_fee_is_due_once_in_its_span() -> None:
    assert amounts(rate_periods(plan(Flat(money(9)), "contract"), [{}, {}])) == [9, 0]
    assert amounts(rate_periods(plan(Flat(money(9)), "period"), [{}, {}])) == [9, 9]


# ---- What cannot be ----


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Tiered(()), "at least one tier"),
        (lambda: Tiered((Tier(None), Tier(None))), "only the last tier is without bound"),
        (lambda: Tiered((Tier(Fraction(0)),)), "the first above 0"),
        (lambda: Tiered((Tier(Fraction(5)), Tier(Fraction(5)))), "above the one before"),
        (lambda: Tiered((Tier(None, Fraction(-1)),)), "not below 0"),
        (lambda: Packages(Fraction(0), Fraction(1)), "a size above 0"),
        (lambda: Blocks((BlockTier(Fraction(0), Fraction(1)),)), "a size above 0"),
        (lambda: Flat(Fraction(-1)), "not below 0"),
        (lambda: Percentage(Fraction(-1)), "below 0"),
        (lambda: Percentage(Fraction(1), min_femto=Fraction(2), max_femto=Fraction(1)), "not below the least"),
        (lambda: Conversion(Fraction(0)), "more than 0"),
        (lambda: UsageDiscount(Fraction(-1)), "no less than 0 units"),
        (lambda: UsageDiscount(tiers=(DiscountTier(None, Fraction(101)),)), "0 to 100 percent"),
        (lambda: Charge("m", SEED, discount_percent=Fraction(101)), "0 to 100 percent"),
        (lambda: Charge("m", SEED, limits=Limits(Fraction(2), Fraction(1))), "the minimum is not above the maximum"),
        (
            lambda: Charge("m", Percentage(Fraction(1), Fraction(1)), Conversion(Fraction(2))),
            "takes no conversion",
        ),
        (lambda: Plan("p", "USD", (), "period"), "at least one charge"),
        (lambda: Plan("p", "USD", (Charge("m", SEED), Charge("m", SEED)), "period"), "one for each meter"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(make: Callable[[], object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()
