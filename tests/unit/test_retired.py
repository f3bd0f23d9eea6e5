"""Goal: every generation that the horizon has passed leaves the filter of what it had, however it went.

Method: a Deduplicator whose generations retire, against the oracle's segments and pybloom_live; restarted from its
manifests, and with files that were damaged or lost.
"""

import gc
import random
import weakref
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest
from pybloom_live import BloomFilter
from tests.oracle.batches import wide
from tests.oracle.dedup import DedupOracle, Row
from tests.oracle.retired import filter_of
from tests.unit.test_segments import expected, judged, shard

from flow.errors import StateError
from flow.state.beside import Beside
from flow.state.retired import ERROR_RATE, RetiredFilters, sizing
from flow.steps.deduplicate import Deduplicator

HORIZON_US, GENERATIONS = 100, 2
FEW_BYTES = 46_400
"""Memory for which segments are on disk before they retire."""
MUCH = 1 << 30


def rows_from(first_us: int, until_us: int) -> list[Row]:
    """Twenty new fingerprints every ten microseconds, and ten that come again."""
    rng = random.Random(first_us)
    rows = []
    for time_us in range(first_us, until_us, 10):
        fresh = [(rng.getrandbits(128), 0, time_us) for _ in range(20)]
        rows += [*fresh, *fresh[:10]]
    return rows


def filters(folder: Path) -> dict[int, bytes]:
    """By segment, the files."""
    return {int(path.name.split("-")[1]): path.read_bytes() for path in folder.glob("retired-*")}


def truths(oracle: DedupOracle, folder: Path) -> dict[int, bytes]:
    """What `filters` has to be, by pybloom_live."""
    found = {}
    for segment in oracle.retired:
        path = folder / f"truth-{segment.number}"
        with path.open("wb") as file:
            filter_of(segment.payloads, len(segment.payloads), ERROR_RATE).tofile(file)
        found[segment.number] = path.read_bytes()
    return found


def asked(folder: Path, *prints: int) -> tuple[list[int], int, bool]:
    found = RetiredFilters(folder).ask(bytes(wide(prints)))
    return list(found.perhaps), found.filters, found.complete


def judge(tested: Deduplicator, oracle: DedupOracle, rows: list[Row], size: int) -> None:
    for first in range(0, len(rows), size):
        part = rows[first : first + size]
        assert judged(tested, part) == expected(oracle, part)


def test_sizes_are_those_of_pybloom_live() -> None:
    rng = random.Random(2)
    for ids in [*range(1, 300), *(rng.randrange(1, 1 << rng.randrange(9, 22)) for _ in range(60))]:
        bloom = BloomFilter(ids, ERROR_RATE)
        assert sizing(ids) == (bloom.num_slices, bloom.bits_per_slice), ids


