"""The events made of each real trace have the totals of its truth file, to the last digit.

This adds up the columns that `tallyflow trace` writes; runs over them are tested with the same cases.
"""

import gzip
import json
from collections import Counter
from datetime import timedelta
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from flow.errors import ConfigError
from flow.prices.book import parse_price_book
from flow.traces import aider, azure, columnar_schema, mooncake, servegen
from flow.traces.write import write_events

from .cases import BASE_TIME, PLANS, PRICE_FILE_PLANS, TruthCase, truth_cases

CASES = truth_cases()
pytestmark = pytest.mark.skipif(not CASES, reason="the data folder is not there")

GRAINS = {"hour": "by_hour", "minute": "by_minute", "day": "by_day"}


def events_of(case: TruthCase) -> pa.Table:
    match case.kind:
        case "azure":
            batches = azure.events(case.data)
        case "mooncake":
            batches = mooncake.events(case.data)
        case "aider":
            batches = aider.events(case.data)
        case "servegen":
            batches = servegen.totals(case.data)
    return pa.Table.from_batches(batches)


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case_and_events(request: pytest.FixtureRequest) -> tuple[TruthCase, pa.Table]:
    return request.param, events_of(request.param)


def meters_of(table: pa.Table) -> list[str]:
    return [name for name in table.schema.names if pa.types.is_int64(table.schema.field(name).type)]


def grouped(case: TruthCase, table: pa.Table, key: pa.Array) -> dict[object, Counter[str]]:
    """Sums by the key: the requests, all input and all output of the truth, and each meter under its name."""
    columns = {meter: table[meter] for meter in meters_of(table)}
    sums = (
        pa.table({"key": key, **columns})
        .group_by("key")
        .aggregate([([], "count_all"), *((meter, "sum") for meter in columns)])
    )
    found: dict[object, Counter[str]] = {}
    for row in sums.to_pylist():
        of_key = Counter({meter: row[f"{meter}_sum"] or 0 for meter in columns})
        of_key["requests"] = row["count_all"]
        of_key["input"] = sum(of_key[meter] for meter in case.input_meters)
        of_key["output"] = sum(of_key[meter] for meter in case.output_meters)
        found[row["key"]] = of_key
    return found


def test_totals_are_the_truths(case_and_events: tuple[TruthCase, pa.Table]) -> None:
    case, table = case_and_events
    (sums,) = grouped(case, table, pa.repeat("all", table.num_rows)).values()
    assert {meter: sums[meter] for meter in case.totals} == case.totals
    ids = pc.binary_join_element_wise(table["source"].cast(pa.string()), table["id"], " ")
    assert pc.count_distinct(ids).as_py() == table.num_rows


def test_buckets_are_the_truths(case_and_events: tuple[TruthCase, pa.Table]) -> None:
    case, table = case_and_events
    checked = 0
    for grain, name in GRAINS.items():
        expected = getattr(case, name)
        if expected:
            found = grouped(case, table, pc.floor_temporal(table["time"], unit=grain))
            assert {start: as_truth(case, of) for start, of in found.items() if of[case.requests_meter]} == expected
            checked += 1
    assert checked


def as_truth(case: TruthCase, sums: Counter[str]) -> dict[str, int]:
    if case.kind == "servegen":
        return {"published_requests": sums["published_requests"]}
    return {"requests": sums["requests"], "input_tokens": sums["input"], "output_tokens": sums["output"]}


def test_customers_and_models_are_the_truths(case_and_events: tuple[TruthCase, pa.Table]) -> None:
    case, table = case_and_events
    if case.by_customer:
        found = grouped(case, table, table["customer"].cast(pa.string()))
        # A client whose data was not to be had may be absent from the events, with nothing to count.
        assert {
            customer: {meter: found.get(customer, Counter())[meter] for meter in expected}
            for customer, expected in case.by_customer.items()
        } == case.by_customer
        assert set(found) <= set(case.by_customer)
    if case.by_model:
        found = grouped(case, table, table["model"].cast(pa.string()))
        assert {model: as_truth(case, of) for model, of in found.items()} == case.by_model


