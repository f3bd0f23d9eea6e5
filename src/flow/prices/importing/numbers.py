"""Prices as the numbers of a JSON file meant them: exact decimals, with the noise of binary floats taken off.

A file that a program wrote holds `2.0000000000000002e-07` where its author meant 0.0000002: the double of the price
went through a division or two before it was printed. Such a text is *snapped*, and said; every other one is taken as it
stands.
"""

import gzip
import json
import re
from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Context, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from ...errors import ConfigError

NOISY_DIGITS_MIN = 16
"""Of the digits of a noisy text: up to 15 digits survive the way through a double and back, so fewer are no noise."""
MEANT_DIGITS_MAX = 10
"""Of the digits of the price that was meant. A chance text of 16 digits is that near such a price once in 50,000."""
PART_DIGITS_MAX = 6
PARTS = (3, 7, 9, 11, 13)
"""A price of few digits divided by one of these is recognised as well, also where its text was cut at 15 digits."""
PART_TEXT_DIGITS_MIN = 15
NOISE_ULPS_MAX = 4
"""How far noise reaches, in units in the last place of the double: half for the price, half for the text, and three
operations between them."""

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?")
_DOUBLE_BITS = 53
_EXACT = Context(prec=1000)


def load_json(path: Path) -> tuple[Any, list[str]]:
    """The content of a JSON file, plain or .gz, and the keys that stand twice in one object of it.

    Numbers are int or Decimal, exactly as written. Raises ConfigError.
    """
    twice: list[str] = []

    def as_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return found

    def no_number(text: str) -> Any:
        raise ConfigError(f"{path}: {text} is no number")

    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("utf-8-sig")
        return json.loads(text, parse_float=Decimal, parse_constant=no_number, object_pairs_hook=as_object), twice
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except (OSError, EOFError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from None
    except (UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}:{error.lineno}: not JSON: {error.msg}") from None


def as_mapping(value: Any, where: str) -> Mapping[str, Any]:
    """Raises ConfigError where something else than an object stands."""
    if not isinstance(value, dict):
        raise ConfigError(f"{where}: an object is expected; is the file of this format?")
    return value


def as_decimal(value: Any) -> Decimal | None:
    """The number that a value of a JSON file is, as a number or as decimal text; None: it is none."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return Decimal(value)
    return Decimal(value) if isinstance(value, str) and _DECIMAL.fullmatch(value) else None


def meant(written: Decimal) -> tuple[Decimal, int]:
    """The price that was meant by a number that may be noisy, as a quotient; (number, 1) where it is not noisy.

    A number is noisy if it has at least NOISY_DIGITS_MIN significant digits (zeros at the end are none) and lies within
    NOISE_ULPS_MAX units in the last place, of a double of the size of the larger of the two, of what was meant:

    - a decimal of at most MEANT_DIGITS_MAX digits, or else
    - one of at most PART_DIGITS_MAX digits, divided by one of PARTS: a third of a price, or a price in yuan at 7 to the
      dollar, has no finite decimal, and its text is where a double was cut. A text of PART_TEXT_DIGITS_MIN digits will
      do for these, if it is within one of its last digit.

    There is at most one such decimal: two of 10 digits are 450,000 of those units apart, or more.
    """
    digits = _significant_digits(written)
    if digits < PART_TEXT_DIGITS_MIN:
        return written, 1
    cut = Fraction(10) ** (written.adjusted() + 1 - digits) if digits < NOISY_DIGITS_MIN else Fraction(0)
    kinds = [(part, PART_DIGITS_MAX) for part in PARTS]
    if digits >= NOISY_DIGITS_MIN:
        kinds.insert(0, (1, MEANT_DIGITS_MAX))
    for divisor, precision in kinds:
        short = Context(prec=precision, rounding=ROUND_HALF_EVEN).multiply(written, Decimal(divisor))
        found = Fraction(short) / divisor
        larger = max(abs(Fraction(written)), abs(found))
        if abs(Fraction(written) - found) <= max(NOISE_ULPS_MAX * ulp(larger), cut):
            return short.normalize(), divisor
    return written, 1


def ulp(size: Fraction) -> Fraction:
    """The distance between neighbouring doubles of a size above 0 (subnormal ones left aside)."""
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    return Fraction(2) ** (exponent - _DOUBLE_BITS + 1)


def times(one: Decimal, other: Decimal | int) -> Decimal:
    """The exact product."""
    return _EXACT.multiply(one, Decimal(other))


def plain(number: Decimal) -> str:
    """Decimal text without exponent and without zeros at its end."""
    text = f"{number:f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _significant_digits(number: Decimal) -> int:
    return len("".join(map(str, number.as_tuple().digits)).strip("0"))
