"""A ClickHouse server over HTTP, and what it can do to a run (rows 5 to 8 of the faults): exact, or one clear line."""

import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.e2e.harness import Pipeline, Views, assert_refused, balance, make_events, truth

import flow.start
import flow.store.client
from flow.generate import Synthetic, expected, expected_quantities, prices_yaml
from flow.store.client import CLUSTER_SETTINGS, StoreUnavailable

from .http_front import CLUSTER, Fault, FrontProcess

EVENTS = make_events(600)


@pytest.fixture(scope="module")
def told() -> Views:
    return truth(EVENTS)


@pytest.fixture
def pipeline(pipeline: Pipeline, front: FrontProcess) -> Pipeline:
    """Several epochs, one file of events, a store over HTTP."""
    pipeline.settings |= {"store": front.url, "epoch": "50ms", "limits": {"batch_rows": 100}}
    pipeline.write("events.ndjson", EVENTS)
    return pipeline


def assert_exact(pipeline: Pipeline, told: Views) -> None:
    assert pipeline.run().balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == told
    assert not list((pipeline.folder / "state" / "outbox").iterdir())


def test_a_whole_run_over_http_is_exact(pipeline: Pipeline, told: Views) -> None:
    result = pipeline.command("run")
    assert (result.returncode, result.stderr) == (0, "")
    assert_exact(pipeline, told)
    assert pipeline.command("verify").returncode == 0


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(Fault("lose", times=3), id="5-request-lost"),
        pytest.param(Fault("drop", times=3), id="6-executed-but-reply-lost"),
        pytest.param(Fault("stall", times=2, seconds=3), id="6-answer-too-late"),
        pytest.param(Fault("stall", times=1, seconds=0.5), id="5-answer-slow"),
        pytest.param(Fault("error", times=3, code=252), id="7-too-many-parts"),
        pytest.param(Fault("error", times=3, code=241), id="7-memory-limit"),
        pytest.param(Fault("error", times=3, code=252, match="FROM fence"), id="7-fence-not-answered"),
    ],
)
def test_rows_5_to_7_what_passes_is_waited_out(
    pipeline: Pipeline, front: FrontProcess, told: Views, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow.store.client, "_ANSWER_TIMEOUT_S", 1)
    if fault.match == "FROM fence":
        # At the start it is said at once; the one that waits is the publisher.
        monkeypatch.setattr("flow.start.take_term", with_faults_after(front, fault))
    else:
        front.fault(fault)
    outcome = pipeline.run()
    assert front.met() == fault.times
    assert outcome.balance == balance(accepted=len(EVENTS))
    # The client library itself repeats a lost request once.
    assert outcome.retries > 0 or fault.seconds == 0.5
    assert pipeline.views() == told
    if fault.kind == "drop":
        tokens = front.tokens()
        assert len(tokens) > len(set(tokens)), "nothing was inserted a second time"


def with_faults_after(front: FrontProcess, fault: Fault) -> object:
    take_term = flow.start.take_term

    def take(*arguments: object) -> object:
        term = take_term(*arguments)
        front.fault(fault)
        return term

    return take


@pytest.mark.parametrize(
    ("code", "said"),
    [
        pytest.param(164, "needs a server and a user that may write", id="7-read-only"),
        pytest.param(243, "the disk is full; free some space, then run again: nothing is lost", id="8-full-disk"),
        pytest.param(469, "is violated at row 1", id="7-constraint"),
    ],
)
def test_rows_7_and_8_what_does_not_pass_stops_with_one_line(
    pipeline: Pipeline, front: FrontProcess, told: Views, code: int, said: str
) -> None:
    front.fault(Fault("error", times=10**6, code=code))
    assert_refused(pipeline.command("run"), 1, front.url.replace(":@", "@"), said)
    assert front.tokens() == []
    front.heal()
    assert_exact(pipeline, told)


def test_a_store_that_is_not_there_at_the_start(pipeline: Pipeline, front: FrontProcess, told: Views) -> None:
    front.refuse()
    assert_refused(pipeline.command("run"), 1, front.url.replace(":@", "@"), "no answer", "is the server up")
    front.accept()
    assert_exact(pipeline, told)


# ---- An outage in mid-run (row 5) ----

SPEC = {"events": 60_000, "customers": 2000, "retimed_ppm": 0, "conflicting_ppm": 0, "seed": 7}
OUTBOX_BYTES_MAX = 2**20


def outbox_bytes(pipeline: Pipeline) -> int:
    total = 0
    for path in (pipeline.folder / "state" / "outbox").glob("*.arrow"):
        try:
            total += path.stat().st_size
        except FileNotFoundError:  # published in between
            continue
    return total


