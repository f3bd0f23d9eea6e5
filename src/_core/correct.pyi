SOURCE_HASH: str

def differences(
    rows: int,
    usage_offsets: int,
    before: tuple[int, ...],
    after: tuple[int, ...],
    amounts: int,
    requests: int,
    selection: int,
) -> tuple[int, int]: ...

class Sums:
    @property
    def units(self) -> int: ...
    def __init__(self, names: list[tuple[int, int]], per_of_all: int) -> None: ...
    def add(
        self,
        rows: int,
        customers: int,
        windows: int,
        slots: int,
        slot_names: int,
        unpriced: int,
        amounts: tuple[int, ...],
        quantities: tuple[int, ...],
        out: tuple[int, ...],
    ) -> int: ...
    def end(self, out: tuple[int, ...]) -> int: ...
