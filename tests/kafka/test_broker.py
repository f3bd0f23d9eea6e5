"""The job on real brokers: every shape of message, kills, silences, and what must stop it."""

import io
import signal
import threading
import time
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from confluent_kafka import Consumer, IsolationLevel, Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import OffsetSpec
from tests.oracle.ledger import read

from flow.state.inbox import Inbox

from .brokers import Apache, Broker
from .conftest import TOTALS, Job, check_totals, event

REJECTED = "SELECT source_position, reason, lower(hex(payload)) FROM rejected_events ORDER BY source_position"


def arrow(first: int, rows: int, *, file: bool = False) -> bytes:
    """Events as one Arrow IPC message, of two batches."""
    numbers = range(first, first + rows)
    table = pa.table(
        {
            "id": [f"e{n}" for n in numbers],
            "source": pa.array(["test"] * rows).dictionary_encode(),
            "time": pa.array([datetime(2024, 5, 1, 12, tzinfo=UTC)] * rows, pa.timestamp("us", tz="UTC")),
            "customer": [f"c{n % 7}" for n in numbers],
            "model": ["m"] * rows,
            "input_tokens": pa.array([n + 1 for n in numbers], pa.int64()),
        }
    )
    sink = io.BytesIO()
    with (pa.ipc.new_file if file else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=max(rows // 2, 1))
    return sink.getvalue()


def positions(job: Job) -> dict[str, str]:
    """The source position of each event in the ledger."""
    files = (job.folder / "ledger").rglob("*.parquet")
    batches = [batch.select(["id", "source_position"]) for path in files for batch in read(path)]
    rows = pa.Table.from_batches(batches)
    return dict(zip(rows["id"].to_pylist(), rows["source_position"].to_pylist(), strict=True))


def end_of(broker: Broker, topic: str) -> int:
    """Behind the last offset of partition 0 that is no part of an open transaction."""
    end = OffsetSpec.latest()
    (answer,) = broker.admin.list_offsets(
        {TopicPartition(topic, 0): end}, isolation_level=IsolationLevel.READ_COMMITTED
    ).values()
    return int(answer.result().offset)


def topic_id(broker: Broker, topic: str) -> str:
    return str(broker.admin.describe_topics(TopicCollection([topic]))[topic].result().topic_id)


def test_row_11_every_shape_of_message_and_poison_between_them(broker: Broker, make_job: Any) -> None:
    # given one event a message, with and without a line break, many a message, and Arrow streams and files, each
    # compressed in another way, on two partitions; and between them messages that are none
    topic = broker.topic(2)
    broker.produce(topic, [event(n) for n in range(500)], compression="none")
    broker.produce(topic, [event(n) + b"\n" for n in range(500, 1000)], compression="gzip")
    lines = [b"\n".join(event(n) for n in range(k, k + 100)) for k in range(1000, 3000, 100)]
    broker.produce(topic, lines, partition=1, compression="zstd")
    broker.produce(topic, [arrow(3000, 2000), arrow(5000, 1000, file=True)], partition=1, compression="lz4")
    cut = arrow(0, 100)[:-200]
    poison = [b"{", None, b"", event(6000) + b"\nnonsense\n\n" + event(6001), b"\xff\xfe", cut, b"ARROW1 is no file"]
    broker.produce(topic, poison, compression="snappy")
    broker.produce(topic, [event(7)], partition=1)  # a duplicate

    # when it is all read
    job = make_job(broker, topic)
    job.config()
    answers = job.run(*TOTALS, REJECTED)

    # then every event counts once, and what is none is kept with its bytes and says where it came from
    check_totals(answers[:4], 6002, rejected=6, duplicate=1)
    rejected = {position: (reason, payload) for position, reason, payload in answers[4]}
    name = f"{topic}[0]"
    assert rejected == {
        f"{name}:1000": ("INVALID_JSON", b"{".hex()),
        f"{name}:1002": ("INVALID_JSON", b"".hex()),
        f"{name}:1003+{len(event(6000)) + 1}": ("INVALID_JSON", b"nonsense".hex()),
        f"{name}:1004": ("INVALID_UTF8", b"\xff\xfe".hex()),
        f"{name}:1005": ("INVALID_ARROW", cut.hex()),
        f"{name}:1006": ("INVALID_ARROW", b"ARROW1 is no file".hex()),
    }
    at = positions(job)
    assert len(at) == 6002
    assert (at["e0"], at["e499"], at["e500"]) == (f"{name}:0", f"{name}:499", f"{name}:500")
    assert (at["e1000"], at["e1001"]) == (f"{topic}[1]:0", f"{topic}[1]:0+{len(event(1000)) + 1}")
    assert (at["e3000"], at["e4500"], at["e5000"]) == (f"{topic}[1]:20:0", f"{topic}[1]:20:1500", f"{topic}[1]:21:0")
    assert at["e6001"] == f"{name}:1003+{len(event(6000)) + 1 + len('nonsense') + 2}"


def test_killed_and_resumed(broker: Broker, make_job: Any) -> None:
    # given a job that has published some events and is killed with more on their way
    topic = broker.topic(2)
    group = f"lag-of-{topic}"
    job = make_job(broker, topic)
    job.config(f"group: {group}")
    broker.produce(topic, [event(n) for n in range(3000)])
    job.start().until("3000")
    broker.produce(topic, [event(n) for n in range(3000, 6000)], partition=1)
    assert job.end(signal.SIGKILL)[0] == -signal.SIGKILL

    # when it goes on, with yet more, to the end
    broker.produce(topic, [event(n) for n in range(6000, 8000)])
    job.config(f"group: {group}, until: end")
    check_totals(job.run(), 8000)

    # then nothing is left, and lag tools see that
    check_totals(job.run(), 8000)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": group})
    committed = consumer.committed([TopicPartition(topic, n) for n in (0, 1)], timeout=10)
    consumer.close()
    assert [partition.offset for partition in committed] == [5000, 3000]


def test_row_23_from_offset_zero_into_a_new_lineage(tansu: Broker, make_job: Any) -> None:
    # given a topic of two partitions with retries, of which a job was killed in the middle, and what is rejected
    topic = tansu.topic(2)
    events = [event(n, time=f"2024-05-01T12:{n % 60:02}:00Z") for n in range(4000)]
    first = make_job(tansu, topic, "first")
    first.config("start: beginning")
    tansu.produce(topic, [*events[:2000], b"nonsense"])
    first.start().until("2000")
    tansu.produce(topic, events[1500:], partition=1)
    assert first.end(signal.SIGKILL)[0] == -signal.SIGKILL
    first.config()
    views = [f"SELECT * FROM usage_by_{grain} ORDER BY ALL" for grain in ("minute", "hour", "day", "week", "month")]
    found = first.run(*views, *TOTALS)
    check_totals(found[len(views) :], 4000, rejected=1, duplicate=500)
    assert len({row[-1] for row in found[0]}) > 60, "no digests are compared"

    # when another job, with other epochs and shards, reads all of it into a new lineage
    second = make_job(tansu, topic, "second")
    second.config(epoch="1s", shards=3)

    # then every column of every view has the same bits
    assert second.run(*views, *TOTALS) == found


def test_row_18_silence_holds_nothing_back(broker: Broker, make_job: Any) -> None:
    # given a job that waits, with an epoch of a second
    topic = broker.topic(2)
    job = make_job(broker, topic)
    job.config("start: end", epoch="1s")
    job.start().begun()

    # when five events come, and then nothing
    broker.produce(topic, [event(n) for n in range(5)])

    # then they come into the store, although no other event follows
    job.until("5")

    # and so do others that are put into the inbox meanwhile
    Inbox(job.folder / "state").put("redrive", event(5) + b"\n" + event(6) + b"\n", "two")
    job.until("7")
    assert job.end()[0] == 0


def test_start_at_the_end_is_one_moment(tansu: Broker, make_job: Any) -> None:
    # given a topic with a past, and a job that begins at its end and dies before it has read anything
    topic = tansu.topic()
    tansu.produce(topic, [event(n) for n in range(900, 1000)])
    job = make_job(tansu, topic)
    job.config("start: end", epoch="1h")
    job.start().begun()
    job.end(signal.SIGKILL)

    # when events come before it is started again, then they are read
    tansu.produce(topic, [event(n) for n in range(10)])
    job.config("start: end, until: end")
    check_totals(job.run(), 10)


def test_a_start_that_cannot_be(tansu: Broker, make_job: Any) -> None:
    job = make_job(tansu, "nowhere")
    job.config()
    assert "Kafka topic nowhere: is not there; make it, or look at source.topic" in job.refused()
    job.config("options: {fetch.min.byte: 1}")
    assert 'source.options: Kafka\'s client says: No such configuration property: "fetch.min.byte"' in job.refused()


@pytest.mark.slow
def test_stops_at_the_end_of_the_start(apache: Broker, make_job: Any) -> None:
    # given a topic that is written to all the time
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(2000)])
    job = make_job(apache, topic)
    job.config()
    stop = threading.Event()

    def go_on() -> None:
        number = 2000
        while not stop.is_set():
            apache.produce(topic, [event(n) for n in range(number, number + 500)])
            number += 500

    writer = threading.Thread(target=go_on)
    writer.start()
    try:
        answers = job.run(*TOTALS)
    finally:
        stop.set()
        writer.join()

    # then the job ends at an offset between, and the next one has the rest
    first = int(answers[0][0][0])
    assert 2000 <= first < end_of(apache, topic)
    check_totals(answers, first)
    check_totals(job.run(), end_of(apache, topic))


