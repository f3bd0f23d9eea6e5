"""Fixtures of the end-to-end tests."""

from pathlib import Path

import pytest

from .harness import Pipeline


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    return Pipeline(tmp_path / "pipeline")
