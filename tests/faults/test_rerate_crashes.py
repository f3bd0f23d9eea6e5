"""A re-rating that ends at any of its points, and is called again: the store has it once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.harness import PRICES, Event, Pipeline, make_events, refusal, truth

from flow.faults import RERATE_POINTS

CRASHED = 137
HEALED = PRICES.replace('"15"', '"14.5"') + (
    '  - {model: unlisted, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.01"}\n'
)
BEFORE_COMMIT = RERATE_POINTS[: RERATE_POINTS.index("rerate.before_commit") + 1]


def rerate(pipeline: Pipeline, crash_at: str = "", *more: str) -> subprocess.CompletedProcess[bytes]:
    times = ("--from", "2026-02-27T00:00:00Z", "--to", "2026-03-05T00:00:00Z", "--prices", "healed.yaml")
    said = ("--author", "ana", "--reason", "ticket 7", "--source", "ledger", "--workers", "1")
    return subprocess.run(
        [sys.executable, "-m", "flow", "rerate", *times, *said, *more, "-c", str(pipeline.config_path)],
        env=os.environ | {"TALLYFLOW_CRASH_AT": crash_at},
        cwd=pipeline.folder,
        capture_output=True,
        timeout=120,
        check=False,
    )


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return make_events(60)


def test_each_point_in_turn(tmp_path: Path, events: list[Event]) -> None:
    """given a re-rating that is killed at each point that it has left, one after the other
    when it is called once more at last
    then the views are those of the new book, and a run goes on"""
    pipeline = Pipeline(tmp_path)
    pipeline.write("events.ndjson", events)
    pipeline.run()
    (pipeline.folder / "healed.yaml").write_text(HEALED)
    for where in BEFORE_COMMIT:
        assert rerate(pipeline, where).returncode == CRASHED, where
        assert not list((tmp_path / "state" / "rerates").glob("*/rerate.json"))
    assert pipeline.views() == truth(events), "nothing has happened before the commit"
    assert rerate(pipeline, "rerate.after_commit").returncode == CRASHED
    refusal(pipeline, 2, "re-rating was cut short", "tallyflow rerate --resume")
    for where in ("publisher.before_insert:2", "publisher.after_insert", "publisher.before_done"):
        assert rerate(pipeline, where).returncode == CRASHED, where
    for where in ("publisher.after_json_gone", "rerate.before_done"):
        assert rerate(pipeline, where).returncode == CRASHED, where
    done = rerate(pipeline, "", "--resume")
    assert (done.returncode, done.stderr) == (0, b"rerate-000001 is in the store now.\n")
    assert pipeline.views() == truth(events, HEALED)
    once = pipeline.rows("SELECT id, count(), sum(amount) FROM corrections GROUP BY id")
    again = rerate(pipeline)
    assert b"Nothing differs" in again.stdout, again.stderr
    assert pipeline.rows("SELECT id, count(), sum(amount) FROM corrections GROUP BY id") == once
    pipeline.run()
    assert pipeline.views() == truth(events, HEALED)


def test_a_block_that_is_lost_is_missed(tmp_path: Path, events: list[Event]) -> None:
    pipeline = Pipeline(tmp_path)
    pipeline.write("events.ndjson", events)
    pipeline.run()
    (pipeline.folder / "healed.yaml").write_text(HEALED)
    assert rerate(pipeline, "rerate.after_commit").returncode == CRASHED
    for path in (tmp_path / "state" / "rerates").glob("*/rerate-*"):
        path.unlink()
    done = rerate(pipeline, "", "--resume")
    assert done.returncode == 3
    assert b"was a block of it deleted" in done.stderr
