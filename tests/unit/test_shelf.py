"""What goes from one process of a host to another: on the shelf, and beside it."""

import json
import os
import pickle
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pytest

from flow.steps import shelf as shelf_module
from flow.steps.batches import Limits, Lines, Messages
from flow.steps.decode import decode
from flow.steps.parcel import parcels
from flow.steps.route import Routed, route, route_heartbeat
from flow.steps.shards import rated_where_written
from flow.steps.shelf import MARKS, Shelf, use

NOW_US = 1_780_000_000_000_000
PART_BYTES = MARKS + (1 << 20)
EVENTS = 4_000


@pytest.fixture
def shelves(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Shelf]]:
    """Of two processes, with room for a megabyte each."""
    monkeypatch.setattr(shelf_module, "PART_BYTES", PART_BYTES)
    descriptor = Shelf.new(2)
    yield [Shelf(descriptor, number) for number in range(2)]
    os.close(descriptor)


@contextmanager
def inside(shelf: Shelf | None) -> Iterator[None]:
    """In the process that has this shelf."""
    use(shelf)
    try:
        yield
    finally:
        use(None)


def put(shelf: Shelf, *texts: bytes) -> shelf_module.Laid | None:
    return shelf.put([memoryview(text) for text in texts])


def batch(messages: Messages | None = None) -> list[Routed]:
    """Parts of one batch for two shards, each with events; there are rejected ones too."""
    plain = {"source": "s", "time": "2026-03-01T12:00:00Z", "usage": {"input_tokens": 3, "pages": 1}}
    lines = [json.dumps(plain | {"id": f"e{n}", "customer": f"c{n % 7}"}) for n in range(EVENTS)]
    parts = list(route(decode(Lines("f", 0, "\n".join([*lines, "{}"]).encode(), messages), Limits(), NOW_US), 2))
    assert sum(part.count for part in parts) == EVENTS and all(part.count for part in parts)
    return parts


def seen(routed: Routed) -> tuple[object, ...]:
    """What a shard sees of a part, however it has come."""
    lean = routed.compact()
    events = [[row["id"], row["customer"], row["usage"], row["position"]] for row in lean.events.to_pylist()]
    return lean.shard, lean.origin, events, [bytes(of) for of in lean.identity], lean.rejected, lean.unknown_fields


# ---- The shelf ----


def test_what_one_process_puts_another_reads_where_it_lies(shelves: list[Shelf]) -> None:
    laid = put(shelves[0], b"one", b"", b"three" * 1000)
    assert laid is not None
    lot = shelves[0].lot(laid)
    assert lot is not None and pickle.loads(pickle.dumps(lot)) == lot
    taken = shelves[1].take(lot)
    assert [bytes(buffer) for buffer in taken] == [b"one", b"", b"three" * 1000]
    assert all(not buffer.is_mutable for buffer in taken)


def test_a_lot_stays_until_the_last_buffer_of_it_is_gone(shelves: list[Shelf]) -> None:
    ours, theirs = shelves
    most = b"x" * (PART_BYTES - MARKS)
    laid = put(ours, most)
    assert laid is not None and put(ours, b"y") is None, "the sender may still send it"
    lots = [ours.lot(laid), ours.lot(laid)]
    del laid
    taken = [theirs.take(lot) for lot in lots if lot is not None]
    array = pa.Array.from_buffers(pa.uint8(), 10, [None, taken[0][0]]).slice(3)
    taken.clear()
    assert put(ours, b"y") is None and array.to_pylist() == list(b"x" * 7)
    del array
    assert put(ours, most) is not None


def test_it_is_used_from_the_front_again(shelves: list[Shelf]) -> None:
    ours, theirs = shelves
    held = [put(ours, bytes([n]) * (300 << 10)) for n in range(3)]
    assert None not in held and put(ours, b"x" * (300 << 10)) is None
    lots = [ours.lot(laid) for laid in held if laid is not None]
    held.clear()
    last = theirs.take(lots[2])
    for lot in lots[:2]:
        theirs.take(lot)
    again = put(ours, b"z" * (500 << 10))
    assert again is not None and put(ours, b"x" * (200 << 10)) is None
    assert bytes(last[0]) == b"\2" * (300 << 10)


