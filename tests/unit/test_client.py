"""The client: what is accepted is delivered, whatever fails between; the caller never waits and is told what is not.

Delivery is through `Box`, a sender that a test can stop, and through files; Kafka has tests of its own.
"""

import json
import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from flow.adapters.events import Adapter
from flow.client import Client
from flow.client.adapted import PayloadRecorder
from flow.client.event import event_line
from flow.client.senders import columns, sender_of
from flow.client.spool import Spool
from flow.errors import ConfigError, DeliveryError, EventError, NotAccepted, StateError

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30
"""The most that a test waits for what should happen at once."""

USAGE = {"input_tokens": 900, "output_tokens": 95}


class Box:
    """Keeps what it is sent, after it refused it a number of times."""

    def __init__(self, refusals: int = 0) -> None:
        self.batches: list[tuple[str, list[bytes]]] = []
        self.refusals = refusals
        self.closed = False

    def send(self, name: str, lines: list[bytes]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise DeliveryError("the box is shut")
        self.batches.append((name, lines))

    def close(self) -> None:
        self.closed = True

    def ids(self) -> list[str]:
        return [json.loads(line)["id"] for _, lines in self.batches for line in lines]


Made = Callable[..., Client]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Made]:
    """make(box, ...) -> a client on one spool; closed at the end."""
    clients: list[Client] = []

    def made(to: Any, **options: Any) -> Client:
        clients.append(Client(to, tmp_path / "spool", source="test", **{"batch_ms": 1, **options}))
        return clients[-1]

    yield made
    for client in clients:
        client.close(0)


def record(client: Client, number: int, **more: Any) -> Any:
    return client.record(USAGE, id=f"e{number}", customer="acme", model="m", **more)


def spooled(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "spool").rglob("*.events"))


def test_what_is_recorded_is_accepted_and_delivered(make: Made, tmp_path: Path) -> None:
    box = Box()
    client = make(box)
    receipts = [record(client, number) for number in range(100)]
    for receipt in receipts:
        receipt.result(WAIT_S)
    assert client.flush(WAIT_S)
    assert box.ids() == [f"e{number}" for number in range(100)]
    stats = client.stats()
    assert (stats.accepted, stats.delivered, stats.refused, stats.spool_bytes) == (100, 100, 0, 0)
    client.close()
    assert box.closed
    assert list((tmp_path / "spool").iterdir()) == []


def test_an_event_is_what_a_run_reads() -> None:
    time = datetime(2026, 11, 1, 13, tzinfo=UTC)
    line = event_line(USAGE, "gateway", None, time, {"customer": "acme", "project": "", "feature": 'Ünï"\n'})
    event = json.loads(line)
    assert len(event.pop("id")) == 32
    assert event == {
        "source": "gateway",
        "time": "2026-11-01T13:00:00.000000Z",
        "customer": "acme",
        "feature": 'Ünï"\n',
        "usage": USAGE,
    }
    assert b"\n" not in line


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"usage": {}}, "names no meter"),
        ({"usage": {"requests": 1}}, "'requests' is no name of a meter"),
        ({"usage": {"In put": 1}}, "'In put' is no name"),
        ({"usage": {"input_tokens": -1}}, "input_tokens is -1"),
        ({"usage": {"input_tokens": 1.0}}, "input_tokens is 1.0"),
        ({"usage": {"input_tokens": True}}, "input_tokens is True"),
        ({"usage": {"input_tokens": 2**63}}, "not an integer from 0"),
        ({"customer": ""}, "customer: missing"),
        ({"id": ""}, "id: empty"),
        ({"time": datetime(2026, 1, 1)}, "no UTC offset"),
        ({"tenant": "x"}, "tenant: no dimension"),
        ({"model": 3}, "model: 3 is no text"),
        ({"model": "\ud800"}, "no Unicode"),
        ({"model": "m" * 70_000}, "bytes long"),
        ({"customer": "", "usage": {}}, "names no meter; customer: missing"),
    ],
)
def test_an_event_that_a_run_would_reject_is_refused_at_once(make: Made, changes: dict[str, Any], message: str) -> None:
    client = make(Box())
    with pytest.raises(EventError, match=message):
        client.record(**{"usage": USAGE, "customer": "acme", **changes})
    assert client.stats().accepted == 0


