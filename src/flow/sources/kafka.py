"""Kafka topics: a Bytewax partition for each Kafka partition, with a consumer of its own that is assigned.

Why one consumer each: messages wait in a queue for each consumer, so that a partition which pauses, or whose worker is
slow, holds up no other; a shared one would have to hand out messages across worker threads and stop its queue for all.
It costs a few threads and connections for each partition; hundreds of partitions belong on several processes.

Positions live in the snapshot alone: the next offset, the topic's id, and the checksum of the last message, which is
read again on resume. `auto.offset.reset` is `error`: a position that the brokers do not have stops the job. Where the
partitions of a topic begin is written to the state directory before the first message is read, so that `start: end`
means one moment, whatever happens in the first epoch; a partition that is added later begins at its first message.
"""

import contextlib
import threading
import time
import zlib
from bisect import bisect_left
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from bytewax.inputs import FixedPartitionedSource
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from .. import config
from ..errors import SourceError
from ..state.files import explain, make_folder, settle, sync_folder, write_whole
from ..state.manifest import seal, unseal
from ..steps.batches import Heartbeat
from .kafka_client import LOOK_S, NO_TOPIC, OUT_OF_RANGE, Cluster, Shown, Topic, Watch, another_topic, passes, settings
from .kafka_messages import message_items
from .pausing import Flow, Item, PausingPartition

MANIFEST = "kafka"
STARTS_MANIFEST = "kafka-starts"

BATCH_BYTES = 16 << 20
"""Messages that go to the decoder at once."""
_TAKE_MAX = 8192  # messages a call: more at once is slower, since they leave the processor's cache
_SURE_S = 1.0  # how long a snapshot waits for the watch


@dataclass
class Position:
    """How far a partition was read."""

    next: int
    """The offset to read next; offsets have gaps, so it counts nothing."""
    topic_id: str | None = None
    last: int = -1
    """The offset of the last message read; -1: none was."""
    checksum: int = 0
    """CRC-32 of that message's time and value."""
    leader_epoch: int = -1
    """Of the partition's leader that wrote it; -1: unknown."""

    def took(self, message: Any) -> None:
        """Goes on behind a message."""
        self.last = message.offset()
        self.next = self.last + 1
        self.checksum = checksum(message)
        epoch = message.leader_epoch()
        self.leader_epoch = -1 if epoch is None else epoch


def checksum(message: Any) -> int:
    """Tells a message from another that has got its offset."""
    return zlib.crc32(message.value() or b"", zlib.crc32(str(message.timestamp()).encode()))


def part_name(topic: str, number: int) -> str:
    """The Bytewax partition of a Kafka partition; part of every snapshot, so it never changes."""
    return f"{topic}-{number:05d}"


@dataclass
class KafkaSource(FixedPartitionedSource[Item, bytes]):
    """Reads all partitions of the topics that there are at the start; `folder` keeps where each topic began."""

    given: config.KafkaSource
    folder: Path
    batch_rows: int
    epoch_us: int
    flow: Flow
    readers: list["_Reader"] = field(default_factory=list)
    """The partitions of this process."""

    def __post_init__(self) -> None:
        self.cluster = Cluster(self.given)
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._watch: Watch | None = None
        self._open = 0
        self.shown = Shown(self.given, self.given.group) if self.given.group else None

    def topics(self) -> dict[str, Topic]:
        """The topics as they were at the start of this run. Raises SourceError."""
        with self._lock:
            if not self._topics:
                found = self.cluster.topics()
                for name, topic in found.items():
                    if topic is None:
                        raise SourceError(f"Kafka topic {name}: is not there; make it, or look at source.topic")
                    self._topics[name] = topic
            return self._topics

    def list_parts(self) -> list[str]:
        return [part_name(name, number) for name, topic in self.topics().items() for number in topic.partitions]

    def build_part(self, step_id: str, for_part: str, resume_state: bytes | None) -> "_Reader":
        name, _, digits = for_part.rpartition("-")
        number = int(digits)
        topic = self.topics()[name]
        if resume_state is not None:
            position = Position(**unseal(resume_state, MANIFEST, f"recovery store, step {step_id}, {for_part}"))
        else:
            position = self._begin(name, number)
        if position.topic_id != topic.id and position.topic_id and topic.id:
            raise another_topic(name, position.topic_id, topic.id)
        position.topic_id = topic.id or position.topic_id
        end = None
        if self.given.until == "end":
            end = self.cluster.offsets(name, (number,), "end")[number]
        reader = _Reader(self, self.watch(), name, number, position, end)
        with self._lock:
            self.readers.append(reader)
            self._open += 1
        return reader

    def closed(self) -> None:
        """One partition has ended; with the last one the watch does."""
        with self._lock:
            self._open -= 1
            if not self._open and self._watch is not None:
                self._watch.stop()
                self._watch = None

    def watch(self) -> Watch:
        """The one of this process."""
        topics = self.topics()
        with self._lock:
            if self._watch is None:
                self._watch = Watch(lambda: self.cluster.topics(LOOK_S), topics)
            return self._watch

    @property
    def reachable(self) -> bool:
        """Whether the brokers answered when they were asked last."""
        watch = self._watch
        return watch is None or watch.reachable

    @property
    def added(self) -> int:
        """Partitions that the topics have by now and this run does not read."""
        watch = self._watch
        return 0 if watch is None else watch.partitions_added

    def finish(self) -> None:
        """The run has ended and its last snapshot is durable: lag tools may see it."""
        if self.shown is not None:
            self.shown.finish({(reader.topic, reader.number): reader.position.next for reader in self.readers})

    def _begin(self, name: str, number: int) -> Position:
        """Where a partition without a snapshot begins."""
        kept = self._starts(name)
        if number in kept["offsets"]:
            return Position(kept["offsets"][number], kept["topic_id"])
        return Position(self.cluster.offsets(name, (number,), "beginning")[number], kept["topic_id"])

    def _starts(self, name: str) -> dict[str, Any]:
        """Where the partitions of a topic began in this lineage; decided once, by the first run."""
        path = self.folder / f"{name}.starts"
        with self._lock:
            topic = self._topics[name]
            if not path.exists():
                offsets = self.cluster.offsets(name, topic.partitions, self.given.start)
                _write_first(path, seal(STARTS_MANIFEST, {"topic_id": topic.id, "offsets": sorted(offsets.items())}))
            else:
                settle(path.parent)
            try:
                kept = unseal(path.read_bytes(), STARTS_MANIFEST, str(path))
            except OSError as error:
                raise explain(error, path, "read") from error
            return {**kept, "offsets": dict(kept["offsets"])}


