"""Goal: the dedup kernel is tests.oracle.dedup, however the stream is cut and whenever the set is stored and restored.

Method: crafted fingerprints (equal words, equal Bloom bits, equal slots) and random streams on a small scale, where
every rule is met often; then many segments on a larger one.
"""

import os
import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from tempfile import TemporaryFile
from typing import NamedTuple
from weakref import finalize

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY, event_batch, judged, numbers, plain_event, selection, wide
from tests.oracle.dedup import CONFLICTING, DUPLICATE, LATE, NEW, DedupOracle, Row

from _core import dedup as kernel
from flow.kernels import Identity
from flow.kernels.fingerprints import FingerprintSet

RECORD_BYTES = 24
UNBOUNDED = 1 << 26


class OpenFile:
    """A file without a name, for as long as this is held."""

    def __init__(self, *content: bytes | np.ndarray) -> None:
        with TemporaryFile() as file:
            self.descriptor = os.dup(file.fileno())
        finalize(self, os.close, self.descriptor)
        for part in content:
            self.write(part)

    def write(self, content: bytes | np.ndarray) -> None:
        assert os.write(self.descriptor, content) == memoryview(content).nbytes


class SegmentFile:
    """A file as a kernel sees it: a header, and chunks of a header and records."""

    def __init__(self) -> None:
        self.file = OpenFile(bytes(8))
        self.chunks: list[bytes] = []

    def append(self, records: bytes) -> None:
        self.file.write(bytes(8) + records)
        self.chunks.append(records)

    @property
    def descriptor(self) -> int:
        return self.file.descriptor


class Index(NamedTuple):
    places: int
    entries: np.ndarray
    directory: np.ndarray
    file: OpenFile

    def where(self, records: int) -> tuple[int, int, int, int]:
        """As `leave_memory` takes it, given the descriptor of the records."""
        return records, self.file.descriptor, 0, self.entries.nbytes


def index_of(tested: kernel.FingerprintSet, number: int) -> Index:
    places, entries, firsts = tested.packed(number)
    packed = np.frombuffer(entries, np.uint64).copy(), np.frombuffer(firsts, np.uint32).copy()
    return Index(places, *packed, OpenFile(*packed))


