"""Bad configs and inputs: all errors at once, or rejected rows and the run goes on."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from .harness import Pipeline, assert_refused, balance, event, lines, make_events, refusal, table, truth

EVENTS = make_events(300)


def test_all_errors_of_a_config_at_once(pipeline: Pipeline) -> None:
    pipeline.settings |= {"epoch": "soon", "shards": 0, "stroe": "x", "dedup": {"horizon": "1 week"}}
    result = pipeline.command("run")
    assert result.returncode == 2
    said = result.stderr.strip().splitlines()
    assert len(said) == 4
    for line, key in zip(sorted(said), ("dedup.horizon", "epoch", "shards", "stroe"), strict=True):
        assert line.startswith(f"tallyflow: {pipeline.config_path}"), line
        assert key in "".join(said)


def test_no_file_and_files_that_cannot_be_read(pipeline: Pipeline) -> None:
    assert_refused(pipeline.command("run"), 1, str(pipeline.folder / "events"), "no such file", "source.path")
    for name, content in (("a.parquet", b"PAR1 not really"), ("b.arrow", b"ARROW1 no"), ("c.ndjson.gz", b"plain text")):
        path = pipeline.folder / "events" / name
        path.write_bytes(content)
        refusal(pipeline, 1, str(path))
        path.unlink()
    odd = pipeline.folder / "events" / "events.xml"
    odd.write_bytes(b"<x/>")
    refusal(pipeline, 1, str(odd), "set source.format")
    odd.unlink()
    pipeline.write("events.ndjson", EVENTS)
    assert pipeline.run().balance == balance(accepted=300)
    assert pipeline.views() == truth(EVENTS)


def test_row_11_a_line_of_100_megabytes_is_one_rejected_row(pipeline: Pipeline) -> None:
    huge = b'{"id":"' + b"x" * 100_000_000 + b'"}'
    path = pipeline.folder / "events" / "events.ndjson"
    path.write_bytes(lines(EVENTS[:100]) + huge + b"\n" + lines(EVENTS[100:]))
    assert pipeline.run().balance == balance(accepted=300, rejected=1)
    assert pipeline.views() == truth(EVENTS)
    ((position, reason, length, head),) = pipeline.rows(
        "SELECT source_position, reason, length(payload), substring(payload, 1, 9) FROM rejected_events"
    )
    assert (position, reason) == (f"{path}:{len(lines(EVENTS[:100]))}", "OVERSIZED")
    assert (length, head) == (len(huge), '{"id":"xx')


def test_a_truncated_gzip_gives_what_it_holds_and_one_rejected_row(pipeline: Pipeline) -> None:
    whole = gzip.compress(lines(EVENTS))
    cut = pipeline.folder / "events" / "cut.ndjson.gz"
    cut.write_bytes(whole[: len(whole) // 2])
    pipeline.write("good.ndjson", EVENTS[200:])
    outcome = pipeline.run()
    counts = outcome.balance
    assert counts["rejected"] == 1
    assert 100 < counts["accepted"] < 300
    ((reason, detail, payload),) = pipeline.rows("SELECT reason, detail, payload FROM rejected_events")
    assert reason == "TRUNCATED_INPUT"
    assert "gzip stream ends" in detail
    # The rest that could be unpacked is the beginning of a line that has no end.
    assert f"\n{payload}".encode() in b"\n" + lines(EVENTS)
    # Brought whole under another name, only what was missing is new.
    (pipeline.folder / "events" / "whole.ndjson.gz").write_bytes(whole)
    assert pipeline.run().balance["accepted"] == 300
    assert pipeline.views() == truth(EVENTS)


def test_row_12_drifting_columns_are_rejected_or_ignored_never_guessed(pipeline: Pipeline) -> None:
    good = table(EVENTS)
    drifts = {
        "a-float.parquet": good.set_column(
            good.schema.get_field_index("input_tokens"), "input_tokens", good["input_tokens"].cast(pa.float64())
        ),
        "b-without-id.parquet": good.drop_columns(["id"]),
        "c-naive-time.parquet": good.set_column(
            good.schema.get_field_index("time"), "time", good["time"].cast(pa.timestamp("us"))
        ),
    }
    for name, drifted in drifts.items():
        pq.write_table(drifted, pipeline.folder / "events" / name)
    widened = good.set_column(
        good.schema.get_field_index("output_tokens"), "output_tokens", good["output_tokens"].cast(pa.int32())
    )
    pq.write_table(widened.append_column("note", [["x"] * 300]), pipeline.folder / "events" / "d-fine.parquet")
    outcome = pipeline.run()
    assert outcome.balance == balance(accepted=300, rejected=900)
    assert outcome.unknown_fields > 0
    assert pipeline.views() == truth(EVENTS)
    reasons = dict(pipeline.rows("SELECT source_position, reason FROM rejected_events"))
    first = {Path(position.rpartition(":")[0]).name: reason for position, reason in reasons.items()}
    assert first == {
        "a-float.parquet": "SCHEMA_MISMATCH",
        "b-without-id.parquet": "MISSING_ID",
        "c-naive-time.parquet": "TIME_WITHOUT_OFFSET",
    }


def test_empty_files_are_no_events(pipeline: Pipeline) -> None:
    for name in ("a.ndjson", "b.ndjson.gz"):
        (pipeline.folder / "events" / name).write_bytes(b"" if name == "a.ndjson" else gzip.compress(b""))
    pq.write_table(table([event(1)]).slice(0, 0), pipeline.folder / "events" / "c.parquet")
    (pipeline.folder / "events" / "d.ndjson").write_bytes(b"\n\n  \n")
    outcome = pipeline.run()
    assert (outcome.read, outcome.balance) == (0, balance())
