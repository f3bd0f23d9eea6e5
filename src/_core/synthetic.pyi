from typing import Any

SOURCE_HASH: str
PLAIN: int
UNPRICED: int
DUPLICATE: int
CONFLICTING: int
BAD: int

class Maker:
    def __init__(
        self,
        numbers: dict[str, Any],
        customer_of: Any,
        model_of: Any,
        tier_of: Any,
        reasons: Any,
        inputs: Any,
        outputs: Any,
    ) -> None: ...
    def kinds(self, first: int, out: bytearray) -> None: ...
    def make(
        self,
        first: int,
        rows: int,
        text: int,
        text_ends: int,
        time_us: int,
        codes: tuple[int, ...],
        quantities: tuple[int, ...],
        valid: tuple[int, ...],
    ) -> list[int]: ...
