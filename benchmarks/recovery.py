"""What recovery costs, and how long a restart takes.

    python benchmarks/recovery.py cost    [--events 30000000] [--repeat 5] [--epoch 5s] [--data FOLDER]
    python benchmarks/recovery.py restart [--fingerprints 100000000] [--shards 1]

`cost`: the same events through the same job with everything that a crash is survived by, and without it: snapshots,
segments of fingerprints, synced and summed blocks, the ledger. What is left without it goes the same way into the
store, through unsynced files in memory. Events come as columns (Parquet), where an event costs least and recovery
therefore weighs most, and a third of them as messages (JSON, as gateways and Kafka bring them): each a run of a few
epochs, since a shorter one is its end above all, while a job goes on. The runs are interleaved; the figures are ratios
of medians: with everything, of which at least 0.85 is the aim, and without a ledger only.

`restart`: a job whose horizon holds so many fingerprints, in seven generations of segment files, is started again. From
the start of the process to its first judged batch less than 30 s are promised, and that it reads little more than the
segments, which are dropped from the page cache before.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import numpy as np
from columnar import price_file, write_events
from figures import Figure, keep, parser
from json_path import write_ndjson
from rich.console import Console
from rich.progress import track
from rich.table import Table

import flow.run
import flow.steps.deduplicate
from flow.config import load_config
from flow.generate import prices_yaml
from flow.sinks import outbox
from flow.state.segments import RECORD_BYTES, SegmentFiles
from flow.steps.deduplicate import Deduplicator
from flow.steps.route import Routed

MEMORY = Path("/dev/shm")
COST_MAX_PERCENT = 15
READY_MAX_S = 30
READ_MAX = 1.05
SIDES = ("on", "without ledger", "off")
MESSAGES, COLUMNS = "messages_beside_no_recovery", "columns_beside_no_recovery"
GENERATIONS = 7
HORIZON_US = 72 * 3_600_000_000
CHUNK_RECORDS = 500_000
"""What an epoch of five seconds appends, at a hundred thousand events a second."""


# ---- In a process of its own ---------------------------------------------------------------------------------------


def unprotected(folder: Path) -> ExitStack:
    """While it is open, a run keeps nothing that a crash would be survived by; `folder` is in memory."""

    def forget(self: SegmentFiles, number: int, records: bytes) -> None:
        self._lengths[number] = self._lengths.get(number, 0) + len(records)
        self._checksums[number] = 0

    init = outbox.Outbox.__init__

    def in_memory(self: outbox.Outbox, place: Path, lineage: str, writer: str) -> None:
        init(self, folder, lineage, writer)

    patches = ExitStack()
    for target, name, replacement in (
        (flow.run, "RecoveryConfig", lambda *_: None),
        (os, "fsync", lambda _: None),
        (SegmentFiles, "append", forget),
        (outbox.Outbox, "__init__", in_memory),
        (outbox.Outbox, "check", lambda *_: None),
    ):
        patches.enter_context(patch.object(target, name, replacement))
    return patches


def child_cost(config: Path, folder: str) -> None:
    """Runs a config, without protection if a folder is given."""
    with unprotected(Path(folder)) if folder else ExitStack():
        outcome = flow.run.run(load_config(config))
    print(json.dumps({"seconds": outcome.seconds, "accepted": outcome.balance["accepted"]}))


class Prefilled(Deduplicator):
    """Begins with a full horizon instead of an empty one."""

    fingerprints = 0
    watermark_us = 0

    def start_empty(self) -> None:
        super().start_empty()
        random = np.random.default_rng(int(self.shard.rpartition("-")[2]))
        for number in range(1, GENERATIONS + 1):
            sealed_at_us = self.watermark_us - (GENERATIONS - number) * HORIZON_US // (GENERATIONS - 1)
            rows = self.fingerprints * number // GENERATIONS - self.fingerprints * (number - 1) // GENERATIONS
            chunks = []
            for first in range(0, rows, CHUNK_RECORDS):
                chunks.append(random.bytes(RECORD_BYTES * min(CHUNK_RECORDS, rows - first)))
                self._files.append(number, chunks[-1])
            self._fingerprints.restore(number, sealed_at_us, rows, chunks)
            self._sealed_at_us[number] = sealed_at_us
        self._fingerprints.restore_watermark(self.watermark_us)


def child_fill(config: Path, fingerprints: str, watermark_us: str) -> None:
    """A first run, whose shards begin full."""
    given = load_config(config)
    Prefilled.fingerprints = int(fingerprints) // given.shards
    Prefilled.watermark_us = int(watermark_us)
    with patch.object(flow.steps.deduplicate, "Deduplicator", Prefilled):
        flow.run.run(given)


def child_restart(config: Path, begun: str) -> None:
    """Runs a config; says when, since `begun`, the first batch was judged, and what was read from files until then."""
    judge: Callable[[Deduplicator, Routed], Any] = Deduplicator.judge
    found: dict[str, object] = {}

    def watched(self: Deduplicator, routed: Routed) -> Any:
        judged = judge(self, routed)
        if not found and routed.count:
            io = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
            found.update(seconds=time.monotonic() - float(begun), asked=int(io["rchar"]), disk=int(io["read_bytes"]))
        return judged

    with patch.object(Deduplicator, "judge", watched):
        flow.run.run(load_config(config))
    print(json.dumps(found))


def child(*arguments: str) -> dict[str, Any]:
    """One of the above, in a process of its own: what it has printed."""
    command = [sys.executable, str(Path(__file__).resolve()), "child", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}")
    return dict(json.loads(done.stdout)) if done.stdout else {}


# ---- What recovery costs -------------------------------------------------------------------------------------------


def cost(options: argparse.Namespace) -> dict[str, Any]:
    data = Path(options.data or tempfile.mkdtemp(prefix="tallyflow-"))
    columns, fewer = (data / f"recovery-{count}.parquet" for count in (options.events, options.events // 3))
    for events, count in ((columns, options.events), (fewer, options.events // 3)):
        if not events.exists():
            write_events(events, count, 3)
    messages = fewer.with_suffix(".ndjson")
    if not messages.exists():
        write_ndjson(fewer, messages, "cloud")
    sides = [(form, side) for form in (messages, columns) for side in SIDES]
    seconds: dict[tuple[Path, str], list[float]] = {side: [] for side in sides}
    accepted: dict[Path, set[int]] = {messages: set(), columns: set()}
    for _ in track(range(options.repeat), "running", console=Console(stderr=True), transient=True):
        for events, side in sides:
            found = run_once(data, events, side, options.epoch)
            seconds[events, side].append(found["seconds"])
            accepted[events].add(found["accepted"])
    if any(len(counts) != 1 for counts in accepted.values()):
        raise SystemExit(f"the runs do not agree on the events accepted: {accepted}")
    if not options.data:
        shutil.rmtree(data)
    told: dict[str, Any] = {"events": options.events, "epoch": options.epoch, "runs": options.repeat}
    for events, name in ((messages, MESSAGES), (columns, COLUMNS)):
        off = median(seconds[events, "off"])
        told[name] = round(off / median(seconds[events, "on"]), 3)
        told[f"{name}_without_a_ledger"] = round(off / median(seconds[events, "without ledger"]), 3)
    return told | {"aim_at_least": 1 - COST_MAX_PERCENT / 100}


def run_once(data: Path, events: Path, side: str, epoch: str) -> dict[str, Any]:
    """One run in a process of its own: its seconds, and the events that it has accepted."""
    with tempfile.TemporaryDirectory(dir=data) as folder, tempfile.TemporaryDirectory(dir=MEMORY) as memory:
        config = write_config(Path(folder), f"{{kind: files, path: {events}}}", epoch, side == "on")
        (Path(folder) / "prices.yaml").write_text(price_file())
        return child("cost", str(config), memory if side == "off" else "")


def write_config(folder: Path, source: str, epoch: str, ledger: bool, shards: int = 1) -> Path:
    config = folder / "config.yaml"
    config.write_text(
        f"source: {source}\nprices: prices.yaml\nstore: chdb:store\nstate_dir: state\n"
        + f"epoch: {epoch}\nshards: {shards}\n"
        + "ledger: ledger\n" * ledger
    )
    return config


# ---- A restart -----------------------------------------------------------------------------------------------------


def restart(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(dir=options.data) as name:
        folder = Path(name)
        (folder / "prices.yaml").write_text(prices_yaml())
        now_us = int(datetime(2026, 11, 1, tzinfo=UTC).timestamp()) * 1_000_000
        source = "{kind: synthetic, events: %d, duplicate_ppm: 0, conflicting_ppm: 0}"
        config = write_config(folder, source % 1000, "1s", ledger=False, shards=options.shards)
        child("fill", str(config), str(options.fingerprints), str(now_us))
        segments = sorted((folder / "state" / "shards").glob("*/*.fps"))
        for path in segments:
            drop_cached(path)
        write_config(folder, source % 100_000, "1s", ledger=False, shards=options.shards)
        found = child("restart", str(config), str(time.monotonic()))
        held = sum(path.stat().st_size for path in segments)
    return {
        "fingerprints": options.fingerprints,
        "shards": options.shards,
        "segment_files": len(segments),
        "ready_within_30_s": found["seconds"] < READY_MAX_S,
        "ready_share_of_30_s": round(found["seconds"] / READY_MAX_S, 3),
        "bytes_read_beside_segments": round(found["asked"] / held, 3),
        "bytes_from_disk_beside_segments": round(found["disk"] / held, 3),
    }


def drop_cached(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


# ---- Report --------------------------------------------------------------------------------------------------------


def report(question: str, found: dict[str, Any], folder: Path) -> None:
    """A table on the terminal and a dated JSON file."""
    table = Table(title=f"recovery: {question}", show_header=False)
    for name, value in found.items():
        table.add_row(name.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
    Console().print(table)
    keep(f"recovery-{question}", figures_of(found), found, folder)


def figures_of(found: dict[str, Any]) -> list[Figure]:
    """What is promised, of either question."""
    if "fingerprints" in found:
        ready = f"restart with {found['fingerprints']:,} fingerprints: share of {READY_MAX_S} s until it works"
        read = "restart: bytes read beside those of the segments"
        return [
            Figure(ready, found["ready_share_of_30_s"], at_most=1),
            Figure(read, found["bytes_read_beside_segments"], at_most=READ_MAX),
        ]
    return [
        *(Figure(name.replace("_", " "), found[name], at_least=found["aim_at_least"]) for name in (MESSAGES, COLUMNS)),
        *(
            Figure(name.replace("_", " "), found[name])
            for name in (f"{MESSAGES}_without_a_ledger", f"{COLUMNS}_without_a_ledger")
        ),
    ]


def main() -> None:
    if sys.argv[1:2] == ["child"]:
        children: dict[str, Callable[..., None]] = {"cost": child_cost, "fill": child_fill, "restart": child_restart}
        children[sys.argv[2]](Path(sys.argv[3]), *sys.argv[4:])
        return
    arguments = parser(__doc__)
    questions = arguments.add_subparsers(dest="question", required=True)
    of_cost = questions.add_parser("cost")
    of_cost.add_argument("--events", type=int, default=30_000_000, help="in columns; a third of them as messages")
    of_cost.add_argument("--repeat", type=int, default=5)
    of_cost.add_argument("--epoch", default="5s")
    of_restart = questions.add_parser("restart")
    of_restart.add_argument("--fingerprints", type=int, default=100_000_000)
    of_restart.add_argument("--shards", type=int, default=1)
    for one in (of_cost, of_restart):
        one.add_argument("--data", help="where events and state are kept; default: a temporary folder")
    options = arguments.parse_args()
    found = cost(options) if options.question == "cost" else restart(options)
    report(options.question, found, options.results)


if __name__ == "__main__":
    main()
