"""What `prices diff` says of two books: every difference in meaning, and no difference in spelling."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.prices.book import PriceBook, parse_price_book
from flow.prices.changes import Change, changes

JANUARY, FEBRUARY, MARCH = (f"2026-{month:02d}-01T00:00:00Z" for month in (1, 2, 3))
HOURS = 'schedules:\n  night: {zone: UTC, hours: [{from: "20:00", to: "06:00"}]}\n'
OTHER_HOURS = 'schedules:\n  night: {zone: UTC, hours: [{days: [sat, sun], from: "20:00", to: "06:00"}]}\n'


def book(*rows: str, rest: str = "") -> PriceBook:
    """Rows without `meter`, `from` or `per` get the usual ones."""
    lines = []
    for row in rows:
        for key, usual in (("meter", "a"), ("from", JANUARY), ("per", "1_000_000")):
            missing = f"{key}:" not in row and not (key == "per" and ("per_started:" in row or "withdrawn:" in row))
            row = f"{row}, {key}: {usual}" if missing else row
        lines.append(f"  - {{{row}}}\n")
    return parse_price_book(f"currency: USD\nprices:\n{''.join(lines) or '  []'}\n{rest}", "b.yaml")


def price_change(since: str, until: str | None, before: str, after: str, **names: str) -> tuple[object, ...]:
    return "price", {**names, "meter": "a"}, since, until, before, after


def told(one: PriceBook, other: PriceBook) -> list[tuple[object, ...]]:
    return [(c.what, c.names, c.since, c.until, c.before, c.after) for c in changes(one, other)]


def test_what_is_spelt_otherwise_is_no_change() -> None:
    one = book('price: "0.60"', f'model: m, from: {FEBRUARY}, price: "3"', f'from: {FEBRUARY}, price: "1"')
    other = book('price: "1", from: 2026-02-01T01:00:00+01:00', 'model: m, price: "3e-6", per: 1, from: ' + FEBRUARY,
                 'price: "6E-7", per: 1')  # fmt: skip
    assert changes(one, other) == []


def test_a_price_that_changes_begins_and_ends() -> None:
    one = book('model: m, price: "0.60"', 'model: gone, price: "1"')
    other = book(
        'model: m, price: "0.60"',
        f'model: m, price: "0.75", from: {FEBRUARY}',
        f'model: m, price: "0.6", from: {MARCH}',
        "model: new, free: true",
    )
    assert told(one, other) == [
        price_change(JANUARY, None, "1 per 1,000,000", "none", model="gone"),
        price_change(FEBRUARY, MARCH, "0.60 per 1,000,000", "0.75 per 1,000,000", model="m"),
        price_change(JANUARY, None, "none", "free per 1,000,000", model="new"),
    ]
    assert [change.percent for change in changes(one, other)] == [None, Fraction(25), None]
    assert told(other, one)[0] == price_change(JANUARY, None, "none", "1 per 1,000,000", model="gone")


def test_a_price_that_is_withdrawn_says_nothing() -> None:
    one, other = book('price: "2"'), book('price: "2"', f"from: {FEBRUARY}, withdrawn: true")
    assert told(one, other) == [price_change(FEBRUARY, None, "2 per 1,000,000", "none")]
    assert changes(one, book('price: "2"', f'from: {FEBRUARY}, price: "2"')) == []


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (
            'price: "1", above: [{above: 200_000, price: "2"}, {above: 300_000, free: true, per: 5}], per: 1_000_000',
            "1 per 1,000,000, above 200,000: 2, above 300,000: free per 5, the whole, by what goes in",
        ),
        (
            'price: "1", above: [{above: 10, price: "2"}], context: [a], applies: part',
            "1 per 1,000,000, above 10: 2, the part above, by a",
        ),
        ('price: "1", per_started: 1000', "1 per started 1,000"),
        ('price: "1", times: [b, c]', "1 per 1,000,000, times b x c"),
        (
            'price: "1", multiply: [{by: q, table: {1: "1", 2: "1.5"}, otherwise: "3"}]',
            "1 per 1,000,000, times by q (1: 1, 2: 1.5, else 3)",
        ),
    ],
)
def test_every_clause_of_a_price_is_told(row: str, text: str) -> None:
    before = "1 per 1,000,000"
    assert told(book('price: "1"'), book(row)) == [price_change(JANUARY, None, before, text)]


def test_hours_that_change_are_told() -> None:
    rows = ['price: "2"', 'price: "1", schedule: night']
    text = "1 per 1,000,000 ({}20:00-06:00 UTC)"
    assert told(book(*rows, rest=HOURS), book(*rows, rest=OTHER_HOURS)) == [
        price_change(JANUARY, None, text.format(""), text.format("sat sun "), schedule="night")
    ]
    assert told(book('price: "2"'), book(*rows, rest=HOURS)) == [
        price_change(JANUARY, None, "none", "1 per 1,000,000", schedule="night")
    ]


def test_adjustments_unbilled_meters_and_currencies() -> None:
    ten = f'adjustments:\n  - {{customer: acme, percent: "-10", from: {JANUARY}}}\n'
    one, other = book('price: "1"', rest=ten), book('price: "1"', rest=ten.replace("-10", "5") + "unbilled: [images]\n")
    yen = PriceBook("JPY", other.prices, other.unbilled, other.adjustments)
    assert told(one, yen) == [
        ("currency", {}, None, None, "USD", "JPY"),
        ("unbilled", {"meter": "images"}, None, None, "none", "images"),
        ("adjustment", {"customer": "acme"}, JANUARY, None, "-10 %", "5 %"),
    ]


PRICES = st.lists(
    st.tuples(st.sampled_from(["m", "n"]), st.sampled_from([JANUARY, FEBRUARY, MARCH]), st.sampled_from("0123")),
    unique_by=lambda row: row[:2],
    max_size=6,
)


def of(rows: list[tuple[str, str, str]]) -> PriceBook:
    """A digit of 0 withdraws."""
    return book(
        *(
            f"model: {model}, from: {since}, " + ("withdrawn: true" if digit == "0" else f'price: "{digit}"')
            for model, since, digit in rows
        )
    )


@given(PRICES, PRICES)
def test_changes_are_where_the_timelines_differ(
    ones: list[tuple[str, str, str]], others: list[tuple[str, str, str]]
) -> None:
    one, other = of(ones), of(others)
    found = changes(one, other)
    for model in ("m", "n"):
        for instant in (JANUARY, FEBRUARY, MARCH):
            sides = [_in_force(rows, model, instant) for rows in (ones, others)]
            covering = [c for c in found if c.names["model"] == model and _covers(c, instant)]
            assert [(c.before, c.after) for c in covering] == ([tuple(sides)] if sides[0] != sides[1] else [])
    assert changes(one, one) == []


def _in_force(rows: list[tuple[str, str, str]], model: str, instant: str) -> str:
    holding = sorted((since, digit) for of_model, since, digit in rows if of_model == model and since <= instant)
    return "none" if not holding or holding[-1][1] == "0" else f"{holding[-1][1]} per 1,000,000"


def _covers(change: Change, instant: str) -> bool:
    assert change.since is not None
    return change.since <= instant and (change.until is None or instant < change.until)
