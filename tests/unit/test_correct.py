"""Correction deltas of random pairs of books, against the oracle that rates each event by itself in fractions."""

from fractions import Fraction
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow.errors import OverflowStop
from flow.kernels.corrections import CorrectionSums
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.rerate.asked import Scope
from flow.rerate.from_rollups import first_obstacle
from flow.schema import DIMENSIONS, EVENTS, PER_OF_ALL, meter_and_per
from flow.steps.correct import Corrector, Cost, cost_of
from flow.steps.corrections import Corrections
from flow.steps.rate import Rater
from flow.steps.wide import as_integers, halves

START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
MINUTE_US = 60_000_000
METERS = ("input_tokens", "output_tokens", "images", "other")
MODELS = ("m", "n", "o")
HEAD = """currency: USD
unbilled: [images]
schedules:
  night: {zone: Europe/Rome, hours: [{from: "01:01", to: "06:00"}]}
prices:
"""

FORMS = (
    "price: '{price}', per: 1000",
    "price: '{price}', per: 1",
    "price: '{price}', per: 3",
    "price: '{price}', per: 7000",
    "price: '{price}', per_started: 7",
    "price: '{price}', per: 1000, above: [{{above: 30, price: '9'}}]",
    "price: '{price}', per: 1000, above: [{{above: 30, price: '9'}}], applies: part, context: [input_tokens, {meter}]",
    "price: '{price}', per: 1000, schedule: night",
    "price: '{price}', per: 10, times: [images]",
    "price: '{price}', per: 12, above: [{{above: 30, price: '9'}}]",
)
PLAIN = 4
"""The forms before this one are one rate."""


@st.composite
def books(draw: st.DrawFn, forms: int = len(FORMS)) -> PriceBook:
    """Rows of random forms that begin at different seconds of four minutes, so that no two tie."""
    rows, seen = [], set()
    for _ in range(draw(st.integers(1, 8))):
        meter = draw(st.sampled_from(("requests", *METERS[:2], "other")))
        model = draw(st.sampled_from(("", *MODELS)))
        second = draw(st.sampled_from((0, 60, 90, 120, 180)))
        form = draw(st.integers(0, forms - 1))
        if meter == "requests" or (meter == "input_tokens" and form == 6):
            form = 1
        if (key := (meter, model, second, form == 7)) in seen:
            continue
        seen.add(key)
        names = f"meter: {meter}, from: '2026-01-01T00:{second // 60:02d}:{second % 60:02d}Z'"
        said = FORMS[form].format(price=draw(st.integers(1, 9)), meter=meter)
        rows.append(f"  - {{{names}, {f'model: {model}, ' if model else ''}{said}}}\n")
    return parse_price_book(HEAD + "".join(rows), "book")


events = st.lists(
    st.tuples(
        st.integers(-30, 270),
        st.sampled_from(MODELS),
        st.sampled_from(("acme", "zeta")),
        st.dictionaries(st.sampled_from(METERS), st.integers(0, 99), min_size=1),
    ),
    min_size=1,
    max_size=30,
)


