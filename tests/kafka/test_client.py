"""The client on a real broker, and a job that reads what it sent."""

import fcntl
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flow.client import Client

from .brokers import Broker, free_port
from .conftest import check_totals

QUICK = {"message.timeout.ms": "300", "socket.connection.setup.timeout.ms": "1000"}
WAIT_S = 30


def record(client: Client, first: int, after: int) -> None:
    """Events as `truth` counts them, all of them accepted."""
    at = datetime(2024, 5, 1, 12, tzinfo=UTC)
    receipts = [
        client.record({"input_tokens": n + 1}, id=f"e{n}", customer=f"c{n % 7}", model="m", time=at)
        for n in range(first, after)
    ]
    receipts[-1].result(WAIT_S)


def test_what_a_dead_broker_missed_arrives_and_counts_once(tansu: Broker, make_job: Any, tmp_path: Path) -> None:
    """Given events accepted while no broker was there, and batches that come twice (once as lines, once as columns)
    because nobody heard that they had arrived, when a job reads them, then each event counts once."""
    topic = tansu.topic()
    spool, copy = tmp_path / "spool", tmp_path / "copy"
    dead = Client(f"kafka://127.0.0.1:{free_port()}/{topic}", spool, source="test", batch_bytes=4000, kafka=QUICK)
    record(dead, 0, 200)
    assert not dead.flush(1)
    dead.close(0)
    assert dead.stats().delivered == 0
    assert "timed out" in dead.stats().last_error.lower()
    while not is_free(spool):
        time.sleep(0.01)  # the client's last try to deliver ends by itself, within its timeout
    shutil.copytree(spool, copy)

    url = f"kafka://{tansu.address}/{topic}"
    with Client(url, spool, source="test", form="ndjson") as client:
        record(client, 200, 300)
        assert client.flush(WAIT_S)
    with Client(url, copy, source="test", form="arrow") as again:
        assert again.flush(WAIT_S)
        assert again.stats().delivered == 200

    job = make_job(tansu, topic)
    job.config()
    check_totals(job.run(), 300, duplicate=200)


def test_a_batch_that_is_too_long_for_a_message_is_sent_as_several(tansu: Broker, tmp_path: Path) -> None:
    url = f"kafka://{tansu.address}/{tansu.topic()}"
    with Client(url, tmp_path / "spool", source="test", batch_bytes=4_000_000, batch_ms=1000) as client:
        for number in range(40):
            client.record({"input_tokens": number}, customer="acme", project="p" * 50_000)
        assert client.flush(WAIT_S)
        assert client.stats().delivered == 40


def is_free(spool: Path) -> bool:
    """Whether a client that was closed while a batch was on its way has let go of its folder."""
    for lock in spool.glob("*/LOCK"):
        with lock.open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True
