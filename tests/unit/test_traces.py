"""Each kind of trace on small files made here, and the writing of events."""

import gzip
import json
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from typer.testing import CliRunner

from flow.errors import ConfigError, SourceError, TallyflowError
from flow.traces import BASE_TIME, aider, azure, build_batch, columnar_schema, constant, mooncake, servegen
from flow.traces.write import SUFFIXES, json_lines, write_events


def rows_of(batches: Any) -> list[dict[str, Any]]:
    return [row for batch in batches for row in batch.to_pylist()]


def json_file(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


# ---- azure ----


def test_azure_times_are_cut_to_the_microsecond_and_rows_numbered(tmp_path: Path) -> None:
    path = tmp_path / "azure_llm_2023_code.csv.gz"
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:17:03.9799999,4808,10\r\n"
        "2023-11-16 18:17:04,3180,8\r\n"
        "2024-05-12 00:00:00.001163+00:00,2162,0\r\n"
    )
    path.write_bytes(gzip.compress(text.encode(), mtime=0))
    rows = rows_of(azure.events(path))
    assert [row["id"] for row in rows] == ["row-1", "row-2", "row-3"]
    assert [row["time"] for row in rows] == [
        datetime(2023, 11, 16, 18, 17, 3, 979999, tzinfo=UTC),
        datetime(2023, 11, 16, 18, 17, 4, tzinfo=UTC),
        datetime(2024, 5, 12, 0, 0, 0, 1163, tzinfo=UTC),
    ]
    assert [(row["input_tokens"], row["output_tokens"]) for row in rows] == [(4808, 10), (3180, 8), (2162, 0)]
    assert {(row["customer"], row["feature"], row["source"]) for row in rows} == {
        ("azure-code", "code", "azure/azure_llm_2023_code")
    }
    assert {row["customer"] for row in rows_of(azure.events(path, customer="acme"))} == {"acme"}


# ---- mooncake ----


def slow_cached_tokens(requests: list[dict[str, Any]]) -> list[int]:
    seen: set[int] = set()
    cached = []
    for request in requests:
        leading = 0
        while leading < len(request["hash_ids"]) and request["hash_ids"][leading] in seen:
            leading += 1
        cached.append(min(request["input_length"], 512 * leading))
        seen |= set(request["hash_ids"])
    return cached


def test_mooncake_reads_leading_blocks_from_the_cache(tmp_path: Path) -> None:
    requests = [
        {"timestamp": 0, "input_length": 1100, "output_length": 5, "hash_ids": [1, 2, 3]},
        {"timestamp": 1, "input_length": 1400, "output_length": 0, "hash_ids": [1, 2, 9]},
        {"timestamp": 1500, "input_length": 1536, "output_length": 7, "hash_ids": [8, 1, 2]},
        {"timestamp": 60_000, "input_length": 1030, "output_length": 7, "hash_ids": [1, 2, 3]},
        {"timestamp": 60_001, "input_length": 10, "output_length": 1, "hash_ids": []},
    ]
    rows = rows_of(mooncake.events(json_file(tmp_path / "m.jsonl", *requests)))
    # The third misses at its first block, though it has cached ones; the fourth's last block is not full.
    assert [row["cached_input_tokens"] for row in rows] == [0, 1024, 0, 1030, 0] == slow_cached_tokens(requests)
    for row, request in zip(rows, requests, strict=True):
        assert row["cached_input_tokens"] + row["input_tokens"] == request["input_length"]
        assert (row["time"] - BASE_TIME).total_seconds() * 1000 == request["timestamp"]
    assert len({row["id"] for row in rows}) == len(rows)


# ---- aider ----


def test_aider_ids_are_the_given_ones_or_of_the_content(tmp_path: Path) -> None:
    event = {"time": 1723560043, "user": "u1", "model": "gpt-4o", "edit_format": "diff"}
    event |= {"prompt_tokens": 638, "completion_tokens": 25, "cost_usd": "0.0001"}
    lines = [{"id": "a1", **event}, {"id": "a2", **event}, {"id": "a3", **event, "user": None, "model": None}]
    path = json_file(tmp_path / "aider.jsonl", *lines)
    given = rows_of(aider.events(path))
    assert [row["id"] for row in given] == ["a1", "a2", "a3"]
    assert [(row["customer"], row["model"], row["feature"]) for row in given] == [
        ("u1", "gpt-4o", "diff"),
        ("u1", "gpt-4o", "diff"),
        ("anonymous", "", "diff"),
    ]
    assert given[0]["time"] == datetime(2024, 8, 13, 14, 40, 43, tzinfo=UTC)
    first, second, third = (row["id"] for row in rows_of(aider.events(path, ids="content")))
    assert first == second != third


