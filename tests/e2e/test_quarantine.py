"""The way back of rejected events: fixed or acceptable by now, through the normal path, each of them once."""

import gzip
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from flow import faults
from flow.cli.app import make_app
from flow.errors import ConfigError, RefusedStart, TallyflowError
from flow.state.inbox import Inbox
from flow.store import connect

from .harness import Pipeline, balance, event, flat, lines, table, truth

WHO = ["--author", "Ann", "--reason", "ticket 7"]
LIMITS = {"quantity_max": 1000}


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """One whose store is open all the time, in this process: to open it takes longer than what is asked of it."""
    made = Pipeline(tmp_path / "pipeline")
    with connect(made.config().store):
        yield made


def tallyflow(pipeline: Pipeline, *words: str, **options: Any) -> Any:
    pipeline.config()
    arguments = ["rejected", *words, "-c", str(pipeline.config_path)]
    return CliRunner().invoke(make_app(["rejected"]), arguments, env={"COLUMNS": "300"}, **options)


def answer(pipeline: Pipeline, *words: str, **options: Any) -> Any:
    result = tallyflow(pipeline, *words, "--format", "json", **options)
    if result.exception is not None:
        raise result.exception
    return json.loads(result.output)


def statuses(pipeline: Pipeline) -> dict[str, str]:
    """Of each rejected event, by the end of its source position."""
    found = answer(pipeline, "list")["events"]
    return {event["source_position"].rpartition("/")[2]: event["status"] for event in found}


def test_from_the_first_look_to_the_last_event_that_counts(pipeline: Pipeline) -> None:
    # Given events without a customer, with too large a quantity, a row of a table, and pieces of nothing.
    good = event(0)
    nameless = [event(1, customer=""), event(2, customer="")]
    big, row = event(3, usage={"input_tokens": 5000}), event(4, usage={"input_tokens": 7000, "output_tokens": 1})
    broken = b'{"id": "\xff"}'
    pipeline.write("a.ndjson", [good, *nameless, big])
    with (pipeline.folder / "events" / "a.ndjson").open("ab") as file:
        file.write(broken + b"\n")
    pipeline.write("b.parquet", [row])
    (pipeline.folder / "events" / "c.ndjson.gz").write_bytes(gzip.compress(lines([event(5)] * 50))[:-40])
    first = pipeline.run(limits=LIMITS)
    assert first.balance["rejected"] == 6
    listed = answer(pipeline, "list")
    assert [(group["reason"], group["events"], group["can_go_back"]) for group in listed["reasons"]] == [
        ("MISSING_CUSTOMER", 2, 2),
        ("QUANTITY_TOO_LARGE", 2, 2),
        ("INVALID_UTF8", 1, 1),
        ("TRUNCATED_INPUT", 1, 1),
    ]
    assert set(statuses(pipeline).values()) == {"open"}
    position = next(found["source_position"] for found in listed["events"] if found["reason"] == "INVALID_UTF8")
    copy = pipeline.folder / "copy"
    assert tallyflow(pipeline, "show", position, "--out", str(copy)).exit_code == 0
    assert copy.read_bytes() == broken

    # When nothing is mended yet, then nothing goes back, and it is said why.
    dry = answer(pipeline, "redrive", "--dry-run")
    refused = {"MISSING_CUSTOMER": 2, "QUANTITY_TOO_LARGE": 2, "INVALID_UTF8": 1, "TRUNCATED_INPUT": 1}
    assert (dry["events"], dry["refused"]) == (0, refused)
    with pytest.raises(TallyflowError, match="nothing was fixed"):
        answer(pipeline, "fix", position, "--set", "customer=acme", *WHO)

    # When customers are named, one event is given anew, and the limit is raised.
    assert answer(pipeline, "fix", "--for", "MISSING_CUSTOMER", "--set", "customer=acme", *WHO)["events"] == 2
    whole = json.dumps(flat(event(6)), indent=2)
    assert answer(pipeline, "fix", position, "--with", "-", *WHO, input=whole)["events"] == 1
    dry = answer(pipeline, "redrive", "--dry-run")
    assert (dry["events"], dry["refused"]) == (3, {"QUANTITY_TOO_LARGE": 2, "TRUNCATED_INPUT": 1})
    pipeline.config(limits={})
    dry = answer(pipeline, "redrive", "--dry-run")
    assert (dry["events"], dry["refused"]) == (5, {"TRUNCATED_INPUT": 1})
    assert Inbox(pipeline.folder / "state").names() == []

    # Then all but the piece go back, once.
    done = answer(pipeline, "redrive", *WHO)
    assert (done["events"], len(done["files"])) == (5, 1)
    again = answer(pipeline, "redrive", *WHO)
    assert (again["events"], again["files"], again["back_before"]) == (0, [], {"waiting": 5})
    with pytest.raises(TallyflowError, match="nothing was fixed"):
        answer(pipeline, "fix", "--for", "TRUNCATED_INPUT", "--set", "customer=acme", *WHO)
    read = first.balance["accepted"]
    assert pipeline.run().balance["accepted"] == read + 5
    named = [one | {"customer": "acme"} for one in nameless]
    extra = [event(5)] if read > 1 else []
    assert pipeline.views() == truth([good, *named, big, row, event(6), *extra])
    assert sorted(statuses(pipeline).values()) == ["accepted"] * 5 + ["open"]
    shown = answer(pipeline, "show", position)
    assert [note["what"] for note in shown["notes"]] == ["fixed", "redriven"]
    assert (shown["status"], shown["payload_base64"] != "") == ("accepted", True)
    assert answer(pipeline, "redrive", *WHO)["back_before"] == {"accepted": 5}
    assert pipeline.rows("SELECT count(), uniqExact(source_position) FROM rejected_events") == [(6, 6)]


