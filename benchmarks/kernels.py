"""What an event costs in each kernel, and all of them together beside the memory work that nobody can do without.

    python benchmarks/kernels.py [--events 10000000] [--repeat 3] [--table-mib 1024]

*From decoded columns to a block*: identity, deduplication (every id is new), rating (three meters, 72 prices), sums,
and the rows of minutes and days in the store's order; batches of 131,072 events, one thread, one shard, unbounded
horizon. Two workloads: `dense` (1,000 customers, 20,000 live keys, half a million events a minute) and `sparse` (a
minute row gathers five events). Beside it `limit.cpp`, compiled here: a hash, a Bloom filter, a table of fingerprints
and 128-bit sums in tables of a gigabyte each, prefetched. Its throughput is the limit; ours is told as a share of it.

*Each kernel alone*, on one batch of `kernel_work.py`, its caches warm.

Figures are nanoseconds of CPU time of the one thread, the median of interleaved runs. Making events is not counted, but
takes its share of the caches between two batches, as decoding does in a run. Nor is the thread counted that makes
memory ready before it is filled for the first time (`flow/kernels/memory.py`); the limit's tables are touched before
its clock starts.
"""

import json
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any, TypeVar, TypeVarTuple

import pyarrow as pa
from compiled import compiled
from figures import STAGES, Chart, Figure, Look, keep, parser
from kernel_work import decoded_to_block, event_batch, every_kernel
from rich.console import Console
from rich.progress import track
from rich.table import Table

ROWS = 131_072
WORKLOADS = {"dense": (20_000, 1_000, 500_000), "sparse": (0, 10_000, 10_000_000)}
"""Keys (0: a fifth of the events of a minute), customers, events a minute."""
AIM = 0.4
Given = TypeVarTuple("Given")
Of = TypeVar("Of")
Spent = dict[str, float]
"""Nanoseconds an event, by stage."""

LIMIT_OF = {"identify": ("hash",), "judge": ("filter", "exact table"), "add up": ("sums",)}
"""The stages of the limit that a stage of ours has to do; the others have none."""


class Clock:
    """Adds up the CPU time of pieces of work."""

    def __init__(self) -> None:
        self._spent_ns: dict[str, int] = defaultdict(int)
        self._events: dict[str, int] = defaultdict(int)

    def measure(self, what: str, events: int, work: Callable[[*Given], Of], *given: *Given) -> Of:
        begun = time.thread_time_ns()
        found = work(*given)
        self._spent_ns[what] += time.thread_time_ns() - begun
        self._events[what] += events
        return found

    def an_event(self) -> Spent:
        return {what: spent / self._events[what] for what, spent in self._spent_ns.items()}


def batches(events: int, keys: int, customers: int, per_minute: int) -> Iterator[pa.RecordBatch]:
    for first in range(0, events, ROWS):
        rows = min(ROWS, events - first)
        yield event_batch(first, rows, keys or min(events, per_minute) // 5, customers, first // per_minute)


def medians(runs: list[Spent]) -> Spent:
    return {what: round(median(run[what] for run in runs), 2) for what in runs[0]}


def measured(options: Any) -> dict[str, Any]:
    ours: dict[str, list[Spent]] = {name: [] for name in WORKLOADS}
    limit: list[Spent] = []
    alone: list[Spent] = []
    rows = {}
    console = Console(stderr=True)
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as folder:
        command = [str(compiled("limit.cpp", Path(folder))), str(options.events), str(options.table_mib << 20)]
        for _ in track(range(options.repeat), "running", console=console, transient=True):
            limit.append(json.loads(subprocess.check_output(command)))
            for name, workload in WORKLOADS.items():
                clock = Clock()
                events, rows[name] = decoded_to_block(batches(options.events, *workload), clock.measure)
                ours[name].append(clock.an_event())
                assert events == options.events
            clock = Clock()
            every_kernel(ROWS, clock.measure)
            alone.append(clock.an_event())
    paths = {name: {"rows_of_minutes": rows[name], "ns": medians(runs)} for name, runs in ours.items()}
    return {
        "events": options.events,
        "repeat": options.repeat,
        "table_mib": options.table_mib,
        "limit_ns": medians(limit),
        "decoded_to_block": paths,
        "alone_ns": medians(alone),
    }


def shares(result: dict[str, Any]) -> dict[str, float]:
    """Of the limit's throughput, by workload."""
    limit = sum(result["limit_ns"].values())
    return {name: round(limit / sum(path["ns"].values()), 3) for name, path in result["decoded_to_block"].items()}


def charts_of(result: dict[str, Any]) -> list[Chart]:
    """The way to a block by stage beside the limit, and each kernel alone."""
    ways = {name: path["ns"] for name, path in result["decoded_to_block"].items()}
    ways["limit"] = {stage: sum(result["limit_ns"][part] for part in parts) for stage, parts in LIMIT_OF.items()}
    return [
        Chart(STAGES, Look.STACKED, f"decoded columns to a block, {result['events']:,} events", "ns an event", ways),
        Chart(STAGES, Look.BARS, "each kernel alone", "ns an event", {"ns": result["alone_ns"]}, log=True),
    ]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    return [
        Figure(f"decoded columns to a block, {name}: share of the C++ limit", share, at_least=AIM)
        for name, share in shares(result).items()
    ]


def report(result: dict[str, Any]) -> None:
    limit, paths = result["limit_ns"], result["decoded_to_block"]
    table = Table(title=f"{result['events']:,} events, decoded columns to a block: ns an event")
    for name in ("stage", *paths, "limit"):
        table.add_column(name, justify="left" if name == "stage" else "right")
    for stage in next(iter(paths.values()))["ns"]:
        of_limit = sum(limit[part] for part in LIMIT_OF.get(stage, ()))
        ours = (f"{path['ns'][stage]:.1f}" for path in paths.values())
        table.add_row(stage, *ours, f"{of_limit:.1f}" if of_limit else "")
    together = [sum(path["ns"].values()) for path in paths.values()]
    table.add_section()
    table.add_row("together", *(f"{ns:.1f}" for ns in together), f"{sum(limit.values()):.1f}")
    table.add_row("share of the limit", *(f"{share:.0%}" for share in shares(result).values()), "")
    console = Console()
    console.print(table)
    table = Table("work", "ns an event", title=f"each kernel alone, {ROWS:,} events, caches warm")
    for what, ns in result["alone_ns"].items():
        table.add_row(what, f"{ns:.1f}")
    console.print(table)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--table-mib", type=int, default=1024, help="of each table of the limit")
    options = arguments.parse_args()
    result = measured(options)
    report(result)
    keep("kernels", figures_of(result), result, options.results, charts_of(result))


if __name__ == "__main__":
    main()
