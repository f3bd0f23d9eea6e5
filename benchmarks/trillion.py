"""A day of a trillion tokens: a billion events, made up as they are read, deduplicated, rated, rolled up and committed.

The events are those of one seed: a thousand customers with 24,000 live keys, 1,000 tokens an event on average, 1 %
sent twice (a fifth of these with a new time), two minutes of disorder, a price that changes on the way. They go through
`tallyflow run` as any others do, into the embedded store, with recovery on; time and memory are those of its whole
process. What must come out is added up behind it, from the seed alone: in NumPy, rated by the oracle, no part of the
pipeline has a hand in it but the kernel that makes the events, which tests/parity/test_synthetic.py holds against plain
Python. Every customer, model, service tier and meter must agree, in quantity, amount and events.

    make trillion                                       # about a quarter of an hour on two cores, truth included
    python benchmarks/trillion.py --events 10_000_000   # the same stream, shorter
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import yaml
from columnar import measured
from event_truth import quantities
from figures import Figure, keep, parser
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from flow.generate import METERS, Synthetic, accepted, batch, prices_yaml
from flow.oracle.rollup import Rates
from flow.prices.book import parse_price_book
from flow.schema import REQUESTS

EVENTS = 1_000_000_000
DAY_S = 86_400
"""Event time of a billion events; fewer take less of it, so that a minute has as many."""
MINUTES_MAX = 10
RESIDENT_MAX_GB = 8
MONTH_TOKENS = 10**13
CORES = 2
TOKENS = [meter for meter in METERS if meter.endswith("_tokens")]
_BATCH_ROWS = 1 << 16
_PART_BATCHES = 64
"""Batches that a process adds up at once."""

Cell = tuple[int, int, int]
"""Quantity, amount in femto units, events."""
Cells = dict[tuple[str, str, str, str], Cell]
"""By customer, model, service tier and meter."""
PLACED = ("customer", "model", "service_tier", "region")


def spec_of(events: int) -> Synthetic:
    """The stream; its beginning, where it has fewer events."""
    duration_s = max(DAY_S * events // EVENTS, 600)
    return Synthetic(seed=12, events=events, duration_s=duration_s, conflicting_ppm=0, bad_ppm=0, unpriced_ppm=0)


# ---- The truth -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sums:
    """[customer, model, tier, region, period] of each meter, METERS and then REQUESTS: quantities, and events."""

    quantities: list[NDArray[np.int64]]
    events: list[NDArray[np.int64]]


def names(spec: Synthetic) -> list[list[str]]:
    """Of each of PLACED, in the order of its codes."""
    events = batch(spec, 0, 1)
    return [events.column(name).dictionary.to_pylist() for name in PLACED]


def shape_of(spec: Synthetic, changes_us: Sequence[int]) -> tuple[int, ...]:
    """Of an array with a place for each thing that a price may look at; a period ends where a price changes."""
    return (*map(len, names(spec)), len(changes_us) + 1)


def add_up(spec: Synthetic, changes_us: Sequence[int], first: int, end: int) -> Sums:
    """What the accepted ones among some events come to."""
    shape = shape_of(spec, changes_us)
    sums = Sums(*([np.zeros(np.prod(shape), np.int64) for _ in (*METERS, REQUESTS)] for _ in range(2)))
    for start in range(first, end, _BATCH_ROWS):
        count = min(_BATCH_ROWS, end - start)
        events, counted = batch(spec, start, count), accepted(spec, start, count)
        codes = [events.column(name).indices.to_numpy() for name in PLACED]
        period = np.searchsorted(changes_us, events.column("time").cast(pa.int64()).to_numpy(), side="right")
        place = np.ravel_multi_index((*codes, period), shape)
        usage = [quantities(events, meter) for meter in METERS]
        usage.append((np.ones(count, np.int64), np.ones(count, np.bool_)))
        for at, (quantity, there) in enumerate(usage):
            rows = np.flatnonzero(counted & there)
            np.add.at(sums.quantities[at], place[rows], quantity[rows])
            np.add.at(sums.events[at], place[rows], 1)
    return sums


def truth(spec: Synthetic) -> Cells:
    """What the day must come to, added up by all cores."""
    book = parse_price_book(prices_yaml(spec.models), "prices")
    start_us = int(spec.start.timestamp()) * 1_000_000
    changes_us = sorted({price.from_us for price in book.prices if price.from_us > start_us})
    step = _PART_BATCHES * _BATCH_ROWS
    starts = range(0, spec.events, step)
    part_of = partial(add_up, spec, changes_us)
    total: Sums | None = None
    with ProcessPoolExecutor(CORES, mp_context=get_context("spawn")) as pool:
        parts = pool.map(part_of, starts, [min(at + step, spec.events) for at in starts])
        for part in track(parts, "adding up", len(starts), console=Console(stderr=True), transient=True):
            if total is None:
                total = part
                continue
            for mine, more in zip(total.quantities + total.events, part.quantities + part.events, strict=True):
                mine += more
    assert total is not None
    return rated(spec, total, [start_us, *changes_us], Rates(book.prices, book.unbilled))


def rated(spec: Synthetic, sums: Sums, periods_us: Sequence[int], rates: Rates) -> Cells:
    """The sums with their amounts, regions and periods put together."""
    cells: Cells = {}
    named = names(spec)
    shape = shape_of(spec, periods_us[1:])
    for at, meter in enumerate((*METERS, REQUESTS)):
        for place in np.flatnonzero(sums.events[at]).tolist():
            *codes, period = np.unravel_index(place, shape)
            dims = {name: of[code] for name, of, code in zip(PLACED, named, codes, strict=True)}
            quantity, events = int(sums.quantities[at][place]), int(sums.events[at][place])
            amount = rates.amount_femto(meter, rates.narrowed(dims), periods_us[period], quantity)
            key = (dims["customer"], dims["model"], dims["service_tier"], meter)
            before = cells.get(key, (0, 0, 0))
            cells[key] = (before[0] + quantity, before[1] + int(amount or 0), before[2] + events)
    return cells


# ---- The run -------------------------------------------------------------------------------------------------------


def run(spec: Synthetic, folder: Path, options: argparse.Namespace) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and resident MiB of the whole process."""
    (folder / "prices.yaml").write_text(prices_yaml(spec.models))
    source = {name: value for name, value in asdict(spec).items() if name != "start"}
    config: dict[str, Any] = {
        "source": {"kind": "synthetic", **source},
        "prices": "prices.yaml",
        "store": "chdb:store",
        "state_dir": "state",
        "dedup": {"horizon": options.horizon},
        "epoch": options.epoch,
        "anomalies": {"enabled": options.anomalies},
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(config))
    seconds, cpu_seconds, resident_mib, out = measured(
        [sys.executable, "-m", "flow", "run", str(folder / "config.yaml")], folder
    )
    print(out, file=sys.stderr)
    return seconds, cpu_seconds, resident_mib


