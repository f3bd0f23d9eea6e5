SOURCE_HASH: str
PRICED: int
UNPRICED: int
UNBILLED: int
CLASS_BITS: tuple[int, int, int, int]

class RateTable:
    @property
    def meters(self) -> int: ...
    def __init__(self, meters: int) -> None: ...
    def add_timeline(self, from_us: list[int], rates: bytes) -> int: ...
    def add_combination(self, packed: int, timeline_of: list[int]) -> None: ...
    def rate(
        self,
        rows: int,
        selection: int,
        event_time_us: int,
        dim_index: tuple[int, ...],
        dim_class: tuple[int, ...],
        usage_offsets: int,
        meter_index: int,
        meter_map: int,
        quantities: int,
        amounts: int,
        flags: int,
        request_amounts: int,
        request_flags: int,
    ) -> list[int]: ...
