"""Goal: a block's tables mean what tests.oracle.combine sums up in a dict.

Method: the tables are unpivoted as the store's views do it, and compared whole: quantity, amount, events, digest,
unpriced.
"""

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import (
    DAY_US,
    MINUTE_US,
    ODD_TEXTS,
    PROPERTY,
    TIME_MAX_US,
    USAGE_SIZES,
    PlainEvent,
    event_batch,
    plain_event,
    plain_events,
    random_events,
    rated,
)
from tests.oracle.combine import GRAINS, Rollup, Tables, assert_in_store_order, combined, merged, read_tables, unpivoted

import flow.kernels
from _core import combine as kernel
from flow.errors import OverflowStop
from flow.kernels import name_hash
from flow.oracle.hashing import event_digest, fingerprint, payload_hash
from flow.schema import DIMENSIONS
from flow.steps.combine import BATCH_ROWS, BlockBuilder

STORE_MAX = 2**100 - 1
INT128_MAX = 2**127 - 1

Priced = tuple[PlainEvent, list[int | None], int]
"""An event, the amount of each usage item (None is unpriced), and that of its `requests`."""


def builder(rows_per_table_max: int = 1_000_000) -> BlockBuilder:
    return BlockBuilder("USD", rows_per_table_max)


def add(block: BlockBuilder, priced: Sequence[Priced], rows: Sequence[int] | None = None, seed: int | None = 0) -> None:
    events = event_batch([event for event, _, _ in priced], seed)
    block.add(rated(events, [amounts for _, amounts, _ in priced], [request for _, _, request in priced], rows))


def cut(block: BlockBuilder) -> Tables:
    tables = read_tables(block.cut("lineage", "writer", 1, 0))
    block.clear()
    assert_in_store_order(tables)
    return tables


def truth(priced: Sequence[Priced]) -> Rollup:
    events, amounts, requests = zip(*priced, strict=True) if priced else ((), (), ())
    return combined(events, amounts, requests)


def check(priced: Sequence[Priced], rows_per_table_max: int = 1_000_000) -> Tables:
    """One batch, one block."""
    block = builder(rows_per_table_max)
    add(block, priced)
    tables = cut(block)
    assert unpivoted(tables) == truth(priced)
    return tables


def one(**fields: Any) -> Priced:
    """An event whose meters cost 2 a unit."""
    event = plain_event(**fields)
    return event, [2 * quantity for _, quantity in event["usage"]], 5


def priced_at_random(seed: int, count: int) -> list[Priced]:
    rng = random.Random(seed)
    priced: list[Priced] = []
    for event in random_events(seed, count):
        amounts = [rng.choice([None, 0, 1, q * 7, 2**64 + 3, -q, 10**24]) for _, q in event["usage"]]
        priced.append((event, amounts, rng.choice([0, 1, 10**15, 2**65])))
    return priced


def pieces(priced: Sequence[Priced], rng: random.Random) -> list[Sequence[Priced]]:
    bounds = sorted({0, len(priced), *(rng.randrange(len(priced) + 1) for _ in range(4))})
    return [priced[lo:hi] for lo, hi in pairwise(bounds)]


AMOUNT = st.one_of(st.none(), st.sampled_from([0, 1, -1, 2**63, 2**64, 2**64 - 1, 10**28, -(10**28)]))


@st.composite
def priced_events(draw: st.DrawFn) -> Priced:
    event = draw(plain_events())
    few = draw(st.lists(AMOUNT, min_size=1, max_size=6))
    return event, [few[n % len(few)] for n in range(len(event["usage"]))], draw(st.sampled_from([0, 1, 2**64, 10**28]))


def with_own_ids(priced: list[Priced]) -> list[Priced]:
    return [(event | {"id": f"{n} {event['id']}"}, amounts, rq) for n, (event, amounts, rq) in enumerate(priced)]


@PROPERTY
@given(st.lists(priced_events(), max_size=10).map(with_own_ids), st.integers(1, 40))
def test_kernel_is_oracle(priced: list[Priced], rows_per_table_max: int) -> None:
    check(priced, rows_per_table_max)


@pytest.mark.parametrize("seed", range(4))
def test_larger_blocks(seed: int) -> None:
    """Some hundred events, of which many share windows and keys: several blocks of 32 rows, and growing tables."""
    check(priced_at_random(seed, 500), 97)


