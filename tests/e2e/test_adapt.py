"""`tallyflow adapt`: payloads in, events out, and what is said about the rest."""

import gzip
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from flow.cli.app import make_app
from flow.errors import ConfigError

from .harness import Pipeline

USAGE = {"prompt_tokens": 1000, "completion_tokens": 500, "prompt_tokens_details": {"cached_tokens": 300}}
PRICES = """currency: USD
prices:
  - {meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "2"}
  - {meter: output_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "10"}
"""


def line(number: int, **usage: object) -> str:
    return json.dumps({"id": f"r{number}", "created": 1793534400, "model": "m", "usage": {**USAGE, **usage}})


def adapt(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(make_app(), ["adapt", *map(str, arguments)])
    failed = 0 if result.exception is None or isinstance(result.exception, SystemExit) else 1
    assert (result.exit_code or failed) == code, result.output
    return result


def test_payloads_are_billed(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path, prices=PRICES)
    pipeline.config()
    source = tmp_path / "responses.ndjson.gz"
    source.write_bytes(gzip.compress("\n".join([line(n) for n in range(3)] + [line(0), ""]).encode()))
    out = tmp_path / "events" / "adapted.ndjson"
    said = adapt(
        "openai/chat", source, "-o", out, "--set", "customer=acme", "--prices", tmp_path / "prices.yaml"
    ).stderr
    assert "4 events (4,000 input_tokens, 2,000 output_tokens)" in said
    pipeline.run()
    rows = pipeline.rows(
        "SELECT meter, toString(sum(quantity)), toString(sum(amount)) FROM usage_by_day"
        " WHERE customer = 'acme' GROUP BY meter ORDER BY meter"
    )
    assert rows == [("input_tokens", "3000", "0.006"), ("output_tokens", "1500", "0.015"), ("requests", "3", "0")]


def test_what_is_in_no_meter_is_said(tmp_path: Path) -> None:
    source, out = tmp_path / "p.ndjson", tmp_path / "e.parquet"
    source.write_text("\n".join([line(1), line(2, cache_read_input_tokens=7), line(3, cache_read_input_tokens=8)]))
    said = adapt("openai/chat", source, "-o", out, "--set", "customer=acme").stderr
    assert "usage.cache_read_input_tokens: 15 in 2 payloads: looks like a count, and no row reads it" in said
    assert "anthropic/default" in said  # that reads it
    events = pq.read_table(out)
    assert events["cached_input_tokens"].to_pylist() == [300, 300, 300]
    assert events["input_tokens"].to_pylist() == [700, 700, 700]
    assert str(events["time"][0]) == "2026-11-01 12:00:00+00:00"
    refused = adapt("openai/chat", source, "-o", out, "--set", "customer=acme", "--refuse-unknown", code=1)
    assert "2 of 3 payloads made no event" in str(refused.exception)
    assert pq.read_table(out).num_rows == 1


def test_bad_lines_are_named_and_kept(tmp_path: Path) -> None:
    source, out, aside = tmp_path / "p.ndjson", tmp_path / "e.ndjson", tmp_path / "rejected.ndjson"
    source.write_bytes(b"\n".join([line(1).encode(), b"{", b"[1]", b"\xff", line(5, prompt_tokens=-1).encode(), b""]))
    result = adapt("openai/chat", source, "-o", out, "--set", "customer=acme", "--rejected", aside, code=1)
    assert "4 of 5 payloads made no event" in str(result.exception)
    kept = [json.loads(text) for text in aside.read_text().splitlines()]
    assert [row["line"] for row in kept] == [2, 3, 4, 5]
    assert "usage.prompt_tokens is -1" in kept[3]["reason"]
    assert kept[0]["payload"] == "{"
    assert len(out.read_text().splitlines()) == 1


def test_a_bad_span_leaves_the_others(tmp_path: Path) -> None:
    source, out, aside = tmp_path / "spans.ndjson", tmp_path / "e.ndjson", tmp_path / "rejected.ndjson"

    def span(number: int, tokens: str) -> dict[str, object]:
        usage = [{"key": "gen_ai.usage.input_tokens", "value": {"intValue": tokens}}]
        customer = [{"key": "tenant", "value": {"stringValue": "acme"}}]
        fields = {"traceId": "0a", "spanId": f"0{number}", "startTimeUnixNano": "1793534400000000000"}
        return {**fields, "attributes": usage + customer}

    spans = [span(1, "10"), span(2, "-1"), span(3, "30")]
    source.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}))
    customer = ("--field", "customer=attributes.tenant")
    result = adapt("opentelemetry/spans", source, "-o", out, *customer, "--rejected", aside, code=1)
    assert "1 of 3 payloads made no event" in str(result.exception)
    events = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(event["id"], event["subject"]) for event in events] == [("0a-01", "acme"), ("0a-03", "acme")]
    assert json.loads(json.loads(aside.read_text())["payload"])["id"] == "0a-02"


def test_kinds_are_listed_and_wrong_use_is_told() -> None:
    assert "anthropic/default" in adapt("kinds").stdout.splitlines()
    for arguments in (["openai/chat"], ["openai/chat", "x", "-o", "e.ndjson", "--set", "customer"]):
        assert isinstance(adapt(*arguments, code=1).exception, ConfigError)


@pytest.mark.parametrize("path", ["missing.ndjson", "missing.ndjson.gz"])
def test_a_missing_file(tmp_path: Path, path: str) -> None:
    result = adapt("openai/chat", tmp_path / path, "-o", tmp_path / "e.ndjson", code=1)
    assert "No such file" in str(result.exception)
