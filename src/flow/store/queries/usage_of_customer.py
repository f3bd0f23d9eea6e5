"""What one customer used in one period, added up to the levels asked for.

Everything an invoice shows comes from this one read, so all of its levels are of the same moment.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from ..client import StoreClient
from .view_rows import exact_femto

LEVELS = ("feature", "project", "model", "region", "service_tier", "meter", "day", "hour", "minute")
"""What usage can be taken apart by."""

_FINE_VIEWS = {
    "minute": "exact_usage_by_minute",
    "hour": "exact_usage_by_hour",
    "project": "exact_usage_by_day",
    "model": "exact_usage_by_day",
}
"""The view that has a level, the finest first; all other levels are in the day rollup, which has the fewest rows."""

TIME_LEVELS = ("day", "hour", "minute")

_COLUMNS = {
    "day": "toUInt32(toStartOfDay(window_start))",
    "hour": "toUInt32(toStartOfHour(window_start))",
    "minute": "toUInt32(window_start)",
}

_SQL = """
SELECT
    [{values}] AS place,
    meter,
    currency,
    sum(toInt256(quantity)) AS quantity_sum,
    sum(toInt256(unpriced_quantity)) AS unpriced_sum,
    reinterpret(sum(toDecimal256(amount, 15)), 'Int256') AS amount_femto,
    sum(toUInt256(amount_remainder)) AS remainder,
    sum(events) AS events_sum,
    sum(digest) AS digest_sum
FROM {view}
WHERE customer = {{customer:String}}
    AND window_start >= toDateTime({{start_s:UInt32}}, 'UTC')
    AND window_start < toDateTime({{end_s:UInt32}}, 'UTC')
GROUP BY place, meter, currency
"""


class Usage(NamedTuple):
    """One meter of one place in the drill-down."""

    place: tuple[str, ...]
    """A value for each level asked for: a dimension, a meter, or the seconds at which a time begins."""
    meter: str
    currency: str
    quantity: int
    unpriced_quantity: int
    amount_femto: int | Fraction
    """10^-15 currency units, exact."""
    events: int
    digest: int


def usage_of_customer(
    client: StoreClient, customer: str, start_s: int, end_s: int, levels: Sequence[str]
) -> list[Usage]:
    """The usage of windows that start in [start_s, end_s), in no order.

    Args:
        levels: some of LEVELS, none twice.
    """
    view = next((view for level, view in _FINE_VIEWS.items() if level in levels), "exact_usage_by_day_coarse")
    values = ", ".join(f"toString({_COLUMNS.get(level, level)})" for level in levels)
    sql = _SQL.format(view=view, values=values or "''")
    rows = client.rows(sql, {"customer": customer, "start_s": start_s, "end_s": end_s})
    return [
        Usage(
            tuple(place[: len(levels)]), meter, currency, quantity, unpriced, exact_femto(femto, rest), events, digest
        )
        for place, meter, currency, quantity, unpriced, femto, rest, events, digest in rows
    ]
