"""Counts of instructions, and how they compare with those that were accepted.

Instructions depend on the compiler. So the file of accepted counts has a set for each architecture and major version of
a compiler. With another version of a compiler, the set of the same architecture that was accepted last is compared with
a wider limit, and that is said. For another architecture there is nothing to compare with: that is a failure until
counts are accepted.
"""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path

LIMIT = 1.10
LIMIT_OTHER_COMPILER = 1.30
"""Wide enough for what another compiler makes of the same source, narrow enough for a loop that runs twice."""
SLACK = 0.5
"""Instructions an event that are no rise: a piece of work that takes three must not fail at four tenths more."""
FILE = Path(__file__).parent / "baseline-instructions.json"

Counts = dict[str, dict[str, float]]
"""Instructions an event, by piece of work and kernel."""


@dataclass(frozen=True)
class Built:
    """What decides how many instructions a kernel takes, besides its source."""

    architecture: str
    compiler: str
    """As it names itself in what it has built, such as `GCC: (Debian 12.2.0-14) 12.2.0`."""

    @property
    def is_clang(self) -> bool:
        return "clang version" in self.compiler

    @property
    def major(self) -> int:
        """Its major version. Raises ValueError if it names none."""
        found = re.search(r"clang version (\d+)" if self.is_clang else r"GCC: \(.*?\) (\d+)", self.compiler)
        if found is None:
            raise ValueError(f"no version in {self.compiler!r}")
        return int(found[1])

    @property
    def key(self) -> str:
        """Of the set of counts."""
        return f"{self.architecture} {'clang' if self.is_clang else 'gcc'} {self.major}"


@dataclass(frozen=True)
class Accepted:
    """A set of counts."""

    compiler: str
    cython: str
    python: str
    date: str
    counts: Counts


@dataclass
class Comparison:
    """What is different. Nothing is, if `failures` is empty."""

    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def load(file: Path = FILE) -> dict[str, Accepted]:
    """The accepted sets, by `Built.key`."""
    if not file.exists():
        return {}
    return {key: Accepted(**found) for key, found in json.loads(file.read_text()).items()}


def accept(built: Built, accepted: Accepted, file: Path = FILE) -> None:
    """Puts a set in the place of the one with the same key; others stay."""
    sets = load(file) | {built.key: accepted}
    told = {key: asdict(sets[key]) for key in sorted(sets)}
    file.write_text(json.dumps(told, indent=1) + "\n")


def compare(counts: Counts, built: Built, sets: dict[str, Accepted]) -> Comparison:
    """Holds counts against the set for the same compiler, or else for the same architecture."""
    comparison, limit = Comparison(), LIMIT
    accepted = sets.get(built.key)
    if accepted is None:
        others = [found for key, found in sets.items() if key.split()[0] == built.architecture]
        if not others:
            comparison.failures.append(f"no counts were accepted for {built.architecture} yet")
            return comparison
        accepted, limit = max(others, key=lambda found: found.date), LIMIT_OTHER_COMPILER
        comparison.notes.append(
            f"no counts were accepted for {built.key}: compared with those of {accepted.compiler}, "
            f"of which {LIMIT_OTHER_COMPILER - 1:.0%} more is the limit"
        )
    for work, kernel in _pairs(counts) + [pair for pair in _pairs(accepted.counts) if pair not in _pairs(counts)]:
        now, then = counts.get(work, {}).get(kernel), accepted.counts.get(work, {}).get(kernel)
        if then is None:
            comparison.failures.append(
                f"{work}: {kernel} takes {now:,.1f} instructions an event, and is not accepted yet"
            )
        elif now is None:
            comparison.failures.append(f"{work}: {kernel} has no part in it any more; {then:,.1f} were accepted")
        elif now > then * limit + SLACK:
            rise = f"{now / then - 1:+.0%}, where {limit - 1:.0%} is the limit" if then else "none before"
            comparison.failures.append(
                f"{work}: {kernel} takes {now:,.1f} instructions an event, {then:,.1f} were accepted ({rise})"
            )
        elif now < then / limit - SLACK:
            comparison.notes.append(
                f"{work}: {kernel} takes {now:,.1f} instructions an event, {then:,.1f} were accepted: accept the new "
                "counts, so that they do not rise again unseen"
            )
    return comparison


def _pairs(counts: Counts) -> list[tuple[str, str]]:
    return [(work, kernel) for work, kernels in counts.items() for kernel in kernels]
