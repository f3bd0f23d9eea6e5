"""The months in which a customer has usage."""

from ..client import StoreClient

_SQL = """
SELECT DISTINCT toYear(window_start), toMonth(window_start)
FROM rollup_day
WHERE customer = {customer:String}
ORDER BY 1, 2
"""


def months_of_customer(client: StoreClient, customer: str) -> list[str]:
    """As `2026-11`, in order; empty for a customer that the store does not know."""
    return [f"{year}-{month:02}" for year, month in client.rows(_SQL, {"customer": customer})]
