"""What the rollup tables add up to, read without their keys: quick, whatever they hold."""

from dataclasses import dataclass

from ..client import StoreClient
from ..tables import SLOTS


@dataclass(frozen=True)
class Totals:
    """The sum of a table over all customers, keys, meters and windows."""

    quantity: int
    amount_femto: int
    """As stored, that of `meter/per` in 10^-15 / per: a number to check by, and money where no rate is a fraction."""


def rollup_totals(client: StoreClient) -> dict[str, Totals]:
    """The totals of each rollup table. Raises StoreError."""
    # Each row is within 2^100 (a constraint), so that fewer than 2^27 blocks cannot wrap these 128-bit sums.
    quantity = " + ".join(f"toInt256(sum(q{slot}))" for slot in range(SLOTS))
    amount = " + ".join(f"toInt256(sum(reinterpret(a{slot}, 'Int128')))" for slot in range(SLOTS))
    found = {
        table: client.rows(f"SELECT {quantity}, {amount} FROM {table}")[0] for table in ("rollup_minute", "rollup_day")
    }
    return {table: Totals(int(row[0]), int(row[1])) for table, row in found.items()}
