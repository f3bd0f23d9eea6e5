"""Memory that the processes of a host share, for what goes from one to another: written once, and read where it lies.

Every process writes into a part of its own, front to back and then from the front again. What it puts there at once is
a *lot*, which stays until nobody has any use for it: each who is sent a lot gets a *mark*, a byte at the front of the
part, which he clears when the last buffer of it is gone. So nothing has to be answered, and all of it goes with the
processes.
"""

import mmap
import os
import threading
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple
from weakref import finalize, ref

import numpy as np
import numpy.typing as npt
import pyarrow as pa

PART_BYTES = 128 << 20
"""Of each process: room for some eight batches on their way; memory is taken only where something was put."""
MARKS = 4096
ALIGNMENT = 64
"""Of each buffer, as Arrow likes it; it divides MARKS."""


class Lot(NamedTuple):
    """What tells another process where something lies."""

    mark: int
    """Byte of the shelf to be cleared."""
    buffers: tuple[tuple[int, int], ...]
    """First byte and behind the last one, of each."""


class Laid:
    """What a process has put on its shelf; it stays while this is held, and while anybody has a lot of it."""

    def __init__(self, start: int, buffers: tuple[tuple[int, int], ...]) -> None:
        self.start, self.buffers = start, buffers


class _Kept(NamedTuple):
    """What a part holds of a `Laid`, which knows nothing of this so that it can go."""

    start: int
    end: int
    marks: list[int]
    laid: "ref[Laid]"


class Shelf:
    """The shared memory, in a process that writes to one part of it. All threads may use it."""

    def __init__(self, descriptor: int, number: int) -> None:
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(mmap.mmap(descriptor, 0), np.uint8)
        self._front = number * PART_BYTES + MARKS
        self._end = (number + 1) * PART_BYTES
        self._marks = list(range(self._front - MARKS, self._front))
        self._kept: deque[_Kept] = deque()
        self._lock = threading.Lock()

    @staticmethod
    def new(processes: int) -> int:
        """The descriptor of an empty one for so many processes."""
        descriptor = os.memfd_create("tallyflow-shelf")
        os.ftruncate(descriptor, PART_BYTES * processes)
        return descriptor

    def put(self, buffers: Sequence[memoryview]) -> Laid | None:
        """Copies them to the shelf; None if there is no room."""
        with self._lock:
            size = sum(_aligned(buffer.nbytes) for buffer in buffers)
            start = self._room(size)
            if start is None:
                return None
            at, places = start, list[tuple[int, int]]()
            for buffer in buffers:
                places.append((at, at + buffer.nbytes))
                self._bytes[at : at + buffer.nbytes] = np.frombuffer(buffer, np.uint8)
                at += _aligned(buffer.nbytes)
            laid = Laid(start, tuple(places))
            self._kept.append(_Kept(start, at, [], ref(laid)))
            return laid

    def _room(self, size: int) -> int | None:
        """Where so many bytes are free behind what was put last; forgets what nobody has any use for."""
        kept = self._kept
        while kept and not kept[0].laid() and not self._bytes[kept[0].marks].any():
            self._marks += kept.popleft().marks
        if not kept:
            return self._front if self._front + size <= self._end else None
        first, behind = kept[0].start, kept[-1].end
        if behind <= first:  # it began again from the front
            return behind if behind + size < first else None
        if behind + size <= self._end:
            return behind
        return self._front if self._front + size < first else None

    def lot(self, laid: Laid) -> Lot | None:
        """What to send to one process, which then has to `take` it; None if there are too many on their way."""
        with self._lock:
            if not self._marks:
                return None
            mark = self._marks.pop()
            self._bytes[mark] = 1
            next(kept for kept in reversed(self._kept) if kept.start == laid.start).marks.append(mark)
            return Lot(mark, laid.buffers)

    def take(self, lot: Lot) -> list[pa.Buffer]:
        """What another process has put, where it lies; it stays there while any of these, or of what is made of them
        without a copy, is held."""
        start, end = lot.buffers[0][0], lot.buffers[-1][1]
        seen = self._bytes[start:end].data.toreadonly()
        finalize(seen, self._bytes.__setitem__, lot.mark, 0).atexit = False
        whole = pa.py_buffer(seen)
        return [whole.slice(first - start, behind - first) for first, behind in lot.buffers]


def _aligned(size: int) -> int:
    return max(-(-size // ALIGNMENT), 1) * ALIGNMENT


_here: Shelf | None = None


def use(shelf: Shelf | None) -> None:
    """From now on it is the one of this process: what is pickled in one process and unpickled in another is told
    nothing else."""
    global _here
    _here = shelf


def here() -> Shelf | None:
    """The shelf of this process, if it has one."""
    return _here