# ---- servegen ----


def servegen_file(path: Path) -> Path:
    def arrivals(client: str, *rows: list[Any]) -> dict[str, Any]:
        columns = ["start_s", "requests", "cv", "pattern", "p1", "p2"]
        return {"client": client, "kind": "arrivals", "window_seconds": 600, "columns": columns, "rows": rows}

    def histogram(client: str, start_s: int, name: str, counts: list[list[Any]]) -> dict[str, Any]:
        same = {"client": client, "kind": "histogram", "window_start_s": start_s, "field": name}
        return {**same, "n": sum(count for _, count in counts), "counts": counts}

    a, b, c = "reason/r1/0", "reason/r1/1", "multimodal/mm/2"
    return json_file(
        path,
        arrivals(a, [600, 7, "1", "Gamma", "0.0000001", "1"], [1200, 300, "1", "Weibull", "0.5", "1"]),
        histogram(a, 1200, "input_tokens", [[2000, 3], [3000, 1]]),
        histogram(a, 1200, "output_tokens", [[167, 5]]),
        histogram(a, 1200, "reason_ratio", [["0.1497005988023952", 5]]),  # 25 of 167
        histogram(a, 0, "input_tokens", [[10, 1]]),
        histogram(a, 0, "output_tokens", [[20, 1]]),
        histogram(a, 0, "reason_ratio", [["1.0", 1]]),
        arrivals(b, [0, 5, "1", "Gamma", "2", "1"]),
        arrivals(c, [1200, 4, "1", "Gamma", "1.5", "1"]),
        histogram(c, 0, "text_tokens", [[11, 1]]),
        histogram(c, 0, "image_tokens", [[500, 2]]),
        histogram(c, 0, "output_tokens", [[5, 1]]),
        {
            "client": c,
            "kind": "histogram",
            "window_start_s": 1200,
            "field": "output_tokens",
            "n": None,
            "probabilities": [["6", "0.25"], ["7", "0.75"]],
        },
    )


def test_servegen_requests_are_the_published_ones_with_tokens_in_force(tmp_path: Path) -> None:
    rows = rows_of(servegen.events(servegen_file(tmp_path / "s.jsonl")))
    meters = ("input_tokens", "output_tokens", "reasoning_tokens", "image_tokens", "unmeasured_requests")
    found: dict[tuple[str, int], set[tuple[int | None, ...]]] = {}
    counts: dict[tuple[str, int], int] = {}
    for row in rows:
        window = (row["customer"], int((row["time"] - BASE_TIME).total_seconds()) // 600 * 600)
        found.setdefault(window, set()).add(tuple(row[meter] for meter in meters))
        counts[window] = counts.get(window, 0) + 1
    a, b, c = "reason/r1/0", "reason/r1/1", "multimodal/mm/2"
    assert counts == {(a, 600): 7, (a, 1200): 300, (b, 0): 5, (c, 1200): 4}
    assert found == {
        (a, 600): {(10, 0, 20, None, None)},
        (a, 1200): {(2000, 142, 25, None, None), (3000, 142, 25, None, None)},
        (b, 0): {(None, None, None, None, 1)},
        (c, 1200): {(11, 6, None, 500, None), (11, 7, None, 500, None)} & found[c, 1200],
    }
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
    assert len({row["id"] for row in rows}) == len(rows)
    assert {(row["project"], row["model"]) for row in rows} == {("reason", "r1"), ("multimodal", "mm")}


@pytest.mark.parametrize("scale", [Fraction(1, 1000), Fraction(1, 3), Fraction(7, 10), Fraction(3), Fraction(5, 2)])
def test_servegen_running_totals_are_rounded_at_any_scale(scale: Fraction) -> None:
    requests = [1, 1, 1, 5, 0, 12, 10**15, 7]
    client = servegen.Client("c", 600, list(range(0, 4800, 600)), requests, [False] * 8, [1.0] * 8)
    scaled = servegen.scaled_requests(client, scale)
    for n in range(1, 9):
        assert abs(sum(scaled[:n]) - sum(requests[:n]) * scale) <= Fraction(1, 2)
    assert min(scaled) >= 0


def test_servegen_batches_do_not_change_the_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = servegen_file(tmp_path / "s.jsonl")
    drawn, published = rows_of(servegen.events(path)), rows_of(servegen.totals(path))
    monkeypatch.setattr(servegen, "BATCH_ROWS", 7)
    assert {batch.num_rows for batch in servegen.events(path)} == {7, len(drawn) % 7}
    assert rows_of(servegen.events(path)) == drawn
    assert rows_of(servegen.totals(path)) == published


def test_servegen_totals_are_the_published_numbers(tmp_path: Path) -> None:
    rows = rows_of(servegen.totals(servegen_file(tmp_path / "s.jsonl")))
    sums: dict[str, int] = {}
    for row in rows:
        for name, value in row.items():
            if isinstance(value, int):
                sums[name] = sums.get(name, 0) + value
    assert sums == {
        "published_requests": 316,
        "image_tokens": 1000,
        "input_tokens": 9010,
        "output_tokens": 5 * 167 + 20 + 5,
        "text_tokens": 11,
        "samples_image_tokens": 2,
        "samples_input_tokens": 5,
        "samples_output_tokens": 7,
        "samples_reason_ratio": 6,
        "samples_text_tokens": 1,
        "histograms_kept_as_probabilities": 1,
    }
    assert len({row["id"] for row in rows}) == len(rows)
    assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)


