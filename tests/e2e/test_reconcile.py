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
    (pipeline.folder / "ledger" / "open" / f"{lineage}-000-000009.arrows").touch()
    with pytest.raises(RefusedStart, match="not sealed yet"):
        asked(pipeline, log)
