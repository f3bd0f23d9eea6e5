"""The few lines that a person wants to see of a month, read from the day rollups without unfolding them."""

from dataclasses import dataclass
from decimal import Decimal

from ...schema import PER_OF_ALL
from ..client import StoreClient
from ..tables import SLOTS

_STORED = [f"reinterpret(a{slot}, 'Int128')" for slot in range(SLOTS)]
_PARTS = f"toInt256('{PER_OF_ALL}')"
_LARGEST = f"""
SELECT customer, sum(units) + intDiv(sum(parts) - positiveModulo(sum(parts), {_PARTS}), {_PARTS}) AS amount_femto
FROM (
    SELECT customer, {" + ".join(f"toInt256(sum({amount}))" for amount in _STORED)} AS units, toInt256(0) AS parts
    FROM rollup_day
    WHERE {{within}} AND position(meters, '/') = 0
    GROUP BY customer
    UNION ALL
    SELECT
        customer,
        toInt256(0) AS units,
        sum(toInt256(stored) * intDiv({_PARTS}, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))) AS parts
    FROM rollup_day
    ARRAY JOIN splitByChar(',', meters) AS name, [{", ".join(_STORED)}] AS stored
    WHERE {{within}} AND position(meters, '/') > 0
    GROUP BY customer
)
GROUP BY customer
ORDER BY amount_femto DESC, customer
LIMIT {{lines}}
"""
"""Rows of `meter/per`, whose amounts are in 10^-15 / per, are few: only they are unfolded."""


@dataclass(frozen=True)
class Month:
    """The latest month in the store."""

    month: str
    """As `2026-11`; empty where the store holds nothing."""
    customers: int
    largest: list[tuple[str, Decimal]]
    """(customer, amount rounded down to 10^-15), the largest first."""
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
    largest = client.rows(_LARGEST.format(within=within, lines=lines))
    slots = " + ".join(f"if(bitTest(unpriced, {slot}), toInt256(q{slot}), 0)" for slot in range(SLOTS))
    unpriced = client.rows(
        f"SELECT model, sum({slots}) AS quantity FROM rollup_minute WHERE {within} AND unpriced != 0 "
        f"GROUP BY model HAVING quantity != 0 ORDER BY quantity DESC, model LIMIT {lines}"
    )
    return Month(
        month,
        int(customers),
        [(str(name), Decimal(f"{amount_femto}e-15")) for name, amount_femto in largest],
        [(str(name), int(quantity)) for name, quantity in unpriced],
    )
