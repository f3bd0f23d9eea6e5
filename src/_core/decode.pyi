SOURCE_HASH: str

class Column:
    def __buffer__(self, flags: int, /) -> memoryview: ...

class LineParser:
    read: int
    known_lines: int
    unknown_fields: int
    events: int
    line_start: int
    line_end: int

    def __init__(
        self,
        data: bytes,
        base: int,
        *,
        event_bytes_max: int,
        string_bytes_max: int,
        quantity_max: int,
        meters_max: int,
        time_max_us: int,
    ) -> None: ...
    def run(self) -> bool: ...
    def append(self, id: bytes, event_time_us: int, texts: list[bytes], usage: list[tuple[bytes, int]]) -> None: ...
    def columns(self) -> dict[str, Column]: ...
    def dictionary(self, number: int) -> tuple[int, bytes, bytes]: ...