@contextmanager
def watched(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Ends the process if the test fails."""
    try:
        yield
    except BaseException:
        process.kill()
        print(*process.communicate())
        raise


def wait_until(true: Callable[[], object], process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    give_up_at = time.monotonic() + seconds
    while not true():
        assert process.poll() is None and time.monotonic() < give_up_at
        time.sleep(0.02)


def test_row_5_a_signal_during_an_outage_ends_the_run_and_the_next_one_publishes(
    pipeline: Pipeline, front: FrontProcess, told: Views
) -> None:
    # given a run that cannot publish what it has cut
    pipeline.settings["limits"] |= {"stop_wait": "1s"}
    front.fault(Fault("lose", times=10**6))
    process = pipeline.start("run")
    with watched(process):
        wait_until(front.met, process)
        # when a signal comes, then it ends, and says what is left where
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    *_, said = err.decode().splitlines()
    assert process.returncode == 1, said
    assert "stopped by a signal, and the store has not taken all blocks within 1 s (store clickhouse://default@" in said
    assert f"wait in {pipeline.folder / 'state' / 'outbox'}: nothing is lost, the next run publishes them" in said
    assert front.tokens() == []
    # and the next run publishes that
    front.heal()
    assert_exact(pipeline, told)


def stands_still(pipeline: Pipeline) -> bool:
    """Whether nothing is cut for a second."""
    before = outbox_bytes(pipeline)
    time.sleep(1)
    return outbox_bytes(pipeline) == before


@pytest.mark.slow
def test_row_5_an_outage_fills_the_outbox_then_pauses_the_source_then_all_is_published(
    pipeline: Pipeline, front: FrontProcess
) -> None:
    pipeline.prices = prices_yaml()
    pipeline.settings |= {
        "source": {"kind": "synthetic", **SPEC},
        "limits": {"batch_rows": 2000, "outbox_bytes_max": OUTBOX_BYTES_MAX},
    }
    process = pipeline.start("run")
    with watched(process):
        # Given a run in which blocks arrive, when the store goes away,
        wait_until(front.tokens, process)
        front.refuse()
        arrived = front.tokens()
        # then the job goes on until the outbox is full, and stands still there:
        wait_until(lambda: outbox_bytes(pipeline) > OUTBOX_BYTES_MAX, process)
        time.sleep(1)
        wait_until(lambda: stands_still(pipeline), process)
        assert process.poll() is None
        assert outbox_bytes(pipeline) < 2 * OUTBOX_BYTES_MAX
        assert front.tokens() == arrived
        # and once it is back, all is published.
        front.accept()
        _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    away, back = err.decode().splitlines()
    assert "warning: " in away and away.endswith("blocks wait in the outbox, and nothing is lost"), away
    assert back.endswith("warning: the store takes blocks again"), back
    spec = Synthetic(**SPEC)
    counts = expected(spec)
    again = pipeline.run()
    assert again.read == 0
    assert again.balance == balance(accepted=counts.accepted, duplicate=counts.duplicate, rejected=counts.rejected)
    sums = dict(pipeline.rows("SELECT meter, sum(quantity) FROM usage_by_minute GROUP BY meter"))
    assert sums == expected_quantities(spec) | {"requests": counts.accepted}


# ---- A cluster of servers, as far as one engine can play it ----


def test_a_whole_run_on_a_cluster_is_exact_and_waits_while_replicas_are_away(
    pipeline: Pipeline, bare_front: FrontProcess, told: Views
) -> None:
    pipeline.settings |= {"store": f"{bare_front.url}?cluster={CLUSTER}"}
    for code in (285, 286):
        bare_front.fault(Fault("error", times=2, code=code))
    assert_exact(pipeline, told)
    assert bare_front.met() == 4
    # when it goes on, and is read, then each of those requests is for a cluster, the fence and the balance too
    assert pipeline.run().read == 0
    assert pipeline.command("verify").returncode == 0
    asked = {
        what: [parameters for query, parameters in bare_front.requests() if what in query]
        for what in ("INSERT INTO fence", "FROM fence", "FROM pipeline_balance", "FROM lineages", "rollup_minute")
    }
    for what, requests in asked.items():
        assert requests, what
        assert all(CLUSTER_SETTINGS.items() <= parameters.items() for parameters in requests), what


def test_a_replica_that_is_behind_is_not_believed(pipeline: Pipeline, bare_front: FrontProcess, told: Views) -> None:
    pipeline.settings |= {"store": f"{bare_front.url}?cluster={CLUSTER}"}
    bare_front.fault(Fault("error", times=1, code=289, match="FROM fence"))
    with pytest.raises(StoreUnavailable, match="Replica doesn't have part"):
        pipeline.run()
    assert_exact(pipeline, told)
