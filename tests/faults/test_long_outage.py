"""Row 5: an outage that leaves more blocks in the outbox than the store remembers tokens."""

import signal

from tests.e2e.harness import Pipeline, balance, make_events, truth

from .http_front import Fault, FrontProcess
from .test_crash_points import CRASHED, crash
from .test_store_over_http import wait_until, watched

EVENTS = make_events(600)
WINDOW = 2
SHARDS = 12
TABLES = ("rollup_minute", "rollup_day", "pipeline_balance")


def waiting(pipeline: Pipeline) -> set[str]:
    """Writer and number of each block in the outbox."""
    return {path.stem for path in (pipeline.folder / "state" / "outbox").glob("*.json")}


def test_row_5_more_blocks_wait_than_the_store_remembers_tokens(pipeline: Pipeline, front: FrontProcess) -> None:
    # given many times more blocks than tokens are remembered, cut while nobody answered,
    pipeline.settings |= {"store": front.url, "epoch": "50ms", "shards": SHARDS}
    pipeline.settings["limits"] = {"batch_rows": 100, "stop_wait": "0s"}
    pipeline.write("events.ndjson", EVENTS)
    front.fault(Fault("lose", times=10**6))
    process = pipeline.start("run")
    with watched(process):
        wait_until(lambda: len(waiting(pipeline)) >= SHARDS, process)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    front.heal()
    for table in TABLES:
        setting = f"non_replicated_deduplication_window = {WINDOW}"
        pipeline.execute(f"ALTER TABLE {table} MODIFY SETTING {setting}")
    left = waiting(pipeline)
    assert len(left) >= SHARDS > 4 * WINDOW

    # when the store is back, loses answers, and a process ends behind the first insert of a block in the middle
    front.fault(Fault("drop", times=2))
    assert crash(pipeline, f"publisher.after_insert:{len(TABLES) * SHARDS // 2 + 1}") == CRASHED
    assert left > waiting(pipeline) & left > set()
    front.fault(Fault("drop", times=2))
    outcome = pipeline.run()

    # then all have been published, each once, though inserts were repeated
    assert outcome.balance == balance(accepted=len(EVENTS))
    assert pipeline.views() == truth(EVENTS)
    tokens = front.tokens()
    assert len(tokens) >= len(set(tokens)) + 5
    assert not waiting(pipeline)
