"""What it costs to watch: rules of the usual size, anomalies and metrics, all of them together, in a whole run.

Against the same run with an empty rules file, without anomalies and without metrics, interleaved, in changing order.
The figure is the ratio of the medians. What the estimate of an open month needs (late shares, watermarks) is written in
both, for it cannot be turned off. Reconciliation is off in both: it asks the store, at times that a config gives it.

    python benchmarks/watching.py [--events 10000000] [--repeat 5]

The workload is that of benchmarks/columnar.py, Parquet to committed rollups; no event fails a rule. The epoch is that
of a config that does not name one.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

from columnar import measured, price_file, write_events
from figures import Figure, keep, parser
from rules import write_rules

CONFIG = """
source: {{kind: files, path: {events}}}
prices: prices.yaml
store: chdb:store
state_dir: state
dedup: {{horizon: unbounded}}
rules: {rules}
"""
WATCHED = 'metrics: {listen: "127.0.0.1:19464"}\n'
TIME_MAX = 1.2
SIDES = {"watched": True, "not_watched": False}
UNWATCHED = "anomalies: {enabled: false}\n"


def run(events: Path, folder: Path, rules: Path, more: str) -> tuple[float, float]:
    """Wall and CPU seconds of a whole run, its start included."""
    folder.mkdir()
    (folder / "prices.yaml").write_text(price_file())
    (folder / "config.yaml").write_text(CONFIG.format(events=events, rules=rules) + more)
    try:
        return measured([sys.executable, "-m", "flow", "run", "config.yaml"], folder)[:2]
    finally:
        shutil.rmtree(folder)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=10_000_000)
    arguments.add_argument("--repeat", type=int, default=5)
    asked = arguments.parse_args()
    spent: dict[bool, list[tuple[float, float]]] = {True: [], False: []}
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as scratch:
        folder = Path(scratch)
        events, empty = folder / "events.parquet", folder / "empty.yaml"
        write_events(events, asked.events, max(asked.events // 10_000_000, 1))
        empty.write_text("rules: []\n")
        usual = write_rules(folder)
        for turn in range(asked.repeat):
            for watched in (True, False) if turn % 2 else (False, True):
                rules, more = (usual, WATCHED) if watched else (empty, UNWATCHED)
                spent[watched].append(run(events, folder / "run", rules, more))
    watched, unwatched = ([median(of) for of in zip(*spent[side], strict=True)] for side in (True, False))
    ratios = [round(a / b, 3) for a, b in zip(watched, unwatched, strict=True)]
    print(
        f"{asked.events:,} events, {asked.repeat} times: watched {ratios[0]} of the time, {ratios[1]} of the CPU time"
    )
    report = {
        "events": asked.events,
        "repeat": asked.repeat,
        "wall": ratios[0],
        "cpu": ratios[1],
        "seconds": {name: [[round(s, 2) for s in of] for of in spent[side]] for name, side in SIDES.items()},
    }
    keep("watching", figures_of(report), report, asked.results)


def figures_of(report: dict[str, Any]) -> list[Figure]:
    """Whole runs with everything that is watched, beside runs without."""
    wall = Figure("time of a run with rules, anomalies and metrics", report["wall"], at_most=TIME_MAX)
    return [wall, Figure("its CPU time", report["cpu"])]


if __name__ == "__main__":
    main()
