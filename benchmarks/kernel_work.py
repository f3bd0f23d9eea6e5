"""Made-up events, and what every kernel does with them, piece by piece, for whoever measures it."""

import tempfile
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Protocol, TypeVar, TypeVarTuple

import numpy as np
import pyarrow as pa
from columnar import CUSTOMERS, DIMENSIONS, METERS, MODELS, price_file
from rules import ROWS as ROWS_UNDER_RULES
from rules import batch as batch_under_rules
from rules import write_rules

from flow.config import Anomalies
from flow.generate import Synthetic
from flow.generate import batch as synthetic_batch
from flow.kernels import (
    Combiner,
    Identity,
    Verdicts,
    identify,
    interleaved_usage,
    split_by_shard,
    usage_lists,
)
from flow.kernels.fingerprints import FingerprintSet
from flow.kernels.ledger import spread_usage
from flow.kernels.pages import Pages
from flow.kernels.retired import fill, look_up
from flow.prices.book import PriceBook, parse_price_book
from flow.rules.book import load_rule_book
from flow.rules.checker import Checker
from flow.schema import DIMENSIONS as ALL_DIMENSIONS
from flow.schema import EVENTS, STANDARD_METERS
from flow.state.retired import sizing
from flow.state.row_groups import RowGroup
from flow.steps.batches import Limits, Lines, Rejects
from flow.steps.combine import BlockBuilder, Rollup, Tables
from flow.steps.correct import Corrector, cost_of
from flow.steps.decode import decode
from flow.steps.deduplicate import Judged
from flow.steps.ledger_rows import ledger_rows
from flow.steps.rate import Rater
from flow.steps.route import Routed
from flow.steps.watch_usage import UsageWatch

START_US = 1_790_000_040_000_000
HOUR_US = 3_600_000_000
ROWS_PER_FILE = 1_000_000
Given = TypeVarTuple("Given")
Of = TypeVar("Of")


class Measure(Protocol):
    """Does a piece of work and notes what it took; `events`: how many it was done for."""

    def __call__(self, what: str, events: int, work: Callable[[*Given], Of], *given: *Given) -> Of: ...


# ---- Events --------------------------------------------------------------------------------------------------------


def event_batch(number: int, rows: int, keys: int, customers: int = CUSTOMERS, minute: int = 0) -> pa.RecordBatch:
    """EVENTS of a minute as a Parquet file gives them: ids of 36 characters, one of `keys` combinations each."""
    random = np.random.default_rng(number)
    rest, customer = np.divmod(random.integers(0, keys, rows), customers)
    codes, texts = {"customer": customer}, {"customer": [f"customer-{n:05d}" for n in range(customers)]}
    for name, count in DIMENSIONS.items():
        rest, codes[name] = np.divmod(rest, count)
        texts[name] = [f"{name}-{n:02d}" for n in range(count)]
    quantities = np.stack([random.integers(0, 2 * mean, rows) for mean in METERS.values()], axis=1)
    columns: dict[str, pa.Array] = {
        name: pa.DictionaryArray.from_arrays(
            pa.array(codes.get(name, np.zeros(rows)), pa.int32()), pa.array(texts.get(name, [""]))
        )
        for name in ("source", *ALL_DIMENSIONS)
    }
    ids = np.frombuffer(b"0123456789abcdef", np.uint8)[random.integers(0, 16, (rows, 36), dtype=np.uint8)]
    offsets = np.arange(0, 36 * rows + 1, 36, dtype=np.int32)
    columns["id"] = pa.StringArray.from_buffers(rows, pa.py_buffer(offsets), pa.py_buffer(ids))
    columns["event_time_us"] = pa.array(START_US + 60_000_000 * minute + np.arange(rows) * 60_000_000 // rows)
    columns["position"] = pa.array(np.arange(rows))
    columns["usage"] = usage_lists(
        rows,
        pa.py_buffer(np.arange(0, quantities.size + 1, len(METERS), dtype=np.int32)),
        pa.py_buffer(np.tile(np.arange(len(METERS), dtype=np.int32), rows)),
        pa.py_buffer(quantities),
        quantities.size,
        pa.array(list(METERS)),
    )
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)


