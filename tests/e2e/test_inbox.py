"""Events that commands put into the inbox: counted once like all others, and accounted for one by one."""

from datetime import timedelta

import bytewax.operators as op
import pytest
from bytewax.dataflow import Dataflow

import flow.run
from flow import faults
from flow.errors import TallyflowError
from flow.job import FLOW_ID, Job
from flow.state.inbox import Inbox

from .harness import Pipeline, balance, event, lines, make_events, truth

ROWS = "SELECT file, position, outcome, reason, source, id FROM inbox_events ORDER BY file, position"


def test_every_outcome_has_a_row_and_a_position(pipeline: Pipeline) -> None:
    noon = event(0)["time"]
    read, new, put_twice = event(1), event(2), event(3)
    conflicting, late = event(1, customer="other"), event(4, noon - timedelta(hours=2))
    pipeline.write("events.ndjson", [read])
    pipeline.run(shards=3, dedup={"horizon": "1h"})
    inbox = Inbox(pipeline.folder / "state")
    bad = b"{}\n"
    first = inbox.put("redrive", lines([new, read, conflicting, late, put_twice]) + bad, "first")
    second = inbox.put("redrive", lines([put_twice]), "second")
    outcome = pipeline.run()
    expected = balance(accepted=3, duplicate=2, conflicting=1, late=1, rejected=1)
    assert (outcome.read, outcome.balance) == (7, expected)
    assert pipeline.views() == truth([read, new, put_twice])
    ends = [len(lines([new, read, conflicting, late, put_twice][:n])) for n in range(6)]
    told = [
        (first, ends[0], "accepted", "", new),
        (first, ends[1], "duplicate", "", read),
        (first, ends[2], "conflicting", "", conflicting),
        (first, ends[3], "late", "", late),
        (first, ends[4], "accepted", "", put_twice),
        (first, ends[5], "rejected", "MISSING_ID", {"source": "", "id": ""}),
        (second, 0, "duplicate", "", put_twice),
    ]
    assert pipeline.rows(ROWS) == [(*row, one["source"], one["id"]) for *row, one in told]
    ((position,),) = pipeline.rows("SELECT source_position FROM rejected_events")
    assert position == f"inbox/{first}:{ends[5]}"
    # And nothing of it is read again.
    assert (pipeline.run().read, len(pipeline.rows(ROWS))) == (0, 7)


def without_inbox(job: Job) -> Dataflow:
    """The dataflow as it was before there was an inbox."""
    made = Dataflow(FLOW_ID)
    routed = op.flat_map("route", op.map("decode", op.input("source", made, job.source()), job.decode), job.route)
    judged = op.stateful_batch("deduplicate", routed, job.deduplicate)
    op.output("outbox", op.map_value("rate", judged, job.rate), job.sink)
    return made


def test_crashes_at_any_time_from_a_recovery_store_without_an_inbox(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = make_events(600)
    pipeline.write("a.ndjson", events[:200])
    with monkeypatch.context() as before:
        before.setattr(flow.run, "dataflow", without_inbox)
        pipeline.run(shards=2)
    pipeline.write("b.ndjson", events[100:400])
    Inbox(pipeline.folder / "state").put("redrive", lines(events[350:]), "more")
    for at in ("shard.after_append", "writer.after_snapshot", "publisher.after_insert", "run.before_finish"):

        def crash(name: str, at: str = at) -> None:
            if name == at:
                raise TallyflowError(f"crashed at {at}")

        with monkeypatch.context() as patched:
            patched.setattr(faults, "on_point", crash)
            with pytest.raises(TallyflowError, match="crashed at"):
                pipeline.run()
    assert pipeline.run().balance == balance(accepted=600, duplicate=150)
    assert pipeline.views() == truth(events)
    rows = pipeline.rows("SELECT count(), uniqExact(file, position), countIf(outcome = 'accepted') FROM inbox_events")
    assert rows[0][:2] == (250, 250)
    assert 200 <= rows[0][2] <= 250, "of the 50 events that came both ways, either may have been the first"
