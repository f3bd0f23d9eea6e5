"""Providers' usage reports: what they count, and that one in another unit, zone or size of bucket is refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from flow.errors import ConfigError
from flow.reconcile.provider import UsageReport
from flow.reconcile.provider_csv import read_csv
from flow.reconcile.provider_json import is_usage_page, read_pages
from flow.reconcile.provider_mapping import ReportMapping, read_mapping

DAY_S = 86_400
START_S = 1_793_491_200  # 2026-11-01T00:00:00Z


def openai(*results: dict[str, Any], day: int = 0, **changes: Any) -> dict[str, Any]:
    bucket = {"object": "bucket", "start_time": START_S + day * DAY_S, "end_time": START_S + (day + 1) * DAY_S}
    return bucket | {"results": list(results)} | changes


def completions(**changes: Any) -> dict[str, Any]:
    """A result as the API gives it, grouped by model and project."""
    made = {
        "object": "organization.usage.completions.result",
        "input_tokens": 1000,
        "input_cached_tokens": 300,
        "input_uncached_tokens": 700,
        "output_tokens": 50,
        "input_audio_tokens": 0,
        "num_model_requests": 7,
        "project_id": "proj_1",
        "user_id": None,
        "model": "gpt-x-2026-01-01",
        "batch": None,
    }
    return made | changes


def anthropic(*results: dict[str, Any], **changes: Any) -> dict[str, Any]:
    bucket = {"starting_at": "2026-11-01T00:00:00Z", "ending_at": "2026-11-02T00:00:00Z"}
    return bucket | {"results": list(results)} | changes


MESSAGES = {
    "uncached_input_tokens": 1500,
    "cache_creation": {"ephemeral_1h_input_tokens": 1000, "ephemeral_5m_input_tokens": 500},
    "cache_read_input_tokens": 200,
    "output_tokens": 90,
    "server_tool_use": {"web_search_requests": 10},
    "model": "claude-y",
    "workspace_id": None,
    "service_tier": "standard",
    "context_window": "0-200k",
}


def read(folder: Path, *buckets: dict[str, Any], mapping: ReportMapping | None = None, **page: Any) -> UsageReport:
    path = folder / "usage.json"
    path.write_text(json.dumps({"object": "page", "data": buckets, "has_more": False, "next_page": None} | page))
    assert is_usage_page(path)
    return read_pages([path], mapping or ReportMapping())


def refusal(folder: Path, *buckets: dict[str, Any], **page: Any) -> str:
    with pytest.raises(ConfigError) as refused:
        read(folder, *buckets, **page)
    return str(refused.value)


def test_openai_usage_in_disjoint_meters(tmp_path: Path) -> None:
    mapping = ReportMapping(
        models={"gpt-x-2026-01-01": "gpt-x"}, customers={"proj_1": "acme"}, customer_field="project_id"
    )
    report = read(tmp_path, openai(completions()), openai(day=1), mapping=mapping)
    assert (report.grain, report.from_s, report.before_s) == ("day", START_S, START_S + 2 * DAY_S)
    [row] = report.rows
    assert (row.customer, row.model) == ("acme", "gpt-x")
    assert row.meters() == {"input_tokens": 700, "cached_input_tokens": 300, "output_tokens": 50, "requests": 7}
    assert report.told() == {"input_tokens", "cached_input_tokens", "output_tokens", "requests"}
    assert report.tells_customers and report.tells_models


def test_anthropic_usage_in_disjoint_meters(tmp_path: Path) -> None:
    report = read(tmp_path, anthropic(MESSAGES))
    assert report.rows[0].meters() == {
        "input_tokens": 1500,
        "cached_input_tokens": 200,
        "cache_write_tokens": 500,
        "cache_write_1h_tokens": 1000,
        "output_tokens": 90,
        "web_search_requests": 10,
    }
    hour = anthropic(MESSAGES, ending_at="2026-11-01T01:00:00+00:00")
    assert read(tmp_path, hour).grain == "hour"


def test_pages_one_a_line_and_as_a_list(tmp_path: Path) -> None:
    pages = [{"data": [openai(completions(), day=day)], "has_more": day == 0} for day in (0, 1)]
    for name, text in (("a.json", "\n".join(map(json.dumps, pages))), ("b.json", json.dumps(pages))):
        (tmp_path / name).write_text(text)
        assert len(read_pages([tmp_path / name], ReportMapping()).rows) == 2


@pytest.mark.parametrize(
    ("buckets", "page", "said"),
    [
        ([openai(completions())], {"has_more": True}, "has_more: true; expected all pages"),
        ([], {}, "no bucket"),
        ([openai(completions()), openai()], {}, "the same bucket as data[0]; expected each bucket once"),
        ([openai(), openai(day=2)], {}, "a gap before this bucket"),
        ([openai(start_time=START_S + 25_200, end_time=START_S + 111_600)], {}, "begins at 07:00:00 UTC; expected"),
        ([openai(end_time=START_S + 7 * DAY_S)], {}, "a bucket of 604,800 s; expected buckets of 1m, 1h or 1d"),
        ([openai(), openai(start_time=START_S + DAY_S, end_time=START_S + DAY_S + 3600)], {}, "all of one size"),
        ([openai(completions(input_tokens=1.5))], {}, "input_tokens: 1.5; expected a whole number"),
        ([openai(completions(output_tokens="50"))], {}, 'output_tokens: "50"; expected a whole number'),
        ([openai(completions(output_tokens=-1))], {}, "output_tokens: -1; expected"),
        ([openai(completions(input_cached_tokens=1001))], {}, "input_tokens comes to -1; expected parts"),
        ([openai(completions(holo_tokens=5))], {}, "holo_tokens: an unknown number, 5"),
        ([openai(completions(), completions(model=None))], {}, "some with a model and some without"),
        ([openai({"object": "organization.costs.result", "amount": {"value": 1}})], {}, "or a cost; expected usage"),
        ([openai({"object": "organization.usage.images.result", "images": 1})], {}, "expected usage in tokens"),
        ([openai(), anthropic(MESSAGES)], {}, "a bucket of Anthropic; expected the buckets of one provider"),
        ([anthropic(starting_at="2026-11-01T00:00:00-08:00")], {}, "the zone -08:00; expected UTC"),
        ([anthropic(starting_at="2026-11-01T00:00:00")], {}, "no zone; expected UTC"),
        ([anthropic(starting_at=None)], {}, "starting_at: null; expected a time"),
        ([anthropic({"output_tokens": 1})], {}, "no uncached_input_tokens"),
        ([{"start_time": START_S}], {}, "a bucket with `results`"),
    ],
)
def test_json_that_is_not_certain_is_refused(
    tmp_path: Path, buckets: list[dict[str, Any]], page: dict[str, Any], said: str
) -> None:
    assert said in refusal(tmp_path, *copy.deepcopy(buckets), **page)


def test_json_that_is_none(tmp_path: Path) -> None:
    for text, said in (("{", "not JSON"), ('{"data": [], "data": []}', "twice"), ("[3]", "an object with `data`")):
        (tmp_path / "usage.json").write_text(text)
        with pytest.raises(ConfigError, match=said):
            read_pages([tmp_path / "usage.json"], ReportMapping())


# ---- CSV ----------------------------------------------------------------------------------------------------------

MAPPING = """
columns: {start: date, model: model}
bucket: 1d
zone: UTC
unit: tokens
counts:
  prompt: input
  cached: cached_input
  completion: output
  written: [cache_write, input]
  pictures: =images
  n: requests
