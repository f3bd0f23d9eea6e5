"""What does it cost to know an id again, and what does it cost to be wrong? Deduplication beside what else is used.

    python benchmarks/dedup.py [--ids 1000000 10000000 100000000]
    python benchmarks/dedup.py --on-disk 1000000000 [--memory-gib 8] [--data FOLDER]     the last alone, its memory

Each contender runs in a process of its own, one after the other, size by size, as often as --repeat says; the median
counts. Ids are random 128-bit numbers, made a batch at a time outside of what is measured, and one row in a hundred
repeats the batch before. Peers get 16 bytes an id; Python's are fed row by row, as they have to be. `dropped` are new
ids that were called repeats, per million. Memory is what became resident, for each id.

- tallyflow: the kernel, everything in memory; 8 bytes an id are for what no peer tells, "conflicting".
- tallyflow, 7 generations: the same, with six sealed ones before the active one, as `dedup.generations` has it.
- tallyflow, horizon moves on: as many ids are within a horizon of seven generations, and once it is full, as many (ten
  million at least) pass through it, which is what is measured. All others grow from nothing, into memory that the
  system has to find for them.
- tallyflow, on disk: the step of a run with its files, with a bound for its memory.
- set: Python's; rbloom and pybloom_live for one error in a thousand, told beforehand how many ids will come.
- unordered_map: hash_map.cpp, what a cache server's hash does, without the server.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from compiled import compiled
from figures import MEMORY, SCALING, Chart, Figure, Look, keep, parser
from rich.console import Console
from rich.table import Table

from flow.kernels import Identity
from flow.kernels.fingerprints import FingerprintSet
from flow.steps.batches import Rejects
from flow.steps.deduplicate import Deduplicator
from flow.steps.route import Routed

ROWS = 131_072
ERROR_RATE = 0.001
GENERATIONS = 7
MAP, MOVING = "unordered_map", "tallyflow, horizon moves on"
IDS_MAX = {"set": 10**7, "rbloom": 10**7, "pybloom_live": 10**6, MAP: 10**7}
"""Beyond that a peer takes more memory or patience than there may be."""
MOVING_MIN = 10**7
NS_MAX, FLAT_MAX = 40, 1.25

Judge = Callable[[np.ndarray], int]
"""Of a batch of ids (uint64 [rows, 2]), how many are new."""


# ---- Contenders ----------------------------------------------------------------------------------------------------


def kernel(ids: int, segment_ids_max: int = 1 << 26) -> Judge:
    known, times = FingerprintSet(None, 1, segment_ids_max), pa.array(np.zeros(ROWS, np.int64))

    def judge(batch: np.ndarray) -> int:
        content = pa.py_buffer(batch)
        return known.judge(Identity(content, content, content), times, None, len(batch)).accepted_count

    return judge


def moving(ids: int) -> Judge:
    """An event a microsecond."""
    known, next_us = FingerprintSet(ids, max(ids // GENERATIONS, 1)), 0

    def judge(batch: np.ndarray) -> int:
        nonlocal next_us
        content, times = pa.py_buffer(batch), pa.array(np.arange(next_us, next_us + len(batch), dtype=np.int64))
        next_us += len(batch)
        return known.judge(Identity(content, content, content), times, None, len(batch)).accepted_count

    return judge


def on_disk(folder: Path, memory_bytes: int) -> Judge:
    known = Deduplicator("shard-000", folder, None, 1, memory_bytes)
    known.start_empty()
    events = pa.record_batch([pa.array(np.zeros(ROWS, np.int64))], ["event_time_us"])
    none = Rejects("").batch()

    def judge(batch: np.ndarray) -> int:
        content = pa.py_buffer(batch)
        routed = Routed("shard-000", "", events, Identity(content, content, content), None, len(batch), none)
        return known.judge(routed).verdicts.accepted_count

    return judge


def row_by_row(has: Callable[[bytes], bool], add: Callable[[bytes], Any]) -> Judge:
    def judge(batch: np.ndarray) -> int:
        content, new = batch.tobytes(), 0
        for at in range(0, len(content), 16):
            key = content[at : at + 16]
            if not has(key):
                add(key)
                new += 1
        return new

    return judge


def contender(name: str, ids: int, folder: Path, memory_bytes: int) -> Judge:
    match name:
        case "set":
            known: set[bytes] = set()
            return row_by_row(known.__contains__, known.add)
        case "rbloom":
            from rbloom import Bloom

            bloom = Bloom(ids + ROWS, ERROR_RATE)
            return row_by_row(bloom.__contains__, bloom.add)
        case "pybloom_live":
            from pybloom_live import BloomFilter

            filter_ = BloomFilter(ids + ROWS, ERROR_RATE)  # the last batch is whole
            return row_by_row(filter_.__contains__, filter_.add)
        case "tallyflow":
            return kernel(ids)
        case "tallyflow, 7 generations":
            return kernel(ids, ids // GENERATIONS + 1)
        case _ if name == MOVING:
            return moving(ids)
    return on_disk(folder, memory_bytes)


# ---- Measuring -----------------------------------------------------------------------------------------------------


def resident_bytes() -> tuple[int, int]:
    """Of this process: its own memory, and pages of files."""
    told = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(told["RssAnon"].split()[0]) << 10, int(told["RssFile"].split()[0]) << 10


def child(name: str, ids: int, folder: Path, memory_bytes: int) -> dict[str, float]:
    random = np.random.Generator(np.random.SFC64(1))
    batch = random.integers(0, 2**64, (ROWS, 2), np.uint64)
    at_first = resident_bytes()
    judge = contender(name, ids, folder, memory_bytes)
    # that of a full horizon begins when it has moved on by half
    unmeasured, more = (ids * 3 // 2, max(ids, MOVING_MIN)) if name == MOVING else (0, ids)
    events = expected = new = spent_ns = measured = highest = 0
    while events < unmeasured + more:
        before = batch[98::100].copy()
        batch = random.integers(0, 2**64, (ROWS, 2), np.uint64)
        if events:
            batch[99::100] = before[: len(batch[99::100])]
        expected += ROWS - (len(batch[99::100]) if events else 0)
        begun = time.perf_counter_ns()
        new += judge(batch)
        if events >= unmeasured:
            spent_ns += time.perf_counter_ns() - begun
            measured += ROWS
        events += ROWS
        highest = max(highest, sum(resident_bytes()))
    own = resident_bytes()[0] - at_first[0]
    return {
        "ns": round(spent_ns / measured, 2),
        "bytes": round(own / (ids if unmeasured else expected), 2),
        "dropped": round((expected - new) / expected * 10**6, 1),
        "resident_gib_at_most": round(highest / 2**30, 2),
    }


def run(name: str, ids: int, data: Path, memory_bytes: int, hash_map: Path) -> dict[str, float]:
    folder = data / "shard-000"
    command = [sys.executable, str(Path(__file__).resolve()), "child", name, str(ids), str(folder), str(memory_bytes)]
    if name == MAP:
        command = [str(hash_map), str(ids)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    shutil.rmtree(folder, ignore_errors=True)
    return found | ({"dropped": 0.0} if name == MAP else {})


# ---- Report --------------------------------------------------------------------------------------------------------


def figures_of(found: dict[str, dict[str, dict[str, float]]], sizes: list[int]) -> list[Figure]:
    ours, moves, most, least = found["tallyflow"], found[MOVING], str(max(sizes)), str(min(sizes))
    dropped = max(one["dropped"] for those in (ours, moves) for one in those.values())
    return [
        Figure(f"growing to {int(most):,} ids: cost of an event", ours[most]["ns"], "ns", at_most=NS_MAX),
        Figure(f"the same beside {int(least):,} ids", ours[most]["ns"] / ours[least]["ns"], at_most=FLAT_MAX),
        Figure(f"{int(most):,} ids in a horizon that moves on", moves[most]["ns"], "ns", at_most=NS_MAX),
        Figure(f"the same beside {int(least):,} ids", moves[most]["ns"] / moves[least]["ns"], at_most=FLAT_MAX),
        Figure("memory of an id", ours[most]["bytes"], "bytes"),
        Figure("the same where a horizon moves on", moves[most]["bytes"], "bytes"),
        Figure("memory of an id, most of them on disk", found["tallyflow, on disk"][most]["bytes"], "bytes"),
        Figure("new ids dropped per million", dropped, at_most=0),
    ]


def figures_on_disk(ids: int, alone: dict[str, float], memory_gib: float) -> list[Figure]:
    return [
        Figure(f"{ids:,} ids on disk: resident at most", alone["resident_gib_at_most"], "GiB", at_most=memory_gib),
        Figure("memory of an id", alone["bytes"], "bytes"),
        Figure("new ids dropped per million", alone["dropped"], at_most=0),
    ]


def charts_of(found: dict[str, dict[str, dict[str, float]]]) -> list[Chart]:
    def values(what: str) -> dict[str, dict[str, float]]:
        return {name: {size: one[what] for size, one in sizes.items()} for name, sizes in found.items()}

    ns, memory, of = values("ns"), values("bytes"), "ids known"
    return [
        Chart(SCALING, Look.LINES, "deduplication alone", "ns an event", ns, of, log=True, log_values=True),
        Chart(MEMORY, Look.LINES, "memory of an id", "bytes", memory, of, log=True),
    ]


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        name, ids, folder, memory_bytes = sys.argv[2:]
        print(json.dumps(child(name, int(ids), Path(folder), int(memory_bytes))))
        return
    arguments = parser(__doc__)
    arguments.add_argument("--ids", type=int, nargs="+", default=[10**6, 10**7, 10**8])
    arguments.add_argument("--repeat", type=int, default=1)
    arguments.add_argument("--on-disk", type=int, metavar="IDS", help="as many, with the bound of --memory-gib, alone")
    arguments.add_argument("--memory-gib", type=float, default=8)
    arguments.add_argument("--data", type=Path, help="where files are kept; default: a temporary folder")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-", dir=options.data) as name:
        data = Path(name)
        if options.on_disk:
            memory_bytes = int(options.memory_gib * 2**30)
            alone = run("tallyflow, on disk", options.on_disk, data, memory_bytes, data)
            figures = figures_on_disk(options.on_disk, alone, options.memory_gib)
            print(f"{alone.pop('ns')} ns an event", file=sys.stderr)  # kept is what a busy machine measures as well
            measured = {"ids": options.on_disk, "memory_gib": options.memory_gib} | alone
            keep("dedup-on-disk", figures, measured, options.results)
            raise SystemExit(not all(figure.reached for figure in figures if figure.aim))
        found, hash_map = {}, compiled("hash_map.cpp", data)
        names = ["tallyflow", "tallyflow, 7 generations", MOVING, "tallyflow, on disk"]
        names += [MAP, "set", "rbloom", "pybloom_live"]
        runs: dict[tuple[str, int], list[dict[str, float]]] = {}
        for size in sorted(options.ids):
            for _ in range(options.repeat):
                for name in names:
                    if size <= IDS_MAX.get(name, size):
                        # a bound that most ids do not fit into: the active segment takes three eighths of it
                        one = run(name, size, data, max(size * 16, 1 << 21), hash_map)
                        runs.setdefault((name, size), []).append(one)
    found = {
        name: {
            str(size): {what: median(one[what] for one in several) for what in ("ns", "bytes", "dropped")}
            for (whose, size), several in runs.items()
            if whose == name
        }
        for name in names
    }
    report(found)
    keep("dedup", figures_of(found, options.ids), found, options.results, charts_of(found))


def report(found: dict[str, dict[str, dict[str, float]]]) -> None:
    table = Table(title="deduplication")
    for column in ("", "ids", "ns an event", "bytes an id", "new dropped per million"):
        table.add_column(column, justify="right" if column else "left")
    for name, sizes in found.items():
        for size, one in sizes.items():
            table.add_row(name, f"{int(size):,}", *(f"{one[what]:,.1f}" for what in ("ns", "bytes", "dropped")))
    Console(width=None if os.isatty(1) else 120).print(table)


if __name__ == "__main__":
    main()
