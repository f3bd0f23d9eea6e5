"""Invoices: each level adds up to the one above, in exact amounts and in cents; and what they say."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer.testing import CliRunner

from flow.cli.invoice import invoice as invoice_command
from flow.errors import ConfigError, StoreError
from flow.rounding import div_half_even
from flow.statements.invoice import Invoice, Item, _Tree, make_invoice, parse_levels, parse_period
from flow.statements.render import as_csv, as_json, print_table, printable
from flow.store import StoreClient
from flow.store.queries.usage_of_customer import Usage

Insert = Callable[[str, list[dict[str, Any]]], None]
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
RATE_INPUT, RATE_OUTPUT = 600_000_000, 2_400_000_000


def seconds(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - EPOCH) // timedelta(seconds=1)


def key(number: int, feature: str, project: str, unpriced: int = 0, **more: Any) -> dict[str, Any]:
    meters = ["requests", "input_tokens", "output_tokens", ""]
    row = {"customer": "acme", "key": number, "feature": feature, "project": project, "currency": "USD"}
    return {
        **row,
        "model": "m",
        "region": "eu",
        "service_tier": "",
        "meters": meters,
        "unpriced": unpriced,
        **more,
    }


def usage(number: int, instant: str, events: int, tokens_in: int, tokens_out: int, **more: Any) -> dict[str, Any]:
    return {
        **KEYS.get(number, {}),
        "window_start": seconds(instant),
        "events": events,
        "digest": number * 10**37,
        "q0": events,
        "q1": tokens_in,
        "a1": tokens_in * RATE_INPUT,
        "q2": tokens_out,
        "a2": tokens_out * RATE_OUTPUT,
        **more,
    }


KEYS = {
    row["key"]: row
    for row in (
        key(1, "chat", "web"),
        key(2, "chat", "app"),
        key(3, "search", "web"),
        key(4, "images", "web", unpriced=6),
    )
}
MINUTES = [
    usage(1, "2026-11-01T00:00", 3, 847_392_584_203, 0),
    usage(1, "2026-11-30T23:59", 1, 1, 7),
    usage(2, "2026-11-14T10:05", 5, 12_345, 678),
    usage(3, "2026-11-14T10:06", 2, 8_333, 1),
    usage(4, "2026-11-14T11:00", 2, 99, 1, a1=0, a2=0),
    usage(1, "2026-12-01T00:00", 9, 5, 5),
    usage(1, "2026-10-31T23:59", 9, 5, 5),
]
TOTAL_FEMTO = (847_392_584_203 + 1 + 12_345 + 8_333) * RATE_INPUT + (7 + 678 + 1) * RATE_OUTPUT


def days(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**row, "window_start": row["window_start"] // 86400 * 86400} for row in rows]


@pytest.fixture
def acme(client: StoreClient, insert_rows: Insert) -> StoreClient:
    insert_rows("rollup_minute", MINUTES)
    insert_rows("rollup_day", days(MINUTES))
    return client


def check_levels(item: Item) -> None:
    """Every level adds up to the one above: exactly, in minor units, in quantities, in events and digests."""
    for below in item.items:
        check_levels(below)
    if not item.items:
        return
    assert item.amount_femto == sum(below.amount_femto for below in item.items)
    assert item.amount_minor == sum(below.amount_minor for below in item.items)
    for name, use in item.meters.items():
        parts = [below.meters[name] for below in item.items if name in below.meters]
        assert use.quantity == sum(part.quantity for part in parts)
        assert use.unpriced_quantity == sum(part.unpriced_quantity for part in parts)
        assert use.amount_femto == sum(part.amount_femto for part in parts)
    if item.items[0].level != "meter" and item.events is not None:
        assert item.events == sum(below.events or 0 for below in item.items)
        assert item.digest == sum(below.digest or 0 for below in item.items) % 2**128


@pytest.mark.parametrize(
    "by",
    [
        "",
        "feature",
        "feature,project,day",
        "day,hour,minute,feature",
        "project,meter,feature",
        "meter",
        "minute",
    ],
)
def test_each_level_adds_up_and_the_total_is_the_same_whatever_the_levels(acme: StoreClient, by: str) -> None:
    levels = parse_levels(by)
    found = make_invoice(acme, "acme", parse_period("2026-11"), levels)
    check_levels(found.total)
    assert found.total.amount_femto == TOTAL_FEMTO
    assert (found.total.events, found.currency) == (13, "USD")
    # 508,435.56 for chat and 0.01 for search: the lines are features, whatever is asked for
    assert found.total.amount_minor == 50_843_557
    assert found.total.meters["input_tokens"].quantity == 847_392_584_203 + 1 + 12_345 + 8_333 + 99
    item = found.total
    for level in levels:
        assert {below.level for below in item.items} == {level}
        item = item.items[0]
    assert item.items == []


def test_row_31_the_lines_are_rounded_once_and_the_remainder_is_shown(acme: StoreClient) -> None:
    found = make_invoice(acme, "acme", parse_period("2026-11"), ("feature", "project"))
    chat, search, images = found.total.items
    assert (chat.value, chat.amount_minor) == ("chat", 50_843_556)
    assert found.remainder_femto(chat) == chat.amount_femto - 50_843_556 * 10**13
    assert (search.value, search.amount_minor, search.amount_femto) == (
        "search",
        1,
        8_333 * RATE_INPUT + RATE_OUTPUT,
    )
    assert found.remainder_femto(search) < 0
    assert (images.value, images.amount_minor, images.unpriced) == ("images", 0, True)
    assert found.total.amount_minor == 50_843_557
    assert found.remainder_femto(found.total) == sum(found.remainder_femto(line) for line in found.total.items)


def test_a_day_is_a_period_too(acme: StoreClient) -> None:
    found = make_invoice(acme, "acme", parse_period("2026-11-30"), ("minute",))
    assert [(line.value, line.events) for line in found.total.items] == [("2026-11-30T23:59Z", 1)]


def test_a_quantity_without_a_price_is_named(acme: StoreClient) -> None:
    found = make_invoice(acme, "acme", parse_period("2026-11"), ("feature",))
    assert found.notes == [
        "unpriced: no price was in force for some of the input_tokens, output_tokens; it is not in the amounts"
    ]
    assert found.total.meters["output_tokens"].unpriced_quantity == 1


def test_yen_have_no_minor_unit(client: StoreClient, insert_rows: Insert) -> None:
    yen = key(1, "chat", "web", currency="JPY")
    insert_rows("rollup_day", days([usage(1, "2026-11-01T00:00", 1, 2_500_000_000, 0, **yen)]))
    period = parse_period("2026-11")
    found = make_invoice(client, "acme", period, ("feature",))
    assert json.loads(as_json(found))["total"]["amount"] == "1500"
    half = days([usage(1, "2026-11-01T00:00", 1, 0, 0, **yen, a1=5 * 10**14)])
    insert_rows("rollup_day", half)
    assert make_invoice(client, "acme", period).total.amount_minor == 1500
    assert make_invoice(client, "acme", period, rounding="half-up").total.amount_minor == 1501


def test_two_currencies_are_refused(acme: StoreClient, insert_rows: Insert) -> None:
    insert_rows("rollup_day", days([usage(9, "2026-11-02T00:00", 1, 10, 0, **key(9, "chat", "web", currency="EUR"))]))
    with pytest.raises(StoreError, match="priced in EUR and USD"):
        make_invoice(acme, "acme", parse_period("2026-11"))


def test_what_is_not_there_is_told_with_what_is(acme: StoreClient) -> None:
    with pytest.raises(StoreError, match="acme has no usage in 2025-01; there is some in 2026-10, 2026-11"):
        make_invoice(acme, "acme", parse_period("2025-01"))
    with pytest.raises(StoreError, match=r"there is no customer Acmee .*; did you mean acme\?"):
        make_invoice(acme, "Acmee", parse_period("2026-11"))


def test_an_empty_store_says_so(client: StoreClient) -> None:
    with pytest.raises(StoreError, match="the store holds no usage yet"):
        make_invoice(client, "acme", parse_period("2026-11"))


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2024-02", "2024-02-01", "2024-03-01"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2024-02-29", "2024-02-29", "2024-03-01"),
        ("2105-12-31", "2105-12-31", "2106-01-01"),
    ],
)
def test_periods(text: str, start: str, end: str) -> None:
    period = parse_period(text)
    assert (period.start_s, period.end_s) == (seconds(start), seconds(end))


@pytest.mark.parametrize("text", ["2026", "2026-13", "2026-02-29", "2026-1", "1969-12", "2106-01", "", "now"])
def test_bad_periods(text: str) -> None:
    with pytest.raises(ConfigError, match="no month like 2026-11"):
        parse_period(text)


def test_all_bad_levels_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_levels("feature,features,day,day,x")
    assert [error.split(":")[0] for error in caught.value.errors] == ["--by features", "--by x", "--by day"]
    assert parse_levels(" feature , day ") == ("feature", "day")


ROWS = st.lists(
    st.builds(
        lambda feature, project, meter, quantity, amount: Usage(
            (feature, project), meter, "USD", quantity, 0, amount, 1, 2**127 + quantity
        ),
        st.sampled_from("abc"),
        st.sampled_from("xyz"),
        st.sampled_from(["requests", "input_tokens"]),
        st.integers(0, 10**12),
        st.integers(0, 2**100) | st.integers(0, 4 * 10**13),
    ),
    min_size=1,
    max_size=30,
)


@given(ROWS)
@settings(max_examples=200)
def test_any_rows_add_up(rows: list[Usage]) -> None:
    for levels, shown in (
        (("feature", "project"), 2),
        (("feature", "project"), 1),
        (("feature", "project"), 0),
        (("project", "feature"), 2),
        (("project", "feature"), 1),
    ):
        placed = [row._replace(place=row.place if levels[0] == "feature" else row.place[::-1]) for row in rows]
        total = _Tree(levels, shown, div_half_even, 10**13).total(placed)
        check_levels(total)
        features = {place[0]: 0 for place, *_ in rows}
        for row in rows:
            features[row.place[0]] += row.amount_femto
        assert total.amount_minor == sum(round(Fraction(femto, 10**13)) for femto in features.values())


# ---- Rendering ---------------------------------------------------------------------------------


def november(client: StoreClient) -> Invoice:
    return make_invoice(client, "acme", parse_period("2026-11"), ("feature", "project"))


def test_json(acme: StoreClient) -> None:
    document = json.loads(as_json(november(acme)), parse_float=pytest.fail)
    assert (document["from"], document["to"]) == ("2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z")
    assert document["total"]["amount"] == "508435.57"
    assert Decimal(document["total"]["amount_exact"]) == Decimal(TOTAL_FEMTO).scaleb(-15)
    assert len(document["total"]["digest"]) == 32
    assert document["total"]["meters"]["input_tokens"]["quantity"] == "847392604981"
    assert [(line["value"], len(line["items"])) for line in document["lines"]] == [
        ("chat", 2),
        ("search", 1),
        ("images", 1),
    ]


def test_csv(acme: StoreClient) -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(november(acme)))))
    total = Decimal(next(row["amount"] for row in rows if row["level"] == "total"))
    for level in ("feature", "project"):
        assert sum(Decimal(row["amount"]) for row in rows if row["level"] == level) == total
    assert {(row["feature"], row["project"]) for row in rows if row["level"] == "project"} == {
        ("chat", "web"),
        ("chat", "app"),
        ("search", "web"),
        ("images", "web"),
    }
    assert rows[-1]["unpriced_input_tokens"] == "99"


def test_table(acme: StoreClient) -> None:
    console = Console(file=io.StringIO(), width=110)
    print_table(november(acme), console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "508,435.57" in text
    assert "Rounded half-even, once, on each feature" in text
    assert "! unpriced: no price was in force" in text
    assert "\x1b" not in text


def test_names_from_events_cannot_drive_a_terminal() -> None:
    assert printable("a\x1b[31mb\n") == "a\\u001b[31mb\\u000a"
    assert printable("") == "-"


# ---- The command -------------------------------------------------------------------------------


@pytest.fixture
def config(store_path: Path, acme: StoreClient, tmp_path: Path) -> Path:
    """A config file whose store holds acme's usage."""
    (tmp_path / "prices.yaml").write_text("currency: USD\nprices: []\n")
    path = tmp_path / "config.yaml"
    path.write_text(f"source: {{kind: synthetic}}\nprices: prices.yaml\nstore: chdb://{store_path}\nstate_dir: state\n")
    return path


def test_the_command(config: Path) -> None:
    app = typer.Typer()
    app.command()(invoice_command)
    run = CliRunner().invoke
    by_default = run(app, ["acme", "--period", "2026-11", "-c", str(config)], catch_exceptions=False)
    assert by_default.exit_code == 0, by_default.output
    assert "508,435.57" in by_default.stdout
    as_document = run(
        app, ["acme", "--period", "2026-11", "--by", "day,feature", "--format", "json", "-c", str(config)]
    )
    assert json.loads(as_document.stdout)["by"] == ["day", "feature"]
    with pytest.raises(StoreError, match="no customer nobody"):
        run(app, ["nobody", "--period", "2026-11", "-c", str(config)], catch_exceptions=False)
