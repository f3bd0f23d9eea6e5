"""Corrections are events: totals become what they should have been, and history stays as it was."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.ledger import file_batch
from typer.testing import CliRunner

from flow.amending.correcting import Asked as Wanted
from flow.amending.correcting import EventNamed, WindowNamed
from flow.amending.correcting import correct as correct_config
from flow.cli.app import make_app
from flow.errors import ConfigError
from flow.oracle.rollup import Rates, Rollup
from flow.prices.book import parse_price_book
from flow.reconcile.asked import Scope as Everything
from flow.reconcile.naming import Kind
from flow.reconcile.reconciling import Asked as Compared
from flow.reconcile.reconciling import reconcile
from flow.rerate.asked import Scope
from flow.rerate.rerating import Asked, Source, rerate
from flow.schema import DIMENSIONS
from flow.sinks.committed import STEP
from flow.sinks.writer import MANIFEST
from flow.start import open_store
from flow.state.directory import StateDirectory
from flow.state.inbox import Inbox
from flow.state.ledger import LedgerWriter
from flow.state.manifest import unseal
from flow.state.recovered import last_snapshots
from flow.statements.invoice import make_invoice, parse_period
from flow.statements.render import as_json
from flow.verify import verify

from .harness import Event, Pipeline, Views, balance, event, flat

PRICES = """
currency: USD
prices:
  - {meter: requests, from: 2020-01-01T00:00:00Z, per: 1000, price: "1"}
  - model: tiered
    meter: input_tokens
    from: 2020-01-01T00:00:00Z
    per: 1_000_000
    price: "1"
    above: [{above: 1000, price: "2"}]
    context: [input_tokens, cached_input_tokens]
  - model: tiered
    meter: cached_input_tokens
    from: 2020-01-01T00:00:00Z
    per: 1_000_000
    price: "0.1"
    above: [{above: 1000, price: "0.2"}]
    context: [input_tokens, cached_input_tokens]
  - {model: thirds, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 3, price: "1"}
  - {meter: pages, from: 2020-01-01T00:00:00Z, per_started: 10, price: "0.25"}
"""
DEARER = PRICES.replace('"0.25"', '"0.35"').replace('"0.2"', '"0.3"') + (
    '  - {model: unlisted, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1000, price: "1"}\n'
)
PLAIN = """
currency: USD
prices:
  - {meter: requests, from: 2020-01-01T00:00:00Z, per: 1000, price: "3"}
  - {meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "2"}
  - {model: thirds, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 7, price: "1"}
  - {meter: pages, from: 2020-01-01T00:00:00Z, per: 1, price: "0.02"}
