"""Goal: the hash kernel is flow.oracle.hashing, bit by bit. Method: tables of edges first, then random batches; each is
hashed row by row and, where the processor can, eight rows at a time."""

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import (
    ODD_TEXTS,
    PROPERTY,
    QUANTITIES,
    TEXTS,
    USAGE_SIZES,
    PlainEvent,
    event_batch,
    event_batches,
    numbers,
    plain_event,
    random_events,
    wide,
)

from _core import hash as kernel
from flow.kernels import Identity, identify, name_hash, split_by_shard
from flow.oracle import hashing
from flow.schema import DIMENSIONS


def both_ways(batch: pa.RecordBatch) -> Identity:
    kernel.use_vectors(False)
    by_row = identify(batch)
    kernel.use_vectors(True)
    identity = identify(batch)
    assert [bytes(part) for part in identity] == [bytes(part) for part in by_row]
    return identity


def check(events: list[PlainEvent], batch: pa.RecordBatch) -> Identity:
    identity = both_ways(batch)
    assert numbers(identity.fingerprint) == [hashing.fingerprint(e["source"], e["id"]) for e in events]
    assert numbers(identity.dims) == [hashing.dims_hash(event) for event in events]
    assert numbers(identity.payload) == [hashing.payload_hash(event, event["usage"]) for event in events]
    return identity


@PROPERTY
@given(event_batches())
def test_kernel_is_oracle(given_batch: tuple[list[PlainEvent], pa.RecordBatch]) -> None:
    check(*given_batch)


@pytest.mark.parametrize("seed", range(3))
def test_kernel_is_oracle_over_larger_batches(seed: int) -> None:
    events = random_events(seed, 400)
    check(events, event_batch(events, seed))


@PROPERTY
@given(TEXTS)
def test_name_hash_is_oracle(text: str) -> None:
    assert int.from_bytes(name_hash(text), "little") == hashing.name_hash(text)


def test_ids_and_sources_of_every_length() -> None:
    """MurmurHash3 has a tail of 0 to 15 bytes behind blocks of 16, cut at 8."""
    texts = ["aé"[n % 2] * n for n in range(50)]
    events = [plain_event(id=text, source=texts[-n]) for n, text in enumerate(texts)]
    check(events, event_batch(events))


@pytest.mark.parametrize("meters", [1, 3, 8, 9])
def test_rows_that_are_alike(meters: int) -> None:
    """Most are: ids of one length, the same meters; and a row among them that is not."""
    usage = [(f"m{n}", 10**18 - n) for n in range(meters)]
    events = [plain_event(id=f"{n:036}", usage=usage) for n in range(67)]
    events[13] |= {"id": "short"}
    events[22] |= {"usage": []}
    events[35] |= {"usage": [(f"n{n}", n) for n in range(70)]}
    events[44] |= {"id": "long" * 100}
    check(events, event_batch(events))


def test_every_edge_of_quantities_and_meters() -> None:
    events = [plain_event(usage=[("a", quantity), ("b", 1)]) for quantity in QUANTITIES]
    events += [plain_event(usage=[(f"m{n}", n) for n in range(size)]) for size in USAGE_SIZES]
    identity = check(events, event_batch(events))
    # no two alike, but the first of the sizes, 0 and 1, which differ in the number of meters alone
    assert len(set(numbers(identity.payload))) == len(events)


def test_no_rows() -> None:
    assert [part.size for part in identify(event_batch([]))] == [0, 0, 0]
    assert split_by_shard(pa.py_buffer(b""), 3)[2][1] == 0


def test_source_and_id_do_not_run_together() -> None:
    pairs = [("a", "-b"), ("a-", "b"), ("", "a-b"), ("a-b", ""), ("b", "a-"), ("a\0", "b"), ("a", "\0b"), ("", "")]
    pairs += [("a", "b"), ("b", "a"), ("a" * 16, "b"), ("a" * 15, "ab")]
    batch = event_batch([plain_event(source=source, id=id_) for source, id_ in pairs])
    assert len(set(numbers(identify(batch).fingerprint))) == len(pairs)


def test_dimensions_do_not_run_together() -> None:
    pairs = list(itertools.product(("", "a", "ab", "b"), repeat=2))
    events = [plain_event(project=project, feature=feature) for project, feature in pairs]
    events += [plain_event(feature=project, model=feature) for project, feature in pairs if project and feature]
    identity = identify(event_batch(events))
    assert len(set(numbers(identity.dims))) == len(set(numbers(identity.payload))) == len(events)


def test_what_is_no_part_of_a_payload() -> None:
    """An event that is sent again has a new time and position, and its meters may stand in another order."""
    usage = [("a", 1), ("b", 2), ("c", 3)]
    events = [
        plain_event(usage=list(order), event_time_us=n, id=str(n))
        for n, order in enumerate(itertools.permutations(usage))
    ]
    assert len(set(numbers(identify(event_batch(events)).payload))) == 1


@PROPERTY
@given(event_batches(), st.integers(0, 99))
def test_layout_of_dictionaries_is_of_no_weight(
    given_batch: tuple[list[PlainEvent], pa.RecordBatch], seed: int
) -> None:
    events, batch = given_batch
    assert [bytes(part) for part in identify(event_batch(events, seed))] == [bytes(part) for part in identify(batch)]


@PROPERTY
@given(st.lists(st.integers(0, 2**128 - 1), max_size=60), st.sampled_from([1, 2, 3, 16, 97, 1024]))
def test_shards_are_a_partition_in_order(fingerprints: list[int], shards: int) -> None:
    split = split_by_shard(wide(fingerprints), shards)
    assert len(split) == shards
    for shard, (rows, count) in enumerate(split):
        assert numbers(rows, 4) == [n for n, hashed in enumerate(fingerprints) if (hashed >> 64) % shards == shard]
        assert rows.size == 4 * count


def test_shards_are_about_even() -> None:
    batch = event_batch([plain_event(id=str(n)) for n in range(4000)])
    counts = [count for _, count in split_by_shard(identify(batch).fingerprint, 8)]
    assert sum(counts) == 4000
    assert min(counts) > 400


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_odd_text_in_every_dimension(dimension: str) -> None:
    events = [plain_event(**{dimension: text}) for text in ODD_TEXTS]
    identity = check(events, event_batch(events, 1))
    assert len(set(numbers(identity.dims))) == len(ODD_TEXTS)
