SOURCE_HASH: str

def interleave(
    columns: list[tuple[int, int, int, int]],
    rows: int,
    quantity_max: int,
    offsets: int,
    meters: int,
    quantities: int,
) -> int: ...
