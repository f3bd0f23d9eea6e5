"""The store: tables made once, blocks stored once, readers change nothing, and one clear line for errors."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
import typer
from pyarrow import ipc
from tests.faults.http_front import Front
from typer.testing import CliRunner

from flow.cli.sql import as_csv, as_json, check_query, sql
from flow.config import Store
from flow.errors import ConfigError, RefusedStart, StoreError
from flow.store import StoreClient, StoreUnavailable, check_schema, connect, insert_arrow_file, migrate
from flow.store.client import StoreBusy, first_line, quote_text, translate
from flow.store.migrate import _steps
from flow.store.publish import INSERT_SETTINGS
from flow.store.tables import PIPELINE_BALANCE, ROLLUPS, TABLES

WriteRows = Callable[..., Path]
ROW = {
    "customer": "acme",
    "window_start": 1_790_000_040,
    "key": 2**127 + 5,
    "events": 2,
    "digest": 2**128 - 1,
}
MINUTE_NAMES = ROLLUPS["rollup_minute"].names
NEXT_MONTH = {**ROW, "window_start": 1_792_000_020}


def events(client: StoreClient) -> int:
    return int(client.rows("SELECT sum(events) FROM rollup_minute")[0][0])


# ---- Tables ------------------------------------------------------------------------------------


def test_migrating_twice_changes_nothing(new_client: StoreClient) -> None:
    before = new_client.rows(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY 1"
    )
    migrate(new_client)
    assert new_client.rows("SELECT version FROM schema_version") == [(max(_steps()),)]
    after = new_client.rows(
        "SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase() ORDER BY 1"
    )
    assert before == after


def test_a_migration_that_was_cut_short_is_run_again(new_client: StoreClient) -> None:
    new_client.command("TRUNCATE TABLE schema_version")
    new_client.command("DROP VIEW usage_by_week")
    migrate(new_client)
    assert new_client.rows("SELECT count() FROM usage_by_week") == [(0,)]


def test_tables_of_a_newer_version_are_left_alone(new_client: StoreClient) -> None:
    new_client.command("INSERT INTO schema_version (version) VALUES (999)")
    for start in (migrate, check_schema):
        with pytest.raises(RefusedStart, match=r"version 999, made by a newer Tallyflow.*upgrade it"):
            start(new_client)


def test_tables_of_an_older_version_cannot_be_read(new_client: StoreClient) -> None:
    new_client.command("TRUNCATE TABLE schema_version")
    new_client.command("INSERT INTO schema_version (version) VALUES (1)")
    with pytest.raises(StoreError, match="`tallyflow run` upgrades them"):
        check_schema(new_client)


def test_reading_makes_no_tables_and_no_folders(new_store: Store, tmp_path: Path) -> None:
    with connect(new_store) as writer, connect(new_store, readonly=True) as reader:
        with pytest.raises(StoreError, match="holds no Tallyflow tables yet; run `tallyflow run` first"):
            check_schema(reader)
        assert writer.rows(
            "SELECT count() FROM system.databases WHERE name = {d:String}", {"d": new_store.database}
        ) == [(0,)]
    absent = Store(kind="chdb", path=tmp_path / "absent")
    with pytest.raises(StoreError, match="holds no Tallyflow tables yet"):
        connect(absent, readonly=True)
    assert not (tmp_path / "absent").exists()


def test_the_arrow_schemas_are_the_tables(client: StoreClient) -> None:
    for table, schema in TABLES.items():
        columns = [name for name, *_ in client.rows(f"DESCRIBE {table}")]
        assert columns == schema.names, table
    public = {"rejected_events": ["seen_at", "source_position", "reason", "detail", "payload"]}
    assert TABLES["rejected_events"].names == public["rejected_events"]
    counts = ["read", "accepted", "duplicate", "conflicting", "rejected", "late"]
    assert PIPELINE_BALANCE.names[-6:] == counts


def test_every_table_that_counts_remembers_tokens_and_syncs(client: StoreClient) -> None:
    for table in TABLES:
        ((ddl,),) = client.rows(f"SHOW CREATE TABLE {table}")
        for setting in (
            "non_replicated_deduplication_window = 10000",
            "fsync_after_insert = 1",
            "fsync_part_directory = 1",
        ):
            assert setting in ddl, table


# ---- Publishing --------------------------------------------------------------------------------


def test_a_block_arrives_once_however_often_it_is_published(client: StoreClient, write_rows: WriteRows) -> None:
    path = write_rows("rollup_minute", [ROW, NEXT_MONTH])
    for _ in range(3):
        insert_arrow_file(client, "rollup_minute", MINUTE_NAMES, path, "lineage-writer-1")
    assert events(client) == 4
    # an equal block under another token is another block
    insert_arrow_file(client, "rollup_minute", MINUTE_NAMES, path, "lineage-writer-2")
    assert events(client) == 8


def test_every_value_arrives_as_it_was(client: StoreClient, insert_rows: Callable[..., None]) -> None:
    amounts = {"q0": -(2**99), "q3": 2**100 - 1, "a1": 2**100 - 1, "a2": -1}
    insert_rows("rollup_minute", [ROW | amounts])
    ((*found,),) = client.rows(
        "SELECT customer, toUInt32(window_start), key, events, digest, q0, q3, reinterpret(a1, 'Int128'), "
        "reinterpret(a2, 'Int128') FROM rollup_minute"
    )
    assert found == [*ROW.values(), *amounts.values()]
    instant = 1_790_000_000_123_456
    insert_rows(
        "rejected_events",
        [
            {
                "seen_at": instant,
                "source_position": "f:1",
                "reason": "INVALID_UTF8",
                "detail": "d",
                "payload": b"\xff\x00\n'",
            }
        ],
    )
    ((micros, reason, payload),) = client.rows(
        "SELECT toUnixTimestamp64Micro(seen_at), reason, hex(payload) FROM rejected_events"
    )
    assert (micros, reason, payload) == (instant, "INVALID_UTF8", "FF000A27")


def test_one_file_is_one_part_a_partition(client: StoreClient, tmp_path: Path) -> None:
    # given a file as long as allowed, over two months, wider than the engine's usual block in bytes
    rows = 1_000_000
    wide = pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(bytes(16 * rows))])
    amount = pa.Array.from_buffers(pa.decimal128(38, 15), rows, [None, pa.py_buffer(bytes(16 * rows))])
    month = pa.array([1_790_000_040] * (rows // 2) + [1_792_000_020] * (rows // 2), pa.uint32())
    customer = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array(["acme"]))
    schema = ROLLUPS["rollup_minute"]
    given = {"customer": customer, "window_start": month, "unpriced": pa.array([0] * rows, pa.uint8())}
    given |= {"events": pa.array([1] * rows, pa.uint64())} | {f"a{slot}": amount for slot in range(4)}
    texts = {name: customer for name in schema.names if pa.types.is_dictionary(schema.field(name).type)}
    columns = [({**texts, **given}).get(name, wide) for name in schema.names]
    path = tmp_path / "long.arrow"
    with pa.OSFile(str(path), "wb") as file, ipc.new_file(file, schema) as writer:
        writer.write_table(pa.table(columns, schema=schema), max_chunksize=1 << 17)
    client.command("SYSTEM STOP MERGES rollup_minute")
    insert_arrow_file(client, "rollup_minute", MINUTE_NAMES, path, "t")
    found = "database = currentDatabase() AND table = 'rollup_minute'"
    parts = client.rows(f"SELECT partition, rows FROM system.parts WHERE {found} ORDER BY 1")
    assert parts == [("202609", rows // 2), ("202610", rows // 2)]


def test_a_block_with_a_missing_column_or_null_is_refused_whole(client: StoreClient, tmp_path: Path) -> None:
    cut = pa.schema([field for field in PIPELINE_BALANCE if field.name != "late"])
    table = {name: ["x", "x"] if pa.types.is_string(cut.field(name).type) else [1, 2] for name in cut.names}
    nulls = pa.schema([field.with_nullable(True) for field in PIPELINE_BALANCE])
    for schema, rows in ((cut, table), (nulls, {**table, "late": [1, None]})):
        path = tmp_path / "bad.arrow"
        with pa.OSFile(str(path), "wb") as file, ipc.new_file(file, schema) as writer:
            writer.write_table(pa.table(rows, schema=schema))
        with pytest.raises(StoreError):
            insert_arrow_file(client, "pipeline_balance", PIPELINE_BALANCE.names, path, "t")
        assert client.rows("SELECT count() FROM pipeline_balance") == [(0,)]


def test_a_path_that_the_engine_would_read_as_a_pattern_is_refused(client: StoreClient, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="rename the directory"):
        insert_arrow_file(client, "rollup_day", ["key"], tmp_path / "{a,b}" / "x.arrow", "t")


def test_a_block_needs_a_token(client: StoreClient, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="needs a token"):
        insert_arrow_file(client, "rollup_day", ["key"], tmp_path / "x.arrow", "")


# ---- Other processes ---------------------------------------------------------------------------

OTHER_PROCESS = """
import sys
from pathlib import Path
from flow.config import Store
from flow.store import connect, insert_arrow_file, migrate
from flow.store.tables import ROLLUPS

