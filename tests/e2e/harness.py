"""What the end-to-end tests share: events, the ways to write them down, a pipeline in a folder, and the truth."""

import gzip
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyarrow import ipc

from flow.config import Config, Store, load_config
from flow.errors import TallyflowError
from flow.oracle.rollup import GRAINS, Key, Rates, Rollup
from flow.prices.book import parse_price_book
from flow.run import Outcome, run
from flow.schema import DIMENSIONS
from flow.start import open_store
from flow.store import connect, migrate
from flow.store.client import release_engine
from flow.store.queries.view_rows import CustomerRange, view_rows

Event = dict[str, Any]
"""The flat form of DESIGN 3.1, with `time` a datetime and `usage` a dict."""
Views = dict[str, dict[Key, tuple[int, int, int, int, int]]]
"""By grain and row: quantity, amount (10^-15), events, unpriced quantity, digest."""

PRICES = """
currency: USD
unbilled: [images]
prices:
  - {model: small, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
  - {model: small, meter: output_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "2.40"}
  - {model: small, meter: output_tokens, from: 2026-03-01T12:00:30Z, per: 1_000_000, price: "2.50"}
  - {model: large, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "5"}
  - {model: large, meter: output_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "15"}
  - {model: large, meter: output_tokens, customer: acme, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "12"}
  - {meter: cached_input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.075"}
"""


def event(number: int, time: datetime | str = "2026-03-01T12:00:00Z", **changes: Any) -> Event:
    """An event of its own id, everything else alike unless it is changed."""
    made = {
        "id": f"event-{number:08d}",
        "source": "gateway/eu-1",
        "time": datetime.fromisoformat(time) if isinstance(time, str) else time,
        "customer": "acme",
        "project": "search",
        "feature": "chat",
        "model": "small",
        "region": "eu-west-1",
        "service_tier": "standard",
        "usage": {"input_tokens": 900, "output_tokens": 95},
    }
    return made | changes


def make_events(count: int, seed: int = 1) -> list[Event]:
    """Distinct events over three days, of a few customers, priced and unpriced models; no conflicts, no duplicates."""
    draw = random.Random(seed)
    start = datetime(2026, 2, 27, 23, tzinfo=UTC)
    made = []
    for number in range(count):
        usage = {"input_tokens": draw.randrange(5000), "output_tokens": draw.randrange(1, 900)}
        if draw.random() < 0.3:
            usage["cached_input_tokens"] = 128 * draw.randrange(40)
        if draw.random() < 0.1:
            usage |= {"images": draw.randrange(1, 4), "denoising_steps": draw.randrange(1, 50), "audio_seconds": 7}
        made.append(
            event(
                number,
                start + timedelta(microseconds=draw.randrange(3 * 86_400_000_000)),
                source=draw.choice(["gateway/eu-1", "gateway/us-1", ""]),
                customer=draw.choice(["acme", "Ærø 'quoted' \\ \t", "zeta", "acme"]),
                project=draw.choice(["search", "", "ops"]),
                feature=draw.choice(["chat", "summary"]),
                model=draw.choice(["small", "large", "unlisted"]),
                region=draw.choice(["eu-west-1", "us-east-1"]),
                service_tier=draw.choice(["standard", "batch"]),
                usage=usage,
            )
        )
    return made


# ---- Writing events down ----


def flat(event: Event) -> dict[str, Any]:
    return event | {"time": event["time"].isoformat(timespec="microseconds")}


def cloud(event: Event) -> dict[str, Any]:
    data = {name: event[name] for name in DIMENSIONS if name != "customer"} | {"usage": event["usage"]}
    envelope = {"specversion": "1.0", "type": "llm.usage", "subject": event["customer"], "data": data}
    return envelope | {name: flat(event)[name] for name in ("id", "source", "time")}


def lines(events: Iterable[Event], form: Any = flat) -> bytes:
    return b"".join(json.dumps(form(event), ensure_ascii=False).encode() + b"\n" for event in events)


def table(events: list[Event]) -> pa.Table:
    """The columnar form."""
    meters = sorted({meter for event in events for meter in event["usage"]})
    columns: dict[str, Any] = {name: [event[name] for event in events] for name in ("id", "source", *DIMENSIONS)}
    columns["time"] = pa.array([event["time"] for event in events], pa.timestamp("us", tz="UTC"))
    columns |= {meter: pa.array([event["usage"].get(meter) for event in events], pa.int64()) for meter in meters}
    return pa.table(columns)


def write(path: Path, events: list[Event], form: Any = flat) -> Path:
    """Writes events as the suffix says; `form` is for NDJSON."""
    match path.suffix:
        case ".parquet":
            pq.write_table(table(events), path, row_group_size=1000)
        case ".arrow":
            with ipc.new_file(path, table(events).schema) as writer:
                writer.write_table(table(events), max_chunksize=700)
        case ".gz":
            path.write_bytes(gzip.compress(lines(events, form)))
        case _:
            path.write_bytes(lines(events, form))
    return path


# ---- The pipeline and the truth ----


