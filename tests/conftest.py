"""What all tests share: an embedded store, once opened, stays open until another one is, or a process needs it; and no
example of Hypothesis has to be done within a time.
"""

import gc
import os
import shutil
import sys
from collections.abc import Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from flow.store.client import engine_kept

# Children keep the bytecode of modules, whatever the environment says: half of what a command takes is to compile it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# As the command does: threads of BLAS, which nothing here uses, would spin beside the start of each process.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Tests make a hundred thousand files, most of them the store's, on which a disk's file system spends more time than the
# tests do. Where memory is to spare they are there, as far as nothing asks for another place.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 4 << 30
if (
    _MEMORY.is_dir()
    and not os.statvfs(_MEMORY).f_flag & os.ST_NOEXEC  # installed environments run there
    and shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES_MIN
):
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

# On a machine that does other things too, the time of an example says nothing of what it tests.
settings.register_profile("untimed", settings.default, deadline=None)
settings.load_profile("untimed")


class _WithoutEngine(MetaPathFinder):
    """Skips a test at the point where it would load the embedded engine into a process with sanitizers."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> None:
        if fullname == "chdb":
            reason = "chdb is loaded with RTLD_DEEPBIND, which AddressSanitizer refuses: the process would end"
            pytest.skip(reason, allow_module_level=True)


SANITIZERS = os.environ.get("CORE_SANITIZE")
"""Those that the kernels were built with: 1 is AddressSanitizer and UBSan, `undefined` the latter alone."""
LEFT_OUT = {
    "1": (
        {"cluster", "e2e", "faults", "kafka", "packaging", "test_mutations"},
        "starts what AddressSanitizer refuses, or is slow there: it runs under UBSan alone",
    ),
    "undefined": ({"parity", "test_sim"}, "runs under AddressSanitizer and UBSan"),
}
"""Folders and modules of tests, and why. Each test runs under one of the two, but for packaging, which builds its own
kernels, and for seeds of the simulator behind those of the Makefile's SANITIZER_SETTINGS.
"""

if SANITIZERS == "1":
    sys.meta_path.insert(0, _WithoutEngine())


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skips what the kernels of this run, with sanitizers, are not for."""
    if SANITIZERS not in LEFT_OUT:
        return
    left_out, reason = LEFT_OUT[SANITIZERS]
    for item in items:
        starts_engine = SANITIZERS == "1" and item.get_closest_marker("starts_engine") is not None
        if starts_engine or left_out & {item.path.parent.name, item.path.stem}:
            item.add_marker(pytest.mark.skip(reason=reason))


def pytest_collection_finish() -> None:
    """What thousands of tests and their modules are made of stays to the end: no collection looks at it again, which
    was a tenth of the simulator's time."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _engine() -> Iterator[None]:
    with engine_kept():
        yield
