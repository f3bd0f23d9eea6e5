"""What a rule book of the usual size costs: 20 rules and a list of 10,000 customers.

First in the kernel, for a batch in memory: nanoseconds an event, beside those that identity takes (the hashes that
every event pays for), interleaved. Then in a whole run, Parquet to committed rollups: without rules, with an empty rule
book, and with the usual one, interleaved; the figure is the ratio of the medians.

    python benchmarks/rules.py [--events 2000000] [--repeat 5] [--kernels-only]

The workload is that of benchmarks/columnar.py. Every event passes: what fails is set aside row by row, and rare. In the
kernel it is measured a second time with meters that tell a sum and a duration, so that no rule has nothing to do, and
a third time with one of the others in 70 % of the events only.
"""

import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
from columnar import CUSTOMERS, DIMENSIONS, METERS, measured, price_file, write_events
from figures import Figure, keep, parser
from rich.console import Console
from rich.table import Table

from flow.kernels import identify, usage_lists
from flow.rules.book import RuleBook, load_rule_book
from flow.rules.checker import Checker
from flow.schema import DIMENSIONS as ALL_DIMENSIONS
from flow.schema import EVENTS

ROWS = 131_072  # of a batch, as in a run
PASSES = "{customer: customer-00001, project: project-01, feature: feature-01, model: model-01}"
LIMIT = 1_000_000
NS_MAX = 10  # of 20 rules in the kernel


def checks() -> list[tuple[str, str]]:
    """20 checks, each with an event that fails it."""
    listed = {name: ", ".join(f"{name}-{n:02d}" for n in range(DIMENSIONS[name])) for name in ("project", "model")}
    found = [("known: {customer: {file: customers.txt}}", "{}"), ("required: [project, feature]", "{}")]
    found += [(f"known: {{{name}: [{names}]}}", "{}") for name, names in listed.items()]
    found += [("clock: {behind: 3650d}", "{read: 2106-01-01T00:00:00Z}")]
    found += [(f"range: {{meter: {meter}, max: {LIMIT}}}", f"{{usage: {{{meter}: {LIMIT + 1}}}}}") for meter in METERS]
    found += [("sum: {meter: total_tokens}", "{usage: {total_tokens: 1}}")]
    too_fast = "{model: model-10, usage: {output_tokens: 1, duration_ms: 0}}"
    found += [('where: {model: "model-1*"}, speed: {per_second_max: 100_000}', too_fast)]
    for n in range(0, 20, 2):
        models = f"model-{n:02d}, model-{n + 1:02d}"
        check = f"where: {{model: [{models}]}}, range: {{meter: output_tokens, max: 16_384}}"
        found.append((check, f"{{model: model-{n:02d}, usage: {{output_tokens: 16_385}}}}"))
    return found


def write_rules(folder: Path) -> Path:
    """A rule book of the usual size, and the list of customers that one of its rules names."""
    (folder / "customers.txt").write_text("".join(f"customer-{n:05d}\n" for n in range(CUSTOMERS)))
    path = folder / "rules.yaml"
    path.write_text(
        "rules:\n"
        + "".join(
            f"  - {{id: rule-{n:02d}, severity: flag, since: 2026-01-01T00:00:00Z, {check}, "
            f"examples: {{pass: [{PASSES}], fail: [{fails}]}}}}\n"
            for n, (check, fails) in enumerate(checks())
        )
    )
    return path


# ---- In the kernel --------------------------------------------------------------------------------------------------


def batch(seed: int, told: bool, without: float) -> pa.RecordBatch:
    """EVENTS as a Parquet file gives them; `told`: with the meters that tell a sum and a duration; `without`: the share
    of events that lack the second meter."""
    random = np.random.default_rng(seed)
    shares = np.cumsum(1 / np.arange(1, CUSTOMERS + 1) ** 1.3)
    codes = {"customer": np.searchsorted(shares, random.random(ROWS) * shares[-1])}
    codes |= {name: random.integers(0, count, ROWS) for name, count in DIMENSIONS.items()}
    texts = {"customer": [f"customer-{n:05d}" for n in range(CUSTOMERS)], "source": ["gateway/eu-1"]}
    texts |= {name: [f"{name}-{n:02d}" for n in range(count)] for name, count in DIMENSIONS.items()}
    quantities = np.stack([random.integers(0, 2 * mean, ROWS) for mean in METERS.values()], axis=1)
    meters = list(METERS)
    has = np.ones((ROWS, len(METERS) + 2 * told), bool)
    has[:, 1] = random.random(ROWS) >= without
    quantities *= has[:, : len(METERS)]
    if told:
        quantities = np.column_stack([quantities, quantities.sum(axis=1), np.full(ROWS, 3_000)])
        meters += ["total_tokens", "duration_ms"]
    items = int(has.sum())
    columns: dict[str, pa.Array] = {
        name: pa.DictionaryArray.from_arrays(
            pa.array(codes.get(name, np.zeros(ROWS, np.int32)), pa.int32()), pa.array(texts.get(name, [""]))
        )
        for name in ("source", *ALL_DIMENSIONS)
    }
    columns["id"] = pa.array([f"{n:036d}" for n in range(ROWS)])
    columns["event_time_us"] = pa.array(1_790_000_040_000_000 + np.arange(ROWS, dtype=np.int64))
    columns["position"] = pa.array(np.arange(ROWS, dtype=np.int64))
    columns["usage"] = usage_lists(
        ROWS,
        pa.py_buffer(np.concatenate([[0], np.cumsum(has.sum(axis=1))]).astype(np.int32)),
        pa.py_buffer(np.tile(np.arange(len(meters), dtype=np.int32), (ROWS, 1))[has]),
        pa.py_buffer(quantities.astype(np.int64)[has]),
        items,
        pa.array(meters),
    )
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)


