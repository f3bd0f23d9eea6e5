"""Goal: rules keep events out or flag them, whatever the source, shards and workers, and a replay changes no number.

Given known customers (a list), a bound and a required project
When events of all kinds are read, twice
Then what fails is in rejected_events and flagged_events, once, and everything else is billed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Pipeline, balance, event, truth

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
