"""A dataflow that watches Bytewax from within: when asked for a snapshot, it looks whether the one before is safe.

Run as a process of its own: `python -m tests.contract.member FOLDER ITEMS WORKERS PROCESS ADDRESS...`; its last line is
what was seen, as JSON. It looks through a `Reader`, another process: two copies of SQLite in one process would undo
each other's locks.
"""

import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig
from bytewax.testing import cluster_main

ROOT = Path(__file__).resolve().parents[2]
KEYS = 5
SOURCES = 3
EPOCH = timedelta(milliseconds=2)

_READ = """
import sys
from pathlib import Path
from flow.state.recovered import last_snapshots

for line in sys.stdin:
    last = {step: last_snapshots(Path(sys.argv[1]), step) for step in sys.argv[2:]}
    found = {f"{step}/{key}": snapshot.decode() for step in last for key, snapshot in last[step].items()}
    print(repr(found), flush=True)
"""
STEPS = ("watch.source", "watch.logic", "watch.sink")


class Reader:
    """Tells which snapshots a restart would load now: by step and key, as text."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _READ, str(folder), *STEPS], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._lock = threading.Lock()

    def loaded(self) -> dict[str, str]:
        with self._lock:
            assert self._process.stdin and self._process.stdout
            self._process.stdin.write("\n")
            self._process.stdin.flush()
            found: dict[str, str] = eval(self._process.stdout.readline())  # its own repr
            return found

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


class Seen:
    """What happened in this process."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.checks: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.last: dict[str, str] = {}

    def snapshot(self, where: str, before: str | None, now: str) -> bytes:
        """Called from `snapshot()`: is the snapshot `before` what a restart would load?"""
        if before is not None:
            self.checks[where.split("/")[0]] += 1
            found = self.reader.loaded().get(where)
            if found != before:
                self.wrong.append(
                    f"{where}: snapshot {now} was asked for while a restart would load {found}, not {before}"
                )
        self.last[where] = now
        return now.encode()


class Source(FixedPartitionedSource[tuple[str, int], bytes]):
    """`items` numbers from each partition, each for one key, with pauses of different lengths."""

    def __init__(self, items: int) -> None:
        self._items = items

    def list_parts(self) -> list[str]:
        return [f"source-{number}" for number in range(SOURCES)]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Part":
        return _Part(int(for_part[-1]), self._items, int(resume_state or 0))


class _Part(StatefulSourcePartition[tuple[str, int], bytes]):
    def __init__(self, number: int, items: int, at: int) -> None:
        self._number, self._items, self._at = number, items, at

    def next_batch(self) -> Iterable[tuple[str, int]]:
        if self._at == self._items:
            raise StopIteration
        self._at += 1
        # Key 0 is met all the time, the last one seldom.
        busy = self._at % (1 + (self._at * 7 + self._number) % KEYS)
        return [(f"key-{busy}", self._at)]

    def next_awake(self) -> datetime:
        return datetime.now(UTC) + timedelta(milliseconds=(self._number, 1, 4)[self._at % 3])

    def snapshot(self) -> bytes:
        return str(self._at).encode()


class Logic(StatefulBatchLogic[int, tuple[str, int], bytes]):
    """Counts; with a timer, as a logic that waits for something would have."""

    def __init__(self, seen: Seen, resumed: bytes | None) -> None:
        self._seen = seen
        self._count = int(resumed.decode().split(":")[1]) if resumed else 0
        self._key = resumed.decode().split(":")[0] if resumed else ""
        self._before: str | None = resumed.decode() if resumed else None
        self._timer: datetime | None = None

    def on_batch(self, values: list[Any]) -> tuple[Iterable[Any], bool]:
        self._key = values[0][0]
        self._count += len(values)
        self._timer = datetime.now(UTC) + timedelta(milliseconds=3)
        return [(key, number) for key, number in values], StatefulBatchLogic.RETAIN

    def on_notify(self) -> tuple[Iterable[Any], bool]:
        self._timer = None
        self._count += 1
        return [], StatefulBatchLogic.RETAIN

    def notify_at(self) -> datetime | None:
        return self._timer

    def snapshot(self) -> bytes:
        before, self._before = self._before, f"{self._key}:{self._count}"
        if before == self._before:
            before = None  # woken for nothing: a snapshot equal to the one before shows nothing
        return self._seen.snapshot(f"watch.logic/{self._key}", before, self._before)


class Sink(FixedPartitionedSink[Any, bytes]):
    """One partition a key."""

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def list_parts(self) -> list[str]:
        return [f"key-{number}" for number in range(KEYS)]

    def part_fn(self, item_key: str) -> int:
        return int(item_key[-1])

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_SinkPart":
        return _SinkPart(self._seen, for_part, resume_state)


class _SinkPart(StatefulSinkPartition[Any, bytes]):
    def __init__(self, seen: Seen, name: str, resumed: bytes | None) -> None:
        self._seen, self._name = seen, name
        self._written = int(resumed or 0)
        self._before: str | None = resumed.decode() if resumed else None

    def write_batch(self, values: list[Any]) -> None:
        self._written += len(values)

    def snapshot(self) -> bytes:
        before, self._before = self._before, str(self._written)
        if before == self._before:
            self._seen.wrong.append(f"{self._name}: asked for a snapshot without having been written")
        return self._seen.snapshot(f"watch.sink/{self._name}", before, self._before)


def flow(seen: Seen, items: int) -> Dataflow:
    watched = Dataflow("watch")
    keyed = op.map("key", op.input("source", watched, Source(items)), lambda item: (item[0], item))
    counted = op.stateful_batch("logic", keyed, lambda resumed: Logic(seen, resumed))
    op.output("sink", counted, Sink(seen))
    return watched


def main(folder: str, items: str, workers: str, process: str, *addresses: str) -> None:
    with closing(Reader(Path(folder))) as reader:
        seen = Seen(reader)
        cluster_main(
            flow(seen, int(items)),
            list(addresses),
            int(process),
            epoch_interval=EPOCH,
            recovery_config=RecoveryConfig(Path(folder), timedelta(0)),
            worker_count_per_proc=int(workers),
        )
        # The first thing after the return: nothing may still be on its way to the disk.
        loaded = reader.loaded()
        print(json.dumps({"checks": seen.checks, "wrong": seen.wrong, "last": seen.last, "loaded": loaded}))


if __name__ == "__main__":
    main(*sys.argv[1:])
