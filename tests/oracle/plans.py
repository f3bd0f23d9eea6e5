"""The slow truth of plans: usage is walked slice by slice, and blocks and packages are handed out one by one.

A slice is the largest part of a unit of which everything asked about is a multiple, so that no slice crosses a bound.
Nothing is imported from the project.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

Row = tuple[Fraction | None, Fraction, Fraction]
"""(up to and with, price of a unit, flat fee) of a tier."""


def slices(quantity: Fraction, *others: Fraction | None) -> Iterator[tuple[Fraction, Fraction]]:
    """(size of a slice, where it ends), for one slice after the other."""
    size = Fraction(1, math.lcm(*(other.denominator for other in (quantity, *others) if other is not None)))
    end = Fraction(0)
    while end < quantity:
        end += size
        yield size, end


def tier_at(rows: Sequence[Row], end: Fraction) -> int:
    """The tier of the slice that ends there."""
    for number, (up_to, _, _) in enumerate(rows):
        if up_to is None or end <= up_to:
            return number
    raise LookupError("above the last tier")


def graduated(rows: Sequence[Row], quantity: Fraction, zero_usage_flat_fee: bool = False) -> Fraction:
    charge = Fraction(0)
    reached = {0} if zero_usage_flat_fee else set()
    for size, end in slices(quantity, *(up_to for up_to, _, _ in rows)):
        number = tier_at(rows, end)
        charge += size * rows[number][1]
        reached.add(number)
    return charge + sum(rows[number][2] for number in reached)


def volume(rows: Sequence[Row], quantity: Fraction, zero_usage_flat_fee: bool = False) -> Fraction:
    if quantity <= 0:
        return rows[0][2] if zero_usage_flat_fee else Fraction(0)
    _, price, flat = rows[tier_at(rows, quantity)]
    return sum((size * price for size, _ in slices(quantity)), flat)


def parts(rows: Sequence[Row], quantity: Fraction, whole: bool) -> list[Fraction]:
    """What stands on a bill: the units of each tier, and the flat fee of each that was reached."""
    units: dict[int, Fraction] = {}
    for size, end in slices(quantity, *(up_to for up_to, _, _ in rows)):
        number = tier_at(rows, quantity if whole else end)
        units[number] = units.get(number, Fraction(0)) + size
    return [part for number, count in units.items() for part in (count * rows[number][1], rows[number][2])]


ROUNDED = {
    "half-even": round,
    "half-up": lambda number: math.floor(number + Fraction(1, 2)),
    "ceil": math.ceil,
    "floor": math.floor,
}
"""Of numbers that are not below 0."""


def bill(
    charges: Sequence[Fraction],
    percent: Fraction,
    least: Fraction | None,
    most: Fraction | None,
    rounded: Callable[[Fraction], Fraction],
    each_line: bool,
) -> Fraction:
    """The total of charges: discount, then the maximum, then the minimum; rounded at every step, or once."""
    step = rounded if each_line else Fraction
    total = sum((step(charge) - step(step(charge) * percent / 100) for charge in charges), Fraction(0))
    total = total if most is None else min(total, step(most))
    total = total if least is None else max(total, step(least))
    return rounded(total)


def packages(size: Fraction, price: Fraction, free: Fraction, quantity: Fraction, begun_is_whole: bool) -> Fraction:
    charge = Fraction(0)
    left = quantity - free
    while left > 0 if begun_is_whole else left >= size:
        charge += price
        left -= size
    return charge


Block = tuple[Fraction, Fraction, int | None]
"""(units, price of the block, how many) of a tier."""


def graduated_blocks(rows: Sequence[Block], quantity: Fraction) -> Fraction:
    charge, left, number, used = Fraction(0), quantity, 0, 0
    while left > 0:
        size, price, most = rows[number]
        if most is not None and used == most:
            number, used = number + 1, 0
            continue
        charge += price
        left -= size
        used += 1
    return charge


def volume_blocks(rows: Sequence[Block], quantity: Fraction) -> Fraction:
    full = Fraction(0)
    for size, price, most in rows:
        full += size * (most or 0)
        if most is None or quantity <= full:
            return packages(size, price, Fraction(0), quantity, begun_is_whole=True)
    raise LookupError("above the last tier")


def discounted_usage(first: Fraction, rows: Sequence[tuple[Fraction | None, Fraction]], quantity: Fraction) -> Fraction:
    """What is left to bill: the first units are free, then each slice loses the percentage of its tier."""
    left = Fraction(0)
    for size, end in slices(quantity, first, *(up_to for up_to, _ in rows)):
        if end > first:
            percents = [percent for up_to, percent in rows if up_to is None or end - first <= up_to]
            left += size * (100 - (percents[0] if percents else 0)) * Fraction(1, 100)
    return left
