"""Goal: a rule book is read whole or not at all, a running job takes over good versions only, and what is set aside
says which rule of which version it failed.

Method: small books; a watch whose files are rewritten between batches; the step on batches made by hand.
"""

import json
import logging
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from tests.oracle.batches import PlainEvent, event_batch, plain_event
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.errors import ConfigError, RejectReason, StateError
from flow.rules.book import RuleBook, load_rule_book, parse_rule_book
from flow.rules.checker import Checker
from flow.rules.examples import failed_examples
from flow.steps.batches import Decoded, Messages, Rejects
from flow.steps.check import check, check_accepted
from flow.steps.route import route
from flow.steps.watch_rules import RulesWatch, UsedRules, begin

SINCE = "since: 2026-01-01T00:00:00Z"
SINCE_US = 1_767_225_600_000_000
DAY_US = 86_400_000_000
KNOWN = f"""
  - id: known
    severity: reject
    {SINCE}
    known: {{customer: {{file: customers.txt}}}}
    examples: {{pass: [{{customer: acme}}], fail: [{{customer: nobody}}]}}
"""
LIMIT = f"""
  - id: limit
    severity: flag
    {SINCE}
    range: {{meter: a, max: 10}}
    examples: {{pass: [{{usage: {{a: 10}}}}], fail: [{{usage: {{a: 11}}}}]}}
"""
CLOCK = f"""
  - id: clock
    severity: reject
    {SINCE}
    clock: {{behind: 1d, ahead: 90s}}
    examples:
      pass: [{{read: 2026-01-02T00:00:00Z}}, {{read: 2025-12-31T23:58:30Z}}]
      fail: [{{read: 2026-01-02T00:00:00.000001Z}}, {{read: 2025-12-31T23:58:29Z}}]
"""


def book(rules: str, customers: bytes = b"acme\n", name: str = "") -> RuleBook:
    version = f"version: {{name: {name}, author: ana, reason: tests}}\n" if name else ""
    return parse_rule_book(f"{version}rules:{rules or ' []'}\n", "rules.yaml", lambda _: customers)


# ---- Reading ----


