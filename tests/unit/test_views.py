"""The public views against plain Python sums on every grain; overflow; what a filter reads."""

import random
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from flow.errors import StoreError
from flow.schema import PER_OF_ALL, meter_and_per
from flow.store import StoreClient

GRAINS = ("minute", "hour", "day", "week", "month")
FIVE = ("project", "feature", "model", "region", "service_tier")
DIMENSIONS = {
    "minute": FIVE,
    "hour": FIVE,
    "day": FIVE,
    "week": ("feature", "service_tier"),
    "month": ("feature", "service_tier", "region"),
}
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
Insert = Callable[[str, list[dict[str, Any]]], None]
NO_DIMENSIONS = dict.fromkeys(FIVE, "")


def seconds(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)


def start_of(grain: str, at_s: int) -> int:
    """The independent truth about windows: datetime arithmetic, no SQL."""
    at = EPOCH + timedelta(seconds=at_s)
    day = at.replace(hour=0, minute=0, second=0)
    start = {
        "minute": at.replace(second=0),
        "hour": at.replace(minute=0, second=0),
        "day": day,
        "week": day - timedelta(days=day.weekday()),
        "month": day.replace(day=1),
    }[grain]
    return (start - EPOCH) // timedelta(seconds=1)


def key_row(customer: str, key: int, meters: list[str], unpriced: int = 0, **dimensions: str) -> dict[str, Any]:
    padded = meters + [""] * (4 - len(meters))
    row = {"customer": customer, "key": key, "currency": "USD", "meters": padded, "unpriced": unpriced}
    return {**NO_DIMENSIONS, **row, **dimensions}


def view_rows(client: StoreClient, grain: str) -> dict[tuple[Any, ...], tuple[int, ...]]:
    columns = ", ".join(DIMENSIONS[grain])
    found = client.rows(
        f"SELECT toUInt32(window_start), customer, {columns}, meter, currency, quantity, "
        f"reinterpret(amount, 'Int128'), events, unpriced_quantity, digest FROM usage_by_{grain}"
    )
    answer = {tuple(row[:-5]): tuple(row[-5:]) for row in found}
    assert len(answer) == len(found), "a window, its dimensions and a meter stand in one row only"
    return answer


