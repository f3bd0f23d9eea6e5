"""What all tests share: an embedded store, once opened, stays open until another one is, or a process needs it; and no
example of Hypothesis has to be done within a time.
"""

import os
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from typing import Any

import pytest
from hypothesis import settings

from flow.store.client import engine_kept

# Children keep the bytecode of modules, whatever the environment says: half of what a command takes is to compile it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# On a machine that does other things too, the time of an example says nothing of what it tests.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


class _WithoutEngine(MetaPathFinder):
    """Skips a test at the point where it would load the embedded engine into a process with sanitizers."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "chdb":
            reason = "chdb is loaded with RTLD_DEEPBIND, which AddressSanitizer refuses: the process would end"
            pytest.skip(reason, allow_module_level=True)


if os.environ.get("CORE_SANITIZE") == "1":
    sys.meta_path.insert(0, _WithoutEngine())


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    with engine_kept():
        yield
