"""The filter of a retired generation by pybloom_live alone, one fingerprint after the other.

pybloom_live asks `make_hashes` where the bits of a key are, one place in each slice. Its own are hashes of a text; here
they are hashes of a fingerprint: the rules of `_core/retired.pyx`.
"""

from collections.abc import Iterable, Iterator

from pybloom_live import BloomFilter

WORD = 2**64


def fingerprinted(bloom: BloomFilter) -> BloomFilter:
    """The same filter, to be filled with and asked for fingerprints (integers, lower half first in memory)."""

    def places(fingerprint: int) -> Iterator[int]:
        hi, lo = divmod(fingerprint, WORD)
        for slice_ in range(bloom.num_slices):
            mixed = (lo + slice_ * hi) % WORD
            mixed = (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15 % WORD
            yield mixed * bloom.bits_per_slice // WORD

    bloom.make_hashes = places
    return bloom


def filter_of(prints: Iterable[int], ids: int, error_rate: float) -> BloomFilter:
    bloom = fingerprinted(BloomFilter(ids, error_rate))
    for fingerprint in prints:
        bloom.add(fingerprint, skip_check=True)
    return bloom
