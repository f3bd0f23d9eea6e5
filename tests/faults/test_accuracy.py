"""The accuracy benchmark: exact with few events, its truth is the oracle's, and it tells what is not exact."""

import importlib
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flow.generate import METERS, batches, prices_yaml
from flow.oracle.rollup import Rates, Rollup
from flow.prices.book import parse_price_book
from flow.schema import DIMENSIONS

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def accuracy(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("accuracy")


def test_the_truth_of_the_benchmark_is_the_oracles_and_one_event_more_or_less_is_found(accuracy: Any) -> None:
    spec = accuracy.spec_of(2000)
    book = parse_price_book(prices_yaml(), "prices")
    rates = Rates(book.prices, book.unbilled)
    rollup, seen = Rollup(rates), set()
    for events in batches(spec):
        for row in events.to_pylist():
            identity = row["source"], row["id"]
            if identity not in seen:
                seen.add(identity)
                time_us = (row["time"] - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
                usage = [(meter, row[meter]) for meter in METERS if row[meter] is not None]
                rollup.add(*identity, time_us, tuple(row[name] for name in DIMENSIONS), usage)
    told = {
        key: accuracy.Cell(row.quantity, row.events, row.digest, row.amount_femto)
        for key, row in rollup.minutes.items()
    }
    wanted = accuracy.truth(spec, rates)
    assert wanted == told
    assert 1900 < len(seen) < 2000

    exact = {"events_lost": 0, "events_counted_twice": 0, "amount_error_femto": "0", "digest_mismatches": 0}
    assert accuracy.compared(wanted, told) == exact
    gone = next(key for key in wanted if key[2] == "requests")
    found = {key: cell for key, cell in wanted.items() if key != gone}
    assert accuracy.compared(wanted, found) == exact | {"events_lost": wanted[gone].events, "digest_mismatches": 1}
    assert accuracy.compared(found, wanted)["events_counted_twice"] == wanted[gone].events
    priced = next(key for key, cell in wanted.items() if cell.amount_femto)
    found = wanted | {priced: accuracy.Cell(**(vars(wanted[priced]) | {"amount_femto": 0}))}
    assert accuracy.compared(wanted, found)["amount_error_femto"] == str(wanted[priced].amount_femto)


@pytest.mark.slow
def test_a_small_accuracy_benchmark(tmp_path: Path) -> None:
    scale = ["--events", "5000", "--kills", "2", "--outages", "1", "--epoch-ms", "150", "--sides", "tallyflow"]
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / "accuracy.py"), *scale, "--data", str(tmp_path), "--results", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (result,) = tmp_path.glob("accuracy-*.json")
    (exact,) = json.loads(result.read_text())["measured"]["sides"]
    assert (exact["kills"], exact["outages"]) == (2, 1)
    assert [exact[name] for name in ("events_lost", "events_counted_twice", "digest_mismatches")] == [0, 0, 0]
    assert (exact["amount_error_femto"], exact["other_differences"]) == ("0", [])