@pytest.mark.parametrize("seed", range(4))
def test_order_and_cut_are_of_no_weight(seed: int) -> None:
    priced, rng = priced_at_random(seed, 300), random.Random(seed)
    wanted = merged(check(priced))
    for _ in range(3):
        shuffled = rng.sample(priced, len(priced))
        block = builder()
        for n, part in enumerate(pieces(shuffled, rng)):
            add(block, part, seed=n)
        assert merged(cut(block)) == wanted


@pytest.mark.parametrize("seed", range(4))
def test_blocks_add_up(seed: int) -> None:
    """Given events over several blocks of several writers, then the merged rows are those of one block."""
    priced, rng = priced_at_random(seed, 300), random.Random(seed)
    writers = [builder(), builder()]
    tables: Tables = []
    for part in pieces(rng.sample(priced, len(priced)), rng):
        block = rng.choice(writers)
        add(block, part)
        tables += cut(block)
    assert unpivoted(tables) == truth(priced)
    assert merged(tables) == merged(check(priced))


@pytest.mark.parametrize("seed", range(3))
def test_the_order_of_meters_makes_no_key(seed: int) -> None:
    """Given events whose meters stand in other orders, then they share their keys and rows."""
    usage = [(f"m{n}", n + 1) for n in range(9)]
    rng = random.Random(seed)
    priced = [one(id=str(n), usage=rng.sample(usage, len(usage))) for n in range(40)]
    tables = check(priced)
    assert [(name, table.num_rows) for name, table in tables[:2]] == [
        ("rollup_minute", 3),
        ("rollup_day", 3),
    ]


def test_a_selection_leaves_other_rows_out() -> None:
    """The amounts and flags of rows that are not selected are rubbish (see `rated`), and nobody looks at them."""
    priced, rng = priced_at_random(1, 200), random.Random(1)
    chosen = sorted(rng.sample(range(200), 70))
    block = builder()
    add(block, priced, chosen)
    add(block, priced, [])
    tables = cut(block)
    assert unpivoted(tables) == truth([priced[n] for n in chosen])


# --- windows ----------------------------------------------------------------------------------------------


def us(year: int, month: int, day: int, hour: int = 0, minute: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, tzinfo=UTC).timestamp()) * 1_000_000


EDGES_US = {
    "first instant": 0,
    "minute": us(2026, 11, 1, 12, 1),
    "day": us(2026, 11, 2),
    "month": us(2026, 12, 1),
    "year": us(2027, 1, 1),
    "leap day": us(2028, 2, 29),
    "behind the leap day": us(2028, 3, 1),
    "2038": 2**31 * 1_000_000,
    "last instant": TIME_MAX_US,
}


@pytest.mark.parametrize("edge", EDGES_US)
def test_windows_about_an_edge(edge: str) -> None:
    edge_us = EDGES_US[edge]
    near = {edge_us + step for step in (-DAY_US, -MINUTE_US, -1, 0, 1, MINUTE_US - 1, MINUTE_US)}
    times_us = sorted(time_us for time_us in near if 0 <= time_us <= TIME_MAX_US)
    check([one(id=str(n), event_time_us=time_us) for n, time_us in enumerate(times_us)])