def exact(amount: Fraction) -> Decimal:
    """The decimal that equals it; its denominator divides a power of ten."""
    with localcontext(prec=60):
        decimal = Decimal(amount.numerator) / Decimal(amount.denominator)
        assert Fraction(decimal) == amount
        return decimal


@pytest.mark.parametrize("plan", PLANS)
def test_charges_are_the_truths(case_and_events: tuple[TruthCase, pa.Table], plan: str) -> None:
    case, table = case_and_events
    (sums,) = grouped(case, table, pa.repeat("all", table.num_rows)).values()
    assert exact(case.charge(plan, sums["input"], sums["output"])) == case.expected_charge(plan)
    expected = case.expected_charges(plan)
    if expected:
        found = grouped(case, table, pc.floor_temporal(table["time"], unit=case.charge_grain))
        charges = {start: exact(case.charge(plan, of["input"], of["output"])) for start, of in found.items()}
        assert charges == expected


def case_named(name: str) -> TruthCase:
    found = [case for case in CASES if case.name == name]
    if not found:
        pytest.skip(f"the trace {name} is not there")
    return found[0]


def test_the_prefix_cache_is_the_truths() -> None:
    case = case_named("mooncake_conversation")
    table = events_of(case)
    truth = case.truth["prefix_cache"]
    sums = {meter: pc.sum(table[meter]).as_py() for meter in meters_of(table)}
    assert sums["cached_input_tokens"] == truth["cached_input_tokens"]
    assert pc.sum(pc.greater(table["cached_input_tokens"], 0)).as_py() == truth["requests_with_cached_input"]
    usd = truth["usd_per_million_tokens"]
    charge = sum(Fraction(price) * sums[f"{meter}_tokens"] for meter, price in usd.items()) / 10**6
    assert exact(charge) == Decimal(truth["charge_usd_exact"])


def test_context_tiers_of_single_requests_are_the_truths() -> None:
    for case in CASES:
        if "context_tier" in case.truth:
            tier = case.truth["context_tier"]
            charge, long_requests = Fraction(0), 0
            for row in events_of(case).select([*case.input_meters, "output_tokens"]).to_pylist():
                tokens = sum(row[meter] for meter in case.input_meters)
                long = tokens > tier["threshold_input_tokens"]
                usd = tier["long" if long else "short"]
                charge += Fraction(usd["input"]) * tokens + Fraction(usd["output"]) * row["output_tokens"]
                long_requests += long
            assert long_requests == tier["long_requests"]
            assert exact(charge / 10**6) == Decimal(tier["charge_usd_exact"])


def test_ids_by_content_make_repeats_duplicates() -> None:
    case = case_named("aider_usage_early")
    table = pa.Table.from_batches(aider.events(case.data, ids="content"))
    assert table.num_rows == case.truth["requests"]
    assert table.num_rows - pc.count_distinct(table["id"]).as_py() == case.truth["identical_events"]
    # And nothing else is: events of one id are equal in all columns.
    distinct = table.group_by(table.schema.names).aggregate([])
    assert distinct.num_rows == pc.count_distinct(table["id"]).as_py()


