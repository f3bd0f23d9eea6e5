"""From NDJSON to committed rollups: Tallyflow, one worker, beside what JSON readers take to read the same file alone.

The readers (Polars, ClickHouse, pyarrow, msgspec; one thread each) only parse: none of them removes a duplicate,
charges, sums or keeps anything. Tallyflow does all of that, and ends with its balance checked. Its one worker has a
thread that reads ahead, and its store works in the background, so that it may use more than one core: the table says
how much. All runs are processes of their own, interleaved; figures are ratios of medians to Polars.

    python benchmarks/json_path.py [--events 5000000] [--repeat 3] [--data FOLDER] [--workload dense] [--side tallyflow]

Workloads, all with the meters, ids and duplicates of `columnar.py`: `dense`, 1,000 customers with 20,000 live keys
together and half a million events a minute, as CloudEvents; `flat`, the same in the flat form; `sparse`, the keys of
`columnar.py`, where five events make a rollup row, as CloudEvents.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from columnar import DIMENSIONS, METERS, Run, alone, measured, run_tallyflow, show_sides
from columnar import made as made_columns
from figures import PEERS, Chart, Figure, Look, keep, parser


@dataclass(frozen=True)
class Workload:
    """Which events, and in which form."""

    keys: str
    """The workload of `columnar.py` that they are."""
    form: str


WORKLOADS = {
    "dense": Workload("dense", "cloud"),
    "flat": Workload("dense", "flat"),
    "sparse": Workload("sparse", "cloud"),
}

_REST = (
    *(f'","{name}":"' for name in list(DIMENSIONS)[1:]),
    *(f'{start}"{name}":' for start, name in zip(('","usage":{', ",", ","), METERS, strict=True)),
)
FORMS = {
    "cloud": (
        '{"specversion":"1.0","id":"',
        '","source":"gateway/eu-1","type":"llm.usage","time":"',
        '","subject":"',
        '","data":{"project":"',
        *_REST,
        "}}}\n",
    ),
    "flat": ('{"id":"', '","source":"gateway/eu-1","time":"', '","customer":"', '","project":"', *_REST, "}}\n"),
}
"""What stands between id, time, customer, the other dimensions and the meters."""


def write_ndjson(parquet: Path, path: Path, form: str) -> None:
    """The events of a Parquet file, one a line."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        for batch in pq.ParquetFile(parquet).iter_batches(1 << 18):
            fields = [batch.column(name) for name in ("id", "time", "customer", *DIMENSIONS, *METERS)]
            fields[1] = pc.strftime(fields[1], "%Y-%m-%dT%H:%M:%SZ")
            parts = [part for pair in zip(FORMS[form], [*fields, ""], strict=True) for part in pair]
            texts = [part if isinstance(part, str) else part.cast(pa.string()) for part in parts]
            lines = pc.binary_join_element_wise(*texts, "")
            file.write(lines.buffers()[2])
    partial.rename(path)


# ---- The readers: each prints how many events it saw, and the sum of one meter --------------------------------------

POLARS = """
import os, sys
os.environ["POLARS_MAX_THREADS"] = "1"
import polars
frame = polars.read_ndjson(sys.argv[1])
usage = frame["data"].struct.field("usage") if "data" in frame.columns else frame["usage"]
print(frame.height, usage.struct.field("output_tokens").sum())
"""

CLICKHOUSE = """
import chdb, sys
meters = ", ".join(f"{name} UInt64" for name in ("input_tokens", "cached_input_tokens", "output_tokens"))
own = ", ".join(f"{name} String" for name in ("project", "feature", "model", "region")) + f", usage Tuple({meters})"
form, usage = (f"customer String, {own}", "usage") if sys.argv[2] == "flat" else (
    f"specversion String, type String, subject String, data Tuple({own})", "data.usage")
# Every column is asked for: ClickHouse would skip what is not.
print(chdb.query(
    f"SELECT count(), sum({usage}.output_tokens), max(length(toString(tuple(*)))) "
    f"FROM file('{sys.argv[1]}', 'JSONEachRow', 'id String, source String, time String, {form}') "
    "SETTINGS max_threads = 1, input_format_parallel_parsing = 0", "TSV"))
"""

PYARROW = """
import pyarrow.compute, pyarrow.json, sys
options = pyarrow.json.ReadOptions(use_threads=False, block_size=16 << 20)
table = pyarrow.json.read_json(sys.argv[1], read_options=options)
usage = pyarrow.compute.struct_field(table["data"], "usage") if "data" in table.column_names else table["usage"]
print(table.num_rows, pyarrow.compute.sum(pyarrow.compute.struct_field(usage, "output_tokens")))
"""

