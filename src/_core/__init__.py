"""The exact kernels. No I/O, no clock, no config, no logging, no float. Only `flow/kernels/` imports this package.

A compiled extension remembers a hash of the sources it was built from. Where the sources stand beside it (a checkout),
the two are compared here, so that a stale build is an error and never an old answer.
"""

import hashlib
import importlib
from pathlib import Path

ABI = 1
"""Raised when a kernel's Python-visible signature changes; `flow/kernels/__init__.py` asserts it."""

_HERE = Path(__file__).parent


def _check_fresh() -> None:
    headers = sorted(_HERE.glob("*.pxd"))
    for source in sorted(_HERE.glob("*.pyx")):
        module = importlib.import_module(f"{__name__}.{source.stem}")
        digest = hashlib.sha256()
        for path in [source, *headers]:
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        if digest.hexdigest()[:16] != module.SOURCE_HASH:
            raise ImportError(f"{module.__file__} is stale: {source.name} has changed since; run `make build`")


_check_fresh()
