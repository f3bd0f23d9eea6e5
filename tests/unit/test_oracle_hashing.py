"""Goal: the hashes are what they are said to be. Method: mmh3 for MurmurHash3, properties for the rest."""

import itertools

import mmh3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.oracle import hashing
from flow.schema import DIMENSIONS

DIMS = dict.fromkeys(DIMENSIONS, "")


@given(st.binary(max_size=200), st.integers(0, 2**32 - 1))
def test_murmur3_is_that_of_mmh3(text: bytes, seed: int) -> None:
    assert hashing.murmur3_128(text, seed, seed) == mmh3.hash128(text, seed, x64arch=True, signed=False)


@pytest.mark.parametrize("length", range(49))
def test_murmur3_at_every_tail_length(length: int) -> None:
    text = bytes(range(200, 200 + length))
    assert hashing.murmur3_128(text) == mmh3.hash128(text, 0, x64arch=True, signed=False)
    assert hashing.words(hashing.murmur3_128(text)) == mmh3.hash64(text, 0, x64arch=True, signed=False)


def test_known_values() -> None:
    """Whoever changes one of these changes what stands in ledgers and rollups of earlier runs."""
    fingerprint = hashing.fingerprint("gateway/eu-1", "7f3c")
    payload = hashing.payload_hash(DIMS | {"customer": "acme"}, [("input_tokens", 900), ("output_tokens", 95)])
    assert hashing.murmur3_128(b"") == 0
    assert hashing.name_hash("input_tokens") == 0x492B11B8A89DBDFF014C33EE7ED98CEF
    assert fingerprint == 0x06904D9A907C74A99B0C77BE9BD6DC50
    assert payload == 0xC1BB866D44EFCCB2DBA7DBAF761B4CD4
    assert hashing.event_digest(fingerprint, payload) == 0x93BC25216ECA775B0247DCD6726BDE54


def test_both_words_of_the_seed_count() -> None:
    hashes = {hashing.murmur3_128(b"id", h1, h2) for h1, h2 in itertools.product((0, 1, 2**63), repeat=2)}
    assert len(hashes) == 9


def test_source_and_id_do_not_run_together() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("", "abc"), ("abc", ""), ("c", "ab"), ("a\0b", "c"), ("a", "b\0c")]
    assert len({hashing.fingerprint(source, id_) for source, id_ in pairs}) == len(pairs)


@given(st.lists(st.tuples(st.text(max_size=8), st.integers(0, 2**63 - 1)), max_size=5))
def test_the_order_of_meters_is_of_no_weight(usage: list[tuple[str, int]]) -> None:
    assert hashing.usage_hash(usage) == hashing.usage_hash(reversed(usage))
    assert 0 <= hashing.usage_hash(usage) < 2**128


def test_usage_hash_tells_meters_and_quantities_apart() -> None:
    usages = [[], [("a", 0)], [("b", 0)], [("a", 1)], [("a", 2)], [("a", 1), ("b", 2)], [("a", 2), ("b", 1)]]
    assert len({hashing.usage_hash(usage) for usage in usages}) == len(usages)
    assert (
        hashing.usage_hash([("a", 1), ("b", 2)])
        == (hashing.usage_hash([("a", 1)]) + hashing.usage_hash([("b", 2)])) % 2**128
    )


@pytest.mark.parametrize("dimension", DIMENSIONS)
def test_every_dimension_is_in_the_payload(dimension: str) -> None:
    others = [DIMS | {other: "x"} for other in DIMENSIONS if other != dimension]
    hashes = {hashing.payload_hash(dims, []) for dims in [DIMS, DIMS | {dimension: "x"}, *others]}
    assert len(hashes) == 1 + len(DIMENSIONS)


def test_the_finaliser_is_a_permutation_of_boundaries() -> None:
    edges = [0, 1, 2**31, 2**32, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1]
    assert hashing.fmix64(0) == 0
    assert len({hashing.fmix64(edge) for edge in edges}) == len(edges)
    assert all(0 <= hashing.fmix64(edge) < 2**64 for edge in edges)
