"""The kernel of the filters that retired generations leave; see `_core/retired.pyx`."""

from _core import retired as _retired


def fill(bits: memoryview, slices: int, slice_bits: int, records: bytes | memoryview) -> None:
    """Puts the fingerprints of 24-byte records into the bit array of a filter. Raises ValueError."""
    _retired.fill(bits, slices, slice_bits, records)


def look_up(bits: memoryview, slices: int, slice_bits: int, fingerprints: bytes | memoryview) -> bytes:
    """For each 16-byte fingerprint 1 if a filter may have it, 0 if it certainly has not. Raises ValueError."""
    found = bytearray(len(fingerprints) // 16)
    _retired.look_up(bits, slices, slice_bits, fingerprints, found)
    return bytes(found)
