"""The start of a run, whose store is made ready on a thread of its own."""

from pathlib import Path

import pytest

from flow.errors import RefusedStart
from flow.start import Claim, Start, open_store, starting

from .harness import Pipeline, event


def test_a_start_that_fails_leaves_lock_and_store_to_the_next(tmp_path: Path) -> None:
    config = Pipeline(tmp_path).config()
    claims: list[Claim] = []

    def fail(start: Start) -> None:
        claims.append(start.claim())
        raise KeyboardInterrupt

    for _ in range(2):  # the second finds the lock free, and comes behind the first
        with pytest.raises(KeyboardInterrupt), starting(config) as start:
            fail(start)
    assert claims[0].lineage == claims[1].lineage
    assert [claim.term.number for claim in claims] == [1, 2]


def test_who_fails_without_asking_for_the_claim_waits_for_it_all_the_same(tmp_path: Path) -> None:
    config = Pipeline(tmp_path).config()
    with pytest.raises(KeyboardInterrupt), starting(config):
        raise KeyboardInterrupt
    with open_store(config) as client:
        assert client.rows("SELECT term FROM fence") == [(1,)]


def test_what_the_store_refuses_comes_out_of_the_claim(tmp_path: Path) -> None:
    pipeline = Pipeline(tmp_path)
    pipeline.write("a.ndjson", [event(1)])
    pipeline.run()
    other = pipeline.config(state_dir="another")
    with starting(other) as start, pytest.raises(RefusedStart, match="holds what another state directory published"):
        start.claim()
    assert pipeline.run(state_dir="state").balance["read"] == 1