class Kernel:
    """A kernel set whose journal goes to `disk`: by segment number, when it was sealed and its records.

    leaving: how many sealed segments leave the kernel's memory whenever it is stored, the oldest first.
    """

    def __init__(
        self, horizon_us: int | None, slice_us: int, segment_ids_max: int = UNBOUNDED, *, leaving: int = 0
    ) -> None:
        self.limits = (-1 if horizon_us is None else horizon_us, slice_us, segment_ids_max)
        self.set = kernel.FingerprintSet(*self.limits)
        self.disk: dict[int, tuple[int, bytes]] = {}
        self.files: defaultdict[int, SegmentFile] | None = defaultdict(SegmentFile) if leaving else None
        self.leaving = leaving
        self.indexes: dict[int, Index] = {}

    def judge(self, rows: Sequence[Row], chosen: Sequence[int] | None = None) -> list[int]:
        """Verdicts of the chosen rows; checks the counts that the kernel gives with them."""
        fingerprint, payload = wide(row[0] for row in rows), wide(row[1] for row in rows)
        times = pa.array([row[2] for row in rows], pa.int64()).buffers()[1]
        picked = None if chosen is None else selection(chosen)
        count = len(rows) if chosen is None else len(chosen)
        verdicts = pa.allocate_buffer(count)
        counts = self.set.judge(
            count,
            picked.address if picked else 0,
            fingerprint.address,
            payload.address,
            times.address,
            verdicts.address,
        )
        given_verdicts = list(bytes(verdicts))
        assert list(counts) == [given_verdicts.count(v) for v in (NEW, DUPLICATE, CONFLICTING, LATE)]
        return given_verdicts

    def store(self) -> None:
        for number, sealed_at_us, records in self.set.take_journal():
            assert len(records) % RECORD_BYTES == 0
            self.disk[number] = (sealed_at_us, self.disk.get(number, (-1, b""))[1] + bytes(records))
            if self.files is not None and records:
                self.files[number].append(bytes(records))
        for number in self.set.take_retired():
            self.disk.pop(number, None)  # not there if it retired before it was stored
        if self.files is not None:
            self.leave_memory(self.files)

    def leave_memory(self, files: dict[int, SegmentFile]) -> None:
        for number in self.set.sealed_in_memory()[: self.leaving]:
            index = self.indexes[number] = index_of(self.set, number)
            self.set.leave_memory(number, index.where(files[number].descriptor), (files[number], index))

    def restart(self, *, indexes_lost: bool = False) -> None:
        """Everything in memory is lost, and comes back from disk."""
        self.store()
        watermark_us, count = self.set.watermark_us, len(self.set)
        self.set = kernel.FingerprintSet(*self.limits)
        for number, (sealed_at_us, records) in sorted(self.disk.items()):
            chunks, filed = [records], None
            if self.files is not None and records:
                chunks = self.files[number].chunks
                if number in self.indexes and not indexes_lost:
                    index = self.indexes[number]
                    filed = index.places, index.where(self.files[number].descriptor), (self.files[number], index)
            self.set.restore(number, sealed_at_us, len(records) // 24, chunks, filed)
        self.set.restore_watermark(watermark_us)
        assert len(self.set) == count


def cut(rows: Sequence[Row], sizes: Sequence[int]) -> Iterator[Sequence[Row]]:
    bounds = [0, *sorted(min(size, len(rows)) for size in sizes), len(rows)]
    for lo, hi in pairwise(bounds):
        yield rows[lo:hi]


# Fingerprints that are alike where the kernel looks: equal lower halves of the low words stand in one run of entries,
# which equal upper halves do not tell apart; with equal high words they have the same Bloom block and bits too.
POOL = (
    [0, 1, 2, 2**64, 2**64 + 1, 2**128 - 1, 2**127, (2**64 - 1) << 64, 2**64 - 1]
    + [n << 64 | 77 for n in range(6)]
    + [9 << 64 | 5 << 32 | n for n in range(6)]
    + [n << 64 | n << 12 for n in range(6)]
    + [n << 64 | n % 3 << 32 | 77 for n in range(6)]
)
HOURS = st.integers(0, 30)


@st.composite
def streams(draw: st.DrawFn) -> list[Row]:
    """Rows whose times wander forwards, with steps back and now and then a leap."""
    now_us = draw(st.sampled_from([0, 1000]))
    rows = []
    for _ in range(draw(st.integers(0, 60))):
        now_us += draw(st.sampled_from([0, 0, 1, 2, 5, 9, 10, 11, 40]))
        time_us = max(now_us - draw(st.sampled_from([0, 0, 0, 1, 10, 30, 100])), 0)
        rows.append((draw(st.sampled_from(POOL)), draw(st.sampled_from([0, 1, 2**64 + 1, 2**64 - 1])), time_us))
    return rows


LIMITS = st.tuples(
    st.sampled_from([None, 0, 1, 10, 30, 100, 2**62]),
    st.sampled_from([1, 3, 10, 30, 1000]),
    st.sampled_from([1, 2, 3, 7, UNBOUNDED]),
)
CUTS = st.lists(st.integers(0, 60), max_size=6)


@PROPERTY
@given(streams(), LIMITS, CUTS)
def test_kernel_is_oracle(rows: list[Row], limits: tuple[int | None, int, int], cuts: list[int]) -> None:
    truth, tested = DedupOracle(*limits), Kernel(*limits)
    for part in cut(rows, cuts):
        assert tested.judge(part) == truth.judge(part)
        assert tested.set.watermark_us == truth.watermark_us
        assert len(tested.set) == len(truth)
    assert tested.set.take_retired() == [segment.number for segment in truth.retired]


@PROPERTY
@given(streams(), LIMITS, CUTS, CUTS)
def test_verdicts_do_not_depend_on_the_cut(
    rows: list[Row], limits: tuple[int | None, int, int], one: list[int], other: list[int]
) -> None:
    """Not even those of a batch that the watermark crosses a slice in the middle of."""
    sets = [Kernel(*limits), Kernel(*limits)]
    verdicts = [
        [verdict for part in cut(rows, cuts) for verdict in tested.judge(part)]
        for tested, cuts in zip(sets, (one, other), strict=True)
    ]
    assert verdicts[0] == verdicts[1]
    for tested in sets:
        tested.store()
    assert sets[0].disk == sets[1].disk


RESTARTS = st.lists(st.sampled_from(["none", "restart", "restart without indexes"]), min_size=7, max_size=7)


@PROPERTY
@given(streams(), LIMITS, CUTS, RESTARTS, st.booleans(), st.sampled_from([0, 1, 100]))
@example([(0, 0, 5)], (10, 1, 1), [0], ["restart"] * 7, True, 0)
def test_restart_at_any_point(
    rows: list[Row],
    limits: tuple[int | None, int, int],
    cuts: list[int],
    restarts: list[str],
    stored: bool,
    leaving: int,
) -> None:
    truth, tested = DedupOracle(*limits), Kernel(*limits, leaving=leaving)
    for part, restart in zip(cut(rows, cuts), restarts, strict=False):
        if restart != "none":
            tested.restart(indexes_lost=restart == "restart without indexes")
        elif stored:
            tested.store()
        assert tested.judge(part) == truth.judge(part)
    tested.restart()
    # what is on disk is what the oracle holds, segment by segment
    assert {number: (at, _payloads(records)) for number, (at, records) in tested.disk.items() if records} == {
        segment.number: (segment.sealed_at_us, segment.payloads) for segment in truth.segments if segment.payloads
    }
    assert tested.judge(rows) == truth.judge(rows)


def _payloads(records: bytes) -> dict[int, int]:
    return {
        int.from_bytes(records[at : at + 16], "little"): int.from_bytes(records[at + 16 : at + 24], "little")
        for at in range(0, len(records), RECORD_BYTES)
    }


@PROPERTY
@given(streams(), LIMITS, st.data())
def test_selections(rows: list[Row], limits: tuple[int | None, int, int], data: st.DataObject) -> None:
    """Rows that are not selected leave no trace; a selection may be in any order."""
    chosen = data.draw(st.permutations(range(len(rows))))[: data.draw(st.integers(0, len(rows)))]
    truth, tested = DedupOracle(*limits), Kernel(*limits)
    assert tested.judge(rows, chosen) == truth.judge([rows[n] for n in chosen])
    assert len(tested.set) == len(truth)


@PROPERTY
@given(streams(), LIMITS)
def test_all_within_the_horizon_are_caught_and_none_is_dropped(
    rows: list[Row], limits: tuple[int | None, int, int]
) -> None:
    """Without segments at all: what must hold of every verdict, from the arrivals alone."""
    horizon_us, tested = limits[0], Kernel(*limits)
    arrived: dict[int, tuple[int, int]] = {}  # fingerprint -> watermark behind its arrival, payload
    for row in rows:
        fingerprint, payload, time_us = row[0], row[1] % 2**64, row[2]
        before_us = tested.set.watermark_us
        [verdict] = tested.judge([row])
        known = arrived.get(fingerprint)
        if known is None:
            late = horizon_us is not None and time_us < before_us - horizon_us
            assert verdict == (LATE if late else NEW)
        elif horizon_us is None or before_us - known[0] <= horizon_us:
            assert verdict == (DUPLICATE if known[1] == payload else CONFLICTING)
        if verdict == NEW:
            arrived[fingerprint] = (tested.set.watermark_us, payload)


def test_a_duplicate_with_a_new_timestamp() -> None:
    tested = Kernel(100, 10)
    assert tested.judge([(7, 1, 1000), (7, 1, 1050), (7, 1, 500), (7, 2, 1050)]) == [
        NEW,
        DUPLICATE,
        DUPLICATE,
        CONFLICTING,
    ]
    assert tested.set.watermark_us == 1000, "only an accepted event moves the watermark"


def test_exactly_at_the_horizon() -> None:
    tested = Kernel(100, 1000)
    assert tested.judge([(1, 0, 500), (2, 0, 400), (3, 0, 399)]) == [NEW, NEW, LATE]


def test_a_late_event_is_not_remembered() -> None:
    tested = Kernel(100, 1000)
    assert tested.judge([(1, 0, 500), (2, 0, 0), (2, 0, 0), (2, 0, 500)]) == [NEW, LATE, LATE, NEW]


def test_row_28_bloom_only_ever_says_maybe() -> None:
    """Given segments in files, when events come whose Bloom block and bits are those of others, then they are new."""
    tested = Kernel(None, 1, 64, leaving=1000)
    alike = [9 << 64 | 5 << 32 | n for n in range(64 * 20)]
    for first in range(0, len(alike), 200):
        part = [(fingerprint, 0, 0) for fingerprint in alike[first : first + 200]]
        assert tested.judge(part) == [NEW] * len(part)
        tested.store()
    assert tested.judge([(fingerprint, 0, 0) for fingerprint in alike]) == [DUPLICATE] * len(alike)


@pytest.mark.parametrize("leaving", [0, 3, 1000])
def test_many_segments_on_a_larger_scale(leaving: int) -> None:
    rng = random.Random(leaving)
    rows = [(rng.getrandbits(128), rng.getrandbits(64), n) for n in range(40_000)]
    tested = Kernel(None, 1, 200, leaving=leaving)
    for part in cut(rows, [rng.randrange(len(rows)) for _ in range(5)]):
        assert tested.judge(part) == [NEW] * len(part)
        tested.restart()
    again = rng.sample(rows, 10_000)
    assert tested.judge(again) == [DUPLICATE] * len(again)
    assert tested.judge([(f, payload ^ 1, t) for f, payload, t in again]) == [CONFLICTING] * len(again)


@pytest.mark.parametrize("low", [0, 2**64 - 1, 2**64 - 3, 127, 128])
def test_packing_of_runs(low: int) -> None:
    """Given ids whose entries stand in few runs, some of them probed beyond the end of the table, then each is found,
    in its bucket and once."""
    tested = Kernel(None, 1, 3000, leaving=1)
    rows = [(n << 64 | (low + n % 5 * 2**40 - n % 3) % 2**64, n, 0) for n in range(3000)]
    others = [(n << 64 | (low + 6 * 2**40 - n % 3) % 2**64, n, 0) for n in range(500)]
    assert tested.judge(rows) == [NEW] * len(rows)
    assert tested.judge(others) == [NEW] * len(others)
    tested.store()
    [(places, entries, directory, _)] = tested.indexes.values()
    numbers_in_index = entries & np.uint64(2**28 - 1)
    assert sorted(numbers_in_index.tolist()) == list(range(1, 3001))
    homes = (entries >> np.uint64(28)) & np.uint64(places - 1)
    starts = np.searchsorted(homes >> np.uint64(7), np.arange(places // 128 + 1, dtype=np.uint64))
    assert directory.tolist() == starts.tolist()
    assert tested.judge([*rows, *others]) == [DUPLICATE] * 3500


def test_a_chunk_has_a_maximum() -> None:
    """Given more records than a chunk may have, when they leave memory, then each is found in its chunk."""
    count, file = (1 << 20) + 3, SegmentFile()
    words = np.arange(2 * count + 2, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    times, verdicts = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.uint8)
    tested = kernel.FingerprintSet(-1, 1, count)
    addresses = words.ctypes.data, words.ctypes.data, times.ctypes.data, verdicts.ctypes.data
    assert tested.judge(count + 1, 0, *addresses)[0] == count + 1
    for number, _, records in tested.take_journal():
        if number == 1:
            file.append(bytes(records))
    assert [len(chunk) // 24 for chunk in file.chunks] == [1 << 18] * 4 + [3]
    index = index_of(tested, 1)
    tested.leave_memory(1, index.where(file.descriptor), (file, index))
    assert tested.memory_bytes() < 3.1 * count + 40_000
    assert tested.judge(count + 1, 0, *addresses)[1] == count + 1


def test_what_cannot_leave_memory() -> None:
    """Any but the oldest sealed one, one that is in no file, and one that is gone."""
    tested = Kernel(None, 1, 10)
    tested.judge([(n, 0, 0) for n in range(1, 22)])
    for number, reason in ((1, "is not in its files"), (2, "is not the oldest"), (3, "is not the oldest")):
        with pytest.raises(ValueError, match=f"segment {number} {reason}"):
            tested.set.leave_memory(number, (0, 0, 0, 0), None)
    with pytest.raises(ValueError, match="segment 2 is not the oldest that is sealed and in memory"):
        tested.set.packed(2)
    with pytest.raises(ValueError, match="there is no segment 4"):
        tested.set.packed(4)
    assert tested.set.sealed_in_memory() == [1, 2]


@pytest.mark.parametrize("count", [3071, 3072, 3073, 6144, 6145, 50_000])
def test_growth_of_a_table(count: int) -> None:
    """An index doubles when it is 3/4 full; the last of these fall into few lines, which makes long runs."""
    tested = Kernel(None, 1)
    rows = [(n << 64 | n % 64 << 40 | n % 8, n, 0) for n in range(1, count // 8)] if count == 50_000 else []
    rows = rows or [(n << 64 | n * 2654435761 % 2**64, n, 0) for n in range(1, count + 1)]
    assert tested.judge(rows) == [NEW] * len(rows)
    assert tested.judge(rows) == [DUPLICATE] * len(rows)
    tested.restart()
    assert tested.judge(rows) == [DUPLICATE] * len(rows)


@pytest.mark.parametrize("leaving", [0, 1000])
def test_memory_is_what_the_header_says(leaving: int) -> None:
    """An id in memory takes 24 bytes and 11 to 22 in the index, one in files 3... and no less."""
    tested = Kernel(None, 1, 5000, leaving=leaving)
    assert tested.set.memory_bytes() == 0
    count = 100_000
    rng = random.Random(0)
    tested.judge([(rng.getrandbits(128), 0, 0) for _ in range(count + 1)])
    tested.store()
    least, most = (3, 3.1) if leaving else (24 + 8 * 4 / 3, 24 + 16 * 4 / 3)
    assert least * count <= tested.set.memory_bytes() <= most * count + 4096 * 8 + 100


def test_few_new_ids_pass_a_filter() -> None:
    """24 bits an id let 1 in 10,000 through; a filter whose bits were not spread would let far more."""
    tested = Kernel(None, 1, 60_000, leaving=1)
    rng = random.Random(1)
    tested.judge([(rng.getrandbits(128), 0, 0) for _ in range(60_001)])
    tested.store()
    lookups, passed, _ = tested.set.filtering()
    tested.judge([(rng.getrandbits(128), 0, 0) for _ in range(59_000)])
    more_lookups, more_passed, found = tested.set.filtering()
    assert more_lookups - lookups == 59_000
    assert more_passed - passed <= 30 and found == 0


def test_filters_say_what_they_were_asked() -> None:
    """Given a segment of 64 in files, when 64 new ones and 3 old ones come, then nothing old is called new."""
    tested = Kernel(None, 1, 64, leaving=1)
    old = [(n << 64 | n << 32, 0, 0) for n in range(1, 65)]
    tested.judge(old)
    assert tested.set.filtering() == (0, 0, 0)
    alike = [(n << 64 | n << 32 | 1, 0, 0) for n in range(1, 65)]  # with the bits of the old ones: all pass
    tested.judge(alike[:1])
    tested.store()
    assert tested.set.filtering() == (0, 0, 0)
    tested.judge(alike[1:2])
    assert tested.set.filtering() == (1, 1, 0)
    tested.judge([*old[:3], (99 << 64 | 1 << 63, 0, 0)])
    lookups, passed, found = tested.set.filtering()
    assert (lookups, found) == (1 + 4, 3)
    assert found <= passed - 1 <= found + 1


@pytest.mark.parametrize("few_lines", [False, True])
def test_what_retired_makes_room(few_lines: bool) -> None:
    """Given a horizon of few ids, when many pass through it, then their entries go when the table is full, which does
    not grow, and ids that come again after they retired are new."""
    tested, truth = Kernel(1000, 100), DedupOracle(1000, 100)
    rng = random.Random(2)
    pool = [n << 64 | (n % 7 << 36 | n % 3 if few_lines else rng.getrandbits(64)) for n in range(9000)]
    rows = [(rng.choice(pool), 0, n) for n in range(60_000)]
    for part in cut(rows, range(0, 60_000, 7000)):
        assert tested.judge(part) == truth.judge(part)
        tested.store()
    assert truth.retired and len(tested.set) == len(truth)
    assert tested.set.memory_bytes() < 24 * len(truth) + 8 * 4096 + 4 * 1280


def test_an_index_that_ids_pass_through_does_not_grow() -> None:
    """Given 1,700 ids within the horizon and room for 3,072, when ten times as many pass through, then entries of those
    that are gone have given way."""
    tested, truth = Kernel(1700, 100), DedupOracle(1700, 100)
    rng = random.Random(3)
    rows = [(rng.getrandbits(128), 0, n) for n in range(60_000)]
    for part in cut(rows, range(0, 60_000, 5000)):
        assert tested.judge(part) == truth.judge(part)
        tested.store()
    assert 1700 <= len(tested.set) <= 1900
    assert tested.set.memory_bytes() - 24 * len(tested.set) - 8 * 4096 <= 4 * 1280


@pytest.mark.parametrize("first", [6, 8, 19])
def test_an_entry_that_gave_way_hides_none_behind_it(first: int) -> None:
    """Given ids of one line, some of whose records are gone, when a new one takes the place of one of those, then what
    stands in the lines behind it is known still, and it is itself."""
    tested, truth = Kernel(100, 10), DedupOracle(100, 10)
    ids = [n << 64 | n << 20 | 5 for n in range(1, 60)]
    gone, held, new = ids[:first], ids[first : first + 17], ids[first + 17 :]
    steps = [(gone, 0), (held, 60), ([98 << 64], 115), ([99 << 64], 125), (held, 125), (new[:3], 126), (held, 126)]
    for some, time_us in [*steps, (gone, 127), (ids, 128)]:
        rows = [(one, 0, time_us) for one in some]
        assert tested.judge(rows) == truth.judge(rows)
        tested.store()
    assert len(truth.retired) == 1


def test_blocks_are_filled_again() -> None:
    """Given a horizon of two blocks of records, when eight pass through it, then all are told apart, and memory is
    that of what is within the horizon once `release` was asked for it."""
    block, times = 1 << 18, np.arange(1 << 19, dtype=np.int64)
    tested = kernel.FingerprintSet(2 * block, block // 4)
    verdicts = np.zeros(2 * block, np.uint8)
    for turn in range(4):
        words = np.arange(4 * block, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(turn << 40 | 1)
        at = times + 2 * block * turn
        given_rows = words.ctypes.data, words.ctypes.data, at.ctypes.data, verdicts.ctypes.data
        assert tested.judge(2 * block, 0, *given_rows) == (2 * block, 0, 0, 0)
        assert tested.judge(2 * block, 0, *given_rows) == (0, 2 * block, 0, 0)
        list(tested.take_journal())
    tested.release(0)
    assert tested.memory_bytes() < 24 * len(tested) + 8 * 2**21 + 1000


def test_what_retired_can_be_read_until_it_is_let_go() -> None:
    """Given segments of several blocks, when each is read only once the next retires, then it still has its records,
    although others were learnt meanwhile, and their memory counts until it is let go."""
    block, seen = 1 << 18, []
    waiting: list[tuple[int, Iterator[memoryview]]] = []

    def retiring(number: int, sealed_at_us: int, ids: int, records: Iterator[memoryview]) -> None:
        read()
        assert ids == 3 * block
        waiting.append((number, records))

    def read() -> None:
        while waiting:
            number, records = waiting.pop()
            content = np.frombuffer(b"".join(map(bytes, records)), np.uint64).reshape(-1, 3)
            assert content[:, 0].tolist() == words(number)[::2].tolist(), number
            assert content[:, 1].tolist() == words(number)[1::2].tolist(), number
            seen.append(number)

    def words(number: int) -> np.ndarray:
        return np.arange(6 * block, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(number << 40 | 1)

    def judge(number: int) -> None:
        given, at = words(number), np.full(3 * block, 10 * number, np.int64)
        given_rows = given.ctypes.data, given.ctypes.data, at.ctypes.data, verdicts.ctypes.data
        assert tested.judge(3 * block, 0, *given_rows) == (3 * block, 0, 0, 0)

    tested = kernel.FingerprintSet(15, 10, 1 << 26, retiring)
    verdicts = np.zeros(3 * block, np.uint8)
    for number in range(1, 8):
        judge(number)
    assert seen == [1, 2, 3] and [number for number, _ in waiting] == [4]
    before = tested.memory_bytes()
    with pytest.raises(ValueError, match="only when `let_go` was called"):
        tested.packed(5)
    read()
    tested.let_go()
    assert before - tested.memory_bytes() == 3 * block * RECORD_BYTES
    assert tested.packed(5)[0] > 0


def test_too_many_segments_is_an_error() -> None:
    tested = Kernel(None, 1, 1)
    tested.judge([(n, 0, 0) for n in range(1, 1281)])
    with pytest.raises(MemoryError, match="more than 1280 segments of fingerprints"):
        tested.judge([(1281, 0, 0)])


def test_as_many_generations_as_a_config_may_ask_for() -> None:
    """Given 1000 generations, when time passes the horizon twice, then segments retire before there are too many."""
    tested, truth = Kernel(1000, 1), DedupOracle(1000, 1)
    rows = [(n + 1, 0, n) for n in range(2500)]
    assert tested.judge(rows) == truth.judge(rows) == [NEW] * len(rows)
    assert tested.set.take_retired() == [segment.number for segment in truth.retired]
    assert len(tested.set) == len(truth)


def test_restore_refuses_what_it_cannot_go_on_from() -> None:
    record = bytes(range(24))
    with pytest.raises(ValueError, match="must be whole"):
        kernel.FingerprintSet(-1, 1).restore(1, -1, 1, [record[:-1]])
    tested = kernel.FingerprintSet(-1, 1)
    tested.restore(1, -1, 1, [record])
    with pytest.raises(ValueError, match="oldest first"):
        tested.restore(2, -1, 1, [record])


def test_restore_without_an_active_segment() -> None:
    """Given only sealed segments, when events come, then they go into a segment of their own and the sealed stay so."""
    tested = Kernel(100, 10)
    tested.set.restore(4, 500, 1, [(7).to_bytes(16, "little") + bytes(8)])
    tested.set.restore_watermark(500)
    assert tested.judge([(7, 0, 500), (8, 0, 500)]) == [DUPLICATE, NEW]
    tested.store()
    assert {number: at for number, (at, _) in tested.disk.items()} == {5: -1}


def test_the_wrapper_gives_selections_of_the_batch() -> None:
    events = event_batch([plain_event(event_time_us=time_us) for time_us in (1000, 1000, 1000, 0, 1000)])
    identity = Identity(wide([1, 1, 2, 3, 2]), wide([1, 1, 1, 1, 2]), wide([0] * 5))
    tested = FingerprintSet(100, 10)
    routed = judged(events, [4, 3, 2, 1, 0], identity).routed
    verdicts = tested.judge(identity, events.column("event_time_us"), routed.rows, routed.count)
    assert numbers(verdicts.accepted, 4) == [4, 1]
    assert numbers(verdicts.conflicting, 4) == [2]
    assert numbers(verdicts.late, 4) == [3]
    assert (verdicts.accepted_count, verdicts.duplicate_count) == (2, 1)
    assert (verdicts.conflicting_count, verdicts.late_count) == (1, 1)
    assert (len(tested), tested.watermark_us) == (2, 1000)
    assert [(number, at, len(records)) for number, at, records in tested.take_journal()] == [(1, -1, 48)]
    assert [(number, at, len(records)) for number, at, records in tested.take_journal()] == [(1, -1, 0)]


@pytest.mark.parametrize("slice_us", [0, -1])
def test_a_slice_has_a_length(slice_us: int) -> None:
    with pytest.raises(ValueError, match="slice_us must be positive"):
        FingerprintSet(None, slice_us)


@pytest.mark.parametrize("ids", [0, -1, (1 << 28) - 1])
def test_a_segment_holds_what_an_entry_can_number(ids: int) -> None:
    with pytest.raises(ValueError, match=r"segment_ids_max must be positive and below 2\^28 - 1"):
        kernel.FingerprintSet(-1, 1, ids)
    with pytest.raises(ValueError, match=r"less than 2\^28 - 1 records"):
        kernel.FingerprintSet(-1, 1).restore(1, -1, (1 << 28) - 1, [])
