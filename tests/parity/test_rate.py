"""Goal: Rater over real price books is flow.oracle.rating, amount by amount.

Method: books and instants by hand, then random books that load, and events about their instants.
"""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from itertools import pairwise, product

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import (
    PROPERTY,
    QUANTITIES,
    TIME_MAX_US,
    PlainEvent,
    event_batch,
    judged,
    numbers,
    plain_event,
)

from flow.errors import ConfigError, OverflowStop
from flow.kernels import CLASS_BITS, RateTable
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.schema import DIMENSIONS
from flow.steps.rate import Rater

UNPRICED, UNBILLED = 1, 2
NARROWING = ("model", "service_tier", "region", "customer")
JANUARY_US, FEBRUARY_US, MARCH_US = (
    (datetime(2026, month, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for month in (1, 2, 3)
)
INSTANTS = {
    "1970-01-01T00:00:00Z": 0,
    "2026-01-01T00:00:00Z": JANUARY_US,
    "2026-02-01T00:00:00.000001Z": FEBRUARY_US + 1,
    "2026-03-01T00:00:00Z": MARCH_US,
    "2106-02-07T06:28:15Z": TIME_MAX_US - 999_999,
}
TIMES_US = sorted({max(us + step, 0) for us in INSTANTS.values() for step in (-1, 0, 1)})


def book(*rows: str, unbilled: str = "", quantity_max: int = 2**63 - 1, rest: str = "") -> PriceBook:
    """Rows as they stand in YAML; those without `from` or `per` get the usual ones."""
    lines = []
    for row in rows:
        row = row.replace('price: "0"', "free: true")
        for key, usual in (("from", "2026-01-01T00:00:00Z"), ("per", "1_000_000")):
            row = row if f"{key}:" in row or "per_started:" in row or "withdrawn:" in row else f"{row}, {key}: {usual}"
        row = row if "from:" in row else f"{row}, from: 2026-01-01T00:00:00Z"
        lines.append(f"  - {{{row}}}\n")
    text = f"currency: USD\nprices:\n{''.join(lines) or '  []'}\nunbilled: [{unbilled}]\n{rest}"
    return parse_price_book(text, "prices.yaml", quantity_max)


def amounts_of(
    rater: Rater, batch: pa.RecordBatch, rows: list[int] | None = None
) -> tuple[list[list[Fraction | None]], list[int]]:
    """Per event the amount of each usage item (None is unpriced), and that of its `requests`."""
    rated = rater.rate(judged(batch, rows))
    by_item, flags = numbers(rated.amounts.amounts, signed=True), list(bytes(rated.amounts.flags))
    units = rated.events.column("usage").values.field("meter").to_pylist()
    starts = batch.column("usage").offsets.to_pylist()
    amounts: list[Fraction | None] = [None] * len(by_item)
    for row in range(batch.num_rows) if rows is None else rows:
        for at in range(starts[row], starts[row + 1]):
            assert by_item[at] == 0 or flags[at] not in (UNPRICED, UNBILLED), "only what is priced has an amount"
            _, _, per = units[at].partition("/")
            assert (per != "") == (flags[at] >= 4), "the name says which unit the amount is counted in"
            amounts[at] = None if flags[at] == UNPRICED else Fraction(by_item[at], int(per or 1))
    items = [amounts[lo:hi] for lo, hi in pairwise(starts)]
    return items, numbers(rated.amounts.requests, signed=True)


def oracle_of(prices: PriceBook, event: PlainEvent) -> tuple[list[Fraction | None], Fraction]:
    *items, requests = rate_event(
        prices.prices,
        prices.unbilled,
        Event(event["event_time_us"], tuple(event["usage"]), event),
        prices.adjustments,
    )
    assert requests[2] is not None
    return [amount for _, _, amount in items], requests[2]


def check(prices: PriceBook, events: list[PlainEvent], seed: int = 0, rows: list[int] | None = None) -> None:
    items, requests = amounts_of(Rater(prices), event_batch(events, seed), rows)
    for row in range(len(events)) if rows is None else rows:
        assert (items[row], requests[row]) == oracle_of(prices, events[row]), events[row]


def test_on_and_about_the_instant_of_a_price() -> None:
    prices = book('meter: a, price: "0.60"')
    events = [plain_event(event_time_us=JANUARY_US + step, usage=[("a", 1_000_000)]) for step in (-1, 0, 1)]
    assert amounts_of(Rater(prices), event_batch(events)) == (
        [[None], [600_000_000_000_000], [600_000_000_000_000]],
        [0, 0, 0],
    )


def test_supersessions() -> None:
    prices = book(*(f'meter: a, from: {instant}, price: "{n}"' for n, instant in enumerate(INSTANTS, 1)))
    check(prices, [plain_event(event_time_us=us, usage=[("a", 10**12)]) for us in TIMES_US])


def test_events_out_of_order_about_changes_of_price() -> None:
    """One rater over several batches, each of events of few classes whose times jump between, or run through, stretches
    in which other prices hold; `requests` and meters outside the book too."""
    rows = [f'meter: a, from: {instant}, price: "{n}"' for n, instant in enumerate(INSTANTS, 1)]
    rows += [f'meter: requests, per: 1, from: {instant}, price: "{n}"' for n, instant in enumerate(INSTANTS, 1)]
    prices = book(*rows, 'meter: b, from: 2026-02-01T00:00:00Z, price: "7", model: m')
    rater, rng = Rater(prices), random.Random(7)
    for times in (rng.choices(TIMES_US, k=150), sorted(rng.choices(TIMES_US, k=150)), TIMES_US[::-1], TIMES_US[:1] * 9):
        events = [
            plain_event(event_time_us=us, model=rng.choice("mx"), usage=[("b", 1), ("c", 2), ("a", n)])
            for n, us in enumerate(times)
        ]
        items, requests = amounts_of(rater, event_batch(events))
        assert [*zip(items, requests, strict=True)] == [oracle_of(prices, event) for event in events]


def test_narrowing_by_all_four_dimensions() -> None:
    """Each narrowing of a chain holds from its own instant; what is wider holds until then, and for all others."""
    chain = [NARROWING[:n] for n in range(5)]
    rows = [
        f'meter: a, from: {instant}, price: "{n + 1}"' + "".join(f", {name}: x" for name in names)
        for n, (names, instant) in enumerate(zip(chain, INSTANTS, strict=True))
    ]
    prices = book(*rows)
    events = [
        plain_event(event_time_us=us, usage=[("a", 3)], **dict(zip(NARROWING, values, strict=True)))
        for us in TIMES_US
        for values in product(("x", "y"), repeat=4)
    ]
    check(prices, events)


@pytest.mark.parametrize("dimension", NARROWING)
def test_a_name_is_matched_whole(dimension: str) -> None:
    prices = book(f'meter: a, price: "2", {dimension}: "é"', 'meter: a, price: "1"')
    names = ["é", "e\u0301", "É", "éé", "", "é ", "é\0", "unused 0"]
    check(prices, [plain_event(event_time_us=MARCH_US, usage=[("a", 1)], **{dimension: name}) for name in names], 7)


def test_unbilled_unpriced_and_unknown_meters() -> None:
    prices = book('meter: a, price: "1"', 'meter: b, price: "1", model: big', unbilled="images, never_seen")
    usage = [("images", 5), ("nobody_knows", 5), ("a", 5), ("b", 5), ("requests_", 5)]
    events = [plain_event(event_time_us=MARCH_US, usage=usage, model=model) for model in ("big", "small")]
    assert amounts_of(Rater(prices), event_batch(events))[0] == [
        [0, None, 5 * 10**9, 5 * 10**9, None],
        [0, None, 5 * 10**9, None, None],
    ]
    check(prices, events)


def test_requests_priced_and_free() -> None:
    free, priced = book('meter: a, price: "1"'), book('meter: requests, price: "0.25", per: 1, model: m')
    events = [
        plain_event(event_time_us=us, model=model, usage=[])
        for us in (JANUARY_US - 1, JANUARY_US)
        for model in ("m", "n")
    ]
    assert amounts_of(Rater(free), event_batch(events))[1] == [0, 0, 0, 0]
    assert amounts_of(Rater(priced), event_batch(events))[1] == [0, 0, 250_000_000_000_000, 0]
    check(priced, events)


def test_an_empty_book() -> None:
    check(book(), [plain_event(usage=[("a", 1)]), plain_event(usage=[])])


def test_every_edge_of_quantities() -> None:
    rates = ["0", "0.000000000000001", "1e-9", "9.2", "9223.372036854775807", "9223.372036854775808"]
    prices = book(*(f'meter: m{n}, per: 1, price: "{rate}"' for n, rate in enumerate(rates)))
    usage = [f"m{n}" for n in range(len(rates))]
    events = [
        plain_event(event_time_us=MARCH_US, usage=[(meter, quantity) for meter in usage]) for quantity in QUANTITIES
    ]
    check(prices, events)


WIDE_RATE = 10**35
ROOM = (2**127 - 1) // WIDE_RATE


def test_rates_beyond_64_bits() -> None:
    prices = book('meter: a, per: 1, price: "1e20"', quantity_max=ROOM)
    assert prices.prices[0].rate_femto == WIDE_RATE
    check(prices, [plain_event(event_time_us=MARCH_US, usage=[("a", quantity)]) for quantity in (0, 1, 2, ROOM)])


def test_row_14_an_amount_beyond_128_bits_stops() -> None:
    """Nothing wraps: not one above the largest number, nor far above it."""
    prices = book('meter: a, per: 1, price: "1e20"', 'meter: b, price: "1"', quantity_max=ROOM)
    for quantity in (ROOM + 1, 2 * ROOM, 2**63 - 1):
        events = [plain_event(event_time_us=MARCH_US, usage=[("b", 1), ("a", q)]) for q in (1, quantity, 1)]
        with pytest.raises(OverflowStop, match="rate: quantity x rate does not fit in 128 bits at row 1 of the batch"):
            amounts_of(Rater(prices), event_batch(events))
        check(prices, events, rows=[0, 2])


def test_a_selection_leaves_other_rows_alone() -> None:
    """Given buffers full of ones, when two rows of four are rated, then the others are as they were."""
    events = [plain_event(event_time_us=MARCH_US, usage=[("a", n), ("b", n)]) for n in range(4)]
    batch = event_batch(events)
    table = RateTable(2)
    timeline = table.add_timeline([(0, table.add_rate(7))])
    table.add_combination(0, table.add_vector([timeline, timeline]))
    filled = [pa.py_buffer(bytearray(b"\xff" * size)) for size in (8 * 16, 8, 4 * 16, 4)]
    rows, classes = [2, 0], pa.py_buffer(bytes(4 * 8))
    usage = batch.column("usage")
    meter = usage.values.field("meter")
    chosen = pa.array(rows, pa.uint32()).buffers()[1]
    codes = tuple(batch.column(name).indices.buffers()[1].address for name in DIMENSIONS[:4])
    missing = table._table.rate(
        len(rows),
        chosen.address,
        batch.column("event_time_us").buffers()[1].address,
        codes,
        (classes.address,) * 4,
        usage.buffers()[1].address,
        meter.indices.buffers()[1].address,
        classes.address,
        usage.values.field("quantity").buffers()[1].address,
        *(buffer.address for buffer in filled),
    )
    assert missing == []
    assert numbers(filled[0], signed=True) == [0, 0, -1, -1, 14, 14, -1, -1]
    assert list(bytes(filled[1])) == [0, 0, 255, 255, 0, 0, 255, 255]
    assert numbers(filled[2], signed=True) == [7, -1, 7, -1]
    assert list(bytes(filled[3])) == [0, 255, 0, 255]


def test_no_rows() -> None:
    prices = book('meter: a, price: "1"')
    assert amounts_of(Rater(prices), event_batch([])) == ([], [])
    events = [plain_event(usage=[("a", 1)])]
    amounts_of(Rater(prices), event_batch(events), rows=[])
    assert amounts_of(Rater(prices), event_batch(events).take(pa.array([], pa.int32()))) == ([], [])


def test_many_combinations_of_classes() -> None:
    """More combinations than the first table has room for, met in one batch and again in the next."""
    names = [f"c{n}" for n in range(1500)]
    prices = book(*(f'meter: a, price: "{n + 1}", customer: {name}' for n, name in enumerate(names)))
    rater = Rater(prices)
    events = [plain_event(event_time_us=MARCH_US, customer=name, usage=[("a", 2)]) for name in [*names, "z"]]
    wanted = [[2 * (n + 1) * 10**9] for n in range(len(names))] + [[None]]
    assert amounts_of(rater, event_batch(events))[0] == wanted
    assert amounts_of(rater, event_batch(events[::-1], 3))[0] == wanted[::-1]


def test_a_combination_that_looks_like_an_empty_slot_is_refused() -> None:
    table = RateTable(1)
    vector = table.add_vector([RateTable.UNPRICED])
    with pytest.raises(ValueError, match="would look like an empty slot"):
        table.add_combination((1 << sum(CLASS_BITS)) - 1, vector)
    table.add_combination(0, vector)
    with pytest.raises(ValueError, match="known already"):
        table.add_combination(0, vector)
    with pytest.raises(ValueError, match="there is no vector"):
        table.add_combination(1, vector + 1)
    with pytest.raises(ValueError, match="one timeline a book meter"):
        table.add_vector([])


def test_a_book_may_name_any_text() -> None:
    """The Rater stands for 'any other value' with a name of its own, which no price may have."""
    prices = book('meter: a, price: "5", model: "\\0"', 'meter: a, price: "1"')
    events = [plain_event(event_time_us=MARCH_US, usage=[("a", 1)], model=model) for model in ("", "x", "\0")]
    check(prices, events)


NAMES = ("x", "y", "é")
ROWS = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "requests"]),
        *(st.sampled_from([None, None, *NAMES]) for _ in NARROWING),
        st.sampled_from(list(INSTANTS)),
        st.sampled_from(["0", "0.60", "3", "0.000000001", "7.5"]),
    ),
    max_size=12,
)


