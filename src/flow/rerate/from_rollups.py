"""Usage to re-rate, minute by minute: from the rollups alone, where the price book allows it.

The sum of a minute costs what its events cost where every event of it has one and the same rate: no context tier, no
part of one, no started package, no other meter's quantity, no schedule, and no price that begins within a minute. Then
each row that the store has, a sum or a part of one, is rated as if it were one event, by the kernel of a run; what it
cost before stands in it.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

from ..errors import StateError
from ..kernels import SLOTS, usage_lists
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
_NO_NAME = -1

Slice = tuple[int, int, CustomerRange]
"""From and before which second, and of whom."""


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
    named = [book.named.get(name, ()) for name in ("model", "service_tier", "region", "customer")]
    alike = {(*(text in of and text for text, of in zip(one, named, strict=False)), one[-1]): one for one in classes}
    for model, service_tier, region, customer, meter in alike.values():
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
    for from_s, before_s, customers in _slices(found):
        table = minute_usage(client, from_s, before_s, customers)
        for rows in table.unify_dictionaries().combine_chunks().to_batches():
            if rows.num_rows:
                yield _rated(rater, rows)


def _slices(found: Iterable[CustomerUsage]) -> Iterator[Slice]:
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


def _of(held: Sequence[CustomerUsage]) -> Iterator[Slice]:
    rows = sum(one.rows for one in held)
    first_s, end_s = min(one.first_s for one in held), max(one.last_s for one in held) + 60
    minutes = (end_s - first_s) // 60
    step_s = 60 * -(-minutes // -(-rows // SLICE_ROWS))
    for from_s in range(first_s, end_s, step_s):
        yield from_s, min(from_s + step_s, end_s), CustomerRange(held[0].customer, held[-1].customer)


def _rated(rater: Rater, rows: pa.RecordBatch) -> tuple[pa.RecordBatch, Cost, Cost]:
    """`requests` apart from the meters, as they are in a batch of events."""
    slots = _Slots(rows)
    is_requests = slots.name == slots.requests
    items = (slots.name != _NO_NAME) & ~is_requests
    events, before, _ = slots.events(rows, items)
    requests, requests_before, of_row = slots.events(rows, is_requests)
    nothing = np.zeros((rows.num_rows, 2), np.uint64)
    was, becomes = nothing.copy(), nothing.copy()
    was[of_row], becomes[of_row] = requests_before.amounts, cost_of(rater, requests).amounts
    after = cost_of(rater, events)
    return events, before._replace(requests=was), after._replace(requests=becomes)


class _Slots:
    """The slots of rows, (rows, SLOTS): what is in each, by the place of its name."""

    def __init__(self, rows: pa.RecordBatch) -> None:
        meters = rows.column("meters")
        # The store's dictionaries have the empty text besides, which no row is about.
        fours = [(text or "," * (SLOTS - 1)).split(",") for text in meters.dictionary.to_pylist()]
        told = sorted({meter_and_per(name) for four in fours for name in four if name})
        places = {name: place for place, name in enumerate(told)}
        of_text = [[places[meter_and_per(name)] if name else _NO_NAME for name in four] for four in fours]
        self.requests = places.get((REQUESTS, 1), len(told))
        self.name = np.array(of_text, np.int32).reshape(-1, SLOTS)[meters.indices.to_numpy()]
        self._meters = list(dict.fromkeys(meter for meter, _ in told))
        self._meter = np.array([self._meters.index(meter) for meter, _ in told], np.int32)
        self._per = np.array([per for _, per in told], np.int64)
        self._unpriced = (rows.column("unpriced").to_numpy()[:, None] >> np.arange(SLOTS, dtype=np.uint8) & 1) != 0
        self._quantity = np.stack([_small(rows.column(f"q{slot}")) for slot in range(SLOTS)], axis=1)
        self._amount = np.stack([_wide(rows.column(f"a{slot}")) for slot in range(SLOTS)], axis=1)

    def events(self, rows: pa.RecordBatch, chosen: np.ndarray) -> tuple[pa.RecordBatch, Cost, np.ndarray]:
        """One of EVENTS a row, with the chosen slots as its usage; what they cost by now, without requests; and the row
        of each."""
        count = rows.num_rows
        of_row = np.repeat(np.arange(count), chosen.sum(axis=1))
        offsets = np.zeros(count + 1, np.int32)
        np.cumsum(chosen.sum(axis=1), out=offsets[1:])
        names = self.name[chosen]
        amounts = np.ascontiguousarray(self._amount[chosen])
        columns = {
            "id": pa.repeat(pa.scalar(""), count),
            "source": pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([""])),
            "event_time_us": pa.array(rows.column("window").to_numpy().astype(np.int64) * 1_000_000),
            **{name: rows.column(name) for name in DIMENSIONS},
            "usage": usage_lists(
                count,
                pa.py_buffer(offsets),
                pa.py_buffer(self._meter[names]),
                pa.py_buffer(self._quantity[chosen]),
                len(names),
                pa.array(self._meters, pa.string()),
            ),
            "position": pa.array(np.zeros(count, np.int64)),
        }
        events = pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)
        per = np.where(self._unpriced[chosen], UNPRICED, self._per[names])
        return events, Cost(amounts, per, np.zeros((count, 2), np.uint64)), of_row


def _wide(column: pa.Array) -> np.ndarray:
    """128-bit integers in halves."""
    found: np.ndarray = halves(column.buffers()[1], column.offset + len(column))[column.offset :]
    return found


def _small(wide: pa.Array) -> np.ndarray:
    """int64 of 128-bit integers. Raises StateError for one that has more bits."""
    found = _wide(wide).view(np.int64)
    if (found[:, 1] != found[:, 0] >> 63).any():
        raise StateError(
            "rerate: a quantity of a minute in the store is beyond 63 bits; re-rate from the ledger: --source ledger"
        )
    return np.ascontiguousarray(found[:, 0])
