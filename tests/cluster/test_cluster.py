"""`tallyflow run --processes N`: exact with any number of processes, whichever of them dies."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from tests.e2e.harness import Event as Usage
from tests.e2e.harness import Pipeline, assert_refused, balance, lines, make_events, truth

from flow.cluster import supervisor
from flow.cluster.crew import GAP_S, Look, Quiet
from flow.cluster.task import Board, Sign
from flow.errors import ClusterError
from flow.state.inbox import Inbox

started: list[subprocess.Popen[bytes]] = []
SMALL_BATCHES = {"limits": {"batch_rows": 20}}
"""Small batches, so that a run takes some time."""


def write(pipeline: Pipeline, events: list[Usage], files: int = 6) -> None:
    """Writes events as Parquet files, on top of those that are there."""
    have = len(list((pipeline.folder / "events").iterdir()))
    for number in range(files):
        pipeline.write(f"{have + number:03d}.parquet", events[number::files])


def workers_of(process: subprocess.Popen[bytes]) -> list[int]:
    """The process ids of the workers of a supervisor."""
    return [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 60
    while not happened():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)  # not our children: their end can only be looked for


def start_and_wait_for_blocks(pipeline: Pipeline, processes: int) -> subprocess.Popen[bytes]:
    """Starts a run; returns when its first blocks were cut, so that none of its workers has come to the end."""
    process = pipeline.start("run", "--processes", str(processes))
    started.append(process)
    outbox = pipeline.folder / "state" / "outbox"
    wait_until(lambda: any(outbox.glob("*.json")), process)
    return process


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Ends what a test that failed has left behind."""
    yield
    for process in started:
        if process.poll() is None:
            process.kill()
            process.communicate()
    started.clear()


