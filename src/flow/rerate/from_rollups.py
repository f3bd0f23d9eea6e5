"""Usage to re-rate, minute by minute: from the rollups alone, where the price book allows it.

The sum of a minute costs what its events cost where every event of it has one and the same rate: no context tier, no
part of one, no started package, no other meter's quantity, no schedule, and no price that begins within a minute. Then
what a slot of the minute holds is rated as if it were one event, by the kernel of a run; what it cost before stands in
it.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ..errors import StateError
from ..kernels import usage_lists
from ..prices.book import PriceBook
from ..prices.rules import Rule
from ..prices.values import instant_text
from ..schema import DIMENSIONS, EVENTS, REQUESTS, meter_and_per
from ..steps.correct import UNPRICED, Cost, cost_of
from ..steps.rate import Rater
from ..steps.wide import halves
from ..store.client import StoreClient
from ..store.queries.rerating import CustomerUsage, minute_usage, usage_classes, usage_of_customers
from ..store.queries.view_rows import CustomerRange
from .asked import WINDOW_US, Scope

SLICE_ROWS = 1 << 19
"""Rows of the store that are asked for at once."""


def obstacle(client: StoreClient, book: PriceBook, scope: Scope) -> str | None:
    """Why the rollups do not tell what usage costs by a book; None: they do. Raises StoreError."""
    from_s, before_s = scope.from_us // 10**6, scope.before_us // 10**6
    return first_obstacle(book, scope, usage_classes(client, from_s, before_s, scope.customer))


def rows_in(client: StoreClient, scope: Scope) -> int:
    """How many rows of the store would be read. Raises StoreError."""
    found = usage_of_customers(client, scope.from_us // 10**6, scope.before_us // 10**6, scope.customer)
    return sum(usage.rows for usage in found)


def first_obstacle(book: PriceBook, scope: Scope, classes: Iterable[tuple[str, ...]]) -> str | None:
    """The first rate of a class (model, service tier, region, customer, meter) that is not one rate a minute."""
    for model, service_tier, region, customer, meter in classes:
        timeline = book.timeline(meter, model=model, service_tier=service_tier, region=region, customer=customer)
        for n, (since_us, node) in enumerate(timeline):
            until_us = timeline[n + 1][0] if n + 1 < len(timeline) else scope.before_us
            if until_us <= scope.from_us or since_us >= scope.before_us:
                continue
            what = f"{meter} of model {model!r}"
            if since_us % WINDOW_US and since_us > scope.from_us:
                return f"the price of {what} changes at {instant_text(since_us)}, within a minute"
            if node is not None and not (isinstance(node, Rule) and node == Rule(node.cells[:1])):
                return f"the price of {what} depends on more than its own quantity"
    return None


def minute_rows(client: StoreClient, book: PriceBook, scope: Scope) -> Iterator[tuple[pa.RecordBatch, Cost, Cost]]:
    """Rows of the minutes as EVENTS, with what they cost by now, and by the book. Raises StoreError, StateError."""
    rater = Rater(book)
    found = usage_of_customers(client, scope.from_us // 10**6, scope.before_us // 10**6, scope.customer)
    for customers, from_s, before_s in _slices(found):
        table = minute_usage(client, from_s, before_s, customers)
        for rows in table.combine_chunks().to_batches():
            if rows.num_rows:
                yield _rated(rater, rows)


def _slices(found: Iterable[CustomerUsage]) -> Iterator[tuple[CustomerRange, int, int]]:
    """Customers and windows of some SLICE_ROWS rows, along the store's sort key: many small customers, or a part of a
    large one."""
    held: list[CustomerUsage] = []
    for usage in found:
        if held and sum(one.rows for one in held) + usage.rows > SLICE_ROWS:
            yield from _of(held)
            held = []
        held.append(usage)
    if held:
        yield from _of(held)


def _of(held: Sequence[CustomerUsage]) -> Iterator[tuple[CustomerRange, int, int]]:
    rows = sum(one.rows for one in held)
    first_s, end_s = min(one.first_s for one in held), max(one.last_s for one in held) + 60
    minutes = (end_s - first_s) // 60
    step_s = 60 * -(-minutes // -(-rows // SLICE_ROWS))
    for from_s in range(first_s, end_s, step_s):
        yield CustomerRange(held[0].customer, held[-1].customer), from_s, min(from_s + step_s, end_s)


def _rated(rater: Rater, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Cost, Cost]:
    meter = rows.column("meter").cast(pa.string()).dictionary_encode()
    slots, names = meter.indices.to_numpy(), [meter_and_per(name) for name in meter.dictionary.to_pylist()]
    events = _as_events(rows, slots, [name for name, _ in names])
    per = np.array([per for _, per in names], np.int64)[slots]
    is_requests = np.array([name == REQUESTS for name, _ in names])[slots]
    stored = halves(rows.column("amount").buffers()[1], rows.num_rows)
    before = Cost(stored, np.where(rows.column("unpriced").to_numpy() != 0, UNPRICED, per), stored)
    return events, _of_items(before, is_requests), _of_items(cost_of(rater, events), is_requests)


def _of_items(cost: Cost, is_requests: np.ndarray) -> Cost:
    """Of rows with one item each: the amounts of `requests` to their own place."""
    here, zero = is_requests[:, None], np.uint64(0)
    return Cost(np.where(here, zero, cost.amounts), cost.per, np.where(here, cost.amounts, zero))


def _as_events(rows: pa.RecordBatch, meters: np.ndarray, names: list[str]) -> pa.RecordBatch:
    """One event a row, with its one meter, which `meters` says by its place in `names`."""
    count = rows.num_rows
    columns = {
        "id": pa.repeat(pa.scalar(""), count),
        "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([""])),
        "event_time_us": pa.array(rows.column("window").to_numpy().astype(np.int64) * 1_000_000),
        **{name: rows.column(name).cast(pa.string()).dictionary_encode() for name in DIMENSIONS},
        "usage": usage_lists(
            count,
            pa.py_buffer(np.arange(count + 1, dtype=np.int32)),
            pa.py_buffer(np.ascontiguousarray(meters)),
            pa.py_buffer(_small(rows.column("quantity"))),
            count,
            pa.array(names, pa.string()),
        ),
        "position": pa.array(np.zeros(count, np.int64)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)


def _small(wide: pa.Array) -> np.ndarray:
    """int64 of 128-bit integers. Raises StateError for one that has more bits."""
    found = halves(wide.buffers()[1], wide.offset + len(wide))[wide.offset :].view(np.int64)
    if (found[:, 1] != found[:, 0] >> 63).any():
        raise StateError(
            "rerate: a quantity of a minute in the store is beyond 63 bits; re-rate from the ledger: --source ledger"
        )
    return np.ascontiguousarray(found[:, 0])