def test_every_error_of_a_book_is_told_with_its_line_and_its_mend(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("# nobody\n\n")
    (tmp_path / "latin.txt").write_bytes(b"M\xfcller\n")
    flag, none = f"severity: flag, {SINCE}", "examples: {}"
    text = f"""version: {{name: x}}
rules:
  - {{id: Bad Id, severity: warn, {SINCE}, required: [customers, project, project], examples: {{pass: [{{}}]}}}}
  - {{id: a, severity: flag, since: yesterday, known: {{customer: {{file: absent.txt}}}}, {none}}}
  - {{id: a, {flag}, until: 2025-01-01T00:00:00Z, known: {{customer: {{file: empty.txt}}}}, {none}}}
  - {{id: b, {flag}, known: {{customer: {{file: latin.txt}}, model: x}}, wher: 1, {none}}}
  - {{id: c, {flag}, where: {{model: 4, customer: "*"}}, range: {{meter: A, max: 1.5}}, {none}}}
  - {{id: d, {flag}, where: {{model: x}}, known: {{model: [x, y]}}, {none}}}
  - {{id: e, {flag}, range: {{meter: a}}, sum: {{meter: t}}, {none}}}
  - {{id: f, {flag}, range: {{meter: a, min: 2, max: 1}}, {none}}}
  - {{id: g, {flag}, speed: {{meters: [duration_ms]}}, {none}}}
  - {{id: h, {flag}, sum: {{meter: t, of: [t]}}, {none}}}
  - {{id: i, {flag}, clock: {{behind: soon}}, {none}}}
  - {{id: j, {flag}, clock: {{}}, {none}}}
  - {{id: k, {SINCE}, {none}}}
  - {{id: l, {flag}, range: {{meter: a, max: 1}}, examples: {{pass: [{{usage: {{a: 9223372036854775808}}}}]}}}}
  - text
"""
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(ConfigError) as refused:
        load_rule_book(tmp_path / "rules.yaml")
    said = [error.removeprefix(f"{tmp_path}/rules.yaml:") for error in refused.value.errors]
    assert [int(line.partition(":")[0]) for line in said] == sorted(int(line.partition(":")[0]) for line in said)
    for expected in [
        "1: version.author: is missing",
        "3: rules[0].id: 'Bad Id' is not an id",
        "3: rules[0].severity: 'warn' is neither reject nor flag",
        "3: rules[0].required[0]: 'customers' is none of source, customer,",
        "3: rules[0].required[2]: 'project' is none of",
        "4: rules[1].since: 'yesterday' is not an instant; write",
        "4: rules[1].known.customer.file: 'absent.txt' cannot be used: ",
        "5: rules[2].id: 'a' is the id of the rule in line 4 too",
        "5: rules[2].until: '2025-01-01T00:00:00Z' is not after `since`",
        "5: rules[2].known.customer.file: 'empty.txt' holds no value, so that every event would fail; write one a line",
        "6: rules[3].wher: unknown key; did you mean where?",
        "6: rules[3].known: names 2 columns; one a rule",
        "7: rules[4].where.model: '4' is not text; quote it",
        "7: rules[4].where.customer: '*' alone is everything",
        "7: rules[4].range.max: '1.5' is not a whole number",
        "7: rules[4].range.meter: 'A' is not a meter",
        "8: rules[5].where: a mapping cannot narrow model, which is what this rule is about",
        "9: rules[6]: has range and sum; a rule checks one thing",
        "10: rules[7].range.max: '1' is below `min`",
        "11: rules[8].speed.meters: a list names no meters, or duration_ms",
        "11: rules[8].speed.per_second_max: is missing",
        "12: rules[9].sum.of: a list names no meters, or the one that tells their sum",
        "13: rules[10].clock.behind: 'soon' is not a duration; write 90s",
        "14: rules[11].clock: has neither `behind` nor `ahead`",
        "15: rules[12]: needs one of known, required,",
        "16: rules[13].examples.fail: is missing; give an event that must fail",
        "16: rules[13].examples.pass[0].usage: a mapping holds a quantity above 2^63 - 1",
        "3: rules[0].examples.fail: is missing; give an event",
        "15: rules[12].severity: is missing",
        "17: rules[14]: a mapping of id, severity,",
    ]:
        assert any(line.startswith(expected) for line in said), (expected, said)


def test_a_list_that_is_not_text_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"is not UTF-8 text \(at byte 1\)"):
        book(KNOWN, b"M\xfcller")


def test_the_digest_is_of_the_text_and_its_lists() -> None:
    digests = {book(KNOWN).digest, book(KNOWN, b"acme\nb\n").digest, book(KNOWN + "# a remark\n").digest}
    assert len(digests) == 3 and book(KNOWN).digest in digests
    assert book(KNOWN, name="v7").label == f"rules v7 {book(KNOWN, name='v7').digest[:12]}"


def test_examples_that_do_not_come_out_are_told() -> None:
    assert failed_examples(book(KNOWN + LIMIT + CLOCK)) == []
    wrong = book(LIMIT.replace("a: 11", "a: 9").replace("a: 10}", "a: 12}") + KNOWN, b"acme\nnobody\n")
    assert [(one.rule, one.message) for one in failed_examples(wrong)] == [
        ("limit", "fails: a 12 is above 10"),
        ("limit", "passes, and must fail"),
        ("known", "passes, and must fail"),
    ]


def test_the_command(tmp_path: Path) -> None:
    (tmp_path / "rules.yaml").write_text(f"rules:{LIMIT}")
    (tmp_path / "wrong.yaml").write_text(f"rules:{LIMIT.replace('a: 11', 'a: 1')}")
    app, runner = make_app(["rules"]), CliRunner()
    done = runner.invoke(app, ["rules", "test", "--rules", str(tmp_path / "rules.yaml")])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "1 rules, 2 examples come out" in done.stderr
    failed = runner.invoke(app, ["rules", "test", "--rules", str(tmp_path / "wrong.yaml"), "--format", "json"])
    assert failed.exit_code == 3
    assert json.loads(failed.stdout) == [{"line": 6, "rule": "limit", "message": "passes, and must fail"}]


# ---- The step ----


def decoded(events: list[PlainEvent], messages: Messages | None = None) -> Decoded:
    rejects = Rejects("file")
    rejects.add(7, RejectReason.INVALID_JSON, "bad", b"bad")
    return Decoded("file", event_batch(events), rejects.batch(), len(events) + 1, 0, messages)


