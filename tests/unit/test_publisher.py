"""The publisher alone: how it waits for a store, and when it waits no longer."""

from typing import Any

import pytest

from flow.errors import StoreError
from flow.sinks.outbox import Block
from flow.sinks.publisher import BUSY_TRIES_MAX, RETRY_FIRST_S, RETRY_LAST_S, Publisher
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


def test_a_store_that_stays_busy_stops_the_job() -> None:
    # One answer less, or silence in between, is waited out.
    busy = StoreBusy("store s: Too many parts")
    publish([*[busy] * (BUSY_TRIES_MAX - 1), StoreUnavailable("no answer"), *[busy] * (BUSY_TRIES_MAX - 1)])
    with pytest.raises(StoreError, match=rf"Too many parts; it said so {BUSY_TRIES_MAX} times in a row.*nothing was"):
        publish([busy] * BUSY_TRIES_MAX)
