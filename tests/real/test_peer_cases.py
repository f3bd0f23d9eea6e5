"""Goal: plans charge what other billing systems charge, where our rules say the same, on their own test cases.

Method: every case of KINDS goes through `outcome_of`, which knows rules and not cases; amounts are compared exactly,
and so are the lines and steps that a case states. `PEER_CASES=FILE pytest tests/real/test_peer_cases.py` tries another
file of the same form. A few cases that are made up stand for rules of which no case is at hand.
"""

import json
import os
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest

from flow.plans.lines import FEMTO, Line

from .peer_cases import KINDS, Case, agrees, outcome_of

USUAL_CASES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "peer_pricing_cases.json"
CASES = Path(os.environ.get("PEER_CASES", USUAL_CASES))


def cases() -> list[Case]:
    if not CASES.exists():
        return []
    return [case for case in json.loads(CASES.read_text(encoding="utf-8"))["cases"] if case["kind"] in KINDS]


here = pytest.mark.skipif(not CASES.exists(), reason="the cases of peers are not on this machine")


@here
def test_there_are_cases_to_try() -> None:
    assert cases()


@here
@pytest.mark.parametrize("case", cases(), ids=lambda case: case["id"])
def test_a_case_of_a_peer(case: Case) -> None:
    outcome = outcome_of(case)
    assert outcome.error == case.get("expected_error")
    if outcome.error is None:
        assert outcome.amount is not None
        assert agrees(outcome.amount, case["expected_amount"])
    if "expected_lines" in case and outcome.error is None:
        assert parts(outcome.lines) == stated(case["expected_lines"])
    for step, ours in zip(case.get("steps", ()), outcome.steps, strict=True):
        assert Fraction(ours.amount_femto, FEMTO) == Fraction(step["expected_amount"])
        if case["model"] != "dynamic":  # whose lines are amounts, and so never of the same price
            assert parts(ours.lines) == stated(step["lines"])


def parts(lines: Iterable[Line]) -> Counter[tuple[Fraction, ...]]:
    """(what is charged, discount, credit) of each line that has any, in currency units."""
    found = [
        tuple(Fraction(number, FEMTO) for number in (each.amount_femto, each.discount_femto, each.credit_femto))
        for each in lines
    ]
    return Counter(part for part in found if any(part))


def stated(lines: Iterable[Case]) -> Counter[tuple[Fraction, ...]]:
    found = [
        (
            Fraction(each.get("total", each.get("amount", "0"))),
            Fraction(each.get("discounts", "0")),
            Fraction(each.get("credits", "0")),
        )
        for each in lines
    ]
    return Counter(part for part in found if any(part))


TIERS = [
    {"up_to": "10", "unit_price": "1", "flat_fee": "5"},
    {"up_to": "20", "unit_price": "0.333", "flat_fee": "7"},
    {"up_to": None, "unit_price": "0.1", "flat_fee": "0"},
]


@pytest.mark.parametrize(
    ("case", "amount"),
    [
        # 30 units are free, of which 20 were used before: 15 - 10 are billed.
        ({"kind": "usage_discount", "params": {"usage_discount_quantity": "30", "previous_quantity": "20"}}, 5),
        ({"kind": "usage_discount", "params": {"usage_discount_percent": "40"}}, 9),
        (
            {
                "kind": "usage_discount",
                "params": {
                    "usage_discount_quantity": "1",
                    "usage_discount_tiers": [{"up_to": "10", "percent": "50"}, {"up_to": None, "percent": "100"}],
                },
            },
            5,
        ),
        (
            {
                "kind": "usage_discount",
                "model": "per_unit",
                "params": {"unit_price": "2", "usage_discount_percent": "40"},
            },
            18,
        ),
        # From 8 to 23 in the middle of a period: 2 x 1 + 7 + 10 x 0.333 + 3 x 0.1, the lines rounded up in all.
        (
            {
                "model": "graduated",
                "tiers": TIERS,
                "currency": "JPY",
                "rounding": "ceiling to currency scale, per line",
                "params": {"line_position": "mid", "previous_quantity": "8"},
            },
            2 + 7 + 4 + 1,
        ),
        # The first fee belongs to the first bill; what was billed before counts towards the maximum.
        (
            {
                "peer": "openmeter",
                "model": "graduated",
                "tiers": TIERS,
                "params": {"line_position": "last", "max_spend": "12", "previous_billed_amount": "5"},
            },
            7,
        ),
        # Each bill converts its own: 1.4 thousands are 2, and those of before were 2 as well.
        (
            {
                "model": "graduated",
                "tiers": [{"up_to": "3", "unit_price": "10"}, {"up_to": None, "unit_price": "1"}],
                "quantity": "1400",
                "params": {
                    "line_position": "last",
                    "previous_quantity": "1400",
                    "unit_conversion": {"op": "divide", "factor": "1000", "rounding": "ceiling"},
                },
            },
            11,
        ),
        # Above the last tier of blocks.
        (
            {"model": "graduated_blocks", "tiers": [{"block_size": "4", "max_blocks": "2", "block_price": "3"}]},
            6,
        ),
        ({"model": "volume_blocks", "tiers": [{"block_size": "4", "max_blocks": "2", "block_price": "3"}]}, 12),
    ],
)
def test_a_rule_of_which_no_case_is_at_hand(case: Case, amount: int) -> None:
    usual = {"id": "made-up", "kind": "rate", "model": "usage_discount", "quantity": "15"}
    assert outcome_of({**usual, **case}).amount == amount


@pytest.mark.parametrize(
    ("ours", "expected", "equal"),
    [
        (Fraction(1, 3), "0.3333", True),
        (Fraction(1, 3), "0.33", True),
        (Fraction(1, 3), "0.334", False),
        (Fraction(333, 1000), "0.33", False),
        (Fraction(3, 10), "0.30", True),
    ],
)
def test_only_what_has_no_end_is_compared_by_its_digits(ours: Fraction, expected: str, equal: bool) -> None:
    assert agrees(ours, expected) is equal


def test_what_is_not_known_is_refused_and_not_half_read() -> None:
    case = {"id": "x", "kind": "rate", "model": "flat", "params": {"amount": "1", "surcharge": "2"}}
    with pytest.raises(ValueError, match="surcharge"):
        outcome_of(case)
    with pytest.raises(ValueError, match="not known here"):
        outcome_of({**case, "params": {"amount": "1"}, "model": "flet"})
