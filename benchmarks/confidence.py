"""How often the interval of an open invoice held: real traces, replayed in the order in which late reporters tell them.

    python benchmarks/confidence.py [--data DIR] [--events 30000] [--customers 5] [--seed 1]

Real traces say when each request was, and not when it was reported. So each event gets a delay, drawn from a seed:

- seconds: every event is reported after some seconds (exponential, 15 s on average);
- heavy tail: half of them within a minute, one in thirty after more than an hour (log-normal);
- outages: as `seconds`, but a client is cut off now and then for some hours, and then catches up;
- uploads: as `seconds`, but every second client sends what it has every six hours.

The events go through the steps of a run (decode, route, deduplicate, rate, combine) in the order of their reports, a
block for every five minutes, and `arrivals` and the rollups of those blocks are all that is used then. For each of the
largest customers, at every hour that has enough past behind it and a whole horizon ahead, and 20 minutes past
that hour, the interval is made of what was known then, and held against what came until the horizon. Printed are how
often it held, how wide it is (the mean, the median, and what nine of ten do not exceed, as a share of the customer's
amount until then), and how much really came later, as such a share. Moments without an interval are those whose past is
too short.

That nine of ten intervals hold is promised of all, for each real trace, delays and age: exit code 1 if not so. Many are
just 0, where nothing ever came behind, and hold. So those are counted apart, too, that are not 0, or were 0 and
something came ("not 0"): they are picked by how they ended, so that of each kind fewer than nine of ten may hold.

Without --data: synthetic events of 14 days, more by day than by night, of customers of very different size. Of these
nothing is promised, and nothing fails: with the heavy tail 85 to 86 % of the intervals hold.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from figures import Figure, keep, parser
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from flow.kernels.fingerprints import FingerprintSet
from flow.prices.book import parse_price_book
from flow.statements.estimate import PAST_HOURS
from flow.statements.still_to_come import CONFIDENCE, Development, Past, interval_at
from flow.steps.batches import Columns, Limits
from flow.steps.combine import BlockBuilder
from flow.steps.decode import decode
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rater
from flow.steps.route import route
from flow.traces import BASE_TIME, aider, build_batch, columnar_schema, servegen

SECOND_US, HOUR_US = 1_000_000, 3_600_000_000
HORIZON_US = 72 * HOUR_US
BLOCK_US = 300 * SECOND_US
MINUTES_PAST = (0, 20)
MOMENTS_MAX = 250
"""Of a customer, about; a trace of many months is asked at every so many hours, an odd number of them."""
PRICES = """
currency: USD
prices:
  - {meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
  - {meter: output_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "2.40"}
"""
Times = NDArray[np.int64]
Events = pa.Table
"""Columns `time`, `customer`, `id`, `source`, `input_tokens`, `output_tokens`, in the order of `time`."""


# ---- Events, and when they are reported ---------------------------------------------------------------------------


def traces(data: Path | None, events: int, seed: int) -> Iterator[tuple[str, Events]]:
    if data is None:
        yield "synthetic", synthetic(events, seed)
        return
    for name, requests in (("servegen_m_small", 1_420_558_786), ("servegen_m_mid", 2_165_253_970)):
        batches = servegen.events(data / f"{name}.jsonl.gz", seed=seed, scale=Fraction(events, requests))
        yield name, whole(batches)
    yield "aider_usage_early", whole(aider.events(data / "aider_usage_early.jsonl.gz"))


def whole(batches: Iterator[pa.RecordBatch]) -> Events:
    names = ["id", "source", "time", "customer", "input_tokens", "output_tokens"]
    table = pa.Table.from_batches([batch.select(names) for batch in batches]).combine_chunks()
    return table.sort_by("time")


def synthetic(events: int, seed: int) -> Events:
    """14 days, busier by day than by night, of customers of very different size."""
    random = np.random.default_rng(seed)
    hours = np.arange(14 * 24)
    weights = 1.0 + 0.8 * np.sin(hours * (2 * np.pi / 24))
    at = random.choice(hours, events, p=weights / weights.sum()) * HOUR_US + random.integers(0, HOUR_US, events)
    times = int(BASE_TIME.timestamp()) * SECOND_US + np.sort(at)
    sizes = 1.0 / np.arange(1, 41)
    customers = random.choice(40, events, p=sizes / sizes.sum())
    text = pa.dictionary(pa.int32(), pa.string())
    columns = {
        "id": pa.array([str(n) for n in range(events)]),
        "source": pa.array(["synthetic"] * events).cast(text),
        "time": pa.array(times).cast(pa.timestamp("us", tz="UTC")),
        "customer": pa.array([f"c{n:02d}" for n in customers]).cast(text),
        "input_tokens": pa.array(random.lognormal(7, 1.2, events).astype(np.int64)),
        "output_tokens": pa.array(random.lognormal(5, 1.0, events).astype(np.int64)),
    }
    meters = ["input_tokens", "output_tokens"]
    return whole(iter([build_batch(columnar_schema(meters), events, columns)]))


def seconds(random: np.random.Generator, times: Times, clients: Times) -> Times:
    return (random.exponential(15, len(times)) * SECOND_US).astype(np.int64)


def heavy_tail(random: np.random.Generator, times: Times, clients: Times) -> Times:
    return np.minimum(random.lognormal(np.log(60), 2.2, len(times)) * SECOND_US, 0.9 * HORIZON_US).astype(np.int64)


def outages(random: np.random.Generator, times: Times, clients: Times) -> Times:
    delays = seconds(random, times, clients)
    for client in np.unique(clients):
        at, of_client = int(times[0]), clients == client
        while at < times[-1]:
            begin = at + int(random.exponential(24) * HOUR_US)
            end = begin + int(random.exponential(2) * HOUR_US)
            cut_off = of_client & (times >= begin) & (times < end)
            delays[cut_off] += end - times[cut_off] + (random.exponential(300, cut_off.sum()) * SECOND_US).astype(int)
            at = end
    return delays


def uploads(random: np.random.Generator, times: Times, clients: Times) -> Times:
    delays, every_us = seconds(random, times, clients), 6 * HOUR_US
    until_us = every_us - (times + clients * HOUR_US) % every_us
    return np.where(clients % 2 == 0, until_us, 0) + delays


MODELS: dict[str, Callable[[np.random.Generator, Times, Times], Times]] = {
    "seconds": seconds,
    "heavy tail": heavy_tail,
    "outages": outages,
    "uploads": uploads,
}


# ---- Through the steps of a run -----------------------------------------------------------------------------------


@dataclass
class Billed:
    """What the blocks of a replay said."""

    amounts: dict[str, dict[int, int]]
    """By customer and hour, in 10^-15 currency units."""
    arrivals: dict[str, list[tuple[int, int, int]]]
    """(hour, watermark when the block began, amount) by customer."""
    late: int
    watermark_us: int


def replay(events: Events, delays: Times) -> Billed:
    """The steps of a run, one shard, a block for what was reported in BLOCK_US."""
    reported = np.asarray(events.column("time").cast(pa.int64())) + delays
    order = np.argsort(reported, kind="stable")
    events, blocks = events.take(pa.array(order)).combine_chunks(), reported[order] // BLOCK_US
    bounds = [*np.flatnonzero(np.diff(blocks, prepend=blocks[0] - 1)), len(blocks)]
    rater, builder = Rater(parse_price_book(PRICES, "prices.yaml")), BlockBuilder("USD")
    known = FingerprintSet(HORIZON_US, HORIZON_US // 12)
    billed = Billed(defaultdict(lambda: defaultdict(int)), defaultdict(list), 0, -1)
    rows = events.to_batches()[0]
    now_us = int(reported.max())
    for number, (first, end) in enumerate(pairwise(bounds), 1):
        batch = rows.slice(first, end - first)
        decoded = decode(Columns("trace", int(first), batch), Limits(), now_us)
        for routed in route(decoded, 1):
            verdicts = known.judge(routed.identity, routed.events.column("event_time_us"), routed.rows, routed.count)
            builder.add(rater.rate(Judged(routed, verdicts, known.watermark_us)))
            billed.late += verdicts.late_count
        for name, table in builder.cut("lineage", "writer", number, now_us):
            _note(billed, name, pa.Table.from_batches(table.batches, table.schema))
        builder.clear()
    billed.watermark_us = known.watermark_us
    return billed


def _note(billed: Billed, name: str, table: pa.Table) -> None:
    if name == "rollup_minute":
        amounts = zip(*(_femto(table.column(f"a{slot}")) for slot in range(4)), strict=True)
        places = zip(table.column("customer").to_pylist(), table.column("window_start").to_pylist(), strict=True)
        for (customer, window_s), of_slots in zip(places, amounts, strict=True):
            billed.amounts[customer][window_s // 3600] += sum(of_slots)
    elif name == "arrivals":
        began = np.asarray(table.column("began").cast(pa.timestamp("us")).cast(pa.int64()))
        columns = (table.column("customer").to_pylist(), table.column("window_start").to_pylist(), began.tolist())
        for customer, window_s, began_us, amount in zip(*columns, _femto(table.column("amount")), strict=True):
            billed.arrivals[customer].append((window_s // 3600, began_us, amount))


def _femto(column: pa.ChunkedArray) -> list[int]:
    return [int(amount.scaleb(15)) for amount in column.to_pylist()]


# ---- Calibration --------------------------------------------------------------------------------------------------


@dataclass
class Held:
    """Of one trace, model and age."""

    asked: int = 0
    made: int = 0
    held: int = 0
    wide: int = 0
    """Intervals that are not just 0, or of moments after which something came."""
    wide_held: int = 0
    widths: list[float] = field(default_factory=list)
    """Of each interval, as a share of the customer's amount until then."""
    came: list[float] = field(default_factory=list)
    """What came later, as such a share."""


def calibrate(billed: Billed, customers: list[str], minutes: int) -> Held:
    found = Held()
    hours_max, age_us = HORIZON_US // HOUR_US, minutes * 60 * SECOND_US
    now = (billed.watermark_us - age_us) // HOUR_US
    for customer in customers:
        amounts = billed.amounts[customer]
        behind: dict[tuple[int, int], int] = defaultdict(int)
        for hour, began_us, amount in billed.arrivals[customer]:
            longer = (began_us - (hour + 1) * HOUR_US - age_us) // HOUR_US
            if longer >= 0:
                behind[hour, longer] += amount
        past = Past(amounts, behind, min(amounts) + 1)
        moments = Development(past, now, range(hours_max), hours_max).moments
        to_date, every = 0, len(moments) // MOMENTS_MAX | 1
        for n, moment in enumerate(moments):
            to_date += amounts.get(past.known_from + n - 1, 0)
            if n % every:
                continue
            known = moments[: max(n - hours_max + 1, 0)]  # what was known then to get nothing any more
            found.asked += 1
            interval = interval_at(moment, known[-PAST_HOURS:])
            if interval is not None:
                later = sum(moment.later)
                found.made += 1
                holds = interval.low <= later <= interval.high
                found.held += holds
                if interval.high or later:
                    found.wide += 1
                    found.wide_held += holds
                found.widths.append((interval.high - interval.low) / to_date)
                found.came.append(later / to_date)
    return found


def main() -> int:
    arguments = parser(__doc__)
    arguments.add_argument("--data", type=Path, help="the folder of the traces; absent: synthetic events")
    arguments.add_argument("--events", type=int, default=30_000, help="of each trace, about")
    arguments.add_argument("--customers", type=int, default=5, help="the largest of each trace")
    arguments.add_argument("--seed", type=int, default=1)
    given = arguments.parse_args()
    results: list[dict[str, Any]] = []
    for name, events in traces(given.data, given.events, given.seed):
        clients = events.column("customer").combine_chunks().dictionary_encode()
        times, codes = np.asarray(events.column("time").cast(pa.int64())), np.asarray(clients.indices, dtype=np.int64)
        for model, delays_of in MODELS.items():
            random = np.random.default_rng(given.seed)
            billed = replay(events, delays_of(random, times, codes))
            largest = sorted(billed.amounts, key=lambda customer: -sum(billed.amounts[customer].values()))
            for minutes in MINUTES_PAST:
                held = calibrate(billed, largest[: given.customers], minutes)
                results.append({"trace": name, "delays": model, "minutes_past_the_hour": minutes, **figures(held)})
    print_results(results)
    least = None if given.data is None else float(CONFIDENCE)
    found = figures_of(results, least)
    keep("confidence", found, results, given.results)
    lowest, not_zero = (figure.value for figure in found)
    print(f"held, where fewest did: {lowest:.2%}; of those that are not 0: {not_zero:.2%}", file=sys.stderr)
    return 0 if least is None or lowest >= CONFIDENCE else 1


def figures_of(results: list[dict[str, Any]], least: float | None) -> list[Figure]:
    """How many intervals held where the fewest did: for a trace, delays and age; and of all that are not just 0."""
    lowest = min((row["held_share"] for row in results if row["intervals"]), default=0.0)
    made, kept = (sum(row[name] for row in results) for name in ("not_just_zero", "not_just_zero_held"))
    return [
        Figure("intervals of open invoices that held, where the fewest did", lowest, at_least=least),
        Figure(
            "intervals of open invoices that held, of those that are not just 0",
            round(kept / max(made, 1), 4),
            at_least=least,
        ),
    ]


def figures(held: Held) -> dict[str, Any]:
    def rank(shares: list[float], place: float) -> float | None:
        return round(float(np.quantile(shares, place)), 6) if shares else None

    return {
        "moments": held.asked,
        "intervals": held.made,
        "held": held.held,
        "not_just_zero": held.wide,
        "not_just_zero_held": held.wide_held,
        "held_share": round(held.held / held.made, 4) if held.made else None,
        "not_just_zero_held_share": round(held.wide_held / held.wide, 4) if held.wide else None,
        "width_mean": round(float(np.mean(held.widths)), 6) if held.widths else None,
        "width_median": rank(held.widths, 0.5),
        "width_of_nine_in_ten": rank(held.widths, 0.9),
        "came_later_median": rank(held.came, 0.5),
        "came_later_of_nine_in_ten": rank(held.came, 0.9),
    }


def print_results(results: list[dict[str, Any]]) -> None:
    table = Table(title=f"Intervals of {float(CONFIDENCE):.0%}; shares of the amount to date", box=None)
    for name in ("trace", "delays", "min past", "intervals", "of moments", "not 0", "held", "of not 0"):
        table.add_column(name, justify="left" if name in ("trace", "delays") else "right")
    for name in ("width", "median", "9 in 10", "came later", "9 in 10"):
        table.add_column(name, justify="right")
    for row in results:
        shares = list(row.values())[8:]
        table.add_row(
            row["trace"],
            row["delays"],
            str(row["minutes_past_the_hour"]),
            f"{row['intervals']:,}",
            f"{row['moments']:,}",
            f"{row['not_just_zero']:,}",
            *("-" if share is None else f"{share:.2%}" for share in shares),
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    sys.exit(main())
