"""Goal: what our row groups say is what Arrow's own writer says. Method: random batches of the ledger, all of them and
any selection, in a file of several groups, read by Arrow, beside a file that Arrow has written."""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY, random_events, selection
from tests.oracle.ledger import file_batch

from flow.config import Store
from flow.kernels import Rows
from flow.kernels.pages import Pages, picked
from flow.schema import AMENDS, DIMENSIONS, LEDGER_FILE, OTHER_USAGE
from flow.state.appender import Appender
from flow.state.pieces import Piece
from flow.state.thrift import I64, struct, varint
from flow.store.client import connect

Selected = tuple[pa.RecordBatch, Rows, int]


def batch_of(seed: int, count: int, *, others: bool = True, amends: bool = True) -> pa.RecordBatch:
    rows = []
    for number, event in enumerate(random_events(seed, count)):
        usage = event["usage"] if others else [("input_tokens", number)][: number % 3]
        row = {name: event[name] for name in ("id", "source", *DIMENSIONS)} | {"usage": usage}
        row |= {"time": event["event_time_us"], "source_position": f"a:{seed * 1000 + number}+{number % 2 * 5}"}
        rows.append(row | {"amends": '{"kind":"late"}' if amends and number % 5 == 1 else None})
    batch = file_batch(rows)
    wanted = [*LEDGER_FILE, *[OTHER_USAGE] * others, *[AMENDS] * amends]
    columns = [batch[f.name] if f.name in batch.schema.names else pa.nulls(count, f.type) for f in wanted]
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(wanted))


def written(path: Path, groups: list[Selected]) -> pq.ParquetFile:
    path.unlink(missing_ok=True)
    end = Appender(path)
    piece = Piece(end, groups[0][0].schema, Pages())
    for batch, rows, count in groups:
        piece.write(batch, rows, count)
    piece.close({"price_book": "b"})
    end.sync()
    return pq.ParquetFile(path)


def by_arrow(path: Path, groups: list[Selected]) -> pq.ParquetFile:
    with pq.ParquetWriter(path, groups[0][0].schema, store_schema=False) as writer:
        for batch, rows, count in groups:
            writer.write_table(pa.Table.from_batches([picked(batch, rows, count)]))
        writer.add_key_value_metadata({"price_book": "b"})
    return pq.ParquetFile(path)


def check(folder: Path, groups: list[Selected]) -> None:
    ours, theirs = written(folder / "ours", groups), by_arrow(folder / "theirs", groups)
    assert ours.schema.equals(theirs.schema)
    assert ours.metadata.metadata == theirs.metadata.metadata
    table = ours.read()
    table.validate(full=True)
    assert table.equals(theirs.read())
    for number, (batch, rows, count) in enumerate(groups):
        group = ours.metadata.row_group(number)
        times = picked(batch["time"], rows, count)
        said = group.column(LEDGER_FILE.get_field_index("time")).statistics
        assert (said.min, said.max) == (pc.min(times).as_py(), pc.max(times).as_py())
        assert (group.num_rows, said.null_count) == (count, 0)
        assert group.total_byte_size == sum(group.column(n).total_compressed_size for n in range(group.num_columns))


@settings(PROPERTY, max_examples=25)
@given(st.data(), st.booleans(), st.booleans())
def test_arrow_reads_what_arrow_would_have_written(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, others: bool, amends: bool
) -> None:
    groups = []
    for seed in range(data.draw(st.integers(1, 3))):
        count = data.draw(st.integers(1, 40))
        rows = data.draw(st.none() | st.lists(st.sampled_from(range(count)), unique=True, min_size=1))
        batch = batch_of(seed, count, others=others, amends=amends)
        groups.append((batch, None, count) if rows is None else (batch, selection(rows), len(rows)))
    check(tmp_path_factory.mktemp("pages"), groups)


@pytest.mark.parametrize("rows", [None, list(range(0, 3000, 2))], ids=["all", "half"])
def test_many_rows(tmp_path: Path, rows: list[int] | None) -> None:
    """More than a block of numbers, and more than a group of codes; a dictionary with most of its values unused."""
    batch = batch_of(7, 3000, amends=False)
    check(tmp_path, [(batch, None, 3000) if rows is None else (batch, selection(rows), len(rows))])


def test_a_dictionary_has_what_is_there(tmp_path: Path) -> None:
    """given a selection of few rows of a batch with many customers
    then the file does not have the names of the others"""
    count = 1000
    batch = batch_of(1, count, others=False, amends=False)
    names = pa.array([f"customer {n}" for n in range(count)]).dictionary_encode()
    batch = batch.set_column(batch.schema.get_field_index("customer"), LEDGER_FILE.field("customer"), names)
    check(tmp_path, [(batch, selection([3, 500]), 2)])
    content = (tmp_path / "ours").read_bytes()
    assert b"customer 500" in content
    assert b"customer 501" not in content


def test_other_programs_read_it(tmp_path: Path, store: Store) -> None:
    count = 3000
    batch = batch_of(2, count, others=False)
    written(tmp_path / "ours.parquet", [(batch, None, count), (batch, selection(range(9)), 9)])
    expected = [pc.sum(batch["input_tokens"]).as_py() + pc.sum(batch["input_tokens"].slice(0, 9)).as_py(), count + 9]
    asked = "SELECT sum(input_tokens), count(DISTINCT id) * 0 + count(*), max(customer), count(amends)"
    ((*found, customer, amended),) = (
        pytest.importorskip("duckdb").sql(f"{asked} FROM '{tmp_path}/ours.parquet'").fetchall()
    )
    assert [int(number) for number in found] == expected
    assert customer == max(batch["customer"].to_pylist(), key=str.encode)
    assert amended == count - batch["amends"].null_count + 2
    frame = pytest.importorskip("polars").read_parquet(tmp_path / "ours.parquet")
    assert [frame["input_tokens"].sum(), frame.height] == expected
    assert frame["id"].to_list() == batch["id"].to_pylist() + batch["id"].slice(0, 9).to_pylist()
    with connect(store) as client:
        (answer,) = client.rows(f"SELECT sum(input_tokens), count() FROM file('{tmp_path}/ours.parquet')")
    assert [int(number) for number in answer] == expected


def test_numbers_that_are_too_wide_are_refused() -> None:
    """A page of 2 GiB would be read as one of less than nothing."""
    with pytest.raises(OverflowError, match="2147483648 has more than 32 bits"):
        struct({1: 2**31})
    with pytest.raises(OverflowError, match="has more than 64 bits"):
        struct({1: I64(2**63)})


def test_fields_far_apart_and_long_lists() -> None:
    """As the specification of the compact protocol has them."""
    assert struct({20: True}) == bytes([0x01, 40, 0])
    assert struct({1: list(range(15))}) == bytes([0x19, 0xF5, 15, *range(0, 30, 2), 0])
    assert varint(300) == bytes([0xAC, 0x02])
