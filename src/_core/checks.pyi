SOURCE_HASH: str
CHECKS_MAX: int
MEMBER: int
RANGE: int
SUM: int
SPEED: int
CLOCK: int

class ValueTable:
    def __init__(self, items: list[tuple[bytes, bool, int]]) -> None: ...
    def masks(self, offsets: int, data: int, count: int, always: int, flipped: int, out: int) -> None: ...

class CheckTable:
    def __init__(self, checks: list[tuple[int, int, int, int, int]]) -> None: ...
    def failed(
        self,
        rows: int,
        time_us: int,
        columns: list[tuple[int, int, int]],
        offsets: int,
        meters: int,
        quantities: int,
        of_meters: list[tuple[int, int, int]],
        now_us: int,
        out_rows: int,
        out_failed: int,
    ) -> int: ...