def batch(rows: list[tuple[int, str, str, dict[str, int]]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pylist(
        [
            {
                "id": str(n),
                "source": "s",
                "event_time_us": START_US + second * 1_000_000,
                **dict.fromkeys(DIMENSIONS, ""),
                "model": model,
                "customer": customer,
                "usage": [{"meter": meter, "quantity": quantity} for meter, quantity in usage.items()],
                "position": n,
            }
            for n, (second, model, customer, usage) in enumerate(rows)
        ],
        schema=EVENTS,
    )


Sums = dict[tuple[int, str, str, str], list[Any]]
"""By window (seconds), customer, model and meter: quantity, unpriced quantity, amount."""


def expected(rows: list[tuple[int, str, str, dict[str, int]]], two: tuple[PriceBook, PriceBook]) -> Sums:
    found: Sums = {}
    for second, model, customer, usage in rows:
        time_us = START_US + second * 1_000_000
        event = Event(time_us, tuple(usage.items()), {"model": model, "customer": customer})
        for book, sign in zip(two, (-1, 1), strict=True):
            for meter, quantity, amount in rate_event(book.prices, book.unbilled, event, book.adjustments):
                key = time_us // MINUTE_US * 60, customer, model, meter
                sums = found.setdefault(key, [0, 0, Fraction(0)])
                sums[1] += sign * quantity * (amount is None)
                sums[2] += sign * (amount or 0)
    return {key: sums for key, sums in found.items() if any(sums)}


def of_rows(tables: list[pa.Table], *names: str) -> Sums:
    """What rows of the rollups add up to."""
    found: Sums = {}
    for row in (row for table in tables for row in table.to_pylist()):
        assert not {"events", "digest"} & row.keys(), "deltas are no events"
        for slot, name in enumerate(row["meters"].split(",")):
            quantity = int.from_bytes(row.get(f"q{slot}", b""), "little", signed=True)
            meter, per = meter_and_per(name)
            key = row["window_start"], row["customer"], row.get("model", ""), meter
            sums = found.setdefault(key, [0, 0, Fraction(0)])
            sums[0] += quantity
            sums[1] += quantity * (row["unpriced"] >> slot & 1)
            sums[2] += Fraction(int(row[f"a{slot}"].scaleb(15)), per)
    return {key: sums for key, sums in found.items() if any(sums)}


def of_corrections(found: Corrections) -> Sums:
    rows = found.table().to_pylist()
    assert [row["customer"] for row in rows] == sorted(row["customer"] for row in rows)
    told = {}
    for row in rows:
        unpriced, remainder = (
            int.from_bytes(row[name], "little", signed=True) for name in ("unpriced_quantity", "amount_remainder")
        )
        assert 0 <= remainder < PER_OF_ALL
        key = row["window_start"], row["customer"], "", row["meter"]
        assert key not in told, "one row a customer, window and meter"
        told[key] = [0, unpriced, int(row["amount"].scaleb(15)) + Fraction(remainder, PER_OF_ALL)]
    return {key: sums for key, sums in told.items() if any(sums)}


def without(sums: Sums, *, day: bool = False, model: bool = True) -> Sums:
    found: Sums = {}
    for (window_s, customer, name, meter), numbers in sums.items():
        key = window_s - window_s % (86_400 if day else 60), customer, name if model else "", meter
        total = found.setdefault(key, [0, 0, Fraction(0)])
        for n, number in enumerate(numbers):
            total[n] += number
    return {key: numbers for key, numbers in found.items() if any(numbers)}


@settings(max_examples=60)
@given(events, books(), books())
def test_the_deltas_are_what_the_oracle_says(
    rows: list[tuple[int, str, str, dict[str, int]]], before: PriceBook, after: PriceBook
) -> None:
    corrector = Corrector("USD")
    for part in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
        if part:
            made = batch(part)
            corrector.add(made, cost_of(Rater(before), made), cost_of(Rater(after), made))
    cut: dict[str, list[pa.Table]] = {"rollup_minute": [], "rollup_day": []}
    for table, found in corrector.cut():
        cut[table].append(pa.Table.from_batches(found.batches, found.schema))
    whole = expected(rows, (before, after))
    assert of_rows(cut["rollup_minute"]) == whole
    assert of_rows(cut["rollup_day"]) == without(whole, day=True, model=False)
    corrected = corrector.corrected()
    assert of_corrections(corrected.minutes) == without(whole, model=False)
    days = without(whole, day=True, model=False)
    assert of_corrections(corrected.days) == days
    start_s = corrected.minutes.window_start_s
    assert of_corrections(corrected.minutes.coarser(start_s - start_s % np.uint32(86_400))) == days
    assert corrected.minutes.amount_femto() == sum(sums[2] for sums in whole.values())
    assert corrected.rollup_amount == sum(
        int(row[f"a{slot}"].scaleb(15)) for table in cut["rollup_day"] for row in table.to_pylist() for slot in range(4)
    )
    assert corrector.rows == 0


@settings(max_examples=100)
@given(events, st.one_of(books(), books(PLAIN)))
def test_where_the_rollups_do_a_minute_costs_what_its_events_cost(
    rows: list[tuple[int, str, str, dict[str, int]]], book: PriceBook
) -> None:
    scope = Scope(START_US - MINUTE_US, START_US + 5 * MINUTE_US)
    minutes: dict[tuple[int, str, str], dict[str, int]] = {}
    classes = set()
    for second, model, customer, usage in rows:
        sums = minutes.setdefault((second - second % 60, model, customer), {})
        for meter, quantity in usage.items():
            sums[meter] = sums.get(meter, 0) + quantity
            classes.add((model, "", "", customer, meter))
    if first_obstacle(book, scope, sorted(classes)) is not None:
        return
    by_event, by_minute = (
        rated_sums(found, book) for found in (rows, [(*key, usage) for key, usage in minutes.items()])
    )
    assert by_event == by_minute


def rated_sums(rows: list[tuple[int, str, str, dict[str, int]]], book: PriceBook) -> dict[Any, Any]:
    """(amount, unpriced) by minute, model, customer and meter, by the oracle; `requests` are not in a sum's usage."""
    found: dict[Any, Any] = {}
    for second, model, customer, usage in rows:
        event = Event(START_US + second * 10**6, tuple(usage.items()), {"model": model, "customer": customer})
        for meter, quantity, amount in rate_event(book.prices, book.unbilled, event, book.adjustments):
            if meter != "requests":
                sums = found.setdefault((second // 60, model, customer, meter), [Fraction(0), 0])
                sums[0] += amount or 0
                sums[1] += quantity * (amount is None)
    return found


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ("{meter: other, from: '2026-01-01T00:01:30Z', per: 1, price: '1'}", "changes at 2026-01-01T00:01:30Z"),
        ("{meter: other, from: '2026-01-01T00:00:00Z', per_started: 7, price: '1'}", "more than its own quantity"),
        ("{meter: other, from: '2026-01-01T00:05:00Z', per_started: 7, price: '1'}", None),
        ("{meter: other, from: '2026-01-01T00:00:00Z', per: 7, price: '7'}", None),
        ("{meter: output_tokens, from: '2026-01-01T00:00:00Z', per: 7, times: [images], price: '7'}", None),
    ],
)
def test_obstacles(row: str, why: str | None) -> None:
    book = parse_price_book(HEAD + f"  - {row}\n", "book")
    found = first_obstacle(book, Scope(START_US, START_US + 5 * MINUTE_US), [("m", "", "", "acme", "other")])
    assert (found is None) == (why is None)
    assert why is None or why in str(found)


NAMES = [(0, 1), (0, 3), (0, 7000), (1, 1), (2, 12), (2, 73)]
wide = st.one_of(st.integers(-(2**99), 2**99), st.integers(-9, 9))
sum_rows = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.integers(0, 2),
        st.integers(0, 1),
        st.integers(0, 15),
        st.lists(wide, min_size=8, max_size=8),
    ),
    max_size=20,
)


