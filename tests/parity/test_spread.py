"""Goal: `spread` loses no quantity on the way into columns, and puts none elsewhere. Method: random events, all of them
and any selection, against plain Python."""

import random

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY, PlainEvent, event_batch, event_batches, plain_event, random_events, selection
from tests.oracle.spread import spread

from flow.kernels.ledger import spread_usage
from flow.schema import STANDARD_METERS

METERS = ("output_tokens", "a", "input_tokens", "of nobody")


def check(events: list[PlainEvent], batch: pa.RecordBatch, rows: list[int] | None, meters: tuple[str, ...]) -> None:
    chosen = events if rows is None else [events[row] for row in rows]
    columns, left = spread_usage(batch, None if rows is None else selection(rows), len(chosen), meters)
    expected, expected_left = spread(chosen, meters)
    for column, values in zip(columns, expected, strict=True):
        column.validate(full=True)
        assert column.to_pylist() == values
    if not any(expected_left):
        assert left is None
    else:
        left.validate(full=True)
        found = [[(item["meter"], item["quantity"]) for item in items] for items in left.to_pylist()]
        assert found == expected_left


@PROPERTY
@given(event_batches(), st.data())
def test_kernel_is_oracle(given_batch: tuple[list[PlainEvent], pa.RecordBatch], data: st.DataObject) -> None:
    events, batch = given_batch
    places = st.sampled_from(range(len(events))) if events else st.nothing()
    rows = data.draw(st.none() | st.lists(places, unique=True))
    check(events, batch, rows, data.draw(st.sampled_from([METERS, STANDARD_METERS, ()])))


@pytest.mark.parametrize("seed", range(3))
def test_kernel_is_oracle_over_larger_batches(seed: int) -> None:
    events = random_events(seed, 300)
    check(events, event_batch(events, seed), None, STANDARD_METERS)
    rows = sorted(random.Random(seed).sample(range(300), 150))
    check(events, event_batch(events, seed), rows, STANDARD_METERS)


@pytest.mark.parametrize("usage", [["a", "input_tokens"], ["input_tokens"], ["a", "left"], []])
@pytest.mark.parametrize("other", [None, 0, 7, 19])
@pytest.mark.parametrize("another", [["input_tokens", "a"], ["a"], ["a", "output_tokens"], ["left"]])
def test_events_that_are_alike(usage: list[str], other: int | None, another: list[str]) -> None:
    """All of them, or all but one."""
    lists = [another if row == other else usage for row in range(20)]
    events = [plain_event(usage=[(name, row * 10 + n) for n, name in enumerate(u)]) for row, u in enumerate(lists)]
    check(events, event_batch(events), None, METERS)
    check(events, event_batch(events), list(range(20)), METERS)


def test_what_is_not_selected_is_not_looked_at() -> None:
    events = [plain_event(usage=[("a", n)] if n % 3 else [("left", n)]) for n in range(100)]
    check(events, event_batch(events), [row for row in range(100) if row % 3], METERS)


def test_too_many_columns_are_refused() -> None:
    names = tuple(f"m{n}" for n in range(17))
    batch = event_batch([plain_event(usage=[(name, 1) for name in names])])
    with pytest.raises(ValueError, match="17 columns are more than 16"):
        spread_usage(batch, None, 1, names)