def _write_first(path: Path, content: bytes) -> None:
    """Writes a file, synced, if no other process of this job was faster. Raises StateError."""
    make_folder(path.parent)
    making = path.with_name(f"{path.name}.{uuid4().hex}")  # process ids repeat on other hosts
    write_whole(making, content)
    try:
        with contextlib.suppress(FileExistsError):
            path.hardlink_to(making)
        making.unlink()
        sync_folder(path.parent)
    except OSError as error:
        raise explain(error, path, "write") from error


class _Reader(PausingPartition[Item]):
    """One partition. `end`: the offset at which to stop, if any."""

    def __init__(
        self, source: KafkaSource, watch: Watch, topic: str, number: int, position: Position, end: int | None
    ) -> None:
        super().__init__(source.flow, leads=part_name(topic, number) == min(source.list_parts()))
        self.topic, self.number, self.position = topic, number, position
        self.name = f"{topic}[{number}]"
        self._source = source
        self._watch = watch
        self._end = end
        self._take = 64
        self._idle = timedelta(microseconds=min(50_000, source.epoch_us))
        self._awake: datetime | None = None
        self._read_at = 0.0  # monotonic: when the last message was taken that the watch has not vouched for
        self._gave = False  # something, in this epoch
        self._owes = False  # a heartbeat, since something was given in the epoch before
        self._durable: int | None = None  # the offset of the snapshot before
        self._consumer = Consumer(
            {
                **settings(source.given, len(source.list_parts())),
                "group.id": source.given.group or "tallyflow",
                "error_cb": self._on_error,
            }
        )
        self._failure: KafkaError | None = None
        self.trouble = ""
        """The last thing that the brokers did not do; it passes."""
        self.message_time_ms: int | None = None
        """When the last message that was read was written; None: none was read in this run."""
        self._resumed = self._assign()

    def _assign(self) -> tuple[int, int] | None:
        """Begins to fetch: with the last message, if it is still there, so as to see that it is the same."""
        position = self.position
        resumed, offset = None, position.next
        if position.last >= 0:
            low = self._source.cluster.offsets(self.topic, (self.number,), "beginning")
            if low[self.number] <= position.last:
                resumed, offset = (position.last, position.checksum), position.last
        # With the epoch the brokers are asked whether a leader that lost messages has been at work since.
        epoch = {} if position.leader_epoch < 0 else {"leader_epoch": position.leader_epoch}
        self._consumer.assign([TopicPartition(self.topic, self.number, offset, **epoch)])  # type: ignore[arg-type]
        return resumed

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = error
        self.trouble = error.str()

    @property
    def lag(self) -> int:
        """Messages behind the end, as far as the brokers have told; gaps count as messages."""
        with contextlib.suppress(KafkaException, RuntimeError):  # the latter: it is closed
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self.topic, self.number), cached=True)
            return max(high - self.position.next, 0)
        return 0

    # -- reading

    def read(self) -> list[Item] | None:
        self._watch.check()
        if self._failure is not None:
            raise self._stopped(self._failure)
        if self._end is not None and self.position.next >= self._end:
            return None
        items: list[Item] = [Heartbeat()] if self._owes else []
        self._owes = False
        values, offsets = self._messages()
        if values:
            items.extend(message_items(self.name, values, offsets, self._source.batch_rows))
            self._gave = True
        return items

    def next_awake(self) -> datetime | None:
        return super().next_awake() or self._awake

    def _messages(self) -> tuple[list[bytes | None], list[int]]:
        """Values and offsets of what is waiting, up to a batch; says when to look again."""
        values: list[bytes | None] = []
        offsets: list[int] = []
        batch_bytes, rows = 0, self._source.batch_rows
        self._awake = None
        while len(values) < rows and batch_bytes < BATCH_BYTES:
            taken = self._consumer.consume(min(self._take, rows - len(values)), 0.0)
            if not taken:
                self._awake = datetime.now(UTC) + self._idle
                break
            self._read_at = time.monotonic()
            messages, behind = self._good(taken)
            if messages:
                self.position.took(messages[-1])
                self.message_time_ms = messages[-1].timestamp()[1]
            self.position.next = max(self.position.next, behind)
            if self._end is not None and self.position.next >= self._end:
                rows = 0  # done
            new: list[bytes | None] = list(map(Message.value, messages))
            if not new:
                continue
            new_bytes = sum(map(len, filter(None, new)))
            self._take = max(16, min(_TAKE_MAX, BATCH_BYTES * len(new) // max(new_bytes, 1)))
            batch_bytes += new_bytes
            values += new
            offsets += [message.offset() for message in messages]
        return values, offsets

    def _good(self, taken: list[Any]) -> tuple[list[Any], int]:
        """The messages to hand on, and an offset below which all is read then. Raises SourceError."""
        behind = 0
        if any(map(Message.error, taken)):
            messages = []
            for message in taken:
                error = message.error()
                if error is None:
                    messages.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    # Transaction markers and the gaps of a compacted topic may lie behind the last message.
                    behind = message.offset()
                else:
                    self._deal_with(error)
            taken = messages
        if taken and self._resumed is not None:
            self._check_same(taken[0], *self._resumed)
            self._resumed = None
        if taken and taken[0].offset() < self.position.next:
            taken = [message for message in taken if message.offset() >= self.position.next]
        if taken and self._end is not None and taken[-1].offset() >= self._end:
            taken = taken[: bisect_left(taken, self._end, key=Message.offset)]  # type: ignore[arg-type]
            behind = self._end
        return taken, behind

    def _deal_with(self, error: KafkaError) -> None:
        if error.code() in OUT_OF_RANGE:
            raise self._out_of_range(error)
        if error.code() not in NO_TOPIC and not passes(error):
            raise self._stopped(error)
        self.trouble = error.str()  # if the topic is gone, the watch finds out

    def _check_same(self, first: Any, last: int, kept: int) -> None:
        if first.offset() == last and checksum(first) != kept:
            raise SourceError(
                f"Kafka {self.name}: offset {last} holds another message than was read there before (checksum "
                f"{checksum(first):08x}, was {kept:08x}): the topic was made anew, or the brokers lost messages. "
                f"Offset {self.position.next}, to be read next, means nothing in it: read it under another name, or "
                "into a new lineage (another state_dir and an empty store)"
            )

    def _out_of_range(self, error: KafkaError) -> SourceError:
        has = self._source.cluster.range(self.topic, self.number)
        return SourceError(
            f"Kafka {self.name}: offset {self.position.next} is to be read next, but {has}: messages were deleted "
            "before they were read, or the topic was made anew. Going on would leave events unbilled: bring them back, "
            "or begin a new lineage (another state_dir and an empty store) and bill the gap from a gateway's log "
            f"({error.str()})"
        )

    def _stopped(self, error: KafkaError) -> SourceError:
        return SourceError(
            f"Kafka {self.name}, offset {self.position.next}: {error.str()} ({error.name()}); nothing was skipped: "
            "mend it and start again"
        )

    # -- the snapshot

    def snapshot(self) -> bytes:
        # Messages of a topic that was made anew must not get into the store: look, if any came since the last look.
        # If the brokers do not answer in time, the next snapshot asks; it comes before this epoch's block is published.
        if self._read_at and self._watch.sure(self._read_at, _SURE_S):
            self._read_at = 0.0
        self._owes, self._gave = self._gave, False
        if self._source.shown is not None and self._durable is not None:
            # The snapshot before this one is durable by now.
            self._source.shown.show(self.topic, self.number, self._durable)
        self._durable = self.position.next
        return seal(MANIFEST, self.position.__dict__)

    def close(self) -> None:
        self._source.closed()
        self._consumer.close()
