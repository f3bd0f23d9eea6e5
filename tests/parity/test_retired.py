"""Goal: the filter of a retired generation is one of pybloom_live's, bit for bit, and never says no of what is in it.

Method: random fingerprints and those whose halves are at the edges, against pybloom_live as tests/oracle/retired.py
tells it the places; and its errors, counted, against its error rate.
"""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybloom_live import BloomFilter
from tests.oracle.batches import PROPERTY, wide
from tests.oracle.retired import filter_of, fingerprinted

from flow.kernels.retired import fill, look_up

HALVES = st.one_of(st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**63, 2**64 - 1]))
PRINTS = st.builds(lambda lo, hi: hi << 64 | lo, HALVES, HALVES)
RATES = (0.5, 0.01, 1e-5)


def records(prints: list[int]) -> bytes:
    return b"".join(fingerprint.to_bytes(16, "little") + b"\xff" * 8 for fingerprint in prints)


def filled(bloom: BloomFilter, prints: list[int], cut: int = 0) -> BloomFilter:
    for part in (prints[:cut], prints[cut:]):
        fill(memoryview(bloom.bitarray), bloom.num_slices, bloom.bits_per_slice, records(part))
    return bloom


def looked_up(bloom: BloomFilter, prints: bytes) -> bytes:
    found = bytearray(len(prints) // 16)
    look_up(memoryview(bloom.bitarray), bloom.num_slices, bloom.bits_per_slice, prints, found)
    return bytes(found)


def asked(bloom: BloomFilter, prints: list[int]) -> bytes:
    return looked_up(bloom, bytes(wide(prints)))


@PROPERTY
@given(st.lists(PRINTS, max_size=60), st.lists(PRINTS, max_size=60), st.sampled_from(RATES), st.data())
def test_a_filter_is_one_of_pybloom_live(ours: list[int], others: list[int], rate: float, data: st.DataObject) -> None:
    ids = data.draw(st.integers(max(len(ours), 1), 4 * len(ours) + 2))
    truth = filter_of(ours, ids, rate)
    tested = filled(BloomFilter(ids, rate), ours, data.draw(st.integers(0, len(ours))))
    assert tested.bitarray == truth.bitarray
    assert list(asked(tested, ours + others)) == [fingerprint in truth for fingerprint in ours + others]
    assert set(asked(tested, ours)) <= {1}


@pytest.mark.parametrize("ids", [20, 3000, 100_000])
def test_it_errs_as_often_as_it_was_made_for(ids: int) -> None:
    """Fingerprints are random, as hashes are: of 200 expected errors, 290 would be six standard deviations more."""
    rng, rate = random.Random(ids), 1e-3
    bloom = filled(BloomFilter(ids, rate), [rng.getrandbits(128) for _ in range(ids)])
    assert sum(looked_up(bloom, rng.randbytes(16 * 200_000))) < 290


def test_what_is_no_filter_is_refused() -> None:
    bloom = BloomFilter(10, 0.01)
    bits = memoryview(bloom.bitarray)
    for slices, slice_bits in ((0, 5), (5, 0), (-1, -5), (1, 8 * len(bits) + 1), (2**40, 2**40)):
        with pytest.raises(ValueError, match=r"bytes are no filter of"):
            fill(bits, slices, slice_bits, records([1]))
        with pytest.raises(ValueError, match=r"bytes are no filter of"):
            look_up(bits, slices, slice_bits, bytes(16), bytearray(1))
    with pytest.raises(ValueError, match="records must be whole"):
        fill(bits, bloom.num_slices, bloom.bits_per_slice, bytes(23))
    for prints, places in ((17, 1), (16, 2), (32, 1)):
        with pytest.raises(ValueError, match="whole fingerprints"):
            look_up(bits, bloom.num_slices, bloom.bits_per_slice, bytes(prints), bytearray(places))
    assert not bloom.bitarray.any()


def test_pybloom_live_itself_asks_it() -> None:
    prints = [random.Random(1).getrandbits(128) for _ in range(100)]
    bloom = fingerprinted(filled(BloomFilter(100, 1e-5), prints))
    assert all(fingerprint in bloom for fingerprint in prints) and 7 not in bloom
