SOURCE_HASH: str
PRICED: int
UNPRICED: int
UNBILLED: int
PER_SHIFT: int
CLASS_BITS: tuple[int, int, int, int]

class RateTable:
    @property
    def meters(self) -> int: ...
    def __init__(self, meters: int) -> None: ...
    def tell_profiles(self, profiles: list[int], pairs: list[tuple[int, int]]) -> None: ...
    def add_schedule(
        self, instants: list[int], offsets: list[int], today: bytes, after: bytes, holidays: list[int]
    ) -> int: ...
    def add_context(self, places: list[int]) -> int: ...
    def add_rate(self, rate: bytes, per: int) -> int: ...
    def add_choice(self, schedule: int, within: int, otherwise: int) -> int: ...
    def add_grid(
        self,
        cells: bytes,
        per: int,
        thresholds: list[int],
        context: int,
        part: bool,
        package: int,
        times: list[int],
        tables: list[tuple[int, list[int], bool]],
    ) -> int: ...
    def add_timeline(self, from_us: list[int], rules: list[int]) -> int: ...
    def add_vector(self, timeline_of: list[int]) -> int: ...
    def add_combination(self, packed: int, vector: int) -> None: ...
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
