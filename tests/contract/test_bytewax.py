"""What exactly-once stands on and Bytewax 0.21.1 does not document. A Bytewax that fails here must not be taken.

The two that matter most: when `snapshot()` is called, the snapshot before it is what a restart would load; and when a
run has returned, its last snapshot is. "What a restart would load" is read from the recovery store by another process.
"""

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow
from bytewax.errors import BytewaxRuntimeError
from bytewax.inputs import FixedPartitionedSource, StatefulSourcePartition
from bytewax.operators import StatefulBatchLogic
from bytewax.outputs import FixedPartitionedSink, StatefulSinkPartition
from bytewax.recovery import RecoveryConfig, init_db_dir
from bytewax.testing import cluster_main

from flow.steps.shards import shard_keys, shard_name

from .member import KEYS, ROOT

EVERY_BATCH = timedelta(0)
"""As epoch: each batch is one."""


# ---- Snapshots are durable when the next one is asked for ----


def watch(folder: Path, items: int, workers: int, processes: int = 1) -> list[dict[str, Any]]:
    """Runs the dataflow that watches; what each process saw."""
    if not folder.exists():
        folder.mkdir()
        init_db_dir(folder, 3)
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(processes)]
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets] if processes > 1 else []
    for one in sockets:
        one.close()
    members = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.contract.member", folder, str(items), str(workers), str(process), *addresses],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for process in range(processes)
    ]
    seen = []
    for member in members:
        out, err = member.communicate(timeout=60)
        assert member.returncode == 0, err
        # (Above the last line Bytewax itself says that it waits for the other process.)
        seen.append(json.loads(out.splitlines()[-1]))
    return seen


@pytest.mark.parametrize(
    ("workers", "processes"), [(1, 1), (2, 1), (1, 2)], ids=["1 worker", "2 workers", "2 processes"]
)
def test_the_snapshot_before_is_durable_when_the_next_is_asked_for(
    workers: int, processes: int, tmp_path: Path
) -> None:
    for items in (50, 75):  # and once more, resumed
        seen = watch(tmp_path / "recovery", items, workers, processes)
        assert [wrong for one in seen for wrong in one["wrong"]] == []
        for step in ("watch.sink", "watch.logic"):
            assert sum(one["checks"].get(step, 0) for one in seen) >= 30, "too few to show anything"

        # ... and the last one is when the run has returned, in whichever process it was taken.
        last = {where: now for one in seen for where, now in one["last"].items()}
        assert len(last) == 2 * KEYS
        for one in seen:
            assert {where: one["loaded"].get(where) for where in last} == last


def test_state_follows_its_key_to_any_number_of_workers(tmp_path: Path) -> None:
    for items, workers in ((20, 1), (30, 3), (40, 2)):
        (seen,) = watch(tmp_path / "recovery", items, workers)
        # A key that had begun anew would have loaded nothing, and its snapshots would have gone back.
        assert seen["wrong"] == []
        sunk = [int(now) for where, now in seen["loaded"].items() if where.startswith("watch.sink/")]
        assert sum(sunk) == 3 * items


# ---- Smaller things, in this process ----