def test_each_process_has_a_part_of_its_own(shelves: list[Shelf]) -> None:
    most = PART_BYTES - MARKS
    laid = [put(shelf, bytes([number]) * most) for number, shelf in enumerate(shelves)]
    lots = [shelf.lot(one) for shelf, one in zip(shelves, laid, strict=True) if one is not None]
    for number, lot in enumerate(lots):
        assert lot is not None and bytes(shelves[1 - number].take(lot)[0]) == bytes([number]) * most


def test_there_are_so_many_marks_and_they_come_back(shelves: list[Shelf]) -> None:
    ours, theirs = shelves
    laid = put(ours, b"x")
    assert laid is not None
    lots = [lot for _ in range(MARKS) if (lot := ours.lot(laid)) is not None]
    assert len(lots) == MARKS and ours.lot(laid) is None
    for lot in lots:
        theirs.take(lot)
    del laid
    again = put(ours, b"y")
    assert again is not None and ours.lot(again) is not None


# ---- Parcels ----


def sent(parts: list[Routed], ours: Shelf | None, theirs: Shelf | None) -> list[Routed]:
    """As another process gets them; each is pickled twice, as Bytewax does."""
    found = []
    for parcel in parcels(parts):
        with inside(ours):
            pickled = pickle.dumps(parcel)
            assert pickle.dumps(parcel) == pickled
        with inside(theirs):
            found.append(pickle.loads(pickled))
    return found


@pytest.mark.parametrize("on_shelf", [True, False])
def test_a_part_is_the_same_in_another_process(shelves: list[Shelf], on_shelf: bool) -> None:
    parts = batch()
    found = sent(parts, *(shelves if on_shelf else (None, None)))
    assert [seen(one) for one in found] == [seen(one) for one in parts]
    assert [one.events.num_rows for one in found] == [EVENTS if on_shelf else part.count for part in parts]


def test_the_parts_of_a_batch_lie_there_once(shelves: list[Shelf]) -> None:
    parts = batch(Messages(np.arange(EVENTS + 1), np.arange(EVENTS + 1) * 3))
    first, second = sent(parts, *shelves)
    assert first.events.column("id").buffers()[2].address == second.events.column("id").buffers()[2].address
    assert first.messages is not None and list(first.messages.offsets) == list(range(0, 3 * EVENTS + 1, 3))


def test_what_finds_no_room_is_sent_whole(shelves: list[Shelf]) -> None:
    held = put(shelves[0], b"x" * (PART_BYTES - MARKS - (32 << 10)))  # room for the rows, and not for the batch
    parts = batch()
    found = sent(parts, *shelves)
    assert held is not None and [seen(one) for one in found] == [seen(one) for one in parts]
    assert [one.rows for one in found] == [None, None]
    del held
    assert put(shelves[0], b"y" * (PART_BYTES - MARKS)) is not None, "what was put for nothing stays there"


def test_heartbeats_and_parts_without_events_are_sent(shelves: list[Shelf]) -> None:
    for parts in (list(route_heartbeat(2)), list(route(decode(Lines("f", 0, b"{}\n{}\n"), Limits(), NOW_US), 2))):
        assert parts and [seen(one) for one in sent(parts, *shelves)] == [seen(one) for one in parts]


def test_what_stays_in_its_process_is_not_copied(shelves: list[Shelf]) -> None:
    parts = batch()
    with inside(shelves[0]):
        made = [parcel.routed for parcel in parcels(parts)]
    assert all(one is part for one, part in zip(made, parts, strict=True))
    assert put(shelves[0], b"x" * (PART_BYTES - MARKS)) is not None


def test_where_only_batches_are_sent() -> None:
    assert all(rated_where_written(2, workers) for workers in range(1, 9))
    assert not rated_where_written(2, 9) and not rated_where_written(1, 2)