def test_the_caller_does_not_wait_for_the_disk(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a disk that hangs, when events are recorded, then each call returns, until the queue is full."""
    free = threading.Event()
    sync = os.fsync
    box = Box()
    client = make(box, queue_bytes_max=2000)
    monkeypatch.setattr(os, "fsync", lambda descriptor: (free.wait(WAIT_S), sync(descriptor))[0])
    receipts: list[Any] = []
    with pytest.raises(NotAccepted, match="queue in memory is full"):
        while True:
            receipts.append(record(client, len(receipts)))
    assert 5 < len(receipts) < 50
    assert not any(receipt.done() for receipt in receipts)  # not on disk: not accepted
    assert client.stats().refused == 1
    free.set()
    receipts[-1].result(WAIT_S)
    assert client.flush(WAIT_S)
    assert len(box.ids()) == len(receipts)


def test_a_full_spool_is_told_to_the_caller(make: Made) -> None:
    client = make(Box(refusals=10**9), spool_bytes_max=2000)
    with pytest.raises(NotAccepted, match=r"spool .* is full"):
        for number in range(100):
            record(client, number).result(WAIT_S)
    assert client.stats().refused == 1


def test_what_was_refused_is_sent_again_with_its_ids(make: Made, caplog: pytest.LogCaptureFixture) -> None:
    box = Box(refusals=2)
    client = make(box)
    with caplog.at_level(logging.INFO, "tallyflow.client"):
        record(client, 1).result(WAIT_S)
        assert client.flush(WAIT_S)
    assert box.ids() == ["e1"]
    assert client.stats().retries == 2
    said = [record.getMessage() for record in caplog.records]
    assert said == ["events are kept and will be sent again: the box is shut", "events are delivered again"]


def test_a_disk_that_fails_is_told_by_the_receipt(make: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    box = Box(refusals=10**9)
    client = make(box)
    record(client, 1).result(WAIT_S)
    sync = os.fsync

    def failing(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(StateError, match="disk is full"):
        record(client, 2).result(WAIT_S)
    monkeypatch.setattr(os, "fsync", sync)
    record(client, 3).result(WAIT_S)
    stats = client.stats()
    assert (stats.accepted, stats.refused) == (2, 1)
    box.refusals = 0
    assert client.flush(WAIT_S)
    assert box.ids() == ["e1", "e3"]


def test_the_next_client_sends_what_is_left(make: Made, tmp_path: Path) -> None:
    shut = make(Box(refusals=10**9))
    for number in range(3):
        record(shut, number).result(WAIT_S)
    shut.close(0)
    left = [path.name.removesuffix(".events") for path in spooled(tmp_path)]
    assert left
    box = Box()
    assert make(box).flush(WAIT_S)
    assert box.ids() == ["e0", "e1", "e2"]
    assert [name for name, _ in box.batches] == left  # the same batches
    assert spooled(tmp_path) == []


def test_a_client_that_lives_keeps_its_spool(make: Made) -> None:
    shut = make(Box(refusals=10**9))
    record(shut, 1).result(WAIT_S)
    other = Box()
    assert make(other).flush(WAIT_S)
    assert other.ids() == []


def test_full_batches_are_separate_files(tmp_path: Path) -> None:
    """However many events one sync takes, no batch is longer than its limit and the event that reached it."""
    spool = Spool(tmp_path / "spool", 1000)
    lines = [b'{"id":"e%d"}' % number for number in range(500)]
    spool.append(lines)
    spool.append(lines[:3])
    sizes = [path.stat().st_size for path in spooled(tmp_path)]
    assert len(sizes) > 10
    assert all(1000 <= size < 1030 for size in sizes[:-1])
    read: list[bytes] = []
    while segment := spool.next():
        read += segment.lines()[0]
        spool.done(segment)
    assert read == lines + lines[:3]
    spool.close()


def test_many_threads_record(make: Made) -> None:
    box = Box()
    client = make(box)

    def work(thread: int) -> None:
        for number in range(50):
            record(client, thread * 50 + number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert client.flush(WAIT_S)
    assert sorted(box.ids()) == sorted(f"e{number}" for number in range(400))


def test_a_torn_line_was_never_accepted_and_a_damaged_one_is_kept(
    make: Made, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shut = make(Box(refusals=10**9))
    for number in range(3):
        record(shut, number).result(WAIT_S)
    shut.close(0)
    path = spooled(tmp_path)[0]
    content = path.read_bytes()
    (damaged, whole) = content.split(b"\n", 1)
    path.write_bytes(damaged.replace(b"acme", b"acne") + b"\n" + whole + b'0000 {"id":"to')
    box = Box()
    assert make(box).flush(WAIT_S)
    assert sorted(box.ids()) == ["e1", "e2"]
    assert "1 events of the spool are damaged" in caplog.text
    (aside,) = (tmp_path / "spool").glob("*.damaged")
    assert b"acne" in aside.read_bytes()


def test_after_the_end_nothing_is_taken(make: Made) -> None:
    client = make(Box())
    client.close()
    client.close()
    with pytest.raises(NotAccepted, match="closed"):
        record(client, 1)


def test_a_client_from_before_a_fork_says_so(make: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make(Box())
    parent = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: parent + 1)
    with pytest.raises(NotAccepted, match="before a fork"):
        record(client, 1)
    monkeypatch.undo()


def test_a_spool_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StateError, match="spool"):
        Spool(tmp_path / "file" / "spool", 1000)


# ---- Where it goes ----


@pytest.mark.parametrize(
    "to", ["kafka://", "kafka://broker", "kafka://broker/", "kafka://b/t/x", "file://x", "http://x"]
)
def test_destinations_that_are_none(to: str) -> None:
    with pytest.raises(ConfigError, match="must be kafka://"):
        sender_of(to, "ndjson", {})


def test_settings_that_are_none() -> None:
    with pytest.raises(ConfigError, match="neither ndjson nor arrow"):
        sender_of("file:///x", "parquet", {})  # type: ignore[arg-type]  # what a caller without types may pass
    with pytest.raises(ConfigError, match="no such settings"):
        sender_of("file:///x", "ndjson", {"linger.ms": "5"})
    with pytest.raises(ConfigError, match="No such configuration property"):
        sender_of("kafka://b/t", "ndjson", {"lingerms": "5"})


def test_files_as_lines(make: Made, tmp_path: Path) -> None:
    with make(f"file://{tmp_path}/events") as client:
        for number in range(3):
            record(client, number)
    lines = [line for path in sorted((tmp_path / "events").iterdir()) for line in path.read_text().splitlines()]
    assert [json.loads(line)["id"] for line in lines] == ["e0", "e1", "e2"]
    assert {path.suffix for path in (tmp_path / "events").iterdir()} == {".ndjson"}


def test_files_as_columns(make: Made, tmp_path: Path) -> None:
    with make(f"file://{tmp_path}/events", form="arrow", batch_ms=500) as client:
        for number in range(3):
            record(client, number)
    files = sorted((tmp_path / "events").iterdir())
    tables = [pa.ipc.open_file(path.read_bytes()).read_all() for path in files]
    assert [name for table in tables for name in table["id"].to_pylist()] == ["e0", "e1", "e2"]
    assert tables[0].schema.field("time").type == pa.timestamp("us", tz="UTC")


def test_columns_hold_every_meter_of_a_batch() -> None:
    lines = [
        event_line({meter: 5}, "test", "e", datetime(2026, 1, 1, tzinfo=UTC), {"customer": "c"})
        for meter in ("input_tokens", "images")
    ]
    batch = columns(lines)
    assert batch["input_tokens"].to_pylist() == [5, None]
    assert batch["images"].to_pylist() == [None, 5]
    assert batch["region"].to_pylist() == ["", ""]


# ---- Killed ----

VICTIM = """
import sys, threading
from flow.client import Client
from flow.errors import DeliveryError

class Half:
    sent = 0
    def send(self, name, lines):
        if self.sent:  # one batch gets through, and nobody lives to hear that it did
            raise DeliveryError("down")
        self.sent += 1
        with open(sys.argv[2], "ab") as file:
            file.write(b"\\n".join([*lines, b""]))
        import os, signal
        recorded.wait(30)
        receipts[-1].result(30)
        print("\\n".join(f"e{n}" for n, receipt in enumerate(receipts) if receipt.done()), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    def close(self): ...

receipts, recorded = [], threading.Event()
client = Client(Half(), sys.argv[1], source="test", batch_ms=50, batch_bytes=4000)
for n in range(200):
    receipts.append(client.record({"input_tokens": n}, id=f"e{n}", customer="acme"))
recorded.set()
import time
time.sleep(30)  # the sender kills us
"""


def test_a_killed_process_loses_nothing_that_it_accepted(make: Made, tmp_path: Path) -> None:
    """Given a process killed between the delivery of a batch and hearing of it, when the next one starts, then every
    accepted event arrives, and what arrives twice has the same id and the same words."""
    arrived = tmp_path / "arrived.ndjson"
    victim = subprocess.run(
        [sys.executable, "-c", VICTIM, str(tmp_path / "spool"), str(arrived)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert victim.returncode == -9, victim.stderr
    accepted = set(victim.stdout.split())
    assert len(accepted) == 200
    first = arrived.read_bytes().splitlines()
    assert first
    box = Box()
    assert make(box).flush(WAIT_S)
    again = [line for _, lines in box.batches for line in lines]
    events = {json.loads(line)["id"]: line for line in first + again}
    assert set(events) == accepted
    assert set(first) <= set(again)  # what had arrived comes once more, unchanged
    assert len(set(first + again)) == len(accepted)


BUSY = """
import os, sys
from flow.client import Client

class Deaf:
    def send(self, name, lines):
        from flow.errors import DeliveryError
        raise DeliveryError("down")
    def close(self): ...

client = Client(Deaf(), sys.argv[1], source="test", batch_ms=1, batch_bytes=2000)
n = 0
while True:
    receipts = [client.record({"input_tokens": n}, id=f"e{n + k}", customer="acme") for k in range(7)]
    receipts[-1].result(30)
    n += 7
    os.write(1, b"%d\\n" % n)
"""


def test_a_kill_at_any_instant_loses_nothing_that_was_accepted(make: Made, tmp_path: Path) -> None:
    """Given a process that records as fast as it can, when it is killed in the midst of it, then all that it was told
    is accepted is delivered, and what else is delivered is whole."""
    command = [sys.executable, "-c", BUSY, str(tmp_path / "spool")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as busy:
        assert busy.stdout is not None
        for _ in range(30):
            busy.stdout.readline()
        busy.kill()
        rest = busy.stdout.read()
    accepted = int(rest.splitlines()[-1]) if rest.strip() else 30 * 7
    box = Box()
    assert make(box).flush(WAIT_S)
    assert box.ids()[:accepted] == [f"e{number}" for number in range(accepted)]
    assert all(json.loads(line)["customer"] == "acme" for _, lines in box.batches for line in lines)


# ---- Payloads ----


def test_payloads_never_raise_into_the_application(make: Made, caplog: pytest.LogCaptureFixture) -> None:
    box = Box()
    client = make(box)
    recorder = PayloadRecorder(client, Adapter("openai/chat", defaults={"customer": "acme"}))
    good = {"id": "r1", "created": 1_790_000_000, "model": "m", "usage": {"prompt_tokens": 5, "new_tokens": 3}}
    recorder.record(good)
    recorder.record({**good, "id": "r2"})
    recorder.record({"id": "r3"})
    recorder.record(None)  # type: ignore[arg-type]  # what a library may hand us
    assert client.flush(WAIT_S)
    assert box.ids() == ["r1", "r2"]
    assert recorder.refused == 2
    assert caplog.text.count("usage.new_tokens is 3: looks like a count") == 1
    assert caplog.text.count("usage was not recorded") == 2


def test_the_client_is_light() -> None:
    code = "import sys, flow.client, flow.client.otel, flow.client.litellm; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    heavy = {
        "bytewax",
        "chdb",
        "clickhouse_connect",
        "numpy",
        "pydantic",
        "confluent_kafka",
        "opentelemetry",
        "litellm",
    }
    assert heavy & set(loaded) <= {"numpy"}  # pyarrow loads it if it is there


# ---- Examples ----


def run_example(name: str, tmp_path: Path, *path: Path) -> list[dict[str, Any]]:
    """Runs an example as a user would; the events that it wrote."""
    arguments = [f"file://{tmp_path}/events", str(tmp_path / "spool")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "LITELLM_LOCAL_MODEL_COST_MAP": "True"}
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "events").iterdir())
    return [json.loads(line) for path in files for line in path.read_text(encoding="utf-8").splitlines()]


def test_example_direct(tmp_path: Path) -> None:
    (event,) = run_example("direct.py", tmp_path)
    assert (event["id"], event["source"], event["usage"]["output_tokens"]) == ("resp_7f3c", "gateway/eu-1", 95)


def test_example_of_opentelemetry(tmp_path: Path) -> None:
    pytest.importorskip("opentelemetry.sdk")
    (event,) = run_example("otel_spans.py", tmp_path)
    assert (event["source"], event["customer"], event["model"]) == ("assistant", "acme", "gpt-4o-mini")
    assert event["usage"] == USAGE


STAND_IN = '''
"""As much of LiteLLM as calls a callback: in the background, by name, with its logging payload."""
import threading, time
callbacks = []
def completion(model, messages, mock_response):
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "prompt_tokens_details": None}
    payload = {"id": "chatcmpl-1", "model": model, "startTime": time.time(), "end_user": "", "status": "success",
               "prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30, "metadata": {"usage_object": usage}}
    call = dict(kwargs={"standard_logging_object": payload}, response_obj=None, start_time=None, end_time=None)
    for callback in callbacks:
        threading.Thread(target=callback.log_success_event, kwargs=call).start()
'''


def test_example_of_litellm(tmp_path: Path) -> None:
    """Against LiteLLM where it is installed, else against a stand-in that calls as it does."""
    stand_in: list[Path] = []
    try:
        import litellm  # noqa: F401  # only whether it is there
    except ImportError:
        stand_in = [tmp_path / "stand_in"]
        package = stand_in[0] / "litellm" / "integrations"
        package.mkdir(parents=True)
        (package.parent / "__init__.py").write_text(STAND_IN)
        (package / "__init__.py").write_text("")
        (package / "custom_logger.py").write_text("class CustomLogger: ...\n")
    (event,) = run_example("litellm_callback.py", tmp_path, *stand_in)
    assert (event["source"], event["customer"], event["model"]) == ("litellm", "acme", "gpt-4o-mini")
    assert event["usage"] == {"input_tokens": 10, "output_tokens": 20}
