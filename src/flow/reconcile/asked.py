"""Which usage a reconciliation is about."""

from dataclasses import dataclass

TIME_END_S = 2**32 - 1
"""Behind every window: what a DateTime can hold."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Usage of windows that start in [from_s, before_s), of some customers or, with None, of all."""

    from_s: int = 0
    before_s: int = TIME_END_S
    customers: tuple[str, ...] | None = None
