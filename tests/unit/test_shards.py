"""Goal: shards spread over any usual number of workers, and stay. Method: the hash, by hand."""

import json
from pathlib import Path

import pytest

from flow.state.directory import StateDirectory
from flow.steps.shards import shard_keys

SHARDS_MAX = 256
WORD = 2**64 - 1


def siphash13(content: bytes) -> int:
    """SipHash-1-3 under a key of zeros, after its paper (Aumasson, Bernstein 2012)."""
    a, b, c, d = 0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573

    def turned(word: int, by: int) -> int:
        return (word << by | word >> 64 - by) & WORD

    def mix(rounds: int) -> None:
        nonlocal a, b, c, d
        for _ in range(rounds):
            a, c = a + b & WORD, c + d & WORD
            b, d = turned(b, 13) ^ a, turned(d, 16) ^ c
            a, c = turned(a, 32) + d & WORD, c + b & WORD
            b, d = turned(b, 17) ^ c, turned(d, 21) ^ a
            c = turned(c, 32)

    padded = content + bytes(7 - len(content) % 8) + bytes([len(content) & 0xFF])
    for at in range(0, len(padded), 8):
        word = int.from_bytes(padded[at : at + 8], "little")
        d ^= word
        mix(1)
        a ^= word
    c ^= 0xFF
    mix(3)
    return a ^ b ^ c ^ d


def test_every_key_spreads() -> None:
    keys = shard_keys(SHARDS_MAX, 2)
    assert [siphash13(key.encode() + b"\xff") % 1680 for key in keys] == [n % 1680 for n in range(SHARDS_MAX)]
    assert all(1680 % workers == 0 for workers in range(1, 9))


@pytest.mark.parametrize(("format", "scheme"), [(1, 1), (2, 2)])
def test_a_lineage_keeps_the_keys_that_it_was_begun_with(format: int, scheme: int, tmp_path: Path) -> None:
    with StateDirectory(tmp_path) as directory:
        assert directory.lineage(2, "USD", None).keys == 2
        if format == 1:  # as it was written before there were two schemes
            path = tmp_path / "lineage.json"
            kept = json.loads(path.read_text())
            del kept["keys"]
            path.write_text(json.dumps(kept | {"format": 1}))
        assert directory.lineage(2, "USD", None).keys == scheme
    names = ["shard-000", "shard-001"]
    assert shard_keys(2, scheme) == (names if scheme == 1 else ["shard-000.832", "shard-001.2219"])