def random_usage(seed: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Keys, several of the same dimensions, and minute rows around ends of periods."""
    rng = random.Random(seed)
    keys = []
    for number in range(24):
        chosen = rng.sample(["input_tokens", "output_tokens", "reasoning_tokens", "images"], rng.randint(1, 3))
        meters = ["requests", *chosen] if number % 3 else chosen
        keys.append(
            key_row(
                rng.choice(["acme", "globex"]),
                rng.getrandbits(128),
                meters,
                rng.choice([0, 0, 2, 5]),
                project=rng.choice("pq"),
                feature=rng.choice(["chat", "search"]),
                model=rng.choice("mn"),
                region=rng.choice(["eu", "us"]),
                service_tier=rng.choice(["standard", ""]),
            )
        )
    instants = [
        seconds(text) + offset
        for text in (
            "2024-02-29T00:00",
            "2024-03-01T00:00",
            "2026-01-01T00:00",
            "2026-11-02T00:00",
            "2105-12-31T23:00",
        )
        for offset in (-60, 0, 60, 3600)
    ]
    rows = [
        {
            **key,
            "window_start": rng.choice(instants),
            "events": rng.randint(1, 9),
            "digest": rng.getrandbits(128),
            **{f"q{slot}": rng.randint(0, 2**70) for slot, meter in enumerate(key["meters"]) if meter},
            **{f"a{slot}": rng.randint(0, 2**90) for slot, meter in enumerate(key["meters"]) if meter},
        }
        for key in rng.choices(keys, k=200)
    ]
    return keys, rows


def expected(
    grain: str, keys: list[dict[str, Any]], rows: list[dict[str, Any]]
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    by_key = {(key["customer"], key["key"]): key for key in keys}
    sums: dict[tuple[Any, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0, 0])
    for row in rows:
        key = by_key[row["customer"], row["key"]]
        for slot, meter in enumerate(key["meters"]):
            if meter:
                dimensions = tuple(key[name] for name in DIMENSIONS[grain])
                place = (start_of(grain, row["window_start"]), row["customer"], *dimensions, meter, "USD")
                quantity = row[f"q{slot}"]
                unpriced = quantity if key["unpriced"] >> slot & 1 else 0
                added = (quantity, row[f"a{slot}"], row["events"], unpriced, row["digest"])
                sums[place] = [a + b for a, b in zip(sums[place], added, strict=True)]
    return {place: (*found[:4], found[4] % 2**128) for place, found in sums.items()}


def test_every_grain_adds_up_like_plain_python(client: StoreClient, insert_rows: Insert) -> None:
    # given rows in several blocks, and the day's rows apart from the minute's
    keys, rows = random_usage(seed=1)
    days = [{**row, "window_start": start_of("day", row["window_start"])} for row in rows]
    for block in range(0, len(rows), 50):
        insert_rows("rollup_minute", rows[block : block + 50])
        insert_rows("rollup_day", days[block : block + 50])
    # when the views are read, before and after the parts are merged, then both are the plain sums
    for step in ("as inserted", "merged"):
        for grain in GRAINS:
            assert view_rows(client, grain) == expected(grain, keys, rows), (step, grain)
        for table in ("rollup_minute", "rollup_day"):
            client.command(f"OPTIMIZE TABLE {table} FINAL")


def test_the_views_have_the_columns_of_the_contract(client: StoreClient) -> None:
    for grain in GRAINS:
        found = client.rows(f"DESCRIBE usage_by_{grain}")
        types = {
            name: column.removeprefix("LowCardinality(").rstrip(")") if "Low" in column else column
            for name, column, *_ in found
        }
        assert types == {
            "window_start": "DateTime('UTC')",
            "customer": "String",
            **dict.fromkeys(DIMENSIONS[grain], "String"),
            "meter": "String",
            "quantity": "Int128",
            "amount": "Decimal(38, 15)",
            "currency": "String",
            "events": "UInt64",
            "unpriced_quantity": "Int128",
            "digest": "UInt128",
        }


def test_amounts_in_finer_units_are_divided_behind_the_sum(client: StoreClient, insert_rows: Insert) -> None:
    # given one meter under several names, with credits among the amounts, on two days
    rng = random.Random(3)
    pers = (1, 2, 3, 7, 81, 73 * 81, 256 * 625, 3 * 7 * 11 * 13 * 17 * 19)
    assert not any(PER_OF_ALL % per for per in pers)
    rows = []
    for number in range(120):
        per = rng.choice(pers)
        key = key_row(rng.choice(["acme", "globex"]), number, ["requests", f"tokens/{per}" if per > 1 else "tokens"])
        day = seconds(rng.choice(["2026-11-02T00:00", "2026-11-03T00:00"]))
        rows.append({**key, "window_start": day, "q1": 1, "a1": rng.choice([1, -1]) * rng.randrange(2**100)})
    for table in ("rollup_minute", "rollup_day"):
        insert_rows(table, rows[:50])
        insert_rows(table, rows[50:])
    for grain in (*GRAINS, "day_coarse"):
        # when the exact view is read, then amount and remainder are the sum of the fractions, by hand
        sums: dict[tuple[str, int], Fraction] = defaultdict(Fraction)
        for row in rows:
            start = start_of("day" if grain == "day_coarse" else grain, row["window_start"])
            sums[row["customer"], start] += Fraction(row["a1"], meter_and_per(row["meters"][1])[1])
        found = client.rows(
            "SELECT customer, toUInt32(window_start), reinterpret(amount, 'Int128'), amount_remainder, quantity "
            f"FROM exact_usage_by_{grain} WHERE meter = 'tokens'"
        )
        assert {(row[0], row[1]): row[2] + Fraction(row[3], PER_OF_ALL) for row in found} == sums
        assert all(0 <= remainder < PER_OF_ALL for *_, remainder, _ in found)
        assert sum(quantity for *_, quantity in found) == 120
        meters = client.rows(f"SELECT DISTINCT meter FROM exact_usage_by_{grain} ORDER BY meter")
        assert meters == [("requests",), ("tokens",)]


@pytest.mark.parametrize(
    ("column", "error"), [("q0", "cannot be safely converted"), ("a0", "Decimal convert overflow")]
)
def test_a_sum_past_128_bits_is_an_error_and_never_wraps(
    client: StoreClient, insert_rows: Insert, column: str, error: str
) -> None:
    # given rows beyond the limit of a block, as if very many blocks had come (a merge would wrap)
    client.command("SYSTEM STOP MERGES rollup_day")
    at = seconds("2026-11-02T00:00")
    row = {**key_row("acme", 1, ["input_tokens"]), "window_start": at, "events": 1, column: 2**127 - 1}
    insert_rows("rollup_day", [row])
    assert view_rows(client, "month")
    insert_rows("rollup_day", [row])
    for grain in ("week", "month"):
        with pytest.raises(StoreError, match=error):
            view_rows(client, grain)
    client.command("SYSTEM START MERGES rollup_day")


@pytest.mark.parametrize(
    ("table", "grains"), [("rollup_minute", ["minute", "hour", "day"]), ("rollup_day", ["week", "month"])]
)
def test_a_filter_on_customer_and_time_reads_no_other_granules(
    client: StoreClient, table: str, grains: list[str]
) -> None:
    # given 300 customers in two months, in parts of several granules each
    client.command(
        f"INSERT INTO {table} (customer, window_start, key, currency, meters, events, digest, q0, a0) "
        "SELECT 'customer-' || leftPad(toString(number % 300), 3, '0'), "
        "toDateTime('2026-10-01 00:00:00', 'UTC') + 86400 * (intDiv(number, 300) % 61), "
        "number, 'USD', 'input_tokens,,,', 1, 1, 1, 1 "
        "FROM numbers(300000) SETTINGS max_partitions_per_insert_block = 0"
    )
    customer = "customer = 'customer-123'"
    first_month = "window_start >= '2026-10-01 00:00:00' AND window_start < '2026-11-01 00:00:00'"
    # when a view is asked for one customer, then about one granule a part is read
    for grain, (where, month_parts) in product(grains, ((customer, 2), (f"{customer} AND {first_month}", 1))):
        sql = f"SELECT feature, sum(amount) FROM usage_by_{grain} WHERE {where} GROUP BY feature"
        plan = [line.strip() for (line,) in client.rows(f"EXPLAIN indexes = 1 {sql}")]
        granules = _granules_by_table(plan)
        assert granules[table] <= 2 * month_parts < _granules(client, table) / 4
    # and the sums are right nevertheless
    for grain in grains:
        assert client.rows(f"SELECT sum(quantity) FROM usage_by_{grain} WHERE {customer}") == [(1000,)]


def _granules_by_table(plan: list[str]) -> Counter[str]:
    read: Counter[str] = Counter()
    table = ""
    for line in plan:
        if "ReadFromMergeTree (" in line:
            table = line.split("(")[1].rstrip(")").split(".")[1]
        if line.strip("│ ").startswith("Parts: ") and "Granules: " in line:
            read[table] += int(line.split("Granules: ")[1])
    return read


def _granules(client: StoreClient, table: str) -> int:
    found = f"database = currentDatabase() AND table = '{table}' AND active"
    sql = f"SELECT sum(marks) FROM system.parts WHERE {found}"
    return int(client.rows(sql)[0][0])


@pytest.mark.parametrize(
    ("instant", "week", "month"),
    [
        ("2024-12-29T23:59", "2024-12-23", "2024-12-01"),  # the last Sunday of a year
        ("2024-12-30T00:00", "2024-12-30", "2024-12-01"),  # a Monday whose week ends in the next year
        ("2025-01-01T00:00", "2024-12-30", "2025-01-01"),
        ("2024-02-29T12:00", "2024-02-26", "2024-02-01"),  # a leap day
        ("2026-11-02T00:00", "2026-11-02", "2026-11-01"),  # the very beginning of a week
        ("2026-11-01T23:59", "2026-10-26", "2026-11-01"),
        ("2100-03-01T00:00", "2100-03-01", "2100-03-01"),  # 2100 has no leap day
    ],
)
def test_weeks_begin_on_monday_and_months_on_the_first(
    client: StoreClient, insert_rows: Insert, instant: str, week: str, month: str
) -> None:
    day = start_of("day", seconds(instant))
    insert_rows("rollup_day", [{**key_row("acme", 1, ["requests"]), "window_start": day, "events": 1, "q0": 1}])
    for grain, start in (("week", week), ("month", month)):
        found = client.rows(f"SELECT toString(window_start), quantity, amount FROM usage_by_{grain}")
        assert found == [(f"{start} 00:00:00", 1, Decimal(0))]