EVENTS = [
    plain_event(id=str(n), customer=customer, event_time_us=SINCE_US + n, usage=[("b", 1), ("a", quantity)])
    for n, (customer, quantity) in enumerate([("acme", 1), ("x", 1), ("acme", 11), ("x", 11), ("acme", 12)])
]


def test_rejected_events_leave_and_flags_follow_their_rows() -> None:
    of = book(KNOWN + LIMIT)
    found, counts = check(decoded(EVENTS), Checker(of.rules), of.label, 0)
    assert counts == {("known", "reject"): 2, ("limit", "flag"): 3}
    assert found.events.column("id").to_pylist() == ["0", "2", "4"]
    assert found.read == found.events.num_rows + found.rejected.num_rows
    first, one, both = found.rejected.to_pylist()
    assert (first["reason"], one["source_position"], both["source_position"]) == ("INVALID_JSON", "file:1", "file:3")
    assert (one["reason"], one["detail"]) == ("RULE", f"known: customer 'x' is not in customers.txt ({of.label})")
    assert json.loads(one["payload"])["usage"] == {"a": 1, "b": 1}
    assert found.flags is not None
    assert found.flags.select(["row", "rule", "detail"]).to_pylist() == [
        {"row": 1, "rule": "limit", "detail": f"a 11 is above 10 ({of.label})"},
        {"row": 2, "rule": "limit", "detail": f"a 12 is above 10 ({of.label})"},
    ]


def test_every_rule_that_rejects_is_named() -> None:
    of = book(KNOWN + LIMIT.replace("flag", "reject"))
    found, _ = check(decoded(EVENTS[3:4]), Checker(of.rules), of.label, 0)
    detail = found.rejected.column("detail")[1].as_py()
    assert detail == f"known: customer 'x' is not in customers.txt; limit: a 11 is above 10 ({of.label})"
    assert found.flags is None


def test_what_was_accepted_once_is_flagged_and_clocks_say_nothing_of_it() -> None:
    of = book(KNOWN + CLOCK)
    found, _ = check_accepted(decoded(EVENTS), Checker(of.rules), of.label)
    assert found.events.num_rows == 5 and found.rejected.num_rows == 1 and found.flags is not None
    assert found.flags.select(["row", "rule", "severity"]).to_pylist() == [
        {"row": row, "rule": "known", "severity": "reject"} for row in (1, 3)
    ]
    new, _ = check(decoded(EVENTS), Checker(of.rules), of.label, SINCE_US + DAY_US + 3)
    details = dict(zip(*(new.rejected.column(name).to_pylist() for name in ("source_position", "detail")), strict=True))
    assert details.keys() == {"file:7", "file:0", "file:1", "file:2", "file:3"}
    behind = "clock: time 2026-01-01T00:00:00Z is 1 day, 0:00:00.000003 behind the clock"
    assert details["file:0"] == f"{behind} ({of.label})"


def test_flags_reach_the_shard_of_their_event_however_it_is_sent() -> None:
    of = book(LIMIT)
    found, _ = check(decoded(EVENTS), Checker(of.rules), of.label, 0)
    told = []
    for routed in route(found, 4):
        sent = routed.compact()
        ids = sent.events.column("id").to_pylist()
        told += [ids[row] for row in (sent.flags.column("row").to_pylist() if sent.flags is not None else ())]
    assert sorted(told) == ["2", "3", "4"]


def test_a_message_is_named_as_the_place_of_a_rejected_event() -> None:
    of = book(KNOWN)
    messages = Messages(np.array([0, 3], np.int64), np.array([70, 71], np.int64))
    found, _ = check(decoded(EVENTS, messages), Checker(of.rules), of.label, 0)
    assert found.rejected.column("source_position").to_pylist()[1:] == ["file:70+1", "file:71"]


# ---- The watch ----


