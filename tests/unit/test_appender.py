"""Appending around the page cache: the file is what was given, whatever the file system can do."""

import errno
import fcntl
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from flow.errors import StateError
from flow.state import appender
from flow.state.appender import BLOCK_BYTES, Appender

ROOM = 4 * BLOCK_BYTES
LENGTHS = st.one_of(st.integers(0, 3 * ROOM), st.sampled_from([0, 1, BLOCK_BYTES, ROOM - 1, ROOM, ROOM + 1, 2 * ROOM]))


@pytest.fixture(autouse=True)
def small_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "ROOM_BYTES", ROOM)


def given_bytes(length: int, seed: int) -> bytes:
    return bytes((seed + n * n) & 255 for n in range(length))


@given(epochs=st.lists(st.tuples(st.lists(LENGTHS, max_size=4), st.booleans()), min_size=1, max_size=5))
@example(epochs=[([ROOM], False), ([1], True), ([ROOM], False), ([ROOM - 1, 1, 1], False)])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_is_what_was_given(tmp_path: Path, epochs: list[tuple[list[int], bool]]) -> None:
    """Given pieces of any length, when each epoch ends with a sync, some with a restart, then nothing else is there."""
    path = tmp_path / "file"
    path.unlink(missing_ok=True)
    end, whole = Appender(path), b""
    for number, (lengths, restart) in enumerate(epochs):
        for length in lengths:
            piece = given_bytes(length, number)
            assert end.write(piece) == length
            whole += piece
            assert (end.length, end.crc32) == (len(whole), crc32(whole))
        end.sync()
        assert path.read_bytes() == whole
        if restart:
            end = Appender(path, len(whole), crc32(whole))


def test_what_was_not_committed_is_cut_off_and_written_again(tmp_path: Path) -> None:
    """Given an epoch that was never synced, when the file is cut back, then it goes on from the last sync."""
    path, first, lost, second = tmp_path / "file", *(given_bytes(2 * ROOM + n, n) for n in (5, 70, 900))
    end = Appender(path)
    end.write(first)
    end.sync()
    end.write(lost)
    end._wait()
    assert path.stat().st_size > len(first)
    os.truncate(path, len(first))
    again = Appender(path, len(first), crc32(first))
    again.write(second)
    again.sync()
    assert path.read_bytes() == first + second
    assert again.crc32 == crc32(first + second)


def test_large_pieces_go_around_the_cache_where_the_file_system_can(tmp_path: Path) -> None:
    """Otherwise all tests here would be of the other way."""
    flags = os.open(tmp_path / "probe", os.O_WRONLY | os.O_CREAT)
    try:
        fcntl.fcntl(flags, fcntl.F_SETFL, os.O_DIRECT)
    except OSError:
        # What the file is there does not depend on it: the tests below take the way through the cache everywhere.
        pytest.skip("this file system knows no O_DIRECT")
    finally:
        os.close(flags)
    end = Appender(tmp_path / "file")
    end.write(given_bytes(2 * ROOM, 1))
    end.sync()
    assert end._around


def no_flag(descriptor: int, command: int, *rest: int) -> int:
    if command == fcntl.F_SETFL and rest[0] & os.O_DIRECT:
        raise OSError(errno.EINVAL, "Invalid argument")
    return 0


def refuse_around(write: Callable[..., int]) -> Callable[..., int]:
    def pwrite(descriptor: int, piece: Any, at: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_DIRECT:
            raise OSError(errno.EINVAL, "Invalid argument")
        return write(descriptor, piece, at)

    return pwrite


@pytest.mark.parametrize("when", ["opened", "written"])
def test_a_file_system_without_direct_writes_gets_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    if when == "opened":
        monkeypatch.setattr(fcntl, "fcntl", no_flag)
    else:
        monkeypatch.setattr(os, "pwrite", refuse_around(os.pwrite))
    path, pieces = tmp_path / "file", [given_bytes(ROOM + n, n) for n in (3, 4, 5)]
    end = Appender(path)
    for piece in pieces:
        end.write(piece)
        end.sync()
    assert path.read_bytes() == b"".join(pieces)
    assert not end._around


def short_writes(write: Callable[..., int]) -> Callable[..., int]:
    return lambda descriptor, piece, at: write(descriptor, piece[: max(1, len(piece) // 3)], at)


def test_a_write_that_ends_early_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(appender, "_write_around", lambda *_: 0)  # around the cache, lengths must be whole blocks
    monkeypatch.setattr(os, "pwrite", short_writes(os.pwrite))
    end = Appender(tmp_path / "file")
    end.write(given_bytes(3 * ROOM + 77, 1))
    end.sync()
    assert (tmp_path / "file").read_bytes() == given_bytes(3 * ROOM + 77, 1)


def test_a_full_disk_is_told_at_the_next_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    end = Appender(tmp_path / "file")
    monkeypatch.setattr(os, "pwrite", full)
    end.write(given_bytes(ROOM, 1))  # begins to be written beside
    with pytest.raises(StateError, match="file: cannot append: the disk is full; free space and start again"):
        end.sync()


def test_a_file_that_somebody_changed_is_not_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "file"
    end = Appender(path)
    end.write(b"one")
    end.sync()
    path.write_bytes(b"another")
    end.write(b"two")
    with pytest.raises(StateError, match="is 7 bytes long, 3 are recorded; was it changed by hand"):
        end.sync()
    with pytest.raises(StateError, match="is 7 bytes long, 3 are recorded"):
        Appender(path, 3, crc32(b"one"))


def test_synced_bytes_are_never_written_over_with_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a sync in the middle of a block, then later writes begin at that block at most, with what it has."""
    path, writes = tmp_path / "file", []
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda f, piece, at: (writes.append((at, bytes(piece))), write(f, piece, at))[1])
    end, whole = Appender(path), b""
    for number in range(12):
        synced, piece = len(whole), given_bytes(ROOM // 3 + 7, number)
        end.write(piece)
        end.sync()
        whole += piece
        for at, written in writes:
            assert at > synced - BLOCK_BYTES
            assert whole[at : at + len(written)] == written
        writes.clear()
