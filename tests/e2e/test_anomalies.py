"""Anomalies from the stream to the commands: found by a run, listed, acknowledged and closed."""

import json
import random
from datetime import UTC, datetime, timedelta

from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.start import open_store
from flow.store.queries.anomalies import open_anomalies

from .harness import Event, Pipeline, event

HOURS = 27
BEGIN = datetime(2026, 3, 1, tzinfo=UTC)


def hours_of_use() -> list[Event]:
    """Two customers, one of which has a hundred times its use in hour 25."""
    rng = random.Random(1)
    made: list[Event] = []
    for hour in range(HOURS):
        for customer in ("acme", "zeta"):
            for _ in range(800 if (hour, customer) == (25, "acme") else 12):
                time = BEGIN + timedelta(hours=hour, microseconds=rng.randrange(3_600_000_000))
                made.append(event(len(made), time, customer=customer, model="gpt-4o-mini"))
    return sorted(made, key=lambda one: one["time"])


def called(pipeline: Pipeline, *arguments: str, exit_code: int = 0) -> str:
    result = CliRunner().invoke(make_app(["anomalies"]), ["anomalies", *arguments, "-c", str(pipeline.config_path)])
    assert result.exit_code == exit_code, result.output
    return result.stdout


def test_a_spike_is_found_once_by_each_writer_and_dealt_with(pipeline: Pipeline) -> None:
    """Given two runs, the second of which goes on in the middle of the day."""
    events = hours_of_use()
    pipeline.write("events-1.ndjson", events[:300])
    pipeline.run(shards=2, anomalies={"events_min": 5})
    assert called(pipeline, "list") == "There is none.\n"
    pipeline.write("events-2.ndjson", events[300:])
    pipeline.run(shards=2, anomalies={"events_min": 5})

    found = json.loads(called(pipeline, "list", "--format", "json"))
    (spike,) = [row for row in found if row["kind"] == "usage_spike"]
    assert (spike["customer"], spike["window_start"]) == ("acme", "2026-03-02T01:00:00Z")
    assert (spike["writers"], spike["status"]) == (2, "open")
    ((seen, rows),) = pipeline.rows(
        "SELECT sum(seen), count() FROM anomalies WHERE kind = 'usage_spike' AND customer = 'acme'"
    )
    assert (f"{seen.normalize():f}", rows) == (spike["seen"], 2)
    with open_store(pipeline.config()) as client:
        assert open_anomalies(client)["usage_spike"] == 1

    id_ = spike["id"]
    assert "acme" in called(pipeline, "list", "--customer", "acme", "--kind", "usage_spike", "--period", "2026-03")
    called(pipeline, "ack", id_, "--author", "kim", "--note", "asks them")
    called(pipeline, "close", id_, "--author", "lee", "--note", "a load test")
    assert id_ not in called(pipeline, "list", "--format", "json")
    shown = json.loads(called(pipeline, "show", id_, "--format", "json"))
    assert (shown["status"], shown["seen"], shown["writers"]) == ("closed", spike["seen"], 2)
    assert [(said["status"], said["author"], said["note"]) for said in shown["history"]] == [
        ("acknowledged", "kim", "asks them"),
        ("closed", "lee", "a load test"),
    ]
    text = called(pipeline, "show", id_)
    assert "closed by lee: a load test" in text
    assert id_ in called(pipeline, "list", "--status", "closed")
    with open_store(pipeline.config()) as client:
        assert "usage_spike" not in open_anomalies(client)
    called(pipeline, "ack", "0000", "--author", "kim", exit_code=1)


def test_none_is_looked_for_where_the_config_says_so(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", hours_of_use())
    pipeline.run(shards=2, anomalies={"enabled": False})
    assert pipeline.rows("SELECT count() FROM anomalies") == [(0,)]
