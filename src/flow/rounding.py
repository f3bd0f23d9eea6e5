"""Rounding of exact amounts, on plain integers: once a line by a named rule, by shares everywhere else.

Amounts are counts of 10^-15 currency units (femto); minor units are cents, or what stands for them. Rules take a
number and a divisor and not a quotient, because a quotient may have no finite digits; a Fraction has both.
"""

from collections.abc import Callable, Sequence
from fractions import Fraction
from math import floor
from typing import Literal

FEMTO_DIGITS = 15

RoundingRule = Literal["half-even", "half-up", "half-down", "ceil", "floor", "up", "down"]

# ISO 4217: digits behind the point of currencies that do not have two.
_MINOR_DIGITS = {
    **dict.fromkeys(
        ("BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV"), 0
    ),
    **dict.fromkeys(("XAF", "XOF", "XPF"), 0),
    **dict.fromkeys(("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"), 3),
    **dict.fromkeys(("CLF", "UYW"), 4),
}


def minor_digits(currency: str) -> int:
    """Digits behind the point of a currency's minor unit, by ISO 4217; 2 for one that it does not list."""
    return _MINOR_DIGITS.get(currency, 2)


def div_half_even(number: int, divisor: int) -> int:
    """number / divisor to the nearest integer, halves to the even one. The divisor is above 0."""
    quotient, rest = divmod(number, divisor)
    return quotient + (2 * rest > divisor or (2 * rest == divisor and quotient % 2 == 1))


def div_half_up(number: int, divisor: int) -> int:
    """number / divisor to the nearest integer, halves away from zero. The divisor is above 0."""
    magnitude = (2 * abs(number) + divisor) // (2 * divisor)
    return magnitude if number >= 0 else -magnitude


def div_half_down(number: int, divisor: int) -> int:
    """number / divisor to the nearest integer, halves towards zero. The divisor is above 0."""
    magnitude = -((divisor - 2 * abs(number)) // (2 * divisor))
    return magnitude if number >= 0 else -magnitude


def div_ceil(number: int, divisor: int) -> int:
    """number / divisor to the next integer that is not below it. The divisor is above 0."""
    return -(-number // divisor)


def div_floor(number: int, divisor: int) -> int:
    """number / divisor to the next integer that is not above it. The divisor is above 0."""
    return number // divisor


def div_up(number: int, divisor: int) -> int:
    """number / divisor to the next integer away from zero. The divisor is above 0."""
    return div_ceil(number, divisor) if number >= 0 else div_floor(number, divisor)


def div_down(number: int, divisor: int) -> int:
    """number / divisor to the next integer towards zero. The divisor is above 0."""
    return div_floor(number, divisor) if number >= 0 else div_ceil(number, divisor)


RULES: dict[RoundingRule, Callable[[int, int], int]] = {
    "half-even": div_half_even,
    "half-up": div_half_up,
    "half-down": div_half_down,
    "ceil": div_ceil,
    "floor": div_floor,
    "up": div_up,
    "down": div_down,
}
"""Every rule by its name. Halves go up or down in magnitude, so that a credit is rounded like its charge."""


def largest_remainder(numbers: Sequence[int | Fraction], total: int) -> list[int]:
    """Shares of `total` in proportion to the numbers; they add up to it exactly.

    Each share is rounded down first; what is missing goes, one each, to those that lost the most, the earlier
    first where they lost the same. Numbers that add up to 0 give no proportion: then the first takes it all.
    """
    whole = sum(numbers)
    if whole == 0:
        return [total if index == 0 else 0 for index in range(len(numbers))]
    shares = [number * total // whole for number in numbers]
    missing = total - sum(shares)
    # Of the sign of `whole`: so the greatest magnitude has lost the most.
    sign = 1 if whole > 0 else -1
    losses: list[int | Fraction] = [number * total % whole for number in numbers]
    for index in sorted(range(len(numbers)), key=lambda index: -sign * losses[index])[:missing]:
        shares[index] += 1
    return shares


def share(exact: Sequence[Fraction], total: int) -> list[int]:
    """Integers near the exact parts that add up to `total`; parts of any sign, whose sum need not be the total.

    What the total is more or less than the sum of the parts is spread over them by their magnitude (alike, if all are
    0), so that parts which nearly cancel do not blow it up; then each is rounded down, and what is missing goes, one
    each, to those that lost the most, the earlier first. Raises ValueError without parts and with a total.
    """
    if not exact:
        if total:
            raise ValueError("a total other than 0 cannot be shared among no parts")
        return []
    weights = [abs(part) for part in exact] if any(exact) else [Fraction(1)] * len(exact)
    more, weight = total - sum(exact), sum(weights)
    adjusted = (
        [part + more * Fraction(own, weight) for part, own in zip(exact, weights, strict=True)] if more else exact
    )
    shares = [part.numerator // part.denominator for part in adjusted]
    missing = total - sum(shares)
    by_loss = sorted(range(len(shares)), key=lambda index: shares[index] - adjusted[index])
    for index in by_loss[:missing]:
        shares[index] += 1
    return shares


def exact_text(number: int | Fraction, digits: int) -> str:
    """number / 10^digits for programs: a decimal without zeros that say nothing, or where none is finite, like 1/3."""
    if number.denominator == 1:
        return decimal_text(number.numerator, digits, trim=True)
    return str(Fraction(number) / 10**digits)


def readable_text(number: int | Fraction, digits: int) -> str:
    """The same for people: what has no finite decimal is rounded down, with what is left behind it."""
    whole = floor(number)
    left = f" + {number - whole} x 10^-{digits}" if number != whole else ""
    return decimal_text(whole, digits, trim=True) + left


def decimal_text(number: int, digits: int, *, trim: bool = False) -> str:
    """number / 10^digits in decimal notation; `trim` drops zeros at the end that say nothing."""
    sign = "-" if number < 0 else ""
    whole, part = divmod(abs(number), 10**digits)
    fraction = str(part).rjust(digits, "0") if digits else ""
    if trim:
        fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
