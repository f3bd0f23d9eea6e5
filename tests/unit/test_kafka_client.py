"""The settings that money depends on, which errors pass, and the watch; no broker."""

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import KafkaError

from flow.config import KAFKA_REFUSED, KafkaSource
from flow.errors import ConfigError, SourceError
from flow.sources import kafka_client
from flow.sources.kafka_client import Cluster, Topic, Watch, passes, settings


def source(**options: object) -> KafkaSource:
    return KafkaSource(kind="kafka", brokers="a:1, b:2", topic="t", options=options)


def test_settings():
    made = settings(source(**{"sasl.password": "s3cret", "fetch.min.bytes": 7, "client.id": "mine"}))
    assert made["bootstrap.servers"] == "a:1,b:2"
    assert made["auto.offset.reset"] == "error"
    assert made["enable.auto.commit"] is False
    assert made["isolation.level"] == "read_committed"
    assert (made["sasl.password"], made["fetch.min.bytes"], made["client.id"]) == ("s3cret", "7", "mine")


def test_no_fixed_setting_is_overridden_silently():
    assert set(kafka_client._FIXED) <= set(KAFKA_REFUSED)
    assert not set(kafka_client._DEFAULTS) & set(KAFKA_REFUSED)


@pytest.mark.parametrize(("partitions", "kibibytes"), [(1, 32_768), (8, 32_768), (64, 4_096), (1_000, 1_024)])
def test_partitions_share_the_memory(partitions: int, kibibytes: int):
    assert settings(source(), partitions)["queued.max.messages.kbytes"] == kibibytes


@pytest.mark.parametrize("options", [{"no.such": "1"}, {"fetch.min.bytes": "many"}, {"security.protocol": "ROT13"}])
def test_options_that_the_client_does_not_take(options: dict[str, str]):
    with pytest.raises(ConfigError, match=r"source.options: Kafka's client says: .*" + next(iter(options))):
        Cluster(source(**options))


@pytest.mark.parametrize(
    ("code", "passing"),
    [
        (KafkaError._ALL_BROKERS_DOWN, True),
        (KafkaError._TRANSPORT, True),
        (KafkaError.NOT_LEADER_FOR_PARTITION, True),
        (KafkaError.GROUP_AUTHORIZATION_FAILED, True),  # of the group there is only a display
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, False),
        (KafkaError._BAD_MSG, False),  # a checksum: librdkafka would go on behind the batch
        (KafkaError._BAD_COMPRESSION, False),
        (KafkaError._FATAL, False),
    ],
)
def test_which_errors_pass(code: int, passing: bool):
    assert passes(KafkaError(code)) is passing


# ---- The watch -----------------------------------------------------------------------------------------------------

BEFORE = {"t": Topic("id-1", (0, 1))}
Found = dict[str, Topic | None]


class Looks:
    """Answers for a watch, which a test changes."""

    def __init__(self) -> None:
        self.found: Found | None = dict(BEFORE)
        self.count = 0

    def __call__(self) -> Found:
        self.count += 1
        if self.found is None:
            raise SourceError("Kafka at a:1: cannot look at the topics: gone")
        return self.found


@pytest.fixture
def looks() -> Looks:
    return Looks()


@pytest.fixture
def watch(looks: Looks) -> Iterator[Watch]:
    made = Watch(looks, BEFORE)
    yield made
    made.stop()


def eventually(reached: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_sure_looks_again(watch: Watch, looks: Looks):
    for _ in range(5):
        count, now = looks.count, time.monotonic()
        assert watch.sure(now, 10)
        assert looks.count > count
    count = looks.count
    assert watch.sure(now, 10)
    assert looks.count == count


def test_topic_made_anew(watch: Watch, looks: Looks):
    assert watch.sure(time.monotonic(), 10)
    looks.found = {"t": Topic("id-2", (0, 1, 2))}
    with pytest.raises(SourceError, match="positions kept are of topic id id-1, it now has id id-2"):
        watch.sure(time.monotonic(), 10)
    with pytest.raises(SourceError, match="made anew"):
        watch.check()


def test_topic_deleted(watch: Watch, looks: Looks, monkeypatch: pytest.MonkeyPatch):
    # given a topic that is away: for a moment that means nothing
    looks.found = {"t": None}
    assert not watch.sure(time.monotonic(), 0.05)
    watch.check()
    # when it stays away
    monkeypatch.setattr(kafka_client, "ABSENT_S", 0.5)

    def stopped() -> bool:
        try:
            watch.check()
        except SourceError as error:
            return "Kafka topic t: was deleted while it was read" in str(error)
        return False

    eventually(stopped)


def test_brokers_out_of_reach(watch: Watch, looks: Looks, caplog: pytest.LogCaptureFixture):
    # given brokers that do not answer, then one wait is in vain, and no other is made
    assert watch.sure(time.monotonic(), 10)
    looks.found = None
    now = time.monotonic()
    assert not watch.sure(now, 0.3)
    looked = looks.count
    assert not watch.sure(now, 30)
    assert looks.count < looked + 10  # there is one a second
    watch.check()
    # when they are back, then so is certainty
    looks.found = dict(BEFORE)
    eventually(lambda: watch.sure(now, 10))
    assert [record.message for record in caplog.records] == [
        "Kafka at a:1: cannot look at the topics: gone; the job waits for them and loses nothing",
        "Kafka: the brokers answer again",
    ]


def test_partitions_added(watch: Watch, looks: Looks):
    looks.found = {"t": Topic("id-1", (0, 1, 2, 3))}
    assert watch.sure(time.monotonic(), 10)
    assert watch.partitions_added == 2