def truth(events: Iterable[Event], prices: str = PRICES) -> Views:
    """What the views must say if just these events are accepted."""
    book = parse_price_book(prices, "prices")
    rollup = Rollup(Rates(book.prices, book.unbilled))
    for one in events:
        elapsed = one["time"] - datetime(1970, 1, 1, tzinfo=UTC)
        dims = tuple(one[name] for name in DIMENSIONS)
        rollup.add(one["source"], one["id"], elapsed // timedelta(microseconds=1), dims, list(one["usage"].items()))
    return {
        grain: {
            key: (row.quantity, row.amount_femto, row.events, row.unpriced_quantity, row.digest)
            for key, row in rows.items()
        }
        for grain, rows in rollup.grains()
    }


@cache
def _empty_store() -> tempfile.TemporaryDirectory[str]:
    """A store that `migrate` has made, once a test process: it takes as long as a small run."""
    folder = tempfile.TemporaryDirectory(prefix="tallyflow-empty-store-")
    try:
        with connect(Store(kind="chdb", path=Path(folder.name))) as client:
            migrate(client)
    except BaseException:  # what skips a test, too
        folder.cleanup()
        raise
    release_engine()
    return folder


def copy_empty_store(path: Path) -> Path:
    """Makes a store whose tables are empty. That a run makes the tables of a store is shown in unit/test_store.py,
    and where a store is a server."""
    return Path(shutil.copytree(_empty_store().name, path, symlinks=True))


@dataclass
class Pipeline:
    """A config with its state, store and ledger, all in one folder."""

    folder: Path
    prices: str = PRICES
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.settings = {
            "source": {"kind": "files", "path": "events/*"},
            "prices": "prices.yaml",
            "store": "chdb:store",
            "state_dir": "state",
            "ledger": "ledger",
            "dedup": {"horizon": "unbounded"},
            "epoch": "200ms",
        } | self.settings
        (self.folder / "events").mkdir(exist_ok=True)

    @property
    def config_path(self) -> Path:
        return self.folder / "config.yaml"

    def write(self, name: str, events: list[Event], form: Any = flat) -> Path:
        """Writes an event file into the folder that is read."""
        return write(self.folder / "events" / name, events, form)

    def config(self, **changes: Any) -> Config:
        """Writes the config file, with changes that stay, and reads it."""
        self.settings |= changes
        self._write_config()
        return load_config(self.config_path)

    def _write_config(self) -> None:
        store = self.folder / "store"
        if self.settings["store"] == "chdb:store" and not (self.config_path.exists() or store.exists()):
            copy_empty_store(store)
        (self.folder / "prices.yaml").write_text(self.prices)
        self.config_path.write_text(yaml.safe_dump(self.settings))

    def run(self, workers: int = 1, **changes: Any) -> Outcome:
        """Runs in this process."""
        return run(self.config(**changes), workers)

    def start(self, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        """Starts the `tallyflow` command; `-c CONFIG` is added to all but `run CONFIG`."""
        self._write_config()
        last = [str(self.config_path)] if arguments[0] == "run" else ["-c", str(self.config_path)]
        environment = os.environ | {"COLUMNS": "200", "PYTHONFAULTHANDLER": ""}
        release_engine()
        return subprocess.Popen(
            [sys.executable, "-m", "flow", *arguments, *last],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            cwd=self.folder,
            **options,
        )

    def command(self, *arguments: str, timeout_s: int = 60, **options: Any) -> subprocess.CompletedProcess[str]:
        """Runs the `tallyflow` command to its end."""
        process = self.start(*arguments, **options)
        out, err = process.communicate(timeout=timeout_s)
        return subprocess.CompletedProcess(process.args, process.returncode, out.decode(), err.decode())

    def views(self) -> Views:
        """Everything that the five views hold."""
        everyone = CustomerRange("", "\U0010ffff")
        with open_store(self.config()) as client:
            return {
                grain: {
                    (row.window_start_s, row.dims, row.meter): (
                        row.quantity,
                        row.amount_femto,
                        row.events,
                        row.unpriced_quantity,
                        row.digest,
                    )
                    for row in view_rows(client, grain, dims, everyone, 0, 2**32 - 1)
                }
                for grain, dims in GRAINS.items()
            }

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """The answer to a query."""
        with open_store(self.config()) as client:
            return client.rows(sql)

    def execute(self, sql: str) -> None:
        """Changes the store behind the pipeline's back."""
        with open_store(self.config()) as client:
            client.command(sql)


def balance(**outcomes: int) -> Mapping[str, int]:
    """A balance in which everything else is 0; `read` is the sum."""
    names = ("accepted", "duplicate", "conflicting", "rejected", "late")
    counts = {name: outcomes.get(name, 0) for name in names}
    return {"read": sum(counts.values())} | counts


def refusal(pipeline: Pipeline, exit_code: int, *said: str) -> str:
    """The one line with which a run in this process refuses."""
    with pytest.raises(TallyflowError) as refused:
        pipeline.run()
    line = str(refused.value)
    assert (refused.value.exit_code, "\n" in line) == (exit_code, False), line
    for word in said:
        assert word in line, line
    return line


def assert_refused(result: subprocess.CompletedProcess[str], exit_code: int, *said: str) -> str:
    """One clear line on stderr, nothing like a stack trace, the right exit code; returns the line."""
    assert result.returncode == exit_code, result.stderr
    (line,) = result.stderr.strip().splitlines()
    assert line.startswith("tallyflow: "), line
    for word in said:
        assert word in line, line
    return line