@pytest.mark.slow
def test_transactions_and_what_lies_behind_them(apache: Broker, make_job: Any) -> None:
    # given events in a transaction that was committed, and others in one that was not
    topic = apache.topic()
    producer = Producer({"bootstrap.servers": apache.address, "transactional.id": topic})
    producer.init_transactions(30)
    for first, keep in ((0, True), (10, False), (10, True)):
        producer.begin_transaction()
        for number in range(first, first + 10):
            producer.produce(topic, event(number if keep else number + 1000), partition=0)
        assert producer.flush(30) == 0
        producer.commit_transaction(30) if keep else producer.abort_transaction(30)
    while end_of(apache, topic) < 33:  # the last marker is written behind the commit
        time.sleep(0.05)
    job = make_job(apache, topic)
    job.config()
    check_totals(job.run(), 20)

    # when retention takes all, markers too, then nothing unread is gone and the job goes on
    apache.forget(topic, 0, 33)
    apache.produce(topic, [event(20)])
    check_totals(job.run(), 21)


@pytest.mark.slow
def test_row_22_offset_out_of_range(apache: Broker, make_job: Any) -> None:
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(10)])
    job = make_job(apache, topic)
    job.config()
    check_totals(job.run(), 10)
    apache.produce(topic, [event(n) for n in range(10, 30)])
    apache.forget(topic, 0, 20)
    message = job.refused()
    assert (
        f"Kafka {topic}[0]: offset 10 is to be read next, but the partition begins at 20 and ends before 30" in message
    )


