SOURCE_HASH: str
SLOTS: int
METERS_PER_EVENT_MAX: int

class Combiner:
    @property
    def raw_count(self) -> int: ...
    @property
    def rows(self) -> int: ...
    @property
    def shape_number(self) -> int: ...
    @property
    def shapes_max(self) -> int: ...
    def __init__(
        self, currency_hash: bytes, requests_hash: bytes, empty_hash: bytes, shapes_max: int = 65536
    ) -> None: ...
    def meter_number(self, name: str, name_hash: bytes) -> int: ...
    def slot_rows(self) -> list[tuple[list[str], int]]: ...
    def add(
        self,
        rows: int,
        selection: int,
        event_time_us: int,
        fingerprint: int,
        payload: int,
        dims: int,
        dim_values: tuple[tuple[int, int, int, int, int], ...],
        usage_offsets: int,
        meter_index: int,
        meter_numbers: int,
        quantities: int,
        amounts: int,
        flags: int,
        request_amounts: int,
    ) -> tuple[int, ...]: ...
    def ahead(self) -> list[tuple[int, int]]: ...
    @staticmethod
    def touch(address: int, bytes: int) -> None: ...
    def cut(self) -> None: ...
    def sort(self, day: bool, customer_ranks: int, customers: int) -> int: ...
    def write(
        self,
        day: bool,
        first: int,
        rows: int,
        codes: tuple[int, ...],
        widths: tuple[int, ...],
        slot_meters: int,
        slot_unpriced: int,
        meters: int,
        unpriced: int,
        windows: int,
        keys: int,
        events: int,
        digests: int,
        quantities: tuple[int, ...],
        amounts: tuple[int, ...],
    ) -> None: ...
    def block_totals(self) -> list[tuple[list[tuple[str, bool]], int, list[int], list[int]]]: ...
    def clear(self) -> None: ...
