"""Goal: what of a shard is on disk is read there as exactly as in memory, and not believed where it is not whole.

Method: a Deduplicator whose segments hold few ids, against the oracle, restarted from its manifests.
"""

import os
import random
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from tests.oracle.batches import wide
from tests.oracle.dedup import DedupOracle, Row

from flow.errors import StateError
from flow.kernels import Identity
from flow.kernels.fingerprints import RECORDS_MAX, SEGMENT_IDS_MAX, FingerprintSet
from flow.state.beside import Beside
from flow.state.opened import OpenedFile
from flow.steps import deduplicate
from flow.steps.batches import Rejects
from flow.steps.deduplicate import Deduplicator, segment_ids_max
from flow.steps.route import Routed

MEMORY = 226_200
"""So little that a segment leaves memory soon after it is sealed."""
IDS_MAX = 4096


def shard(
    folder: Path,
    manifest: dict[str, Any] | None = None,
    horizon_us: int | None = None,
    generations: int = 1,
    memory: int = MEMORY,
    beside: Beside | None = None,
) -> Deduplicator:
    made = Deduplicator("shard-000", folder, horizon_us, generations, memory, beside=beside)
    made.append_records = 1500
    if manifest is None:
        made.start_empty()
    else:
        made.resume(manifest)
    return made


def judged(tested: Deduplicator, rows: Sequence[Row]) -> list[int]:
    """How many were new, duplicate, conflicting and late."""
    events = pa.RecordBatch.from_arrays([pa.array([row[2] for row in rows], pa.int64())], ["event_time_us"])
    identity = Identity(wide(row[0] for row in rows), wide(row[1] for row in rows), wide([0] * len(rows)))
    found = tested.judge(Routed("shard-000", "", events, identity, None, len(rows), Rejects("").batch())).verdicts
    return [found.accepted_count, found.duplicate_count, found.conflicting_count, found.late_count]


def parts(rows: Sequence[Row], size: int = 700) -> list[Sequence[Row]]:
    return [rows[first : first + size] for first in range(0, len(rows), size)]


