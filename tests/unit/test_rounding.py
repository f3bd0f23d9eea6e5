"""Rounding against exact fractions."""

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.rounding import (
    RULES,
    RoundingRule,
    decimal_text,
    div_half_even,
    div_half_up,
    largest_remainder,
    minor_digits,
    share,
)

NUMBERS = st.integers(-(2**130), 2**130)
DIVISORS = st.one_of(st.integers(1, 12), st.sampled_from([10**13, 10**15, 10**12]), st.integers(1, 2**80))


@given(NUMBERS, DIVISORS)
def test_half_even_is_python_round_of_the_fraction(number: int, divisor: int) -> None:
    assert div_half_even(number, divisor) == round(Fraction(number, divisor))


@given(NUMBERS, DIVISORS)
def test_half_up_is_nearest_with_halves_away_from_zero(number: int, divisor: int) -> None:
    rounded, exact = div_half_up(number, divisor), Fraction(number, divisor)
    assert abs(rounded - exact) <= Fraction(1, 2)
    if abs(rounded - exact) == Fraction(1, 2):
        assert abs(rounded) > abs(exact)


@pytest.mark.parametrize(
    ("number", "even", "up"),
    [
        (5, 0, 1),
        (15, 2, 2),
        (25, 2, 3),
        (-5, 0, -1),
        (-15, -2, -2),
        (-25, -2, -3),
        (4, 0, 0),
        (6, 1, 1),
        (0, 0, 0),
    ],
)
def test_halves(number: int, even: int, up: int) -> None:
    assert (div_half_even(number, 10), div_half_up(number, 10)) == (even, up)


@pytest.mark.parametrize(
    ("rule", "tenths"),
    [
        ("half-even", {5: 0, 15: 2, -5: 0, -15: -2, 6: 1, -6: -1, 4: 0}),
        ("half-up", {5: 1, 15: 2, -5: -1, -15: -2, 6: 1, -6: -1, 4: 0}),
        ("half-down", {5: 0, 15: 1, -5: 0, -15: -1, 6: 1, -6: -1, 4: 0}),
        ("ceil", {1: 1, 9: 1, 10: 1, -1: 0, -9: 0, -10: -1, 0: 0}),
        ("floor", {1: 0, 9: 0, 10: 1, -1: -1, -9: -1, -10: -1, 0: 0}),
        ("up", {1: 1, 9: 1, 10: 1, -1: -1, -9: -1, -10: -1, 0: 0}),
        ("down", {1: 0, 9: 0, 10: 1, -1: 0, -9: 0, -10: -1, 0: 0}),
    ],
)
def test_every_rule_by_name(rule: RoundingRule, tenths: dict[int, int]) -> None:
    assert {number: RULES[rule](number, 10) for number in tenths} == tenths


@given(st.sampled_from(sorted(RULES)), NUMBERS, DIVISORS)
def test_a_rule_gives_one_of_the_two_neighbours_and_leaves_what_is_whole(
    rule: RoundingRule, number: int, divisor: int
) -> None:
    exact = Fraction(number, divisor)
    assert RULES[rule](number, divisor) in (math.floor(exact), math.ceil(exact))
    assert RULES[rule](number * divisor, divisor) == number


PARTS = st.lists(st.fractions(-(10**6), 10**6, max_denominator=999), min_size=1, max_size=20)


@given(PARTS, st.integers(-(10**7), 10**7))
def test_a_share_adds_up_whatever_the_parts(parts: list[Fraction], total: int) -> None:
    assert sum(share(parts, total)) == total


@given(PARTS)
def test_a_share_of_the_sum_itself_is_each_part_rounded_down_or_up(parts: list[Fraction]) -> None:
    total = math.floor(sum(parts))
    shares = share([*parts, total - sum(parts)], total)
    assert all(part - 1 < own < part + 1 for part, own in zip(parts, shares, strict=False))


def test_a_share_gives_what_is_missing_to_the_largest_loss_and_the_earlier_on_a_tie() -> None:
    third = Fraction(1, 3)
    assert share([third, third, third], 1) == [1, 0, 0]
    assert share([Fraction(1, 10), Fraction(9, 10)], 1) == [0, 1]
    assert share([Fraction(100), Fraction(-99, 1) - Fraction(995, 1000)], 1) == [100, -99]
    assert share([Fraction(0), Fraction(0)], 3) == [2, 1]
    assert share([], 0) == []
    with pytest.raises(ValueError, match="no parts"):
        share([], 1)


@given(st.lists(st.integers(0, 2**130), min_size=1, max_size=20), NUMBERS)
def test_shares_add_up_and_are_their_proportion_rounded_down_or_up(numbers: list[int], total: int) -> None:
    shares = largest_remainder(numbers, total)
    assert sum(shares) == total
    if whole := sum(numbers):
        assert all(abs(share - Fraction(n * total, whole)) < 1 for share, n in zip(shares, numbers, strict=True))
        assert all(share == 0 for share, number in zip(shares, numbers, strict=True) if number == 0)


@given(st.lists(NUMBERS, max_size=20), NUMBERS)
def test_shares_add_up_whatever_the_signs(numbers: list[int], total: int) -> None:
    assert sum(largest_remainder(numbers, total)) == (total if numbers else 0)


def test_the_largest_remainder_gets_the_missing_unit_and_the_earlier_one_on_a_tie() -> None:
    assert largest_remainder([14, 17, 19], 5) == [1, 2, 2]
    assert largest_remainder([15, 15, 10], 4) == [2, 1, 1]
    assert largest_remainder([0, 0, 0], 0) == [0, 0, 0]
    assert largest_remainder([0, 1], 3) == [0, 3]
    assert largest_remainder([], 0) == []


@given(NUMBERS, st.integers(0, 20))
def test_decimal_text_is_exact(number: int, digits: int) -> None:
    assert Fraction(decimal_text(number, digits)) == Fraction(number, 10**digits)
    assert Fraction(decimal_text(number, digits, trim=True)) == Fraction(number, 10**digits)


@pytest.mark.parametrize(
    ("number", "digits", "text", "trimmed"),
    [
        (0, 2, "0.00", "0"),
        (-5, 2, "-0.05", "-0.05"),
        (1200, 2, "12.00", "12"),
        (7, 0, "7", "7"),
        (100, 0, "100", "100"),
    ],
)
def test_decimal_text(number: int, digits: int, text: str, trimmed: str) -> None:
    assert decimal_text(number, digits) == text
    assert decimal_text(number, digits, trim=True) == trimmed


def test_minor_digits_by_iso_4217() -> None:
    assert [minor_digits(currency) for currency in ("USD", "JPY", "KRW", "KWD", "CLF", "XTS")] == [
        2,
        0,
        0,
        3,
        4,
        2,
    ]
