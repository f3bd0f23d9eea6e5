"""Conflicting events beside what was counted: the fields that differ, in the end and by source."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.errors import ConfigError

from .harness import Pipeline, event, lines


def tallyflow(pipeline: Pipeline, *words: str) -> str:
    pipeline.config()
    arguments = ["conflicts", *words, "-c", str(pipeline.config_path)]
    result = CliRunner().invoke(make_app(["conflicts"]), arguments, env={"COLUMNS": "300"})
    if result.exception is not None:
        raise result.exception
    return result.stdout


def answer(pipeline: Pipeline, *words: str) -> Any:
    return json.loads(tallyflow(pipeline, *words, "--format", "json"))


COUNTED = [event(n) for n in range(4)]
CAME = [
    event(0, usage={"input_tokens": 900, "output_tokens": 96}),
    event(1, "2026-03-01T12:30:00Z", customer="other", usage={"input_tokens": 900, "images": 2}),
    event(1, customer="third"),
    event(2, source="gateway/us", region=""),
]
FIRST_OF_US = event(2, source="gateway/us")


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    made = Pipeline(tmp_path_factory.mktemp("conflicts"))
    made.write("1.ndjson", [*COUNTED, FIRST_OF_US])
    made.write("2.ndjson", CAME)
    assert made.run().balance["conflicting"] == 4
    return made


def position(pipeline: Pipeline, number: int) -> str:
    return f"{pipeline.folder}/events/2.ndjson:{len(lines(CAME[:number]))}"


def test_each_conflict_says_what_differs_from_what_was_counted(pipeline: Pipeline) -> None:
    found = {conflict["source_position"]: conflict for conflict in answer(pipeline, "list")}
    expected = [
        [("usage.output_tokens", "95", "96")],
        [
            ("time", "2026-03-01T12:00:00Z", "2026-03-01T12:30:00Z"),
            ("customer", "acme", "other"),
            ("usage.output_tokens", "95", None),
            ("usage.images", None, "2"),
        ],
        [("customer", "acme", "third")],
        [("region", "eu-west-1", "")],
    ]
    for number, differences in enumerate(expected):
        conflict = found[position(pipeline, number)]
        told = [(one["field"], one["counted"], one["came"]) for one in conflict["differs"]]
        assert told == differences
        assert (conflict["source"], conflict["id"]) == (CAME[number]["source"], CAME[number]["id"])
        assert conflict["counted"]["source_position"].startswith(f"{pipeline.folder}/events/1.ndjson:")
        assert conflict["came"]["customer"] == CAME[number]["customer"]
    assert [row["id"] for row in answer(pipeline, "list", "--source", "gateway/us")] == ["event-00000002"]
    assert len(answer(pipeline, "list", "--limit", "2")) == 2
    assert answer(pipeline, "list", "--at", "elsewhere") == []
    assert answer(pipeline, "show", position(pipeline, 2)) == found[position(pipeline, 2)]
    csv = tallyflow(pipeline, "list", "--format", "csv", "--source", "gateway/us").splitlines()
    assert csv[0] == "seen_at,source_position,source,id,counted_position,differs"
    assert csv[1].endswith(",region")


def test_the_report_by_source_counts_events_and_fields(pipeline: Pipeline) -> None:
    eu, us = answer(pipeline, "list", "--by", "source")
    assert (eu["source"], eu["events"], eu["identities"], eu["compared"]) == ("gateway/eu-1", 3, 2, 3)
    assert eu["differs"] == {"customer": 2, "usage.output_tokens": 2, "time": 1, "usage.images": 1}
    assert (us["source"], us["events"], us["differs"]) == ("gateway/us", 1, {"region": 1})
    assert eu["first_seen"] <= eu["last_seen"]
    assert "customer 2, usage.output_tokens 2" in tallyflow(pipeline, "list", "--by", "source")


def test_tables_show_the_two_beside_each_other(pipeline: Pipeline) -> None:
    shown = tallyflow(pipeline, "show", position(pipeline, 1))
    assert "counted once, as it came from" in shown
    assert [line.split("│")[1:-1] for line in shown.splitlines() if "customer" in line] == [
        [" ! ", f" {'customer':19} ", f" {'acme':20} ", f" {'other':20} "]
    ]
    assert "usage.output_tokens" in tallyflow(pipeline, "list")
    with pytest.raises(ConfigError, match="no conflicting event has this source position"):
        tallyflow(pipeline, "show", "nowhere:1")
    with pytest.raises(ConfigError, match="--from: 'today'"):
        tallyflow(pipeline, "list", "--from", "today")


def test_without_a_ledger_it_is_said(pipeline: Pipeline, tmp_path: Path) -> None:
    without = pipeline.folder / "without.yaml"
    without.write_text(pipeline.config_path.read_text().replace("ledger: ledger\n", ""))
    for words in (["list"], ["list", "--by", "source"]):
        result = CliRunner().invoke(
            make_app(["conflicts"]), ["conflicts", *words, "--format", "json", "-c", str(without)]
        )
        assert "No ledger is kept" in result.stderr
        found = json.loads(result.stdout)
        assert all(row.get("counted") is None and not row["differs"] for row in found)
        assert found
    empty = pipeline.folder / "empty.yaml"
    empty.write_text(pipeline.config_path.read_text().replace("ledger: ledger\n", f"ledger: {tmp_path}\n"))
    shown = CliRunner().invoke(
        make_app(["conflicts"]), ["conflicts", "show", position(pipeline, 1), "-c", str(empty)], env={"COLUMNS": "300"}
    )
    assert "the ledger does not have it" in shown.stdout
