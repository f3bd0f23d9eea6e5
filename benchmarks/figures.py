"""What benchmarks have in common: figures, the files they are kept in, and the table that they make."""

import argparse
import json
import os
import platform
import re
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"

PEERS = "Throughput beside peers"
STAGES = "Cost of an event by stage"
SCALING = "Scaling"
MEMORY = "Memory of an id"
LATENCY = "Latency"
ACCURACY = "Accuracy"
SECTIONS = (PEERS, STAGES, SCALING, MEMORY, LATENCY, ACCURACY)
"""Of the report."""


@dataclass(frozen=True)
class Figure:
    """One number that a benchmark comes to; a ratio, but where a time is what was promised."""

    what: str
    value: float
    unit: str = ""
    """Absent: a ratio or a count."""
    at_least: float | None = None
    """The aim, if there is one."""
    at_most: float | None = None

    @property
    def reached(self) -> bool | None:
        """Whether the aim is; None without one."""
        if self.at_least is None and self.at_most is None:
            return None
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)

    @property
    def aim(self) -> str:
        bounds = (("at least", self.at_least), ("at most", self.at_most))
        return " and ".join(f"{name} {bound:g}" for name, bound in bounds if bound is not None)

    @property
    def told(self) -> str:
        """Value and unit."""
        return f"{number(self.value)} {self.unit}".strip()


class Look(StrEnum):
    """How a chart looks."""

    BARS = "bars"  # a group of bars a label
    STACKED = "stacked"  # a bar a series, one part of it a label
    LINES = "lines"  # labels are numbers
    STEPS = "steps"  # a histogram; a label is where a bin begins


@dataclass(frozen=True)
class Chart:
    """What the report draws of a benchmark."""

    section: str
    """One of SECTIONS."""
    look: Look
    title: str
    unit: str
    values: dict[str, dict[str, float]]
    """By series and label."""
    across: str = ""
    """What the labels are, where they are numbers."""
    log: bool = False
    """Whether that axis is logarithmic; of bars, that of the values."""
    log_values: bool = False
    """Whether the axis of the values is too, of lines."""


@dataclass(frozen=True)
class Result:
    """A file of results."""

    benchmark: str
    date: str
    machine: dict[str, Any]
    figures: list[Figure]
    measured: Any
    """Everything, in the benchmark's own form."""
    charts: list[Chart] = field(default_factory=list)


def number(value: float) -> str:
    """With commas, and four digits if it has no more before the point."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def parser(description: str | None) -> argparse.ArgumentParser:
    """For the options of a benchmark: its own are to be added. `description`: its docstring."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--results", type=Path, default=RESULTS, help="the folder for the dated JSON file")
    return made


def keep(
    benchmark: str, figures: Sequence[Figure], measured: Any, folder: Path = RESULTS, charts: Sequence[Chart] = ()
) -> None:
    """Writes `BENCHMARK-DATE.json`, in the place of an earlier one of that day, and says so."""
    now = datetime.now(UTC)
    told: dict[str, Any] = {"benchmark": benchmark, "date": f"{now:%Y-%m-%dT%H:%M:%SZ}", "machine": machine()}
    told |= {"figures": [asdict(figure) for figure in figures], "charts": [asdict(chart) for chart in charts]}
    told |= {"measured": measured}
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{benchmark}-{now:%Y-%m-%d}.json"
    path.write_text(json.dumps(told, indent=1) + "\n")
    print(f"written to {path}", file=sys.stderr)


def machine() -> dict[str, Any]:
    """What a reader has to know of the machine."""
    cpuinfo = Path("/proc/cpuinfo").read_text()
    named = re.search(r"model name\s*: (.*)", cpuinfo)  # aarch64 has none
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": named[1] if named else platform.machine(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30),
        "python": platform.python_version(),
    }


def newest(folder: Path = RESULTS) -> dict[str, Result]:
    """The newest result of each benchmark, by its name."""
    found: dict[str, Result] = {}
    for path in sorted(folder.glob("*-????-??-??.json")):  # of one benchmark, by date
        told = json.loads(path.read_text())
        if not isinstance(told, dict) or "figures" not in told:
            print(f"warning: {path} is not in the form of `figures.keep`; run its benchmark again", file=sys.stderr)
            continue
        told["figures"] = [Figure(**figure) for figure in told["figures"]]
        told["charts"] = [Chart(**chart | {"look": Look(chart["look"])}) for chart in told.get("charts", [])]
        found[told["benchmark"]] = Result(**told)
    return dict(sorted(found.items()))


def table(results: Iterable[Result]) -> Table:
    """All figures, and which aims are reached."""
    made = Table(title="benchmarks")
    for name in ("benchmark", "figure", "value", "aim", "reached", "measured on"):
        made.add_column(name, justify="right" if name == "value" else "left")
    for result in results:
        for n, figure in enumerate(result.figures):
            reached = {True: "yes", False: "[bold]no[/bold]", None: ""}[figure.reached]
            first = ("", "") if n else (result.benchmark, result.date[:10])
            made.add_row(first[0], figure.what, figure.told, figure.aim, reached, first[1])
        made.add_section()
    return made


def show(results: Iterable[Result]) -> None:
    """Prints that table."""
    Console(width=None if sys.stdout.isatty() else 160).print(table(results))