def kernels(book: RuleBook, repeat: int) -> list[dict[str, object]]:
    """Nanoseconds of CPU time an event, of rules and of identity in turns, of a batch that decode has just made."""
    checker = Checker(book.rules)
    now_us = time.time_ns() // 1000
    rows: list[dict[str, object]] = []
    kinds = {"three meters": (False, 0.0), "and a sum and a duration": (True, 0.0), "not all in each": (True, 0.3)}
    for name, (told, without) in kinds.items():
        events = batch(7, told, without)
        spent: dict[str, list[int]] = {"rules": [], "identity": []}
        for _ in range(20 * repeat):
            for side, work in (("rules", lambda of: checker.failures(of, now_us)), ("identity", identify)):
                begun = time.thread_time_ns()
                found = work(events)
                spent[side].append(time.thread_time_ns() - begun)
                if found == {} or side == "identity":
                    continue
                raise SystemExit(f"events fail that must pass: {found}")
        ns = {side: median(taken) / ROWS for side, taken in spent.items()}
        rows.append({"events": name, "rules_ns": round(ns["rules"], 2), "identity_ns": round(ns["identity"], 2)})
    return rows


# ---- In a run -------------------------------------------------------------------------------------------------------


def run(events: Path, folder: Path, rules: Path | None) -> tuple[float, float]:
    """Seconds and CPU seconds of a whole run, its start included."""
    folder.mkdir()
    (folder / "prices.yaml").write_text(price_file())
    config = folder / "config.yaml"
    config.write_text(
        f"source: {{kind: files, path: {events}}}\nprices: prices.yaml\nstore: chdb:store\nstate_dir: state\n"
        f"dedup: {{horizon: unbounded}}\nepoch: 2s\n" + (f"rules: {rules}\n" if rules is not None else "")
    )
    return measured([sys.executable, "-m", "flow", "run", str(config)], folder)[:2]


def runs(count: int, repeat: int, usual: Path, scratch: Path) -> list[dict[str, object]]:
    """The three kinds of run, in turns."""
    events, empty = scratch / "events.parquet", scratch / "empty.yaml"
    write_events(events, count, 1)
    empty.write_text("rules: []\n")
    spent: dict[str, list[tuple[float, float]]] = {"no rules": [], "an empty rule book": [], "20 rules": []}
    for number in range(repeat):
        for (kind, several), rules in zip(spent.items(), (None, empty, usual), strict=True):
            several.append(run(events, scratch / f"{number}-{kind[:2]}", rules))
    medians = {kind: [median(side) for side in zip(*several, strict=True)] for kind, several in spent.items()}
    base = medians["no rules"]
    return [
        {"run": kind, "ratio": round(taken[0] / base[0], 3), "cpu_ratio": round(taken[1] / base[1], 3)}
        for kind, taken in medians.items()
    ]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=2_000_000)
    arguments.add_argument("--repeat", type=int, default=5)
    arguments.add_argument("--kernels-only", action="store_true")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as scratch:
        usual = write_rules(Path(scratch))
        book = load_rule_book(usual)
        report: dict[str, object] = {"rules": len(book.rules), "kernels": kernels(book, options.repeat)}
        if not options.kernels_only:
            report["events"] = options.events
            report["runs"] = runs(options.events, options.repeat, usual, Path(scratch))
    for key in ("kernels", "runs"):
        rows: list[dict[str, object]] = report.get(key, [])  # type: ignore[assignment]  # lists of rows, both
        table = Table(*(rows[0] if rows else []))
        for row in rows:
            table.add_row(*(str(value) for value in row.values()))
        Console().print(table)
    if not options.kernels_only:
        keep("rules", figures_of(report), report, options.results)


def figures_of(report: dict[str, Any]) -> list[Figure]:
    """What is promised, rules beside identity, which every event pays for, and whole runs beside one without rules."""
    kernels = report["kernels"]
    figures = [Figure(f"20 rules, {of['events']}", of["rules_ns"], "ns an event", at_most=NS_MAX) for of in kernels]
    figures += [
        Figure(f"20 rules beside identity, {of['events']}", round(of["rules_ns"] / of["identity_ns"], 3))
        for of in kernels
    ]
    return figures + [Figure(f"time of a run with {of['run']}", of["ratio"]) for of in report["runs"][1:]]


if __name__ == "__main__":
    main()
