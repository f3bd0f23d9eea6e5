"""How many instructions each kernel takes an event: counted under valgrind, and so the same in every run.

    python benchmarks/instructions.py [--accept] [--may-lack-valgrind] [--keep FOLDER]

Each kernel does its work on a fixed made-up batch (`kernel_work.py`). Counted is what runs in the kernels' own shared
objects: neither Python nor the C library, whose `memcpy` differs from one processor to the next. The counts are held
against `baseline-instructions.json` (`baseline.py` says how). Exit code 1 if one is more than 10 % above it, with the
command that accepts the new ones: `make baseline`, whose change of the file belongs into the commit that causes it.

Without valgrind nothing can be compared: that is an error too, but for --may-lack-valgrind.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar, TypeVarTuple

from baseline import FILE, Accepted, Built, Counts, accept, compare, load
from rich.console import Console
from rich.table import Table

import _core

ROWS = 16_384
"""Enough that what a call costs once is below an instruction an event."""
TOLD_FROM = 1.0  # instructions an event; a kernel that does less has no part in a piece of work
KERNELS = Path(_core.__file__).parent
Given = TypeVarTuple("Given")
Of = TypeVar("Of")


# ---- What is counted ------------------------------------------------------------------------------------------------


def work_to_be_counted(told: Path) -> None:
    """What runs under valgrind: a call of getppid, before which counts are written and begin anew, on both sides of
    each piece of work. Nothing else in the process calls it. `told`: where the names of the pieces go, in order."""
    from kernel_work import every_kernel  # takes seconds to import, and only this process needs it

    done: list[tuple[str, int]] = []

    def measure(what: str, events: int, work: Callable[[*Given], Of], *given: *Given) -> Of:
        os.getppid()
        found = work(*given)
        os.getppid()
        done.append((what, events))
        return found

    every_kernel(ROWS, measure)
    told.write_text(json.dumps(done))


def counted(folder: Path) -> Counts:
    """Runs all kernels under valgrind and reads what it has counted."""
    command = ["valgrind", "--tool=callgrind", "--dump-before=getppid", f"--callgrind-out-file={folder / 'counts'}"]
    told = folder / "work.json"
    environment = {**os.environ, "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        [*command, sys.executable, __file__, "--count", str(told)], env=environment, capture_output=True, text=True
    )
    if ran.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {ran.returncode}:\n{ran.stderr}")
    counts: Counts = {}
    done = json.loads(told.read_text())
    written = len(list(folder.glob("counts.*")))
    if written != 2 * len(done):
        raise SystemExit(f"valgrind wrote {written} counts of {len(done)} pieces of work: something else calls getppid")
    for number, (what, events) in enumerate(done):
        found = instructions((folder / f"counts.{2 * number + 2}").read_text())
        counts[what] = {
            kernel: round(count / events, 1) for kernel, count in sorted(found.items()) if count / events >= TOLD_FROM
        }
    return counts


def instructions(profile: str) -> dict[str, int]:
    """Instructions within each kernel's shared object, from a profile as callgrind writes it.

    Of a line of costs the last number counts, which is what a function takes itself; the line behind `calls=` is the
    cost of what is called, and counts there. Names are written once, as `ob=(3) path`, and then `ob=(3)`.
    """
    names: dict[str, str] = {}
    found: dict[str, int] = defaultdict(int)
    kernel, lines = "", iter(profile.splitlines())
    for line in lines:
        if match := re.match(r"c?ob=(\(\d+\))(?: (.*))?$", line):
            if match[2] is not None:
                names[match[1]] = match[2]
            if line.startswith("ob="):
                path = Path(names[match[1]])
                kernel = path.name.split(".")[0] if path.parent == KERNELS else ""
        elif line.startswith("calls="):
            next(lines)
        elif kernel and re.match(r"[+*\-\d]", line):
            found[kernel] += int(line.split()[1])
    return dict(found)


def built() -> Built:
    """How the kernels were built. Refuses builds that nobody measures."""
    found = set()
    for path in KERNELS.glob("*.so"):
        content = path.read_bytes()
        if b"__asan_" in content or b".debug_info" in content:
            raise SystemExit(
                f"{path.name} was built to find defects (CORE_SANITIZE, CORE_DEBUG); run `make build` anew"
            )
        found |= set(re.findall(rb"(?:GCC: \([^\0]*|[^\0]*clang version [^\0]*)(?=\0)", content))
    if not found:
        raise SystemExit("the kernels do not say which compiler they were built by")
    # Start files of the system, which were built by a compiler of their own, are linked into each of them.
    compilers = [Built(platform.machine(), name.decode()) for name in found]
    return max(compilers, key=lambda compiler: (compiler.is_clang, compiler.major))


# ---- What is said of it ---------------------------------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--accept", action="store_true", help="make the counts those that others are compared with")
    parser.add_argument("--may-lack-valgrind", action="store_true", help="where it is not installed, compare nothing")
    parser.add_argument("--keep", type=Path, help="keep valgrind's profiles in this folder, for callgrind_annotate")
    parser.add_argument("--count", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.count is not None:
        work_to_be_counted(options.count)
        return
    if shutil.which("valgrind") is None:
        said = "valgrind is not installed: NO INSTRUCTIONS WERE COUNTED, and no kernel was compared with its baseline"
        print(f"{'warning' if options.may_lack_valgrind else 'error'}: {said}", file=sys.stderr)
        raise SystemExit(0 if options.may_lack_valgrind else 1)
    how = built()
    with tempfile.TemporaryDirectory(prefix="tallyflow-bench-") as scratch:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob("counts.*"):
            old.unlink()
        counts = counted(folder)
    sets = load()
    report(counts, sets[how.key].counts if how.key in sets else {})
    if options.accept:
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        accept(how, Accepted(how.compiler, version("cython"), platform.python_version(), today, counts))
        print(f"accepted for {how.key}: {FILE}", file=sys.stderr)
        return
    comparison = compare(counts, how, sets)
    for note in comparison.notes:
        print(f"note: {note}", file=sys.stderr)
    for failure in comparison.failures:
        print(f"error: {failure}", file=sys.stderr)
    if comparison.failures:
        print("if that is the price of something worth it, accept it and say why: make baseline", file=sys.stderr)
        raise SystemExit(1)


def report(counts: Counts, accepted: Counts) -> None:
    table = Table(title=f"Instructions an event, of {ROWS:,}")
    for name in ("work", "kernel", "now", "accepted", ""):
        table.add_column(name, justify="left" if name in ("work", "kernel") else "right")
    for work, kernels in counts.items():
        for kernel, now in kernels.items():
            then = accepted.get(work, {}).get(kernel)
            change = "" if not then else f"{now / then - 1:+.1%}"
            table.add_row(work, kernel, f"{now:,.1f}", "" if then is None else f"{then:,.1f}", change)
    Console().print(table)


if __name__ == "__main__":
    main()
