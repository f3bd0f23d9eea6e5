"""How well anomalies are found: faults of each kind, put into real traces by a seed, and what was flagged of them.

    python benchmarks/anomalies.py [--seeds 3] [--data FOLDER]
    python benchmarks/anomalies.py --cost [--events 10000000] [--repeat 3]

The traces: ServeGen, 14 days of production clients (m-small 43, m-mid 109), each client's arrivals scaled to at most
20,000 or 10,000 requests, with its bursts and its token histograms as published (a client without histograms gets those
of another one). Without the traces, made-up customers with days and nights. Every customer gets one of four sources,
one of six models and two projects. Events go through the steps of a run: decode, route, deduplicate, rate, combine.

Recall is the share of faults that were flagged, with their kind, who and hour. Precision is the share of a kind's flags
that meet a fault of the kind; a flag of another kind in the hours of a fault and of the same customer, source or model
is a side effect (a customer's spike is also its source's), and counts as neither. The clean trace is run alone: all its
flags are false, and are told by customer-month.

--cost: whole runs with and without anomalies, interleaved, on the workload of benchmarks/columnar.py.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from columnar import write_events
from figures import ACCURACY, Chart, Figure, Look, keep, parser
from rich.console import Console
from rich.table import Table

from flow.anomalies.found import Kind
from flow.config import Anomalies
from flow.kernels.fingerprints import FingerprintSet
from flow.prices.book import parse_price_book
from flow.schema import DIMENSIONS
from flow.steps.batches import Columns, Limits
from flow.steps.combine import BlockBuilder
from flow.steps.decode import decode
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rater
from flow.steps.route import route
from flow.steps.watch_usage import UsageWatch
from flow.traces import servegen

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
TRACES = {"servegen_m_small": 20_000, "servegen_m_mid": 10_000}
"""And how many requests a client may have."""
HOUR_US = 3_600_000_000
FALSE_FLAGS_MAX = 1
BEGIN = datetime(2026, 1, 5, tzinfo=UTC)  # a Monday
BEGIN_HOUR = int(BEGIN.timestamp()) // 3600
HOURS, LEARNT_HOURS = 14 * 24, 48
SOURCES, MODELS = 4, 6
BATCH_ROWS, BATCHES_PER_BLOCK = 512, 80
FAULTS_PER_KIND = 3
COLUMNS = ("time_us", "customer", "model", "source", "project", "input", "output", "unpriced", "id")


@dataclass
class Trace:
    """Events as columns, in order of time; `customers` names the numbers."""

    name: str
    customers: list[str]
    events: dict[str, Any]
    bad: Any = field(default_factory=lambda: np.empty(0, np.int64))
    """Times of events without a customer."""
    dear: list[tuple[int, int]] = field(default_factory=list)
    """(model, hour): from when a model costs ten times as much, for six hours."""


@dataclass(frozen=True)
class Fault:
    """What was put in; `who` by dimension, empty: everybody."""

    kind: Kind
    hour: int
    hours: int
    who: dict[str, str]


# ---- Traces --------------------------------------------------------------------------------------------------------


def of_clients(path: Path, per_client: int) -> Trace:
    """A ServeGen trace."""
    clients = servegen.read(path)
    random = np.random.default_rng(1)
    measured = [client for client in clients if {"input_tokens", "output_tokens"} <= client.histograms.keys()]
    parts = []
    for number, client in enumerate(clients):
        total = sum(client.requests)
        if not total:
            continue
        counts = servegen.scaled_requests(client, min(Fraction(1), Fraction(per_client, total)))
        rows = sum(counts)
        window = np.repeat(np.arange(len(counts)), counts)
        times_us = (np.array(client.starts_s)[window] * 1_000_000) + random.integers(0, client.window_s * 10**6, rows)
        drawn = client if client in measured else measured[number % len(measured)]
        tokens = {}
        for name in ("input_tokens", "output_tokens"):
            tokens[name] = np.zeros(rows, np.int64)
            for of in np.unique(window):
                here = np.flatnonzero(window == of)
                tokens[name][here] = drawn.in_force(name, client.starts_s[of]).draw(random, len(here))
        parts.append((number, times_us, tokens["input_tokens"], tokens["output_tokens"]))
    return assembled(path.name.split(".")[0], [client.name for client in clients], parts)


def made_up(customers: int = 60) -> Trace:
    """Customers with days and nights, of very different size and evenness."""
    random = np.random.default_rng(2)
    hours = np.arange(HOURS)
    parts = []
    for number in range(customers):
        day = 1 + random.random() * 0.9 * np.sin((hours % 24 - random.integers(24)) / 24 * 2 * np.pi)
        level = np.exp(random.normal(3.2, 1))
        counts = random.poisson(level * day * random.gamma(4, 0.25, HOURS))
        times_us = np.repeat(hours, counts) * HOUR_US + random.integers(0, HOUR_US, counts.sum())
        tokens = [random.lognormal(mean, 1.2, counts.sum()).astype(np.int64) + 1 for mean in (6.5, 5)]
        parts.append((number, times_us, *tokens))
    return assembled("made_up", [f"customer-{n:03d}" for n in range(customers)], parts)


def assembled(name: str, customers: list[str], parts: list[Any]) -> Trace:
    """The parts of all customers as one trace."""
    random = np.random.default_rng(3)
    number = np.concatenate([np.full(len(times_us), n) for n, times_us, *_ in parts])
    rows = len(number)
    events = {
        "time_us": np.concatenate([times_us for _, times_us, *_ in parts]) + BEGIN_HOUR * HOUR_US,
        "customer": number,
        "model": number % MODELS,
        "source": number // MODELS % SOURCES,
        "project": (random.random(rows) < 0.3).astype(np.int64),
        "input": np.concatenate([part[2] for part in parts]),
        "output": np.concatenate([part[3] for part in parts]),
        "unpriced": np.zeros(rows, np.int64),
        "id": np.arange(rows),
    }
    return Trace(name, customers, taken(events, np.argsort(events["time_us"], kind="stable")))


def taken(events: dict[str, Any], rows: Any) -> dict[str, Any]:
    return {name: events[name][rows] for name in COLUMNS}


# ---- Faults --------------------------------------------------------------------------------------------------------


class Injector:
    """Puts faults into a copy of a trace, each in an hour of its own."""

    def __init__(self, trace: Trace, seed: int) -> None:
        self._random = np.random.default_rng(seed)
        self._events = trace.events
        self._names = trace.customers
        self._hour = trace.events["time_us"] // HOUR_US - BEGIN_HOUR
        self._usage = np.zeros((len(trace.customers), HOURS), np.int64)
        np.add.at(self._usage, (trace.events["customer"], self._hour), 1)
        self._gone = np.zeros(len(self._hour), bool)
        self._added: list[dict[str, Any]] = []
        self._taken: set[int] = set()
        self._used: set[tuple[str, int]] = set()
        self._next_id = 1 << 40
        self.trace = Trace(trace.name, trace.customers, {})
        self.faults: list[Fault] = []

    def run(self) -> None:
        """All kinds."""
        for _ in range(FAULTS_PER_KIND):
            for kind in Kind:
                getattr(self, f"_{kind}")()
        events = taken(self._events, ~self._gone)
        events = {name: np.concatenate([events[name], *(more[name] for more in self._added)]) for name in COLUMNS}
        self.trace.events = taken(events, np.argsort(events["time_us"], kind="stable"))
        self.trace.bad = np.sort(self.trace.bad)

    def _place(self, kind: Kind, least: int, *, steady: bool = False, hours: int = 1) -> tuple[int, int] | None:
        """(customer, hour) with a day of use before it, at least `least` events in the median hour and in that one."""
        for _ in range(2000):
            hour = int(self._random.integers(LEARNT_HOURS, HOURS - 12))
            customer = int(self._random.integers(len(self._names)))
            usage = self._usage[customer]
            before = usage[:hour][usage[:hour] > 0]
            day = usage[hour - 26 : hour]
            fits = len(before) >= 26 and np.median(before[-24:]) >= least and usage[hour] >= least
            fits &= (kind, customer) not in self._used
            fits &= not steady or day.min() >= 22
            around = set(range(hour - 1, hour + hours + 1))
            if fits and not around & self._taken:
                self._taken |= around
                self._used.add((kind, customer))
                return customer, hour
        return None

    def _rows(self, hour: int, **of: int) -> Any:
        chosen = self._hour == hour
        for name, value in of.items():
            chosen &= self._events[name] == value
        return np.flatnonzero(chosen)

    def _add(self, rows: Any, times: int, **changed: Any) -> None:
        """Copies of rows, under ids of their own, anywhere in the same hour."""
        more = taken(self._events, np.repeat(rows, times))
        count = len(rows) * times
        more["time_us"] = more["time_us"] // HOUR_US * HOUR_US + self._random.integers(0, HOUR_US, count)
        more["id"] = np.arange(self._next_id, self._next_id + count)
        self._next_id += count
        self._added.append(more | {name: np.broadcast_to(value, count) for name, value in changed.items()})

    def _fault(self, kind: Kind, hour: int, hours: int = 1, **who: str) -> None:
        self.faults.append(Fault(kind, hour, hours, who))

    def _usage_spike(self) -> None:
        if place := self._place(Kind.USAGE_SPIKE, 2):
            customer, hour = place
            before = self._usage[customer][:hour]
            usual = int(np.median(before[before > 0][-24:]))
            self._add(self._random.choice(self._rows(hour, customer=customer), 100 * usual), 1)
            self._fault(Kind.USAGE_SPIKE, hour, customer=self._names[customer])

    def _silence(self) -> None:
        if place := self._place(Kind.SILENCE, 22, steady=True, hours=6):
            customer, hour = place
            for gone in range(hour, hour + 6):
                self._gone[self._rows(gone, customer=customer)] = True
            self._fault(Kind.SILENCE, hour, 6, customer=self._names[customer])

    def _new_large(self) -> None:
        if place := self._place(Kind.NEW_LARGE, 10):
            customer, hour = place
            usual = int(np.median(self._usage[customer][hour - 24 : hour]))
            rows = self._random.choice(self._rows(hour, customer=customer), 4 * max(usual, 10))
            self._add(rows, 1, model=(customer + 1) % MODELS)
            model = f"model-{(customer + 1) % MODELS}"
            self._fault(Kind.NEW_LARGE, hour, customer=self._names[customer], model=model)

    def _duplicate_rate(self) -> None:
        if place := self._place(Kind.DUPLICATE_RATE, 2):
            source, hour = place[0] // MODELS % SOURCES, place[1]
            rows = self._rows(hour, source=source)
            again = taken(self._events, self._random.choice(rows, len(rows) // 3, replace=False))
            self._added.append(again | {"time_us": again["time_us"] + 1})
            self._fault(Kind.DUPLICATE_RATE, hour, source=f"gateway-{source}")

    def _reject_rate(self) -> None:
        if place := self._place(Kind.REJECT_RATE, 2):
            rows = self._rows(place[1])
            bad = self._events["time_us"][self._random.choice(rows, len(rows) // 4, replace=False)]
            self.trace.bad = np.concatenate([self.trace.bad, bad])
            self._fault(Kind.REJECT_RATE, place[1])

    def _unpriced_rate(self) -> None:
        if place := self._place(Kind.UNPRICED_RATE, 20):
            customer, hour = place
            rows = self._rows(hour, customer=customer)
            changed = self._random.choice(rows, max(len(rows) // 2, 1), replace=False)
            self._gone[changed] = True
            self._add(changed, 1, unpriced=1)
            self._fault(Kind.UNPRICED_RATE, hour, customer=self._names[customer])

    def _source_rate(self) -> None:
        if place := self._place(Kind.SOURCE_RATE, 2):
            source, hour = place[0] // MODELS % SOURCES, place[1]
            of_source = [n for n in range(len(self._names)) if n // MODELS % SOURCES == source]
            usual = int(np.median(self._usage[of_source, hour - 24 : hour].sum(axis=0)))
            self._add(self._random.choice(self._rows(hour, source=source), 50 * usual), 1)
            self._fault(Kind.SOURCE_RATE, hour, source=f"gateway-{source}")

    def _request_loop(self) -> None:
        if place := self._place(Kind.REQUEST_LOOP, 20):
            customer, hour = place
            rows = self._rows(hour, customer=customer, project=0)
            if len(rows):
                count = max(3000, 30 * int(np.median(self._usage[customer][hour - 24 : hour])))
                one = self._random.choice(rows)
                size = self._events["input"][one]
                even = {"input": size + self._random.integers(0, size // 100 + 1, count)}
                self._add(np.repeat(one, count), 1, **even)
                self._fault(Kind.REQUEST_LOOP, hour, customer=self._names[customer], project="project-0")

    def _price_per_unit(self) -> None:
        if place := self._place(Kind.PRICE_PER_UNIT, 20, hours=6):
            model, hour = place[0] % MODELS, place[1]
            self.trace.dear.append((model, hour))
            self._fault(Kind.PRICE_PER_UNIT, hour, 6, model=f"model-{model}")


# ---- A run ---------------------------------------------------------------------------------------------------------


def prices(trace: Trace) -> str:
    """The price book of a trace."""
    lines = ["currency: USD", "prices:"]

    def row(model: int, hour: int, factor: int) -> None:
        start = f"{datetime.fromtimestamp(hour * 3600, UTC):%Y-%m-%dT%H:%M:%SZ}"
        for meter, price in (("input_tokens", 600 * (model + 1)), ("output_tokens", 2400 * (model + 1))):
            text = f'"{Decimal(price * factor) / 1000}"'
            lines.append(f"  - {{model: model-{model}, meter: {meter}, from: {start}, per: 1_000_000, price: {text}}}")

    for model in range(MODELS):
        row(model, BEGIN_HOUR - 1, 1)
    for model, hour in trace.dear:
        row(model, BEGIN_HOUR + hour, 10)
        row(model, BEGIN_HOUR + hour + 6, 1)
    return "\n".join(lines)


def columnar_batches(trace: Trace) -> Any:
    """Record batches in the columnar form, the bad ones among the others by time."""
    names = {
        "customer": pa.array([*trace.customers, ""]),
        "model": pa.array([f"model-{n}" for n in range(MODELS)]),
        "source": pa.array([f"gateway-{n}" for n in range(SOURCES)]),
        "project": pa.array(["project-0", "project-1"]),
    }
    events, bad = trace.events, len(trace.bad)
    zeros = {name: np.zeros(bad, np.int64) for name in COLUMNS}
    zeros |= {"time_us": trace.bad, "customer": np.full(bad, len(trace.customers)), "id": np.arange(bad) + (1 << 50)}
    merged = {name: np.concatenate([events[name], zeros[name]]) for name in COLUMNS}
    merged = taken(merged, np.argsort(merged["time_us"], kind="stable"))
    for first in range(0, len(merged["id"]), BATCH_ROWS):
        of = {name: column[first : first + BATCH_ROWS] for name, column in merged.items()}
        empty = pa.array([""] * len(of["id"]))
        columns = {"id": pa.array(of["id"]).cast(pa.string()), **dict.fromkeys(DIMENSIONS, empty)}
        columns |= {name: values.take(pa.array(of[name])) for name, values in names.items()}
        columns["time"] = pa.array(of["time_us"], pa.timestamp("us", tz="UTC"))
        columns["input_tokens"], columns["output_tokens"] = pa.array(of["input"]), pa.array(of["output"])
        columns["other_tokens"] = pa.array(of["output"], mask=of["unpriced"] == 0)
        yield pa.RecordBatch.from_pydict(columns)


def flagged(trace: Trace) -> list[dict[str, Any]]:
    """The rows of `anomalies`."""
    rater = Rater(parse_price_book(prices(trace), "prices.yaml"))
    known, block = FingerprintSet(None, 1), BlockBuilder("USD", anomalies=UsageWatch("USD", Anomalies()))
    found: list[dict[str, Any]] = []

    def cut() -> None:
        for table, rows in block.cut("benchmark", "writer", 1, 0):
            batches = list(rows.batches)
            if table == "anomalies":
                found.extend(row for batch in batches for row in batch.to_pylist())
        block.clear()

    for number, batch in enumerate(columnar_batches(trace), 1):
        decoded = decode(Columns(trace.name, number * BATCH_ROWS, batch), Limits(), 2**50 * 10)
        for routed in route(decoded, 1):
            times = routed.events.column("event_time_us")
            verdicts = known.judge(routed.identity, times, routed.rows, routed.count)
            block.add(rater.rate(Judged(routed, verdicts, known.watermark_us)))
        if number % BATCHES_PER_BLOCK == 0:
            cut()
    cut()
    return found


# ---- What was found ------------------------------------------------------------------------------------------------


@dataclass
class Score:
    """Of one kind."""

    faults: int = 0
    found: int = 0
    true: int = 0
    false: int = 0
    side_effects: int = 0


def scored(trace: Trace, faults: list[Fault], rows: list[dict[str, Any]], scores: dict[str, Score]) -> None:
    """Adds up what was found of some faults."""

    def meets(fault: Fault, row: dict[str, Any]) -> bool:
        hour = row["window_start"] // 3600 - BEGIN_HOUR
        return (
            row["kind"] == fault.kind
            and fault.hour <= hour < fault.hour + fault.hours
            and fault.who.items() <= row.items()
        )

    def near(fault: Fault, row: dict[str, Any]) -> bool:
        """Of the same hours, and of somebody who is in it."""
        hour = row["window_start"] // 3600 - BEGIN_HOUR
        if not fault.hour <= hour <= fault.hour + fault.hours:
            return False
        told = {name: row[name] for name in ("customer", "source", "model") if row[name]}
        own = dict(fault.who)
        for side in (told, own):
            if "customer" in side:
                number = trace.customers.index(side["customer"])
                side.setdefault("source", f"gateway-{number // MODELS % SOURCES}")
                side.setdefault("model", f"model-{number % MODELS}")
        return not own or not told or any(own.get(name) == value for name, value in told.items())

    for fault in faults:
        scores[fault.kind].faults += 1
        scores[fault.kind].found += any(meets(fault, row) for row in rows)
    for row in rows:
        score = scores[row["kind"]]
        if any(meets(fault, row) for fault in faults):
            score.true += 1
        elif any(near(fault, row) for fault in faults):
            score.side_effects += 1
        else:
            score.false += 1


def accuracy(data: Path, seeds: int) -> dict[str, Any]:
    """Runs everything, and prints it."""
    traces = [of_clients(data / f"{name}.jsonl.gz", most) for name, most in TRACES.items() if data.is_dir()]
    console, scores = Console(), {str(kind): Score() for kind in Kind}
    clean: Counter[str] = Counter()
    customer_months = Fraction(0)
    for trace in traces or [made_up()]:
        used = len(np.unique(trace.events["customer"]))
        customer_months += Fraction(used * HOURS, 30 * 24)
        rows = flagged(trace)
        clean.update(row["kind"] for row in rows)
        console.print(f"{trace.name}: {len(trace.events['id']):,} events of {used} customers, {len(rows)} flags")
        for seed in range(seeds):
            injector = Injector(trace, seed)
            injector.run()
            scored(trace, injector.faults, flagged(injector.trace), scores)
    table = Table("kind", "faults", "found", "recall", "precision", "side effects", "flags on clean traces")
    kinds = {}
    for kind, score in scores.items():
        recall = f"{score.found / score.faults:.3f}" if score.faults else "-"
        precision = f"{score.true / (score.true + score.false):.3f}" if score.true + score.false else "-"
        table.add_row(kind, *map(str, (score.faults, score.found, recall, precision, score.side_effects, clean[kind])))
        kinds[kind] = {**vars(score), "recall": recall, "precision": precision, "clean_flags": clean[kind]}
    console.print(table)
    per_month = f"{float(clean.total() / customer_months):.3f}"
    console.print(f"{clean.total()} false flags in {float(customer_months):.1f} customer-months: {per_month} each")
    return {
        "traces": [trace.name for trace in traces] or ["made_up"],
        "seeds": seeds,
        "kinds": kinds,
        "customer_months": f"{float(customer_months):.1f}",
        "false_flags_per_customer_month": per_month,
    }


# ---- What it costs -------------------------------------------------------------------------------------------------

CONFIG = """
source: {{kind: files, path: {events}}}
prices: prices.yaml
store: chdb:store
state_dir: state
epoch: 2s
dedup: {{horizon: unbounded}}
anomalies: {{enabled: {enabled}}}
"""


PRICES = """
currency: USD
prices:
  - {meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
  - {meter: cached_input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "0.30"}
  - {meter: output_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "2.40"}
"""


def cost(events: int, repeat: int) -> dict[str, Any]:
    """CPU and wall time of whole runs, with and without."""
    seconds: dict[str, list[tuple[float, float]]] = {"true": [], "false": []}
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "events.parquet"
        write_events(path, events, max(events // 10_000_000, 1))
        for turn in range(repeat):
            for enabled in ("true", "false") if turn % 2 else ("false", "true"):
                folder = Path(scratch) / "run"
                folder.mkdir()
                (folder / "prices.yaml").write_text(PRICES)
                (folder / "config.yaml").write_text(CONFIG.format(events=path, enabled=enabled))
                begun = time.monotonic()
                process = subprocess.Popen(
                    [sys.executable, "-m", "flow", "run", "config.yaml"], cwd=folder, stdout=subprocess.DEVNULL
                )
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                if process.returncode:
                    raise SystemExit(f"the run ended with {process.returncode}")
                seconds[enabled].append((time.monotonic() - begun, usage.ru_utime + usage.ru_stime))
                shutil.rmtree(folder)
    wall, cpu = (median(row[n] for row in seconds["true"]) / median(row[n] for row in seconds["false"]) for n in (0, 1))
    print(f"{events:,} events, {repeat} times: with anomalies {wall:.3f} of the time, {cpu:.3f} of the CPU time")
    return {"events": events, "repeat": repeat, "wall": round(wall, 3), "cpu": round(cpu, 3)}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument("--data", type=Path, default=DATA)
    arguments.add_argument("--cost", action="store_true")
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    asked = arguments.parse_args()
    result = cost(asked.events, asked.repeat) if asked.cost else accuracy(asked.data, asked.seeds)
    name = "anomalies-cost" if asked.cost else "anomalies"
    keep(name, figures_of(result), result, asked.results, [] if asked.cost else charts_of(result))


def charts_of(result: dict[str, Any]) -> list[Chart]:
    """Recall and precision by kind; `-` is none."""
    values = {
        name: {kind.replace("_", " "): float(of[name]) for kind, of in result["kinds"].items() if of[name] != "-"}
        for name in ("recall", "precision")
    }
    return [Chart(ACCURACY, Look.BARS, "faults that were put into real traffic", "share", values)]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """What it costs; or how many flags are false, and how many faults of each kind are found."""
    if "wall" in result:
        return [
            Figure("time of a run with anomalies", result["wall"]),
            Figure("its CPU time", result["cpu"]),
        ]
    flags = float(result["false_flags_per_customer_month"])
    figures = [Figure("false flags a customer and month, on clean traces", flags, at_most=FALSE_FLAGS_MAX)]
    for kind, found in result["kinds"].items():
        if found["faults"]:
            figures.append(Figure(f"faults found, {kind.replace('_', ' ')}", float(found["recall"])))
    return figures


if __name__ == "__main__":
    main()
