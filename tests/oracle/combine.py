"""What a block's tables must mean: a dict of plain integers, and the tables unpivoted as the store's views do it."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from flow.oracle.hashing import event_digest, fingerprint, payload_hash
from flow.schema import DIMENSIONS, REQUESTS
from flow.steps.combine import TableRows

GRAINS = {"rollup_minute": 60, "rollup_day": 86_400}
"""Seconds of a window; a day row has neither project nor model."""
SLOTS = range(4)


@dataclass
class Sums:
    quantity: int = 0
    amount: int = 0
    """In 10^-15 currency units."""
    events: int = 0
    digest: int = 0
    unpriced: int = 0
    """The part of the quantity that has no price."""


Rollup = dict[tuple[str, tuple[str, ...], str, int], Sums]
"""By (table, dimensions, meter, window start in seconds)."""


def combined(
    events: Iterable[Mapping[str, Any]], amounts: Iterable[Sequence[int | None]], requests: Iterable[int]
) -> Rollup:
    """The sums over plain events; per event an amount a usage item (None is unpriced) and one for `requests`."""
    rollup: Rollup = defaultdict(Sums)
    for event, of_event, request in zip(events, amounts, requests, strict=True):
        hashed = event_digest(fingerprint(event["source"], event["id"]), payload_hash(event, event["usage"]))
        dims = tuple(event[name] for name in DIMENSIONS)
        items = [
            *((meter, quantity, amount) for (meter, quantity), amount in zip(event["usage"], of_event, strict=True)),
            (REQUESTS, 1, request),
        ]
        for table, seconds in GRAINS.items():
            time_s = event["event_time_us"] // 1_000_000
            of_table = dims if table == "rollup_minute" else (dims[0], "", dims[2], "", *dims[4:])
            for meter, quantity, amount in items:
                sums = rollup[table, of_table, meter, time_s - time_s % seconds]
                sums.quantity += quantity
                sums.amount += amount or 0
                sums.unpriced += quantity if amount is None else 0
                sums.events += 1
                sums.digest = (sums.digest + hashed) % 2**128
    return dict(rollup)


Tables = list[tuple[str, pa.Table]]
NAMED = (*DIMENSIONS, "currency", "meters", "unpriced")


def read_tables(rows: Iterable[tuple[str, TableRows]]) -> Tables:
    """The tables of a block, each read to its end before the next is asked for."""
    return [(name, pa.Table.from_batches(of_table.batches, of_table.schema)) for name, of_table in rows]


def unpivoted(tables: Tables, currency: str = "USD") -> Rollup:
    """The rollup tables, one entry a meter; checks the slots that nothing is in, and what a key stands for."""
    rollup: Rollup = defaultdict(Sums)
    keys: dict[tuple[str, str, bytes], list[Any]] = {}
    for name, table in tables:
        for row in stored_rows(table) if name in GRAINS else ():
            named = [row[column] for column in NAMED]
            assert keys.setdefault((name, row["customer"], row["key"]), named) == named, "a key has one meaning"
            assert row["currency"] == currency
            dims = tuple(row[dimension] for dimension in DIMENSIONS)
            for slot, meter in zip(SLOTS, row["meters"].split(","), strict=True):
                quantity, amount, unpriced = row[f"q{slot}"], row[f"a{slot}"], row["unpriced"] >> slot & 1
                if not meter:
                    assert (quantity, amount, unpriced) == (0, 0, 0)
                    continue
                assert not (unpriced and amount), "what has no price has no amount"
                sums = rollup[name, dims, meter, row["window_start"]]
                sums.quantity += quantity
                sums.amount += amount
                sums.unpriced += quantity if unpriced else 0
                sums.events += row["events"]
                sums.digest = (sums.digest + row["digest"]) % 2**128
    return dict(rollup)


def stored_rows(table: pa.Table) -> list[dict[str, Any]]:
    """Rows of a rollup table, every 16-byte column but the key as an integer."""
    columns = {name: table.column(name).to_pylist() for name in ("window_start", "key", "events")}
    columns |= {
        name: table.column(name).to_pylist() if name in table.column_names else [""] * table.num_rows for name in NAMED
    }
    columns["digest"] = [int.from_bytes(digest, "little") for digest in table.column("digest").to_pylist()]
    for slot in SLOTS:
        quantities = table.column(f"q{slot}").to_pylist()
        columns[f"q{slot}"] = [int.from_bytes(quantity, "little", signed=True) for quantity in quantities]
        columns[f"a{slot}"] = _decimals(table.column(f"a{slot}"))
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def _decimals(column: pa.ChunkedArray) -> list[int]:
    """The integers of a Decimal(38, 15) column, from its bytes: a decimal context could round them."""
    assert column.type == pa.decimal128(38, 15)
    values = []
    for chunk in column.chunks:
        content = bytes(chunk.buffers()[1])[16 * chunk.offset : 16 * (chunk.offset + len(chunk))]
        values += [int.from_bytes(content[at : at + 16], "little", signed=True) for at in range(0, len(content), 16)]
    return values


def merged(tables: Tables) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """The rollup tables as merges of the store leave them: rows of one (table, customer, window, key) added up."""
    rows: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for name, table in tables:
        for row in stored_rows(table) if name in GRAINS else ():
            at = (name, row["customer"], row["window_start"], row["key"])
            counts = [row["events"], row["digest"], *(row[f"{kind}{slot}"] for kind in "qa" for slot in SLOTS)]
            held = rows.get(at, (0,) * len(counts))
            added = [a + b for a, b in zip(held, counts, strict=True)]
            added[1] %= 2**128
            rows[at] = tuple(added)
    return rows


def assert_in_store_order(tables: Tables) -> None:
    """Each rollup table is sorted by customer (bytes), window and key (a little-endian number), over all its parts."""
    for name in GRAINS:
        rows = [row for part, table in tables if part == name for row in stored_rows(table)]
        order = [(row["customer"].encode(), row["window_start"], int.from_bytes(row["key"], "little")) for row in rows]
        assert order == sorted(order)