_, where, block, todo = sys.argv
with connect(Store(kind="chdb", path=Path(where))) as client:
    migrate(client)
    if todo == "hold":
        print("open", flush=True)
        sys.stdin.read()
    else:
        insert_arrow_file(client, "rollup_minute", ROLLUPS["rollup_minute"].names, Path(block), "the token")
        print(client.rows("SELECT sum(events) FROM rollup_minute")[0][0])
"""


def other_process(*arguments: object) -> list[str]:
    return [sys.executable, "-c", OTHER_PROCESS, *map(str, arguments)]


@pytest.mark.starts_engine
def test_a_token_is_remembered_when_the_store_is_opened_again(tmp_path: Path, write_rows: WriteRows) -> None:
    command = other_process(tmp_path / "store", write_rows("rollup_minute", [ROW]), "insert")
    for _ in range(2):
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "2\n"


@pytest.mark.starts_engine
def test_a_store_in_use_says_by_whom(tmp_path: Path) -> None:
    # given another process that has the store open
    held = Store(kind="chdb", path=tmp_path / "held")
    command = other_process(tmp_path / "held", "-", "hold")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "open\n"
        # when we open it, for writing or reading, then the line says who has it, and what to do
        for readonly in (False, True):
            with pytest.raises(
                StoreError, match=rf"in use by another process \(pid {holder.pid}\); wait for it or stop it"
            ):
                connect(held, readonly=readonly)
        holder.communicate("")
    # and once it is free, it opens
    with connect(held) as client:
        check_schema(client)


def test_a_second_store_in_one_process_is_refused(client: StoreClient, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="can hold one at a time"):
        connect(Store(kind="chdb", path=tmp_path / "second"))


def test_clients_of_one_process_share_a_store(client: StoreClient, store: Store, write_rows: WriteRows) -> None:
    with connect(store) as second:
        check_schema(second)
        insert_arrow_file(second, "rollup_minute", MINUTE_NAMES, write_rows("rollup_minute", [ROW]), "t")
    assert events(client) == 2


def test_a_place_that_cannot_be_a_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match=r"a file, not a directory; choose another directory in `store:`"):
            connect(Store(kind="chdb", path=path))


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(StoreUnavailable, match=r"clickhouse://me@127\.0\.0\.1:1/x: no answer .*is the server up"):
        connect(Store(kind="clickhouse", host="127.0.0.1", port=1, user="me", database="x"))


# ---- Errors ------------------------------------------------------------------------------------


class EngineError(Exception):
    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@pytest.mark.parametrize(
    ("code", "kind", "match"),
    [
        (241, StoreBusy, "memory"),
        (252, StoreBusy, "memory"),
        (999, StoreUnavailable, "memory"),
        (285, StoreUnavailable, "memory"),
        (286, StoreUnavailable, "memory"),
        (289, StoreUnavailable, "memory"),
        (243, StoreError, "the disk is full; free some space"),
        (164, StoreError, "only reads"),
        (60, StoreError, r"^store s: \(total\) memory limit exceeded$"),
    ],
)
def test_errors_by_code(code: int, kind: type[StoreError], match: str) -> None:
    text = "(total) memory limit exceeded: In scope SELECT 1. (X) (version 26.9.2.1)\n0. x"
    message = f"Code: {code}. DB::Exception: {text}"
    found = translate(EngineError(message, code), "s")
    assert type(found) is kind
    assert re.search(match, str(found))


def test_first_lines() -> None:
    assert first_line("Code: 1. DB::Exception: Code: 2. DB::Exception: No. Stack trace: x") == "No"
    assert first_line("HTTP driver received error 1\n Code: 1. DB::Exception: No. (X) (version 1)\nx") == "No. (X)"
    assert quote_text("a'b\\") == "'a\\'b\\\\'"


# ---- Reading only, and `tallyflow sql` ---------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO lineages SELECT 'x', now64(6), '', ''",
        "DROP TABLE rollup_day",
        "CREATE TABLE t (x UInt8) ENGINE = Memory",
    ],
)
def test_a_reader_changes_nothing(client: StoreClient, store: Store, statement: str) -> None:
    with connect(store, readonly=True) as reader:
        check_schema(reader)
        with pytest.raises(StoreError, match="only reads"):
            reader.command(statement)
        with pytest.raises(StoreError):
            reader.command("SET readonly = 0")


ALL_TYPES = """
SELECT toInt128('-170141183460469231731687303715884105728') AS wide, CAST('0.6', 'Decimal(38, 15)') AS amount,
    toUInt64(18446744073709551615) AS events, toDateTime('2026-11-01 00:00:00', 'UTC') AS window_start,
    toDateTime64('2026-11-01 00:00:00.5', 6, 'UTC') AS seen_at, unhex('61ff') AS payload,
    [toUInt128(1)] AS many, NULL AS nothing, CAST(NULL, 'Nullable(UInt64)') AS none, toUInt8(7) AS small, 'a,"b' AS text
