"""What re-rating asks of the store: usage of some windows, and what it has written itself."""

from fractions import Fraction
from typing import Any, NamedTuple

import pyarrow as pa

from ..client import StoreClient
from ..tables import SLOTS
from .view_rows import CustomerRange, exact_femto

_SCOPE = (
    "window_start >= toDateTime({from_s:UInt32}, 'UTC') AND window_start < toDateTime({before_s:UInt32}, 'UTC') "
    "AND (customer = {customer:String} OR {everyone:UInt8})"
)


def _parameters(from_s: int, before_s: int, customer: str | None) -> dict[str, Any]:
    return {"from_s": from_s, "before_s": before_s, "customer": customer or "", "everyone": int(customer is None)}


def usage_classes(client: StoreClient, from_s: int, before_s: int, customer: str | None) -> list[tuple[str, ...]]:
    """(model, service tier, region, customer, meter) of all usage in windows that start in [from_s, before_s)."""
    found = client.rows(
        "SELECT DISTINCT model, service_tier, region, customer, "
        "splitByChar('/', arrayJoin(splitByChar(',', meters)))[1] AS meter "
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
    """What is in the slots of minutes, one row for each dimensions, meter (as the rollups name it) and whether it is
    unpriced; window_start in seconds, amounts in the unit that the meter's name tells. Raises StoreError."""
    names = ("project", "feature", "model", "region", "service_tier")
    dims = ", ".join(names)
    slots = range(SLOTS)
    return client.arrow(
        f"SELECT start AS window, customer, {dims}, meter, unpriced, "
        "accurateCast(sum(slot_quantity), 'Int128') AS quantity, "
        "reinterpret(accurateCast(sum(reinterpret(slot_amount, 'Int256')), 'Int128'), 'Decimal(38, 15)') AS amount "
        "FROM (SELECT toUInt32(toUnixTimestamp(window_start)) AS start, customer, key, "
        f"{', '.join(f'any({name}) AS {name}' for name in names)}, "
        "splitByChar(',', any(meters)) AS meters, any(unpriced) AS mask, "
        f"[{', '.join(f'sum(toInt256(q{slot}))' for slot in slots)}] AS quantities, "
        f"[{', '.join(f'sum(toDecimal256(a{slot}, 15))' for slot in slots)}] AS amounts "
        f"FROM rollup_minute WHERE {customers.CONDITION} AND window_start >= toDateTime({{from_s:UInt32}}, 'UTC') "
        "AND window_start < toDateTime({before_s:UInt32}, 'UTC') GROUP BY start, customer, key) "
        f"ARRAY JOIN {list(slots)} AS slot, meters AS meter, quantities AS slot_quantity, amounts AS slot_amount "
        f"WHERE meter != '' GROUP BY start, customer, {dims}, meter, bitTest(mask, slot) AS unpriced "
        "HAVING quantity != 0 OR amount != 0",
        {**customers.parameters, "from_s": from_s, "before_s": before_s},
    )


def corrected_femto(client: StoreClient, id_: str) -> int | Fraction:
    """What the corrections of one re-rating add up to. Raises StoreError."""
    found = client.rows(
        "SELECT sum(toInt256(reinterpret(amount, 'Int128'))), sum(toUInt256(amount_remainder)) FROM corrections "
        "WHERE id = {id:String}",
        {"id": id_},
    )
    return exact_femto(*map(int, found[0]))
