SOURCE_HASH: str
SLOTS: int
METERS_PER_EVENT_MAX: int

class Groups:
    """Grouped sums of one grain; only the Combiner uses it."""

    @property
    def count(self) -> int: ...

class Combiner:
    @property
    def key_count(self) -> int: ...
    @property
    def raw_count(self) -> int: ...
    def __init__(self, currency_hash: bytes, requests_hash: bytes, empty_hash: bytes) -> None: ...
    def forget_keys(self) -> None: ...
    def meter_number(self, name: str, name_hash: bytes) -> int: ...
    def name_customers(self, first_key: int, codes: int, count: int) -> None: ...
    def add(
        self,
        rows: int,
        selection: int,
        event_time_us: int,
        fingerprint: int,
        payload: int,
        dims: int,
        usage_offsets: int,
        meter_index: int,
        meter_numbers: int,
        quantities: int,
        amounts: int,
        flags: int,
        request_amounts: int,
        new_rows: int,
    ) -> int: ...
    def cut(self) -> tuple[int, int]: ...
    def block_totals(self) -> list[tuple[list[tuple[str, bool]], int, list[int], list[int]]]: ...
    def sort(self, day: bool, rows: int, customer_ranks: int, customers: int) -> None: ...
    def write(
        self,
        day: bool,
        first: int,
        rows: int,
        customers: int,
        windows: int,
        keys: int,
        events: int,
        digests: int,
        quantities: tuple[int, ...],
        amounts: tuple[int, ...],
    ) -> None: ...
    def clear(self) -> None: ...
    def slot_rows(self) -> list[tuple[list[str], int]]: ...
    def count_keys(self, first_key: int) -> int: ...
    def write_keys(self, first_key: int, numbers: int, keys: int, slot_row: int) -> None: ...
