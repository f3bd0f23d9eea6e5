"""The encodings of Parquet that the ledger uses, in plain Python, one bit after the other.

https://parquet.apache.org/docs/file-format/data-pages/encodings/
"""

from collections.abc import Sequence
from itertools import pairwise

BLOCK, MINIBLOCK = 128, 32


def texts(values: Sequence[str]) -> bytes:
    """PLAIN."""
    return b"".join(len(text.encode()).to_bytes(4, "little") + text.encode() for text in values)


def codes(values: Sequence[int], bits: int) -> bytes:
    """RLE: one run of groups of eight."""
    groups = (len(values) + 7) // 8
    return varint(groups << 1 | 1) + packed([*values, *[0] * (8 * groups - len(values))], bits)


def numbers(values: Sequence[int]) -> bytes:
    """DELTA_BINARY_PACKED."""
    found = varint(BLOCK) + varint(BLOCK // MINIBLOCK) + varint(len(values)) + zigzag(values[0] if values else 0)
    differences = [wrapped(later - sooner) for sooner, later in pairwise(values)]
    for first in range(0, len(differences), BLOCK):
        found += block(differences[first : first + BLOCK])
    return found


def block(differences: Sequence[int]) -> bytes:
    least = min(differences)
    above = [(difference - least) % 2**64 for difference in differences]
    minis = [above[first : first + MINIBLOCK] for first in range(0, BLOCK, MINIBLOCK)]
    widths = [max((number.bit_length() for number in mini), default=0) for mini in minis]
    bodies = [packed([*mini, *[0] * (MINIBLOCK - len(mini))], width) for mini, width in zip(minis, widths, strict=True)]
    return zigzag(least) + bytes(widths) + b"".join(bodies)


def bits(values: Sequence[bool]) -> bytes:
    return packed([*values, *[False] * (-len(values) % 8)], 1)


def packed(values: Sequence[int], width: int) -> bytes:
    whole = sum(value << (width * place) for place, value in enumerate(values))
    return whole.to_bytes(len(values) * width // 8, "little")


def varint(value: int) -> bytes:
    sevens = [value >> shift & 127 for shift in range(0, max(value.bit_length(), 1), 7)]
    return bytes([*(seven | 128 for seven in sevens[:-1]), sevens[-1]])


def zigzag(value: int) -> bytes:
    return varint(2 * value if value >= 0 else -2 * value - 1)


def wrapped(value: int) -> int:
    """As 64 bits have it."""
    return (value + 2**63) % 2**64 - 2**63