def test_what_came_another_way_meanwhile_counts_once_and_what_is_wrong_again_goes_on(pipeline: Pipeline) -> None:
    # Given two events that are acceptable by now; one comes again by itself, the other is made invalid again.
    big, bigger = (event(n, usage={"input_tokens": 5000 + n}) for n in (1, 2))
    pipeline.write("a.ndjson", [big, bigger])
    pipeline.run(limits=LIMITS)
    pipeline.config(limits={})
    answer(pipeline, "redrive", *WHO)
    pipeline.run(limits=LIMITS)
    assert statuses(pipeline) == {
        "a.ndjson:0": "rejected",
        f"a.ndjson:{len(lines([big]))}": "rejected",
        "000000000001-redrive.ndjson:0": "open",
        f"000000000001-redrive.ndjson:{len(lines([big]))}": "open",
    }
    pipeline.config(limits={})
    pipeline.write("b.ndjson", [big])
    pipeline.run()
    # When the new rows go back, then they are judged like all others.
    done = answer(pipeline, "redrive", "--at", "inbox/", *WHO)
    assert (done["events"], done["files"]) == (2, ["000000000002-redrive.ndjson"])
    outcome = pipeline.run()
    assert outcome.balance == balance(accepted=2, duplicate=1, rejected=4)
    assert sorted(statuses(pipeline).values()) == ["accepted", "duplicate", "rejected", "rejected"]
    assert pipeline.views() == truth([big, bigger])


def test_a_command_that_was_cut_short_is_finished_by_the_next(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = [event(n, usage={"input_tokens": 5000 + n}) for n in range(4)]
    pipeline.write("a.ndjson", events)
    pipeline.run(limits=LIMITS)
    pipeline.config(limits={})
    for at in faults.REDRIVE_POINTS:

        def crash(name: str, at: str = at) -> None:
            if name == at:
                raise TallyflowError(f"crashed at {at}")

        with monkeypatch.context() as patched:
            patched.setattr(faults, "on_point", crash)
            with pytest.raises(TallyflowError, match=f"crashed at {at}"):
                answer(pipeline, "redrive", "--limit", "2", *WHO)
        assert len(Inbox(pipeline.folder / "state").names()) == (at in ("redrive.put", "redrive.told"))
    done = answer(pipeline, "redrive", *WHO)
    assert (done["events"], sum(done["back_before"].values())) == (2, 2)
    assert pipeline.run().balance == balance(accepted=4, rejected=4)
    assert pipeline.views() == truth(events)
    assert set(statuses(pipeline).values()) == {"accepted"}
    assert not list((pipeline.folder / "state" / "redrives").glob("*.arrow"))


def test_a_table_with_a_column_of_the_wrong_type_comes_back_whole(pipeline: Pipeline) -> None:
    events = [event(n) for n in range(30)]
    wrong = table(events)
    at = wrong.schema.get_field_index("time")
    pq.write_table(
        wrong.set_column(at, "time", pa.array([one["time"].isoformat() for one in events])),
        pipeline.folder / "events" / "a.parquet",
    )
    assert pipeline.run().balance == balance(rejected=30)
    assert answer(pipeline, "redrive", "--text", "column TIME", *WHO)["events"] == 30
    assert pipeline.run().balance == balance(accepted=30, rejected=30)
    assert pipeline.views() == truth(events)


def test_what_cannot_be_done_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(RefusedStart, match="no run has begun there"):
        answer(pipeline, "redrive", "--dry-run")
    for words, said in (
        (["fix", "--set", "a=b"], "--author: is missing"),
        (["fix", "--set", "a=b", *WHO], "name an event by its source position"),
        (["fix", "x", *WHO], "give either --set"),
        (["fix", "x", "--set", "a", *WHO], "is not field=text"),
        (["fix", "x", "--set", "a:=b", *WHO], "is not JSON"),
        (["fix", "--for", "MISSING_ID", "--with", "f", *WHO], "is one event"),
        (["list", "--status", "lost", "--from", "today"], "'lost' is none of(.|\n)*--from: 'today'"),
        (["redrive"], "--author: is missing"),
    ):
        with pytest.raises(ConfigError, match=said):
            answer(pipeline, *words)
    pipeline.write("a.ndjson", [event(1)])
    pipeline.run()
    assert tallyflow(pipeline, "list").output == "Nothing was rejected.\n"
    with pytest.raises(ConfigError, match="no rejected event has this source position"):
        answer(pipeline, "show", "nowhere:1")
    assert answer(pipeline, "redrive", *WHO)["events"] == 0
