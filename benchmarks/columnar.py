"""From Parquet to committed rollups: Tallyflow, one worker, beside DuckDB, Polars and ClickHouse (chdb) on one thread
each, on the same file in the same run.

All remove duplicates by source and id, charge exactly, roll up by minute, and leave that on disk: the others one table
or file (`columnar_peers.py`), Tallyflow minute and day rollups, keys, balance, recovery state and fingerprints,
published and checked. Two runs of Tallyflow: one that looks for anomalies besides, as it does by default, and one that
does not, as the others do not. All must agree on how many events count and on the sum of all amounts. Runs are
interleaved, and the figures are ratios of the medians.

Beside them stands what is no work of ours: the libraries loaded, an embedded store with its tables made, and the file
read by Arrow on one thread, one after the other. A run does that too, some of it at once, and bills besides.

    python benchmarks/columnar.py [--workload dense] [--events 10000000] [--repeat 3] [--data FOLDER]

Workloads: 5 projects, 12 features, 24 models, 5 regions, 3 meters, customers by Zipf 1.3, ids of 36 characters, 1 %
duplicates. `sparse` has 10,000 customers with any combination of these and 10 million events a minute, which leave
about five events for each row of the rollup. `dense` has 1,000 customers with 20,000 combinations together and half a
million events a minute, which leave about thirty. Time is that of the whole process, its start included.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from figures import PEERS, Chart, Figure, Look, keep, parser
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table


@dataclass(frozen=True)
class Workload:
    """Which keys events have."""

    per_minute: int
    customers: int
    live_keys: int
    """Combinations of dimensions; 0: any."""
    at_least: float
    """Times the throughput of the best of the others: the aim."""


CUSTOMERS, MODELS = 10_000, 24
WORKLOADS = {
    "sparse": Workload(10_000_000, CUSTOMERS, 0, at_least=4),
    "dense": Workload(500_000, 1_000, 20_000, at_least=8),
}
DIMENSIONS = {"project": 5, "feature": 12, "model": MODELS, "region": 5}
METERS = {"input_tokens": 900, "cached_input_tokens": 300, "output_tokens": 95}  # and their mean quantity
START_S = 1_790_000_040
DUPLICATE_DISTANCE_MAX = 50_000
RATES_FEMTO = {
    "input_tokens": [600_000_000 + 1000 * n for n in range(MODELS)],
    "cached_input_tokens": [300_000_000 + 500 * n for n in range(MODELS)],
    "output_tokens": [2_400_000_000 + n for n in range(MODELS)],
}
MILLIONS_A_SECOND_MIN = 5
"""Of the dense workload, where nothing else runs."""


def write_events(
    path: Path,
    events: int,
    minutes: int,
    *,
    customers: int = CUSTOMERS,
    live_keys: int = 0,
    weights: NDArray[np.float64] | None = None,
) -> None:
    """The workload as one Parquet file of row groups of a million; the same bytes for the same arguments.

    With `live_keys` there are no more combinations of dimensions than that, each customer having the same number.
    `weights` are of customers, how likely each is; None: Zipf's.
    """
    random = np.random.default_rng(7)
    shares = np.cumsum(1 / np.arange(1, customers + 1) ** 1.3 if weights is None else weights)
    own = {name: random.integers(0, count, (customers, live_keys // customers)) for name, count in DIMENSIONS.items()}
    names = {"customer": [f"customer-{n:05d}" for n in range(customers)]}
    names |= {name: [f"{name}-{n:02d}" for n in range(count)] for name, count in DIMENSIONS.items()}
    texts = [pa.field(name, pa.string()) for name in ("customer", *DIMENSIONS)]
    schema = pa.schema(
        [("id", pa.string()), ("source", pa.string()), ("time", pa.timestamp("us", tz="UTC")), *texts]
        + [(name, pa.int64()) for name in METERS]
    )
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    with pq.ParquetWriter(path, schema, compression="snappy") as writer:
        for first in track(range(0, events, 1_000_000), "making events", console=Console(stderr=True), transient=True):
            rows = min(1_000_000, events - first)
            row = np.arange(rows)
            original = np.maximum(row - random.integers(1, DUPLICATE_DISTANCE_MAX, rows), 0)
            duplicate = random.random(rows) < 0.01
            duplicate &= ~duplicate[original] & (original != row)
            of = np.where(
                duplicate, original, row
            )  # a duplicate has identity and payload of its original, not its time
            ids = digits[random.integers(0, 16, (rows, 36), dtype=np.uint8)]
            ids[:, [8, 13, 18, 23]] = ord("-")
            offsets = np.arange(0, 36 * (rows + 1), 36, dtype=np.int32)
            spread = (first + row) * (60_000_000 * minutes) // events
            columns = [
                pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(ids[of].tobytes())),
                pa.array(["gateway/eu-1"] * rows),
                pa.array(START_S * 1_000_000 + spread, pa.timestamp("us", tz="UTC")),
            ]
            draws = {"customer": np.searchsorted(shares, random.random(rows) * shares[-1])}
            if live_keys:
                key = random.integers(0, live_keys // customers, rows)
                draws |= {name: own[name][draws["customer"], key] for name in DIMENSIONS}
            else:
                draws |= {name: random.integers(0, count, rows) for name, count in DIMENSIONS.items()}
            columns += [pa.array(names[name]).take(pa.array(draw[of])) for name, draw in draws.items()]
            columns += [pa.array(random.integers(0, 2 * mean, rows)[of]) for mean in METERS.values()]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


# ---- The two sides, each a process of its own ----------------------------------------------------------------------


@dataclass
class Run:
    """One run of one side."""

    seconds: float
    cpu_seconds: float
    resident_mib: int
    events: int
    amount_femto: int


def measured(command: list[str], folder: Path) -> tuple[float, float, int, str]:
    """Runs a command: wall and CPU seconds, peak resident MiB, and its output."""
    out = folder / "out"
    begun = time.monotonic()
    with out.open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, cwd=folder)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    seconds = time.monotonic() - begun
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}:\n{out.read_text()}")
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024, out.read_text()


def run_peer(side: str, events: Path, folder: Path) -> Run:
    prices = [[f"model-{n:02d}", *(RATES_FEMTO[meter][n] for meter in METERS)] for n in range(MODELS)]
    command = [
        sys.executable,
        str(Path(__file__).with_name("columnar_peers.py")),
        side,
        str(events),
        json.dumps(prices),
    ]
    seconds, cpu, resident, said = measured(command, folder)
    counted, amount = json.loads(said.splitlines()[-1])
    return Run(seconds, cpu, resident, int(counted), int(amount))


def run_reading(events: Path, folder: Path) -> Run:
    """Exits if it has not read all rows."""
    run = run_peer("reading", events, folder)
    if run.events != (rows := pq.read_metadata(events).num_rows):
        raise SystemExit(f"{READING}: {run.events} rows of {rows}")
    return run


def price_file() -> str:
    """The same prices as text, exactly."""
    lines = ["currency: USD", "prices:"]
    for meter, rates in RATES_FEMTO.items():
        lines += [
            f"  - {{model: model-{n:02d}, meter: {meter}, from: 2026-01-01T00:00:00Z, per: 1_000_000, "
            f'price: "{rate}e-9"}}'
            for n, rate in enumerate(rates)
        ]
    return "\n".join(lines) + "\n"


def run_tallyflow(events: Path, folder: Path, epoch: str, *, anomalies: bool) -> Run:
    (folder / "prices.yaml").write_text(price_file())
    config = folder / "config.yaml"
    config.write_text(
        f"source: {{kind: files, path: {events}}}\nprices: prices.yaml\nstore: chdb:store\nstate_dir: state\n"
        f"dedup: {{horizon: unbounded}}\nepoch: {epoch}\nanomalies: {{enabled: {str(anomalies).lower()}}}\n"
    )
    command = [sys.executable, "-m", "flow"]
    seconds, cpu, resident, _ = measured([*command, "run", str(config)], folder)
    query = "SELECT sum(accepted) AS events FROM pipeline_balance"
    counted = json.loads(subprocess.check_output([*command, "sql", query, "-c", str(config), "--format", "json"]))
    query = " + ".join(f"sum(reinterpret(a{n}, 'Int128'))" for n in range(4))
    query = f"SELECT {query} AS amount FROM rollup_minute"
    amount = json.loads(subprocess.check_output([*command, "sql", query, "-c", str(config), "--format", "json"]))
    return Run(seconds, cpu, resident, int(counted[0]["events"]), int(amount[0]["amount"]))


OURS, BY_DEFAULT = "Tallyflow, 1 worker", "Tallyflow, anomalies too"
READING = "start and reading alone"
"""Bills nothing, so that it agrees with nobody."""
SIDES: dict[str, Callable[[Path, Path, str], Run]] = {
    "DuckDB, 1 thread": lambda events, folder, _: run_peer("duckdb", events, folder),
    "Polars, 1 thread": lambda events, folder, _: run_peer("polars", events, folder),
    "ClickHouse, 1 thread": lambda events, folder, _: run_peer("clickhouse", events, folder),
    OURS: lambda events, folder, epoch: run_tallyflow(events, folder, epoch, anomalies=False),
    BY_DEFAULT: lambda events, folder, epoch: run_tallyflow(events, folder, epoch, anomalies=True),
    READING: lambda events, folder, _: run_reading(events, folder),
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--epoch", default="5s")
    arguments.add_argument("--data", type=Path, help="keep the events files here, and use them again")
    arguments.add_argument("--workload", choices=list(WORKLOADS), action="append")
    options = arguments.parse_args()
    results = []
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as scratch:
        for workload in options.workload or WORKLOADS:
            events = made(workload, options.events, options.data or Path(scratch))
            turns = [turn(events, Path(scratch) / "turn", options.epoch) for _ in range(options.repeat)]
            results.append(report(workload, options.events, options.epoch, turns))
    keep("columnar", figures_of(results), results, options.results, charts_of(results))


def made(workload: str, events: int, folder: Path) -> Path:
    """The file of a workload, made if it is not there."""
    path = folder / f"{workload}-{events}.parquet"
    if not path.exists():
        alone(make, WORKLOADS[workload], events, path)
    return path


def make(workload: Workload, events: int, path: Path) -> None:
    partial = path.with_suffix(".partial")
    minutes = max(events // workload.per_minute, 1)
    write_events(partial, events, minutes, customers=workload.customers, live_keys=workload.live_keys)
    partial.rename(path)


def alone(function: Callable[..., None], *arguments: object) -> None:
    """Calls it in a process of its own: what this one once held would count as resident in all that it starts."""
    process = get_context("spawn").Process(target=function, args=arguments)
    process.start()
    process.join()
    if process.exitcode:
        raise SystemExit(f"{function.__name__} has failed")


def turn(events: Path, folder: Path, epoch: str) -> dict[str, Run]:
    """Every side once. Exits if they do not agree."""
    runs = {}
    for side, run in SIDES.items():
        folder.mkdir()
        runs[side] = run(events, folder, epoch)
        shutil.rmtree(folder)
    if len({(run.events, run.amount_femto) for side, run in runs.items() if side != READING}) != 1:
        raise SystemExit(f"the sides do not agree on events and amount: {runs}")
    return runs


# ---- What is told --------------------------------------------------------------------------------------------------


def charts_of(results: list[dict[str, Any]]) -> list[Chart]:
    """Throughput of each side."""
    values = {of["workload"]: {side["side"]: side["ratio"] for side in of["sides"]} for of in results}
    return [Chart(PEERS, Look.BARS, "Parquet to committed rollups", "throughput beside DuckDB", values)]


def figures_of(results: list[dict[str, Any]]) -> list[Figure]:
    """Our throughput beside that of the best of the others."""
    figures = []
    for result in results:
        workload = result["workload"]
        ratios = {side["side"]: side["ratio"] for side in result["sides"]}
        ours, reading = ratios.pop(OURS), ratios.pop(READING)
        ratios.pop(BY_DEFAULT)
        best = max(ratios, key=lambda side: ratios[side])
        what, aim = f"Parquet to rollups, {workload}", WORKLOADS[workload].at_least
        figures.append(Figure(f"{what}: throughput beside {best}", round(ours / ratios[best], 3), at_least=aim))
        figures.append(Figure(f"{what}: that of {READING} beside the same", round(reading / ratios[best], 3)))
        if workload == "dense":
            speed = result["millions_a_second"]
            figures.append(Figure(f"{what}: millions of events a second", speed, at_least=MILLIONS_A_SECOND_MIN))
    return figures


def report(workload: str, count: int, epoch: str, turns: list[dict[str, Run]]) -> dict[str, Any]:
    """The medians, as a table on the terminal and as what is kept of them."""
    runs = {side: [runs[side] for runs in turns] for side in SIDES}
    title = f"{count:,} events, {workload}, Parquet to rollups: medians of {len(turns)} interleaved runs"
    speed = count / median(run.seconds for run in runs[OURS]) / 1e6
    told = {"workload": workload, "events": count, "epoch": epoch, "millions_a_second": round(speed, 3)}
    return told | {"sides": show_sides(title, "DuckDB", runs)}


def show_sides(title: str, peer: str, runs: dict[str, list[Run]]) -> list[dict[str, object]]:
    """Each side beside the first, which is the peer: a table on the terminal, and what is kept of it."""
    medians = {side: median(run.seconds for run in several) for side, several in runs.items()}
    base = next(iter(medians.values()))
    table = Table(title=title)
    for name in ("side", f"throughput beside {peer}", "CPU beside wall", "resident"):
        table.add_column(name, justify="left" if name == "side" else "right")
    rows: list[dict[str, object]] = []
    for side, several in runs.items():
        cpu = median(run.cpu_seconds / run.seconds for run in several)
        resident = max(run.resident_mib for run in several)
        table.add_row(side, f"{base / medians[side]:.2f}", f"{cpu:.2f}", f"{resident:,} MiB")
        ratio = round(base / medians[side], 3)
        rows.append({"side": side, "ratio": ratio, "cpu_to_wall": round(cpu, 3), "resident_mib": resident})
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    return rows


if __name__ == "__main__":
    main()
