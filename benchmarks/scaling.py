"""What does an event cost where there are more workers, more live keys, more ids, or one customer that has nearly all?

    python benchmarks/scaling.py workers|keys|ids|customers [--events N] [--repeat 3] [--data FOLDER] [--ledger]

All are whole runs, from Parquet to committed rollups without anomalies, each a process of its own, interleaved; medians
count. Ids are 36 characters, 1 % of events are duplicates, and `dedup.horizon` is unbounded, so that all ids are live.

- workers: the dense events of `columnar.py` in two files. One worker has threads besides (a reader, a publisher, the
  store), so that it would use more than one core: one worker on one core is held against two workers on two cores,
  everything included; beside it, two workers against one where that one may use all cores. Threads write to the
  embedded store; processes write to a server (the embedded engine behind HTTP), which shares their cores. What two
  cores give at all, with their common memory and disk, is measured in the same run: two jobs that know nothing of each
  other, each with one worker on a core of its own, beside one of them alone. Start and end, which no worker shortens,
  are what a run of a thousand events takes; `--ledger` keeps a ledger besides.
- keys: 1,000 customers, each as likely as the others, have from a thousand to a million combinations of dimensions.
  Ten events make a row of minutes whatever their number: what is asked is what keys cost, and not what rows do.
- ids: from a million to a hundred million (`--events`); 100,000 live keys, ten events a row as well.
- customers: one has 90 % of the dense events, or all have as many. Two workers, as one customer could make one of them
  wait for the other.

Of keys and ids what counts is CPU time, without that of a run of a thousand events.
"""

import argparse
import os
import shutil
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from statistics import mean, median
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from columnar import WORKLOADS, alone, measured, price_file, write_events
from figures import SCALING, Chart, Figure, Look, keep, parser
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the store's front, which the tests have
from tests.faults.http_front import FrontProcess

CUSTOMERS = 1_000
EVENTS_A_ROW = 10
KEYS = (10**3, 10**4, 10**5, 10**6)
KEYS_OF_IDS, IDS_MIN = 10**5, 10**6
PARTS = (100, 30, 10, 3, 1)
"""Of the most ids that are asked about: which others are."""
FLAT_MAX, TWICE_MIN, HOT_MAX = 1.25, 1.8, 1.05
MIXES = {
    "zipf": None,
    "even": np.ones(CUSTOMERS),
    "one has 90 %": np.array([9 * (CUSTOMERS - 1), *[1] * (CUSTOMERS - 1)], float),
}
"""How likely each customer is; None: as in `columnar.py`."""
CREWS = {"worker threads": "workers", "worker processes": "processes"}
"""Workers of either kind, and what `run` calls how many they are."""
FEW = 1_000
"""Events of a run that is all start and end."""


@dataclass(frozen=True)
class Spent:
    """On one run, whatever processes it had."""

    seconds: float
    cpu_seconds: float


Runs = dict[str, list[Spent]]


# ---- Runs ----------------------------------------------------------------------------------------------------------


def run(
    files: Path,
    folder: Path,
    *,
    workers: int = 1,
    processes: int = 0,
    cores: Sequence[int] = (),
    ledger: bool = False,
) -> Spent:
    """One run in `folder`, which goes. With `processes`, even one, the store is a server. No `cores`: all of them."""
    folder.mkdir(parents=True)
    prefix = ["taskset", "-c", ",".join(map(str, cores))] if cores else []
    (folder / "prices.yaml").write_text(price_file())
    before = getrusage(RUSAGE_CHILDREN)
    front = FrontProcess(folder / "server", prefix=prefix) if processes else None
    (folder / "config.yaml").write_text(
        f"source: {{kind: files, path: {files}/*.parquet}}\nprices: prices.yaml\nstate_dir: state\n"
        f"store: {front.url if front else 'chdb:store'}\nshards: {max(workers, processes)}\n"
        "dedup: {horizon: unbounded}\nepoch: 5s\nanomalies: {enabled: false}\n" + "ledger: ledger\n" * ledger
    )
    command = [*prefix, sys.executable, "-m", "flow", "run", "config.yaml", "--workers", str(workers)]
    try:
        seconds, *_ = measured([*command, *(["--processes", str(processes)] if processes else [])], folder)
    finally:
        if front is not None:
            front.close()
    shutil.rmtree(folder)
    after = getrusage(RUSAGE_CHILDREN)
    return Spent(seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)


