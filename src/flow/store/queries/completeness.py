"""How far the store is in event time, and what of a customer's hours came when: what an estimate stands on."""

from dataclasses import dataclass
from fractions import Fraction

from ..client import StoreClient
from .view_rows import exact_femto


@dataclass(frozen=True, slots=True)
class Reach:
    """How far the blocks in the store go."""

    watermark_us: int
    """The earliest of all writers' last watermarks."""
    told_since_us: int
    """From this watermark on `arrivals` has all that came behind; 0: from the beginning."""


def reach_of_store(client: StoreClient) -> Reach | None:
    """None where no block has told a watermark. Raises StoreError."""
    # A first block after 1 is one behind blocks of an older version, which told nothing.
    ((writers, watermark_us, since_us),) = client.rows(
        "SELECT count(), min(last), max(since) FROM (SELECT toUnixTimestamp64Micro(max(watermark)) AS last, "
        "if(min(block) = 1, 0, toUnixTimestamp64Micro(min(watermark))) AS since "
        "FROM watermarks GROUP BY lineage, writer)"
    )
    return Reach(int(watermark_us), int(since_us)) if writers else None


def amounts_by_hour(client: StoreClient, customer: str, first_hour: int) -> dict[int, int]:
    """What each hour from `first_hour` on came to, in 10^-15 currency units rounded down, without what re-rating and
    late events have added since; hours are counted from 1970. Raises StoreError."""
    found = client.rows(
        """
SELECT intDiv(toUnixTimestamp(window_start), 3600) AS hour, reinterpret(sum(toDecimal256(amount, 15)), 'Int256')
FROM (
    SELECT window_start, amount FROM exact_usage_by_hour
    WHERE customer = {customer:String} AND window_start >= toDateTime({first_s:UInt32}, 'UTC')
    UNION ALL
    SELECT window_start, -amount FROM corrections
    WHERE customer = {customer:String} AND window_start >= toDateTime({first_s:UInt32}, 'UTC')
        AND kind IN ('rerate', 'late')
)
GROUP BY hour
""",
        {"customer": customer, "first_s": max(first_hour, 0) * 3600},
    )
    return {int(hour): int(amount_femto) for hour, amount_femto in found}


def came_behind(
    client: StoreClient, customer: str, first_hour: int, age_us: int, horizon_us: int
) -> dict[tuple[int, int], int]:
    """What came of each hour when it had ended for at least `age_us`: the amount in 10^-15 currency units by (hour, n),
    where n is how many whole hours longer it had ended.

    What came behind the horizon is left out: it came by `tallyflow late`, not by itself. Raises StoreError.
    """
    found = client.rows(
        """
WITH toUnixTimestamp64Micro(began) - (toUnixTimestamp(window_start) + 3600) * 1000000 AS ended_for_us
SELECT
    intDiv(toUnixTimestamp(window_start), 3600) AS hour,
    intDiv(ended_for_us - {age_us:Int64}, 3600000000) AS longer,
    reinterpret(sum(toDecimal256(amount, 15)), 'Int256')
FROM arrivals
WHERE customer = {customer:String} AND window_start >= toDateTime({first_s:UInt32}, 'UTC')
    AND ended_for_us >= {age_us:Int64} AND ended_for_us <= {horizon_us:Int64}
GROUP BY hour, longer
""",
        {"customer": customer, "first_s": max(first_hour, 0) * 3600, "age_us": age_us, "horizon_us": horizon_us},
    )
    return {(int(hour), int(longer)): int(amount_femto) for hour, longer, amount_femto in found}


def amounts_between(
    client: StoreClient, customer: str, start_s: int, first_s: int, second_s: int, end_s: int
) -> tuple[int | Fraction, int | Fraction, int | Fraction]:
    """What the hours from `start_s` to `end_s` came to, in 10^-15 currency units, exact: those before `first_s`, those
    from there to `second_s`, and those from there on. Raises StoreError."""
    found = client.rows(
        """
SELECT
    (toUnixTimestamp(window_start) >= {first_s:UInt32}) + (toUnixTimestamp(window_start) >= {second_s:UInt32}) AS part,
    reinterpret(sum(toDecimal256(amount, 15)), 'Int256'),
    sum(toUInt256(amount_remainder))
FROM exact_usage_by_hour
WHERE customer = {customer:String}
    AND window_start >= toDateTime({start_s:UInt32}, 'UTC') AND window_start < toDateTime({end_s:UInt32}, 'UTC')
GROUP BY part
""",
        {"customer": customer, "start_s": start_s, "first_s": first_s, "second_s": second_s, "end_s": end_s},
    )
    parts = {int(part): exact_femto(int(amount_femto), int(rest)) for part, amount_femto, rest in found}
    return parts.get(0, 0), parts.get(1, 0), parts.get(2, 0)
