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
        f"FROM (SELECT DISTINCT model, service_tier, region, customer, meters FROM rollup_minute WHERE {_SCOPE}) "
        "ORDER BY ALL",
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
    """Rows of minutes as they are stored, which may be several under one key, with window_start as `window` in seconds
    and text as dictionaries. Raises StoreError."""
    slots = range(SLOTS)
    return client.arrow(
        "SELECT toUInt32(toUnixTimestamp(window_start)) AS window, customer, project, feature, model, region, "
        f"service_tier, meters, unpriced, {', '.join(f'q{slot}, a{slot}' for slot in slots)} "
        f"FROM rollup_minute WHERE {customers.CONDITION} AND window_start >= toDateTime({{from_s:UInt32}}, 'UTC') "
        "AND window_start < toDateTime({before_s:UInt32}, 'UTC') "
        "SETTINGS output_format_arrow_low_cardinality_as_dictionary = 1",
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
