"""Goal: the door to the native package takes what Arrow gives, refuses what it must not read, and is safe with threads.

That the kernels compute the right thing is in tests/parity.
"""

import importlib
import os
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest
from tests.oracle.batches import event_batch, judged, plain_event, random_events, wide
from tests.oracle.combine import Tables, merged, read_tables

import _core
from flow import kernels
from flow.kernels import identify
from flow.kernels.fingerprints import FingerprintSet
from flow.oracle.hashing import event_digest, fingerprint, payload_hash
from flow.prices.book import parse_price_book
from flow.schema import EVENTS
from flow.steps.batches import no_events
from flow.steps.combine import BlockBuilder
from flow.steps.rate import Rater

PRICES = 'currency: USD\nprices: [{meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1, price: "0.000001"}]\n'


def block_of(batch: pa.RecordBatch, rows: list[int] | None = None) -> Tables:
    """A batch through identity, rating and combining."""
    block = BlockBuilder("USD")
    block.add(Rater(parse_price_book(PRICES, "prices.yaml")).rate(judged(batch, rows)))
    return read_tables(block.cut("lineage", "writer", 1, 0))


def empty_batches() -> list[pa.RecordBatch]:
    """Batches without rows, as different ways of making them leave different buffers."""
    full = event_batch([plain_event()])
    taken, sliced = full.take(pa.array([], pa.int32())), full.slice(0, 0)
    filtered = full.filter(pa.array([False]))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, full.schema) as writer:
        writer.write_batch(no_events())
    [read] = pa.ipc.open_stream(sink.getvalue())
    return [no_events(), event_batch([]), taken, sliced, filtered, read]


@pytest.mark.parametrize("number", range(6))
def test_no_rows(number: int) -> None:
    batch = empty_batches()[number]
    assert batch.num_rows == 0
    assert [part.size for part in identify(batch)] == [0, 0, 0]
    assert [name for name, _ in block_of(batch)] == ["watermarks", "pipeline_balance"]
    verdicts = FingerprintSet(None, 1).judge(identify(batch), batch.column("event_time_us"), None, 0)
    assert [part if isinstance(part, int) else part.size for part in verdicts] == [0] * 7


def test_events_of_nothing_but_requests() -> None:
    """No meter in the whole batch: empty usage arrays, and no text in any id."""
    batch = event_batch([plain_event(id="", source="", customer="", usage=[]) for _ in range(3)])
    assert len(batch.column("usage").values) == 0
    tables = dict(block_of(batch))
    assert tables["rollup_minute"].column("events").to_pylist() == [3]
    assert tables["rollup_minute"].column("meters").to_pylist() == ["requests,,,"]


@pytest.mark.parametrize(("first", "count"), [(1, 2), (2, 1), (0, 1)])
def test_a_slice_is_refused_or_read_as_what_it_is(first: int, count: int) -> None:
    """A slice shares its buffers with the whole: read without its offset it would be the wrong events."""
    batch = event_batch([plain_event(id=str(n), customer=f"c{n}", usage=[("a", n)]) for n in range(3)])
    part = batch.slice(first, count)
    if first:
        with pytest.raises(ValueError, match="a kernel reads whole arrays, not slices"):
            identify(part)
        with pytest.raises(ValueError, match="a kernel reads whole arrays, not slices"):
            block_of(part)
    else:
        assert merged(block_of(part)) == merged(block_of(batch.take(pa.array(range(first, first + count)))))


@pytest.mark.parametrize("column", EVENTS.names)
def test_one_sliced_column_is_refused(column: str) -> None:
    events = event_batch([plain_event(id=str(n), usage=[("a", n)]) for n in range(4)])
    arrays = [events.column(name).slice(0 if name != column else 2, 2) for name in events.schema.names]
    mixed = pa.RecordBatch.from_arrays(arrays, schema=events.schema)
    with pytest.raises(ValueError, match="a kernel reads whole arrays, not slices"):
        identify(mixed)


def test_sliced_usage_items_are_refused() -> None:
    """An offset one level down is as bad as one in the column."""
    events = event_batch([plain_event(id=str(n), usage=[("a", n), ("b", n)]) for n in range(4)])
    items = events.column("usage").values.slice(4)
    usage = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), items, type=EVENTS.field("usage").type)
    with pytest.raises(ValueError, match="a kernel reads whole arrays, not slices"):
        identify(events.set_column(events.schema.names.index("usage"), EVENTS.field("usage"), usage))


def test_sliced_times_are_refused() -> None:
    events = event_batch([plain_event()] * 3)
    with pytest.raises(ValueError, match="a kernel reads whole arrays, not slices"):
        FingerprintSet(None, 1).judge(identify(events), events.column("event_time_us").slice(1), None, 2)


def test_nulls_and_other_schemas_are_refused() -> None:
    events = event_batch([plain_event()])
    with pytest.raises(ValueError, match="a kernel reads EVENTS, not id: string"):
        identify(events.select(["id"]))
    nothing = pa.array([None], pa.int64())
    with pytest.raises(ValueError, match="a kernel reads columns without nulls"):
        identify(events.set_column(2, EVENTS.field("event_time_us"), nothing))


def test_batches_that_went_over_a_wire() -> None:
    """An IPC message holds all buffers in one: their alignment is what the sender made it."""
    batch = event_batch(random_events(5, 60), 5)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    [read] = pa.ipc.open_stream(sink.getvalue())
    assert [bytes(part) for part in identify(read)] == [bytes(part) for part in identify(batch)]
    assert merged(block_of(read)) == merged(block_of(batch))


def test_a_digest_is_of_identity_and_payload() -> None:
    event = plain_event()
    [digest] = dict(block_of(event_batch([event])))["rollup_day"].column("digest").to_pylist()
    expected = event_digest(fingerprint("s", "1"), payload_hash(event, event["usage"]))
    assert digest == expected.to_bytes(16, "little")


def test_threads() -> None:
    """Kernels let go of the interpreter: raters, sets and builders of many threads read the same batches at once."""
    batches = [event_batch(random_events(seed, 300), seed) for seed in range(3)]
    rng = random.Random(0)
    identities = [wide(rng.getrandbits(128) for _ in range(20_000)) for _ in range(4)]
    times = pa.array([0] * 20_000, pa.int64())

    def work(number: int) -> tuple[object, ...]:
        known = FingerprintSet(None, 1)
        verdicts = [
            known.judge(kernels.Identity(hashes, hashes, hashes), times, None, 20_000).accepted_count
            for hashes in identities
        ]
        return [merged(block_of(batch)) for batch in batches], verdicts, len(known)

    alone = work(0)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, range(8))) == [alone] * 8


def test_every_extension_says_what_it_was_built_from() -> None:
    sources = sorted(path.stem for path in Path(_core.__file__).parent.glob("*.pyx"))
    assert {"combine", "decode", "dedup", "hash", "rate"} <= set(sources)
    for name in sources:
        assert len(importlib.import_module(f"_core.{name}").SOURCE_HASH) == 16


def test_a_stale_build_is_an_error(tmp_path: Path) -> None:
    """Given a source that changed behind its build, then the import fails and says what to do."""
    source = Path(_core.__file__).parent
    shutil.copytree(source, tmp_path / "_core", ignore=shutil.ignore_patterns("*.c", "__pycache__"))
    with (tmp_path / "_core" / "rate.pyx").open("a") as changed:
        changed.write("\n# changed\n")
    run = subprocess.run(
        [sys.executable, "-c", "import _core"],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 1
    assert "is stale: rate.pyx has changed since; run `make build`" in run.stderr