class Items(FixedPartitionedSource[tuple[str, Any], int]):
    """One item a batch, from one partition."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self._items = items

    def list_parts(self) -> list[str]:
        return ["only"]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Items":
        return _Items(self._items, resume_state or 0)


class _Items(StatefulSourcePartition[tuple[str, Any], int]):
    def __init__(self, items: list[tuple[str, Any]], at: int) -> None:
        self._items, self._at = items, at

    def next_batch(self) -> Iterable[tuple[str, Any]]:
        if self._at >= len(self._items):
            raise StopIteration
        self._at += 1
        return self._items[self._at - 1 : self._at]

    def snapshot(self) -> int:
        return self._at


class Log(FixedPartitionedSink[Any, int]):
    """Logs every call."""

    def __init__(self, parts: list[str], places: dict[str, int]) -> None:
        self._parts, self._places = parts, places
        self.calls: list[tuple[str, ...]] = []

    def list_parts(self) -> list[str]:
        return self._parts

    def part_fn(self, item_key: str) -> int:
        return self._places[item_key]

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Log":
        self.calls.append(("build", step_id, for_part, repr(resume_state)))
        return _Log(self.calls, for_part, resume_state or 0)


class _Log(StatefulSinkPartition[Any, int]):
    def __init__(self, calls: list[tuple[str, ...]], name: str, written: int) -> None:
        self._calls, self._name, self._written = calls, name, written

    def write_batch(self, values: list[Any]) -> None:
        self._written += len(values)
        self._calls.append(("write", self._name))

    def snapshot(self) -> int:
        self._calls.append(("snapshot", self._name))
        return self._written

    def close(self) -> None:
        self._calls.append(("close", self._name))


def run(flow: Dataflow, recovery: Path, workers: int = 1) -> None:
    if not recovery.exists():
        recovery.mkdir()
        init_db_dir(recovery, 2)
    cluster_main(
        flow,
        [],
        0,
        epoch_interval=EVERY_BATCH,
        recovery_config=RecoveryConfig(recovery, timedelta(0)),
        worker_count_per_proc=workers,
    )


def to_sink(items: list[tuple[str, Any]], sink: Log, name: str = "sink") -> Dataflow:
    flow = Dataflow("flow")
    op.output(name, op.input("source", flow, Items(items)), sink)
    return flow


def test_a_sink_takes_part_in_the_snapshots_of_epochs_that_wrote_to_it(tmp_path: Path) -> None:
    sink = Log(["a", "b"], {"a": 0, "b": 1})
    run(to_sink([("a", 1), ("b", 2), ("b", 3), ("a", 4)], sink), tmp_path / "recovery")
    per_part = {name: [call for call, part in (c[:2] for c in sink.calls) if part == name] for name in "ab"}
    assert per_part == {name: ["write", "snapshot", "write", "snapshot", "close"] for name in "ab"}


def test_a_part_is_picked_from_the_sorted_names(tmp_path: Path) -> None:
    sink = Log(["c", "a", "b"], {"x": 0, "y": 2})
    run(to_sink([("x", 1), ("y", 2)], sink), tmp_path / "recovery")
    assert [name for call, name in (c[:2] for c in sink.calls) if call == "write"] == ["a", "c"]


def test_a_part_that_is_resumed_is_built_though_nothing_is_written_to_it(tmp_path: Path) -> None:
    """The balance counts on it: a writer that gets no event in this run has what it counted in those before."""
    items: list[tuple[str, Any]] = [("a", 1), ("b", 2)]
    run(to_sink(items, Log(["a", "b"], {"a": 0, "b": 1})), tmp_path / "recovery")
    sink = Log(["a", "b"], {"a": 0, "b": 1})
    run(to_sink([*items, ("a", 3)], sink), tmp_path / "recovery")
    built = {part: (step, resumed) for call, step, part, resumed in (c for c in sink.calls if c[0] == "build")}
    assert built == {"a": ("flow.sink", "1"), "b": ("flow.sink", "1")}


def test_state_belongs_to_the_name_of_its_step(tmp_path: Path) -> None:
    run(to_sink([("a", 1)], Log(["a"], {"a": 0})), tmp_path / "recovery")
    renamed = Log(["a"], {"a": 0})
    run(to_sink([("a", 1), ("a", 2)], renamed, "renamed"), tmp_path / "recovery")
    assert ("build", "flow.renamed", "a", "None") in renamed.calls


def test_close_is_called_on_a_crash(tmp_path: Path) -> None:
    """So a sink must not flush in it: what it flushed would be written again after the restart."""

    def fail(item: tuple[str, Any]) -> tuple[str, Any]:
        if item[1] == "bad":
            raise ValueError("a defect")
        return item

    sink = Log(["a"], {"a": 0})
    flow = Dataflow("flow")
    op.output("sink", op.map("fail", op.input("source", flow, Items([("a", 1), ("a", "bad")])), fail), sink)
    with pytest.raises(BytewaxRuntimeError) as stopped:
        run(flow, tmp_path / "recovery")
    assert sink.calls[-1] == ("close", "a")
    causes: list[BaseException | None] = [stopped.value]
    while causes[-1] is not None:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    assert any(isinstance(cause, ValueError) for cause in causes), "what a step raised must be found among the causes"


def test_values_of_one_key_come_in_the_order_of_the_source(tmp_path: Path) -> None:
    seen: list[int] = []

    class Logic(StatefulBatchLogic[int, int, int]):
        def on_batch(self, values: list[int]) -> tuple[Iterable[int], bool]:
            seen.extend(values)
            return values, StatefulBatchLogic.RETAIN

        def snapshot(self) -> int:
            return 0

    flow = Dataflow("flow")
    keyed = op.input("source", flow, Items([("a", number) for number in range(40)]))
    stated = op.stateful_batch("logic", keyed, lambda resumed: Logic())
    op.output("sink", stated, Log(["a"], {"a": 0}))
    run(flow, tmp_path / "recovery", workers=2)
    assert seen == list(range(40))


# ---- Snapshots of an epoch that was never committed ----


class Together(Items):
    """All items in one batch, of one epoch."""

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Items":
        return _Together(self._items, resume_state or 0)


class _Together(_Items):
    def next_batch(self) -> Iterable[tuple[str, Any]]:
        if self._at:
            raise StopIteration
        self._at = 1
        return self._items


class Dies(Log):
    """Stops the run after everybody else has taken the snapshots of the first epoch."""

    def build_part(self, step_id: str, for_part: str, resume_state: int | None) -> "_Log":
        return _Dies(self.calls, for_part, 0)


class _Dies(_Log):
    def snapshot(self) -> int:
        time.sleep(0.5)  # the snapshots of other workers are written meanwhile
        raise ValueError("before the epoch is committed")


@pytest.mark.parametrize("touched", [False, True], ids=["keys left alone", "keys touched"])
def test_a_snapshot_never_committed_comes_back_unless_it_is_replaced(touched: bool, tmp_path: Path) -> None:
    """This is why each execution begins with a heartbeat to all shards: flow/sources/pausing.py.

    Should keys that were left alone load nothing one day, Bytewax has been mended, and the heartbeat can go.
    """
    items = [(f"key {number}", 1) for number in range(8)]
    places = dict.fromkeys((key for key, _ in items), 0)

    def execute(mark: str, given: list[tuple[str, Any]], sink: Log, workers: int) -> set[str | None]:
        """What the keys have loaded; from now on their snapshots are `mark`."""
        loaded: set[str | None] = set()

        class Marked(StatefulBatchLogic[int, int, str]):
            def __init__(self, resumed: str | None) -> None:
                loaded.add(resumed)

            def on_batch(self, values: list[int]) -> tuple[Iterable[int], bool]:
                return values, StatefulBatchLogic.RETAIN

            def snapshot(self) -> str:
                return mark

        flow = Dataflow("flow")
        op.output("sink", op.stateful_batch("logic", op.input("source", flow, Together(given)), Marked), sink)
        run(flow, tmp_path / "recovery", workers)
        return loaded

    with pytest.raises(BytewaxRuntimeError):
        execute("never committed", items, Dies(["a"], places), workers=2)
    # The next execution, of another number of workers, goes through the same epoch, with or without these keys.
    assert execute("committed", items if touched else [], Log(["a"], places), workers=3) <= {None}
    loaded = execute("last", items, Log(["a"], places), workers=1)
    assert loaded == {"committed"} if touched else "never committed" in loaded


class Places(FixedPartitionedSink[Any, None]):
    """Notes on which thread each partition is written."""

    def __init__(self, keys: list[str], written_by: dict[int, int]) -> None:
        self._keys, self._written_by = keys, written_by

    def list_parts(self) -> list[str]:
        return [shard_name(number) for number in range(len(self._keys))]

    def part_fn(self, item_key: str) -> int:
        return self._keys.index(item_key)

    def build_part(self, step_id: str, for_part: str, resume_state: None) -> "_Places":
        return _Places(self.list_parts().index(for_part), self._written_by)


class _Places(StatefulSinkPartition[Any, None]):
    def __init__(self, number: int, written_by: dict[int, int]) -> None:
        self._number, self._written_by = number, written_by

    def write_batch(self, values: list[Any]) -> None:
        self._written_by[self._number] = threading.get_ident()

    def snapshot(self) -> None:
        return None


@pytest.mark.parametrize("workers", [2, 3])
def test_shards_go_to_the_workers_in_turn_and_stay_there(workers: int, tmp_path: Path) -> None:
    """This is what the keys of flow/steps/shards.py are made for; otherwise some workers have nothing to do."""
    keys = shard_keys(6, 2)
    judged_by: dict[int, int] = {}
    written_by: dict[int, int] = {}

    class Judge(StatefulBatchLogic[int, int, None]):
        def on_batch(self, values: list[int]) -> tuple[Iterable[int], bool]:
            judged_by.update(dict.fromkeys(values, threading.get_ident()))
            return values, StatefulBatchLogic.RETAIN

        def snapshot(self) -> None:
            return None

    flow = Dataflow("flow")
    items = op.input("source", flow, Together([(key, number) for number, key in enumerate(keys)]))
    op.output("sink", op.stateful_batch("logic", items, lambda _: Judge()), Places(keys, written_by))
    run(flow, tmp_path / "recovery", workers)
    assert judged_by == written_by
    assert len(set(judged_by.values())) == workers
    assert all(judged_by[number] == judged_by[number % workers] for number in range(6))


def test_the_version_is_the_one_that_was_looked_at() -> None:
    assert version("bytewax") == "0.21.1"