def at_once(files: Path, folder: Path, cores: Sequence[int], **how: Any) -> Spent:
    """What each of several jobs takes that run at the same time, each on a core of its own."""
    before = getrusage(RUSAGE_CHILDREN)
    with ThreadPoolExecutor(len(cores)) as pool:
        jobs = [pool.submit(run, files, folder / f"job-{core}", cores=[core], **how) for core in cores]
        seconds = mean(job.result().seconds for job in jobs)
    after = getrusage(RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Spent(seconds, spent / len(cores))


def interleaved(sides: Mapping[str, Callable[[], Spent]], repeat: int) -> Runs:
    runs: Runs = {name: [] for name in sides}
    for _ in range(repeat):
        for name, side in sides.items():
            runs[name].append(side())
    return runs


def medians(runs: Runs) -> dict[str, Spent]:
    return {
        name: Spent(median(one.seconds for one in several), median(one.cpu_seconds for one in several))
        for name, several in runs.items()
    }


# ---- Events --------------------------------------------------------------------------------------------------------


def made(name: str, data: Path, events: int, minutes: int, keys: int, *, mix: str = "even", files: int = 1) -> Path:
    """A folder of events, made if it is not there. `mix`: of customers, see MIXES."""
    folder = data / f"scaling-{name}-{events}"
    if not folder.exists():
        alone(make, folder, events, minutes, keys, mix, files)
    return folder


def make(folder: Path, events: int, minutes: int, keys: int, mix: str, files: int) -> None:
    partial_ = folder.with_suffix(".partial")
    shutil.rmtree(partial_, ignore_errors=True)
    partial_.mkdir(parents=True)
    whole = partial_ / "events.parquet"
    write_events(whole, events, max(minutes, 1), customers=CUSTOMERS, live_keys=keys, weights=MIXES[mix])
    if files > 1:
        split(whole, [partial_ / name for name in names_for_readers(folder, files)])
    partial_.rename(folder)


def names_for_readers(folder: Path, readers: int) -> list[str]:
    """Names of files in that folder of which each reader has one: which has one is told by a hash of its path."""
    found: dict[int, str] = {}
    number = 0
    while len(found) < readers:
        name = f"events-{number:03d}.parquet"
        found.setdefault(zlib.crc32(str(folder / name).encode()) % readers, name)
        number += 1
    return list(found.values())


def split(whole: Path, parts: Sequence[Path]) -> None:
    """Gives the row groups of a file to others in turn; it goes."""
    with pq.ParquetFile(whole) as file:
        writers = [pq.ParquetWriter(part, file.schema_arrow) for part in parts]
        for group in range(file.num_row_groups):
            writers[group % len(parts)].write_table(file.read_row_group(group))
        for writer in writers:
            writer.close()
    whole.unlink()


# ---- Questions -----------------------------------------------------------------------------------------------------

Told = tuple[list[Figure], list[Chart], dict[str, Any]]


def ask_workers(options: argparse.Namespace, data: Path, scratch: Path) -> Told:
    events = options.events or 30_000_000
    dense = WORKLOADS["dense"]
    files = made("dense", data, events, events // dense.per_minute, dense.live_keys, mix="zipf", files=2)
    few = made("few", data, FEW, 1, CUSTOMERS)
    all_cores = sorted(os.sched_getaffinity(0))
    one, two = all_cores[:1], all_cores[:2]
    sides: dict[str, Callable[[], Spent]] = {}
    for crew, kind in CREWS.items():
        of = partial(run, folder=scratch / "run", ledger=options.ledger)
        sides[f"1 {crew}, 1 core"] = partial(of, files, cores=one, **{kind: 1})
        sides[f"1 {crew}, all cores"] = partial(of, files, **{kind: 1})
        sides[f"2 {crew}, 2 cores"] = partial(of, files, cores=two, **{kind: 2})
        sides[f"2 jobs of 1 {crew}, a core each"] = partial(
            at_once, files, scratch / "jobs", two, ledger=options.ledger, **{kind: 1}
        )
        sides[f"1 {crew}, 1 core, few events"] = partial(of, few, cores=one, **{kind: 1})
        sides[f"2 {crew}, 2 cores, few events"] = partial(of, few, cores=two, **{kind: 2})
    runs = interleaved(sides, options.repeat)
    found = medians(runs)
    show(f"{events:,} dense events, by workers", found, next(iter(found)))
    figures: list[Figure] = []
    values: dict[str, dict[str, float]] = {}
    for crew in CREWS:
        told = figures_of(crew, found)
        figures += told
        values[crew] = {"1": 1.0, "2": told[0].value}
        values[f"jobs of {crew}"] = {"1": 1.0, "2": told[1].value}
    values["in proportion"] = {"1": 1.0, "2": 2.0}
    title = "workers, each on a core of its own"
    chart = Chart(SCALING, Look.LINES, title, "throughput beside 1 worker", values, "workers")
    return figures, [chart], kept(runs) | {"events": events}


def figures_of(crew: str, found: dict[str, Spent]) -> list[Figure]:
    """Of two workers beside one; the first is their gain, the second what two cores give at all."""
    bound, free, both = (found[side] for side in (f"1 {crew}, 1 core", f"1 {crew}, all cores", f"2 {crew}, 2 cores"))
    jobs = found[f"2 jobs of 1 {crew}, a core each"]
    ends = [found[f"{side}, few events"].seconds for side in (f"1 {crew}, 1 core", f"2 {crew}, 2 cores")]
    gain, limit = bound.seconds / both.seconds, 2 * bound.seconds / jobs.seconds
    aside = (bound.seconds - ends[0]) / (both.seconds - ends[1])
    told = {
        "two jobs of 1, a core each: throughput of both beside one alone": limit,
        "share that 2 have of that": gain / limit,
        "2 on 2 cores beside 1 on 1 core, without start and end": aside,
        "2 on 2 cores beside 1 on all cores": free.seconds / both.seconds,
        "CPU time of 2 on 2 cores beside 1 on 1 core": both.cpu_seconds / bound.cpu_seconds,
        "CPU time of each of two jobs beside one alone": jobs.cpu_seconds / bound.cpu_seconds,
    }
    first = Figure(f"2 {crew} on 2 cores: throughput beside 1 on 1 core", round(gain, 3), at_least=TWICE_MIN)
    return [first, *(Figure(f"{crew}: {what}", round(value, 3)) for what, value in told.items())]


def ask_keys(options: argparse.Namespace, data: Path, scratch: Path) -> Told:
    events = options.events or 10_000_000
    numbers = [keys for keys in KEYS if keys * EVENTS_A_ROW <= events]
    folders = {str(keys): made(f"{keys}-keys", data, events, events // (keys * EVENTS_A_ROW), keys) for keys in numbers}
    return curve("live keys", folders, dict.fromkeys(folders, events), options, data, scratch)


def ask_ids(options: argparse.Namespace, data: Path, scratch: Path) -> Told:
    most = options.events or 100_000_000
    sizes = {str(most // part): most // part for part in PARTS if part == 1 or most // part >= IDS_MIN}
    folders = {
        name: made("ids", data, events, events // (KEYS_OF_IDS * EVENTS_A_ROW), KEYS_OF_IDS)
        for name, events in sizes.items()
    }
    return curve("ids known", folders, sizes, options, data, scratch)


def curve(
    what: str,
    folders: dict[str, Path],
    sizes: dict[str, int],
    options: argparse.Namespace,
    data: Path,
    scratch: Path,
) -> Told:
    """CPU time of an event for each of these, beside the first."""
    few = made("few", data, FEW, 1, CUSTOMERS)
    sides = {name: partial(run, files, scratch / "run") for name, files in {"few": few, **folders}.items()}
    runs = interleaved(sides, options.repeat)
    found = medians(runs)
    start = found.pop("few").cpu_seconds
    cost = {name: (spent.cpu_seconds - start) / sizes[name] for name, spent in found.items()}
    first = next(iter(cost))
    beside = {name: round(one / cost[first], 3) for name, one in cost.items()}
    show(f"by {what}", found, first)
    print(f"CPU time of an event beside that at {int(first):,} {what}: {beside}")
    spread = round(max(beside.values()) / min(beside.values()), 3)
    last = list(cost)[-1]
    asked = f"CPU time of an event, {int(first):,} to {int(last):,} {what}"
    figures = [
        Figure(f"{asked}: most beside least", spread, at_most=FLAT_MAX),
        Figure(f"{asked}: last beside first", beside[last]),
    ]
    title = f"a run, by {what}"
    unit = "CPU time of an event beside the first"
    chart = Chart(SCALING, Look.LINES, title, unit, {"tallyflow": beside}, what, log=True)
    return figures, [chart], kept(runs) | {"beside": beside, "events": sizes}


def ask_customers(options: argparse.Namespace, data: Path, scratch: Path) -> Told:
    events = options.events or 10_000_000
    dense = WORKLOADS["dense"]
    minutes = events // dense.per_minute
    folders = {
        mix: made(mix.split()[0], data, events, minutes, dense.live_keys, mix=mix, files=2)
        for mix in ("even", "one has 90 %")
    }
    sides = {mix: partial(run, files, scratch / "run", workers=2) for mix, files in folders.items()}
    runs = interleaved(sides, options.repeat)
    found = medians(runs)
    show(f"{events:,} dense events, 2 workers", found, "even")
    even, hot = found.values()
    figures = [
        Figure(
            "a customer with 90 % of events: time beside an even mix",
            round(hot.seconds / even.seconds, 3),
            at_most=HOT_MAX,
        ),
        Figure("its CPU time", round(hot.cpu_seconds / even.cpu_seconds, 3)),
    ]
    return figures, [], kept(runs) | {"events": events}


def kept(runs: Runs) -> dict[str, Any]:
    """Time and CPU time of each run, beside the median time of the first kind."""
    first = next(iter(medians(runs).values())).seconds
    return {
        "runs_beside_the_first": {
            name: [[round(one.seconds / first, 3), round(one.cpu_seconds / first, 3)] for one in several]
            for name, several in runs.items()
        }
    }


def show(title: str, found: dict[str, Spent], first: str) -> None:
    """Each beside the first."""
    table = Table(title=title)
    for name in ("", "time", "CPU time", "CPU beside wall"):
        table.add_column(name, justify="right" if name else "left")
    for name, spent in found.items():
        beside = (spent.seconds / found[first].seconds, spent.cpu_seconds / found[first].cpu_seconds)
        table.add_row(name, *(f"{one:.2f}" for one in (*beside, spent.cpu_seconds / spent.seconds)))
    Console(width=None if sys.stdout.isatty() else 120).print(table)


QUESTIONS = {"workers": ask_workers, "keys": ask_keys, "ids": ask_ids, "customers": ask_customers}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("question", choices=list(QUESTIONS))
    arguments.add_argument("--events", type=int, help="default: 30 million of workers, 100 of ids, 10 else")
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--ledger", action="store_true", help="of workers: keep a ledger")
    arguments.add_argument("--data", type=Path, help="keep the events files here, and use them again")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as name:
        scratch = Path(name)
        figures, charts, measured_ = QUESTIONS[options.question](options, options.data or scratch, scratch)
    keep(f"scaling-{options.question}{'-ledger' * options.ledger}", figures, measured_, options.results, charts)


if __name__ == "__main__":
    main()
