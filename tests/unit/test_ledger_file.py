"""Goal: whoever reads the ledger gets what was accepted, whatever form it is kept in. Method: random events through the
writer and the files of today, and files as older versions wrote them, against plain rows."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY, PlainEvent, event_batch, event_batches, judged, random_events, selection
from tests.oracle.ledger import PlainRow, file_batch, file_row, read
from tests.oracle.pieces import arrow_piece

from flow.kernels.pages import picked
from flow.schema import DIMENSIONS, LEDGER, LEDGER_AMENDED, LEDGER_FILE
from flow.state.ledger import LedgerWriter, ledger_files, unsealed_files, unsealed_rows
from flow.state.ledger_file import LedgerFile, as_ledger
from flow.state.ledger_lookup import find_events
from flow.steps.batches import Amends, Messages
from flow.steps.ledger_rows import ledger_rows

LINEAGE = "0123456789abcdef"
SHARD = "shard-000"
NOW_US = 1_772_366_400_000_000


def plain_rows(events: Sequence[PlainEvent], positions: Sequence[str], amends: Sequence[str | None]) -> list[PlainRow]:
    return [
        {
            **{name: event[name] for name in ("id", "source", *DIMENSIONS)},
            "time": event["event_time_us"],
            "usage": sorted(event["usage"]),
            "source_position": position,
            "amends": text,
        }
        for event, position, text in zip(events, positions, amends, strict=True)
    ]


def shown(batches: Iterable[pa.RecordBatch]) -> list[PlainRow]:
    """Ledger rows as plain ones."""
    found = []
    for batch in batches:
        batch.validate(full=True)
        times = batch.column("time").cast(pa.int64()).to_pylist()
        for row, time_us in zip(batch.drop_columns(["time"]).to_pylist(), times, strict=True):
            found.append({"amends": None} | row | {"time": time_us, "usage": sorted(row["usage"])})
    return found


def made(seed: int, count: int = 40, first: int = 0) -> list[PlainRow]:
    events = random_events(seed, count)
    return plain_rows(events, [f"a:b.ndjson:{first + n}" for n in range(count)], [None] * count)


@pytest.fixture
def writer(tmp_path: Path) -> LedgerWriter:
    writer = LedgerWriter(tmp_path / "ledger", LINEAGE, SHARD)
    writer.resume(None)
    return writer


def sealed_rows(folder: Path) -> list[PlainRow]:
    return shown(batch for path in ledger_files(folder) for batch in read(path, rows=7))


@settings(PROPERTY, max_examples=25)
@given(event_batches(), st.data())
def test_what_is_written_is_what_was_accepted(
    given_batch: tuple[list[PlainEvent], pa.RecordBatch], data: st.DataObject
) -> None:
    events, batch = given_batch
    places = range(len(events))
    rows = data.draw(st.lists(st.sampled_from(places), unique=True).map(sorted) if events else st.just([]))
    texts = [f'{{"kind":"late","n":{n}}}' for n in places] if data.draw(st.booleans()) else None
    routed = judged(batch).routed
    if texts is not None:
        routed = replace(routed, amends=Amends("late", pa.array(texts, pa.string())))
    found = picked(*ledger_rows(routed, selection(rows), len(rows)))
    found.validate(full=True)
    positions, amends = [f"test:{row}" for row in rows], [None if texts is None else texts[row] for row in rows]
    expected = plain_rows([events[row] for row in rows], positions, amends)
    there = set(found.schema.names)
    assert found.schema.names[: len(LEDGER_FILE)] == LEDGER_FILE.names
    for row, of_file in zip(expected, found.to_pylist(), strict=True):
        assert row["usage"] == sorted(
            [(meter, of_file[meter]) for meter in LEDGER_FILE.names[9:14] if of_file[meter] is not None]
            + (of_file.get("other_usage") or [])
        )
        assert {name: file_row(row)[name] for name in there - {"time", "other_usage"}} == {
            name: of_file[name] for name in there - {"time", "other_usage"}
        }
    assert shown([as_ledger(found)]) == expected


def test_places_within_messages() -> None:
    """A message's first event, and those behind it."""
    routed = judged(event_batch(random_events(1, 5))).routed
    positions = pa.array([0, 30, 100, 2**31, 2**31 + 7])
    columns = [positions if name == "position" else routed.events.column(name) for name in routed.events.schema.names]
    messages = Messages(np.array([0, 100, 2**31]), np.array([41, 42, 2**40]))
    events = pa.RecordBatch.from_arrays(columns, schema=routed.events.schema)
    found, *_ = ledger_rows(replace(routed, origin="usage/3", events=events, messages=messages), None, 5)
    texts = ["usage/3:41", "usage/3:41+30", "usage/3:42", f"usage/3:{2**40}", f"usage/3:{2**40}+7"]
    assert as_ledger(found).column("source_position").to_pylist() == texts
    parts = [file_row({**made(1, 1)[0], "source_position": text})["source_position"] for text in texts]
    assert found.column("source_position").to_pylist() == parts


