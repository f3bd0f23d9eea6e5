"""The publisher alone: how it waits for a store, and when it waits no longer."""

import threading
from pathlib import Path
from typing import Any

import pytest

from flow.errors import StoreError
from flow.sinks.outbox import Block, BlockFile
from flow.sinks.publisher import BESIDE_BYTES_MIN, BUSY_TRIES_MAX, RETRY_FIRST_S, RETRY_LAST_S, Publisher
from flow.store.client import StoreBusy, StoreUnavailable


class Waits:
    """Stands for the event on which the publisher waits between two tries."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    def is_set(self) -> bool:
        return False

    def wait(self, seconds: float) -> None:
        self.seconds.append(seconds)


def publish(refusals: list[StoreUnavailable]) -> list[float]:
    """Publishes a block without files, after the refusals, one a try; returns the waits between."""

    def fence(client: object) -> None:
        if refusals:
            raise refusals.pop(0)

    store: Any = type("Store", (), {"close": lambda self: None})()
    outbox: Any = type("Outbox", (), dict.fromkeys(("check", "begin", "done"), lambda self, block: None))()
    publisher = Publisher(lambda: store, fence)
    waits: Any = Waits()
    publisher._abandoned = waits
    publisher.submit(outbox, Block("lineage", "writer", 1, ()))
    publisher.start()
    publisher.finish()
    assert publisher.published.blocks == 1
    assert publisher.published.retries == len(waits.seconds)
    seconds: list[float] = waits.seconds
    return seconds


def test_waits_grow_are_never_in_step_and_have_a_maximum() -> None:
    waits = publish([StoreUnavailable("no answer")] * 200)
    assert len(waits) == 200
    for n, seconds in enumerate(waits):
        longest = min(RETRY_FIRST_S * 2**n, RETRY_LAST_S)
        assert longest / 2 <= seconds <= longest
    assert len(set(waits)) > 190


def test_row_7_a_store_that_stays_busy_stops_the_job() -> None:
    # One answer less, or silence in between, is waited out.
    busy = StoreBusy("store s: Too many parts")
    publish([*[busy] * (BUSY_TRIES_MAX - 1), StoreUnavailable("no answer"), *[busy] * (BUSY_TRIES_MAX - 1)])
    with pytest.raises(StoreError, match=rf"Too many parts; it said so {BUSY_TRIES_MAX} times in a row.*nothing was"):
        publish([busy] * BUSY_TRIES_MAX)


class TwoStores:
    """Clients that insert into one list. Unless one insert fails, two must be at it at a time where it is a rollup."""

    def __init__(self, fail: str = "") -> None:
        self.both_at_it = threading.Barrier(2)
        self.inserted: list[tuple[str, str]] = []
        self.together = not fail
        self.fail = fail
        self.closed = 0

    def connect(self) -> Any:
        stores = self

        class Client:
            embedded, cluster = False, None

            def knows_setting(self, name: str) -> bool:
                return True

            def insert_file(self, table: str, columns: object, path: Path, settings: dict[str, str]) -> None:
                if stores.together and table != "pipeline_balance":
                    stores.both_at_it.wait(timeout=60)
                token = settings["insert_deduplication_token"]
                if token == stores.fail:
                    stores.fail = ""
                    raise StoreUnavailable("no answer")
                stores.inserted.append((table, token))

            def close(self) -> None:
                stores.closed += 1

        return Client()

    def publish(self) -> Publisher:
        folder: Any = {"folder": Path("/outbox")}
        outbox: Any = type("Outbox", (), folder | dict.fromkeys(("check", "begin", "done"), lambda self, block: None))()
        tables = ["rollup_minute", "rollup_minute", "rollup_minute", "rollup_day", "pipeline_balance"]
        files = [BlockFile(table, f"{n}.arrow", BESIDE_BYTES_MIN, 0) for n, table in enumerate(tables)]
        publisher = Publisher(self.connect)
        publisher.submit(outbox, Block("lineage", "writer", 1, tuple(files)))
        publisher.start()
        publisher.finish()
        return publisher


def test_large_rollups_go_two_at_a_time_and_the_balance_behind_them() -> None:
    stores = TwoStores()
    stores.publish()
    assert stores.inserted[-1] == ("pipeline_balance", "lineage-writer-1-4")
    assert sorted(stores.inserted[:-1], key=lambda insert: insert[1]) == [
        ("rollup_minute", "lineage-writer-1-0"),
        ("rollup_minute", "lineage-writer-1-1"),
        ("rollup_minute", "lineage-writer-1-2"),
        ("rollup_day", "lineage-writer-1-3"),
    ]
    assert stores.closed == 2


@pytest.mark.parametrize("file", range(4))
def test_a_failure_of_either_is_repeated_with_the_whole_block(file: int) -> None:
    stores = TwoStores(fail=f"lineage-writer-1-{file}")
    publisher = stores.publish()
    assert publisher.published.retries == 1
    assert {token for _, token in stores.inserted} == {f"lineage-writer-1-{n}" for n in range(5)}
    assert [table for table, _ in stores.inserted].count("pipeline_balance") == 1
