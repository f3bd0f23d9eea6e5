from typing import Any

SOURCE_HASH: str
KEY_BITS: tuple[int, int, int]
ROW_WORDS: int
SLOTS: int

class UsageSums:
    @property
    def oldest(self) -> int: ...
    def __init__(self) -> None: ...
    def __len__(self) -> int: ...
    def add(
        self,
        codes: tuple[Any, ...],
        window_s: Any,
        unpriced: Any,
        events: Any,
        quantities: list[Any],
        amounts: list[Any],
        numbers: tuple[Any, Any, Any, Any],
        limits: tuple[Any, Any, int],
        least_hour: int,
        sign: int,
    ) -> None: ...
    def rows(self, pers: bytes = b"") -> bytes: ...
    def load(self, rows: Any) -> None: ...

def sampled(
    rows: Any,
    fingerprints: Any,
    bits: int,
    customers: Any,
    projects: Any,
    offsets: Any,
    quantities: Any,
    out_customers: Any,
    out_projects: Any,
    out_sizes: Any,
) -> int: ...
