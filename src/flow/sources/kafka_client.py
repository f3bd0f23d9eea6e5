"""Everything that is asked of a Kafka cluster besides messages: topics, first and last offsets, offsets for lag tools.

Also the settings that money depends on, which errors pass by themselves, and a watch that notices a topic which was
deleted or made anew: librdkafka follows the name of a topic, and would read on in a new one at the old offset.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec  # type: ignore[attr-defined]

from ..config import KafkaSource
from ..errors import ConfigError, SourceError

LOG = logging.getLogger(__name__)
T = TypeVar("T")

ANSWER_S = 30.0
"""How long a cluster may take to answer at the start."""
LOOK_S = 10.0
"""The same for the watch."""
WATCH_S = 5.0
"""How often the watch looks at the topics by itself."""
ABSENT_S = 15.0
"""How long a topic must be away to count as deleted: a broker that has just started may not know it yet."""
PREFETCH_KIBIBYTES = 256 * 1024
"""Messages that wait in memory in one process, over all partitions."""

_FIXED = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "check.crcs": True,
    "isolation.level": "read_committed",
    "allow.auto.create.topics": False,
    # Partitions are assigned, not subscribed to: a source that pauses for a full outbox is not thrown out.
    "max.poll.interval.ms": 86_400_000,
}
_DEFAULTS = {
    "client.id": "tallyflow",
    "fetch.queue.backoff.ms": 10,  # librdkafka's own 1,000 ms leaves a full queue to run dry
    "fetch.message.max.bytes": 4 << 20,
    "receive.message.max.bytes": 1 << 30,  # a message that is too long must come in, to be rejected
    "reconnect.backoff.max.ms": 2_000,
    "log_level": 2,  # lost connections are told by our own messages
}

_PASSING = {
    getattr(KafkaError, name)
    for name in (
        *("_ALL_BROKERS_DOWN", "_AUTHENTICATION", "_RESOLVE", "_SSL", "_TIMED_OUT", "_TIMED_OUT_QUEUE", "_TRANSPORT"),
        *("BROKER_NOT_AVAILABLE", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "FENCED_LEADER_EPOCH"),
        *("GROUP_AUTHORIZATION_FAILED", "KAFKA_STORAGE_ERROR", "LEADER_NOT_AVAILABLE", "NETWORK_EXCEPTION"),
        *("NOT_COORDINATOR", "NOT_LEADER_FOR_PARTITION", "OFFSET_NOT_AVAILABLE", "REPLICA_NOT_AVAILABLE"),
        *("REQUEST_TIMED_OUT", "THROTTLING_QUOTA_EXCEEDED", "UNKNOWN_LEADER_EPOCH", "_MAX_POLL_EXCEEDED"),
    )
}
OUT_OF_RANGE = {KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._LOG_TRUNCATION}
NO_TOPIC = {
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.UNKNOWN_TOPIC_ID,
    KafkaError.INCONSISTENT_TOPIC_ID,
    KafkaError._UNKNOWN_TOPIC,
    KafkaError._UNKNOWN_PARTITION,
}


def passes(error: KafkaError) -> bool:
    """Whether an error goes away once the brokers are well; all others stop the job, which resumes where it was."""
    return not error.fatal() and (error.retriable() or error.code() in _PASSING)


def settings(source: KafkaSource, partitions: int = 1) -> dict[str, Any]:
    """What every client of a process is made with; `partitions` share the memory for messages that wait."""
    options = {name: value.get_secret_value() for name, value in source.options.items()}
    kibibytes = min(max(PREFETCH_KIBIBYTES // max(partitions, 1), 1024), 32 * 1024)
    return {
        **_DEFAULTS,
        "queued.max.messages.kbytes": kibibytes,
        **options,
        **_FIXED,
        "bootstrap.servers": ",".join(source.brokers),
    }


@dataclass(frozen=True)
class Topic:
    """A topic as the cluster has it now."""

    id: str | None
    """Differs for a topic that was deleted and made anew; None: the cluster is too old to have them."""
    partitions: tuple[int, ...]


class Cluster:
    """Questions to the brokers. Raises ConfigError for options that librdkafka does not take."""

    def __init__(self, source: KafkaSource) -> None:
        self._brokers = ",".join(source.brokers)
        self._source = source
        self._trouble = ""
        self._locked_out = False
        given = {**settings(source), "error_cb": self._on_error}
        try:
            Consumer({**given, "group.id": "tallyflow"}).close()
            self._admin = AdminClient(given)
        except (KafkaException, ValueError, TypeError) as error:
            raise ConfigError(f"source.options: Kafka's client says: {_words(error)}") from error

    def _on_error(self, error: KafkaError) -> None:
        self._trouble = error.str()
        self._locked_out = error.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL)

    def _answer(self, future: Any) -> Any:
        """What a question's future gives. Raises KafkaException; at once if the brokers do not let this client in."""
        while True:
            try:
                return future.result(timeout=0.1)
            except TimeoutError:
                self._admin.poll(0)  # calls _on_error
                if self._locked_out:
                    raise KafkaException(KafkaError(KafkaError._AUTHENTICATION)) from None

    def _settled(self, ask: Callable[[float], T], doing: str, answer_s: float) -> T:
        """Asks until there is an answer: the leaders of partitions are unknown for a moment after a change of them."""
        self._trouble, self._locked_out = "", False
        deadline = time.monotonic() + answer_s
        while True:
            try:
                return ask(max(deadline - time.monotonic(), 1))
            except KafkaException as error:
                if self._locked_out or not passes(error.args[0]) or time.monotonic() > deadline:
                    why = self._trouble or _words(error)
                    mend = "look at source.brokers and source.options"
                    raise SourceError(f"Kafka at {self._brokers}: cannot {doing}: {why}; {mend}") from error
            time.sleep(0.1)

    def topics(self, answer_s: float = ANSWER_S) -> dict[str, Topic | None]:
        """The topics of the config; None for one that is not there. Raises SourceError."""
        return self._settled(self._describe, "look at the topics", answer_s)

    def _describe(self, answer_s: float) -> dict[str, Topic | None]:
        found: dict[str, Topic | None] = {}
        names = TopicCollection(list(self._source.topics))
        for name, future in self._admin.describe_topics(names, request_timeout=answer_s).items():
            try:
                description = self._answer(future)
            except KafkaException as error:
                if error.args[0].code() not in NO_TOPIC:
                    raise
                found[name] = None
                continue
            topic_id = str(description.topic_id)
            known = topic_id.strip("A=") != ""  # sixteen zero bytes: the broker has no ids
            found[name] = Topic(topic_id if known else None, tuple(sorted(p.id for p in description.partitions)))
        return found

    def offsets(self, topic: str, partitions: tuple[int, ...], at: Literal["beginning", "end"]) -> dict[int, int]:
        """The first offset of each partition, or the one behind all that is committed. Raises SourceError."""
        of = OffsetSpec.latest() if at == "end" else OffsetSpec.earliest()  # type: ignore[no-untyped-call]
        asked = {TopicPartition(topic, number): of for number in partitions}
        level = IsolationLevel.READ_COMMITTED

        def ask(answer_s: float) -> dict[int, int]:
            answers = self._admin.list_offsets(asked, isolation_level=level, request_timeout=answer_s)
            return {partition.partition: self._answer(future).offset for partition, future in answers.items()}

        return self._settled(ask, "ask for the offsets of partitions", ANSWER_S)

    def range(self, topic: str, number: int) -> str:
        """The offsets that a partition has, for a message."""
        try:
            low = self.offsets(topic, (number,), "beginning")[number]
            high = self.offsets(topic, (number,), "end")[number]
        except SourceError:
            return "what it has cannot be asked now"
        return f"the partition begins at {low} and ends before {high}"


