"""The commands, as a user calls them."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flow.cli.app import make_app

from .harness import Pipeline, make_events, truth

EVENTS = make_events(900)
LEVELS = ("feature", "project", "day", "hour", "minute")


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    pipeline = Pipeline(tmp_path_factory.mktemp("commands"))
    pipeline.write("events.ndjson", EVENTS)
    pipeline.run()
    return pipeline


def called(pipeline: Pipeline, *arguments: str) -> str:
    result = CliRunner().invoke(make_app(), [*arguments, "-c", str(pipeline.config_path)], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_help_of_every_command() -> None:
    runner = CliRunner()
    for command in ("run", "invoice", "sql", "verify", "generate", "trace", "adapt", "init", "doctor"):
        result = runner.invoke(make_app(), [command, "--help"])
        assert result.exit_code == 0
        assert "Usage:" in result.stdout
        assert command in runner.invoke(make_app(), ["--help"]).stdout


def test_sql_as_json_and_csv_is_exact(billed: Pipeline) -> None:
    query = "SELECT * FROM usage_by_month WHERE customer = 'acme' ORDER BY ALL"
    rows = json.loads(called(billed, "sql", query, "--format", "json"))
    month = truth(EVENTS)["month"]
    assert len(rows) == sum(key[1][0] == "acme" for key in month)
    for row in rows:
        dims = tuple(row[name] for name in ("customer", "feature", "service_tier", "region"))
        (key,) = [key for key in month if key[1:] == (dims, row["meter"]) and _iso(key[0]) == row["window_start"]]
        quantity, amount_femto, events, unpriced, digest = month[key]
        assert row["quantity"] == str(quantity)
        assert Decimal(row["amount"]).scaleb(15) == amount_femto
        assert (row["events"], row["currency"]) == (events, "USD")
        assert (row["unpriced_quantity"], row["digest"]) == (str(unpriced), str(digest))
    as_csv = list(csv.DictReader(io.StringIO(called(billed, "sql", query, "--format", "csv"))))
    assert as_csv == [{name: str(value) for name, value in row.items()} for row in rows]
    assert "acme" in called(billed, "sql", query)


def _iso(time_s: int) -> str:
    return f"{datetime.fromtimestamp(time_s, UTC):%Y-%m-%dT%H:%M:%SZ}"


def test_an_invoice_adds_up_at_every_level(billed: Pipeline) -> None:
    text = called(billed, "invoice", "acme", "--period", "2026-02", "--by", ",".join(LEVELS), "--format", "json")
    invoice = json.loads(text)
    total = invoice["total"] | {"level": "total", "items": invoice["lines"]}
    seen: set[str] = set()

    def check(item: dict[str, Any]) -> None:
        seen.add(item["level"])
        below = item.get("items", [])
        if below:
            for name in ("amount", "amount_exact", "remainder"):
                assert sum(Decimal(one[name]) for one in below) == Decimal(item[name])
            assert sum(one["events"] for one in below) == item["events"]
            assert sum(int(one["digest"], 16) for one in below) % 2**128 == int(item["digest"], 16)
            for meter, use in item["meters"].items():
                of_meter = [one["meters"][meter] for one in below if meter in one["meters"]]
                for name in ("quantity", "unpriced_quantity", "amount_exact"):
                    assert sum(Decimal(one[name]) for one in of_meter) == Decimal(use[name])
        for one in below:
            check(one)

    check(total)
    assert seen == {"total", *LEVELS}
    february = [row for key, row in truth(EVENTS)["month"].items() if key[1][0] == "acme" and key[0] < 1_772_323_200]
    assert Decimal(total["amount_exact"]).scaleb(15) == sum(row[1] for row in february)
    told = invoice["estimate"]  # the horizon of these runs is unbounded, so that no period is ever closed
    assert (told["ended_before"], told["still_to_come"]) == ("2026-03-01T00:00:00Z", None)
    assert Decimal(told["amount_ended"]) == Decimal(total["amount_exact"])
    assert told["watermark"] > told["ended_before"]


def test_run_prints_the_balance_and_what_to_try_next(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    pipeline.write("events.parquet", EVENTS)
    result = pipeline.command("run")
    assert (result.returncode, result.stderr) == (0, "")
    assert "read = accepted + duplicate + conflicting + rejected + late" in " ".join(result.stdout.split())
    for word in ("900", "Unpriced", f"Store: chdb://{tmp_path}/store", "tallyflow sql", "tallyflow invoice"):
        assert word in result.stdout