@pytest.mark.parametrize("case", [case for case in CASES if case.kind == "servegen"], ids=lambda case: case.name)
def test_scale_1_asks_for_the_published_requests_of_each_client_and_window(case: TruthCase) -> None:
    # Billions of requests, so counted without making them; the next test makes those of the smallest trace.
    per_hour: Counter[int] = Counter()
    clients = servegen.read(case.data)
    for client in clients:
        scaled = servegen.scaled_requests(client, Fraction(1))
        assert scaled == client.requests
        assert sum(scaled) == case.by_customer[client.name].get("published_requests", 0)
        for start_s, requests in zip(client.starts_s, scaled, strict=True):
            per_hour[start_s // 3600] += requests
    assert len(clients) == case.truth["clients"]
    assert {
        BASE_TIME + timedelta(hours=hour): {"published_requests": n} for hour, n in per_hour.items()
    } == case.by_hour


def test_drawn_requests_at_scale_1_are_the_published_ones() -> None:
    case = case_named("servegen_reason_even")
    published, in_histograms = Counter[tuple[str, int]](), dict[tuple[str, str], set[int]]()
    with gzip.open(case.data, "rt") as lines:
        for line in map(json.loads, lines):
            if line["kind"] == "arrivals":
                published.update({(line["client"], row[0]): row[1] for row in line["rows"]})
            elif line["field"] != "reason_ratio":
                values = in_histograms.setdefault((line["client"], line["field"]), set())
                values.update(value for value, _ in line["counts"])
    table = pa.Table.from_batches(servegen.events(case.data, seed=3))
    start_s = pc.divide(pc.subtract(table["time"].cast(pa.int64()), int(BASE_TIME.timestamp()) * 10**6), 600 * 10**6)
    keys = pa.table({"client": table["customer"].cast(pa.string()), "start_s": pc.multiply(start_s, 600)})
    counted = keys.group_by(["client", "start_s"]).aggregate([([], "count_all")]).to_pylist()
    assert Counter({(row["client"], row["start_s"]): row["count_all"] for row in counted}) == published
    assert pc.all(pc.less_equal(table["time"][:-1], table["time"][1:])).as_py()
    # Every token count occurs in a histogram of its client, and means are near the histograms'.
    output = pc.add(table["output_tokens"], table["reasoning_tokens"])
    for name, drawn in (("input_tokens", table["input_tokens"]), ("output_tokens", output)):
        distinct = pa.table({"c": keys["client"], "v": drawn}).group_by(["c", "v"]).aggregate([]).to_pylist()
        assert all(row["v"] in in_histograms[row["c"], name] for row in distinct)
        published_mean = Fraction(case.totals[name], case.totals[f"samples_{name}"])
        assert abs(Fraction(pc.sum(drawn).as_py(), table.num_rows) / published_mean - 1) < Fraction(1, 50)


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    case = case_named("servegen_reason_even")
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        batches = servegen.events(case.data, seed=seed, scale=Fraction(1, 50))
        write_events(batches, tmp_path / f"{name}.parquet")
    a, b, c = ((tmp_path / f"{name}.parquet").read_bytes() for name in "abc")
    assert a == b != c


def test_a_small_scale_takes_the_nearest_whole_number_of_each_client() -> None:
    case = case_named("servegen_reason_even")
    table = pa.Table.from_batches(servegen.events(case.data, scale=Fraction(1, 7)))
    counts = Counter(table["customer"].cast(pa.string()).to_pylist())
    for client, published in case.by_customer.items():
        assert abs(Fraction(published["published_requests"], 7) - counts[client]) <= Fraction(1, 2)


def test_every_trace_is_in_the_columnar_form(case_and_events: tuple[TruthCase, pa.Table]) -> None:
    _, table = case_and_events
    table.validate(full=True)
    assert table.schema == columnar_schema(meters_of(table))
    quantities = table.select(meters_of(table))
    for column in quantities.columns:
        assert pc.min(column).as_py() >= 0 if column.null_count < len(column) else True
    present = np.zeros(table.num_rows, dtype=bool)
    for column in quantities.columns:
        present |= column.is_valid().to_numpy()
    assert present.all()


def test_plans_a_and_b_can_be_price_files_and_plan_c_cannot(
    case_and_events: tuple[TruthCase, pa.Table],
) -> None:
    case, table = case_and_events
    for plan in PRICE_FILE_PLANS:
        book = parse_price_book(case.prices(plan), plan)
        assert book.meters == {*case.input_meters, *case.output_meters}
        assert set(meters_of(table)) <= book.meters | book.unbilled
    with pytest.raises(ConfigError, match=r"1\.142857142857143"):
        parse_price_book(case.prices("C"), "C")
