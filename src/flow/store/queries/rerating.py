"""What re-rating asks of the store: usage of some windows, and what it has written itself."""

from typing import Any, NamedTuple

import pyarrow as pa

from ..client import StoreClient
from .view_rows import CustomerRange

_SCOPE = (
    "window_start >= toDateTime({from_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC') "
    "AND (customer = {customer:String} OR {everyone:UInt8})"
)


def _parameters(from_s: int, before_s: int, customer: str | None) -> dict[str, Any]:
    return {"from_s": from_s, "before_s": before_s, "customer": customer or "", "everyone": int(customer is None)}


def usage_classes(client: StoreClient, from_s: int, before_s: int, customer: str | None) -> list[tuple[str, ...]]:
    """(model, service tier, region, customer, meter) of all usage in windows that start in [from_s, before_s)."""
    found = client.rows(
        "SELECT DISTINCT model, service_tier, region, customer, arrayJoin(splitByChar(',', meters)) AS meter "
        f"FROM rollup_minute WHERE {_SCOPE} ORDER BY ALL",
        _parameters(from_s, before_s, customer),
    )
    return [tuple(map(str, row)) for row in found if row[-1]]


class CustomerUsage(NamedTuple):
    """How many rows a customer has, and in which windows."""

    customer: str
    rows: int
    first_s: int
    last_s: int


def usage_of_customers(client: StoreClient, from_s: int, before_s: int, customer: str | None) -> list[CustomerUsage]:
    """In the order in which the store keeps them. Raises StoreError."""
    found = client.rows(
        "SELECT customer, count(), toUnixTimestamp(min(window_start)), toUnixTimestamp(max(window_start)) "
        f"FROM rollup_minute WHERE {_SCOPE} GROUP BY customer ORDER BY customer",
        _parameters(from_s, before_s, customer),
    )
    return [CustomerUsage(str(row[0]), *map(int, row[1:])) for row in found]


def minute_usage(client: StoreClient, from_s: int, before_s: int, customers: CustomerRange) -> pa.Table:
    """Rows of `usage_by_minute`; window_start in seconds, quantities as strings of 16 bytes. Raises StoreError."""
    return client.arrow(
        "SELECT toUInt32(toUnixTimestamp(window_start)) AS window, customer, project, feature, model, region, "
        "service_tier, meter, quantity, amount, unpriced_quantity FROM usage_by_minute "
        f"WHERE {customers.CONDITION} AND window_start >= toDateTime({{from_s:UInt32}}, 'UTC') "
        "AND window_start < toDateTime({before_s:UInt32}, 'UTC')",
        {**customers.parameters, "from_s": from_s, "before_s": before_s},
    )


def corrected_amount_femto(client: StoreClient, id_: str) -> int:
    """What the corrections of one re-rating add up to. Raises StoreError."""
    found = client.rows(
        "SELECT sum(toInt256(reinterpret(amount, 'Int128'))) FROM corrections WHERE id = {id:String}", {"id": id_}
    )
    return int(found[0][0])
