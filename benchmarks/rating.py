"""Rating alone: Tallyflow's Rater beside DuckDB (range joins, one thread) and Python's decimal, on the same events.

    python benchmarks/rating.py [--events 2000000] [--repeat 3]

The book has 20,000 prices: 750 models in two service tiers, four meters, three context tiers, and a price change in
the middle of the events; 1,000 customers have prices of their own for one model each, and half of them a percentage.
Customers and models are drawn by Zipf's law, so that tens of thousands of combinations are met. All sides must come to
the same sum. Figures are nanoseconds an event and meter of wall time, the median of interleaved runs; the time to read
and compile the book, and to meet each combination first, is told apart. Python rates every hundredth event.
"""

import argparse
import sys
import time
from bisect import bisect_right
from datetime import UTC, datetime
from decimal import Decimal
from statistics import median
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from figures import PEERS, Chart, Figure, Look, keep, parser
from rich.console import Console
from rich.table import Table

from flow.kernels import Verdicts, identify
from flow.prices.book import PriceBook, parse_price_book
from flow.schema import DIMENSIONS, EVENTS
from flow.steps.batches import Rejects
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rater
from flow.steps.route import Routed

MODELS, CUSTOMERS, OVERRIDES = 750, 2_000, 1_000
METERS = ("input_tokens", "cached_input_tokens", "cache_write_tokens", "output_tokens")
PROMPT = METERS[:3]
TIERS = ("standard", "batch")
EDGES = (128_000, 200_000)
BATCH_ROWS = 65_536
START_US = 1_790_000_000_000_000
SPAN_US = 86_400_000_000
CHANGE_US = START_US + SPAN_US // 2

Row = tuple[str | None, str, str | None, str, int, tuple[int, int, int]]
"""Customer, model, service tier, meter, from, and the price for 10^9 units in each context tier, in 10^-6 dollars."""


def price_rows() -> list[Row]:
    """The book, as plain rows."""
    rows: list[Row] = []
    for model in range(MODELS):
        for t, tier in enumerate(TIERS):
            for m, meter in enumerate(METERS):
                for n, from_us in enumerate((0, CHANGE_US)):
                    base = (100 + model) * (m + 1) * (2 - t) * 1_000_000 + 100 * n
                    rows.append((None, f"model-{model:04d}", tier, meter, from_us, (base, 2 * base, 3 * base)))
    for number in range(OVERRIDES):
        for m, meter in enumerate(METERS):
            base = (90 + number) * (m + 1) * 1_000_000
            rows.append(
                (f"customer-{number:04d}", f"model-{number % 50:04d}", None, meter, 0, (base, 2 * base, 3 * base))
            )
    return rows


def book_of(rows: list[Row]) -> PriceBook:
    """The same as a price book. An override holds for the standard tier and the batch tier alike."""
    lines = ["currency: USD", "prices:"]
    for customer, model, tier, meter, from_us, (low, middle, high) in rows:
        instant = datetime.fromtimestamp(from_us // 1_000_000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        above = f'above: [{{above: {EDGES[0]}, price: "{middle}e-6"}}, {{above: {EDGES[1]}, price: "{high}e-6"}}]'
        for of in (tier,) if customer is None else TIERS:
            names = f"model: {model}, service_tier: {of}" + (f", customer: {customer}" if customer else "")
            lines.append(
                f'  - {{{names}, meter: {meter}, from: {instant}, per: 1_000_000_000, price: "{low}e-6", {above}}}'
            )
    lines.append("adjustments:")
    lines += [
        f'  - {{customer: customer-{number:04d}, percent: "-10", from: 1970-01-01T00:00:00Z}}'
        for number in range(0, OVERRIDES, 2)
    ]
    return parse_price_book("\n".join(lines) + "\n", "book")


def make_events(events: int) -> pa.Table:
    """One row an event: time, customer, model, service tier, a quantity for each meter."""
    random = np.random.default_rng(11)

    def zipf(count: int) -> Any:
        shares = np.cumsum(1 / np.arange(1, count + 1) ** 1.1)
        return np.minimum(np.searchsorted(shares, random.random(events) * shares[-1]), count - 1)

    def named(name: str, numbers: Any, count: int) -> pa.Array:
        names = pa.array([f"{name}-{n:04d}" for n in range(count)])
        return pa.DictionaryArray.from_arrays(pa.array(numbers, pa.int32()), names)

    tiers = pa.DictionaryArray.from_arrays(pa.array((random.random(events) < 0.2).astype(np.int32)), pa.array(TIERS))
    sizes = {
        meter: random.integers(1, mean * 2, events)
        for meter, mean in zip(METERS, (60_000, 40_000, 9_000, 500), strict=True)
    }
    columns = {
        "event_time_us": pa.array(np.sort(START_US + random.integers(0, SPAN_US, events))),
        "customer": named("customer", zipf(CUSTOMERS), CUSTOMERS),
        "model": named("model", zipf(MODELS), MODELS),
        "service_tier": tiers,
        **{meter: pa.array(quantities) for meter, quantities in sizes.items()},
    }
    return pa.table(columns)


# ---- Tallyflow ----------------------------------------------------------------------------------------------------


def batches_of(events: pa.Table) -> list[Judged]:
    """Judged batches, as the step behind deduplication gets them; every row accepted."""
    judged = []
    for batch in events.to_batches(BATCH_ROWS):
        rows = batch.num_rows
        quantities = np.stack([batch.column(meter).to_numpy() for meter in METERS], axis=1).ravel()
        codes = pa.array(np.tile(np.arange(len(METERS), dtype=np.int32), rows))
        usage_type = EVENTS.field("usage").type
        items = pa.StructArray.from_arrays(
            [pa.DictionaryArray.from_arrays(codes, pa.array(METERS)), pa.array(quantities)],
            fields=list(usage_type.value_type),
        )
        nothing = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([""]))
        columns = dict.fromkeys(("source", *DIMENSIONS), nothing)
        columns |= {name: pa.concat_arrays([batch.column(name)]) for name in ("customer", "model", "service_tier")}
        columns |= {
            "id": pa.array([""] * rows),
            "event_time_us": pa.concat_arrays([batch.column("event_time_us")]),
            "usage": pa.ListArray.from_arrays(
                pa.array(np.arange(0, 4 * rows + 1, 4, dtype=np.int32)), items, type=usage_type
            ),
            "position": pa.array(np.arange(rows)),
        }
        made = pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)
        everything, empty = pa.py_buffer(np.arange(rows, dtype=np.uint32)), pa.allocate_buffer(0)
        verdicts = Verdicts(everything, rows, 0, empty, 0, empty, 0)
        routed = Routed("shard-000", "bench", made, identify(made), None, rows, Rejects("bench").batch())
        judged.append(Judged(routed, verdicts, 0))
    return judged


