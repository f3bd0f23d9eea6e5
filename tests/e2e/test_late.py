"""Late events: looked up in the ledger, and billed once if they were never counted."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flow.amending.resolving import Asked, resolve
from flow.cli.app import make_app
from flow.errors import ConfigError, StateError
from flow.faults import LATE_POINTS
from flow.rerate.asked import Scope
from flow.rerate.rerating import Asked as Rerated
from flow.rerate.rerating import Source, rerate
from flow.start import open_store
from flow.state.inbox import Inbox
from flow.store.queries.late import Filter
from flow.store.queries.waiting import late_waiting
from flow.verify import verify

from .harness import PRICES, Event, Pipeline, balance, event, truth

NINE = datetime(2026, 3, 1, 9, tzinfo=UTC)
FIRST = [event(n, NINE + timedelta(hours=3 * n)) for n in range(3)]
"""Behind the last of them, the horizon has passed the first, which is forgotten."""
AGAIN = FIRST[0]
OTHER = FIRST[0] | {"usage": {"input_tokens": 1}}
NEW = event(7, NINE + timedelta(minutes=1), usage={"input_tokens": 1_000_000, "output_tokens": 3})
MORE = event(8, NINE + timedelta(minutes=2), customer="zeta", usage={"images": 2})
LATE = [AGAIN, OTHER, NEW, MORE, MORE]
DECISIONS = ["duplicate", "conflicting", "billed", "billed", "duplicate"]
NOW_US = 1_800_000_000_000_000


@pytest.fixture
def waiting(pipeline: Pipeline) -> Pipeline:
    """A pipeline in which five events were late."""
    pipeline.write("1.ndjson", FIRST)
    pipeline.run(shards=1, dedup={"horizon": "1h"})
    pipeline.write("2.ndjson", LATE)
    assert pipeline.run().balance == balance(accepted=3, late=5)
    return pipeline


def asked(**changes: Any) -> Asked:
    return Asked(**{"filter": Filter(), "limit": 100, "author": "ana", "reason": "ticket 9"} | changes)


def decisions(pipeline: Pipeline) -> list[str]:
    app = make_app(["late", "sql"])
    done = CliRunner().invoke(app, ["late", "list", "-c", str(pipeline.config_path), "--format", "json"])
    assert done.exit_code == 0, done.output
    return [row["state"] for row in json.loads(done.stdout)]


def outstanding(pipeline: Pipeline) -> int:
    """Late events of acme that an estimate counts as in no amount yet."""
    with open_store(pipeline.config()) as client:
        return late_waiting(client, "acme", 0, 2**32 - 1).events.total()


def check_billed(pipeline: Pipeline) -> None:
    """Everything is counted once, in its own window, and `corrections` says what came late."""
    billed: list[Event] = [*FIRST, NEW, MORE]
    assert pipeline.views() == truth(billed)
    assert verify(pipeline.config()).difference_count == 0
    rows = pipeline.rows(
        "SELECT id, toString(window_start), meter, toString(quantity), toString(amount), kind, author, reason "
        "FROM corrections ORDER BY id, meter"
    )
    said = ("late", "ana", "ticket 9")
    assert rows == [
        (NEW["id"], "2026-03-01 09:01:00", "input_tokens", "1000000", "0.6", *said),
        (NEW["id"], "2026-03-01 09:01:00", "output_tokens", "3", "0.0000072", *said),
        (NEW["id"], "2026-03-01 09:01:00", "requests", "1", "0", *said),
        (MORE["id"], "2026-03-01 09:02:00", "images", "2", "0", *said),
        (MORE["id"], "2026-03-01 09:02:00", "requests", "1", "0", *said),
    ]


def test_row_17_what_was_never_counted_is_billed_once(waiting: Pipeline, tmp_path: Path) -> None:
    before = waiting.views()
    would = resolve(waiting.config(), asked(), NOW_US, dry=True)
    assert (decisions(waiting), waiting.views(), outstanding(waiting)) == (["waiting"] * 5, before, 3)
    done = resolve(waiting.config(), asked(), NOW_US)
    assert [one.decision for one in done.decided] == DECISIONS == [one.decision for one in would.decided]
    assert done.changes == would.changes
    assert json.loads(done.decided[1].counted)["usage"] == FIRST[0]["usage"]
    assert decisions(waiting) == DECISIONS
    assert resolve(waiting.config(), asked(), NOW_US).decided == []
    assert outstanding(waiting) == 1  # it is in the inbox
    assert waiting.run().balance == balance(accepted=5, late=5)
    assert outstanding(waiting) == 0
    check_billed(waiting)
    told = {(row.customer, row.id, row.meter): row.quantity for row in done.changes}
    billed = waiting.rows("SELECT customer, id, meter, quantity FROM corrections")
    assert told == {(customer, id_, meter): quantity for customer, id_, meter, quantity in billed}
    waiting.write("3.ndjson", [NEW])  # it is remembered now
    assert waiting.run().balance == balance(accepted=5, duplicate=1, late=5)

    replayed = Pipeline(tmp_path / "replayed")
    source = {"kind": "ledger", "path": str(waiting.folder / "ledger")}
    assert replayed.run(source=source, shards=1, dedup={"horizon": "1h"}).balance == balance(accepted=5)
    check_billed(replayed)
    assert replayed.views() == waiting.views()

    dearer = PRICES.replace('"0.60"', '"0.70"').replace("per: 1_000_000", "per: 3_000_000")
    on_the_minute = PRICES.replace("12:00:30Z", "12:01:00Z")
    for book, source in ((dearer, Source.LEDGER), (on_the_minute, Source.ROLLUPS)):
        (replayed.folder / "next.yaml").write_text(book)
        of_all = Scope(0, 86_400_000_000 * 30_000)
        rerate(replayed.config(), Rerated(of_all, replayed.folder / "next.yaml", "ana", "ticket 10", source))
        assert replayed.views() == truth([*FIRST, NEW, MORE], book)


class Ended(BaseException):
    """What a point raises."""


def test_a_command_that_is_cut_short_is_done_by_the_next(waiting: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends at one point after the other, and each time the next one begins where it was."""
    for where in LATE_POINTS:

        def end(name: str, where: str = where) -> None:
            if name == where:
                raise Ended

        with monkeypatch.context() as patch, pytest.raises(Ended):
            patch.setattr("flow.faults.on_point", end)
            resolve(waiting.config(), asked(), NOW_US)
    resolve(waiting.config(), asked(), NOW_US)
    assert decisions(waiting) == DECISIONS
    assert len(Inbox(waiting.folder / "state").names()) == 1
    assert waiting.run().balance == balance(accepted=5, late=5)
    check_billed(waiting)


