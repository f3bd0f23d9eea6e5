"""The customers whose names are nearest to one that has no usage, for an error message that helps."""

from ..client import StoreClient

_SQL = """
SELECT DISTINCT customer
FROM rollup_day
ORDER BY editDistanceUTF8(lowerUTF8(customer), lowerUTF8({customer:String})), customer
LIMIT 3
"""


def customers_like(client: StoreClient, customer: str) -> list[str]:
    """At most three, the nearest first."""
    return [str(row[0]) for row in client.rows(_SQL, {"customer": customer})]
