"""Row 21: a process that is frozen, replaced and woken up publishes nothing more."""

import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.e2e.harness import Pipeline, assert_refused, balance

from flow.errors import StateError
from flow.generate import Synthetic, expected, expected_quantities, prices_yaml

from .http_front import FrontProcess

SPEC = {"events": 10_000, "customers": 200, "retimed_ppm": 0, "conflicting_ppm": 0, "seed": 3}


@pytest.fixture
def first(tmp_path: Path, front: FrontProcess) -> Pipeline:
    """Many small epochs, so that a run has a middle to be frozen in."""
    source = {"kind": "synthetic", **SPEC}
    settings = {"source": source, "store": front.url, "epoch": "50ms", "limits": {"batch_rows": 200}, "ledger": None}
    return Pipeline(tmp_path / "first", prices_yaml(), settings)


def frozen(pipeline: Pipeline, front: FrontProcess) -> subprocess.Popen[bytes]:
    """A run that was frozen after some blocks had arrived."""
    process = pipeline.start("run")
    give_up_at = time.monotonic() + 60
    while len(set(front.tokens())) < 8:
        assert process.poll() is None and time.monotonic() < give_up_at
        time.sleep(0.02)
    process.send_signal(signal.SIGSTOP)
    time.sleep(0.2)  # what it had sent is executed
    return process


@pytest.mark.slow
def test_row_21_a_zombie_is_fenced_and_its_restart_is_refused(first: Pipeline, front: FrontProcess) -> None:
    # Given a run that was frozen with its host, and another host that goes on with a copy of its state.
    process = frozen(first, front)
    try:
        second = Pipeline(first.folder.with_name("second"), first.prices, first.settings)
        shutil.copytree(first.folder / "state", second.folder / "state")
        outcome = second.run()
        # When the first one wakes up, then it stops with one line, and nothing new arrives.
        arrived = front.tokens()
        process.send_signal(signal.SIGCONT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    # (What is left of a block that it was in the middle of is frozen: the store has it by these tokens already.)
    late = front.tokens()[len(arrived) :]
    assert set(late) <= set(arrived)
    assert len({token.rsplit("-", 1)[0] for token in late}) <= 1
    said = ("another process has taken over lineage", "term 2; this one had term 1", "nothing was lost")
    assert_refused(subprocess.CompletedProcess([], process.returncode, out.decode(), err.decode()), 2, *said)
    # And whoever starts it again is told that its state is the old one.
    with pytest.raises(StateError, match=r"first/state: is older than the store: .* old copy"):
        first.run()
    spec = Synthetic(**SPEC)
    counts = expected(spec)
    sums = dict(second.rows("SELECT meter, sum(quantity) FROM usage_by_minute GROUP BY meter"))
    assert sums == expected_quantities(spec) | {"requests": counts.accepted}
    assert second.run().balance == outcome.balance
    assert outcome.balance == balance(accepted=counts.accepted, duplicate=counts.duplicate, rejected=counts.rejected)
