"""Where the storage tables contradict each other, which the views alone may not show; for `tallyflow verify`."""

from ..client import StoreClient
from ..tables import SLOTS
from .view_rows import CustomerRange

_DAY_MEANING = "feature, region, service_tier, currency, meters, unpriced"
_MINUTE_MEANING = f"project, model, {_DAY_MEANING}"
_SUMS = ["events", "digest", *(f"{letter}{slot}" for letter in "qa" for slot in range(SLOTS))]


def day_disagreements(
    client: StoreClient, customers: CustomerRange, first_s: int, before_s: int, rows_max: int
) -> list[tuple[str, int, str, str, str]]:
    """(customer, day in seconds, column, sum of rollup_minute, sum of rollup_day) where the two differ.

    The tables tell different dimensions apart, but a customer's day adds up to the same in both. Days that start in
    [first_s, before_s); at most `rows_max` customers and days. Raises StoreError.
    """
    where = (
        f"WHERE {customers.CONDITION} AND window_start >= toDateTime({{first_s:UInt32}}, 'UTC') "
        "AND window_start < toDateTime({before_s:UInt32}, 'UTC')"
    )
    values = [f"reinterpret({name}, 'Int128') AS {name}" if name[0] == "a" else name for name in _SUMS]
    wide = [name if name == "digest" else f"toInt256({name})" for name in _SUMS]
    sides = [
        f"SELECT customer, {start} AS start, {side} AS of_minutes, {', '.join(values)} FROM {table} {where}"
        for table, side, start in (
            ("rollup_minute", 1, "toStartOfDay(window_start)"),
            ("rollup_day", 0, "window_start"),
        )
    ]
    pairs = [
        f"sumIf({value}, of_minutes) AS minute_{name}, sumIf({value}, NOT of_minutes) AS day_{name}"
        for name, value in zip(_SUMS, wide, strict=True)
    ]
    differ = " OR ".join(f"minute_{name} != day_{name}" for name in _SUMS)
    shown = ", ".join(f"toString(minute_{name}), toString(day_{name})" for name in _SUMS)
    found = client.rows(
        f"SELECT customer, toUnixTimestamp(start), {shown} FROM "
        f"(SELECT customer, start, {', '.join(pairs)} FROM ({' UNION ALL '.join(sides)}) "
        f"GROUP BY customer, start HAVING {differ}) ORDER BY customer, start LIMIT {{rows_max:UInt32}}",
        {**customers.parameters, "first_s": first_s, "before_s": before_s, "rows_max": rows_max},
    )
    return [
        (str(row[0]), int(row[1]), name, str(minute), str(day))
        for row in found
        for name, minute, day in zip(_SUMS, row[2::2], row[3::2], strict=True)
        if minute != day
    ]


def ambiguous_keys(client: StoreClient, customers: CustomerRange, rows_max: int) -> list[tuple[str, str, int]]:
    """(customer, key in hex, how many meanings) of keys whose rows say different things. Raises StoreError."""
    meanings = [
        f"SELECT customer, key, sipHash128({meaning}) AS meaning FROM {table} WHERE {customers.CONDITION}"
        for table, meaning in (("rollup_minute", _MINUTE_MEANING), ("rollup_day", _DAY_MEANING))
    ]
    found = client.rows(
        f"SELECT customer, lower(hex(key)), uniqExact(meaning) AS meanings FROM ({' UNION ALL '.join(meanings)}) "
        "GROUP BY customer, key HAVING meanings > 1 ORDER BY customer, key LIMIT {rows_max:UInt32}",
        {**customers.parameters, "rows_max": rows_max},
    )
    return [(str(customer), str(key), int(meanings)) for customer, key, meanings in found]


def accepted_by_writer(client: StoreClient, lineage: str) -> dict[str, int]:
    """How many events each writer of a lineage has accepted, by its balance. Raises StoreError."""
    found = client.rows(
        "SELECT writer, sum(accepted) FROM pipeline_balance WHERE lineage = {lineage:String} GROUP BY writer",
        {"lineage": lineage},
    )
    return {str(writer): int(accepted) for writer, accepted in found}


def customer_rows(client: StoreClient) -> dict[str, int]:
    """Each customer in the storage tables, with its number of minute rows. Raises StoreError."""
    found = client.rows(
        "SELECT customer, sum(minutes) FROM (SELECT customer, 1 AS minutes FROM rollup_minute "
        "UNION ALL SELECT customer, 0 AS minutes FROM rollup_day) GROUP BY customer"
    )
    return {str(customer): int(rows) for customer, rows in found}