def test_the_first_and_the_last_window() -> None:
    tables = dict(check([one(event_time_us=0), one(event_time_us=TIME_MAX_US)]))
    assert tables["rollup_minute"].column("window_start").to_pylist() == [0, 2**32 - 16]
    assert tables["rollup_day"].column("window_start").to_pylist() == [0, us(2106, 2, 7) // 1_000_000]


# --- meters, keys and customers -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [*USAGE_SIZES, 1023, 1024])
def test_events_of_many_meters(size: int) -> None:
    usage = [(f"m{n}", 10**6 + n) for n in range(size)]
    event, amounts, requests = one(usage=usage)
    tables = check([(event, [None if n % 3 == 0 else amount for n, amount in enumerate(amounts)], requests)])
    assert dict(tables)["rollup_minute"].num_rows == 1 + size // 4


def test_more_meters_than_a_decoder_lets_through_are_refused() -> None:
    with pytest.raises(ValueError, match="an event has more than 1024 meters"):
        check([one(), one(usage=[(f"m{n}", 1) for n in range(1025)])])


def test_unpriced_and_priced_quantities_of_one_meter_stay_apart() -> None:
    """A meter may get its first price within a window."""
    events = [plain_event(id=str(n), usage=[("a", 10), ("b", 1)]) for n in range(3)]
    tables = check([(events[0], [None, 1], 0), (events[1], [20, 1], 0), (events[2], [None, None], 0)])
    masks = dict(tables)["rollup_minute"].column("unpriced").to_pylist()
    assert sorted(mask.bit_count() for mask in masks) == [0, 1, 2]


def test_rows_of_two_shapes_may_share_a_store_key() -> None:
    """Given events that agree in the first four slots only, then their rows come apart and add up under one key."""
    by_hash = sorted((f"m{n}" for n in range(6)), key=name_hash)
    shared, others = by_hash[:3], by_hash[3:5]
    priced = [one(id=other, usage=[(meter, 7) for meter in (*shared, other)]) for other in others]
    tables = check(priced)
    assert dict(tables)["rollup_minute"].num_rows == 4
    assert len([row for row in merged(tables) if row[0] == "rollup_minute"]) == 3


def test_a_block_names_its_own_values_only() -> None:
    """Given blocks one after the other, then a table's dictionaries hold what its own block has met."""
    block = builder()
    for customers in (["a", "b"], ["b", "c"], ["é"]):
        add(block, [one(id=customer, customer=customer) for customer in customers])
        for name, table in cut(block):
            if name in GRAINS:
                [*dictionaries] = {tuple(chunk.dictionary.to_pylist()) for chunk in table.column("customer").chunks}
                assert [sorted(names) for names in dictionaries] == [customers]


def test_batches_with_one_dictionary() -> None:
    """Given batches of one block with the same dictionaries, in which each names other values, and then the next block,
    then no value is another's."""
    names = ["a", "b", "c", "d", "é", ""]
    events = event_batch([plain_event(id=name, customer=name, model=name[::-1]) for name in names])
    block = builder()
    for picked in ([3, 1], [1, 3, 0], [5, 4], [2, 4]):
        add_rows = events.take(pa.array(picked))
        assert add_rows.column("customer").dictionary.equals(events.column("customer").dictionary)
        block.add(rated(add_rows, [[1]] * len(picked), [0] * len(picked)))
        if picked == [5, 4]:
            assert _events_by_customer(cut(block)) == {"a": 1, "b": 2, "d": 2, "é": 1, "": 1}
    assert _events_by_customer(cut(block)) == {"c": 1, "é": 1}


def _events_by_customer(tables: Tables) -> dict[str, int]:
    [minutes] = [table for name, table in tables if name == "rollup_minute"]
    assert minutes.column("customer").to_pylist() == [name[::-1] for name in minutes.column("model").to_pylist()]
    return dict(zip(minutes.column("customer").to_pylist(), minutes.column("events").to_pylist(), strict=True))


@pytest.mark.parametrize("count", [127, 128, 32_767, 32_768])
def test_codes_as_wide_as_they_must_be(count: int) -> None:
    """Given as many values of a dimension as a width of codes can tell apart, or one more, then none is another's."""
    names = [f"m{n}" for n in range(count)]
    block = builder()
    events = event_batch([plain_event(model="", usage=[])]).take(pa.array([0] * count))
    at = events.schema.get_field_index("model")
    events = events.set_column(at, events.schema.field(at), pa.array(names).dictionary_encode())
    block.add(rated(events, [[]] * count, [0] * count))
    [(_, table)] = [pair for pair in cut(block) if pair[0] == "rollup_minute"]
    assert sorted(table.column("model").to_pylist()) == sorted(names)


def test_batches_left_unread_are_an_error() -> None:
    """The days are added up while the minutes are read: a reader that skips them must not go unseen."""
    block = builder()
    add(block, [one(id=str(n), customer=f"c{n}") for n in range(BATCH_ROWS + 1)])
    with pytest.raises(ValueError, match="were not read"):
        list(block.cut("lineage", "writer", 1, 0))


def test_too_many_shapes_are_forgotten_behind_a_block() -> None:
    block = builder()
    block._combiner._combiner = small = kernel.Combiner(*map(name_hash, ("USD", "requests", "")), 100)
    for first, known in ((0, 0), (1, 0), (2, 60), (3, 0)):
        priced = [one(id=str(n), usage=[(f"m{n}", 1), (f"n{first}", 1)]) for n in range(60 if first == 2 else 120)]
        add(block, priced)
        assert unpivoted(cut(block)) == truth(priced)
        assert small.shape_number == known


def test_customers_are_sorted_by_their_bytes() -> None:
    names = [*ODD_TEXTS, "Z", "z", "Å", "A\u030a", "\u00ff", "\U00010000", "\ud7ff"]
    tables = dict(check([one(id=str(n), customer=name) for n, name in enumerate(names)]))
    assert tables["rollup_day"].column("customer").to_pylist() == sorted(names, key=str.encode)


def test_many_keys_and_windows() -> None:
    """More groups and keys than the first tables have room for, over two blocks."""
    priced = [
        one(id=str(n), customer=f"c{n % 3000}", project=f"p{n % 7}", event_time_us=n * MINUTE_US, usage=[("a", n)])
        for n in range(7000)
    ]
    block = builder(rows_per_table_max=999)
    tables: Tables = []
    for part in (priced[:4000], priced[4000:]):
        add(block, part)
        tables += cut(block)
    assert unpivoted(tables) == truth(priced)


def test_many_keys_in_one_window_are_in_the_order_of_the_store() -> None:
    """Many customers and windows far apart leave few bits for keys in one word: keys that agree in these come too."""
    events = [plain_event(customer=f"c{n}", event_time_us=TIME_MAX_US * (n % 2), usage=[]) for n in range(1000)]
    events += [plain_event(project=str(n), usage=[]) for n in range(30_000)]
    block = builder()
    block.add(rated(event_batch(events), [[]] * len(events), [0] * len(events)))
    tables = cut(block)
    assert dict(tables)["rollup_minute"].num_rows == len(events)
    assert dict(tables)["rollup_day"].num_rows == 1001


def test_many_orders_of_meters_take_bounded_memory() -> None:
    """Given a producer that shuffles its meters, then orders are forgotten now and then, and no sum is."""
    rng, block = random.Random(0), builder()
    usage = [(f"m{n}", n) for n in range(12)]
    priced = [one(id=str(n), usage=rng.sample(usage, len(usage))) for n in range(5000)]
    add(block, priced)
    assert block._combiner._combiner.raw_count <= 4096
    add(block, priced[:100])
    tables = cut(block)
    assert unpivoted(tables) == truth([*priced, *priced[:100]])
    assert dict(tables)["rollup_minute"].num_rows == 4


# --- nothing at all -------------------------------------------------------------------------------------------


def test_a_block_of_nothing() -> None:
    block = builder()
    add(block, [])
    assert [(name, table.num_rows) for name, table in cut(block)] == [("watermarks", 1), ("pipeline_balance", 0)]
    add(block, [one()])
    tables = cut(block)
    assert unpivoted(tables) == truth([one()])


def test_whether_a_block_is_empty() -> None:
    block = builder()
    steps = [block.empty]
    for step in (lambda: add(block, []), lambda: add(block, [one()]), lambda: cut(block)):
        step()
        steps.append(block.empty)
    assert steps == [True, True, False, True]


# --- large numbers ----------------------------------------------------------------------------------------------


def test_sums_past_64_bits() -> None:
    events = [plain_event(id=str(n), usage=[("a", 2**63 - 1)]) for n in range(100)]
    tables = check([(event, [2**63], 2**64) for event in events])
    rollup = unpivoted(tables)
    [row] = [sums for (table, _, meter, _), sums in rollup.items() if (table, meter) == ("rollup_day", "a")]
    assert (row.quantity, row.amount) == (100 * (2**63 - 1), 100 * 2**63)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("at", range(7))
def test_one_sum_past_64_bits_among_others(at: int, sign: int) -> None:
    """Given an event of which one number alone, any of them, takes its sum past 64 bits, then it is counted once, and
    so are those before and behind it."""
    numbers = [[5] * 7, [7] * 7, [11] * 7]
    numbers[0][at] = numbers[1][at] = 2**63 - 3
    if at > 2:  # an amount
        numbers[0][at], numbers[1][at] = sign * numbers[0][at], sign * numbers[1][at]
    priced: list[Priced] = []
    for number, (a, b, c, *amounts, requests) in enumerate(numbers):
        event = plain_event(id=str(number), usage=[("a", a), ("b", b), ("c", c)])
        priced.append((event, [*amounts], requests))
    check(priced)


def test_digests_wrap() -> None:
    """A digest alone may go past 128 bits."""
    priced = [one(id=str(n)) for n in range(64)]
    digests = [event_digest(fingerprint("s", e["id"]), payload_hash(e, e["usage"])) for e, _, _ in priced]
    assert sum(digests) > 2**128
    check(priced)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("meter", ["a", "requests"])
def test_amounts_up_to_what_the_store_takes(sign: int, meter: str) -> None:
    """2^100 - 1 passes; one more, in the sum, is an OverflowStop and no wrong number."""

    def amounts(*femto: int) -> list[Priced]:
        events = [plain_event(id=str(n), usage=[("a", 1)]) for n in range(len(femto))]
        return [
            (event, [sign * amount], 0) if meter == "a" else (event, [0], sign * amount)
            for event, amount in zip(events, femto, strict=True)
        ]

    check(amounts(STORE_MAX))
    check(amounts(STORE_MAX - 7, 7))
    for beyond in ((STORE_MAX + 1,), (STORE_MAX, 1), (INT128_MAX,)):
        with pytest.raises(OverflowStop, match=r"of a window beyond 2\^100"):
            check(amounts(*beyond))


@pytest.mark.parametrize("sign", [1, -1])
def test_row_14_a_sum_of_a_minute_beyond_128_bits_stops(sign: int) -> None:
    event = plain_event(usage=[("a", 1)])
    for amount, request in ((sign * INT128_MAX, 0), (0, sign * INT128_MAX)):
        block = builder()
        add(block, [(event, [amount], request)])
        with pytest.raises(OverflowStop, match="combine: a 128-bit sum of a window would not fit in 128 bits"):
            add(block, [(event, [amount], request)])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_sum_of_a_day_beyond_128_bits_stops(sign: int) -> None:
    block = builder()
    add(block, [(plain_event(event_time_us=n * MINUTE_US), [sign * INT128_MAX], 0) for n in range(2)])
    with pytest.raises(OverflowStop, match="combine: a 128-bit sum of a day would not fit in 128 bits"):
        cut(block)


def test_a_day_may_be_too_large_where_no_minute_is() -> None:
    block = builder()
    add(block, [(plain_event(event_time_us=0), [STORE_MAX], 0), (plain_event(event_time_us=MINUTE_US), [1], 0)])
    with pytest.raises(OverflowStop, match=r"beyond 2\^100"):
        cut(block)


# --- what the kernel refuses ------------------------------------------------------------------------------------


def test_the_kernel_refuses_to_be_misused() -> None:
    with pytest.raises(ValueError, match="hashes of 16 bytes"):
        kernel.Combiner(b"", name_hash("requests"), name_hash(""))
    block = builder()
    add(block, [one()])
    kernel_of_block = block._combiner._combiner
    block._combiner.cut()
    rows = block._combiner.sort(False, pa.array([0], pa.int32()))
    with pytest.raises(ValueError, match="rows out of range"):
        kernel_of_block.write(False, 0, rows + 1, (0,) * 6, (0,) * 6, 0, 0, 0, 0, 0, 0, 0, 0, (0,) * 4, (0,) * 4)


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_tells_keys_apart(dimension: str) -> None:
    check([one(id=str(n), **{dimension: text}) for n, text in enumerate(ODD_TEXTS)])


def test_memory_is_made_ready_behind_what_is_filled_and_told_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given blocks of more records than the first memory holds, then each leaves as the same rows as without; of the
    second, which needs no more memory than the first, none is told."""
    told: list[tuple[int, int]] = []

    def touch_ahead(growing: kernel.Combiner) -> None:
        pieces = growing.ahead()
        assert not growing.ahead()
        for piece in pieces:
            growing.touch(*piece)
        told.extend(pieces)

    rows = 20_000
    events = event_batch([plain_event(id=str(n)) for n in range(rows)])
    place = events.schema.get_field_index("event_time_us")
    batches = []
    for first in range(0, 3 * rows, rows):
        times = pa.array(range(first * MINUTE_US, (first + rows) * MINUTE_US, MINUTE_US), pa.int64())
        batches.append(rated(events.set_column(place, events.schema.field(place), times), [[2]] * rows, [5] * rows))
    left = []
    for ready in (touch_ahead, lambda growing: None):
        monkeypatch.setattr(flow.kernels, "touch_ahead", ready)
        block = builder()
        for turn in range(2):
            for batch in batches:
                block.add(batch)
            assert bool(told) == (ready is touch_ahead and turn == 0)
            told.clear()
            left.append(read_tables(block.cut("lineage", "writer", 1, 0)))
            block.clear()
    assert left[0] == left[1] == left[2] == left[3]