def finish(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    out, err = process.communicate(timeout=90)
    assert process.returncode == 0, err
    return out.decode(), err.decode()


def test_row_25_from_two_processes_to_three_to_one(pipeline: Pipeline) -> None:
    """State follows its shard: what one process saw, another knows for a duplicate; and one reads the inbox."""
    events = make_events(930)
    seen: list[Usage] = []
    for number, processes in enumerate((2, 3, 1)):
        new = events[number * 300 : number * 300 + 300]
        write(pipeline, new + seen, files=4)
        put = events[900 + number * 10 : 910 + number * 10]
        Inbox(pipeline.folder / "state").put("redrive", lines(put), str(number))
        result = pipeline.command("run", "--processes", str(processes))
        assert result.returncode == 0, result.stderr
        seen += new
        assert pipeline.views() == truth(seen + events[900 : 910 + number * 10])
    assert pipeline.rows("SELECT count() FROM inbox_events WHERE outcome = 'accepted'") == [(30,)]
    columns = "sum(read), sum(accepted), sum(duplicate), sum(conflicting), sum(rejected), sum(late)"
    expected = balance(accepted=930, duplicate=300 + 600)
    assert pipeline.rows(f"SELECT {columns} FROM pipeline_balance") == [tuple(expected.values())]
    assert pipeline.command("verify").returncode == 0


def test_row_33_a_process_that_is_killed_is_started_again_with_the_others(pipeline: Pipeline) -> None:
    events = make_events(1200)
    write(pipeline, events)
    pipeline.settings |= SMALL_BATCHES
    process = start_and_wait_for_blocks(pipeline, 2)
    first = workers_of(process)
    os.kill(first[1], signal.SIGKILL)
    wait_until(lambda: len(set(workers_of(process)) - set(first)) == 2, process)
    _, said = finish(process)
    assert f"process 1 of the cluster (pid {first[1]}) was killed by signal 9; all processes start again" in said
    assert pipeline.views() == truth(events)


def test_a_process_that_hangs_is_replaced_with_the_others(pipeline: Pipeline) -> None:
    events = make_events(600)
    write(pipeline, events)
    pipeline.settings["limits"] = {"stall": "2s", **SMALL_BATCHES["limits"]}
    process = start_and_wait_for_blocks(pipeline, 2)
    first = workers_of(process)
    os.kill(first[1], signal.SIGSTOP)
    _, said = finish(process)
    assert f"process 1 of the cluster (pid {first[1]}) has shown no sign of life for 2 s; all processes" in said
    assert pipeline.views() == truth(events)


def test_a_signal_ends_all_processes_and_the_next_run_goes_on(pipeline: Pipeline) -> None:
    events = make_events(1200)
    write(pipeline, events)
    pipeline.settings |= SMALL_BATCHES
    process = start_and_wait_for_blocks(pipeline, 2)
    process.send_signal(signal.SIGTERM)
    out, said = finish(process)
    assert "stopped by a signal" in out, out
    assert "start again" not in said
    pipeline.settings["limits"] = {}
    finish(pipeline.start("run", "--processes", "2"))
    assert pipeline.views() == truth(events)


def test_workers_do_not_outlive_their_supervisor(pipeline: Pipeline) -> None:
    events = make_events(1200)
    write(pipeline, events)
    pipeline.settings |= SMALL_BATCHES
    process = start_and_wait_for_blocks(pipeline, 2)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    # Until they are gone they keep the lock, so that this start is either refused or alone.
    end = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < end
        time.sleep(0.01)  # not our children: their end can only be looked for
    pipeline.settings["limits"] = {}
    finish(pipeline.start("run", "--processes", "2"))
    assert pipeline.views() == truth(events)


def test_what_a_restart_does_not_mend_ends_the_run(pipeline: Pipeline) -> None:
    write(pipeline, make_events(100), files=2)
    finish(pipeline.start("run", "--processes", "2"))
    (pipeline.folder / "events" / "000.parquet").write_bytes(b"PAR1 is not what this is")
    result = pipeline.command("run", "--processes", "2")
    assert result.returncode == 1
    assert "000.parquet" in result.stderr
    assert "start again from" not in result.stderr


def test_it_is_not_started_for_ever(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    write(pipeline, make_events(100), files=2)
    monkeypatch.setattr(supervisor, "RESTARTS_MAX", 1)
    monkeypatch.setenv("TALLYFLOW_CRASH_AT", "writer.before_cut")
    said: list[str] = []
    with pytest.raises(ClusterError, match=r"ended with exit code 137, and that was failure 2 in 10 minutes"):
        supervisor.run_cluster(pipeline.config(), 2, 1, said.append)
    assert len(said) == 1


def test_processes_that_wait_for_each_other_are_noticed(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    # given processes that live, but do not get on
    pipeline.settings["limits"] = {"stall": "2s"}
    told: Any = None  # of claim, directory, crew and gate nothing is asked
    stuck = supervisor._Supervisor(pipeline.config(), told, told, told, None, Event(), print)._stuck
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def first_failure(steps: list[int]) -> float | None:
        """After how many seconds there is one, if two processes report so many steps."""
        nonlocal now
        quiet, begun = Quiet(), now
        for number in steps:
            now += 0.5
            if (failure := stuck([Look(steps=number), Look(steps=0)], quiet)) is not None:
                assert "no process of the cluster has made a step for" in failure.reason
                return now - begun
        return None

    assert first_failure([1, 2, 3, *[3] * 10]) == 4.0  # 2.5 s behind the last change
    assert first_failure(list(range(1, 20))) is None
    assert first_failure([0] * 100) is None, "they may still be loading"
    assert first_failure([0] * 130) == 60.5 + 0.5
    assert first_failure([-1] * 200) is None, "the dataflow has ended, and they may wait for the store"


def test_who_was_frozen_himself_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    quiet = Quiet()
    quiet.look(1)
    now += 3600.0
    assert quiet.look(1) == GAP_S


def test_an_embedded_store_serves_one_process(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "pipeline", settings={"shards": 4})
    pipeline.write("a.ndjson", make_events(1))
    assert_refused(pipeline.command("run", "--processes", "2"), 2, "is embedded", "clickhouse://", "--workers")
    assert not (pipeline.folder / "state").exists()


def test_a_process_needs_a_shard(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path / "pipeline", settings={"store": "clickhouse://127.0.0.1:1/x", "shards": 2})
    pipeline.write("a.ndjson", make_events(1))
    assert_refused(pipeline.command("run", "--processes", "3"), 2, "there are 2 shards", "at most --processes 2")


def test_the_backlog_is_that_of_all_processes() -> None:
    descriptor = Board.new(3)
    first, third = Board(descriptor), Board(descriptor)
    os.close(descriptor)
    first.show(0, Sign(5, 1, 1))
    third.show(2, Sign(1 << 40, 1, -1))
    first.show(0, Sign(7, 2, 9))
    assert first.waiting_bytes() == third.waiting_bytes() == (1 << 40) + 7
    first.show_others(3)
    assert third.waiting_bytes() == (1 << 40) + 10
    assert third.signs() == [Sign(7, 2, 9), Sign(0, 0, 0), Sign(1 << 40, 1, -1)]
