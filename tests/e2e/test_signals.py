"""A run that is stopped, or killed, and goes on: never an event lost, never one counted twice."""

import json
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from flow.generate import Synthetic, expected, expected_quantities, prices_yaml

from .harness import Pipeline

SPEC = {"events": 48_000, "customers": 50, "retimed_ppm": 0, "conflicting_ppm": 0, "seed": 7}


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """Synthetic events in many small epochs, so that there is a middle to be stopped in."""
    return Pipeline(
        tmp_path,
        prices_yaml(),
        {
            "source": {"kind": "synthetic", **SPEC},
            "epoch": "50ms",
            "shards": 2,
            "limits": {"batch_rows": 200},
        },
    )


def wait_for_blocks(process: subprocess.Popen[bytes], pipeline: Pipeline, blocks: int = 3) -> None:
    """Returns once the recovery store has committed epochs and blocks were cut."""
    outbox = pipeline.folder / "state" / "outbox"
    seen: set[str] = set()
    give_up_at = time.monotonic() + 30
    while len(seen) < blocks and process.poll() is None:
        seen |= {path.name for path in outbox.glob("*.json")} if outbox.exists() else set()
        assert time.monotonic() < give_up_at, "the run makes no progress"
        time.sleep(0.005)


def assert_billed_exactly(pipeline: Pipeline) -> None:
    spec = Synthetic(**SPEC)
    truth = expected(spec)
    (counts,) = pipeline.rows(
        "SELECT sum(read), sum(accepted), sum(duplicate), sum(conflicting), sum(rejected), sum(late) "
        "FROM pipeline_balance"
    )
    assert counts == (truth.read, truth.accepted, truth.duplicate, 0, truth.rejected, 0)
    for grain in ("minute", "month"):
        sums = dict(pipeline.rows(f"SELECT meter, sum(quantity) FROM usage_by_{grain} GROUP BY meter"))
        assert sums == expected_quantities(spec) | {"requests": truth.accepted}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_row_29_a_signal_ends_the_run_cleanly_and_the_next_one_goes_on(
    pipeline: Pipeline, number: signal.Signals
) -> None:
    process = pipeline.start("run")
    wait_for_blocks(process, pipeline)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, b"")
    assert "stopped by a signal; the next run goes on from here" in out.decode()
    (counts,) = pipeline.rows(
        "SELECT sum(read), sum(accepted + duplicate + conflicting + rejected + late) FROM pipeline_balance"
    )
    read = counts[0]
    assert counts == (read, read)
    assert 0 < read < SPEC["events"]
    assert f"{read:,}" in out.decode()
    assert not list((pipeline.folder / "state" / "outbox").iterdir())
    outcome = pipeline.run(epoch="5s")
    assert outcome.read == SPEC["events"] - read
    assert_billed_exactly(pipeline)


def test_row_29_a_second_signal_ends_the_process_at_once_and_nothing_is_lost(pipeline: Pipeline) -> None:
    process = pipeline.start("run")
    wait_for_blocks(process, pipeline)
    process.send_signal(signal.SIGTERM)
    time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    # Either the first one was done already, or the second one ended it.
    assert process.returncode in (0, -signal.SIGTERM)
    pipeline.run(epoch="5s")
    assert_billed_exactly(pipeline)


def test_ten_kills_at_random_moments(pipeline: Pipeline) -> None:
    draw = random.Random(20)
    for _ in range(10):
        process = pipeline.start("run")
        wait_for_blocks(process, pipeline, draw.randrange(1, 4))
        time.sleep(draw.random() * 0.15)
        process.kill()
        _, err = process.communicate(timeout=60)
        assert err == b""
    pipeline.run(epoch="5s")
    assert_billed_exactly(pipeline)
    result = pipeline.command("verify", "--format", "json")
    assert (result.returncode, json.loads(result.stdout)) == (0, [])
