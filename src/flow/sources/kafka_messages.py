"""Kafka messages into source items.

A message is Arrow IPC if it begins as a stream (ff ff ff ff) or a file (ARROW1) does, which no JSON text can. Anything
else is text: a line break separates events, so that a message may hold one event or thousands, and the last line needs
no break; a JSON event must therefore stand on one line. A message without a value (the tombstone of a compacted topic)
is no event and is not counted; an empty one is an event that says nothing, and is rejected.
"""

from collections.abc import Iterator
from itertools import groupby

import numpy as np
import pyarrow as pa

from ..errors import RejectReason
from ..steps.batches import Columns, Lines, Messages, Unreadable

_STREAM, _FILE = b"\xff\xff\xff\xff", b"ARROW1"

MessageItem = Lines | Columns | Unreadable


def message_items(
    origin: str, values: list[bytes | None], offsets: list[int], batch_rows: int
) -> Iterator[MessageItem]:
    """All events of some messages of one partition, in their order; `origin` is the partition's name."""
    if all(values):
        lines = _lines(origin, values, offsets)  # type: ignore[arg-type]
        if _STREAM not in lines.data and _FILE not in lines.data:  # mostly so, and found without a look at each one
            if values:
                yield lines
            return
    messages = zip(values, offsets, strict=True)
    for kind, group in groupby(messages, lambda message: _kind(message[0])):
        if kind == "text":
            texts, places = zip(*group, strict=True)
            yield _lines(origin, list(texts), list(places))
        elif kind == "empty":
            for _, offset in group:
                yield Unreadable(origin, offset, b"", RejectReason.INVALID_JSON, "the message is empty")
        elif kind == "arrow":
            for value, offset in group:
                yield from _columns(origin, value or b"", offset, batch_rows)


def _kind(value: bytes | None) -> str:
    if value is None:
        return "tombstone"
    if not value:
        return "empty"
    return "arrow" if value.startswith((_STREAM, _FILE)) else "text"


def _lines(origin: str, values: list[bytes], offsets: list[int]) -> Lines:
    """Texts as one, with a line break between them; where one ends with its own, an empty line follows: no event."""
    sizes = np.fromiter(map(len, values), np.int64, len(values)) + 1
    starts = np.cumsum(sizes) - sizes
    return Lines(origin, 0, b"\n".join(values), Messages(starts, np.array(offsets, np.int64)))


def _columns(origin: str, value: bytes, offset: int, batch_rows: int) -> Iterator[Columns | Unreadable]:
    """The rows of an Arrow message, read whole or not at all; a row's position is its number in the message."""
    row = 0
    try:
        if value.startswith(_STREAM):
            with pa.ipc.open_stream(value) as stream:
                batches = list(stream)
        else:
            with pa.ipc.open_file(value) as file:
                batches = [file.get_batch(number) for number in range(file.num_record_batches)]
    except (pa.ArrowException, OSError) as error:  # an OSError: the message ends too early
        detail = f"the message is not Arrow IPC that can be read: {str(error).splitlines()[0]}"
        yield Unreadable(origin, offset, value, RejectReason.INVALID_ARROW, detail)
        return
    for batch in batches:
        for start in range(0, batch.num_rows, batch_rows):
            yield Columns(f"{origin}:{offset}", row + start, batch.slice(start, batch_rows))
        row += batch.num_rows
