"""A re-rating that ends at any of its points, and is called again: the store has it once.

Some processes are killed for real; at the other points an exception that nothing catches ends the call.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.e2e.harness import PRICES, Pipeline, make_events, refusal, truth

from flow.errors import BalanceError
from flow.faults import RERATE_POINTS
from flow.rerate.asked import Scope
from flow.rerate.rerating import Asked, Source, resume
from flow.rerate.rerating import rerate as rerate_here
from flow.store.client import release_engine

CRASHED = 137
HEALED = PRICES.replace('"15"', '"14.5"') + (
    '  - {model: unlisted, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.01"}\n'
)
EVENTS = make_events(60)
START_US = 1_772_150_400_000_000  # 2026-02-27T00:00:00Z
BEFORE_COMMIT = RERATE_POINTS[: RERATE_POINTS.index("rerate.before_commit") + 1]


def rerate(pipeline: Pipeline, crash_at: str = "", *more: str) -> subprocess.CompletedProcess[bytes]:
    times = ("--from", "2026-02-27T00:00:00Z", "--to", "2026-03-05T00:00:00Z", "--prices", "healed.yaml")
    said = ("--author", "ana", "--reason", "ticket 7", "--source", "ledger", "--workers", "1")
    release_engine()
    return subprocess.run(
        [sys.executable, "-m", "flow", "rerate", *times, *said, *more, "-c", str(pipeline.config_path)],
        env=os.environ | {"TALLYFLOW_CRASH_AT": crash_at},
        cwd=pipeline.folder,
        capture_output=True,
        timeout=120,
        check=False,
    )


class Ended(BaseException):
    """What a point raises."""


def ends(pipeline: Pipeline, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Re-rates in this process up to the first pass of a point."""

    def end(name: str) -> None:
        if name == where:
            raise Ended

    scope = Scope(START_US, START_US + 7 * 86_400_000_000)
    asked = Asked(scope, pipeline.folder / "healed.yaml", "ana", "ticket 7", Source.LEDGER)
    with monkeypatch.context() as patch, pytest.raises(Ended):
        patch.setattr("flow.faults.on_point", end)
        rerate_here(pipeline.config(), asked, workers=1)


@pytest.fixture
def billed(tmp_path: Path) -> Pipeline:
    pipeline = Pipeline(tmp_path)
    pipeline.write("events.ndjson", EVENTS)
    pipeline.run()
    (pipeline.folder / "healed.yaml").write_text(HEALED)
    return pipeline


def test_each_point_in_turn(billed: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """given a re-rating that ends at each point that it has left, one after the other
    when it is called once more at last
    then the views are those of the new book, and a run goes on"""
    rerates = billed.folder / "state" / "rerates"
    for where in BEFORE_COMMIT:
        ends(billed, where, monkeypatch)
        assert not list(rerates.glob("*/rerate.json"))
    assert rerate(billed, "outbox.after_json").returncode == CRASHED
    assert billed.views() == truth(EVENTS), "nothing has happened before the commit"
    ends(billed, "rerate.after_commit", monkeypatch)
    refusal(billed, 2, "re-rating was cut short", "tallyflow rerate --resume")
    for where in ("publisher.before_insert", "publisher.before_done"):
        ends(billed, where, monkeypatch)
    assert rerate(billed, "publisher.after_insert:2").returncode == CRASHED
    for where in ("publisher.after_json_gone", "rerate.before_done"):
        ends(billed, where, monkeypatch)
    done = rerate(billed, "", "--resume")
    assert (done.returncode, done.stderr) == (0, b"rerate-000001 is in the store now.\n")
    assert billed.views() == truth(EVENTS, HEALED)
    once = billed.rows("SELECT id, count(), sum(amount) FROM corrections GROUP BY id")
    again = rerate(billed)
    assert b"Nothing differs" in again.stdout, again.stderr
    assert billed.rows("SELECT id, count(), sum(amount) FROM corrections GROUP BY id") == once
    billed.run()
    assert billed.views() == truth(EVENTS, HEALED)


def test_a_block_that_is_lost_is_missed(billed: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    ends(billed, "rerate.after_commit", monkeypatch)
    for path in (billed.folder / "state" / "rerates").glob("*/rerate-*"):
        path.unlink()
    with pytest.raises(BalanceError, match="was a block of it deleted"):
        resume(billed.config())
