"""Fingerprints, payload hashes and dimension hashes of a batch of events.

Memory: reads Arrow buffers in place, writes 16 little-endian bytes a row into buffers of the caller.
Cost: about 5 ns for a fingerprint of a 36-byte id, and 12 ns for the other two of an event of three meters, where the
processor has AVX-512 and eight rows are hashed at once (hash_wide.pxd); 8 and 25 ns row by row (benchmarks/kernels.py).
Proved by: tests/parity/test_hash.py against flow/oracle/hashing.py, which is itself tested against the mmh3 package.

    name_hash    = murmur3(text)
    fingerprint  = murmur3(id) seeded with name_hash(source): each hash ends in its own length, so no two (source, id)
                   pairs run together
    dims_hash    = murmur3(name_hash of each dimension's value, in schema order)
    usage_hash   = sum mod 2^128 over the meters: the order in which meters stand does not matter
    payload_hash = murmur3(dims_hash, usage_hash): the event's time is no part of it, so that a retry which carries a
                   new timestamp is a duplicate and no conflict
"""

from libc.stdint cimport int32_t, int64_t, uint64_t, uintptr_t

from .hash cimport Murmur, fmix64, hash_pair, mix_first, mix_second, murmur3, murmur_end, murmur_take
from .hash_wide cimport is_wide, want_wide, wide_fingerprints, wide_payloads
from .int128 cimport u128, u128_hi, u128_lo, u128_load, u128_make, u128_store, u128_wrapping_add
from .status cimport CORE_SOURCE_HASH

SOURCE_HASH = CORE_SOURCE_HASH.decode()

cdef enum:
    DIMENSIONS = 6  # customer, project, feature, model, region, service_tier


def use_vectors(bint wanted):
    """Whether rows are hashed eight at a time from now on: if it is wanted, and the processor can (hash_wide.pxd)."""
    return want_wide(wanted)


def hash_strings(uintptr_t offsets, uintptr_t data, int64_t count, uintptr_t out):
    """name_hash of each string: int32 `offsets` [count + 1] into `data`, 16 bytes a string to `out`."""
    cdef const int32_t *starts = <const int32_t *>offsets  # IN
    cdef const char *text = <const char *>data  # IN
    cdef char *hashes = <char *>out  # OUT
    cdef int64_t i
    with nogil:
        for i in range(count):
            u128_store(hashes + 16 * i, murmur3(text + starts[i], starts[i + 1] - starts[i], 0, 0))


def mix_blocks(int64_t count, uintptr_t blocks):
    """Does to each of so many 16-byte blocks, in its place, what murmur3 does before it takes a block in."""
    cdef uint64_t *words = <uint64_t *>blocks  # IN, OUT
    cdef int64_t i
    with nogil:
        for i in range(0, 2 * count, 2):
            words[i], words[i + 1] = mix_first(words[i]), mix_second(words[i + 1])


def fingerprints(
    int64_t rows, uintptr_t id_offsets, uintptr_t id_data, uintptr_t source_index, uintptr_t source_hashes,
    uintptr_t out,
):
    """murmur3 of each row's id, seeded with the hash of its source; 16 bytes a row to `out`."""
    cdef const int32_t *starts = <const int32_t *>id_offsets  # IN
    cdef const char *text = <const char *>id_data  # IN
    cdef const int32_t *index = <const int32_t *>source_index  # IN
    cdef const char *seeds = <const char *>source_hashes  # IN
    cdef char *hashes = <char *>out  # OUT
    cdef int64_t i, done = 0
    cdef u128 seed
    with nogil:
        if is_wide():
            done = wide_fingerprints(rows, starts, text, index, seeds, hashes)
        for i in range(done, rows):
            seed = u128_load(seeds + 16 * <int64_t>index[i])
            u128_store(
                hashes + 16 * i,
                murmur3(text + starts[i], starts[i + 1] - starts[i], u128_lo(seed), u128_hi(seed)),
            )