@pytest.mark.parametrize("text", ["0", "-1", "a", "1/0", ""])
def test_a_scale_must_be_above_zero(text: str) -> None:
    with pytest.raises(ConfigError, match="--scale"):
        servegen.parse_scale(text)


# ---- what cannot be read ----


@pytest.mark.parametrize("kind", [azure, mooncake, aider, servegen])
@pytest.mark.parametrize("content", [b"what,is\r\nthis,1\r\n", b"[1]\n", b'{"timestamp": 1}\n', b"\xff\xfe\n"])
def test_another_form_is_one_clear_error(kind: Any, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.txt"
    path.write_bytes(content)
    with pytest.raises(SourceError, match=r"odd\.txt"):
        rows_of(kind.events(path))


@pytest.mark.parametrize("kind", [azure, mooncake, aider, servegen])
def test_a_missing_or_cut_file_is_one_clear_error(kind: Any, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="none"):
        rows_of(kind.events(tmp_path / "none.csv"))
    cut = tmp_path / "cut.gz"
    noise = np.random.Generator(np.random.PCG64(1)).bytes(5000).hex().encode()
    cut.write_bytes(gzip.compress(b"TIMESTAMP,ContextTokens,GeneratedTokens\n" + noise)[:-100])
    with pytest.raises(SourceError, match=r"cut\.gz"):
        rows_of(kind.events(cut))


# ---- writing ----


def odd_events() -> pa.RecordBatch:
    """Two events: one with all that JSON must escape, one that is bad in every way a column can express."""
    schema = columnar_schema(["input_tokens", "output_tokens"])
    columns = {
        "id": pa.array(['"quoted"\\ \n\u2028é', ""]),
        "source": constant("a/b", 2),
        "time": pa.array([1_700_000_000_000_001, -1], pa.timestamp("us", tz="UTC")),
        "customer": pa.array(["ac\tme", ""]).dictionary_encode(),
        "input_tokens": pa.array([2**63 - 1, None], pa.int64()),
        "output_tokens": pa.array([-5, None], pa.int64()),
    }
    return build_batch(schema, 2, columns)


def test_json_lines_are_cloudevents() -> None:
    first, second = (json.loads(line) for line in bytes(json_lines(odd_events())).splitlines())
    dimensions = {"project": "", "feature": "", "model": "", "region": "", "service_tier": ""}
    assert first == {
        "specversion": "1.0",
        "id": '"quoted"\\ \n\u2028é',
        "source": "a/b",
        "type": "llm.usage",
        "time": "2023-11-14T22:13:20.000001Z",
        "subject": "ac\tme",
        "data": {**dimensions, "usage": {"input_tokens": 2**63 - 1, "output_tokens": -5}},
    }
    assert second["time"] == "1969-12-31T23:59:59.999999Z"
    assert (second["id"], second["data"]["usage"]) == ("", {})
    assert bytes(json_lines(odd_events().slice(1))).count(b"\n") == 1


def read_back(path: Path) -> pa.Table:
    if path.suffix == ".parquet":
        return pa.parquet.read_table(path)
    with pa.ipc.open_file(path) as reader:
        return reader.read_all()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_form_holds_the_same_events_and_the_same_bytes_each_time(suffix: str, tmp_path: Path) -> None:
    path = servegen_file(tmp_path / "s.jsonl")
    events = pa.Table.from_batches(servegen.events(path))
    out, again = tmp_path / f"out{suffix}", tmp_path / f"again{suffix}"
    written = write_events(events.to_batches(100), out)
    write_events(events.to_batches(100), again)
    assert out.read_bytes() == again.read_bytes()
    assert (written.events, written.quantities["unmeasured_requests"]) == (events.num_rows, 5)
    if ".ndjson" in suffix:
        raw = out.read_bytes()
        lines = (gzip.decompress(raw) if suffix.endswith(".gz") else raw).splitlines()
        assert [json.loads(line)["id"] for line in lines] == events["id"].to_pylist()
    else:
        assert read_back(out).cast(events.schema).equals(events)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([out.name, again.name, path.name])


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    def failing() -> Any:
        yield odd_events()
        raise SourceError("the source broke")

    out = tmp_path / "out.parquet"
    out.write_bytes(b"what was there before")
    with pytest.raises(SourceError):
        write_events(failing(), out)
    assert [file.name for file in tmp_path.iterdir()] == ["out.parquet"]
    assert out.read_bytes() == b"what was there before"
    with pytest.raises(ConfigError, match=r"\.ndjson\.gz"):
        write_events([odd_events()], tmp_path / "out.csv")
    with pytest.raises(TallyflowError, match="cannot write"):
        write_events([odd_events()], tmp_path / "no" / "out.arrow")
    with pytest.raises(TallyflowError, match="no event"):
        write_events([], tmp_path / "empty.arrow")
    assert write_events([], tmp_path / "empty.ndjson").events == 0


def test_sums_past_64_bits_are_told(tmp_path: Path) -> None:
    written = write_events([odd_events(), odd_events()], tmp_path / "out.arrow")
    assert written.quantities == {"input_tokens": 2 * (2**63 - 1), "output_tokens": -10}


# ---- command line ----


def run(function: Any, *arguments: str) -> Any:
    import typer

    app = typer.Typer()
    app.command()(function)
    return CliRunner().invoke(app, arguments)


def test_trace_and_generate_write_events_and_one_line(tmp_path: Path) -> None:
    from flow.cli.generate import generate
    from flow.cli.trace import trace

    path = servegen_file(tmp_path / "s.jsonl")
    out = tmp_path / "out.parquet"
    result = run(trace, "servegen", str(path), "-o", str(out), "--scale", "1/2", "--base-time", "2026-02-02T00:00:00Z")
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr.startswith("159 events (") and result.stderr.count("\n") == 1
    assert min(read_back(out)["time"].to_pylist()) >= datetime(2026, 2, 2, tzinfo=UTC)

    prices = tmp_path / "prices.yaml"
    result = run(generate, "-o", str(tmp_path / "g.ndjson"), "--events", "1000", "--prices", str(prices))
    assert result.exit_code == 0
    assert result.stderr.startswith("1,000 events in ")
    assert len((tmp_path / "g.ndjson").read_bytes().splitlines()) == 1000
    assert prices.read_text().count("gpt-4o-mini") > 3


@pytest.mark.parametrize(
    ("kind", "options", "complaints"),
    [
        ("aider", ["--seed", "1", "--model", "m"], ["--seed: not for", "--model: not for"]),
        ("servegen", ["--totals", "--seed", "1"], ["--totals: draws nothing"]),
        (
            "mooncake",
            ["--base-time", "2026-01-01T00:00:00"],
            ["--base-time: must be a time with a UTC offset"],
        ),
        ("servegen", ["--scale", "none"], ["--scale: must be a number above 0"]),
    ],
)
def test_options_that_make_no_sense_are_all_named(kind: str, options: list[str], complaints: list[str]) -> None:
    from flow.cli.trace import trace

    result = run(trace, kind, "trace.jsonl", "-o", "out.ndjson", *options)
    assert isinstance(result.exception, ConfigError)
    assert len(result.exception.errors) == len(complaints)
    for complaint in complaints:
        assert complaint in str(result.exception)
