"""Graduated tiers for what is held rather than used up, such as seats: each row has its full quantity, which places it
in a tier, and the part of it that its share of the period makes, which is priced.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ..errors import PlanError
from .lines import NOTHING, Line, line
from .models import Tiered


@dataclass(frozen=True, slots=True)
class HeldRow:
    """One change of what is held: added, or given back (below 0)."""

    quantity: Fraction
    priced: Fraction
    """quantity x the share of the period for which it is held, or given back."""


def held_lines(model: Tiered, rows: Sequence[HeldRow]) -> list[Line]:
    """The lines of a period; a row that crosses a bound is split there, its priced part in proportion.

    Flat fees are due of every tier that was reached at any time. What is added but not priced counts in no tier (it
    was given back before the period), nor does giving it back. Where less than nothing is held at the end nothing is
    charged, and no less than 0 for what is held. Raises PlanError for a volume model and above the last tier.
    """
    if model.whole:
        raise PlanError("what is held for a part of a period is rated by graduated tiers, not by volume")
    priced = [NOTHING] * len(model.tiers)
    held = most = NOTHING
    for row in rows:
        unpriced = row.priced == 0 and (row.quantity > 0 or held + row.quantity < 0)
        if unpriced or row.quantity == 0:
            continue
        before, held = held, held + row.quantity
        most = max(most, held)
        for number, part in _parts(model, before, held):
            priced[number] += part * Fraction(row.priced, row.quantity)
    if held < 0:
        return []
    reached = model.tier_of(most)
    flats = [each for each in _flat_fees(model, reached, most) if each.gross_femto]
    units = [line("usage", n + 1, priced[n], model.tiers[n].price_femto) for n in range(reached + 1)]
    return [*units, *flats] if sum(each.gross_femto for each in units) >= 0 else flats


def _parts(model: Tiered, before: Fraction, after: Fraction) -> list[tuple[int, Fraction]]:
    """What moving from one quantity to another adds to each tier; what is below 0 is in the first."""
    parts = []
    below: Fraction | None = None
    for number, tier in enumerate(model.tiers):
        low, high = sorted((before, after))
        bottom = low if below is None else max(low, below)
        top = high if tier.up_to is None else min(high, tier.up_to)
        if top > bottom:
            parts.append((number, top - bottom if after > before else bottom - top))
        below = tier.up_to
    return parts


def _flat_fees(model: Tiered, reached: int, most: Fraction) -> list[Line]:
    if most == 0 and not model.zero_usage_flat_fee:
        return []
    return [line("flat", n + 1, Fraction(1), model.tiers[n].flat_femto) for n in range(reached + 1)]
