"""The source as Bytewax drives it, partition by partition, without the rest of the job."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flow import config
from flow.cli.doctor import Check, _source
from flow.config import load_config
from flow.errors import SourceError
from flow.sources.kafka import MANIFEST, KafkaSource
from flow.sources.pausing import Flow
from flow.state.manifest import seal, unseal
from flow.steps.batches import Heartbeat, Lines

from .brokers import Broker
from .conftest import event


class Driven:
    """Partition 0 of a source, driven by hand."""

    def __init__(self, broker: Broker, topic: str, folder: Path, **given: Any) -> None:
        model = config.KafkaSource(kind="kafka", brokers=broker.address, topic=topic, **given)
        self.full = False
        self.stop = threading.Event()
        self.source = KafkaSource(model, folder, 1000, 200_000, Flow(self.stop, lambda: self.full))
        self.part: Any = None

    def begin(self, state: bytes | None = None) -> "Driven":
        (name, *_) = self.source.list_parts()
        self.part = self.source.build_part("source", name, state)
        assert self.part.next_batch() == [Heartbeat()]  # an execution begins with it, whatever is there
        return self

    def read(self, events: int) -> list[Any]:
        """All items until there are so many events, which are one a message here."""
        items: list[Any] = []
        deadline = time.monotonic() + 20
        while sum(item.data.count(b"\n") + 1 for item in items if isinstance(item, Lines)) < events:
            items += self.part.next_batch()
            assert time.monotonic() < deadline
        return items

    def state(self) -> dict[str, Any]:
        return unseal(self.part.snapshot(), MANIFEST, "here")


class Listening:
    """A consumer that notes how long it is to wait for messages."""

    def __init__(self, consumer: Any) -> None:
        self._consumer = consumer
        self.waits: list[float] = []

    def consume(self, messages: int, wait_s: float) -> Any:
        self.waits.append(wait_s)
        return self._consumer.consume(messages, wait_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._consumer, name)


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Callable[..., Driven]]:
    made: list[Driven] = []

    def make(broker: Broker, topic: str, **given: Any) -> Driven:
        made.append(Driven(broker, topic, tmp_path, **given))
        return made[-1]

    yield make
    for driven in made:
        if driven.part is not None:
            driven.part.close()


def test_partitions_are_named_by_number(tansu: Broker, drive: Callable[..., Driven]):
    topic = tansu.topic(3)
    assert drive(tansu, topic).source.list_parts() == [f"{topic}-00000", f"{topic}-00001", f"{topic}-00002"]


def test_starts_that_a_killed_process_has_named_are_synced_by_the_next(
    tansu: Broker, drive: Callable[..., Driven], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic, synced = tansu.topic(), list[Path]()
    monkeypatch.setattr("flow.sources.kafka.settle", synced.append)
    drive(tansu, topic).begin()
    assert synced == []
    drive(tansu, topic).begin()
    (starts,) = tmp_path.rglob(f"{topic}.starts")
    assert synced == [starts.parent]


def test_a_topic_that_was_just_made(broker: Broker, drive: Callable[..., Driven]):
    # given partitions whose leaders are not at work yet, then the start waits for them
    drive(broker, broker.topic(32)).begin()


def test_an_epoch_behind_one_with_events_has_a_heartbeat(broker: Broker, drive: Callable[..., Driven]):
    topic = broker.topic()
    broker.produce(topic, [event(1)])
    driven = drive(broker, topic).begin()
    assert not any(isinstance(item, Heartbeat) for item in driven.read(1))
    driven.state()
    assert driven.part.next_batch() == [Heartbeat()]
    assert driven.part.next_batch() == []
    driven.state()
    assert driven.part.next_batch() == []


def test_idle_and_paused(broker: Broker, drive: Callable[..., Driven]):
    # given a partition that is read to its end
    topic = broker.topic()
    broker.produce(topic, [event(1)])
    driven = drive(broker, topic).begin()
    driven.read(1)
    # then it waits for no message, and wants to be asked again soon, long before the epoch of 200 ms ends
    driven.part._consumer = listening = Listening(driven.part._consumer)
    for _ in range(20):
        before = datetime.now(UTC)
        assert driven.part.next_batch() == []
        assert before < driven.part.next_awake() <= datetime.now(UTC) + timedelta(milliseconds=50)
    assert listening.waits == [0.0] * 20
    assert driven.part.lag == 0
    assert driven.part.message_time_ms > 0
    assert (driven.source.reachable, driven.source.added) == (True, 0)
    # when the outbox is full, then nothing is read, until it has room
    driven.full = True
    broker.produce(topic, [event(2), event(3)])
    time.sleep(0.3)
    assert driven.part.next_batch() == [Heartbeat()]
    assert driven.part.next_awake() is not None
    driven.full = False
    driven.read(2)
    # when the job is to stop
    driven.stop.set()
    with pytest.raises(StopIteration):
        driven.part.next_batch()


def test_a_snapshot_resumes_behind_the_last_message(broker: Broker, drive: Callable[..., Driven]):
    topic = broker.topic()
    broker.produce(topic, [event(n) for n in range(10)])
    first = drive(broker, topic).begin()
    first.read(10)
    state = first.state()
    assert (state["next"], state["last"], state["topic_id"]) == (10, 9, first.source.topics()[topic].id)
    broker.produce(topic, [event(10)])
    second = drive(broker, topic).begin(seal(MANIFEST, state))
    (lines,) = [item for item in second.read(1) if isinstance(item, Lines)]
    assert lines.data == event(10)
    assert lines.messages is not None
    assert lines.messages.offsets.tolist() == [10]


def test_row_22_another_message_where_the_last_one_was(broker: Broker, drive: Callable[..., Driven]):
    # given a snapshot of a topic whose id is not known, as old brokers have none, and whose messages are others now
    topic = broker.topic()
    broker.produce(topic, [event(n) for n in range(10)])
    state = {"next": 5, "topic_id": None, "last": 4, "checksum": 0xABCD, "leader_epoch": -1}
    driven = drive(broker, topic).begin(seal(MANIFEST, state))
    with pytest.raises(SourceError, match=r"offset 4 holds another message .* was 0000abcd.*Offset 5, to be read next"):
        driven.read(1)


def test_row_22_another_topic_id(broker: Broker, drive: Callable[..., Driven]):
    topic = broker.topic()
    state = {"next": 0, "topic_id": "AAAAAAAAAAAAAAAAAAAAAQ", "last": -1, "checksum": 0, "leader_epoch": -1}
    with pytest.raises(SourceError, match="positions kept are of topic id AAAAAAAAAAAAAAAAAAAAAQ, it now has id "):
        drive(broker, topic).begin(seal(MANIFEST, state))


def test_batches_are_bounded(broker: Broker, drive: Callable[..., Driven]):
    # given more messages than a batch has rows
    topic = broker.topic()
    broker.produce(topic, [event(n) for n in range(5000)])
    sizes = [item.data.count(b"\n") + 1 for item in drive(broker, topic).begin().read(5000)]
    assert max(sizes) <= 1000
    assert sum(sizes) == 5000


def test_doctor_asks_the_brokers(broker: Broker, tmp_path: Path):
    topic = broker.topic(3)
    path = tmp_path / "config.yaml"

    def source(name: str) -> Check:
        path.write_text(
            f"source: {{kind: kafka, brokers: '{broker.address}', topic: {name}}}\n"
            "prices: prices.yaml\nstore: chdb:store\nstate_dir: state\n"
        )
        return _source(load_config(path))

    assert source(topic) == Check("source", "ok", "3 partitions of 1 Kafka topics")
    assert source("nowhere") == Check(
        "source", "fail", "Kafka topic nowhere: is not there", "make it, or change source.topic"
    )