@pytest.mark.slow
def test_row_22_topic_made_anew(apache: Broker, make_job: Any) -> None:
    # given a job that runs, and reads events
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(10)])
    before = topic_id(apache, topic)
    job = make_job(apache, topic)
    job.config("start: beginning")
    job.start().until("10")

    # when the topic is deleted, made anew, and longer than it was
    apache.delete(topic)
    apache.make(topic)
    apache.produce(topic, [event(n) for n in range(100, 120)])
    after = topic_id(apache, topic)

    # then it stops before any of the new events is in the store, and does not start again
    code, message = job.end(None)
    assert code == 1
    assert f"topic {topic}: was deleted and made anew" in message
    assert f"of topic id {before}, it now has id {after}" in message
    found = job.answers()
    assert found is not None
    assert found[0] == [["10"]]
    assert "was deleted and made anew" in job.refused()


@pytest.mark.slow
def test_partition_added(apache: Broker, make_job: Any) -> None:
    # given a job that began at the end of a topic
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(900, 910)])
    job = make_job(apache, topic)
    job.config("start: end")
    job.start().begun()
    apache.produce(topic, [event(n) for n in range(10)])
    job.until("10")

    # when a partition is added, and written to
    apache.grow(topic, 2)
    apache.produce(topic, [event(n) for n in range(10, 20)], partition=1)
    apache.produce(topic, [event(n) for n in range(20, 30)])
    job.until("20")
    assert job.end()[0] == 0

    # then the next start reads it from its first message
    job.config("start: end, until: end")
    check_totals(job.run(), 30)


@pytest.mark.slow
def test_broker_restarted(apache: Broker, make_job: Any) -> None:
    # given a job that runs
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(100)])
    job = make_job(apache, topic)
    job.config("group: restarted")
    job.start().until("100")

    # when the broker is away for a while, then the job waits for it and goes on
    apache.stop()
    time.sleep(1)
    apache.start()
    apache.produce(topic, [event(n) for n in range(100, 200)])
    job.until("200")
    code, message = job.end()
    assert code == 0, message
    answers = job.answers()
    assert answers is not None
    check_totals(answers, 200)


@pytest.mark.slow
def test_passwords(apache: Apache, make_job: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # given a cluster that wants a password, which the config takes from the environment
    topic = apache.topic()
    apache.produce(topic, [event(n) for n in range(10)])
    job = make_job(apache, topic)
    options = (
        "security.protocol: SASL_PLAINTEXT, sasl.mechanism: PLAIN, sasl.username: billing, sasl.password: '${PASSWORD}'"
    )
    job.config(f"until: end, options: {{{options}}}", brokers=apache.sasl_address)
    monkeypatch.setenv("PASSWORD", "right")
    check_totals(job.run(), 10)
    # when it is wrong, then that is said, without it
    monkeypatch.setenv("PASSWORD", "wr0ng")
    message = job.refused()
    assert f"Kafka at {apache.sasl_address}: cannot look at the topics: " in message
    assert "Authentication failed: Invalid username or password" in message
    assert "wr0ng" not in message