def expected(oracle: DedupOracle, rows: Sequence[Row]) -> list[int]:
    verdicts = oracle.judge(rows)
    return [verdicts.count(verdict) for verdict in range(4)]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    """Two segments full and a third begun, and a tenth of repeats from anywhere before."""
    rng = random.Random(5)
    fresh = [(rng.getrandbits(128), rng.getrandbits(64), 1000 + n) for n in range(9000)]
    repeats = [fresh[rng.randrange(n + 1)] for n in range(0, len(fresh), 10)]
    changed = [(f, payload ^ (n % 2), t) for n, (f, payload, t) in enumerate(repeats)]
    return [row for n, row in enumerate(fresh) for row in (row, *changed[n // 10 : n // 10 + (n % 10 == 0)])]


def filled(folder: Path, rows: Sequence[Row]) -> tuple[Deduplicator, DedupOracle]:
    tested, oracle = shard(folder), DedupOracle(None, 1, IDS_MAX)
    for part in parts(rows):
        assert judged(tested, part) == expected(oracle, part)
    return tested, oracle


def test_no_more_ids_a_segment_than_memory_is_for() -> None:
    assert segment_ids_max(MEMORY) == IDS_MAX
    assert segment_ids_max(1 << 30) == (1 << 30) * 3 // 8 // 48
    assert segment_ids_max(1 << 40) == 1 << 26


def test_what_is_on_disk_leaves_memory(tmp_path: Path, rows: list[Row]) -> None:
    tested, _ = filled(tmp_path, rows)
    manifest = tested.snapshot()
    assert [segment["sealed_at_us"] >= 0 for segment in manifest["segments"]] == [True, True, False]
    assert tested.memory_bytes <= MEMORY * 13 // 16
    assert tested._fingerprints.sealed_in_memory() == []
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".fps", ".fps", ".fps", ".idx", ".idx"]


Damage = Callable[[Path, Path], object]
"""To the index of the first segment, given that of the second."""
DAMAGES: dict[str, Damage] = {
    "whole": lambda first, second: None,
    "missing": lambda first, second: first.unlink(),
    "empty": lambda first, second: first.write_bytes(b""),
    "cut": lambda first, second: first.write_bytes(first.read_bytes()[:-1]),
    "longer": lambda first, second: first.write_bytes(first.read_bytes() + b"\0"),
    "of another segment": lambda first, second: first.write_bytes(second.read_bytes()),
    "a bit of the head": lambda first, second: first.write_bytes(flipped(first.read_bytes(), 8)),
    "a bit of an entry": lambda first, second: first.write_bytes(flipped(first.read_bytes(), 5000)),
    "a bit of the directory": lambda first, second: first.write_bytes(flipped(first.read_bytes(), -1)),
}


def flipped(content: bytes, place: int) -> bytes:
    changed = bytearray(content)
    changed[place] ^= 1
    return bytes(changed)


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_index_that_cannot_be_trusted_is_made_anew(tmp_path: Path, rows: list[Row], damage: str) -> None:
    tested, oracle = filled(tmp_path, rows)
    manifest = tested.snapshot()
    indexes = sorted(tmp_path.glob("*.idx"))
    before = [path.read_bytes() for path in indexes]
    DAMAGES[damage](*indexes)
    again = shard(tmp_path, manifest)
    assert [path.read_bytes() for path in indexes] == before
    assert judged(again, rows) == expected(oracle, rows)
    assert again.snapshot() == manifest


def test_a_stale_index_of_a_life_that_was_not_committed(tmp_path: Path, rows: list[Row]) -> None:
    """Given a segment that was sealed with other records after the last snapshot, when the job resumes, then the index
    of those goes, and is not taken for the index of the segment as it is sealed now."""
    tested = shard(tmp_path)
    judged(tested, rows[:1000])
    manifest = tested.snapshot()
    judged(tested, rows[1000:8000])
    assert list(tmp_path.glob("*.idx"))
    again, oracle = shard(tmp_path, manifest), DedupOracle(None, 1, IDS_MAX)
    oracle.judge(rows[:1000])
    others = rows[:500] + rows[6000:]
    assert judged(again, others) == expected(oracle, others)
    later = shard(tmp_path, again.snapshot())
    assert judged(later, rows) == expected(oracle, rows)


def test_an_index_of_a_later_life_beside_an_earlier_snapshot(tmp_path: Path, rows: list[Row]) -> None:
    """Given an index of as many other records that a crash left behind, then it does not fit the segment's checksum."""
    tested, _ = filled(tmp_path / "other", [(f ^ 1, p, t) for f, p, t in rows])
    tested.snapshot()
    tested, oracle = filled(tmp_path / "ours", rows)
    manifest = tested.snapshot()
    for path in (tmp_path / "other").glob("*.idx"):
        path.rename(tmp_path / "ours" / path.name)
    assert judged(shard(tmp_path / "ours", manifest), rows) == expected(oracle, rows)


def test_a_manifest_of_a_version_without_checksums(tmp_path: Path, rows: list[Row]) -> None:
    tested, oracle = filled(tmp_path, rows)
    manifest = tested.snapshot()
    for path in tmp_path.glob("*.idx"):
        path.unlink()
    old = [{key: value for key, value in segment.items() if key != "checksum"} for segment in manifest["segments"]]
    again = shard(tmp_path, manifest | {"segments": old})
    assert judged(again, rows) == expected(oracle, rows)
    assert again.snapshot() == manifest


def test_records_that_are_whole_and_not_those_that_are_recorded(tmp_path: Path, rows: list[Row]) -> None:
    tested, _ = filled(tmp_path, rows)
    manifest = tested.snapshot()
    manifest["segments"][1]["checksum"] ^= 1
    with pytest.raises(StateError, match=r"segment-00000002.fps: other records than are recorded; restore it"):
        shard(tmp_path, manifest)


def test_the_index_of_a_retired_segment_goes_with_it(tmp_path: Path) -> None:
    """A segment's files are deleted once a snapshot without it is durable, which is when the next one is asked for."""
    tested, oracle = shard(tmp_path, horizon_us=100, generations=2, memory=46_400), DedupOracle(100, 50)
    ever = set()
    for time_us in range(0, 1000, 10):
        part = [(time_us << 64 | time_us + n % 20, 0, time_us) for n in range(30)]
        assert judged(tested, part) == expected(oracle, part)
        manifest = tested.snapshot()
        ever |= {path.stem for path in tmp_path.glob("*.idx")}
    tested.snapshot()
    named = {f"segment-{segment['number']:08d}" for segment in manifest["segments"]}
    assert {path.stem for path in tmp_path.glob("*.fps")} == named
    assert {path.stem for path in tmp_path.glob("*.idx")} < named and len(ever) > 5


def test_filters_that_are_too_much_for_the_memory(tmp_path: Path, rows: list[Row]) -> None:
    """Given a bound for one filter at most, when more is needed, then the job stops; with more memory it goes on."""
    tested = shard(tmp_path, memory=203_600)
    with pytest.raises(StateError, match=r"shard-000: .* fingerprints take .* dedup.memory_max; raise it, or shorten"):
        for part in parts(rows, 200):
            judged(tested, part)
            manifest = tested.snapshot()
    known = manifest["fingerprints"]
    assert known > IDS_MAX
    learnt = set(islice(dict.fromkeys(row[0] for row in rows), known))
    again = shard(tmp_path, manifest)
    assert judged(again, [row for row in rows if row[0] in learnt])[0] == 0


def test_segments_stay_in_memory_while_there_is_room(tmp_path: Path, rows: list[Row]) -> None:
    """Given memory for all, then nothing leaves; with less of it, the oldest leave at the next start, and stay out."""
    tested, oracle = shard(tmp_path, memory=1 << 30), DedupOracle(None, 1)
    tested._fingerprints = FingerprintSet(None, 1, IDS_MAX)
    for part in parts(rows):
        assert judged(tested, part) == expected(oracle, part)
    manifest = tested.snapshot()
    assert tested._fingerprints.sealed_in_memory() == [1, 2] and not list(tmp_path.glob("*.idx"))
    for memory, left in ((330_000, [1]), (1 << 30, [1]), (MEMORY, [1, 2])):
        again = shard(tmp_path, manifest, memory=memory)
        assert judged(again, rows) == expected(oracle, rows)
        assert sorted(path.stem for path in tmp_path.glob("*.idx")) == [f"segment-{n:08d}" for n in left]


def test_no_more_in_memory_than_an_index_can_number(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much memory there is: as while judging, so at a start."""
    assert deduplicate.IN_MEMORY_MAX + 2 * SEGMENT_IDS_MAX == RECORDS_MAX < 2**29
    monkeypatch.setattr(deduplicate, "IN_MEMORY_MAX", 5000)
    tested, oracle = shard(tmp_path, memory=1 << 30), DedupOracle(None, 1)
    tested._fingerprints = FingerprintSet(None, 1, IDS_MAX)
    for part in parts(rows):
        assert judged(tested, part) == expected(oracle, part)
    for deduplicator in (tested, shard(tmp_path, tested.snapshot(), memory=1 << 30)):
        assert deduplicator._fingerprints.records_in_memory <= 5000
        assert judged(deduplicator, rows) == expected(oracle, rows)


@pytest.mark.parametrize("suffix", ["fps", "idx"])
def test_a_file_that_cannot_be_read_any_more(tmp_path: Path, rows: list[Row], suffix: str) -> None:
    """Given a segment on disk whose file fails while the job runs, then the job stops, and names the segment."""
    tested, _ = filled(tmp_path, rows)
    os.truncate(tmp_path / f"segment-00000001.{suffix}", 5000)
    with pytest.raises(StateError, match=r"segment-00000001.fps: cannot read: Input/output error"):
        judged(tested, rows)


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"segment: cannot open: No such file"):
        OpenedFile(tmp_path / "segment")
