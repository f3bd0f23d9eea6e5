"""Whose usage caused how much of a charge: shares for rows (projects, days, requests) that add up to it, always.

Two ways. By quantity: every unit of the span bears the same, so the order of rows is of no weight. In order: each row
bears what the charge rose by when it came, so who crossed into a tier pays the price of that tier.
"""

from collections.abc import Sequence
from fractions import Fraction

from ..rounding import share
from .plan import Plan
from .rating import Usage, Use, added, exact_charge


def split_by_quantity(amount_femto: int, quantities: Sequence[int | Fraction]) -> list[int]:
    """Shares of an amount in proportion to quantities, by the largest remainder.

    Quantities that add up to 0 give no proportion: then all rows bear the same. Raises ValueError for an amount other
    than 0 without rows.
    """
    total = sum(map(Fraction, quantities))
    exact = [Fraction(amount_femto * quantity, total) if total else Fraction(0) for quantity in quantities]
    return share(exact, amount_femto)


def split_in_order(
    plan: Plan, rows: Sequence[tuple[str, Use]], amount_femto: int, *, before: Usage | None = None
) -> list[int]:
    """Shares of an amount for rows of (meter, use) in the order in which they came after the usage `before`.

    A row that brings all units into a cheaper tier, or takes usage back, bears less than 0. What belongs to no row
    (rounding, what is due without usage, what a minimum lacks) is spread by the size of the shares. Raises PlanError
    as `rate` does, and ValueError for an amount other than 0 without rows.
    """
    usage: Usage = dict(before or {})
    charged = exact_charge(plan, usage)
    exact = []
    for meter, use in rows:
        usage = added(usage, {meter: use})
        now = exact_charge(plan, usage)
        exact.append(now - charged)
        charged = now
    return share(exact, amount_femto)
