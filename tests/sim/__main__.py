"""python -m tests.sim SEED [--verbose] | --seeds N [--from SEED]: one seed with its trace, or many until
one fails."""

import argparse
import sys
import time

from . import SimulationFailed, simulate


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seed", type=int, nargs="?", help="the seed to live through")
    parser.add_argument("--verbose", action="store_true", help="print what happens, as it happens")
    parser.add_argument("--seeds", type=int, help="how many seeds to try")
    parser.add_argument("--from", dest="first", type=int, default=0, help="the first of them")
    given = parser.parse_args()
    if (given.seed is None) == (given.seeds is None):
        parser.error("give a seed, or --seeds N")
    if given.seed is not None:
        return _one(given.seed, given.verbose)
    began, crashes = time.monotonic(), 0
    for seed in range(given.first, given.first + given.seeds):
        try:
            crashes += simulate(seed, print if given.verbose else None).crashes
        except SimulationFailed as failure:
            print(failure, file=sys.stderr)
            return 1
    print(f"{given.seeds} seeds, {crashes} crashes, all exact ({time.monotonic() - began:.0f} s)")
    return 0


def _one(seed: int, verbose: bool) -> int:
    try:
        world = simulate(seed, print if verbose else None)
    except SimulationFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    lines = sum(map(len, world.workload.partitions))
    print(f"seed {seed}: {lines} lines, {world.crashes} crashes, {world.recovery.epochs} epochs, exact")
    return 0


if __name__ == "__main__":
    sys.exit(main())
