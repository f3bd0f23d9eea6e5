"""The inbox of the state directory as a source: one partition, which one process of the whole job reads.

It goes the way of all other events from decode on. It neither ends a run nor holds one open: with a source that ends,
it ends behind the files that were there at the start; beside Kafka it looks for new ones each second.
"""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from bytewax.inputs import FixedPartitionedSource

from ..errors import SourceError
from ..state.inbox import Inbox, kind_of
from ..state.manifest import seal, unseal
from ..steps.amend import CORRECTION, LATE
from ..steps.batches import Heartbeat, Lines
from ..steps.inbox_rows import ORIGIN
from .files import CHUNK_BYTES
from .pausing import Flow, Item, PausingPartition

MANIFEST = "inbox"
PART = "inbox"
"""The Bytewax partition; part of every snapshot, so it never changes."""
LOOK_NS = 10**9
ADMITTED = (CORRECTION, LATE)
"""Kinds of files whose events are accepted though they are older than the horizon: the command that put them there has
looked in the ledger."""


@dataclass(frozen=True)
class InboxSource(FixedPartitionedSource[Item, bytes]):
    """`ends`: whether the run does, so that only the files there at its start are read."""

    inbox: Inbox
    flow: Flow
    epoch_us: int
    ends: bool

    def list_parts(self) -> list[str]:
        return [PART]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        name, offset = "", 0
        if resume_state is not None:
            kept = unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}")
            name, offset = kept["file"], kept["offset"]
        return _Reader(self, name, offset)


class _Reader(PausingPartition[Item]):
    """Reads file after file. `name`, `offset`: the file that was read last, "" for none, and how far."""

    def __init__(
        self, source: InboxSource, name: str, offset: int, clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        super().__init__(source.flow, leads=False)
        self._source = source
        self._name, self._offset = name, offset
        self._clock_ns = clock_ns
        self._waiting: deque[str] = deque()
        self._look_ns = clock_ns()  # when to look for files
        self._epoch_ends_ns = self._look_ns + source.epoch_us * 1000
        self._gave = False  # something, in this epoch
        self._owes = False  # a heartbeat, since something was given in the epoch before

    def read(self) -> list[Item] | None:
        now_ns = self._clock_ns()
        if not self._waiting and now_ns >= self._look_ns:
            self._look_ns = now_ns + LOOK_NS
            self._waiting.extend(self._unread())
        lines = self._next()
        if lines is None and self._source.ends:
            return None
        items: list[Item] = [Heartbeat()] if self._owes else []
        self._owes = False
        if lines is not None:
            items.append(lines)
            self._gave = True
        return items

    def next_awake(self) -> datetime | None:
        if self._waiting or self._source.ends:
            return super().next_awake()
        return super().next_awake() or datetime.now(UTC) + timedelta(microseconds=self.sleep_us())

    def sleep_us(self) -> int:
        """How long nothing is to be done: until it is time to look again, but never over the end of an epoch, where
        all partitions wait for each other."""
        now_ns, epoch_ends_ns = self._clock_ns(), self._epoch_ends_ns
        if epoch_ends_ns <= now_ns:  # the snapshot comes next
            epoch_ends_ns = now_ns + self._source.epoch_us * 1000
        return (min(self._look_ns, epoch_ends_ns) - now_ns) // 1000

    def snapshot(self) -> bytes:
        self._epoch_ends_ns = self._clock_ns() + self._source.epoch_us * 1000
        self._owes, self._gave = self._gave, False
        return seal(MANIFEST, {"file": self._name, "offset": self._offset})

    def _unread(self) -> list[str]:
        """From the file that was read last on."""
        names = self._source.inbox.names()
        if self._name and self._name not in names:
            raise SourceError(
                f"{self._source.inbox.path / self._name}: missing; it was read up to byte {self._offset}, and files of "
                "the inbox are never deleted: restore it from a backup"
            )
        if names and names[-1] > self._name:
            self._source.inbox.settle()  # before anything of them is counted
        return [name for name in names if name >= self._name]

    def _next(self) -> Lines | None:
        while self._waiting:
            name = self._waiting[0]
            if name != self._name:
                self._name, self._offset = name, 0
            path = self._source.inbox.path / name
            try:
                with path.open("rb") as file:
                    file.seek(self._offset)
                    lines = file.read(CHUNK_BYTES)
                    lines += file.readline() if lines else b""
            except OSError as error:
                raise SourceError(f"{path}: cannot be read: {error.strerror or error}") from error
            if lines:
                first, self._offset = self._offset, self._offset + len(lines)
                kind = kind_of(name)
                admitted = kind in ADMITTED
                return Lines(ORIGIN + name, first, lines, admitted=admitted, late=kind == LATE)
            self._waiting.popleft()
        return None