def loadable(rows: list[tuple[str | None, ...]]) -> PriceBook:
    """A book of those rows that do not tie with rows before them."""
    kept: list[str] = []
    prices = book(unbilled="images")
    for meter, *names, instant, price in rows:
        row = f'meter: {meter}, from: {instant}, price: "{price}"'
        row += "".join(f", {key}: {name}" for key, name in zip(NARROWING, names, strict=True) if name)
        try:
            prices = book(*kept, row, unbilled="images")
        except ConfigError as error:
            assert all("ties with" in line or "same meter" in line for line in error.errors)
        else:
            kept.append(row)
    return prices


@PROPERTY
@given(ROWS, st.integers(0, 2**32))
def test_rater_is_oracle(rows: list[tuple[str | None, ...]], seed: int) -> None:
    prices, rng = loadable(rows), random.Random(seed)
    events = [
        plain_event(
            event_time_us=rng.choice(TIMES_US),
            usage=[(meter, rng.choice(QUANTITIES)) for meter in rng.sample(["a", "b", "images", "other"], 3)],
            **{name: rng.choice([*NAMES, "", "z"]) for name in NARROWING},
        )
        for _ in range(24)
    ]
    chosen = rng.sample(range(24), rng.randint(0, 24)) if seed % 2 else None
    check(prices, events, seed, chosen)
