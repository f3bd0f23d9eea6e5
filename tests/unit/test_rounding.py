"""Rounding against exact fractions."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.statements.rounding import (
    decimal_text,
    div_half_even,
    div_half_up,
    largest_remainder,
    minor_digits,
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
