"""All benchmarks, one after the other, and the table of what they came to.

    python benchmarks/bench.py [--full] [--results FOLDER] [NAME ...]    (make bench [FULL=1] [ONLY="rating rules"])
    python benchmarks/bench.py --table                                   of what is in the results; nothing runs

Without --full each is given fewer events than it would take by itself: README.md says how long that takes. Exit code 1
if a benchmark fails (some do so where they miss what is promised); the others run all the same.
"""

import subprocess
import sys
import time
from pathlib import Path

from figures import newest, parser, show

HERE = Path(__file__).parent
APART = {"bench", "columnar_peers", "instructions", "report", "trillion"}
"""Runnable files that are no part of this: another runs them, or a target of their own."""

QUESTIONS: dict[str, list[str]] = {
    "anomalies": ["", "--cost"],
    "recovery": ["cost", "restart"],
    "scaling": ["workers", "keys", "ids", "customers"],
}
"""What the benchmarks are run with that answer several; all others answer one, without arguments."""

SHORT: dict[str, str] = {
    "accuracy": "--events 300000 --kills 3 --outages 1",
    "anomalies": "--seeds 1",
    "anomalies --cost": "--events 2000000",
    "columnar": "--repeat 1",  # with fewer events its ratios are those of starting processes, as those of json_path are
    "dedup": "--ids 1000000 10000000",
    "json_path": "--repeat 1",
    "latency": "--seconds 20",
    "rating": "--events 1000000",
    "reconcile": "--events 1000000 --copies 2",
    "recovery cost": "--events 2000000",
    "recovery restart": "--fingerprints 20000000",
    "rerate": "--events 1000000",
    "rules": "--events 1000000 --repeat 3",
    "scaling workers": "--events 10000000 --repeat 1",
    "scaling keys": "--repeat 1",
    "scaling ids": "--events 10000000 --repeat 1",
    "scaling customers": "--repeat 1",
    "watching": "--events 2000000 --repeat 3",
}
"""What they are given unless --full."""


def commands(names: list[str], *, full: bool) -> list[list[str]]:
    """Of the benchmarks with these names, or of all: file, question and size."""
    every = sorted(path.stem for path in HERE.glob("*.py") if '__name__ == "__main__"' in path.read_text())
    known = [name for name in every if name not in APART]
    if unknown := set(names) - set(known):
        raise SystemExit(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    found = []
    for name in names or known:
        for question in QUESTIONS.get(name, [""]):
            asked = f"{name} {question}".strip()
            size = "" if full else SHORT.get(asked, "")
            found.append([f"{name}.py", *question.split(), *size.split()])
    return found


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("names", nargs="*", metavar="NAME", help="run only these")
    arguments.add_argument("--full", action="store_true", help="at the sizes that published figures are measured at")
    arguments.add_argument("--table", action="store_true", help="run nothing")
    options = arguments.parse_args()
    failed = []
    for file, *given in [] if options.table else commands(options.names, full=options.full):
        told, begun = " ".join([file, *given]), time.monotonic()
        print(f"== {told}", file=sys.stderr)
        command = [sys.executable, str(HERE / file), "--results", str(options.results), *given]
        if subprocess.run(command, check=False).returncode:
            failed.append(told)
        print(f"== {told}: {time.monotonic() - begun:.0f} s", file=sys.stderr)
    show(newest(options.results).values())
    for told in failed:
        print(f"error: {told} has failed", file=sys.stderr)
    raise SystemExit(1 if failed else 0)


if __name__ == "__main__":
    main()
