"""Rows of a public view, a range of customers at a time; for `tallyflow verify`."""

from dataclasses import dataclass
from typing import Any, ClassVar

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
    amount_femto: int
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
        f"currency, events, unpriced_quantity, digest FROM usage_by_{grain} WHERE {customers.CONDITION} AND "
        "window_start >= toDateTime({first_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC')",
        {**customers.parameters, "first_s": first_s, "before_s": before_s},
    )
    count = len(dims)
    return [ViewRow(int(row[0]), tuple(row[1 : 1 + count]), *row[1 + count :]) for row in found]
