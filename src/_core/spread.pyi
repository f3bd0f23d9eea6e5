SOURCE_HASH: str

def spread(
    count: int,
    rows: int,
    offsets: int,
    meters: int,
    quantities: int,
    column_of: int,
    columns: list[tuple[int, int]],
    left_offsets: int,
    left_meters: int,
    left_quantities: int,
) -> tuple[int, list[int]]: ...
