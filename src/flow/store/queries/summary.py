"""What a lineage has billed, in the few numbers that a person wants to see at the end of a run."""

from dataclasses import dataclass
from decimal import Decimal

from ..client import StoreClient


@dataclass(frozen=True)
class Line:
    """One meter, customer or model."""

    name: str
    quantity: int
    amount: Decimal
    unpriced: int


@dataclass(frozen=True)
class Summary:
    """Totals of everything in the store."""

    meters: list[Line]
    customers: list[Line]
    currencies: list[str]
    customer_count: int
    first_window: str
    last_window: str
    unpriced_models: list[Line]


_LINE = "sum(toInt256(quantity)), sum(toDecimal256(amount, 15)), sum(toInt256(unpriced_quantity))"


def summary(client: StoreClient, customers: int = 5) -> Summary:
    """Reads the month rollups for totals, and the day rollups for unpriced models."""

    def lines(sql: str) -> list[Line]:
        return [Line(str(name), int(q), Decimal(str(a)), int(u)) for name, q, a, u in client.rows(sql)]

    tokens = "meter LIKE '%tokens'"
    windows = client.rows(
        "SELECT toString(min(window_start)), toString(max(window_start)), uniqExact(customer) FROM usage_by_day"
    )[0]
    return Summary(
        meters=lines(f"SELECT meter, {_LINE} FROM usage_by_month GROUP BY meter ORDER BY meter"),
        customers=lines(
            f"SELECT customer, sumIf(toInt256(quantity), {tokens}), sum(toDecimal256(amount, 15)), "
            f"sum(toInt256(unpriced_quantity)) FROM usage_by_month GROUP BY customer ORDER BY 3 DESC, 1 LIMIT {customers}"
        ),
        currencies=[row[0] for row in client.rows("SELECT DISTINCT currency FROM usage_by_month ORDER BY 1")],
        customer_count=int(windows[2]),
        first_window=str(windows[0]),
        last_window=str(windows[1]),
        unpriced_models=lines(
            f"SELECT model, {_LINE} FROM usage_by_day WHERE unpriced_quantity != 0 GROUP BY model ORDER BY 4 DESC LIMIT 5"
        ),
    )
