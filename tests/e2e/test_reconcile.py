"""`tallyflow reconcile` agrees where nothing is wrong, and names exactly what is."""

import copy
import json
import time
from collections.abc import Sequence
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from flow.errors import ConfigError, RefusedStart
from flow.reconcile.asked import Scope
from flow.reconcile.html import as_html
from flow.reconcile.in_job import Reconciler, Verdict
from flow.reconcile.naming import Kind
from flow.reconcile.reconciling import Asked, reconcile
from flow.reconcile.report import Reconciliation, as_json

from .harness import Event, Pipeline, event, make_events, write

EVENTS = make_events(900)
MARCH = Scope(1_772_323_200, 1_775_001_600)
Found = set[tuple[Kind, str, tuple[str, ...]]]
"""How, the event's id, and what differs in it."""


def planted() -> tuple[list[Event], Found]:
    """The same events with seven differences, and what must be found."""
    log = copy.deepcopy(EVENTS)
    lost, tokens, customer, model, moved, twice = (log[n] for n in (100, 200, 300, 400, 500, 600))
    tokens["usage"]["input_tokens"] += 1
    customer["customer"] = "somebody else"
    model["model"] = "another"
    moved["time"] += timedelta(minutes=1)
    log.append(event(10_000, lost["time"]))
    log.append(twice | {"usage": {"input_tokens": 1}})
    log.remove(lost)
    here = copy.deepcopy(twice["usage"]) | {"input_tokens": 0}
    return log, {
        (Kind.ONLY_HERE, lost["id"], ()),
        (Kind.ONLY_THERE, "event-00010000", ()),
        (Kind.DIFFERENT, tokens["id"], ("input_tokens",)),
        (Kind.DIFFERENT, customer["id"], ("customer",)),
        (Kind.DIFFERENT, model["id"], ("model",)),
        (Kind.DIFFERENT, moved["id"], ("time",)),
        (Kind.CONFLICTING, twice["id"], tuple(sorted(here))),
    }


