"""Brokers for a session, and a job beside them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import flow

from .brokers import Apache, Broker, Tansu, kafka_jars

TOTALS = (
    "SELECT sum(events) FROM usage_by_month WHERE meter = 'input_tokens'",
    "SELECT sum(quantity) FROM usage_by_month WHERE meter = 'input_tokens'",
    "SELECT sum(amount) FROM usage_by_month WHERE meter = 'input_tokens'",
    "SELECT sum(read), sum(accepted), sum(duplicate), sum(conflicting), sum(rejected) FROM pipeline_balance",
)
PRICES = """currency: USD
prices:
  - {model: m, meter: input_tokens, from: 2024-01-01T00:00:00Z, per: 1_000_000, price: "2.00"}
"""


@pytest.fixture(scope="session")
def tansu(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    broker = Tansu(tmp_path_factory.mktemp("tansu"))
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(scope="session")
def apache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    jars = kafka_jars()
    if isinstance(jars, str):
        pytest.skip(jars)
    broker = Apache(tmp_path_factory.mktemp("kafka"), jars)
    broker.start()
    yield broker
    broker.stop()


@pytest.fixture(params=["tansu", pytest.param("apache", marks=pytest.mark.slow)])
def broker(request: pytest.FixtureRequest) -> Broker:
    """Each of the two."""
    found: Broker = request.getfixturevalue(request.param)
    return found


def event(number: int, **changes: object) -> bytes:
    """An event of `number + 1` input tokens; its id is its number."""
    fields = {
        "id": f"e{number}",
        "source": "test",
        "time": "2024-05-01T12:00:00Z",
        "customer": f"c{number % 7}",
        "model": "m",
        "usage": {"input_tokens": number + 1},
    }
    return json.dumps({**fields, **changes}, separators=(",", ":")).encode()


def truth(events: int) -> tuple[str, str, int]:
    """Events, tokens and amount (in 10^-15) of the events 0 to `events - 1`."""
    tokens = events * (events + 1) // 2
    return str(events), str(tokens), tokens * 2_000_000_000


class Job:
    """A config in a folder of its own, and processes that run it."""

    def __init__(self, folder: Path, broker: Broker, topic: str) -> None:
        self.folder = folder
        self.broker = broker
        self.topic = topic
        self.result = folder / "result.json"
        self.running: subprocess.Popen[str] | None = None
        (folder / "prices.yaml").write_text(PRICES)

    def config(self, source: str = "until: end", epoch: str = "200ms", brokers: str = "", shards: int = 2) -> Path:
        path = self.folder / "config.yaml"
        path.write_text(
            f"source: {{kind: kafka, brokers: '{brokers or self.broker.address}', topic: {self.topic}, {source}}}\n"
            f"prices: prices.yaml\nstore: chdb:store\nstate_dir: state\nledger: ledger\nepoch: {epoch}\n"
            f"shards: {shards}\n"
        )
        return path

    def start(self, *queries: str, watch: bool = True) -> "Job":
        """Starts a process; it goes on."""
        self.result.unlink(missing_ok=True)
        command = [sys.executable, str(Path(__file__).with_name("drive.py")), str(self.folder / "config.yaml")]
        environment = {**os.environ, "PYTHONPATH": str(Path(flow.__file__).parents[1])}  # with the kernels of this one
        self.running = subprocess.Popen(
            [*command, str(self.result), *(["--watch"] if watch else []), *(queries or TOTALS)],
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        return self

    def answers(self) -> list[list[list[str]]] | None:
        """The latest of a process that is watched."""
        return json.loads(self.result.read_text())["answers"] if self.result.exists() else None

    def until(self, wanted: str) -> float:
        """Waits until the first answer is as wanted; for how long, in seconds."""

        def answered() -> bool:
            found = self.answers()
            return found is not None and found[0][0][0] == wanted

        return self._wait(answered)

    def begun(self) -> None:
        """Waits until it is decided where the topic begins."""
        self._wait(lambda: bool(list((self.folder / "state").glob("kafka/*.starts"))))

    def _wait(self, reached: Callable[[], bool], wait_s: float = 30) -> float:
        began = time.monotonic()
        while time.monotonic() < began + wait_s:
            if reached():
                return time.monotonic() - began
            assert self.running is not None
            assert self.running.poll() is None, self.running.communicate()[1]
            time.sleep(0.02)
        raise AssertionError(f"not reached within {wait_s} s; the last answers are {self.answers()}")

    def end(self, number: int | None = signal.SIGTERM, wait_s: float = 60) -> tuple[int, str]:
        """Ends the process, by a signal or (None) by itself: return code and messages."""
        assert self.running is not None
        if number is not None:
            self.running.send_signal(number)
        _, messages = self.running.communicate(timeout=wait_s)
        code, self.running = self.running.returncode, None
        return code, messages

    def run(self, *queries: str) -> list[list[list[str]]]:
        """Runs to the end: the answers."""
        code, messages = self.start(*queries, watch=False).end(None)
        assert code == 0, messages
        found = self.answers()
        assert found is not None
        return found

    def refused(self) -> str:
        """Runs, and stops with an error: its message."""
        code, messages = self.start(watch=False).end(None)
        assert code != 0
        assert "Traceback" not in messages, messages
        return messages


def check_totals(answers: list[list[list[str]]], events: int, rejected: int = 0, duplicate: int = 0) -> None:
    """The totals are those of the events 0 to `events - 1`, to the last digit."""
    count, tokens, amount = truth(events)
    assert answers[0] == [[count]]
    assert answers[1] == [[tokens]]
    whole, _, fraction = answers[2][0][0].partition(".")
    assert int(whole + fraction.ljust(15, "0")) == amount
    assert answers[3] == [[str(value) for value in (events + rejected + duplicate, events, duplicate, 0, rejected)]]


@pytest.fixture
def make_job(tmp_path: Path) -> Iterator[Any]:
    """Makes a Job; what still runs at the end of the test is killed."""
    jobs: list[Job] = []

    def make(broker: Broker, topic: str, name: str = "job") -> Job:
        folder = tmp_path / name
        folder.mkdir()
        jobs.append(Job(folder, broker, topic))
        return jobs[-1]

    yield make
    for job in jobs:
        if job.running is not None:
            job.running.kill()
            job.running.communicate()