@pytest.mark.parametrize("memory", [FEW_BYTES, MUCH], ids=["on disk", "in memory"])
@pytest.mark.parametrize("snapshots", [1, 1000], ids=["within an epoch", "later"])
@pytest.mark.parametrize("size", [30, 700])
@pytest.mark.parametrize("ahead", [0, 1], ids=["at once", "beside"])
def test_each_leaves_the_filter_of_what_it_had(
    tmp_path: Path, memory: int, snapshots: int, size: int, ahead: int
) -> None:
    """Also one that was sealed, and passed by the horizon, within one epoch, and that was never written."""
    folder, beside = tmp_path / "shard", Beside(ahead)
    tested = shard(folder, horizon_us=HORIZON_US, generations=GENERATIONS, memory=memory, beside=beside)
    oracle = DedupOracle(HORIZON_US, HORIZON_US // GENERATIONS)
    rows = rows_from(0, 1000)
    for first in range(0, len(rows), len(rows) // snapshots + 1):
        judge(tested, oracle, rows[first : first + len(rows) // snapshots + 1], size)
        tested.snapshot()
    beside.end()
    assert len(oracle.retired) > 10
    assert filters(folder) == truths(oracle, tmp_path)
    for path in folder.glob("retired-*"):
        with path.open("rb") as file:
            assert len(BloomFilter.fromfile(file)) == 100
    ever = [fingerprint for segment in oracle.retired for fingerprint in segment.payloads]
    assert asked(folder, *ever, 1) == ([1] * len(ever) + [0], len(oracle.retired), True)


def test_a_snapshot_waits_for_filters_and_says_what_went_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given filters that are made beside the dataflow, when one fails, then no snapshot is made without it."""
    go_on, leave = Event(), RetiredFilters.leave

    def slow(self: RetiredFilters, *given: Any) -> None:
        assert go_on.wait(20)
        leave(self, *given)

    monkeypatch.setattr(RetiredFilters, "leave", slow)
    beside = Beside(1)
    tested = shard(tmp_path, horizon_us=HORIZON_US, generations=GENERATIONS, beside=beside)
    judged(tested, rows_from(0, 210))
    assert filters(tmp_path) == {}
    Timer(0.05, go_on.set).start()
    tested.snapshot()
    assert sorted(filters(tmp_path)) == [1]
    monkeypatch.setattr(RetiredFilters, "leave", full)
    judged(tested, rows_from(210, 260))
    for _ in range(2):
        with pytest.raises(StateError, match="the disk is full"):
            tested.snapshot()
    beside.end()


def full(self: RetiredFilters, *given: Any) -> None:
    raise StateError("the disk is full")


def test_what_a_snapshot_still_has_is_not_retired(tmp_path: Path) -> None:
    """Given generations that retired in an epoch that was lost, when the job resumes, then their filters go, and come
    back with what they have by then."""
    folder = tmp_path / "shard"
    tested = shard(folder, horizon_us=HORIZON_US, generations=GENERATIONS)
    oracle = DedupOracle(HORIZON_US, HORIZON_US // GENERATIONS)
    judge(tested, oracle, rows_from(0, 400), 700)
    manifest = tested.snapshot()
    kept = filters(folder)
    assert kept == truths(oracle, tmp_path) and kept
    judged(tested, rows_from(401, 800))  # which is lost
    (folder / "retired-00000099-1-00000000.bloom.tmp").write_bytes(b"half a file")
    assert len(filters(folder)) > len(kept) + 1
    again = shard(folder, manifest, horizon_us=HORIZON_US, generations=GENERATIONS)
    assert filters(folder) == kept
    judge(again, oracle, rows_from(400, 900), 700)
    assert filters(folder) == truths(oracle, tmp_path) and len(oracle.retired) > len(kept)


def test_a_filter_that_is_missing_leaves_nothing_certain(tmp_path: Path) -> None:
    tested = shard(tmp_path, horizon_us=HORIZON_US, generations=GENERATIONS)
    rows = rows_from(0, 400)
    judged(tested, rows)
    tested.snapshot()
    first, *_ = sorted(tmp_path.glob("retired-*"))
    known = rows[0][0]
    assert asked(tmp_path, known, 1)[::2] == ([1, 0], True)
    content = first.read_bytes()
    first.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(StateError, match=rf"{first.name}: damaged \(checksum\)"):
        asked(tmp_path, known)
    first.unlink()
    assert asked(tmp_path, known, 1)[::2] == ([0, 0], False)
    assert asked(tmp_path / "nowhere", known) == ([0], 0, False)


def test_filters_are_kept_for_as_long_as_is_asked(tmp_path: Path) -> None:
    tested = Deduplicator("shard-000", tmp_path, HORIZON_US, GENERATIONS, MUCH, 300)
    tested.start_empty()
    oracle = DedupOracle(HORIZON_US, HORIZON_US // GENERATIONS)
    judge(tested, oracle, rows_from(0, 1000), 30)
    tested.snapshot()
    kept = [segment.number for segment in oracle.retired if segment.sealed_at_us >= oracle.watermark_us - 300]
    assert sorted(filters(tmp_path)) == kept and 1 not in kept and len(kept) > 2
    assert asked(tmp_path, 1) == ([0], len(kept), False)


def test_fingerprints_are_given_back_with_their_shard(tmp_path: Path) -> None:
    """They are most of a job's memory, and the end of a run needs it: not only once the garbage collector comes by."""
    tested = shard(tmp_path, horizon_us=HORIZON_US, generations=GENERATIONS)
    judged(tested, rows_from(0, 400))
    gone = weakref.ref(tested)
    gc.disable()
    try:
        del tested
        assert gone() is None
    finally:
        gc.enable()
