"""What a supervisor and the processes of its host tell each other, all of it in memory: nothing is left behind.

- The *paper* of a process is a memory file: its Task stands in it at the start, its Report at the end. Both are
  pickled, which is sound between two processes of one program, and keeps passwords out of command lines.
- The *line* is the process's stdin: a byte asks it to stop; its end says that the supervisor is gone.
- The *board* is a memory file that all of a host share: what waits for the store, and signs of life.
"""

import mmap
import os
import pickle
import struct
from dataclasses import dataclass

from ..config import Config
from ..errors import TallyflowError
from ..prices.book import PriceBook
from ..run import Share
from ..start import Claim


@dataclass(frozen=True)
class Task:
    """What a worker process is told. All of a host get the same but for the number."""

    config: Config
    book: PriceBook
    claim: Claim
    process: int
    """Of all processes of the cluster."""
    addresses: tuple[str, ...]
    threads: int
    host: int = 0
    first: int = 0
    """The first process of this host."""


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


@dataclass(frozen=True, slots=True)
class Sign:
    """What a process shows of itself."""

    waiting_bytes: int
    """Bytes that wait for the store."""
    beats: int
    """Goes up for as long as the process runs at all; 0: it has not begun."""
    steps: int
    """Goes up with every call into the dataflow; -1: that has ended, and what is left is to publish."""


class Board:
    """The Sign of each process of a host, and behind them what waits for the store on other hosts.

    Each process writes its own line only, the supervisor the last one.
    """

    _LINE = struct.Struct("<qqq")

    def __init__(self, descriptor: int) -> None:
        self.processes = os.fstat(descriptor).st_size // self._LINE.size - 1
        self._lines = mmap.mmap(descriptor, 0)

    @classmethod
    def new(cls, processes: int) -> int:
        """The descriptor of a new one, all zero."""
        descriptor = os.memfd_create("tallyflow-board")
        os.ftruncate(descriptor, cls._LINE.size * (processes + 1))
        return descriptor

    def show(self, line: int, sign: Sign) -> None:
        self._LINE.pack_into(self._lines, self._LINE.size * line, sign.waiting_bytes, sign.beats, sign.steps)

    def show_others(self, waiting_bytes: int) -> None:
        """What waits for the store on other hosts."""
        self.show(self.processes, Sign(waiting_bytes, 0, 0))

    def signs(self) -> list[Sign]:
        """Of the processes of this host."""
        return [Sign(*line) for line in self._LINE.iter_unpack(self._lines[: -self._LINE.size])]

    def waiting_bytes(self) -> int:
        """Of all processes of all hosts."""
        return sum(line[0] for line in self._LINE.iter_unpack(self._lines[:]))
