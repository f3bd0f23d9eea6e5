"""What the supervisor and its workers tell each other, all of it in memory: nothing is left behind.

- The *paper* of a worker is a memory file: its Task stands in it at the start, its Report at the end. Both are pickled,
  which is sound between two processes of one program, and keeps the passwords of a config out of command lines.
- The *line* is the worker's stdin: a byte asks it to stop; its end says that the supervisor is gone.
- The *backlog* is a memory file that all share: the bytes that wait for the store, of each process.
"""

import mmap
import os
import pickle
import struct
from dataclasses import dataclass

from ..config import Config
from ..errors import TallyflowError
from ..prices.book import PriceBook
from ..run import Claim, Share


@dataclass(frozen=True)
class Task:
    """What a worker process is told. All of them get the same but for the number."""

    config: Config
    book: PriceBook
    claim: Claim
    process: int
    addresses: tuple[str, ...]
    threads: int


Report = Share | TallyflowError
"""How a worker ended; one that left none was killed or is defective."""


def new_paper(content: Task) -> int:
    """The descriptor of a memory file that holds this."""
    paper = os.memfd_create("tallyflow-paper")
    write_paper(paper, content)
    return paper


def write_paper(paper: int, content: Task | Report) -> None:
    """Replaces what stands there."""
    pickled = memoryview(pickle.dumps(content))
    os.ftruncate(paper, 0)
    at = 0
    while at < len(pickled):
        at += os.pwrite(paper, pickled[at:], at)


def read_paper(paper: int) -> Task | Report:
    """What stands there."""
    size = os.fstat(paper).st_size
    content: Task | Report = pickle.loads(os.pread(paper, size, 0))
    return content


class Backlog:
    """Bytes that wait for the store, of each process of a cluster. Each writes its own number only."""

    _SLOT = struct.Struct("<q")

    def __init__(self, descriptor: int, processes: int) -> None:
        self._slots = mmap.mmap(descriptor, self._SLOT.size * processes)

    @classmethod
    def new(cls, processes: int) -> int:
        """The descriptor of a new one, all zero."""
        descriptor = os.memfd_create("tallyflow-backlog")
        os.ftruncate(descriptor, cls._SLOT.size * processes)
        return descriptor

    def set(self, process: int, waiting_bytes: int) -> None:
        self._SLOT.pack_into(self._slots, self._SLOT.size * process, waiting_bytes)

    def total(self) -> int:
        return sum(number for (number,) in self._SLOT.iter_unpack(self._slots[:]))
