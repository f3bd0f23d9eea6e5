"""The hashes of an event, defined. A 128-bit hash is one integer; its low 64 bits are MurmurHash3's h1."""

from collections.abc import Iterable, Mapping

from ..schema import DIMENSIONS

_MASK = 2**64 - 1
_C1 = 0x87C37B91114253D5
_C2 = 0x4CF5AD432745937F


def fmix64(word: int) -> int:
    """MurmurHash3's finaliser: a permutation of the 64-bit words in which every bit moves every other."""
    word ^= word >> 33
    word = word * 0xFF51AFD7ED558CCD & _MASK
    word ^= word >> 33
    word = word * 0xC4CEB9FE1A85EC53 & _MASK
    return word ^ word >> 33


def murmur3_128(text: bytes, h1: int = 0, h2: int = 0) -> int:
    """MurmurHash3 x64 128, seeded with its whole 128-bit state; others seed with h1 = h2."""
    tail_start = len(text) - len(text) % 16
    for n in range(0, tail_start, 16):
        h1 ^= _mix1(int.from_bytes(text[n : n + 8], "little"))
        h1 = (_rotate(h1, 27) + h2) * 5 + 0x52DCE729 & _MASK
        h2 ^= _mix2(int.from_bytes(text[n + 8 : n + 16], "little"))
        h2 = (_rotate(h2, 31) + h1) * 5 + 0x38495AB5 & _MASK
    tail = text[tail_start:]
    h1 ^= _mix1(int.from_bytes(tail[:8], "little")) ^ len(text)
    h2 ^= _mix2(int.from_bytes(tail[8:], "little")) ^ len(text)
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    h1 = fmix64(h1)
    h2 = fmix64(h2)
    h1 = h1 + h2 & _MASK
    h2 = h2 + h1 & _MASK
    return h2 << 64 | h1


def _rotate(word: int, bits: int) -> int:
    word &= _MASK
    return (word << bits | word >> 64 - bits) & _MASK


def _mix1(word: int) -> int:
    return _rotate(word * _C1, 31) * _C2 & _MASK


def _mix2(word: int) -> int:
    return _rotate(word * _C2, 33) * _C1 & _MASK


def words(number: int) -> tuple[int, int]:
    """The low and the high 64 bits: the state (h1, h2) that a hash seeds another one with."""
    return number & _MASK, number >> 64


def name_hash(text: str) -> int:
    """The hash of a source, a meter or a dimension's value."""
    return murmur3_128(text.encode())


def fingerprint(source: str, id: str) -> int:
    """The identity of an event. Each hash ends in its own length: no two (source, id) pairs run together."""
    return murmur3_128(id.encode(), *words(name_hash(source)))


def dims_hash(dims: Mapping[str, str]) -> int:
    """`dims`: a value for each of schema.DIMENSIONS; other keys are not looked at."""
    return murmur3_128(b"".join(_bytes(name_hash(dims[name])) for name in DIMENSIONS))


def usage_hash(usage: Iterable[tuple[str, int]]) -> int:
    """A sum over (meter, quantity), so that their order is of no weight; a quantity is its 64 bits, also below 0."""
    total = 0
    for meter, quantity in usage:
        low, high = words(name_hash(meter))
        total += fmix64(high ^ quantity & _MASK) << 64 | fmix64(low + quantity & _MASK)
    return total % 2**128


def payload_hash(dims: Mapping[str, str], usage: Iterable[tuple[str, int]]) -> int:
    """What two events of one identity must agree on. Not their time: a retry may have a new one."""
    return murmur3_128(_bytes(dims_hash(dims)) + _bytes(usage_hash(usage)))


def event_digest(fingerprint: int, payload_hash: int) -> int:
    """What an event adds to the digest of every row that it is in."""
    return murmur3_128(_bytes(fingerprint) + _bytes(payload_hash))


def _bytes(number: int) -> bytes:
    return number.to_bytes(16, "little")
