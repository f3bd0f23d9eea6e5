"""The kernel of the filters that retired generations leave; see `_core/retired.pyx`."""

from _core import retired as _retired


def fill(bits: memoryview, slices: int, slice_bits: int, records: bytes | memoryview) -> None:
    """Puts the fingerprints of 24-byte records into the bit array of a filter. Raises ValueError."""
    _retired.fill(bits, slices, slice_bits, records)


def look_up(bits: memoryview, slices: int, slice_bits: int, fingerprints: bytes | memoryview, found: bytearray) -> None:
    """Sets `found` (a byte for each) to 1 for those of the 16-byte fingerprints that a filter may have; what it has not
    was certainly never put in. Raises ValueError.
    """
    _retired.look_up(bits, slices, slice_bits, fingerprints, found)
