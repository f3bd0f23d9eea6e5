"""What all tests share: an embedded store, once opened, stays open until another one is, or a process needs it."""

import os
from collections.abc import Iterator

import pytest

from flow.store.client import engine_kept

# Children keep the bytecode of modules, whatever the environment says: half of what a command takes is to compile it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    with engine_kept():
        yield