def as_lines(events: pa.RecordBatch, head: str) -> Lines:
    """The same as NDJSON; `head`: how an event begins, before its id."""
    names = ["id", "customer", *DIMENSIONS]
    texts = [events.column(name).cast(pa.string()).to_pylist() for name in names]
    quantities = events.column("usage").values.field("quantity").to_numpy().reshape(-1, len(METERS)).tolist()
    form = head + '"id":"%s","customer":"%s",' + ",".join(f'"{name}":"%s"' for name in DIMENSIONS)
    form += ',"time":"2026-09-21T14:54:00.123456Z","usage":{' + ",".join(f'"{meter}":%d' for meter in METERS) + "}}\n"
    lines = [form % (*row, *usage) for *row, usage in zip(*texts, quantities, strict=True)]
    return Lines("made-up", 0, "".join(lines).encode())


def tiered_book() -> PriceBook:
    """Context tiers for every model, and prices of their own for some customers."""
    lines = ["currency: USD", "prices:"]
    for meter in METERS:
        told = f"meter: {meter}, from: 2026-01-01T00:00:00Z, per: 1_000_000"
        above = 'above: [{above: 1000, price: "2.00"}, {above: 1500, price: "3.00"}]'
        lines += [f'  - {{model: model-{n:02d}, {told}, price: "1.0{n % 10}", {above}}}' for n in range(MODELS)]
        lines += [f'  - {{customer: customer-{n:05d}, model: model-00, {told}, price: "0.5"}}' for n in range(24)]
    return parse_price_book("\n".join(lines) + "\n", "tiers")


def judged_batch(events: pa.RecordBatch, identity: Identity) -> Judged:
    """As if all of them were accepted."""
    rows, nothing = events.num_rows, pa.allocate_buffer(0)
    every = pa.py_buffer(np.arange(rows, dtype=np.uint32))
    routed = Routed("shard-000", "made-up", events, identity, None, rows, Rejects("made-up").batch())
    return Judged(routed, Verdicts(every, rows, 0, nothing, 0, nothing, 0), START_US + 60_000_000)


def read(tables: Tables) -> None:
    """Has all rows made, and keeps none."""
    for _, found in tables:
        deque(found.batches, maxlen=0)


# ---- The way of most events ---------------------------------------------------------------------------------------


def decoded_to_block(batches: Iterable[pa.RecordBatch], measure: Measure) -> tuple[int, int]:
    """Everything between decoded columns and the rows of a block; how many events and rows of minutes those are."""
    known, rater, combiner = FingerprintSet(None, 1), Rater(parse_price_book(price_file(), "plain")), Combiner("USD")
    total = 0
    for events in batches:
        rows, times = events.num_rows, events.column("event_time_us")
        identity = measure("identify", rows, identify, events)
        verdicts = measure("judge", rows, known.judge, identity, times, None, rows)
        accepted = verdicts.accepted, verdicts.accepted_count
        amounts = measure("rate", rows, rater.plain_amounts, events, *accepted)
        measure("add up", rows, combiner.add, events, identity, amounts, *accepted)
        total += rows
    minutes = combiner.rows

    def leave() -> None:
        combiner.cut()
        rollup = Rollup(combiner, "USD")
        for day in (False, True):
            read(("", found) for found in rollup.files(day, ROWS_PER_FILE))

    measure("cut", total, leave)
    return total, minutes


# ---- What kernels do ------------------------------------------------------------------------------------------------