def sum_of(rater: Rater, batches: list[Judged]) -> int:
    """The sum of all amounts in 10^-15."""
    total = 0
    for batch in batches:
        halves = np.frombuffer(rater.rate(batch).amounts.amounts, np.uint64).reshape(-1, 2)
        # Amounts are below 2^63: the high halves are 0, and two 32-bit parts add up without overflow.
        assert not halves[:, 1].any(), "the workload's amounts fit 64 bits"
        total += int((halves[:, 0] & 0xFFFFFFFF).sum()) + (int((halves[:, 0] >> 32).sum()) << 32)
    return total


def run_tallyflow(rater: Rater, batches: list[Judged]) -> float:
    """Seconds; the amounts themselves are checked in `sum_of`."""
    begun = time.perf_counter()
    for batch in batches:
        rater.rate(batch)
    return time.perf_counter() - begun


# ---- DuckDB -------------------------------------------------------------------------------------------------------

DUCKDB = """
    SELECT sum(quantity * coalesce(own.rate, list.rate * (100 - coalesce(percent, 0)) // 100)) FROM (
        SELECT *, input_tokens + cached_input_tokens + cache_write_tokens AS context FROM events
    ) UNPIVOT (quantity FOR meter IN (input_tokens, cached_input_tokens, cache_write_tokens, output_tokens)) AS used
    JOIN list ON list.model = used.model AND list.tier = used.service_tier AND list.meter = used.meter
        AND event_time_us >= list.from_us AND event_time_us < list.to_us
        AND context >= list.low AND context < list.high
    LEFT JOIN own ON own.customer = used.customer AND own.model = used.model AND own.meter = used.meter
        AND context >= own.low AND context < own.high
    LEFT JOIN adjusted ON adjusted.customer = used.customer
"""


def open_duckdb(events: pa.Table, rows: list[Row]) -> duckdb.DuckDBPyConnection:
    """The events and prices as tables of native types."""
    connection = duckdb.connect()
    connection.execute("SET threads = 1")
    far = 2**62
    edges = [(0, EDGES[0] + 1), (EDGES[0] + 1, EDGES[1] + 1), (EDGES[1] + 1, far)]
    prices = [
        (customer, model, tier, meter, from_us, CHANGE_US if from_us == 0 and tier else far, *edge, rate)
        for customer, model, tier, meter, from_us, rates in rows
        for edge, rate in zip(edges, rates, strict=True)
    ]
    names = ("customer", "model", "tier", "meter", "from_us", "to_us", "low", "high", "rate")
    given = pa.table({name: [row[n] for row in prices] for n, name in enumerate(names)})
    wide = events.set_column(1, "customer", events["customer"].cast(pa.string()))
    wide = wide.set_column(2, "model", events["model"].cast(pa.string()))
    wide = wide.set_column(3, "service_tier", events["service_tier"].cast(pa.string()))
    adjusted = pa.table({"customer": [f"customer-{n:04d}" for n in range(0, OVERRIDES, 2)]})
    for name, table in (("given", given), ("wide", wide), ("ten", adjusted)):
        connection.register(name, table)
    connection.execute("CREATE TABLE events AS SELECT * FROM wide")
    connection.execute(
        "CREATE TABLE list AS SELECT * REPLACE (rate::HUGEINT AS rate) FROM given WHERE customer IS NULL"
    )
    connection.execute(
        "CREATE TABLE own AS SELECT * REPLACE (rate::HUGEINT AS rate) FROM given WHERE customer NOT NULL"
    )
    connection.execute("CREATE TABLE adjusted AS SELECT customer, 10 AS percent FROM ten")
    return connection


