"""How a part of a batch goes to another process.

Bytewax pickles what it sends, and only that; it does so twice, first to know the length. Of a process on this host the
receiver gets row numbers, and reads the batch where the sender has put it, once for all (shelf.py). To another host,
or where the shelf is full, the rows go themselves.
"""

import pickle
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .route import Routed
from .shelf import Laid, Lot, Shelf, here

ASIDE_BYTES_MIN = 4096
"""A smaller buffer goes with the message: it may be kept for long, and then keeps no lot."""


class Batch:
    """What all parts of a batch share, as it lies on the shelf once one of them goes to another process."""

    def __init__(self, routed: Routed) -> None:
        self.events = routed.events
        self._shared = {name: getattr(routed, name) for name in ("identity", "events", "messages", "amends", "flags")}
        self._laid: tuple[bytes, Laid] | None = None

    def lot(self, shelf: Shelf) -> tuple[bytes, Lot] | None:
        """For one process: the pickle of what they share, and where its buffers lie. None if there is no room."""
        if self._laid is None:
            pickled, buffers = _pickled(self._shared)
            laid = shelf.put(buffers) if buffers else None
            if laid is None:
                return None
            self._laid = pickled, laid
        lot = shelf.lot(self._laid[1])
        return None if lot is None else (self._laid[0], lot)


class Parcel:
    """A part of a batch that may go to another process, where it arrives as a Routed."""

    def __init__(self, routed: Routed, batch: Batch) -> None:
        self.routed = routed
        self._batch = batch
        self._sent: tuple[Callable[..., Routed], tuple[Any, ...]] | None = None

    def __reduce__(self) -> tuple[Callable[..., Routed], tuple[Any, ...]]:
        if self._sent is None:
            shelf = here()
            self._sent = (self._lent(shelf) if shelf is not None else None) or self._whole()
        return self._sent

    def _lent(self, shelf: Shelf) -> tuple[Callable[..., Routed], tuple[Any, ...]] | None:
        routed = self.routed
        if routed.rows is None or not routed.count:
            return None  # a heartbeat, or nothing but rejected events
        rows = shelf.put([memoryview(routed.rows)])
        rows_lot = None if rows is None else shelf.lot(rows)
        if rows_lot is None:
            return None
        shared = self._batch.lot(shelf)
        if shared is None:
            shelf.take(rows_lot)  # and let go of it again
            return None
        own = {
            name: getattr(routed, name)
            for name in ("shard", "origin", "count", "rejected", "unknown_fields", "admitted")
        }
        return _from_shelf, (own, rows_lot, *shared)

    def _whole(self) -> tuple[Callable[..., Routed], tuple[Any, ...]]:
        return pickle.loads, (pickle.dumps(self.routed.compact(), pickle.HIGHEST_PROTOCOL),)


def parcels(parts: Iterable[Routed]) -> Iterator[Parcel]:
    """The parts of one batch after the other, to be sent."""
    batch: Batch | None = None
    for routed in parts:
        if batch is None or batch.events is not routed.events:
            batch = Batch(routed)
        yield Parcel(routed, batch)


def _pickled(value: object) -> tuple[bytes, list[memoryview]]:
    """A pickle, and the buffers that go aside."""
    buffers: list[memoryview] = []

    def stays(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < ASIDE_BYTES_MIN:
            return True
        buffers.append(raw)
        return False

    return pickle.dumps(value, pickle.HIGHEST_PROTOCOL, buffer_callback=stays), buffers


def _from_shelf(own: dict[str, Any], rows: Lot, shared: bytes, lot: Lot) -> Routed:
    shelf = here()
    assert shelf is not None  # all processes of a host have one, or none has
    [selection] = shelf.take(rows)
    return Routed(**own, **pickle.loads(shared, buffers=shelf.take(lot)), rows=selection)