def every_kernel(rows: int, measure: Measure) -> None:
    """Each kernel on `rows` events, with nothing but its input made ready."""
    events, one_key_each = event_batch(0, rows, rows // 16, 1000), event_batch(1, rows, 1000 * rows, 1000)
    _read(events, measure)
    identity = measure("identify", rows, identify, events)
    measure("split over four shards", rows, split_by_shard, identity.fingerprint, 4)
    with tempfile.TemporaryDirectory() as folder:
        checker = Checker(load_rule_book(write_rules(Path(folder))).rules)
    too_late_us = START_US + 3650 * 24 * HOUR_US + 1_000_000  # for the events of the first second
    for what, now_us in (("20 rules that pass", START_US), ("20 rules, some fail", too_late_us)):
        measure(what, rows, checker.failures, events, now_us)
    for what, without in (("20 rules with sums", 0.0), ("20 rules with sums, not all meters in each", 0.3)):
        measure(what, ROWS_UNDER_RULES, checker.failures, batch_under_rules(7, True, without), START_US)
    _deduplicate(identity, rows, measure)
    raters = {"rate": Rater(parse_price_book(price_file(), "plain")), "rate in context tiers": Rater(tiered_book())}
    for what, rater in raters.items():
        rater.plain_amounts(events, None, rows)  # which compiles the prices that these events need
        measure(what, rows, rater.plain_amounts, events, None, rows)
    for kind, batch in (("keys that repeat", events), ("a key each", one_key_each)):
        _add_up(kind, batch, raters["rate"], measure)
    before, after = (cost_of(rater, events) for rater in raters.values())
    corrector = Corrector("USD")
    measure("correct", rows, corrector.add, events, before, after)
    measure("cut corrections", rows, read, corrector.cut())
    measure("spread for the ledger", rows, spread_usage, events, None, rows, STANDARD_METERS)
    but_every_hundredth = pa.py_buffer(np.delete(np.arange(rows, dtype=np.uint32), slice(None, None, 100)))
    selected = ledger_rows(judged_batch(events, identity).routed, but_every_hundredth, rows - (rows + 99) // 100)
    measure("pages of the ledger", rows, RowGroup(Counted(), Pages()).write, *selected)
    measure("make synthetic events", rows, synthetic_batch, Synthetic(), 0, rows)


class Counted:
    """A file of which nothing but its length is kept."""

    length = 0

    def write(self, piece: bytes | memoryview) -> int:
        self.length += len(piece)
        return len(piece)


def _read(events: pa.RecordBatch, measure: Measure) -> None:
    flat, more = "{", '{"type":"llm.usage","note":"caf\\u00e9 {\\"}","n":[1,-2.5e3,null],'
    now_us, rows = START_US + HOUR_US, events.num_rows
    for what, head in (("decode lines", flat), ("decode lines with fields to skip", more)):
        lines = as_lines(events, head)
        found = measure(what, rows, decode, lines, Limits(), now_us)
        assert found.events.num_rows == rows, found.rejected.slice(0, 1).to_pylist()
    quantity = events.column("usage").values.field("quantity").to_numpy().reshape(-1, len(METERS))
    meters = {meter: pa.array(quantity[:, n].copy()) for n, meter in enumerate(METERS)}
    meters["images"] = pa.array([None, 1] * (rows // 2), pa.int32())
    measure("interleave columns", rows, interleaved_usage, meters, rows, 10**12)


def _deduplicate(identity: Identity, rows: int, measure: Measure) -> None:
    """New ids; the same once more; others behind six sealed generations; and the filter that one of those leaves."""
    known = FingerprintSet(72 * HOUR_US, 12 * HOUR_US)
    times = pa.array(START_US + np.arange(rows))
    measure("judge new ids", rows, known.judge, identity, times, None, rows)
    measure("judge duplicates", rows, known.judge, identity, times, None, rows)
    learnt, restored = (
        [bytes(chunk) for _, _, chunk in known.take_journal()],
        FingerprintSet(72 * HOUR_US, 12 * HOUR_US),
    )
    measure("restore a sealed segment", rows, restored.restore, 0, START_US, rows, learnt)
    for n in range(1, 6):
        known.judge(
            identify(event_batch(n, rows, rows, 1000)), pa.array(times.to_numpy() + 12 * HOUR_US * n), None, rows
        )
    others, later = identify(event_batch(6, rows, rows, 1000)), pa.array(times.to_numpy() + 60 * HOUR_US)
    measure("judge new ids behind six generations", rows, known.judge, others, later, None, rows)
    slices, slice_bits = sizing(rows)
    left = memoryview(bytearray(slices * slice_bits // 8 + 1)), slices, slice_bits
    measure("fill the filter of a retired generation", rows, fill, *left, b"".join(learnt))
    measure("ask it", rows, look_up, *left, bytes(others.fingerprint), bytearray(rows))


def _add_up(kind: str, events: pa.RecordBatch, rater: Rater, measure: Measure) -> None:
    """A block of one batch, looked at for anomalies."""
    builder = BlockBuilder("USD", anomalies=UsageWatch("USD", Anomalies()))
    rated = rater.rate(judged_batch(events, identify(events)))
    measure(f"add to a block, {kind}", events.num_rows, builder.add, rated)
    tables = builder.cut("lineage", "writer", 0, START_US)
    measure(f"cut the block, {kind}", events.num_rows, read, tables)
