"""Kafka with several processes: partitions and shards over all of them, kills, and another number of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import copy_empty_store
from tests.faults.http_front import FrontProcess

from flow.config import load_config
from flow.errors import TallyflowError
from flow.run import run
from flow.start import open_store

from .brokers import Broker
from .conftest import PRICES, TOTALS, check_totals, event


class Cluster:
    """A config, and the supervisor that runs it."""

    def __init__(self, folder: Path, store: str, broker: Broker, topic: str) -> None:
        self.path = folder / "config.yaml"
        self._text = (
            f"source: {{kind: kafka, brokers: '{broker.address}', topic: {topic}SOURCE}}\n"
            f"prices: prices.yaml\nstore: {store}\nstate_dir: state\nledger: ledger\nepoch: 200ms\nshards: 3\n"
        )
        (folder / "prices.yaml").write_text(PRICES)
        self.config()
        self.process: subprocess.Popen[bytes] | None = None

    def config(self, source: str = "") -> None:
        self.path.write_text(self._text.replace("SOURCE", source))

    def start(self, processes: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "flow", "run", str(self.path), "--processes", str(processes)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        return self.process

    def workers(self) -> list[int]:
        assert self.process is not None
        pid = self.process.pid
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    def finish(self) -> str:
        """Waits for the good end: what was said on the way."""
        assert self.process is not None
        _, said = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, said.decode()
        return said.decode()

    def answers(self) -> list[list[list[str]]]:
        with open_store(load_config(self.path)) as client:
            return [[[str(value) for value in row] for row in client.rows(sql)] for sql in TOTALS]

    def until(self, events: int) -> None:
        """Waits until so many events are billed."""
        end = time.monotonic() + 40
        found = ""
        while found != str(events):
            assert self.process is not None
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < end, found
            time.sleep(0.05)  # what is waited for happens in other processes
            try:
                found = self.answers()[0][0][0]
            except TallyflowError:
                continue  # the tables are not made yet


@pytest.fixture
def cluster(tmp_path: Path, tansu: Broker) -> Iterator[tuple[Cluster, str]]:
    front = FrontProcess(copy_empty_store(tmp_path / "server"))
    topic = tansu.topic(3)
    cluster = Cluster(tmp_path, front.url, tansu, topic)
    yield cluster, topic
    if cluster.process is not None and cluster.process.poll() is None:
        cluster.process.kill()
        cluster.process.communicate()
    front.close()


def test_killed_then_three_processes_then_one(tansu: Broker, cluster: tuple[Cluster, str]) -> None:
    job, topic = cluster

    def produce(first: int, end: int) -> None:
        for partition in range(3):
            tansu.produce(topic, [event(n) for n in range(first + partition, end, 3)], partition)

    # given two processes that have billed some events, when one is killed with more on their way,
    produce(0, 1500)
    process = job.start(2)
    job.until(1500)
    killed = job.workers()[1]
    produce(1500, 3000)
    os.kill(killed, signal.SIGKILL)
    # then all go on from where they were,
    job.until(3000)
    process.send_signal(signal.SIGTERM)
    assert f"process 1 of the cluster (pid {killed}) was killed by signal 9; all processes start again" in job.finish()
    check_totals(job.answers(), 3000)
    # and so do three processes, and one.
    job.config(", until: end")
    produce(3000, 4500)
    job.start(3)
    job.finish()
    check_totals(job.answers(), 4500)
    produce(4500, 5000)
    assert run(load_config(job.path)).read == 500
    check_totals(job.answers(), 5000)
