"""`python -m tests.fuzz [--messages N] [--seed S]`: fuzzes decode against the oracle; stops at the first difference."""

import argparse
import sys
import time
from random import Random

from tests.fuzz.compare import NARROW, WIDE, compare, smallest
from tests.fuzz.messages import lines_of

LINES_PER_CHUNK = 200


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk; each other has the next one")
    options = parser.parse_args()
    begun = time.monotonic()
    done = accepted = 0
    for seed in range(options.seed, options.seed + -(-options.messages // LINES_PER_CHUNK)):
        rng = Random(seed)
        limits, late = rng.choice((NARROW, WIDE)), rng.random() < 0.05
        lines = lines_of(rng, LINES_PER_CHUNK)
        try:
            expected = compare(b"\n".join(lines), limits, seed, late)
        except AssertionError as error:
            print(f"seed {seed}: decode and the oracle differ: {str(error)[:2000]}", file=sys.stderr)
            for line in smallest(lines, limits, late):
                print(repr(line), file=sys.stderr)
            return 3
        done += expected.read
        accepted += len(expected.events)
        if seed % 500 == 0:
            rate = done / (time.monotonic() - begun) * 60
            print(f"seed {seed}: {done:,} messages, {accepted:,} of them events; {rate:,.0f} a minute", file=sys.stderr)
    print(f"{done:,} messages, {accepted:,} of them events, no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