@settings(max_examples=30)
@given(sum_rows, st.integers(0, 20), st.booleans())
def test_sums_of_names_of_one_meter_are_exact(
    rows: list[tuple[int, int, int, int, list[int]]], cut: int, with_quantities: bool
) -> None:
    """given rows of a rollup in two batches, with amounts in several units
    when they are added up by customer, window and meter
    then whole amounts and remainders are those of plain Python, and what is nothing is left out"""
    rows = sorted(rows, key=lambda row: row[:2])
    fours = [0, 1, 2, 3, 4, 5, 0, 3]
    expected: dict[tuple[int, int, int], list[Any]] = {}
    for customer, window, code, mask, numbers in rows:
        for slot in range(4):
            meter, per = NAMES[fours[4 * code + slot]]
            sums = expected.setdefault((customer, window, meter), [Fraction(0), 0])
            sums[0] += Fraction(numbers[slot], per)
            sums[1] += numbers[4 + slot] * (mask >> slot & with_quantities)
    kernel = CorrectionSums(NAMES)
    written = [kernel.add(*columns(part, fours, with_quantities)) for part in (rows[:cut], rows[cut:])] + [kernel.end()]
    found = {}
    for out in written:
        keys = zip(*(np.frombuffer(out[n], np.int32).tolist() for n in range(3)), strict=True)
        numbers = (as_integers(halves(buffer, buffer.size // 16)).tolist() for buffer in out[3:])
        for key, unpriced, amount, remainder in zip(keys, *numbers, strict=True):
            assert 0 <= remainder < PER_OF_ALL
            assert key not in found
            found[key] = [amount + Fraction(remainder, PER_OF_ALL), unpriced]
    assert list(found) == sorted(found)
    assert found == {key: sums for key, sums in expected.items() if any(sums)}
    assert kernel.units == sum(sum(row[4][:4]) for row in rows)


def columns(rows: list[tuple[int, int, int, int, list[int]]], fours: list[int], with_quantities: bool) -> list[Any]:
    """The columns of such rows."""
    numbers = [[row[4][slot] for row in rows] for slot in range(8)]
    arrays = [
        pa.array([number.to_bytes(16, "little", signed=True) for number in slot], pa.binary(16)) for slot in numbers
    ]
    kinds = (pa.int32(), pa.uint32(), pa.int32(), pa.uint8())
    keys = [pa.array([row[n] for row in rows], kind) for n, kind in enumerate(kinds)]
    return [*keys[:3], pa.array(fours, pa.int32()), keys[3], arrays[:4], arrays[4:] if with_quantities else None]


def test_a_difference_beyond_128_bits_stops() -> None:
    made = batch([(0, "m", "acme", {"other": 1})])
    high, low = (
        Cost(np.frombuffer(number.to_bytes(16, "little", signed=True), np.uint64).reshape(1, 2), one, zero)
        for one, zero in [(np.ones(1, np.int64), np.zeros((1, 2), np.uint64))]
        for number in (2**126, -(2**126) - 1)
    )
    with pytest.raises(OverflowStop, match="difference of amounts"):
        Corrector("USD").add(made, low, high)