MSGSPEC = """
import msgspec, sys
usage = msgspec.defstruct("Usage", [(n, int) for n in ("input_tokens", "cached_input_tokens", "output_tokens")])
own = [*((name, str) for name in ("project", "feature", "model", "region")), ("usage", usage)]
flat = [("id", str), ("source", str), ("time", str), ("customer", str), *own]
cloud = [(name, str) for name in ("specversion", "id", "source", "type", "time", "subject")]
cloud.append(("data", msgspec.defstruct("Data", own, gc=False)))
is_flat = sys.argv[2] == "flat"
decode = msgspec.json.Decoder(msgspec.defstruct("Event", flat if is_flat else cloud, gc=False)).decode
events = total = 0
with open(sys.argv[1], "rb") as file:
    for line in file:
        event = decode(line)
        events += 1
        total += (event if is_flat else event.data).usage.output_tokens
print(events, total)
"""


def run_reader(script: str, events: Path, form: str, folder: Path) -> Run:
    seconds, cpu, resident, said = measured([sys.executable, "-c", script, str(events), form], folder)
    read, total = (int(word) for word in said.split()[:2])
    return Run(seconds, cpu, resident, read, total)


TALLYFLOW = "tallyflow"
SIDES: dict[str, Callable[[Path, str, Path], Run]] = {
    "polars": partial(run_reader, POLARS),
    "clickhouse": partial(run_reader, CLICKHOUSE),
    "pyarrow": partial(run_reader, PYARROW),
    "msgspec": partial(run_reader, MSGSPEC),
    TALLYFLOW: lambda events, _, folder: run_tallyflow(events, folder, "5s", anomalies=False),
}


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--events", type=int, default=5_000_000)
    arguments.add_argument("--repeat", type=int, default=3)
    arguments.add_argument("--data", type=Path, help="keep the events files here, and use them again")
    arguments.add_argument("--workload", choices=list(WORKLOADS), action="append")
    arguments.add_argument("--side", choices=list(SIDES), action="append", help="writes no results")
    options = arguments.parse_args()
    results = [compare(workload, options) for workload in options.workload or WORKLOADS]
    if not options.side:
        keep("json-path", figures_of(results), results, options.results, charts_of(results))


def charts_of(results: list[dict[str, Any]]) -> list[Chart]:
    """Throughput of each side."""
    values = {of["workload"]: {side["side"]: side["ratio"] for side in of["sides"]} for of in results}
    title = "NDJSON to committed rollups, beside reading the same file"
    return [Chart(PEERS, Look.BARS, title, "throughput beside Polars", values)]


def figures_of(results: list[dict[str, Any]]) -> list[Figure]:
    """Our throughput beside that of Polars' reader."""
    return [
        Figure(f"NDJSON to rollups, {result['workload']}: throughput beside Polars reading", side["ratio"], at_least=2)
        for result in results
        for side in result["sides"]
        if side["side"] == TALLYFLOW
    ]


def compare(workload: str, options: argparse.Namespace) -> dict[str, object]:
    """One workload, interleaved, as a table on the terminal and as what is kept of it."""
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as scratch:
        events = made(workload, options.events, options.data or Path(scratch))
        runs: dict[str, list[Run]] = {side: [] for side in options.side or SIDES}
        for number in range(options.repeat):
            for side, several in runs.items():
                folder = Path(scratch) / f"{number}-{side}"
                folder.mkdir()
                several.append(SIDES[side](events, WORKLOADS[workload].form, folder))
                shutil.rmtree(folder)
        answers = {(run.events, run.amount_femto) for side in runs if side != TALLYFLOW for run in runs[side]}
        if len(answers) > 1:
            raise SystemExit(f"the readers do not agree on events and tokens: {answers}")
        return report(workload, options, events.stat().st_size, runs)


def made(workload: str, events: int, folder: Path) -> Path:
    """The file of a workload, made if it is not there."""
    path = folder / f"{workload}-{events}.ndjson"
    if not path.exists():
        alone(make, WORKLOADS[workload], events, path)
    return path


def make(workload: Workload, events: int, path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        write_ndjson(made_columns(workload.keys, events, Path(scratch)), path, workload.form)


def report(workload: str, options: argparse.Namespace, size: int, runs: dict[str, list[Run]]) -> dict[str, object]:
    title = f"{options.events:,} events of {size / options.events:.0f} bytes, {workload}: medians of {options.repeat}"
    sides = show_sides(title, "Polars", runs)
    return {"workload": workload, "events": options.events, "bytes_an_event": size // options.events, "sides": sides}


if __name__ == "__main__":
    main()
