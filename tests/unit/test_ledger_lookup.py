"""Accepted events are found by their identity, in every file of a ledger, and nobody else's are."""

import zlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.oracle.ledger import file_batch

from flow.errors import StateError
from flow.schema import DIMENSIONS
from flow.state import ledger, ledger_lookup
from flow.state.ledger import LedgerWriter, unsealed_files
from flow.state.ledger_lookup import EventIdentity, LedgerEvent
from flow.state.ledger_lookup import find_events as find_committed

START_US = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z
DAY_US = 86_400_000_000
EVENTS = 60


def row(number: int, source: str = "gateway") -> dict[str, object]:
    """One event a day."""
    return {
        "id": f"e{number}",
        "source": source,
        "time": datetime(2026, 3, 1, 12, 0, 0, 7, tzinfo=UTC) + timedelta(days=number),
        **{name: f"{name} {number}" for name in DIMENSIONS},
        "usage": [("input_tokens", number)],
        "source_position": f"events.ndjson:{number}",
    }


def append(writer: LedgerWriter, numbers: range, source: str = "gateway") -> None:
    writer.append(file_batch([row(number, source) for number in numbers]))
    writer.snapshot(START_US)


def find_events(
    folder: Path, lineage: str, expected_us: Mapping[EventIdentity, int]
) -> Mapping[EventIdentity, LedgerEvent]:
    """Where all that open files have is committed."""
    lengths = {path.name: path.stat().st_size for path in unsealed_files(folder)}
    return find_committed(folder, lineage, expected_us, lengths)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ledger of two writers: sealed files of many row groups, and an open file."""
    monkeypatch.setattr(ledger, "GROUP_ROWS", 5)
    folder = tmp_path / "ledger"
    for name, first in (("shard-000", 0), ("shard-001", 30)):
        writer = LedgerWriter(folder, "ours", name)
        writer.resume(None)
        for at in range(first, first + 20, 5):
            append(writer, range(at, at + 5))
        writer.seal(everything=True)
        append(writer, range(first + 20, first + 30))
    other = LedgerWriter(folder, "theirs", "shard-000")
    other.resume(None)
    append(other, range(EVENTS, EVENTS + 5))
    other.seal(everything=True)
    return folder


def expected(*numbers: int, source: str = "gateway") -> Mapping[tuple[str, str], int]:
    return {(source, f"e{number}"): START_US + number * DAY_US for number in numbers}


def test_every_event_is_found_wherever_it_is(folder: Path) -> None:
    found = find_events(folder, "ours", expected(*range(EVENTS + 5)))
    assert set(found) == {("gateway", f"e{number}") for number in range(EVENTS)}
    one = found["gateway", "e37"]
    assert (one.source, one.id, one.event_time_us) == ("gateway", "e37", START_US + 37 * DAY_US + 7)
    assert (one.usage, one.source_position) == ({"input_tokens": 37}, "events.ndjson:37")
    assert one.dimensions == {name: f"{name} 37" for name in DIMENSIONS}
    assert one.file.name == "ours-shard-001-000001.parquet"
    assert found["gateway", "e25"].file.parent.name == "open"


def test_it_does_not_matter_where_an_event_is_expected(folder: Path) -> None:
    identities = dict.fromkeys([("gateway", "e3"), ("gateway", "e59"), ("gateway", "e99")], START_US - 999 * DAY_US)
    assert set(find_events(folder, "ours", identities)) == {("gateway", "e3"), ("gateway", "e59")}


def test_the_id_of_another_source_is_another_event(folder: Path) -> None:
    writer = LedgerWriter(folder, "ours", "shard-002")
    writer.resume(None)
    append(writer, range(3, 4), source="proxy")
    writer.seal(everything=True)
    found = find_events(folder, "ours", expected(3) | expected(3, 4, source="proxy"))
    assert sorted(found) == [("gateway", "e3"), ("proxy", "e3")]


def test_nothing_more_is_read_than_has_to_be(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[tuple[str, int]] = []
    whole = ledger_lookup._Search.look_through

    def noted(search: ledger_lookup._Search, group: ledger_lookup._Group) -> None:
        if search._wanted:
            read.append((group.path.name, group.number))
        whole(search, group)

    monkeypatch.setattr(ledger_lookup._Search, "look_through", noted)
    assert len(find_events(folder, "ours", expected(33, 47))) == 2
    assert read == [("ours-shard-001-000001.parquet", 0), ("ours-shard-001-000001.parquet", 3)]
    assert find_events(folder, "ours", {}) == {}


def test_what_is_not_committed_is_not_there_yet(folder: Path) -> None:
    """given an open file with an epoch, one behind it that is whole too, and one that is being written
    when only the first is committed, or nothing of the file
    then no more of it is found"""
    path = folder / "open" / "ours-shard-001-000002.pieces"
    first = path.read_bytes()
    writer = LedgerWriter(folder, "ours", "shard-001")
    manifest = {"number": 2, "length": len(first), "crc32": zlib.crc32(first), "opened_us": START_US}
    writer.resume({"next": 3, "files": [manifest]})
    append(writer, range(EVENTS, EVENTS + 5))
    path.write_bytes(path.read_bytes() + first[:-100])
    committed = {other.name: other.stat().st_size for other in unsealed_files(folder)} | {path.name: len(first)}
    found = find_committed(folder, "ours", expected(*range(EVENTS + 5)), committed)
    assert set(found) == set(expected(*range(EVENTS)))
    del committed[path.name]
    assert len(find_committed(folder, "ours", expected(*range(EVENTS + 5)), committed)) == EVENTS - 10


def test_a_damaged_file_is_named(folder: Path) -> None:
    path = next(folder.glob("*/*/ours-shard-000-*.parquet"))
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(StateError, match=path.name):
        find_events(folder, "ours", expected(1))
    pq.write_table(pa.table({"id": ["e1"]}), path)
    with pytest.raises(StateError, match="its columns are not those of a ledger"):
        find_events(folder, "ours", expected(1))
