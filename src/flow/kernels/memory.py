"""Memory that kernels are about to fill, made ready by a thread beside them: the system zeroes it when it is first
written, which took a third of the dataflow's thread while fingerprints and sums grew."""

from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Protocol


class Growing(Protocol):
    """What grows in memory of its own."""

    def ahead(self) -> list[tuple[int, int]]:
        """Address and bytes of each piece that is about to be filled for the first time, told once."""

    def touch(self, address: int, bytes: int, /) -> None:
        """Makes a piece ready; it may have moved, or been given back, since it was told."""


@cache
def _thread() -> ThreadPoolExecutor:
    """One for the process, begun by the first that grows large."""
    return ThreadPoolExecutor(1, "memory")


def touch_ahead(growing: Growing) -> None:
    """Begins to make ready what is filled next, and does not wait for it."""
    for piece in growing.ahead():
        _thread().submit(growing.touch, *piece)