"""


def test_answers_are_ready_for_json(client: StoreClient) -> None:
    answer = client.answer(ALL_TYPES)
    (row,) = json.loads(as_json(answer))
    assert row == {
        "wide": "-170141183460469231731687303715884105728",
        "amount": "0.6",
        "events": 18446744073709551615,
        "window_start": "2026-11-01T00:00:00Z",
        "seen_at": "2026-11-01T00:00:00.500000Z",
        "payload": "a�",
        "many": ["1"],
        "nothing": None,
        "none": None,
        "small": 7,
        "text": 'a,"b',
    }
    header, line = as_csv(answer).splitlines()
    assert header.startswith("wide,amount,events,window_start")
    assert line.endswith('"[""1""]",,,7,"a,""b"')
    assert json.loads(as_json(client.answer("SELECT 1 AS x WHERE 0"))) == []


@pytest.mark.parametrize(
    ("query", "statement"),
    [
        ("select 1;", "select 1"),
        (" -- why\n/* and */ (SELECT 1) ; ", "-- why\n/* and */ (SELECT 1)"),
        ("WITH 1 AS x SELECT x", "WITH 1 AS x SELECT x"),
        ("SHOW TABLES", "SHOW TABLES"),
    ],
)
def test_queries_that_read(query: str, statement: str) -> None:
    assert check_query(query) == statement


@pytest.mark.parametrize("query", ["INSERT INTO t VALUES (1)", "drop table t", "", "-- x", "SELECT 1 FORMAT CSV"])
def test_queries_that_do_not(query: str) -> None:
    with pytest.raises(ConfigError, match=r"^sql: "):
        check_query(query)


def test_the_sql_command(client: StoreClient, store_path: Path, tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("currency: USD\nprices: []\n")
    config = tmp_path / "config.yaml"
    config.write_text(f"source: {{kind: synthetic}}\nprices: prices.yaml\nstore: chdb://{store_path}\nstate_dir: s\n")
    app = typer.Typer()
    app.command()(sql)

    def run(*arguments: str) -> str:
        return CliRunner().invoke(app, [*arguments, "-c", str(config)], catch_exceptions=False).stdout

    assert json.loads(run("SELECT count() AS n FROM usage_by_day", "--format", "json")) == [{"n": 0}]
    assert run("SELECT 1 AS x, 'é' AS y", "--format", "csv") == "x,y\n1,é\n"
    assert run("SELECT number FROM numbers(1001)").count("\n") == 1001
    for wrong, message in (
        ("SELECT nothing FROM usage_by_day", "nothing"),
        ("SELECT 1; SELECT 2", "one statement at a time"),
    ):
        with pytest.raises(StoreError, match=message) as caught:
            run(wrong)
        assert "\n" not in str(caught.value)


# ---- A server over HTTP ------------------------------------------------------------------------


def test_a_block_goes_to_a_server_with_every_setting(client: StoreClient, store: Store, write_rows: WriteRows) -> None:
    path = write_rows("rollup_minute", [ROW])
    with Front(client) as front:
        remote = Store(kind="clickhouse", host="127.0.0.1", port=front.port, user="me", database=store.database)
        with connect(remote) as server:
            for _ in range(2):
                insert_arrow_file(server, "rollup_minute", MINUTE_NAMES, path, "the token")
    assert events(client) == 2
    assert len(front.inserts) == 2
    for sent in front.inserts:
        assert {
            **INSERT_SETTINGS,
            "insert_deduplication_token": "the token",
            "deduplicate_insert": "enable",
        }.items() <= sent.items()
        assert sent["wait_for_async_insert"] == "1"


def test_errors_of_a_server_are_the_same_line(client: StoreClient, store: Store) -> None:
    with Front(client) as front:
        remote = Store(kind="clickhouse", host="127.0.0.1", port=front.port, user="me", database=store.database)
        with connect(remote) as server, pytest.raises(StoreError) as caught:
            server.rows("SELECT x FROM nowhere")
    line = (
        f"store clickhouse://me@127.0.0.1:{front.port}/{store.database}: Unknown table expression identifier 'nowhere'"
    )
    assert str(caught.value) == line