def found(folder: Path) -> Cells:
    """What the store says."""
    query = (
        "SELECT customer, model, service_tier, meter, toString(sum(quantity)) AS quantity, "
        "toString(toInt128(sum(amount) * 1000000000000000)) AS femto, toString(sum(events)) AS events "
        "FROM usage_by_day GROUP BY customer, model, service_tier, meter"
    )
    command = [sys.executable, "-m", "flow", "sql", query, "-c", str(folder / "config.yaml"), "--format", "json"]
    rows = json.loads(subprocess.check_output(command))
    return {
        (row["customer"], row["model"], row["service_tier"], row["meter"]): (
            int(row["quantity"]),
            int(row["femto"]),
            int(row["events"]),
        )
        for row in rows
    }


def differences(expected: Cells, seen: Cells) -> list[str]:
    """Every cell that does not agree, in words."""
    return [
        f"{' '.join(key)}: quantity, femto and events are {seen.get(key)}, {expected.get(key)} were made"
        for key in sorted(expected.keys() | seen.keys())
        if expected.get(key) != seen.get(key)
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=EVENTS)
    arguments.add_argument("--epoch", default="20s")
    arguments.add_argument("--horizon", default="30m", help="of event time, in which a retry is recognised")
    arguments.add_argument("--anomalies", action="store_true", help="look for anomalies besides")
    arguments.add_argument("--folder", type=Path, help="keep store and state here; default: a temporary folder")
    options = arguments.parse_args()
    spec = spec_of(options.events)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="tallyflow-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        seconds, cpu_seconds, resident_mib = run(spec, folder, options)
        expected = truth(spec)
        wrong = differences(expected, found(folder))
    finally:
        if not options.folder:
            shutil.rmtree(folder)
    report(spec, expected, len(wrong), (seconds, cpu_seconds, resident_mib), options)
    if wrong:
        raise SystemExit("\n".join([f"{len(wrong)} of {len(expected)} sums are wrong:", *wrong[:20]]))


def report(
    spec: Synthetic, expected: Cells, wrong: int, took: tuple[float, float, int], options: argparse.Namespace
) -> None:
    """What it took, on the terminal and as JSON."""
    seconds, cpu_seconds, resident_mib = took
    tokens = sum(cell[0] for key, cell in expected.items() if key[3] in TOKENS)
    counted = sum(cell[2] for key, cell in expected.items() if key[3] == REQUESTS)
    # A whole process has a start and an end, which a shorter run does not have less of.
    whole = spec.events == EVENTS
    figures = [
        Figure("a billion events" if whole else f"{spec.events:,} events", seconds / 60, "minutes"),
        Figure("tokens billed", tokens),
        Figure("tokens a second", tokens / seconds),
        Figure("tokens a second and core", tokens / seconds / CORES),
        Figure("a month of ten trillion tokens takes", MONTH_TOKENS * seconds / tokens / 3600, "hours"),
        Figure("resident", resident_mib * 2**20 / 1e9, "GB", at_most=RESIDENT_MAX_GB),
        Figure("sums that are wrong", wrong, at_most=0),
    ]
    if whole:
        figures[0] = Figure("a billion events", seconds / 60, "minutes", at_most=MINUTES_MAX)
    console = Console(highlight=False)
    for figure in figures:
        console.print(f"{figure.what:<40} {figure.told:>28}  {figure.aim}")
    console.print(f"{len(expected):,} sums of {counted:,} accepted events compared, {wrong} differ")
    measured = {"events": spec.events, "accepted": counted, "tokens": tokens, "seconds": round(seconds, 1)}
    measured |= {"cpu_seconds": round(cpu_seconds, 1), "resident_mib": resident_mib, "sums": len(expected)}
    measured |= {"wrong": wrong, "epoch": options.epoch, "horizon": options.horizon, "anomalies": options.anomalies}
    keep("trillion" if whole else f"trillion-{spec.events}", figures, measured, options.results)


if __name__ == "__main__":
    main()
