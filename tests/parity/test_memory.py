"""Goal: memory is there before it is filled, and making it ready changes nothing of what is in it.

Method: fingerprints that grow beyond their first memory, with and without, in the same batches; which pages there are,
the system says. Sums are in test_combine.py.
"""

import mmap
from pathlib import Path

import numpy as np

from _core import dedup

BLOCK = 1 << 18
"""Records of a block of fingerprints."""
ROWS = 1 << 16
TIMES = np.zeros(ROWS, np.int64)
touch = dedup.FingerprintSet.touch
MADV_POPULATE_WRITE = 23


def can_be_made_ready() -> bool:
    """False before Linux 5.14, where nothing is done."""
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        try:
            memory.madvise(MADV_POPULATE_WRITE)
        except OSError:
            return False
    return True


def present(address: int, size: int) -> float:
    """The share of its pages that the system has found."""
    with Path("/proc/self/pagemap").open("rb") as pages:
        pages.seek(address // mmap.PAGESIZE * 8)
        told = np.frombuffer(pages.read(size // mmap.PAGESIZE * 8), np.uint64)
    return float(np.mean(told >> np.uint64(63)))


def touch_all(tested: dedup.FingerprintSet) -> int:
    """As the thread does, but at once; how many bytes."""
    pieces = tested.ahead()
    for piece in pieces:
        touch(*piece)
    return sum(size for _, size in pieces)


def test_what_was_made_ready_is_there_and_keeps_what_it_holds() -> None:
    memory = np.frombuffer(mmap.mmap(-1, 4 << 20), np.uint8)
    memory[: 1 << 20] = 7
    before = present(memory.ctypes.data, memory.nbytes)
    touch(memory.ctypes.data, memory.nbytes)
    assert present(memory.ctypes.data, memory.nbytes) == (1 if can_be_made_ready() else before)
    assert set(memory[: 1 << 20]) == {7} and set(memory[1 << 20 :]) == {0}


def test_memory_that_is_there_no_longer_is_let_be() -> None:
    """Whoever moves or gives back its memory need not wait for who makes it ready."""
    memory = mmap.mmap(-1, 1 << 20)
    view = np.frombuffer(memory, np.uint8)
    address = view.ctypes.data
    del view
    memory.close()
    touch(address, 1 << 20)
    touch(0, 1 << 20)
    touch(address, 0)


def judged(tested: dedup.FingerprintSet, words: np.ndarray, verdicts: np.ndarray) -> tuple[int, ...]:
    at = words.ctypes.data
    return tested.judge(len(words) // 2, 0, at, at, TIMES.ctypes.data, verdicts.ctypes.data)


def test_fingerprints_are_the_same_and_each_piece_is_told_once() -> None:
    """Given ids of five blocks, each learnt and known again, then memory made ready says nothing else of them, and is
    that of blocks that were not begun and of an index that is about to double."""
    plain, ahead = dedup.FingerprintSet(-1, 1), dedup.FingerprintSet(-1, 1)
    found = np.zeros(ROWS, np.uint8), np.zeros(ROWS, np.uint8)
    words = np.random.default_rng(3).integers(1, 2**63, 5 * BLOCK * 2, np.uint64)
    told = []
    for turn in range(2):
        for first in range(0, len(words), 2 * ROWS):
            batch = words[first : first + 2 * ROWS]
            counts = judged(plain, batch, found[0])
            assert judged(ahead, batch, found[1]) == counts == ((0, ROWS, 0, 0) if turn else (ROWS, 0, 0, 0))
            told += ahead.ahead()
            assert not ahead.ahead()
            for address, size in told[-2:]:
                touch(address, size)
    assert len({address for address, _ in told}) == len(told)
    assert [size for _, size in told if size == BLOCK * 24] == [BLOCK * 24] * 5
    assert any(size != BLOCK * 24 for _, size in told)  # of the index
    assert plain.memory_bytes() == ahead.memory_bytes() and len(plain) == len(ahead) == 5 * BLOCK
    journals = (b"".join(bytes(records) for _, _, records in one.take_journal()) for one in (plain, ahead))
    assert next(journals) == next(journals)


def test_what_is_told_is_not_there_before_it_is_made_ready() -> None:
    tested, verdicts = dedup.FingerprintSet(-1, 1), np.zeros(ROWS, np.uint8)
    words = np.random.default_rng(4).integers(1, 2**63, 4 * BLOCK * 2, np.uint64)
    pieces = 0
    for first in range(0, len(words), 2 * ROWS):
        judged(tested, words[first : first + 2 * ROWS], verdicts)
        for address, size in tested.ahead():
            before = present(address, size)
            assert before < 0.5
            touch(address, size)
            assert present(address, size) == (1 if can_be_made_ready() else before)
            pieces += 1
    assert pieces > 3


def test_a_block_is_told_once_though_it_is_given_back() -> None:
    """Given no memory to spare, then the block that is filled next is not made ready with every batch."""
    tested, verdicts = dedup.FingerprintSet(-1, 1), np.zeros(ROWS, np.uint8)
    words = np.random.default_rng(5).integers(1, 2**63, BLOCK * 2, np.uint64)
    told = []
    for first in range(0, len(words), ROWS):
        judged(tested, words[first : first + ROWS], verdicts)
        told += [size for _, size in tested.ahead() if size == BLOCK * 24]
        tested.release(0)
    assert told == [BLOCK * 24]


def test_blocks_that_wait_to_be_filled_again_come_first() -> None:
    """Given a horizon that two blocks have left, then their memory is used, and none is told that was never touched."""
    tested, verdicts = dedup.FingerprintSet(BLOCK, BLOCK // 4), np.zeros(ROWS, np.uint8)
    told = []
    for n in range(32):
        words = np.arange(2 * ROWS, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(n << 40 | 1)
        times, at = np.arange(n * ROWS, (n + 1) * ROWS), words.ctypes.data
        tested.judge(ROWS, 0, at, at, times.ctypes.data, verdicts.ctypes.data)
        list(tested.take_journal())
        told.append(touch_all(tested))
    assert sum(told[:8]) and not sum(told[16:])
