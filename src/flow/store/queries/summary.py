"""The few lines that a person wants to see of a month, read from the day rollups without unfolding them."""

from dataclasses import dataclass
from decimal import Decimal

from ..client import StoreClient
from ..tables import SLOTS

_AMOUNT = " + ".join(f"sum(a{slot})" for slot in range(SLOTS))


@dataclass(frozen=True)
class Month:
    """The latest month in the store."""

    month: str
    """As `2026-11`; empty where the store holds nothing."""
    customers: int
    largest: list[tuple[str, Decimal]]
    """(customer, amount), the largest first."""
    unpriced: list[tuple[str, int]]
    """(model, unpriced quantity), the largest first."""


def latest_month(client: StoreClient, lines: int = 5) -> Month:
    """What the latest month holds. Raises StoreError."""
    count, last = client.rows("SELECT count(), max(window_start) FROM rollup_day")[0]
    if not count:
        return Month("", 0, [], [])
    month = f"{last:%Y-%m}"
    within = f"toYYYYMM(window_start) = {last:%Y%m}"
    customers = client.rows(f"SELECT uniqExact(customer) FROM rollup_day WHERE {within}")[0][0]
    largest = client.rows(
        f"SELECT customer, {_AMOUNT} AS amount FROM rollup_day WHERE {within} GROUP BY customer "
        f"ORDER BY amount DESC, customer LIMIT {lines}"
    )
    slots = " + ".join(f"if(bitTest(unpriced, {slot}), toInt256(q{slot}), 0)" for slot in range(SLOTS))
    unpriced = client.rows(
        f"SELECT model, sum({slots}) AS quantity FROM rollup_minute WHERE {within} AND unpriced != 0 "
        f"GROUP BY model HAVING quantity != 0 ORDER BY quantity DESC, model LIMIT {lines}"
    )
    return Month(
        month,
        int(customers),
        [(str(name), Decimal(str(amount))) for name, amount in largest],
        [(str(name), int(quantity)) for name, quantity in unpriced],
    )
