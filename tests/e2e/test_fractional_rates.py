"""Rates without a finite decimal: exact in every view, on invoices and on replay, to the last fraction of 10^-15."""

import json
import re
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest

from flow.rounding import div_half_even
from flow.schema import PER_OF_ALL
from flow.start import open_store
from flow.statements.invoice import Item, make_invoice, parse_levels, parse_period
from flow.verify import verify

from .harness import Event, Pipeline, event, truth

PRICES = """
currency: USD
prices:
  - {model: twelfth, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 12_000_000, price: "1"}
  - {model: mixed, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 12_000_000, price: "1"}
  - {model: mixed, meter: input_tokens, from: 2026-03-01T12:00:10Z, per: 7_000_000, price: "1"}
  - {model: mixed, meter: input_tokens, from: 2026-03-01T12:00:20Z, per: 1_000_000, price: "0.60"}
  - {model: mixed, meter: input_tokens, from: 2026-03-01T12:00:30Z, per: 11_000_000, price: "5"}
  - {model: mixed, meter: output_tokens, from: 2020-01-01T00:00:00Z, per: 9_000_000, price: "2"}
"""
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TWELFTH = [1, 4_999_999, 6_999_998, 2]
"""Tokens that together cost one dollar, of which no part is a multiple of 10^-15 dollars."""


def made() -> list[Event]:
    """A dollar in four events, and one window in which one meter has had four prices."""
    twelfths = [
        event(n, NOON + timedelta(minutes=n), customer="twelve", model="twelfth", usage={"input_tokens": tokens})
        for n, tokens in enumerate(TWELFTH)
    ]
    mixed = [
        event(
            100 + n,
            NOON + timedelta(seconds=n),
            model="mixed",
            project=f"p{n % 3}",
            feature=("chat", "search")[n % 2],
            usage={"input_tokens": 1000 + 7 * n, "output_tokens": n, "images": 1},
        )
        for n in range(60)
    ]
    return twelfths + mixed


@pytest.fixture(scope="module")
def billed(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    pipeline = Pipeline(tmp_path_factory.mktemp("fractional") / "pipeline", PRICES)
    pipeline.write("events.ndjson", made())
    ran = pipeline.command("run", "--workers", "2")
    assert ran.returncode == 0, ran.stderr
    (pipeline.folder / "said").write_text(ran.stdout)
    return pipeline


def test_the_views_hold_every_fraction_and_the_ledger_replays_to_the_same(billed: Pipeline, tmp_path: Path) -> None:
    views = billed.views()
    assert views == truth(made(), PRICES)
    # The oracle is ours as well: by hand, twelve million tokens at a twelfth of a dollar a million.
    twelve = "customer = 'twelve' AND meter = 'input_tokens'"
    of_month = f"SELECT toString(amount), amount_remainder FROM exact_usage_by_month WHERE {twelve}"
    assert billed.rows(of_month) == [("1", 0)]
    minutes = billed.rows(
        "SELECT toString(amount), toString(amount_remainder), quantity FROM exact_usage_by_minute "
        f"WHERE {twelve} ORDER BY window_start LIMIT 1"
    )
    assert minutes == [("0.000000083333333", str(PER_OF_ALL // 3), 1)]
    # Without the remainder, the public view of minutes is below the month by what was rounded down.
    below = billed.rows(f"SELECT toString(1 - sum(amount)) FROM usage_by_minute WHERE {twelve}")
    assert below == [("0.000000000000002",)]

    report = verify(billed.config())
    assert (report.events, report.differences) == (len(made()), [])
    replay = Pipeline(tmp_path / "replay", PRICES)
    replay.run(source={"kind": "ledger", "path": str(billed.folder / "ledger")}, ledger=None)
    assert replay.views() == views
    for table in ("rollup_minute", "rollup_day"):
        assert stored(replay, table) == stored(billed, table)


def stored(pipeline: Pipeline, table: str) -> list[tuple[object, ...]]:
    return pipeline.rows(f"SELECT * FROM {table} FINAL ORDER BY customer, window_start, key")


def check_levels(item: Item) -> None:
    for below in item.items:
        check_levels(below)
    if item.items:
        assert item.amount_femto == sum(below.amount_femto for below in item.items)
        assert item.amount_minor == sum(below.amount_minor for below in item.items)


def test_each_level_of_an_invoice_adds_up_to_the_fraction(billed: Pipeline) -> None:
    month = truth(made(), PRICES)["month"]
    exact = sum((Fraction(row[1]) for key, row in month.items() if key[1][0] == "acme"), Fraction(0))
    assert exact.denominator > 1
    features = {key[1][1]: Fraction(0) for key in month if key[1][0] == "acme"}
    for (_, dims, _), row in month.items():
        if dims[0] == "acme":
            features[dims[1]] += row[1]
    lines = [div_half_even(femto.numerator, femto.denominator * 10**13) for femto in features.values()]
    with open_store(billed.config()) as client:
        for by in ("", "feature,project,minute", "meter,hour", "day"):
            found = make_invoice(client, "acme", parse_period("2026-03"), parse_levels(by))
            check_levels(found.total)
            assert found.total.amount_femto == exact
            assert found.total.amount_minor == sum(lines)
            assert found.remainder_femto(found.total) == exact - sum(lines) * 10**13


def test_the_commands_show_them(billed: Pipeline) -> None:
    document = json.loads(billed.command("invoice", "acme", "--period", "2026-03", "--format", "json").stdout)
    amounts = [Fraction(line["amount_exact"]) for line in document["lines"]]
    assert Fraction(document["total"]["amount_exact"]) == sum(amounts)
    assert any("/" in line["amount_exact"] for line in document["lines"])
    table = billed.command("invoice", "acme", "--period", "2026-03").stdout
    assert "x 10^-15" in table
    said = (billed.folder / "said").read_text()
    assert re.search(r"twelve +1\.000000000000000 *\n", said)
    assert re.search(r"output_tokens +1,770 +0\.000393333333333 \+ 1/3 x 10\^-15 *\n", said)
    assert "tokens/" not in said


def test_verify_sees_a_third_of_the_last_digit(billed: Pipeline) -> None:
    change_by(billed, "1e-15")
    differences = verify(billed.config()).differences
    change_by(billed, "-1e-15")
    assert [difference.column for difference in differences] == ["amount"] * 5
    of_month = differences[-1]
    assert of_month.where == "usage_by_month"
    assert (of_month.ledger, of_month.store) == ("1.000000000000000", "1.000000000000000 + 1/3 x 10^-15")
    assert verify(billed.config()).differences == []


def change_by(pipeline: Pipeline, amount: str) -> None:
    """Changes one amount, which is counted in thirds of 10^-15, in both rollup tables."""
    for table, start in (("rollup_minute", "2026-03-01 12:00:00"), ("rollup_day", "2026-03-01 00:00:00")):
        pipeline.execute(
            f"ALTER TABLE {table} UPDATE a1 = a1 + toDecimal128('{amount}', 15) "
            f"WHERE meters = 'requests,input_tokens/3,,' AND customer = 'twelve' AND window_start = '{start}' "
            "SETTINGS mutations_sync = 2"
        )
