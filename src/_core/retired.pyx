"""The filter that a retired generation leaves: filled with its fingerprints, and asked for those of late events.

Memory: the bit array of a `pybloom_live.BloomFilter`: slices of `slice_bits` bits, one behind the other; bit n of the
whole is in byte n / 8, lowest first. A fingerprint sets one bit in each slice, at a place that is a hash of both its
halves and of the slice's number, in place of the hash of a text that pybloom_live itself takes:

    mixed = lo + slice * hi            mixed ^= mixed >> 32, mixed *= 0x9E3779B97F4A7C15      (modulo 2^64)
    place = mixed * slice_bits / 2^64

Cost: records are gone through once for each slice, so that one slice is in the cache and not the whole. 17 slices take
28 to 40 ns an id up to a million ids, and 110 where a slice is larger than the cache (eight million).

Proved by: tests/parity/test_retired.py against pybloom_live, which tests/oracle/retired.py tells the places.
"""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy

from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef extern from *:
    """
    static inline uint64_t tf_retired_place(uint64_t lo, uint64_t hi, uint64_t slice, uint64_t slice_bits) {
        uint64_t mixed = lo + slice * hi;
        mixed ^= mixed >> 32;
        mixed *= 0x9E3779B97F4A7C15ULL;
        return (uint64_t)(((unsigned __int128)mixed * slice_bits) >> 64) + slice * slice_bits;
    }
    """
    uint64_t place_of "tf_retired_place"(uint64_t lo, uint64_t hi, uint64_t slice, uint64_t slice_bits) nogil


cdef int _check(int64_t bytes, int64_t slices, int64_t slice_bits) except -1:
    if slices <= 0 or slice_bits <= 0 or slices > 8 * bytes // slice_bits:
        raise ValueError(f"{bytes} bytes are no filter of {slices} slices of {slice_bits} bits")
    return 0


def fill(unsigned char[::1] bits, int64_t slices, int64_t slice_bits, const unsigned char[::1] records):
    """Puts the fingerprints of whole 24-byte records into a filter. Raises ValueError."""
    cdef int64_t n, slice_, count = records.shape[0] // 24
    cdef uint64_t lo, hi, place
    cdef uint8_t *filter_
    cdef const uint8_t *record
    _check(bits.shape[0], slices, slice_bits)
    if records.shape[0] % 24:
        raise ValueError("a segment's records must be whole")
    if count == 0:
        return
    filter_ = &bits[0]
    with nogil:
        for slice_ in range(slices):
            for n in range(count):
                record = &records[24 * n]
                memcpy(&lo, record, 8)
                memcpy(&hi, record + 8, 8)
                place = place_of(lo, hi, slice_, slice_bits)
                filter_[place >> 3] |= <uint8_t>(1 << (place & 7))


def look_up(
    const unsigned char[::1] bits, int64_t slices, int64_t slice_bits, const unsigned char[::1] fingerprints,
    unsigned char[::1] found,
):
    """Sets `found` (a byte for each) to 1 for those of the 16-byte fingerprints that a filter may have. What it has not
    was certainly never put in. Raises ValueError.
    """
    cdef int64_t n, slice_, count = fingerprints.shape[0] // 16
    cdef uint64_t lo, hi, place
    _check(bits.shape[0], slices, slice_bits)
    if fingerprints.shape[0] % 16 or found.shape[0] != count:
        raise ValueError("a byte is found for each of whole fingerprints")
    for n in range(count):
        memcpy(&lo, &fingerprints[16 * n], 8)
        memcpy(&hi, &fingerprints[16 * n + 8], 8)
        for slice_ in range(slices):
            place = place_of(lo, hi, slice_, slice_bits)
            if not bits[place >> 3] >> (place & 7) & 1:
                break
        else:
            found[n] = 1