def asked(
    pipeline: Pipeline, *against: Path | str, threshold: Fraction = Fraction(1, 10_000), scope: Scope | None = None
) -> Reconciliation:
    names = tuple(map(str, against))
    return reconcile(pipeline.config(), Asked(names, threshold, scope or Scope()), time.time_ns() // 1000)


def found(report: Reconciliation) -> Found:
    return {(one.kind, one.id, tuple(sorted(one.fields))) for one in report.events}


def billed(folder: Path, events: Sequence[Event], **settings: object) -> Pipeline:
    pipeline = Pipeline(folder)
    pipeline.write("events.ndjson", list(events))
    pipeline.run(**settings)
    return pipeline


def test_a_log_agrees_whatever_its_order_form_and_retries(tmp_path: Path) -> None:
    conflict = EVENTS[7] | {"usage": {"input_tokens": 1}}
    pipeline = billed(tmp_path / "here", [*EVENTS, *EVENTS[::11], conflict], shards=2)
    half = len(EVENTS) // 2
    write(tmp_path / "log-1.parquet", EVENTS[half:][::-1])
    write(tmp_path / "log-2.ndjson.gz", [*EVENTS[:half], *EVENTS[::7], conflict])
    (tmp_path / "log-3.ndjson").write_text('{"id": "no time"}\n')
    report = asked(pipeline, tmp_path / "log-*", threshold=Fraction(0))
    assert report.agrees and report.passes
    assert (report.events_here, report.events_there) == (len(EVENTS), len(EVENTS))
    assert [(level.grain, level.differing) for level in report.levels] == [("month", 0)]  # digests end it at once
    assert "129 duplicates and 1 conflicting" in report.notes[0]
    assert report.notes[1].endswith("1 MISSING_TIME")
    for scope in (MARCH, Scope(customers=("acme",)), Scope(MARCH.from_s, MARCH.before_s, ("zeta",))):
        part = asked(pipeline, tmp_path / "log-*", scope=scope)
        assert part.agrees and 0 < part.events_here < len(EVENTS)


def test_exactly_what_was_planted_is_found(tmp_path: Path) -> None:
    pipeline = billed(tmp_path / "here", EVENTS, shards=2)
    # A correction moves quantities and no event: it must not be taken for a difference.
    nothing = ", ".join(f"0 AS {name}" for name in ("events", "digest", "q0", "a0", "a1", "a2", "a3"))
    five = ", ".join(f"if(splitByChar(',', meters)[{n + 1}] = 'input_tokens', -5, 0) AS q{n}" for n in (1, 2, 3))
    pipeline.execute(
        f"INSERT INTO rollup_minute SELECT * REPLACE ({nothing}, {five}) FROM rollup_minute "
        "WHERE customer = 'acme' AND startsWith(meters, 'requests,') ORDER BY window_start LIMIT 1"
    )
    pipeline.execute(
        "INSERT INTO corrections (customer, window_start, meter, id, kind, currency, quantity) SELECT customer, "
        "window_start, 'input_tokens', 'c', 'correction', 'USD', -5 FROM rollup_minute WHERE customer = 'acme' LIMIT 1"
    )
    log, expected = planted()
    report = asked(pipeline, write(tmp_path / "log.ndjson", log))
    assert len(expected) == 7
    assert found(report) == expected
    assert report.counts == {Kind.ONLY_HERE: 1, Kind.ONLY_THERE: 1, Kind.DIFFERENT: 4, Kind.CONFLICTING: 1}
    assert report.minute_count == 7  # one of them for the first two, two each for customer and time
    totals = {one.meter: one.here for one in report.variances if one.customer is None}
    assert totals["input_tokens"] == sum(one["usage"]["input_tokens"] for one in EVENTS)
    assert totals["requests"] == len(EVENTS)
    assert not report.passes
    html = as_html(report)
    assert html.count("<td>different</td>") == 4
    told = as_json(report)
    assert json.loads(json.dumps(told)) == told
    somebody = [one for one in report.variances if one.customer == "somebody else"]
    assert [one.here for one in somebody] == [0] * len(somebody) and somebody
    # Of one customer, and with a threshold that allows for it.
    zeta = asked(pipeline, tmp_path / "log.ndjson", scope=Scope(customers=("zeta",)), threshold=Fraction(2))
    assert zeta.passes and found(zeta) <= expected | {(Kind.ONLY_HERE, EVENTS[300]["id"], ())}

    there = billed(tmp_path / "there", log)
    both = asked(pipeline, there.config_path)
    assert found(both) == {one for one in expected if one[0] is not Kind.CONFLICTING}
    url = asked(pipeline, f"chdb:{tmp_path}/there/store")
    assert (url.minute_count, url.counts) == (7, None)
    assert "no ledger" in url.notes[0]
    assert asked(pipeline, there.config_path, scope=Scope(0, 1)).agrees  # of nothing


def test_the_command_says_it_and_exits_with_3(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS[:50])
    pipeline.run()
    log = write(pipeline.folder / "log.ndjson", EVENTS[1:50])
    ended = pipeline.command("reconcile", "--against", str(log), "--format", "json")
    assert ended.returncode == 3
    assert "1 events only here; beyond the threshold of 0.01%" in ended.stderr
    assert [one["id"] for one in json.loads(ended.stdout)["events"]] == [EVENTS[0]["id"]]


def test_what_cannot_be_compared_is_refused(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS[:5])
    pipeline.run()
    log = write(pipeline.folder / "log.ndjson", EVENTS[:4])
    for against, said in (
        ((pipeline.folder / "none-*.ndjson",), "no such file"),
        ((pipeline.config_path,), "the store itself"),
        (("chdb:here", "chdb:there"), "one other store"),
        (("chdb://here",), "ambiguous"),
    ):
        with pytest.raises(ConfigError, match=said):
            asked(pipeline, *against)
    (pipeline.folder / "ledger" / "open").mkdir(exist_ok=True)
    lineage = pipeline.rows("SELECT lineage FROM lineages")[0][0]
    (pipeline.folder / "ledger" / "open" / f"{lineage}-000-000009.pieces").touch()
    with pytest.raises(RefusedStart, match="not sealed yet"):
        asked(pipeline, log)


# ---- A provider's report ------------------------------------------------------------------------------------------

NOVEMBER_S = 1_793_491_200


def page(events: Sequence[Event], **changed: int) -> str:
    """OpenAI's report of events in the first three days of November, by day and model."""
    buckets = []
    for day in (1, 2, 3):
        results = []
        for model in ("small", "large"):
            used = [one["usage"] for one in events if one["time"].day == day and one["model"] == model]
            counts = {
                "input_tokens": sum(one["input_tokens"] + one["cached_input_tokens"] for one in used),
                "input_cached_tokens": sum(one["cached_input_tokens"] for one in used),
                "output_tokens": sum(one["output_tokens"] + one["reasoning_tokens"] for one in used),
                "num_model_requests": len(used),
            }
            results.append({"object": "organization.usage.completions.result", "model": f"{model}-2026"} | counts)
        start_s = NOVEMBER_S + (day - 1) * 86_400
        buckets.append({"object": "bucket", "start_time": start_s, "end_time": start_s + 86_400, "results": results})
    buckets[1]["results"][0] |= changed
    return json.dumps({"object": "page", "data": buckets, "has_more": False})


def test_a_providers_report(pipeline: Pipeline) -> None:
    usage = {"input_tokens": 1000, "cached_input_tokens": 256, "output_tokens": 90, "reasoning_tokens": 40, "images": 1}
    events = [
        event(n, f"2026-11-0{1 + n % 3}T{n % 24:02}:30:00Z", model=["small", "large"][n % 2], usage=dict(usage))
        for n in range(120)
    ]
    pipeline.write("events.ndjson", events)
    pipeline.run()
    (pipeline.folder / "names.yaml").write_text("models: {small-2026: small, large-2026: large}\n")
    path = pipeline.folder / "usage.json"

    def against(text: str, scope: Scope | None = None, models: tuple[str, ...] = ()) -> Reconciliation:
        path.write_text(text)
        mapping = pipeline.folder / "names.yaml"
        given = Asked((str(path),), Fraction(1, 10_000), scope or Scope(), mapping=mapping, models=models)
        return reconcile(pipeline.config(), given, time.time_ns() // 1000)

    report = against(page(events))
    assert report.agrees and (report.events_here, report.events_there) == (120, 120)
    assert [(level.grain, level.compared) for level in report.levels] == [("day", 6)]
    assert "not compared, since the report has no count of it: 120 images" in report.notes

    report = against(page(events, output_tokens=5))
    assert not report.passes
    assert [(one.window_start, one.model, one.meter, one.here, one.there) for one in report.usage] == [
        ("2026-11-02T00:00:00Z", "small", "output_tokens", 20 * 130, 5)
    ]
    assert {(one.customer, one.model) for one in report.variances if one.here != one.there} == {
        (None, None),
        (None, "small"),
    }
    assert against(page(events, output_tokens=5), Scope(NOVEMBER_S + 2 * 86_400)).agrees  # its own day is left out
    assert not against(page(events), models=("sm*",)).agrees  # the report has models of which nothing is here
    for text, scope, said in (
        (page(events), Scope(customers=("acme",)), "does not tell customers apart"),
        (page(events), Scope(before_s=NOVEMBER_S), "expected some of the period"),
    ):
        with pytest.raises(ConfigError, match=said):
            against(text, scope)
    thousands = json.loads(page(events))
    for bucket in thousands["data"]:
        for result in bucket["results"]:
            result |= {name: value // 1000 for name, value in result.items() if name.endswith("tokens")}
    with pytest.raises(ConfigError, match="as if the report were in thousands of tokens; expected tokens, one each"):
        against(json.dumps(thousands))


# ---- While a job runs ---------------------------------------------------------------------------------------------


def test_a_job_holds_its_store_against_a_second_source(pipeline: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    pipeline.write("events.ndjson", EVENTS)
    log = write(pipeline.folder / "log-1.ndjson", EVENTS[3:])
    # The run's own thread begins after an hour: here it is only begun and ended.
    settings = {"against": "log-*.ndjson", "every": "1h", "back": "60d", "settle": "0s", "threshold": "0.01%"}
    pipeline.run(reconcile=settings)
    config = pipeline.config()
    assert config.reconcile is not None
    behind_s = int(max(one["time"] for one in EVENTS).timestamp()) + 60
    asked_for = config.reconcile.model_copy(update={"every_us": 0})
    reconciler = Reconciler(config, asked_for, "lin", lambda: behind_s * 1_000_000)
    reconciler.once()
    assert reconciler.last is not None and reconciler.last.verdict is Verdict.BEYOND
    assert "only here" not in caplog.text and "3 customer minutes differ" in caplog.text
    write(log, EVENTS)
    reconciler.once()
    log.unlink()
    reconciler.start()
    while reconciler.counts[Verdict.FAILED] < 1:
        time.sleep(0.01)  # nobody tells when the thread has come round
    reconciler.stop()
    rows = pipeline.rows(
        "SELECT lineage, verdict, differing, events_here, events_there, toString(window_before), detail "
        "FROM reconciliations ORDER BY finished LIMIT 3"
    )
    assert [row[:5] for row in rows] == [
        ("lin", "beyond", 3, len(EVENTS), len(EVENTS) - 3),
        ("lin", "agrees", 0, len(EVENTS), len(EVENTS)),
        ("lin", "failed", 0, 0, 0),
    ]
    assert len(json.loads(rows[0][6])["minutes"]) == 3
    assert "no such file" in json.loads(rows[2][6])["error"]


def test_a_job_is_not_held_against_a_second_embedded_store(pipeline: Pipeline) -> None:
    pipeline.write("events.ndjson", EVENTS)
    state = pipeline.config().state_dir
    other = pipeline.folder / "other.yaml"
    other.write_text(pipeline.config_path.read_text().replace("chdb:store", "chdb:other"))
    with pytest.raises(ConfigError, match=r"is an embedded store .*/other\), as the job's own is"):
        pipeline.run(reconcile={"against": str(other), "every": "1h", "back": "60d"})
    assert not state.exists()
