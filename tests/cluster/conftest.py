"""Fixtures of the cluster tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import Pipeline, copy_empty_store
from tests.faults.http_front import FrontProcess


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    """A pipeline whose store is a server, with three shards."""
    front = FrontProcess(copy_empty_store(tmp_path / "server"))
    yield Pipeline(tmp_path / "pipeline", settings={"store": front.url, "shards": 3, "epoch": "1s"})
    front.close()
