"""Last snapshots from a recovery store of two parts, in the tables that Bytewax keeps; and from damaged ones."""

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flow.errors import StateError
from flow.state.recovered import last_snapshots

Snap = tuple[int, str, bytes | None]
"""Epoch, key, what is kept."""
COMMITTED = 5
WHOLE = pickle.dumps(b"a manifest, and what it says")


def part(folder: Path, number: int, *snaps: Snap) -> Path:
    """Everything before the epoch COMMITTED is; one worker a part has reached it."""
    path = folder / f"part-{number}.sqlite3"
    with closing(sqlite3.connect(path)) as store, store:
        store.execute("CREATE TABLE exs (ex_num, worker_count, resume_epoch)")
        store.execute("CREATE TABLE fronts (ex_num, worker_index, worker_frontier)")
        store.execute("CREATE TABLE snaps (step_id, state_key, snap_epoch, ser_change)")
        if number == 0:
            store.execute("INSERT INTO exs VALUES (0, 2, 1)")
        store.execute("INSERT INTO fronts VALUES (0, ?, ?)", (number, COMMITTED + number))
        rows = [("outbox", key, epoch, kept) for epoch, key, kept in snaps]
        store.executemany("INSERT INTO snaps VALUES (?, ?, ?, ?)", [*rows, ("another", "a", 4, pickle.dumps(1))])
    return path


def test_the_last_that_are_committed(tmp_path: Path) -> None:
    old, new = (pickle.dumps(text) for text in (b"old", b"new"))
    part(tmp_path, 0, (4, "a", new), (3, "a", old), (COMMITTED, "a", b"not looked at"), (2, "gone", old))
    part(tmp_path, 1, (1, "b", old), (4, "gone", None))
    assert last_snapshots(tmp_path, "outbox") == {"a": b"new", "b": b"old"}
    assert last_snapshots(tmp_path / "absent", "outbox") == {}


@pytest.mark.parametrize(
    "kept",
    [
        pytest.param(WHOLE[:length], id=f"cut after {length} bytes")
        for length in (0, 1, 2, 12, 14, len(WHOLE) - 2, len(WHOLE) - 1)
    ]
    + [
        pytest.param(b"\xff" + WHOLE[1:], id="no pickle"),
        pytest.param(b"cabsent\nname\n.", id="an import"),
        pytest.param(b"\x80\x04\x8c\x02\xff\xff.", id="no UTF-8"),
        pytest.param(b"\x80\x04h\x05.", id="refers to nothing"),
        pytest.param(pickle.dumps("text"), id="another type"),
    ],
)
def test_a_damaged_snapshot_is_told_with_its_file(tmp_path: Path, kept: bytes) -> None:
    part(tmp_path, 0, (4, "a", WHOLE))
    path = part(tmp_path, 1, (3, "b", kept))
    with pytest.raises(StateError) as told:
        last_snapshots(tmp_path, "outbox")
    assert str(told.value).startswith(f"{path}: cannot be read (")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    part(tmp_path, 0, (4, "a", WHOLE))
    path = tmp_path / "part-1.sqlite3"
    path.write_bytes(b"nothing that SQLite knows" * 100)
    with pytest.raises(StateError) as told:
        last_snapshots(tmp_path, "outbox")
    assert str(told.value) == f"{path}: cannot be read (file is not a database); see whether the disk is well"
    path.unlink()
    path.symlink_to("absent")
    with pytest.raises(StateError, match=r"part-1\.sqlite3: cannot be read \(unable to open"):
        last_snapshots(tmp_path, "outbox")
