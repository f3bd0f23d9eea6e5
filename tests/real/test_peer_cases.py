"""Goal: plans charge what other billing systems charge, where our rules say the same, on their own test cases.

Method: every case of KINDS goes through `outcome_of`, which knows rules and not cases; amounts are compared exactly,
and so are the lines and steps that a case states.
"""

import json
from collections import Counter
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import pytest

from flow.plans.lines import FEMTO, Line

from .peer_cases import KINDS, Case, agrees, outcome_of

CASES = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "peer_pricing_cases.json"


def cases() -> list[Case]:
    if not CASES.exists():
        return []
    return [case for case in json.loads(CASES.read_text(encoding="utf-8"))["cases"] if case["kind"] in KINDS]


pytestmark = pytest.mark.skipif(not CASES.exists(), reason="the cases of peers are not on this machine")


def test_there_are_cases_to_try() -> None:
    assert len(cases()) > 50


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
