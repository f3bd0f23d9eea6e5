"""Goal: `arrivals` has what came for hours that had ended when a block began, and `watermarks` how far blocks went.

Method: random events, some of them behind, in blocks with made-up watermarks; the rows are held against sums in a dict.
"""

import random
from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import pyarrow as pa
import pytest
from tests.oracle.batches import event_batch, plain_event, rated
from tests.oracle.combine import _decimals, read_tables

from flow.steps.combine import BlockBuilder

HOUR_US = 3_600_000_000
Key = tuple[int, str, int]
"""Block, customer, and start of the hour in seconds."""


def blocks_of(
    batches: list[tuple[list[dict[str, object]], list[list[int]], int]], rows_max: int = 1_000_000, since_us: int = -1
) -> list[tuple[int, str, pa.Table]]:
    """A block for each (events, amount of each usage item, watermark behind them); each event's request costs 1."""
    builder, found = BlockBuilder("USD", rows_max), []
    builder.resume(since_us)
    for number, (events, amounts, watermark_us) in enumerate(batches, 1):
        batch = rated(event_batch(events), amounts, [1] * len(events))
        builder.add(replace(batch, judged=replace(batch.judged, watermark_us=watermark_us)))
        tables = read_tables(builder.cut("lineage", "writer", number, 5))
        builder.clear()
        found += [(number, name, table) for name, table in tables]
    return found


def arrived(blocks: list[tuple[int, str, pa.Table]]) -> dict[Key, tuple[int, int]]:
    """(events, amount) of each row."""
    found: dict[Key, tuple[int, int]] = {}
    for number, name, table in blocks:
        if name == "arrivals":
            customers, hours = table.column("customer").to_pylist(), table.column("window_start").to_pylist()
            keys = [(number, customer, hour_s) for customer, hour_s in zip(customers, hours, strict=True)]
            rows = zip(table.column("events").to_pylist(), _decimals(table.column("amount")), strict=True)
            assert not found.keys() & set(keys)
            found |= dict(zip(keys, rows, strict=True))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_what_comes_behind_is_told_by_block_customer_and_hour(seed: int) -> None:
    rng = random.Random(seed)
    batches, expected = [], defaultdict(lambda: [0, 0])
    began_us = watermark_us = -1
    for number in range(1, 6):
        events, amounts = [], []
        for n in range(rng.randrange(40)):
            time_us = max((number - rng.choice([0, 0, 1, 3])) * HOUR_US + rng.randrange(-50, HOUR_US), 0)
            usage = [(f"m{meter}" + "/7" * (meter % 3 == 1), 1) for meter in range(rng.randrange(1, 8))]
            customer = f"c{rng.randrange(3)}"
            events.append(plain_event(id=f"{number} {n}", customer=customer, event_time_us=time_us, usage=usage))
            amounts.append([rng.choice([0, 700, -7000, 7 * 2**80]) for _ in usage])
            watermark_us = max(watermark_us, time_us)
            if time_us // HOUR_US < began_us // HOUR_US:
                sums = expected[number, customer, time_us // HOUR_US * 3600]
                sums[0] += 1
                sums[1] += 1 + sum(
                    amount // 7 if "/" in name else amount for (name, _), amount in zip(usage, amounts[-1], strict=True)
                )
        batches.append((events, amounts, watermark_us))
        began_us = watermark_us
    blocks = blocks_of(batches, rows_max=2)
    assert arrived(blocks) == {key: tuple(sums) for key, sums in expected.items()}
    assert max(table.num_rows for _, _, table in blocks) <= 2


def test_an_hour_has_ended_when_the_watermark_is_at_its_end() -> None:
    event = plain_event(event_time_us=HOUR_US - 1, customer="acme", usage=[("a", 1)])
    for began_us, expected in ((-1, {}), (0, {}), (HOUR_US - 1, {}), (HOUR_US, {(1, "acme", 0): (1, 8)})):
        assert arrived(blocks_of([([event], [[7]], HOUR_US)], since_us=began_us)) == expected


def test_a_block_says_how_far_it_went_and_where_it_began() -> None:
    told = [
        table.to_pylist()[0]
        for _, name, table in blocks_of([([], [], -1), ([], [], 7), ([], [], 3), ([], [], 9)])
        if name == "watermarks"
    ]
    assert [row["block"] for row in told] == [2, 3, 4], "nothing is told before the first event"
    assert [row["watermark"].microsecond for row in told] == [7, 7, 9]
    assert all(before["watermark"] == after["began"] for before, after in pairwise(told))
