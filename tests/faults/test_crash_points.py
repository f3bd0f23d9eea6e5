"""Rows 1 to 3: the process ends at every point of an epoch and a block, and at random times; what follows is exact.

Exact means: the views, the balance and the ledger are those of a run that nothing happened to.
"""

import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from tests.e2e.harness import Pipeline, Views
from tests.oracle.ledger import read

from flow.faults import POINTS
from flow.generate import prices_yaml
from flow.state.ledger import ledger_files, unsealed_files

SPEC = {"events": 20_000, "customers": 20, "retimed_ppm": 0, "conflicting_ppm": 0, "seed": 11}
CRASHED = 137
THE_REST = {"epoch": "5s", "limits": {"batch_rows": 4000}}
"""How a run goes on that is not to be ended at some point: in few epochs."""


def make_pipeline(folder: Path) -> Pipeline:
    """Synthetic events over two shards, in a dozen epochs or more, as a rule."""
    settings: dict[str, Any] = {
        "source": {"kind": "synthetic", **SPEC},
        "epoch": "50ms",
        "shards": 2,
        "limits": {"batch_rows": 400},
    }
    return Pipeline(folder, prices_yaml(), settings)


@dataclass
class Dump:
    """Everything that a run leaves behind and somebody may read; what depends on the clock is left out."""

    views: Views
    balance: list[tuple[Any, ...]]
    rejected: list[tuple[Any, ...]]
    ledger: pa.Table


def dump(pipeline: Pipeline) -> Dump:
    folder = pipeline.folder / "ledger"
    assert not unsealed_files(folder)
    events = pa.Table.from_batches([batch for path in ledger_files(folder) for batch in read(path)])
    # Which of two equal events is the duplicate depends on who reads faster, and so does its position.
    kept = [name for name in events.column_names if name not in ("source_position", "usage")]
    usage = pa.array([str(sorted(pairs)) for pairs in events.column("usage").to_pylist()])
    events = events.select(kept).append_column("usage", usage)
    counts = "sum(read), sum(accepted), sum(duplicate), sum(conflicting), sum(rejected), sum(late)"
    return Dump(
        pipeline.views(),
        pipeline.rows(f"SELECT writer, {counts} FROM pipeline_balance GROUP BY writer ORDER BY writer"),
        pipeline.rows("SELECT source_position, reason, payload FROM rejected_events ORDER BY ALL"),
        events.take(pc.sort_indices(events, [("source", "ascending"), ("id", "ascending")])),
    )


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Dump:
    pipeline = make_pipeline(tmp_path_factory.mktemp("undisturbed"))
    pipeline.run()
    found = dump(pipeline)
    assert found.ledger.num_rows == sum(row[2] for row in found.balance) > 10_000
    assert sum(row[3] for row in found.balance) > 0, "no duplicates to get wrong"
    return found


def assert_goes_on_exactly(pipeline: Pipeline, undisturbed: Dump) -> None:
    pipeline.run(**THE_REST)
    found = dump(pipeline)
    assert found.balance == undisturbed.balance
    assert found.rejected == undisturbed.rejected
    assert found.ledger.equals(undisturbed.ledger)
    assert found.views == undisturbed.views
    assert not list((pipeline.folder / "state" / "outbox").iterdir())


def crash(pipeline: Pipeline, where: str) -> int:
    """Runs the binary until it ends at a point; its exit code."""
    pipeline.config()
    process = subprocess.run(
        [sys.executable, "-m", "flow", "run", str(pipeline.config_path)],
        env=os.environ | {"TALLYFLOW_CRASH_AT": where},
        cwd=pipeline.folder,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert process.returncode in (0, CRASHED), process.stderr.decode()
    return process.returncode


AT_THE_END = ("ledger.before_seal", "ledger.after_rename", "run.before_finish", "run.after_finish")
BEFORE_A_COMMIT = [point for point in POINTS if not point.startswith("publisher.") and point not in AT_THE_END]
"""Where a first pass is one of the first epoch; what it leaves is no state at all."""
SECOND_PASSES = [f"{point}:2" for point in POINTS if point not in AT_THE_END]
CHAINS = [
    BEFORE_A_COMMIT[::2],
    BEFORE_A_COMMIT[1::2],
    *([*SECOND_PASSES[n::4], last] for n, last in enumerate(AT_THE_END)),
]
"""Crashes of one state directory, one behind the other, and then a run to the end: each start takes 2 s."""


@pytest.mark.slow
@pytest.mark.parametrize("chain", CHAINS, ids=",".join)
def test_rows_1_to_3_crashes_at_every_point(tmp_path: Path, undisturbed: Dump, chain: list[str]) -> None:
    pipeline = make_pipeline(tmp_path / "0")
    for n, where in enumerate(chain, 1):
        if crash(pipeline, where) != CRASHED:
            # The ones before had left too little of the input.
            assert_goes_on_exactly(pipeline, undisturbed)
            pipeline = make_pipeline(tmp_path / str(n))
            assert crash(pipeline, where) == CRASHED
    assert_goes_on_exactly(pipeline, undisturbed)


@pytest.mark.slow
def test_row_1_kills_at_random_times(tmp_path: Path, undisturbed: Dump) -> None:
    draw = random.Random(4)
    pipeline = make_pipeline(tmp_path)
    recovery = tmp_path / "state" / "recovery"
    for _ in range(3):
        process = pipeline.start("run")
        give_up_at = time.monotonic() + 60
        while not recovery.exists() and process.poll() is None:
            assert time.monotonic() < give_up_at
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 1.5))
        process.send_signal(signal.SIGKILL)
        _, err = process.communicate(timeout=60)
        assert err == b""
    assert_goes_on_exactly(pipeline, undisturbed)
