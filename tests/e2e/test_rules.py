"""Goal: rules keep events out or flag them, whatever the source, shards and workers, and a replay changes no number.

Given known customers (a list), a bound and a required project
When events of all kinds are read, twice
Then what fails is in rejected_events and flagged_events, once, and everything else is billed.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Pipeline, balance, event, truth
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.rounding import decimal_text
from flow.rules.book import load_rule_book
from flow.steps.watch_rules import UsedRules

RULES = """
version: {name: "1", author: ana, reason: the first}
rules:
  - id: known-customers
    severity: reject
    since: 2026-01-01T00:00:00Z
    known: {customer: {file: customers.txt}}
    examples: {pass: [{customer: acme}], fail: [{customer: nobody}]}
  - id: output-of-small
    severity: flag
    since: 2026-01-01T00:00:00Z
    where: {model: small}
    range: {meter: output_tokens, max: 1000}
    examples:
      pass: [{model: small, usage: {output_tokens: 1000}}, {model: large, usage: {output_tokens: 1001}}]
      fail: [{model: small, usage: {output_tokens: 1001}}]
  - id: has-a-project
    severity: flag
    since: 2026-01-01T00:00:00Z
    required: [project]
    examples: {pass: [{project: search}], fail: [{}]}
"""
FLAGGED = (
    "SELECT rule, severity, customer, source, id, toUnixTimestamp64Micro(event_time), detail FROM flagged_events "
    "ORDER BY id, rule"
)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    made = Pipeline(tmp_path, settings={"rules": "rules.yaml", "shards": 3})
    (tmp_path / "rules.yaml").write_text(RULES)
    (tmp_path / "customers.txt").write_text("# who pays\nacme\nglo*\n\n")
    return made


def events() -> Iterator[dict[str, Any]]:
    """By their number modulo 5: good, unknown, flagged, flagged twice, all at once."""
    for n in range(100):
        kinds = [{}, {"customer": "nobody"}, {"usage": {"output_tokens": 1001}}, {}, {"customer": "glob"}]
        made = event(n, **kinds[n % 5])
        if n % 5 >= 3:
            made |= {"project": "", "usage": {"output_tokens": 5000}}
        if n % 10 == 4:
            made["customer"] = "gl"
        yield made


@pytest.mark.parametrize("name", ["a.ndjson", "a.parquet"])
def test_what_fails_is_set_aside_or_flagged(pipeline: Pipeline, name: str) -> None:
    made = list(events())
    pipeline.write(name, made + made[50:])
    outcome = pipeline.run(workers=2)
    unknown = [one for one in made if one["customer"] in ("nobody", "gl")]
    assert outcome.balance == balance(accepted=70, duplicate=35, rejected=45)
    assert pipeline.views() == truth([one for one in made if one not in unknown])

    label = load_rule_book(pipeline.folder / "rules.yaml").label
    rejected = pipeline.rows("SELECT DISTINCT reason, detail, payload FROM rejected_events ORDER BY payload")
    assert len(rejected) == len(unknown) == 30
    for (reason, detail, payload), one in zip(rejected, unknown, strict=True):
        said = f"known-customers: customer {one['customer']!r} is not in customers.txt ({label})"
        assert (reason, detail) == ("RULE", said)
        assert json.loads(payload) == one | {"time": "2026-03-01T12:00:00Z"}

    flagged = [row[:6] for row in pipeline.rows(FLAGGED)]
    expected = []
    for n, one in enumerate(made):
        if one not in unknown and n % 5 >= 2:
            time_us = int(one["time"].timestamp()) * 10**6
            rules = ["output-of-small"] if n % 5 == 2 else ["has-a-project", "output-of-small"]
            expected += [(rule, "flag", one["customer"], one["source"], one["id"], time_us) for rule in rules]
    assert flagged == expected
    details = {row[6] for row in pipeline.rows(FLAGGED)}
    assert details == {
        f"project: empty ({label})",
        f"output_tokens 1001 is above 1000 ({label})",
        f"output_tokens 5000 is above 1000 ({label})",
    }
    kept = UsedRules(pipeline.folder / "state" / "rules").last()
    assert kept is not None
    assert (kept.label, kept.lists) == (label, {"customers.txt": b"# who pays\nacme\nglo*\n\n"})


def test_a_replay_of_the_ledger_flags_what_would_be_rejected(pipeline: Pipeline, tmp_path: Path) -> None:
    made = list(events())
    pipeline.write("a.ndjson", made)
    pipeline.run(rules=None)
    again = Pipeline(tmp_path / "again", settings=pipeline.settings | {"rules": "../rules.yaml"})
    outcome = again.run(source={"kind": "ledger", "path": "../ledger"})
    assert outcome.balance == balance(accepted=100)
    assert again.views() == truth(made)
    counts = again.rows("SELECT rule, severity, count() FROM flagged_events GROUP BY ALL ORDER BY rule")
    assert counts == [("has-a-project", "flag", 40), ("known-customers", "reject", 30), ("output-of-small", "flag", 60)]


def test_a_rejected_event_goes_back_once_its_customer_is_known(pipeline: Pipeline) -> None:
    """A row of a table, too: what fails a rule was an event already, and is kept as one."""
    good, unknown = event(1), event(2, customer="new")
    pipeline.write("a.parquet", [good, unknown])
    pipeline.run()

    def redrive() -> Any:
        words = ["rejected", "redrive", "--author", "Ann", "--reason", "signed", "--format", "json"]
        return CliRunner().invoke(make_app(["rejected"]), [*words, "-c", str(pipeline.config_path)])

    assert "is not in customers.txt" in redrive().output
    with (pipeline.folder / "customers.txt").open("a") as file:
        file.write("new\n")
    assert json.loads(redrive().stdout)["events"] == 1
    assert pipeline.run().balance == balance(accepted=2, rejected=1)
    assert pipeline.views() == truth([good, unknown])


def test_what_a_rule_book_would_have_made_of_the_ledger(pipeline: Pipeline) -> None:
    """Given a ledger, with a third of which the new book would do what the present one does not."""
    made = list(events())
    pipeline.write("a.ndjson", made)
    pipeline.run(rules=None)
    stricter = RULES.replace("max: 1000}", "max: 4000}").replace("1001", "4001").replace("1000", "4000")
    (pipeline.folder / "new.yaml").write_text(stricter.replace("severity: flag", "severity: reject", 1))
    pipeline.config(rules="rules.yaml")
    words = ["rules", "try", str(pipeline.folder / "new.yaml")]

    def tried(*more: str) -> Any:
        result = CliRunner().invoke(make_app(["rules"]), [*words, *more])
        assert result.exit_code == 0, result.output
        return result.stdout

    found = json.loads(tried("-c", str(pipeline.config_path), "--format", "json"))
    assert (found["events"], found["currency"], found["unknown"]) == (100, "USD", [])

    def billed(chosen: Iterable[dict[str, Any]]) -> str:
        rows = truth(list(chosen))["month"].values()
        return decimal_text(sum(amount for _, amount, *_ in rows), 15, trim=True)

    unknown = [one for one in made if one["customer"] in ("nobody", "gl")]
    large = [one for one in made if one["usage"]["output_tokens"] > 4000]
    either = [one for one in made if one in unknown or one in large]
    assert found["after"]["rejected"] == {"events": len(either), "amount": billed(either)}
    assert found["after"]["flagged"] == {"events": 0, "amount": "0"}
    assert found["before"]["rejected"] == {"events": len(unknown), "amount": billed(unknown)}
    of_rules = {rule["rule"]: rule for rule in found["after"]["rules"]}
    assert of_rules["known-customers"]["customers"] == [
        {"customer": name, "events": len(theirs), "amount": billed(theirs)}
        for name, theirs in ((name, [one for one in made if one["customer"] == name]) for name in ("gl", "nobody"))
    ]
    assert [of_rules[name]["events"] for name in ("output-of-small", "has-a-project")] == [len(large), 40]
    text = tried("--against", str(pipeline.folder / "ledger"))
    assert f"of 100 accepted events {len(either)} would be rejected (no prices), 0 flagged" in text