def test_without_a_ledger_somebody_decides(waiting: Pipeline) -> None:
    with pytest.raises(ConfigError, match="the ledger knows whether an event was counted"):
        resolve(waiting.config(), asked(forced="billed"), NOW_US)
    del waiting.settings["ledger"]
    with pytest.raises(ConfigError) as refused:
        resolve(waiting.config(), asked(reason=""), NOW_US)
    assert [line.partition(":")[0] for line in refused.value.errors] == ["--reason"]
    resolve(waiting.config(), asked(filter=Filter(customers=("acme",)), forced="duplicate"), NOW_US)
    assert decisions(waiting) == ["duplicate", "conflicting", "duplicate", "waiting", "waiting"]
    done = resolve(waiting.config(), asked(forced="billed"), NOW_US)
    assert [(one.event.id, one.decision) for one in done.decided] == [(MORE["id"], "billed"), (MORE["id"], "duplicate")]


def odds(pipeline: Pipeline) -> tuple[list[tuple[str, str, int]], str]:
    """Of each late event that waits: its id, whether it was billed before, and how often that is wrong; the table."""
    command = ["late", "list", "-c", str(pipeline.config_path), "--odds"]
    app = make_app(["late", "sql"])
    plain = CliRunner().invoke(app, [*command, "--format", "json"])
    table = CliRunner().invoke(app, command)
    assert (plain.exit_code, table.exit_code) == (0, 0), (plain.exception, table.exception)
    rows = [row for row in json.loads(plain.stdout) if "billed_before" in row]
    return [(row["id"], row["billed_before"], row["mistaken_per_million"]) for row in rows], table.stdout


def test_without_a_ledger_what_no_filter_has_is_billed(waiting: Pipeline) -> None:
    """Given a job without a ledger, then what was never billed is told from what perhaps was, and is billed; the rest
    waits for a person."""
    del waiting.settings["ledger"]
    waiting.config()
    told, table = odds(waiting)
    ids = [AGAIN["id"], OTHER["id"], NEW["id"], MORE["id"], MORE["id"]]
    assert told == [(id_, before, 10) for id_, before in zip(ids, ["likely"] * 2 + ["never"] * 3, strict=True)]
    assert "likely" in table and "never" in table and "at most 10 are told" in table
    app = make_app(["late", "sql"])
    resolving = ["late", "resolve", "-c", str(waiting.config_path), "--author", "ana", "--reason", "ticket 9"]
    done = CliRunner().invoke(app, resolving)
    assert done.exit_code == 0, done.output
    assert "2 may have been billed before" in done.stdout and "2 are billed" in done.stdout
    assert decisions(waiting) == ["waiting", "waiting", "billed", "billed", "duplicate"]
    assert [row[:2] for row in odds(waiting)[0]] == [(AGAIN["id"], "likely"), (OTHER["id"], "likely")]
    for limit, said in ((2, True), (3, False)):
        done = CliRunner().invoke(app, [*resolving, "--limit", str(limit)])
        assert ("2 were looked at, as many as --limit allows" in done.stdout) is said
    again = resolve(waiting.config(), asked(), NOW_US)
    assert (again.decided, again.left) == ([], 2)
    assert waiting.run().balance == balance(accepted=5, late=5)
    assert waiting.views() == truth([*FIRST, NEW, MORE])
    resolve(waiting.config(), asked(forced="duplicate"), NOW_US)
    assert decisions(waiting) == ["duplicate", "conflicting", "billed", "billed", "duplicate"]


def test_what_filters_cannot_know_is_unknown(waiting: Pipeline) -> None:
    """Given a generation that left no filter, then nothing is certain, and nothing is billed without a person."""
    del waiting.settings["ledger"]
    (only,) = (waiting.folder / "state").rglob("retired-*.bloom")
    only.unlink()
    assert {row[1:] for row in odds(waiting)[0]} == {("unknown", 0)}
    outcome = resolve(waiting.config(), asked(), NOW_US)
    assert (outcome.decided, outcome.left) == ([], 5)
    only.write_bytes(b"")
    with pytest.raises(StateError, match=r"retired-00000001-.*bloom: damaged \(checksum\); restore it"):
        resolve(waiting.config(), asked(), NOW_US)
