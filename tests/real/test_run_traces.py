"""`tallyflow trace`, then `tallyflow run`: the views have the totals of each trace's truth file, to the last digit.

Plans A and B are price files, so their charges are what the views say. Plan C is finer than a price file can be: its
charge is computed from the quantities of the views.
"""

import subprocess
import sys
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import yaml

from flow.config import load_config
from flow.start import open_store

from .cases import PRICE_FILE_PLANS, TruthCase, truth_cases

CASES = truth_cases()
pytestmark = [pytest.mark.skipif(not CASES, reason="the data folder is not there"), pytest.mark.starts_engine]

Sums = dict[str, int]


def tallyflow(*arguments: str | Path) -> str:
    command = [sys.executable, "-m", "flow", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


class Billed:
    """The views of one trace, billed with one plan."""

    def __init__(self, folder: Path, case: TruthCase, events: Path, prices: str) -> None:
        folder.mkdir()
        (folder / "prices.yaml").write_text(prices)
        config = folder / "config.yaml"
        settings: dict[str, Any] = {
            "source": {"kind": "files", "path": str(events)},
            "prices": "prices.yaml",
            "store": "chdb:store",
            "state_dir": "state",
            "dedup": {"horizon": "unbounded"},
        }
        config.write_text(yaml.safe_dump(settings))
        tallyflow("run", config)
        self._config = load_config(config)
        self.case = case
        self.events = events

    def grouped(self, grain: str, by: str = "'all'") -> dict[Any, Sums]:
        """For each value of `by`: the sum of each meter, and as `charge` the amount in 10^-15."""
        sums: dict[Any, Sums] = {}
        with open_store(self._config) as client:
            found = client.rows(
                f"SELECT {by} AS part, meter, sum(toInt256(quantity)), sum(toInt256(reinterpret(amount, 'Int128'))), "
                f"sum(toInt256(unpriced_quantity)) FROM usage_by_{grain} GROUP BY part, meter"
            )
        for part, meter, quantity, amount_femto, unpriced in found:
            assert unpriced == 0
            key = part.replace(tzinfo=UTC) if isinstance(part, datetime) else part
            of_part = sums.setdefault(key, {"charge": 0})
            of_part[meter] = int(quantity)
            of_part["charge"] += int(amount_femto)
        return sums

    def as_truth(self, sums: Sums) -> Sums:
        """Under the truth's names, in which all kinds of input are one."""
        if self.case.kind == "servegen":
            return {"published_requests": sums.get("published_requests", 0)}
        return {
            "requests": sums["requests"],
            "input_tokens": sum(sums.get(meter, 0) for meter in self.case.input_meters),
            "output_tokens": sum(sums.get(meter, 0) for meter in self.case.output_meters),
        }


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def billed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Billed:
    case: TruthCase = request.param
    folder = tmp_path_factory.mktemp(case.name)
    events = folder / "events.parquet"
    tallyflow("trace", case.kind, case.data, "-o", events, *case.arguments)
    return Billed(folder / "A", case, events, case.prices("A"))


def test_totals(billed: Billed) -> None:
    (sums,) = billed.grouped("month").values()
    assert {meter: sums.get(meter, 0) for meter in billed.case.totals} == billed.case.totals


def test_buckets_customers_and_models(billed: Billed) -> None:
    case, checked = billed.case, 0
    for grain, expected in (("hour", case.by_hour), ("minute", case.by_minute), ("day", case.by_day)):
        if expected:
            found = billed.grouped(grain, "window_start")
            assert {
                start: billed.as_truth(sums) for start, sums in found.items() if sums.get(case.requests_meter)
            } == expected
            checked += 1
    assert checked
    if case.by_customer:
        found = billed.grouped("month", "customer")
        for customer, totals in case.by_customer.items():
            assert {meter: found.get(customer, {}).get(meter, 0) for meter in totals} == totals
        assert set(found) <= set(case.by_customer)
    if case.by_model:
        found = billed.grouped("day", "model")
        assert {model: billed.as_truth(sums) for model, sums in found.items()} == case.by_model


def charges(billed: Billed, plan: str) -> None:
    """The amounts in the views are the truth's, in total and in each bucket."""
    case = billed.case
    (sums,) = billed.grouped("month").values()
    assert Fraction(sums["charge"], 10**15) == Fraction(case.expected_charge(plan))
    if expected := case.expected_charges(plan):
        found = billed.grouped(case.charge_grain, "window_start")
        assert {start: Fraction(of["charge"], 10**15) for start, of in found.items()} == exact(expected)


def exact(amounts: dict[datetime, Decimal]) -> dict[datetime, Fraction]:
    return {start: Fraction(amount) for start, amount in amounts.items()}


def test_the_charges_of_a_price_file(billed: Billed, tmp_path: Path) -> None:
    charges(billed, "A")
    for plan in PRICE_FILE_PLANS[1:]:
        charges(Billed(tmp_path / plan, billed.case, billed.events, billed.case.prices(plan)), plan)


def test_the_charges_of_a_plan_finer_than_a_price_file(billed: Billed) -> None:
    case = billed.case

    def charge(sums: Sums) -> Fraction:
        tokens = [sum(sums.get(meter, 0) for meter in meters) for meters in (case.input_meters, case.output_meters)]
        return case.charge("C", *tokens)

    (sums,) = billed.grouped("month").values()
    assert charge(sums) == Fraction(case.expected_charge("C"))
    if expected := case.expected_charges("C"):
        found = billed.grouped(case.charge_grain, "window_start")
        assert {start: charge(of) for start, of in found.items()} == exact(expected)
