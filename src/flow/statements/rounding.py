"""Rounding of exact amounts, on plain integers: once a line by a named rule, by shares everywhere else.

Amounts are counts of 10^-15 currency units (femto); minor units are cents, or what stands for them.
"""

from collections.abc import Callable, Sequence
from typing import Literal

FEMTO_DIGITS = 15

RoundingRule = Literal["half-even", "half-up"]

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


RULES: dict[RoundingRule, Callable[[int, int], int]] = {"half-even": div_half_even, "half-up": div_half_up}
"""Every rule that `--rounding` can name."""


def largest_remainder(numbers: Sequence[int], total: int) -> list[int]:
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
    losses = [number * total % whole for number in numbers]
    for index in sorted(range(len(numbers)), key=lambda index: -abs(losses[index]))[:missing]:
        shares[index] += 1
    return shares


def decimal_text(number: int, digits: int, *, trim: bool = False) -> str:
    """number / 10^digits in decimal notation; `trim` drops zeros at the end that say nothing."""
    sign = "-" if number < 0 else ""
    whole, part = divmod(abs(number), 10**digits)
    fraction = str(part).rjust(digits, "0") if digits else ""
    if trim:
        fraction = fraction.rstrip("0")
    return f"{sign}{whole}.{fraction}" if fraction else f"{sign}{whole}"