def _words(error: Exception) -> str:
    cause = error.args[0] if error.args else error
    return cause.str() if isinstance(cause, KafkaError) else str(cause)


class Watch:
    """A thread that compares the topics with what they were, and keeps what it finds until somebody asks."""

    def __init__(self, look: Callable[[], dict[str, Topic | None]], topics: dict[str, Topic]) -> None:
        self._look = look
        self._topics = topics
        self._wanted = threading.Condition()
        self._asked = False
        self._stopping = False
        self._seen_well = time.monotonic()  # when the last look began that found everything as it was
        self._reachable = True
        self._absent_since: float | None = None
        self._failure: SourceError | None = None
        self.partitions_added = 0
        """Partitions that the topics have by now and this run does not read; the next start takes them in."""
        self._thread = threading.Thread(target=self._run, name="kafka watch", daemon=True)
        self._thread.start()

    @property
    def reachable(self) -> bool:
        """Whether the brokers answered when they were asked last."""
        return self._reachable

    def check(self) -> None:
        """Raises SourceError if a topic is gone, or another one."""
        if self._failure is not None:
            raise self._failure

    def sure(self, since: float, wait_s: float) -> bool:
        """Whether a look that began after `since` found the topics as they were; waits for one. Raises SourceError.

        While the brokers are out of reach it does not wait: no messages come then either.
        """
        with self._wanted:
            deadline = time.monotonic() + (wait_s if self._reachable else 0)
            while self._seen_well < since and self._failure is None and not self._stopping:
                self._asked = True
                self._wanted.notify_all()
                if not self._wanted.wait(deadline - time.monotonic()):
                    self._reachable = False
                    break
        self.check()
        return self._seen_well >= since

    def stop(self) -> None:
        """Ends the thread with its next look."""
        with self._wanted:
            self._stopping = True
            self._wanted.notify_all()

    def _run(self) -> None:
        silent = False  # the brokers are
        while not self._stopping:
            began = time.monotonic()
            try:
                found, trouble = self._look(), ""
            except SourceError as error:  # nothing is known then, neither good nor bad
                found, trouble = {}, str(error)
            if trouble and not silent:
                LOG.warning("%s; the job waits for them and loses nothing", trouble)
            elif silent and not trouble:
                LOG.warning("Kafka: the brokers answer again")
            silent = bool(trouble)
            with self._wanted:
                if found:
                    self._compare(found, began)
                self._reachable = self._seen_well == began
                self._asked = False
                self._wanted.notify_all()
                self._wanted.wait_for(self._hurried, WATCH_S if self._reachable else 1.0)

    def _hurried(self) -> bool:
        return self._stopping or (self._asked and self._reachable)

    def _compare(self, found: dict[str, Topic | None], began: float) -> None:
        absent = [name for name in self._topics if found[name] is None]
        if absent:
            self._absent_since = self._absent_since or began
            if began - self._absent_since > ABSENT_S:
                self._failure = SourceError(
                    f"Kafka topic {absent[0]}: was deleted while it was read; if it is made anew, read it only {_ANEW}"
                )
            return
        self._absent_since = None
        added = 0
        for name, before in self._topics.items():
            now = found[name]
            assert now is not None  # none is absent
            if now.id != before.id:
                self._failure = another_topic(name, before.id, now.id)
                return
            added += max(len(now.partitions) - len(before.partitions), 0)
        if added > self.partitions_added:
            LOG.warning("Kafka: %d partitions were added; they are read after a restart of the job", added)
        self.partitions_added = added
        self._seen_well = began


