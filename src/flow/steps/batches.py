"""What flows between the source, decode and the steps behind it, and the limits every event is held to."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..errors import RejectReason
from ..kernels import Identity
from ..schema import EVENTS, REJECTED, STANDARD_METERS
from ..state.ledger_file import position_texts

METERS_PER_EVENT_LIMIT = 1024
"""The most `meters_per_event_max` may be: the native decoder keeps this much room for one event."""


@dataclass(frozen=True)
class Messages:
    """Which messages a text was joined from; they have no common byte offsets, so this turns a place in it into one."""

    starts: npt.NDArray[np.int64]
    """Byte of the text at which each begins, ascending from 0."""
    offsets: npt.NDArray[np.int64]
    """The offset of each in its partition."""


@dataclass(frozen=True)
class Lines:
    """Whole NDJSON lines; a line's position is its byte offset in `origin`, or in `data` if that has `messages`."""

    origin: str
    offset: int
    data: bytes
    messages: Messages | None = None
    admitted: bool = False
    """Whether its events are accepted though they are older than the horizon."""
    late: bool = False
    """Whether its events were too late and are billed now: each has a `reason` and an `author`."""


@dataclass(frozen=True)
class Columns:
    """Rows of a Parquet or Arrow file; a row's position is its number in `origin`, from `row` on."""

    origin: str
    row: int
    table: pa.RecordBatch


@dataclass(frozen=True)
class Unreadable:
    """A rejected event made by the source, from input that cannot even be cut into lines or rows."""

    origin: str
    offset: int
    data: bytes
    reason: RejectReason
    detail: str


@dataclass(frozen=True)
class Heartbeat:
    """No event, but a sign of life that reaches every shard and writer.

    A writer takes part in the snapshot of an epoch only if something reached it in that epoch, and freezes its last
    block with the next snapshot: without heartbeats the last events before a silence would wait for its end.
    """


@dataclass(frozen=True, slots=True)
class Amends:
    """What changes a bill later says besides its usage."""

    kind: str
    """`correction`, whose quantities are differences; or `late`: events that were too late, and are billed now."""
    texts: pa.StringArray
    """For each event JSON with `kind`, `reason`, `author` and, for a correction, `corrects`."""


@dataclass(frozen=True)
class Decoded:
    """What decode makes of one item; `read` is counted from the input, not from the two outcomes."""

    origin: str
    events: pa.RecordBatch  # EVENTS
    rejected: pa.RecordBatch  # REJECTED
    read: int
    unknown_fields: int
    messages: Messages | None = None
    identity: Identity | None = None
    """Of the events, where it was computed ahead."""
    flags: pa.RecordBatch | None = None
    """FLAGS: the rules that some of the events fail."""
    checked: bool = False
    """Whether the events were held to the rules."""
    amends: Amends | None = None
    admitted: bool = False
    """Whether events are accepted though they are older than the horizon: somebody has made sure of them."""
    apart: tuple["Decoded", ...] = ()
    """Corrections, and late events that are billed now, of the same item: few, each kind in a batch of its own."""

    @property
    def parts(self) -> tuple["Decoded", ...]:
        """This and what is apart."""
        return (self, *self.apart)


_ZEROS = pa.repeat(pa.scalar(0, pa.int32()), 1 << 17)


def zeros(count: int) -> pa.Int32Array:
    """So many zeros; up to the rows of a large batch, no memory is written for them."""
    return _ZEROS.slice(0, count) if count <= len(_ZEROS) else pa.repeat(pa.scalar(0, pa.int32()), count)


def places(positions: pa.Int64Array, messages: Messages | None) -> tuple[pa.Int64Array, pa.Int32Array]:
    """Positions as they count in the whole origin, and the byte within the message; 0 where there are no messages."""
    if messages is None:
        return positions, zeros(len(positions))
    place = positions.to_numpy()
    message = np.searchsorted(messages.starts, place, side="right") - 1
    byte = place - messages.starts[message]
    return pa.array(messages.offsets[message]), pa.array(byte, pa.int32())


def source_positions(origin: str, positions: pa.Int64Array, messages: Messages | None) -> pa.StringArray:
    """Where events come from, for people: `origin:position`.

    With messages it is `origin:offset`, and `origin:offset+byte` for an event that is not the first of its message.
    """
    return position_texts(origin, *places(positions, messages))


@dataclass(frozen=True)
class Limits:
    """What an event may be at most; `known_meters` are names that only an integer column may carry."""

    event_bytes_max: int = 1 << 20
    string_bytes_max: int = 1024
    quantity_max: int = 10**12
    meters_per_event_max: int = 64
    clock_skew_us: int = 300_000_000
    known_meters: frozenset[str] = field(default=frozenset(STANDARD_METERS))

    def __post_init__(self) -> None:
        if not 0 < self.meters_per_event_max <= METERS_PER_EVENT_LIMIT:
            raise ValueError(f"meters_per_event_max must be 1 to {METERS_PER_EVENT_LIMIT}")
        if not 0 < self.quantity_max < 2**63:
            raise ValueError("quantity_max must be 1 to 2^63 - 1")
        if not (0 < self.event_bytes_max < 2**31 and 0 < self.string_bytes_max < 2**31):
            raise ValueError("event_bytes_max and string_bytes_max must be 1 to 2^31 - 1")
        if self.clock_skew_us < 0:
            raise ValueError("clock_skew_us must be at least 0")


class Rejects:
    """Collects rejected events of one origin into a REJECTED batch."""

    def __init__(self, origin: str, messages: Messages | None = None) -> None:
        self._origin = origin
        self._messages = messages
        self._rows: list[tuple[int, str, str, bytes]] = []

    def add(self, position: int, reason: RejectReason, detail: str, payload: bytes) -> None:
        self._rows.append((position, reason.name, detail, payload))

    def batch(self) -> pa.RecordBatch:
        columns = [[row[n] for row in self._rows] for n in range(len(REJECTED))]
        positions = source_positions(self._origin, pa.array(columns[0], pa.int64()), self._messages)
        rest = [pa.array(column, field.type) for column, field in zip(columns[1:], list(REJECTED)[1:], strict=True)]
        return pa.RecordBatch.from_arrays([positions, *rest], schema=REJECTED)


def no_events() -> pa.RecordBatch:
    """EVENTS without a row."""
    return pa.RecordBatch.from_arrays([pa.array([], field.type) for field in EVENTS], schema=EVENTS)