"""


NOW_US = 1_800_000_000_000_000


def tiered(number: int, **usage: int) -> Event:
    return event(number, model="tiered", usage=usage)


EVENTS = [
    tiered(1, input_tokens=700, cached_input_tokens=600),  # above the tier; becomes 200 and 600, below it
    tiered(2, input_tokens=900, pages=11),  # 15 pages cost the same two packages; 900 leaves its tier
    tiered(3, input_tokens=5000, cached_input_tokens=1),  # never happened
    event(4, model="thirds", customer="yen", usage={"input_tokens": 10}),
    event(5, model="unlisted", customer="zeta", usage={"input_tokens": 40, "odd_units": 3}),
    event(6, "2026-03-02T00:00:00Z", model="thirds", customer="yen", usage={"input_tokens": 7}),
]
MENDED = [
    EVENTS[0] | {"usage": {"input_tokens": 200, "cached_input_tokens": 600}},
    EVENTS[1] | {"usage": {"input_tokens": 1900, "pages": 15}},
    EVENTS[3] | {"usage": {"input_tokens": 6}},
    EVENTS[4] | {"usage": {"input_tokens": 45, "odd_units": 0}},
    EVENTS[5],
]


def correction(number: int, of: Event, change: dict[str, int], **said: Any) -> dict[str, Any]:
    """A correction of an event, as JSON has it."""
    corrects = {"source": of["source"], "id": of["id"], "usage": of["usage"]}
    changed = flat(of) | {"id": f"mend-{number}", "source": "desk", "type": "usage.correction", "usage": change}
    return changed | {"corrects": corrects, "reason": "counted wrongly", "author": "ana"} | said


CORRECTIONS = [
    correction(1, EVENTS[0], {"input_tokens": -500}),
    correction(2, EVENTS[1], {"input_tokens": 1000, "pages": 4}),
    correction(3, EVENTS[2], {"input_tokens": -5000, "cached_input_tokens": -1, "requests": -1}),
    # of a window: 4 of 17 are taken away
    correction(4, EVENTS[3], {"input_tokens": -4}, corrects={"window_start": "2026-03-01T00:00:00Z", "grain": "month"}),
    correction(5, EVENTS[4], {"input_tokens": 5, "odd_units": -3}),
]


def cloud(said: dict[str, Any]) -> dict[str, Any]:
    """The same as a CloudEvent."""
    names = ("corrects", "reason", "author", "usage", *DIMENSIONS[1:])
    envelope = {"specversion": "1.0", "subject": said["customer"], "data": {name: said[name] for name in names}}
    return envelope | {name: said[name] for name in ("id", "source", "type", "time")}


def write_lines(path: Path, said: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one) + "\n" for one in said), encoding="utf-8")


def truth_of(events: list[Event], corrections: list[dict[str, Any]], prices: str) -> Views:
    """What the views must say, by the oracle."""
    book = parse_price_book(prices, "prices")
    rollup = Rollup(Rates(book.prices, book.unbilled))
    for one in [*map(flat, events), *corrections]:
        time_us = (datetime.fromisoformat(one["time"]) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
        dims = tuple(one[name] for name in DIMENSIONS)
        said = {"kind": "correction"} | {name: one[name] for name in ("author", "corrects", "reason") if name in one}
        text = json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":")) if "corrects" in one else ""
        rollup.add(one["source"], one["id"], time_us, dims, list(one["usage"].items()), text)
    return {
        grain: {
            key: (row.quantity, row.amount_femto, row.events, row.unpriced_quantity, row.digest)
            for key, row in rows.items()
        }
        for grain, rows in rollup.grains()
    }


def numbers(views: Views) -> dict[Any, tuple[int, int, int]]:
    """Quantity, amount and unpriced quantity of each row in which they are not all 0."""
    found = {
        (grain, key): (quantity, amount, unpriced)
        for grain, rows in views.items()
        for key, (quantity, amount, _, unpriced, _) in rows.items()
    }
    return {key: values for key, values in found.items() if any(values)}


@pytest.fixture
def corrected(pipeline: Pipeline) -> Pipeline:
    """A pipeline that was run over events and then over their corrections."""
    pipeline.prices = PRICES
    pipeline.write("1.ndjson", EVENTS)
    pipeline.run(shards=2)
    said = [*CORRECTIONS[:-1], cloud(CORRECTIONS[-1])]
    other = CORRECTIONS[0] | {"reason": "something else"}
    write_lines(pipeline.folder / "events" / "2.ndjson", [*said, CORRECTIONS[0], other])
    outcome = pipeline.run()
    assert outcome.balance == balance(accepted=11, duplicate=1, conflicting=1)
    return pipeline


def test_totals_are_what_they_should_have_been(corrected: Pipeline) -> None:
    views = corrected.views()
    assert views == truth_of(EVENTS, CORRECTIONS, PRICES)
    assert numbers(views) == numbers(truth_of(MENDED, [], PRICES))
    assert sum(row[2] for key, row in views["minute"].items() if key[2] == "requests") == len(EVENTS)
    assert verify(corrected.config()).difference_count == 0
    amounts = corrected.rows(
        "SELECT id, meter, kind, toString(quantity), toString(amount), toString(unpriced_quantity), author, reason "
        "FROM corrections ORDER BY id, meter"
    )
    said = ("ana", "counted wrongly")
    assert amounts == [
        ("mend-1", "cached_input_tokens", "correction", "0", "-0.00006", "0", *said),
        ("mend-1", "input_tokens", "correction", "-500", "-0.0012", "0", *said),
        ("mend-2", "input_tokens", "correction", "1000", "0.0029", "0", *said),
        ("mend-2", "pages", "correction", "4", "0", "0", *said),
        ("mend-3", "cached_input_tokens", "correction", "-1", "-0.0000002", "0", *said),
        ("mend-3", "input_tokens", "correction", "-5000", "-0.01", "0", *said),
        ("mend-3", "requests", "correction", "-1", "-0.001", "0", *said),
        ("mend-4", "input_tokens", "correction", "-4", "-1.333333333333334", "0", *said),
        ("mend-5", "input_tokens", "correction", "5", "0", "5", *said),
        ("mend-5", "odd_units", "correction", "-3", "0", "-3", *said),
    ]
    with open_store(corrected.config()) as client:
        invoice = make_invoice(client, "acme", parse_period("2026-03"))
    (told,) = json.loads(as_json(invoice))["corrected"]
    assert told == dict(zip(("author", "reason"), said, strict=True)) | {
        "kind": "correction",
        "changes": 3,
        "amount_exact": "-0.0093602",
    }
    named = {json.loads(text).get("id") for (text,) in corrected.rows("SELECT corrects FROM corrections")}
    assert named == {None, *(EVENTS[n]["id"] for n in (0, 1, 2, 4))}


def test_the_ledger_has_them(corrected: Pipeline, tmp_path: Path) -> None:
    """Replayed, and rated anew, they are what they were."""
    replayed = Pipeline(tmp_path / "replayed", PRICES)
    ledger = str(corrected.folder / "ledger")
    outcome = replayed.run(source={"kind": "ledger", "path": ledger})
    assert outcome.balance == balance(accepted=11)
    assert replayed.views() == corrected.views()
    query = "SELECT * EXCEPT created FROM corrections ORDER BY ALL"
    assert replayed.rows(query) == corrected.rows(query)
    assert verify(replayed.config()).difference_count == 0
    (corrected.folder / "dearer.yaml").write_text(DEARER)
    scope = Scope(0, 86_400_000_000 * 30_000)
    rerate(corrected.config(), Asked(scope, corrected.folder / "dearer.yaml", "ana", "raise", Source.LEDGER))
    assert corrected.views() == truth_of(EVENTS, CORRECTIONS, DEARER)
    assert verify(corrected.config()).difference_count == 0


def test_rerated_they_are_what_the_new_book_makes_of_them(pipeline: Pipeline) -> None:
    """given a minute in which corrections have taken away more than there was, and one without requests left
    when all is re-rated, by other prices of requests too, from the rollups and back from the ledger
    then the views are those of a run by that book"""
    pipeline.prices = PRICES
    elsewhere = correction(6, EVENTS[3], {"input_tokens": -2}, corrects=MONTH, time="2026-03-03T00:00:00Z")
    pipeline.write("1.ndjson", EVENTS)
    write_lines(pipeline.folder / "events" / "2.ndjson", [*CORRECTIONS, elsewhere])
    pipeline.run()
    scope = Scope(0, 86_400_000_000 * 30_000)
    for book, source in ((PLAIN, Source.ROLLUPS), (PRICES, Source.LEDGER), (PLAIN, Source.LEDGER)):
        (pipeline.folder / "next.yaml").write_text(book)
        rerate(pipeline.config(), Asked(scope, pipeline.folder / "next.yaml", "ana", "another", source))
        assert pipeline.views() == truth_of(EVENTS, [*CORRECTIONS, elsewhere], book)
    assert verify(pipeline.config()).difference_count == 0
    pipeline.run()


MONTH = {"window_start": "2026-03-01T00:00:00Z", "grain": "month"}
REFUSED = [
    ({"corrects": None}, "CORRECTION_OF_NOTHING", "corrects: missing"),
    ({"corrects": "event-1"}, "CORRECTION_OF_NOTHING", 'corrects: "event-1" is not an object'),
    ({"corrects": {}}, "CORRECTION_OF_NOTHING", "corrects: names neither an event nor a window"),
    ({"corrects": MONTH | {"id": "event-1"}}, "CORRECTION_OF_NOTHING", "corrects: names an event and a window"),
    ({"corrects": {"source": "s"}}, "CORRECTION_OF_NOTHING", "corrects.id: missing"),
    ({"corrects": MONTH | {"grain": "year"}}, "INVALID_CORRECTION", '"year" from "2026-03-01T00:00:00Z" is no window'),
    (
        {"corrects": {"window_start": "2026-03-02T00:00:00Z", "grain": "week"}, "time": "2026-03-09T00:00:00Z"},
        "INVALID_CORRECTION",
        "is no window that the correction's time is in",
    ),
    ({"corrects": MONTH | {"window_start": "2026-03-01T00:00:01Z"}}, "INVALID_CORRECTION", "is no window"),
    ({"reason": ""}, "CORRECTION_WITHOUT_REASON", 'reason: ""'),
    ({"author": None}, "CORRECTION_WITHOUT_AUTHOR", "author: null"),
    ({"usage": {"input_tokens": 0}}, "INVALID_CORRECTION", "every quantity of the correction is 0"),
    ({"usage": {"input_tokens": -701}}, "INVALID_CORRECTION", "corrects.usage.input_tokens: 700 and -701 make -1"),
    ({"usage": {"requests": 1}}, "INVALID_CORRECTION", "usage.requests: requests can only be taken away"),
    ({"usage": {"input_tokens": -(10**12) - 1}}, "QUANTITY_TOO_LARGE", "is above 1000000000000"),
    ({"usage": {"input_tokens": "-1.0"}}, "INVALID_QUANTITY", '"-1.0" is not an integer'),
    ({"type": "llm.usage"}, "NEGATIVE_QUANTITY", "usage.input_tokens: -500 is negative"),
    ({"type": "usage.refund"}, "UNSUPPORTED_TYPE", 'type: "usage.refund", not "llm.usage"'),
]


def test_what_says_too_little_is_rejected(pipeline: Pipeline) -> None:
    said = [CORRECTIONS[0] | changes for changes, _, _ in REFUSED]
    del said[0]["corrects"]
    pipeline.prices = PRICES
    write_lines(pipeline.folder / "events" / "1.ndjson", said)
    assert pipeline.run().balance == balance(rejected=len(REFUSED))
    position = "toInt64(splitByChar(':', source_position)[2])"
    rows = pipeline.rows(f"SELECT reason, detail FROM rejected_events ORDER BY {position}")
    for (_, reason, detail), found in zip(REFUSED, rows, strict=True):
        assert (found[0], detail in found[1]) == (reason, True), found


def test_a_log_agrees_only_with_them(corrected: Pipeline) -> None:
    def against(name: str) -> Any:
        names = (str(corrected.folder / "events" / name),)
        return reconcile(corrected.config(), Compared(names, Fraction(1, 10_000), Everything()), 2**60)

    with_them, without = against("*"), against("1.ndjson")
    assert with_them.agrees
    assert without.passes and not without.agrees  # quantities are held against each other without them
    assert {(one.kind, one.id) for one in without.events} == {(Kind.ONLY_HERE, said["id"]) for said in CORRECTIONS}


def test_the_command_makes_one_of_what_the_ledger_says(pipeline: Pipeline, tmp_path: Path) -> None:
    """Each in its turn: what is before includes the corrections so far, also those that no run has read yet."""
    pipeline.prices = PRICES
    pipeline.write("1.ndjson", EVENTS)
    pipeline.run(dedup={"horizon": "1h"})
    app, by = make_app(["correct", "sql"]), ["--author", "ana", "--reason", "ticket 7"]

    said: list[str] = []  # on stderr

    def correct(*arguments: str, exit_code: int = 0) -> dict[str, Any]:
        done = CliRunner().invoke(
            app, ["correct", *arguments, *by, "-c", str(pipeline.config_path), "--format", "json"]
        )
        assert done.exit_code == exit_code, done.output
        said.append(done.stderr)
        return json.loads(done.stdout) if not exit_code else {"error": done.exception}

    def of(n: int) -> list[str]:
        return ["--event", EVENTS[n]["source"], EVENTS[n]["id"]]

    would = correct(*of(0), "--to", "input_tokens=200", "--dry-run")
    assert (would["file"], Inbox(pipeline.folder / "state").names()) == (None, [])
    assert [(row["meter"], row["quantity"], row["amount"]) for row in would["changes"]] == [
        ("cached_input_tokens", "0", "-0.00006"),
        ("input_tokens", "-500", "-0.0012"),
    ]
    done = correct(*of(0), "--to", "input_tokens=200")
    assert done["changes"] == would["changes"]
    assert correct(*of(0), "--to", "input_tokens=200") == done | {"there_before": True}
    correct(*of(1), "--to", "input_tokens=1900", "--to", "pages=15")
    assert "what it says already" in str(correct(*of(0), "--to", "cached_input_tokens=600", exit_code=1)["error"])
    correct(*of(2), "--by", "input_tokens=-10")
    correct(*of(2), "--void")  # of what is left
    again = correct(*of(2), "--by", "cached_input_tokens=5", exit_code=1)["error"]
    assert "taken back already" in str(again)
    window = ["--window", "2026-03-01T12:00:00Z", "--customer", "yen", "--model", "thirds", "--project", "search"]
    window += ["--feature", "chat", "--region", "eu-west-1", "--service-tier", "standard"]
    assert correct(*window, "--by", "input_tokens=-4")["below_zero"] == []
    too_much = ["--by", "input_tokens=-18", "--by", "pages=-1", "--by", "output_tokens=1", "--dry-run"]
    assert correct(*window, *too_much)["below_zero"] == [
        {"meter": "input_tokens", "has": "10", "would_have": "-8"},
        {"meter": "pages", "has": "0", "would_have": "-1"},
    ]
    of_month = ["--window", "2026-03-01T00:00:00Z", "--grain", "month", *window[2:], *too_much]
    assert correct(*of_month)["below_zero"][0] == {"meter": "input_tokens", "has": "17", "would_have": "-1"}
    assert "has 17 input_tokens of these dimensions and would have -1" in said.pop()
    config = pipeline.config()
    elsewhere = config.model_copy(update={"store": config.store.model_copy(update={"path": tmp_path / "nowhere"})})
    asked = Wanted(WindowNamed(NOW_US, "minute", {"customer": "c"}), {}, {"pages": -1}, False, "ana", "ticket 8")
    outcome = correct_config(elsewhere, asked, NOW_US, dry=True)
    assert (outcome.below_zero, "nowhere" in outcome.not_looked_up) == ([], True)
    correct(*of(4), "--by", "input_tokens=5", "--by", "odd_units=-3")
    pipeline.write("2.ndjson", [event(99, "2026-03-09T00:00:00Z", usage={"pages": 0})])  # all of them are late now
    assert pipeline.run().balance == balance(accepted=13)
    pages = event(99, "2026-03-09T00:00:00Z", usage={"pages": 0})
    assert numbers(pipeline.views()) == numbers(truth_of([*MENDED, pages], [], PRICES))
    assert verify(pipeline.config()).difference_count == 0
    assert "a correction itself" in str(
        correct("--event", "tallyflow correct", done["correction"]["id"], "--void", exit_code=1)["error"]
    )


def test_what_a_crash_would_take_back_is_not_corrected(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """given a job that has appended an epoch to the ledger, whole, and has not committed it
    when events are corrected
    then those that are committed can be, and of those of that epoch nothing is known yet"""
    pipeline.prices = PRICES
    pipeline.write("1.ndjson", EVENTS[:2])
    monkeypatch.setattr(LedgerWriter, "seal", lambda self, *, everything=False: None)
    pipeline.run(shards=1)
    state = StateDirectory(pipeline.folder / "state")
    ((name, snapshot),) = last_snapshots(state.recovery, STEP).items()
    manifest = unseal(snapshot, MANIFEST, name)
    writer = LedgerWriter(pipeline.folder / "ledger", manifest["lineage"], name)
    writer.resume(manifest["ledger"])
    usage = list(EVENTS[2]["usage"].items())
    writer.append(file_batch([EVENTS[2] | {"usage": usage, "source_position": "events/2.ndjson:0"}]))
    writer.snapshot(0)

    def corrected(event: Event) -> Any:
        asked = Wanted(EventNamed(event["source"], event["id"]), {}, {}, True, "ana", "sent by a test")
        return correct_config(pipeline.config(), asked, NOW_US, dry=True).event["corrects"]["usage"]

    assert [corrected(one) for one in EVENTS[:2]] == [one["usage"] for one in EVENTS[:2]]
    with pytest.raises(ConfigError, match="or not yet"):
        corrected(EVENTS[2])


def test_the_command_says_all_that_is_missing(pipeline: Pipeline) -> None:
    asked = Wanted(EventNamed("s", "1"), {}, {}, False, "", " ")
    with pytest.raises(ConfigError) as refused:
        correct_config(pipeline.config(), asked, 0)
    assert refused.value.errors == [
        "--author: is missing",
        "--reason: is missing",
        "correct: give one of --to METER=N, --by METER=N and --void",
    ]
