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


@given(st.lists(NUMBERS, min_size=1, max_size=20), DIVISORS, st.sampled_from([div_half_even, div_half_up]))
def test_shares_add_up_and_are_rounded_down_or_up(numbers: list[int], divisor: int, rule) -> None:
    # given a total rounded by a rule, when it is shared out, then it adds up and no share is a unit off
    total = rule(sum(numbers), divisor)
    shares = largest_remainder(numbers, divisor, total)
    assert sum(shares) == total
    assert all(abs(share - Fraction(n, divisor)) < 1 for share, n in zip(shares, numbers, strict=True))


@given(st.lists(st.lists(NUMBERS, min_size=1, max_size=6), min_size=1, max_size=6), DIVISORS)
def test_shares_of_shares_add_up(groups: list[list[int]], divisor: int) -> None:
    totals = [sum(group) for group in groups]
    shares = largest_remainder(totals, divisor, div_half_even(sum(totals), divisor))
    for group, share in zip(groups, shares, strict=True):
        assert sum(largest_remainder(group, divisor, share)) == share


def test_the_largest_remainder_gets_the_missing_unit_and_the_earlier_one_on_a_tie() -> None:
    assert largest_remainder([14, 17, 19], 10, 5) == [1, 2, 2]
    assert largest_remainder([15, 15, 10], 10, 4) == [2, 1, 1]
    assert largest_remainder([], 10, 0) == []


@pytest.mark.parametrize("total", [3, 4, 6])
def test_an_impossible_total_is_refused(total: int) -> None:
    with pytest.raises(ValueError, match="rounded down or up"):
        largest_remainder([14, 17, 19], 10, total)


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