def test_columns_that_few_events_need_come_and_stay(writer: LedgerWriter, tmp_path: Path) -> None:
    """Given batches with and without other meters, and with and without corrections, over several epochs."""
    rows = made(5)
    for number, row in enumerate(rows):
        if number % 4 or not number:
            row["usage"] = [("input_tokens", number)]
        row["amends"] = "{}" if number in (1, 17, 18) else None
    for first in range(0, 40, 8):
        for at in range(first, first + 8, 2):
            writer.append(file_batch(rows[at : at + 2]))
        writer.snapshot(NOW_US)
    (path,) = unsealed_files(tmp_path / "ledger")
    assert shown(list(unsealed_rows(path, path.stat().st_size))) == rows
    writer.seal(everything=True)
    assert sealed_rows(tmp_path / "ledger") == rows


def old_batch(rows: list[PlainRow]) -> pa.RecordBatch:
    """As files had them before: usage in one column, source positions as texts."""
    amended = any(row["amends"] for row in rows)
    return pa.RecordBatch.from_pylist(rows, schema=LEDGER_AMENDED if amended else LEDGER)


def test_an_open_file_of_an_older_version_is_sealed_as_it_is(tmp_path: Path) -> None:
    """Given a job that was killed before the program was upgraded."""
    before, after = made(1), made(2, first=1000)
    folder = tmp_path / "ledger"
    path = folder / "open" / f"{LINEAGE}-{SHARD}-000001.pieces"
    path.parent.mkdir(parents=True)
    content = b""
    for part in (before[:25], before[25:]):
        content += arrow_piece(len(content), pa.Table.from_batches([old_batch(part)]), {"price_book": "b"})
    path.write_bytes(content)
    file = {"number": 1, "length": len(content), "crc32": crc32(content), "opened_us": NOW_US, "closed": False}

    writer = LedgerWriter(folder, LINEAGE, SHARD)
    writer.resume({"next": 2, "files": [file]})
    writer.append(file_batch(after))
    assert [one["number"] for one in writer.snapshot(NOW_US)["files"]] == [1, 2]
    writer.seal()
    assert [path.name for path in unsealed_files(folder)] == [f"{LINEAGE}-{SHARD}-000002.pieces"]
    writer.seal(everything=True)
    assert sealed_rows(folder) == before + after


def test_a_sealed_file_of_an_older_version_is_read(tmp_path: Path) -> None:
    rows = made(3)
    rows[7]["amends"] = "{}"
    path = tmp_path / "2026-11-01" / "12" / f"{LINEAGE}-{SHARD}-000001.parquet"
    path.parent.mkdir(parents=True)
    pq.write_table(pa.Table.from_batches([old_batch(rows)]), path, row_group_size=9)
    assert sealed_rows(tmp_path) == rows
    with LedgerFile(path) as file:
        (batch,) = file.batches(100, ["usage", "id"], where=lambda batch: pa.compute.equal(batch["id"], rows[7]["id"]))
        assert (batch.schema.names, batch.num_rows) == (["id", "usage"], 1)
    wanted = {(row["source"], row["id"]): row["time"] for row in rows}
    found = find_events(tmp_path, LINEAGE, wanted, {})
    assert {(one.id, one.source_position, one.amends or None) for one in found.values()} == {
        (row["id"], row["source_position"], row["amends"]) for row in rows
    }
    assert all(sorted(found[row["source"], row["id"]].usage.items()) == row["usage"] for row in rows)


def test_other_programs_read_it(writer: LedgerWriter, tmp_path: Path) -> None:
    rows = made(4, 100)
    for row in rows:  # sums of more would not fit their integers
        row["usage"] = [(meter, quantity >> 20) for meter, quantity in row["usage"]]
    writer.append(file_batch(rows))
    writer.snapshot(NOW_US)
    writer.seal(everything=True)
    (path,) = ledger_files(tmp_path / "ledger")
    usages = [dict(row["usage"]) for row in rows]
    sums: dict[str, Any] = {
        meter: sum(usage.get(meter, 0) for usage in usages) for meter in ("input_tokens", "m1", "m2")
    }
    position = "source_position.origin || ':' || source_position.position"
    asked = f"SELECT sum(input_tokens), sum(other_usage['m1']), sum(other_usage['m2']), list({position}) FROM '{path}'"
    ((*found, positions),) = pytest.importorskip("duckdb").sql(asked).fetchall()
    assert found == list(sums.values())
    assert positions == [row["source_position"] for row in rows]
    frame = pytest.importorskip("polars").read_parquet(path)
    assert (frame.height, frame["input_tokens"].sum()) == (100, sums["input_tokens"])
