"""Where batches go: a Kafka topic or a folder of files, as lines of JSON or as Arrow columns."""

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import pyarrow as pa

from ..errors import ConfigError, DeliveryError, StateError
from ..schema import DIMENSIONS
from ..state.files import write_whole

if TYPE_CHECKING:
    from confluent_kafka import KafkaError, Message

Form = Literal["ndjson", "arrow"]

_TEXTS = ("id", "source", *DIMENSIONS)
_DELIVERED_S = 30
"""How long a broker may take. Then the batch is tried again, with the same ids."""

_MESSAGE_BYTES_MAX = 900_000
"""What brokers take as one message without being told to take more is 1,000,000, with its headers."""


class Sender(Protocol):
    """Hands a batch on."""

    def send(self, name: str, lines: list[bytes]) -> None:
        """Returns when the batch is in safe hands; `name` is the same when it is sent again. Raises DeliveryError."""

    def close(self) -> None: ...


def sender_of(to: str, form: Form, settings: Mapping[str, str]) -> Sender:
    """`kafka://BROKER[,BROKER]/TOPIC` or `file:///FOLDER`. Raises ConfigError for anything else."""
    if form not in ("ndjson", "arrow"):
        raise ConfigError(f"form: {form!r} is neither ndjson nor arrow")
    scheme, separator, rest = to.partition("://")
    if separator and scheme == "kafka":
        brokers, _, topic = rest.partition("/")
        if brokers and topic and "/" not in topic:
            return KafkaSender(brokers, topic, form, settings)
    elif separator and scheme == "file" and rest.startswith("/"):
        if settings:
            raise ConfigError("kafka: files have no such settings")
        return FileSender(Path(rest), form)
    raise ConfigError(f"to: {to!r} must be kafka://BROKER/TOPIC or file:///FOLDER")


class FileSender:
    """One file a batch, whole from the moment that it has its name."""

    def __init__(self, folder: Path, form: Form) -> None:
        self._folder, self._form = folder, form

    def send(self, name: str, lines: list[bytes]) -> None:
        content = b"\n".join([*lines, b""]) if self._form == "ndjson" else _arrow_file(lines)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            write_whole(self._folder / f"{name}.{self._form}", content)
        except (OSError, StateError) as error:
            raise DeliveryError(str(error)) from error

    def close(self) -> None:
        """Nothing is held open."""


class KafkaSender:
    """One message a batch (several where one would be too long), on all replicas before it counts as delivered.

    The producer is not an idempotent one: those can end in a state that only a new one mends, and ids make a batch
    that is sent twice harmless.
    """

    def __init__(self, brokers: str, topic: str, form: Form, settings: Mapping[str, str]) -> None:
        """`settings` are librdkafka's, and win. Raises ConfigError if one is wrong."""
        from confluent_kafka import KafkaException, Producer  # only those need it who send to Kafka

        self._topic, self._form = topic, form
        ours: dict[str, str | int] = {
            "bootstrap.servers": brokers,
            "acks": "all",
            "compression.type": "lz4",
            "message.timeout.ms": _DELIVERED_S * 1000,
            "log_level": 0,  # what fails is told by DeliveryError
        }
        try:
            self._producer = Producer({**ours, **settings})
        except KafkaException as error:
            raise ConfigError(f"kafka: {error.args[0]}") from error

    def send(self, name: str, lines: list[bytes]) -> None:
        from confluent_kafka import KafkaException

        message = b"\n".join(lines) if self._form == "ndjson" else _arrow_stream(lines)
        if len(message) > _MESSAGE_BYTES_MAX and len(lines) > 1:
            self.send(name, lines[: len(lines) // 2])
            self.send(name, lines[len(lines) // 2 :])
            return
        outcome: list[KafkaError | None] = []

        def delivered(error: "KafkaError | None", _: "Message") -> None:
            outcome.append(error)

        try:
            self._producer.produce(self._topic, message, key=name.encode(), on_delivery=delivered)
        except (KafkaException, BufferError) as error:
            raise DeliveryError(f"{self._topic}: {error}") from error
        while not outcome:  # ends: librdkafka reports the message as failed after message.timeout.ms
            self._producer.poll(1)
        if outcome[0] is not None:
            raise DeliveryError(f"{self._topic}: {outcome[0].str()}")

    def close(self) -> None:
        self._producer.flush(0)


# ---- Columns ----


def columns(lines: list[bytes]) -> pa.RecordBatch:
    """Events in the columnar form of DESIGN 3.1: texts, time, and a column of int64 for each meter that one has."""
    events = [json.loads(line) for line in lines]
    meters = list(dict.fromkeys(meter for event in events for meter in event["usage"]))
    arrays = {name: pa.array([event.get(name, "") for event in events], pa.string()) for name in _TEXTS}
    times = [datetime.fromisoformat(event["time"]) for event in events]
    arrays["time"] = pa.array(times, pa.timestamp("us", tz="UTC"))
    arrays |= {meter: pa.array([event["usage"].get(meter) for event in events], pa.int64()) for meter in meters}
    return pa.RecordBatch.from_arrays(list(arrays.values()), names=list(arrays))


def _arrow_stream(lines: list[bytes]) -> bytes:
    batch, sink = columns(lines), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def _arrow_file(lines: list[bytes]) -> bytes:
    batch, sink = columns(lines), pa.BufferOutputStream()
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())
