"""What was changed in a customer's period after it had been billed: sums of `corrections` by what was said of them."""

from dataclasses import dataclass
from fractions import Fraction

from ...schema import PER_OF_ALL
from ..client import StoreClient


@dataclass(frozen=True, slots=True)
class Corrected:
    """What re-ratings, corrections and late events with one reason have changed; it is in the amounts of the views."""

    kind: str
    """rerate, correction or late."""
    reason: str
    author: str
    changes: int
    """How many there are: their ids."""
    amount_femto: int | Fraction


def corrections_of_customer(client: StoreClient, customer: str, start_s: int, end_s: int) -> list[Corrected]:
    """In windows that start in [start_s, end_s), by kind, reason and author. Raises StoreError."""
    found = client.rows(
        "SELECT toString(kind), toString(reason), toString(author), uniqExact(id), "
        "sum(toInt256(reinterpret(amount, 'Int128'))), sum(toUInt256(amount_remainder)) FROM corrections "
        "WHERE customer = {customer:String} AND window_start >= toDateTime({start_s:UInt32}, 'UTC') "
        "AND window_start < toDateTime({end_s:UInt32}, 'UTC') "
        "GROUP BY kind, reason, author ORDER BY kind, reason, author",
        {"customer": customer, "start_s": start_s, "end_s": end_s},
    )
    return [
        Corrected(kind, reason, author, int(changes), int(whole) + Fraction(int(parts), PER_OF_ALL))
        for kind, reason, author, changes, whole, parts in found
    ]
