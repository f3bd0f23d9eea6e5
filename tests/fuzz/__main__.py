"""`python -m tests.fuzz [--messages N] [--seed S] [--jobs J]`: fuzzes decode against the oracle, until they differ."""

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from tests.fuzz.chunk import LINES_PER_CHUNK, try_chunk

TOLD_EVERY = 100_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1, help="of the first chunk; each other has the next one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + -(-options.messages // LINES_PER_CHUNK))
    begun, read, accepted, apart = time.monotonic(), 0, 0, 0
    with ProcessPoolExecutor(options.jobs) as pool:
        for tried in pool.map(try_chunk, seeds, chunksize=10):
            if tried.difference is not None:
                pool.shutdown(cancel_futures=True)
                print(f"seed {tried.seed}: decode and the oracle differ: {tried.difference}", file=sys.stderr)
                for line in tried.lines:
                    print(repr(line), file=sys.stderr)
                return 3
            told = read // TOLD_EVERY
            read, accepted, apart = read + tried.read, accepted + tried.accepted, apart + tried.corrections
            if read // TOLD_EVERY > told:
                rate = read / (time.monotonic() - begun) * 60
                said = f"seed {tried.seed}: {read:,} messages, {accepted:,} of them events; {rate:,.0f} a minute"
                print(said, file=sys.stderr)
    print(f"{read:,} messages, {accepted:,} of them events ({apart:,} corrections or late), no difference")
    return 0


if __name__ == "__main__":
    sys.exit(main())
