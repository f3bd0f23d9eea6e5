"""What stops Bytewax itself, as one clear line."""

import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from .errors import EngineStopped, StateError, TallyflowError


def engine_error(recovery: Path, message: str) -> StateError:
    """One line for what stopped Bytewax itself; that is its recovery store, or a defect."""
    reason = re.search(r'Sqlite.*Some\("([^"]+)"\)', message, re.DOTALL)
    if reason is None:
        return EngineStopped(f"{recovery}: the dataflow stopped: {' '.join(message.split())}")
    return StateError(
        f"{recovery}: Bytewax cannot use its recovery store ({reason[1]}); is the disk full or read-only? "
        "Mend that and start again: nothing is lost"
    )


@contextmanager
def panics_explained(recovery: Path) -> Iterator[None]:
    """While inside, a panic of Bytewax becomes one clear line.

    Rust reports a panic, with its stack, on file descriptor 2 before Python hears of it. So that descriptor is held
    back, while Python's own stderr goes on; what was held back comes out in the end, unless it is the report of a panic
    that is explained.
    """
    sys.stderr.flush()
    python_stderr, real, held = sys.stderr, os.dup(2), os.memfd_create("native-stderr")
    if _is_descriptor_2(python_stderr):
        sys.stderr = open(real, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115 - stays open
    os.dup2(held, 2)
    explained = False
    try:
        yield
    except TallyflowError:
        explained = True
        raise
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3's, which has no module to import it from
            raise
        explained = True
        raise engine_error(recovery, str(error)) from error
    finally:
        os.dup2(real, 2)
        sys.stderr = python_stderr
        said = os.pread(held, os.fstat(held).st_size, 0)
        if said and not (explained and b"panicked at" in said):
            os.write(2, said)
        os.close(held)
        os.close(real)


def _is_descriptor_2(stream: TextIO) -> bool:
    try:
        return stream.fileno() == 2
    except (OSError, ValueError, AttributeError):
        return False