_ANEW = "into a new lineage (another state_dir and an empty store)"


def another_topic(name: str, before: str | None, now: str | None) -> SourceError:
    """The topic of the positions is not the one that is there."""
    return SourceError(
        f"Kafka topic {name}: was deleted and made anew: the positions kept are of topic id {before}, it now has id "
        f"{now}. Offsets of the one mean nothing in the other; read it under another name, or {_ANEW}"
    )


class Shown:
    """Shows positions to lag tools as the offsets of a consumer group; they are never read back."""

    def __init__(self, source: KafkaSource, group: str) -> None:
        self._consumer = Consumer({**settings(source), "group.id": group})
        self._lock = threading.Lock()
        self._shown: dict[tuple[str, int], int] = {}

    def show(self, topic: str, number: int, offset: int) -> None:
        """Shows one position, once it is durable, without waiting. What fails is shown with the next."""
        with self._lock:
            if self._shown.get((topic, number)) != offset:
                self._shown[topic, number] = offset
                with contextlib.suppress(KafkaException):
                    self._consumer.commit(offsets=[TopicPartition(topic, number, offset)], asynchronous=True)

    def finish(self, offsets: dict[tuple[str, int], int]) -> None:
        """Shows the last positions and ends the connection."""
        places = [TopicPartition(topic, number, offset) for (topic, number), offset in offsets.items()]
        try:
            self._consumer.commit(offsets=places, asynchronous=False)
        except KafkaException as error:
            LOG.warning("Kafka: the last offsets could not be shown to lag tools: %s", _words(error))
        self._consumer.close()