class Job:
    """A watched rule book with one list, and batches that are held to it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.file, self.list = folder, folder / "rules.yaml", folder / "customers.txt"
        self.used = UsedRules(folder / "state" / "rules")
        self.list.write_text("acme\n")
        self.write(KNOWN, "v1")
        begin(self.used, self.file)
        first = self.used.last()
        assert first is not None
        self.watch = RulesWatch(self.file, first, self.used)
        self.look()

    def write(self, rules: str, name: str = "") -> None:
        version = f"version: {{name: {name}, author: ana, reason: tests}}\n" if name else ""
        self.file.write_text(f"{version}rules:{rules}")

    def look(self) -> None:
        """Twice: what is being written is not read."""
        self.watch.look()
        self.watch.look()

    def accepted(self) -> list[str]:
        return list(self.watch.check(decoded(EVENTS), 0, accepted_before=False).events.column("id").to_pylist())


def test_a_good_version_is_taken_over_and_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    job = Job(tmp_path)
    assert job.accepted() == ["0", "2", "4"]
    job.write(LIMIT.replace("flag", "reject") + KNOWN.replace("reject", "flag"), "v2")
    job.watch.look()
    assert job.accepted() == ["0", "2", "4"], "it may still be written"
    job.watch.look()
    assert job.accepted() == ["0", "1"]
    assert "in use: rules v2 " in caplog.text and "new: limit; changed: known" in caplog.text
    assert [path.name[:7] for path in job.used.files()] == ["000001-", "000002-"]
    assert job.watch.failures == {("known", "reject"): 4, ("known", "flag"): 2, ("limit", "reject"): 3}


def test_what_a_killed_process_has_named_is_synced_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = Job(tmp_path)
    synced: list[Path] = []
    monkeypatch.setattr("flow.steps.watch_rules.settle", synced.append)
    begin(job.used, job.file)
    assert synced == [job.used.folder]
    job.write(KNOWN, "v2")  # with the same list, which is there already
    begin(job.used, job.file)
    assert synced[1:] == [job.used.folder / "lists"]


def test_a_list_is_read_again_and_kept_with_its_version(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.list.write_text("acme\nx\n")
    job.look()
    assert job.accepted() == ["0", "1", "2", "3", "4"]
    kept = job.used.last()
    assert kept is not None and kept.digest == job.watch.book.digest
    assert kept.lists == {"customers.txt": b"acme\nx\n"}
    assert len(list((tmp_path / "state" / "rules" / "lists").iterdir())) == 2


@pytest.mark.parametrize(
    ("rules", "name", "customers", "said"),
    [
        ("nonsense: [", "v2", "acme", "not YAML"),
        (KNOWN.replace("severity: reject", "severity: no"), "v2", "acme", "'no' is neither reject nor flag"),
        (KNOWN.replace("nobody", "acme"), "v2", "acme", "example of known: passes, and must fail"),
        (KNOWN, "v1", "ac\n", "example of known: fails: customer 'acme' is not in customers.txt"),
        (KNOWN, "v1", "", "holds no value"),
        (KNOWN + LIMIT, "v1", "acme", "another rule book was used under the name of version 'v1'"),
    ],
)
def test_a_bad_version_is_refused_loudly_and_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rules: str, name: str, customers: str, said: str
) -> None:
    job = Job(tmp_path)
    job.write(rules, name)
    job.list.write_text(customers)
    with caplog.at_level(logging.ERROR):
        job.look()
        job.look()
    assert said in caplog.text and caplog.text.count("stays in use") == 1
    assert (job.watch.refused, bool(job.watch.trouble)) == (1, True)
    assert job.accepted() == ["0", "2", "4"], "the last good one stays in use"
    with pytest.raises(ConfigError, match=re.escape(said)):
        begin(job.used, job.file)
    job.write(KNOWN, "v1")
    job.list.write_text("acme\n")
    job.look()
    assert (job.watch.refused, job.watch.trouble) == (1, [])


def test_a_list_that_was_missing_is_found_later(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.write(KNOWN.replace("customers.txt", "later.txt"), "v2")
    job.look()
    assert "later.txt: no such file" in job.watch.trouble[0]
    shutil.copy(job.list, tmp_path / "later.txt")
    job.look()
    assert job.watch.book.version is not None and job.watch.book.version.name == "v2"


def test_a_version_that_was_changed_or_lost_is_damage(tmp_path: Path) -> None:
    job = Job(tmp_path)
    (kept,) = job.used.files()
    (of_list,) = (tmp_path / "state" / "rules" / "lists").iterdir()
    of_list.write_text("acme\nx\n")
    with pytest.raises(StateError, match="was changed after it was used"):
        job.used.last()
    of_list.unlink()
    with pytest.raises(StateError, match="is damaged"):
        job.used.last()
    kept.write_text("rules: []")
    with pytest.raises(StateError, match="is damaged"):
        job.used.last()
