"""What a reconciliation is asked: which usage, and how far two sources may be apart."""

import re
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction

from ..errors import ConfigError

TIME_END_S = 2**32 - 1
"""Behind every window: what a DateTime can hold."""
_THRESHOLD = re.compile(r"([0-9]{1,3}(?:\.[0-9]{1,12})?) ?%|0")


@dataclass(frozen=True, slots=True)
class Scope:
    """Usage of windows that start in [from_s, before_s), of some customers or, with None, of all."""

    from_s: int = 0
    before_s: int = TIME_END_S
    customers: tuple[str, ...] | None = None


def parse_threshold(text: str) -> Fraction:
    """`0.01%` as the Fraction 1/10,000; 0 lets nothing differ. Raises ConfigError."""
    match = _THRESHOLD.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"threshold: '{text}' is not a percentage; write 0.01%, or 0 where nothing may differ")
    return Fraction(Decimal(match[1] or "0")) / 100
