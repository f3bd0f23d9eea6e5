"""Goal: `prices explain`, `lint` and `test` say of a book what is so.

Method: explanations against the oracle on books that hypothesis makes up; findings, one by one, on small books.
"""

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY
from tests.parity.test_rate_rules import ADJUSTMENT, ROW, loadable, us
from typer.testing import CliRunner

from flow.cli.prices import prices as commands
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.prices.explain import Usage, amount_text, explain, total_femto
from flow.prices.lint import failed_examples, lint

HEAD = "currency: USD\nprices:\n"


def book(*rows: str, rest: str = "") -> PriceBook:
    return parse_price_book(HEAD + "".join(f"  - {{{row}}}\n" for row in rows) + rest, "b.yaml")


A = 'meter: a, from: 2026-01-01T00:00:00Z, per: 1, price: "2"'


# ---- explain ----


@PROPERTY
@given(st.lists(ROW, max_size=6), st.lists(ADJUSTMENT, max_size=3), st.integers(0, 2**32))
def test_an_explanation_comes_to_what_the_oracle_says(
    rows: list[tuple[str | None, ...]], adjustments: list[tuple[str, ...]], seed: int
) -> None:
    prices, rng = loadable(rows, adjustments), random.Random(seed)
    for _ in range(8):
        time_us = us(
            f"2026-0{rng.randint(1, 3)}-01T{rng.choice(['05', '06', '09', '17', '22'])}:00:00Z"
        ) - rng.randrange(2)
        quantities = {meter: rng.randrange(8) for meter in rng.sample("abcde", 3)}
        names = (rng.choice("xy"), "", rng.choice(("", "eu")), rng.choice("xz"))
        dims = dict(zip(("model", "service_tier", "region", "customer"), names, strict=True))
        event = Event(time_us, tuple(quantities.items()), dims)
        items = explain(prices, Usage(time_us, names, quantities))
        assert [
            (item.meter, item.quantity, None if item.outcome == "unpriced" else item.amount_femto) for item in items
        ] == rate_event(prices.prices, prices.unbilled, event, prices.adjustments)
        for item in items:
            assert sum(row.wins for row in item.candidates) <= 1
            assert all(row.why for row in item.candidates)
            assert item.steps


def test_why_a_row_lost() -> None:
    prices = book(
        A,
        f"{A}, model: m",
        f"{A}, model: m, customer: c",
        f"{A}, model: m, region: eu, customer: c".replace("01-01", "02-01"),
        f"{A}, model: m, customer: c, schedule: night".replace('2"', '1"'),
        "meter: a, from: 2026-01-02T00:00:00Z, withdrawn: true, model: m",
        f"{A}, model: n",
        f"{A}, model: m, customer: other",
        rest='schedules: {night: {zone: UTC, hours: [{from: "22:00", to: "06:00"}]}}\n'
        'adjustments: [{customer: c, percent: "-10", from: 2026-01-01T00:00:00Z}, '
        '{region: eu, percent: "5", from: 2026-01-01T00:00:00Z}]\n',
    )
    usage = Usage(us("2026-01-15T12:00:00Z"), ("m", "", "eu", "c"), {"a": 3})
    item = explain(prices, usage)[0]
    assert {row.line: row.why for row in item.candidates} == {
        5: "the narrowest that holds",
        3: "line 5 names more: {model: m, customer: c}",
        4: "withdrawn by line 8",
        6: "begins only at 2026-02-01T00:00:00Z",
        7: "outside the hours of night",
        8: "says that there is no such price any more",
        10: "is for customer other, not c",
        0: "for other events",
    }
    assert item.steps[1:] == (
        "line 12: -10 % is not for a price that names {customer: c}",
        "line 12: 5 % {region: eu}: x 21/20",
        "3 x 2100000000000000 x 10^-15 = 6.3",
    )
    night = explain(prices, Usage(us("2026-01-15T22:00:00Z"), ("m", "", "", "c"), {"a": 3}))[0]
    assert next((row.line, row.wins) for row in night.candidates) == (7, True)
    assert "line 7 holds in the hours of night" in {row.why for row in night.candidates}


def test_steps_of_tiers_packages_and_products() -> None:
    prices = book(
        'meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1, price: "1", above: [{above: 10, price: "2"}], '
        "applies: part, context: [cached_input_tokens, input_tokens]",
        'meter: pages, from: 2026-01-01T00:00:00Z, per_started: 10, price: "1", times: [n], '
        'multiply: [{by: q, table: {1: "1/2"}}]'.replace("1/2", "0.5"),
        rest="unbilled: [n, q, cached_input_tokens]\n",
    )
    quantities = {"input_tokens": 5, "pages": 4, "n": 6, "q": 1, "cached_input_tokens": 8}
    items = {
        item.meter: item for item in explain(prices, Usage(us("2026-02-01T00:00:00Z"), ("", "", "", ""), quantities))
    }
    assert items["input_tokens"].steps[1:] == (
        "8 units of cached_input_tokens stand before",
        "tier 0: 2 x 1000000000000000 x 10^-15 = 2",
        "tier 1: 3 x 2000000000000000 x 10^-15 = 6",
    )
    assert items["pages"].steps[1:] == (
        "q = 1: factor number 0",
        "x 6 n = 24",
        "started packages of 10: 3",
        "3 x 500000000000000 x 10^-15 = 1.5",
    )
    assert amount_text(total_femto(list(items.values()))) == "9.5"


# ---- lint ----


def found(
    prices: PriceBook, previous: PriceBook | None = None, market: PriceBook | None = None
) -> list[tuple[int, str]]:
    return [(finding.line, finding.rule) for finding in lint(prices, previous, market)]


