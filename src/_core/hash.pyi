SOURCE_HASH: str

def hash_strings(offsets: int, data: int, count: int, out: int) -> None: ...
def mix_blocks(count: int, blocks: int) -> None: ...
def fingerprints(rows: int, id_offsets: int, id_data: int, source_index: int, source_hashes: int, out: int) -> None: ...
def payload_hashes(
    rows: int,
    dim_index: tuple[int, ...],
    mixed_dims: tuple[int, ...],
    usage_offsets: int,
    meter_index: int,
    quantities: int,
    meter_hashes: int,
    out_dims: int,
    out_payload: int,
) -> None: ...
def shard_rows(rows: int, fingerprint: int, shards: int, counts: int, out_rows: int) -> None: ...