ignore: [price]
models: {x-2026: x}
"""
HEADER = "date,model,prompt,cached,completion,written,pictures,n,price"


def csv(folder: Path, *lines: str, mapping: str = MAPPING, header: str = HEADER) -> UsageReport:
    (folder / "mapping.yaml").write_text(mapping)
    (folder / "usage.csv").write_text("\n".join([header, *lines]) + "\n")
    return read_csv([folder / "usage.csv"], read_mapping(folder / "mapping.yaml"))


def test_csv_in_disjoint_meters(tmp_path: Path) -> None:
    report = csv(tmp_path, "2026-11-01,x-2026,1000,300,50,20,2,7,0.5", "2026-11-02T00:00:00Z,y,,,1,,,,")
    assert (report.grain, report.from_s, report.before_s) == ("day", START_S, START_S + 2 * DAY_S)
    assert [(row.model, row.start_s) for row in report.rows] == [("x", START_S), ("y", START_S + DAY_S)]
    assert report.rows[0].meters() == {
        "input_tokens": 700,
        "cached_input_tokens": 300,
        "cache_write_tokens": 20,
        "output_tokens": 50,
        "images": 2,
        "requests": 7,
    }
    assert report.tells_models and not report.tells_customers


LINE = "2026-11-01,x,1,0,0,0,0,1,"


@pytest.mark.parametrize(
    ("lines", "changes", "said"),
    [
        (["2026-11-01,x,12.5,0,0,0,0,1,"], {}, "line 2, prompt: '12.5'; expected a whole number of tokens"),
        (['2026-11-01,x,"12,500",0,0,0,0,1,'], {}, "'12,500'; expected a whole number"),
        (["2026-11-01,x,-1,0,0,0,0,1,"], {}, "'-1'; expected"),
        (["2026-11-01,x,1,2,0,0,0,1,"], {}, "input_tokens comes to -1"),
        (["2026-11-01T07:00:00Z,x,1,0,0,0,0,1,"], {}, "begins at 07:00:00 UTC; expected one that begins with its day"),
        (["2026-11-01T00:00:00-08:00,x,1,0,0,0,0,1,"], {}, "in another zone; expected buckets of UTC"),
        ([LINE], {"mapping": MAPPING.replace("zone: UTC", "")}, "names no zone; expected UTC"),
        ([LINE], {"mapping": MAPPING.replace("UTC", "Europe/Berlin")}, "found 'Europe/Berlin'; expected UTC"),
        ([LINE], {"mapping": MAPPING.replace("unit: tokens", "unit: thousands")}, "found 'thousands'; expected tokens"),
        ([LINE], {"mapping": MAPPING.replace("unit: tokens", "")}, "unit: is missing"),
        ([LINE], {"mapping": MAPPING.replace("bucket: 1d", "bucket: 15m")}, "found '15m'; expected 1m or 1h or 1d"),
        (
            [LINE, "2026-11-02,x,1,0,0,0,0,1,"],
            {"mapping": MAPPING.replace("bucket: 1d", "bucket: 1h")},
            "each begins with a day; expected buckets of one hour, as is said",
        ),
        ([LINE], {"header": HEADER.replace("prompt", "prompt_k")}, "no column prompt"),
        (
            [LINE],
            {"header": HEADER.replace("prompt", "prompt_k"), "mapping": MAPPING.replace("prompt:", "prompt_k:")},
            "column prompt_k, whose unit is 'k'; expected tokens",
        ),
        ([LINE], {"mapping": MAPPING.replace("[price]", "[]")}, "columns price; expected each in"),
        ([LINE], {"mapping": MAPPING.replace("cached_input", "cached_inputs")}, "did you mean cached_input?"),
        ([LINE, LINE], {}, "line 3: the same as line 2; expected each row once"),
        (["2026-11-01,x"], {}, "2 fields; expected 9"),
        (["soon,x,1,0,0,0,0,1,"], {}, "'soon'; expected a date"),
        ([], {}, "none; expected at least one"),
    ],
)
def test_csv_that_is_not_certain_is_refused(
    tmp_path: Path, lines: list[str], changes: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        csv(tmp_path, *lines, **changes)
    assert said in str(refused.value)


def test_a_csv_needs_a_mapping(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --mapping"):
        read_csv([tmp_path / "usage.csv"], ReportMapping())


def test_all_errors_of_a_mapping_at_once(tmp_path: Path) -> None:
    (tmp_path / "mapping.yaml").write_text("column: {}\ncounts: {a: inputt, b: {}}\nignore: x\nmodels: [a]\n")
    with pytest.raises(ConfigError) as refused:
        read_mapping(tmp_path / "mapping.yaml")
    assert len(refused.value.errors) == 8
