"""Sums of usage by hour and key, and sizes of samples, against plain Python."""

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY

from flow.kernels import SLOTS
from flow.kernels.anomalies import UsageSums, sampled

WIDE = st.one_of(st.integers(0, 2**20), st.integers(-(2**127), 2**127 - 1))
ROW = st.tuples(
    st.integers(0, 4),  # customer
    st.integers(0, 2),  # model
    st.integers(0, 2),  # set of meters
    st.integers(0, 3 * 3600),
    st.integers(0, 15),  # unpriced slots
    st.integers(0, 2**40),
    st.lists(st.tuples(WIDE, WIDE), min_size=SLOTS, max_size=SLOTS),
)
CUSTOMERS, MODELS, HASHES = [7, 0, 2**25, 3, 4], [5, 2**26 - 1, 0], [10, 20, 30, 40, 50]
PERS, FIRST = [[0, 0, 0, 0], [0, 1, 0, 63], [2, 2, 0, 0]], [1, 1, 0]
"""Of three sets of meters: denominators, and whether the first slot is the requests."""
Sums = dict[tuple[int, int], list[int]]


def added(sums: UsageSums, rows: list[Any], limits: list[int], least: int, sign: int) -> None:
    columns = [list(column) for column in zip(*rows, strict=True)] or [[]] * 7
    wide = [
        [b"".join((row[slot][n] % 2**128).to_bytes(16, "little") for row in columns[6]) for slot in range(SLOTS)]
        for n in (0, 1)
    ]
    sums.add(
        tuple(np.array(column, np.int32) for column in columns[:3]),
        np.array(columns[3], np.uint32),
        np.array(columns[4], np.uint8),
        np.array(columns[5], np.uint64),
        *([np.frombuffer(column, np.int8) for column in of] for of in wide),
        (np.array(CUSTOMERS), np.array(MODELS), np.array(PERS, np.uint8).ravel(), np.array(FIRST, np.uint8)),
        (np.array(HASHES, np.uint64), np.array(limits, np.uint64), 1),
        least,
        sign,
    )


def plain(truth: Sums, rows: list[Any], limits: list[int], least: int, sign: int) -> None:
    """The same, a row and a slot at a time."""
    for customer, model, meters, window_s, unpriced, events, slots in rows:
        hour = window_s // 3600
        if hour < least or (1 <= hour <= len(limits) and HASHES[customer] >= limits[hour - 1]):
            continue
        key = CUSTOMERS[customer] << 32 | MODELS[model] << 6
        cell = truth[hour, key]
        cell[0] += sign * events * FIRST[meters]
        cell[1] += sign * events * (unpriced > 0)
        for slot, (quantity, amount) in enumerate(slots):
            if not unpriced >> slot & 1 and not (slot == 0 and FIRST[meters]):
                cell[2] += sign * quantity
            truth[hour, key + PERS[meters][slot]][3] += sign * amount


def told(sums: UsageSums, pers: bytes = b"") -> dict[tuple[int, int], list[int]]:
    rows = np.frombuffer(sums.rows(pers), np.int64).reshape(-1, 10).tolist()
    return {
        (hour, key): [events, unpriced, *(low + (mid << 32) + (high << 64) for low, mid, high in (wide[:3], wide[3:]))]
        for hour, key, events, unpriced, *wide in rows
    }


def wrapped(truth: Sums) -> dict[tuple[int, int], list[int]]:
    def signed(number: int, bits: int) -> int:
        return (number + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)

    cells = {
        at: [signed(n, bits) for n, bits in zip(cell, (64, 64, 128, 128), strict=True)] for at, cell in truth.items()
    }
    return {at: cell for at, cell in cells.items() if any(cell)}


@settings(PROPERTY, max_examples=40)
@given(st.lists(ROW), st.lists(ROW), st.lists(st.integers(0, 60), max_size=2), st.integers(0, 2))
def test_sums_of_rows(rows: list[Any], taken: list[Any], limits: list[int], least: int) -> None:
    truth: Sums = defaultdict(lambda: [0] * 4)
    sums = UsageSums()
    for more, sign in ((rows, 1), (taken, -1), (rows[:3], -1)):
        added(sums, more, limits, least, sign)
        plain(truth, more, limits, least, sign)
    assert told(sums) == wrapped(truth)
    hours = {hour for hour, _ in told(sums)}
    assert sums.oldest <= min(hours, default=2**63 - 1)
    other = UsageSums()
    other.load(np.frombuffer(sums.rows(), np.int64).reshape(-1, 10))
    assert (told(other), len(other)) == (told(sums), len(told(sums)))


def test_amounts_leave_in_whole_units() -> None:
    sums = UsageSums()
    slots = [(0, 5), (0, 10**38 // 7), (0, 0), (0, 11)]
    added(sums, [(1, 2, 1, 0, 0, 1, slots)], [], 0, 1)
    pers = b"".join(per.to_bytes(16, "little") for per in [1, 10**30, *[1] * 61, 3])
    assert {key: cell[3] for (_, key), cell in told(sums, pers).items()} == {0: 5, 1: 10**38 // 7 // 10**30, 63: 3}


def test_a_table_that_grows_loses_nothing() -> None:
    rows = [(n % 5, n // 5 % 3, 0, n // 15 * 3600, 0, n + 1, [(0, 0)] * 4) for n in range(5_000)]
    sums, truth = UsageSums(), defaultdict(lambda: [0] * 4)
    added(sums, rows, [], 0, 1)
    plain(truth, rows, [], 0, 1)
    assert told(sums) == wrapped(truth)


def test_columns_of_other_lengths_are_refused() -> None:
    sums = UsageSums()
    with pytest.raises(ValueError, match="rows"):
        added(sums, [(0, 0, 0, 0, 0, 0, [(0, 0)] * 3 + [(0, 0)])], [], 0, 1) or sums.add(
            (np.zeros(1, np.int32),) * 3,
            np.zeros(2, np.uint32),
            np.zeros(2, np.uint8),
            np.zeros(2, np.uint64),
            [np.zeros(32, np.int8)] * 4,
            [np.zeros(32, np.int8)] * 4,
            (np.zeros(1, np.int64), np.zeros(1, np.int64), np.zeros(4, np.uint8), np.zeros(1, np.uint8)),
            (np.zeros(0, np.uint64), np.zeros(0, np.uint64), 0),
            0,
            1,
        )
    with pytest.raises(ValueError, match="words"):
        sums.load(np.zeros((1, 9), np.int64))


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.lists(st.integers(0, 2**50), max_size=3))), st.integers(0, 6))
def test_samples(events: list[tuple[int, list[int]]], rate: int) -> None:
    chosen = [n for n in range(len(events)) if n % 3]
    bits = (1 << rate) - 1 << 40
    offsets = np.cumsum([0, *(len(quantities) for _, quantities in events)]).astype(np.int32)
    out = np.empty(len(chosen), np.int32), np.empty(len(chosen), np.int32), np.empty(len(chosen), np.int64)
    count = sampled(
        np.array(chosen, np.uint32),
        np.array([word for high, _ in events for word in (0, high)], np.uint64),
        bits,
        np.arange(len(events), dtype=np.int32),
        np.arange(len(events), dtype=np.int32) + 1,
        offsets,
        np.array([quantity for _, quantities in events for quantity in quantities], np.int64),
        *out,
    )
    wanted = [n for n in chosen if not events[n][0] & bits]
    sizes = [sum(min(quantity, 2**40) for quantity in events[n][1]) for n in wanted]
    assert [column[:count].tolist() for column in out] == [wanted, [n + 1 for n in wanted], sizes]
