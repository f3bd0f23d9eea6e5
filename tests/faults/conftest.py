"""Fixtures of the fault tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.e2e.harness import Pipeline, copy_empty_store

from .http_front import FrontProcess


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "pipeline")


@pytest.fixture
def front(tmp_path: Path) -> Iterator[FrontProcess]:
    """A store over HTTP, empty."""
    front = FrontProcess(copy_empty_store(tmp_path / "server"))
    yield front
    front.close()


@pytest.fixture
def bare_front(tmp_path: Path) -> Iterator[FrontProcess]:
    """A store over HTTP without tables."""
    front = FrontProcess(tmp_path / "bare-server")
    yield front
    front.close()
