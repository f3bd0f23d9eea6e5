"""How long it takes from an event in Kafka to its row in `usage_by_minute`.

    python benchmarks/latency.py [--seconds 60] [--rate 200] [--epoch-ms 1000]

A real broker (tansu) with one partition, `tallyflow run`, and a ClickHouse engine behind HTTP. Events are sent at a
steady rate; one partition and one shard keep their order, so that the view's count of events says which have arrived.
An event's time begins before it is handed to the producer and ends when an answer with it has come from the view, which
is asked again and again. Promised are at most two epochs and two seconds. The result is a histogram, in seconds: the
one benchmark whose figures are times, because the promise is one.
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from confluent_kafka import Producer
from figures import LATENCY, Chart, Figure, Look, keep, parser
from numpy.typing import NDArray
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for the broker and the store's front of the tests
from tests.faults.http_front import FrontProcess
from tests.kafka.brokers import Broker, Tansu

from flow.config import load_config
from flow.errors import StoreError
from flow.start import open_store

LOOK_S = 0.02
BIN_S = 0.25
PRICES = """currency: USD
prices:
  - {model: m, meter: input_tokens, from: 2024-01-01T00:00:00Z, per: 1_000_000, price: "2.00"}
"""
COUNT = "SELECT sum(events) FROM usage_by_minute WHERE meter = 'requests' AND customer = 'latency'"


def message(number: int) -> bytes:
    fields = {"id": f"e{number}", "time": datetime.now(UTC).isoformat(), "customer": "latency", "model": "m"}
    return json.dumps({**fields, "usage": {"input_tokens": number}}).encode()


def latencies(folder: Path, broker: Broker, front: FrontProcess, options: argparse.Namespace) -> NDArray[np.float64]:
    """Of each event, in seconds."""
    events, topic = options.seconds * options.rate, broker.topic()
    (folder / "prices.yaml").write_text(PRICES)
    (folder / "config.yaml").write_text(
        f"source: {{kind: kafka, brokers: '{broker.address}', topic: {topic}}}\nprices: prices.yaml\n"
        f"store: {front.url}\nstate_dir: state\nledger: ledger\nepoch: {options.epoch_ms}ms\n"
    )
    job = subprocess.Popen(
        [sys.executable, "-m", "flow", "run", str(folder / "config.yaml")], stdout=subprocess.DEVNULL
    )
    try:
        while not list((folder / "state").glob("kafka/*.starts")):
            if job.poll() is not None:
                raise SystemExit("the job ended before it began to read")
            time.sleep(LOOK_S)  # the file is written by the job, which tells nobody
        return _measure(folder, Producer({"bootstrap.servers": broker.address, "linger.ms": 5}), topic, events, options)
    finally:
        job.send_signal(signal.SIGTERM)
        job.wait()


def _measure(
    folder: Path, producer: Producer, topic: str, events: int, options: argparse.Namespace
) -> NDArray[np.float64]:
    sent, arrived = np.zeros(events), np.zeros(events)
    begun, made, seen = time.monotonic(), 0, 0
    with open_store(load_config(folder / "config.yaml")) as client:
        while seen < events:
            # The first event alone tells when the job is at work; the others follow at their rate.
            due = min(int((time.monotonic() - begun) * options.rate) + 1, events) if seen else 1
            while made < due:
                sent[made] = time.monotonic()
                producer.produce(topic, message(made), partition=0)
                made += 1
            producer.poll(0)
            with suppress(StoreError):  # the tables may not be made yet
                found = int(client.rows(COUNT)[0][0])
                arrived[seen:found] = time.monotonic()
                begun = begun if seen else time.monotonic()
                seen = max(seen, found)
            if time.monotonic() > begun + options.seconds + 60:
                raise SystemExit(f"a minute after the last event only {seen} of {events} have arrived")
            time.sleep(LOOK_S)  # the view is asked again and again: how late a row is seen is what is measured
    producer.flush()
    return arrived[1:] - sent[1:]


def report(seconds: NDArray[np.float64], options: argparse.Namespace) -> bool:
    """The histogram, on the terminal and as JSON; whether the promise is kept."""
    promised_s = 2 * options.epoch_ms / 1000 + 2
    edges = np.arange(0, seconds.max() + BIN_S, BIN_S)
    counts, edges = np.histogram(seconds, bins=edges)
    console = Console(highlight=False)
    console.print(f"{seconds.size:,} events, epochs of {options.epoch_ms} ms: seconds from Kafka to usage_by_minute")
    for low, count in zip(edges, counts, strict=False):
        console.print(f"{low:6.2f} - {low + BIN_S:5.2f} {count:7,} {'█' * int(50 * count / counts.max())}")
    quantiles = {f"p{q}": round(float(np.percentile(seconds, q)), 3) for q in (50, 90, 99)}
    quantiles["max"] = round(float(seconds.max()), 3)
    console.print(f"{'  '.join(f'{name} {value} s' for name, value in quantiles.items())}; promised: {promised_s:g} s")
    histogram = [[round(float(low), 2), int(count)] for low, count in zip(edges, counts, strict=False)]
    result = {"events": seconds.size, "epoch_ms": options.epoch_ms, "promised_s": promised_s, **quantiles}
    result |= {"bin_s": BIN_S, "histogram": histogram}
    keep("latency", figures_of(result), result, options.results, charts_of(result))
    return bool(seconds.max() <= promised_s)


def charts_of(result: dict[str, Any]) -> list[Chart]:
    """The histogram."""
    values = {"events": {f"{low:g}": count for low, count in result["histogram"]}}
    title = f"from an event in Kafka to its row in usage_by_minute, epochs of {result['epoch_ms']} ms"
    return [Chart(LATENCY, Look.STEPS, title, "events", values, across="seconds")]


def figures_of(result: dict[str, Any]) -> list[Figure]:
    """The slowest event beside the promise."""
    what = f"from Kafka to usage_by_minute, epochs of {result['epoch_ms']} ms"
    median = Figure(f"{what}: the median", result["p50"], "s")
    return [median, Figure(f"{what}: the slowest", result["max"], "s", at_most=result["promised_s"])]


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--seconds", type=int, default=60)
    arguments.add_argument("--rate", type=int, default=200, help="events a second")
    arguments.add_argument("--epoch-ms", type=int, default=1000)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        broker, front = Tansu(folder), FrontProcess(folder / "server")
        broker.start()
        try:
            (folder / "job").mkdir()
            seconds = latencies(folder / "job", broker, front, options)
        finally:
            front.close()
            broker.stop()
    if not report(seconds, options):
        raise SystemExit("an event took longer than promised")


if __name__ == "__main__":
    main()