def test_a_sound_book_has_no_findings() -> None:
    assert found(book(A, f"{A}, model: m", A.replace("01-01", "02-01").replace('"2"', '"3"'))) == []


def test_gaps() -> None:
    ends = "meter: a, from: 2026-03-01T00:00:00Z, withdrawn: true"
    assert found(book(A, ends)) == [(4, "gap")]
    assert found(book(A, f"{A}, model: m", f"{ends}, model: m")) == []
    night = 'schedules: {night: {zone: UTC, hours: [{from: "22:00", to: "06:00"}]}}\n'
    assert found(book(f"{A}, schedule: night", rest=night)) == [(3, "gap")]
    assert found(book(A, f"{A}, schedule: night", rest=night)) == []


def test_overlaps_and_jumps() -> None:
    later = A.replace("01-01", "02-01")
    assert found(book(A, later)) == [(4, "overlap")]
    assert found(book(A, later.replace('"2"', '"20"'))) == [(4, "jump")]
    assert found(book(A, later.replace('"2"', '"19"'))) == []
    assert found(book(f"{A}, model: m", f"{A}, model: m, customer: c".replace('"2"', '"0.2"'))) == [(4, "jump")]


def test_against_the_previous_version() -> None:
    before = book(A, f"{A}, model: m")
    assert found(book(A, f"{A}, model: m".replace('"2"', '"3"')), before) == [(4, "jump")], "edited"
    assert found(book(A), before) == [(1, "jump")], "deleted"
    later = A.replace("01-01", "02-01").replace('"2"', '"200"')
    assert found(book(A, f"{A}, model: m", later), before) == [(5, "jump"), (5, "jump")]


def test_against_the_market() -> None:
    of_model = f"{A}, model: m".replace("meter: a", "meter: input_tokens")
    market = book(
        f'{of_model}, above: [{{above: 200_000, price: "4"}}]',
        f"{of_model}, service_tier: batch",
        f"{of_model}".replace("input", "output"),
        f"{of_model}".replace("model: m", "model: other"),
    )
    prices = book(of_model, rest="unbilled: [output_tokens]\n")
    assert [(finding.rule, finding.message) for finding in lint(prices, None, market)] == [
        ("tier", "m: the market has another price of input_tokens above 200_000 of context"),
        ("tier", "m: the market has the service tier batch"),
    ]
    assert ("meter", "m: the market has a price of output_tokens") in [
        (finding.rule, finding.message) for finding in lint(book(of_model), None, market)
    ]


def test_meters_that_are_forgotten() -> None:
    assert found(book(f"{A}, times: [steps]")) == [(3, "meter")]
    assert found(book(f"{A}, times: [steps]", rest="unbilled: [steps]\n")) == []
    assert found(book(f"{A}, model: m".replace("meter: a", "meter: input_tokens"))) == [(3, "meter")]


# ---- test, and the commands ----

EXAMPLES = """examples:
  - {time: 2026-02-01T00:00:00Z, usage: {a: 1_000}, amount: "2000"}
  - {time: 2025-02-01T00:00:00Z, usage: {a: 1}, amount: "0", unpriced: [a]}
"""


def test_examples() -> None:
    assert failed_examples(book(A, rest=EXAMPLES)) == []
    wrong = EXAMPLES.replace('"2000"', '"2000.000000000000000000001"').replace(", unpriced: [a]", "")
    assert [(failed.line, failed.rule) for failed in failed_examples(book(A, rest=wrong))] == [
        (5, "amount"),
        (6, "unpriced"),
    ]


def test_the_commands(tmp_path: Path) -> None:
    prices, event, runner = tmp_path / "p.yaml", tmp_path / "e.json", CliRunner()
    prices.write_text(HEAD + f"  - {{{A}}}\n" + EXAMPLES)
    event.write_text('{"id": "1",\n "time": "2026-02-01T00:00:00Z", "customer": "c", "usage": {"a": 3}}')
    explained = runner.invoke(commands, ["explain", str(event), "--prices", str(prices), "--format", "json"])
    told = json.loads(explained.stdout)
    assert (told["amount"], told["meters"][0]["rows"][0]["line"], explained.exit_code) == ("6", 3, 0)
    assert "wins  line 3" in runner.invoke(commands, ["explain", str(event), "--prices", str(prices)]).stdout
    assert runner.invoke(commands, ["test", "--prices", str(prices)]).exit_code == 0
    assert runner.invoke(commands, ["lint", "--prices", str(prices)]).exit_code == 0
    prices.write_text(HEAD + f"  - {{{A}}}\n  - {{{A.replace('01-01', '02-01')}}}\n" + EXAMPLES.replace("2000", "1"))
    failed, linted = (runner.invoke(commands, [name, "--prices", str(prices)]) for name in ("test", "lint"))
    assert (failed.exit_code, linted.exit_code) == (3, 1)
    assert failed.stdout == "line 6: amount: costs 2000, and not 1\n"
    assert linted.stdout == "line 4: overlap: says again what line 3 says; it changes nothing\n"
    event.write_text('{"id": "1"}')
    refused = runner.invoke(commands, ["explain", str(event), "--prices", str(prices)])
    assert "would be rejected: MISSING_TIME" in str(refused.exception)


@pytest.mark.parametrize("arguments", [[], ["--prices", "a", "--config", "b"]])
def test_one_book_is_asked(arguments: list[str]) -> None:
    assert "name a config" in str(CliRunner().invoke(commands, ["lint", *arguments]).exception)
