"""Usage without a price: by model, customer and meter, with the windows it lies in."""

from dataclasses import dataclass
from datetime import datetime

from ..client import StoreClient
from ..tables import SLOTS

_SLOTS = ", ".join(f"(names[{n + 1}], if(bitTest(unpriced, {n}), toInt256(q{n}), 0))" for n in range(SLOTS))


@dataclass(frozen=True, slots=True)
class Unpriced:
    """Usage of one meter, by one customer of one model."""

    model: str
    customer: str
    meter: str
    quantity: int
    first_window: datetime
    last_window: datetime


def unpriced_usage(
    client: StoreClient, from_s: int, before_s: int, customer: str | None = None, model: str | None = None
) -> list[Unpriced]:
    """In windows that start in [from_s, before_s): the largest models first, then customers and meters.

    What has been re-rated since is in no row. Raises StoreError.
    """
    names = "splitByChar(',', meters) AS names"
    sql = f"""
SELECT model, customer, meter, sum(of_window) AS quantity, min(window_start), max(window_start),
    sum(quantity) OVER (PARTITION BY model) AS of_model
FROM (
    SELECT model, customer, window_start, slot.1 AS meter, sum(slot.2) AS of_window
    FROM (
        SELECT *, {names} FROM rollup_minute
        WHERE unpriced != 0
            AND window_start >= toDateTime({{from_s:UInt32}}, 'UTC')
            AND window_start < toDateTime({{before_s:UInt32}}, 'UTC')
            AND (customer = {{customer:String}} OR {{everyone:UInt8}})
            AND (model = {{model:String}} OR {{every_model:UInt8}})
    )
    ARRAY JOIN [{_SLOTS}] AS slot
    GROUP BY model, customer, window_start, meter
    HAVING of_window != 0
)
GROUP BY model, customer, meter
ORDER BY of_model DESC, model, quantity DESC, customer, meter
"""
    found = client.rows(
        sql,
        {
            "from_s": from_s,
            "before_s": before_s,
            "customer": customer or "",
            "everyone": int(customer is None),
            "model": model or "",
            "every_model": int(model is None),
        },
    )
    return [Unpriced(str(row[0]), str(row[1]), str(row[2]), int(row[3]), row[4], row[5]) for row in found]