def payload_hashes(
    int64_t rows,
    tuple dim_index,
    tuple mixed_dims,
    uintptr_t usage_offsets,
    uintptr_t meter_index,
    uintptr_t quantities,
    uintptr_t meter_hashes,
    int64_t meter_count,
    uintptr_t out_dims,
    uintptr_t out_payload,
):
    """dims_hash and payload_hash of each row.

    `dim_index`/`mixed_dims`: six addresses each, int32 codes a row, and the hash of each dictionary value behind
    `mix_blocks`: that is half of the work, and a batch has fewer values than rows. Usage: int32 offsets [rows + 1] into
    int32 `meter_index` and int64 `quantities`; `meter_hashes` 16 bytes each of `meter_count` dictionary values.
    """
    cdef const int32_t *index[DIMENSIONS]
    cdef const uint64_t *mixed[DIMENSIONS]
    cdef const uint64_t *words
    cdef const int32_t *starts = <const int32_t *>usage_offsets  # IN
    cdef const int32_t *meters = <const int32_t *>meter_index  # IN
    cdef const int64_t *quantity = <const int64_t *>quantities  # IN
    cdef const char *names = <const char *>meter_hashes  # IN
    cdef char *dims_out = <char *>out_dims  # OUT
    cdef char *payload_out = <char *>out_payload  # OUT
    cdef int64_t i, j, d, done = 0
    cdef Murmur state
    cdef u128 dims, usage, name
    if len(dim_index) != DIMENSIONS or len(mixed_dims) != DIMENSIONS:
        raise ValueError("payload_hashes: six dimensions are expected")
    for d in range(DIMENSIONS):
        index[d] = <const int32_t *><uintptr_t>dim_index[d]
        mixed[d] = <const uint64_t *><uintptr_t>mixed_dims[d]
    with nogil:
        if is_wide():
            done = wide_payloads(
                rows, index, mixed, starts, meters, quantity, names, meter_count, dims_out, payload_out
            )
        for i in range(done, rows):
            state = Murmur(0, 0)
            for d in range(DIMENSIONS):
                words = mixed[d] + 2 * <int64_t>index[d][i]
                murmur_take(&state, words[0], words[1])
            dims = murmur_end(state, 16 * DIMENSIONS)
            usage = u128_make(0, 0)
            for j in range(starts[i], starts[i + 1]):
                name = u128_load(names + 16 * <int64_t>meters[j])
                usage = u128_wrapping_add(
                    usage,
                    u128_make(
                        fmix64(u128_hi(name) ^ <uint64_t>quantity[j]), fmix64(u128_lo(name) + <uint64_t>quantity[j])
                    ),
                )
            u128_store(dims_out + 16 * i, dims)
            u128_store(payload_out + 16 * i, hash_pair(dims, usage))


def shard_rows(int64_t rows, uintptr_t fingerprint, int64_t shards, uintptr_t counts, uintptr_t out_rows):
    """Splits rows over shards by fingerprint, in order (a counting sort).

    `counts` int64 [shards + 1] receives the start of each shard's run in `out_rows` (uint32 row numbers).
    """
    cdef const char *hashes = <const char *>fingerprint  # IN
    cdef int64_t *start = <int64_t *>counts  # OUT
    cdef unsigned int *order = <unsigned int *>out_rows  # OUT
    cdef int64_t i, s, total, held
    with nogil:
        for s in range(shards + 1):
            start[s] = 0
        for i in range(rows):
            start[_shard(hashes + 16 * i, shards)] += 1
        total = 0
        for s in range(shards + 1):
            held = start[s]
            start[s] = total
            total += held
        for i in range(rows):
            s = _shard(hashes + 16 * i, shards)
            order[start[s]] = <unsigned int>i
            start[s] += 1
        for s in range(shards, 0, -1):
            start[s] = start[s - 1]
        start[0] = 0


cdef inline int64_t _shard(const char *fingerprint, int64_t shards) noexcept nogil:
    # the high word picks the shard and the low word the slot in its table, so that the two stay independent
    return <int64_t>(u128_hi(u128_load(fingerprint)) % <uint64_t>shards)