def run_duckdb(connection: duckdb.DuckDBPyConnection) -> tuple[float, int]:
    begun = time.perf_counter()
    found = connection.execute(DUCKDB).fetchone()
    assert found is not None, "a sum without groups is one row"
    return time.perf_counter() - begun, int(found[0])


# ---- Python -------------------------------------------------------------------------------------------------------


def run_python(events: list[dict[str, Any]], rows: list[Row]) -> tuple[float, int]:
    """As one would write it: a dict by names, a bisected list of instants, Decimal."""
    steps: dict[tuple[str | None, str, str | None, str], list[tuple[int, list[Decimal]]]] = {}
    for customer, model, tier, meter, from_us, rates in rows:
        found = steps.setdefault((customer, model, tier, meter), [])
        found.append((from_us, [Decimal(rate).scaleb(-15) for rate in rates]))
    adjusted = {f"customer-{n:04d}": Decimal("0.9") for n in range(0, OVERRIDES, 2)}
    total, one = Decimal(0), Decimal(1)
    begun = time.perf_counter()
    for event in events:
        context = sum(event[meter] for meter in PROMPT)
        for meter in METERS:
            own = steps.get((event["customer"], event["model"], None, meter))
            found = own or steps[None, event["model"], event["service_tier"], meter]
            at = bisect_right(found, event["event_time_us"], key=lambda step: step[0]) - 1
            rate = found[at][1][bisect_right(EDGES, context - 1)]
            factor = one if own else adjusted.get(event["customer"], one)
            total += event[meter] * rate * factor
    return time.perf_counter() - begun, int(total.scaleb(15))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=2_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    options = arguments.parse_args()
    rows, events = price_rows(), make_events(options.events)
    begun = time.perf_counter()
    book = book_of(rows)
    read_s = time.perf_counter() - begun
    batches, rater = batches_of(events), Rater(book)
    first_s = run_tallyflow(rater, batches)
    sum_femto = sum_of(rater, batches)
    connection = open_duckdb(events, rows)
    sample = events.take(np.arange(0, options.events, 100)).to_pylist()
    sample_femto = sum_of(rater, batches_of(events.take(np.arange(0, options.events, 100))))
    runs: dict[str, list[float]] = {"Tallyflow": [], "DuckDB, 1 thread": [], "Python, decimal": []}
    items = {
        "Tallyflow": options.events * 4,
        "DuckDB, 1 thread": options.events * 4,
        "Python, decimal": len(sample) * 4,
    }
    for _ in range(options.repeat):
        for side, several in runs.items():
            seconds, found = (
                (run_tallyflow(rater, batches), sum_femto)
                if side == "Tallyflow"
                else run_duckdb(connection)
                if side.startswith("Duck")
                else run_python(sample, rows)
            )
            if found != (sample_femto if side.startswith("Python") else sum_femto):
                raise SystemExit(f"{side} comes to {found}, and not to {sum_femto}, {sample_femto}")
            several.append(seconds)
    report({side: 10**9 * median(several) / items[side] for side, several in runs.items()}, options, len(book.prices))
    print(
        f"the book: {read_s:.1f} s to read and check; the first pass, which compiles and meets every combination: "
        f"{10**9 * first_s / items['Tallyflow']:.0f} ns an event and meter",
        file=sys.stderr,
    )


def report(nanoseconds: dict[str, float], options: argparse.Namespace, prices: int) -> None:
    """A table on the terminal and a dated JSON file."""
    table = Table(title=f"{options.events:,} events of {len(METERS)} meters, {prices:,} prices of three context tiers")
    for name in ("side", "ns an event and meter", "beside Tallyflow"):
        table.add_column(name, justify="left" if name == "side" else "right")
    of = nanoseconds["Tallyflow"]
    for side, taken in nanoseconds.items():
        table.add_row(side, f"{taken:.1f}", f"{taken / of:.1f}")
    Console().print(table)
    told = {side: round(taken, 2) for side, taken in nanoseconds.items()}
    result = {"events": options.events, "prices": prices, "ns_an_item": told}
    keep("rating", figures_of(result), result, options.results, charts_of(result))


def charts_of(result: dict[str, Any]) -> list[Chart]:
    """Cost of each side."""
    return [Chart(PEERS, Look.BARS, "rating alone", "ns an event and meter", {"ns": result["ns_an_item"]}, log=True)]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """Our throughput beside that of the others."""
    others = dict(result["ns_an_item"])
    ours = others.pop("Tallyflow")
    return [Figure(f"rating alone: throughput beside {side}", round(ns / ours, 2)) for side, ns in others.items()]


if __name__ == "__main__":
    main()
