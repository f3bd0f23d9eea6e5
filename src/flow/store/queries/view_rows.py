"""Rows of a view, a range of customers at a time; for `tallyflow verify`.

They are read where they still have the part of an amount that `usage_by_...`, the same without it, leaves out.
"""

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar

from ...schema import PER_OF_ALL
from ..client import StoreClient


@dataclass(frozen=True, slots=True)
class CustomerRange:
    """Customers from `first` to `last`, both included, in the order of their bytes."""

    first: str
    last: str

    CONDITION: ClassVar[str] = "customer >= {first:String} AND customer <= {last:String}"
    """What `parameters` fills in."""

    @property
    def parameters(self) -> dict[str, Any]:
        return {"first": self.first, "last": self.last}


@dataclass(frozen=True, slots=True)
class ViewRow:
    """One row of a view."""

    window_start_s: int
    dims: tuple[str, ...]
    meter: str
    quantity: int
    amount_femto: int | Fraction
    """10^-15 currency units, exact; `usage_by_...` shows it rounded down."""
    currency: str
    events: int
    unpriced_quantity: int
    digest: int


def view_rows(
    client: StoreClient, grain: str, dims: tuple[str, ...], customers: CustomerRange, first_s: int, before_s: int
) -> list[ViewRow]:
    """The rows of `usage_by_<grain>` whose windows start in [first_s, before_s). Raises StoreError."""
    # An amount leaves the store as the integer that it is: Python's Decimal rounds to 28 digits when it is multiplied.
    found = client.rows(
        f"SELECT toUnixTimestamp(window_start), {', '.join(dims)}, meter, quantity, reinterpret(amount, 'Int128'), "
        f"amount_remainder, currency, events, unpriced_quantity, digest FROM exact_usage_by_{grain} "
        f"WHERE {customers.CONDITION} AND "
        "window_start >= toDateTime({first_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC')",
        {**customers.parameters, "first_s": first_s, "before_s": before_s},
    )
    count = len(dims)
    return [_row(int(row[0]), tuple(row[1 : 1 + count]), *row[1 + count :]) for row in found]


def exact_femto(amount_femto: int, remainder: int) -> int | Fraction:
    """An amount and its `amount_remainder`, added up."""
    return amount_femto + Fraction(remainder, PER_OF_ALL) if remainder else amount_femto


def _row(
    start_s: int, dims: tuple[str, ...], meter: str, quantity: int, amount_femto: int, remainder: int, *rest: Any
) -> ViewRow:
    return ViewRow(start_s, dims, meter, quantity, exact_femto(amount_femto, remainder), *rest)
