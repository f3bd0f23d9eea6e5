"""Noise of binary floats in price files: what is taken for it, and what never is."""

import gzip
import json
import math
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import ConfigError
from flow.prices.importing.numbers import (
    NOISE_ULPS_MAX,
    PART_TEXT_DIGITS_MIN,
    PARTS,
    as_decimal,
    load_json,
    meant,
    plain,
    times,
    ulp,
)

DIGITS = st.integers(1, 10**10 - 1)
EXPONENTS = st.integers(-18, 3)


def text_of(price: Decimal, steps: int) -> Decimal:
    """What a program prints that holds the double `steps` neighbours away from a price."""
    double = float(price)
    for _ in range(abs(steps)):
        double = math.nextafter(double, math.inf if steps > 0 else 0.0)
    return Decimal(repr(double))


@pytest.mark.parametrize(
    ("written", "price"),
    [
        ("2.0000000000000002E-7", "2E-7"),
        ("0.0000029999900000000002", "0.00000299999"),
        ("3.0001999999999996E-7", "3.0002E-7"),
        ("9.499999999999999E-7", "9.5E-7"),
        ("0.15000000000000002", "0.15"),
        ("4.800000000000001", "4.8"),
    ],
)
def test_noise_is_snapped(written: str, price: str) -> None:
    assert meant(Decimal(written)) == (Decimal(price), 1)


@pytest.mark.parametrize(
    ("written", "price", "divisor"),
    [
        ("0.0000011428571428571428", "0.000008", 7),
        ("3.2857142857142855E-8", "2.3E-7", 7),
        ("0.08333333333333333", "0.25", 3),
        ("0.0833333333333333", "0.25", 3),
        ("0.0416666666666667", "0.125", 3),
    ],
)
def test_a_price_over_a_small_number_is_recognised(written: str, price: str, divisor: int) -> None:
    assert meant(Decimal(written)) == (Decimal(price), divisor)


@pytest.mark.parametrize("written", ["1.41953125E-7", "0.1234567890123456", "1.000000000000100", "0", "7", "1E-7"])
def test_what_is_no_noise_stays(written: str) -> None:
    assert meant(Decimal(written)) == (Decimal(written), 1)


@given(DIGITS, EXPONENTS, st.integers(-3, 3))
def test_every_short_price_is_found_behind_its_noise(digits: int, exponent: int, steps: int) -> None:
    price = Decimal(digits).scaleb(exponent)
    assert meant(text_of(price, steps)) == (price, 1)


@given(st.integers(1, 10**6 - 1), EXPONENTS, st.sampled_from(PARTS), st.integers(-1, 1))
def test_every_part_of_a_short_price_is_found(digits: int, exponent: int, divisor: int, steps: int) -> None:
    part = Fraction(Decimal(digits).scaleb(exponent)) / divisor
    written = text_of(Decimal(part.numerator) / Decimal(part.denominator), steps)
    price, found = meant(written)
    if len(written.as_tuple().digits) >= PART_TEXT_DIGITS_MIN or part == Fraction(written):
        assert Fraction(price) / found == part
    else:  # one double in a hundred prints shorter, and is then a price like any other
        assert (price, found) == (written, 1)


@given(st.integers(1, 10**14 - 1), EXPONENTS)
def test_up_to_fourteen_digits_are_never_touched(digits: int, exponent: int) -> None:
    written = Decimal(digits).scaleb(exponent)
    assert meant(written) == (written, 1)


@given(st.integers(10**14, 10**15 - 1), EXPONENTS)
def test_fifteen_digits_are_at_most_a_part(digits: int, exponent: int) -> None:
    written = Decimal(digits).scaleb(exponent)
    price, divisor = meant(written)
    assert abs(Fraction(written) - Fraction(price) / divisor) <= Fraction(10) ** exponent * 10
    assert divisor in PARTS or price == written


@given(st.integers(10**15, 10**17), EXPONENTS)
def test_what_is_snapped_moves_by_less_than_a_double_can_tell(digits: int, exponent: int) -> None:
    written = Decimal(digits).scaleb(exponent)
    price, divisor = meant(written)
    moved = abs(Fraction(written) - Fraction(price) / divisor)
    assert moved <= NOISE_ULPS_MAX * ulp(max(Fraction(written), Fraction(price) / divisor))
    assert meant(price) == (price, 1)


@given(st.floats(1e-300, 1e300))
def test_ulp_is_that_of_a_double(double: float) -> None:
    assert ulp(Fraction(double)) == Fraction(math.ulp(double))


@given(st.decimals(0, 10**9, places=9), st.integers(0, 10**9))
def test_times_and_plain_are_exact(one: Decimal, other: int) -> None:
    product = times(one, other)
    assert Fraction(product) == Fraction(one) * other
    assert Decimal(plain(product)) == product
    assert "E" not in plain(product)


def test_json_is_read_without_floats(tmp_path: Path) -> None:
    file = tmp_path / "prices.json.gz"
    file.write_bytes(gzip.compress(b'{"a": 2.0000000000000002e-07, "b": {"c": 1, "c": 2}, "d": 3}'))
    assert load_json(file) == ({"a": Decimal("2.0000000000000002E-7"), "b": {"c": 2}, "d": 3}, ["c"])


@pytest.mark.parametrize("content", [b"{", b'{"a": NaN}', b"\xff", b"\x1f\x8b00"])
def test_what_is_no_json_is_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"prices\.json"):
        load_json(file)
    with pytest.raises(ConfigError, match="no such file"):
        load_json(tmp_path / "nowhere.json")


def test_only_numbers_are_prices() -> None:
    assert as_decimal("1e-07") == Decimal("1E-7")
    assert as_decimal(3) == Decimal(3)
    others: list[object] = [True, None, "free", "", "NaN", [], {}]
    assert [as_decimal(value) for value in others] == [None] * 7
    assert json.loads("1.10", parse_float=Decimal) == as_decimal("1.10")
