"""Tables on a cluster: what each statement becomes, what every request carries, and what is refused.

The engine parses every statement; it has no Keeper, so that nothing is replicated here.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.faults.http_front import CLUSTER, Fault, Front

import flow.store.client
from flow.config import Store
from flow.errors import RefusedStart, StoreError
from flow.store import StoreClient, StoreUnavailable, check_schema, connect, insert_arrow_file, migrate
from flow.store.client import CLUSTER_SETTINGS
from flow.store.fence import check_term, take_term
from flow.store.migrate import _VERSION_TABLE, _steps
from flow.store.replicated import check_cluster, on_cluster
from flow.store.requirements import VERSION_TESTED, check_server, server_version
from flow.store.tables import PIPELINE_BALANCE, ROLLUPS, TABLES

Connect = Callable[..., StoreClient]
STATEMENTS = [_VERSION_TABLE.strip(), *(one for version in sorted(_steps()) for one in _steps()[version])]


@pytest.fixture
def front(new_store: Store) -> Iterator[Front]:
    with connect(new_store) as engine, Front(engine) as front:
        yield front
        engine.command(f"DROP DATABASE IF EXISTS {new_store.database}")


@pytest.fixture
def server(front: Front, new_store: Store) -> Connect:
    """A connection to the front; by default as to a server of a cluster."""

    def connect_to(cluster: str | None = CLUSTER, *, readonly: bool = False) -> StoreClient:
        remote = Store(
            kind="clickhouse", host="127.0.0.1", port=front.port, database=new_store.database, cluster=cluster
        )
        return connect(remote, readonly=readonly)

    return connect_to


# ---- What statements become ----


def test_a_table_becomes_a_replicated_one() -> None:
    plain = (
        "CREATE TABLE IF NOT EXISTS t (\n    x UInt8\n)\nENGINE = SummingMergeTree((x, y))\nORDER BY x\n"
        "SETTINGS non_replicated_deduplication_window = 10000, fsync_after_insert = 1, fsync_part_directory = 1"
    )
    assert on_cluster(plain, "db", "c-1") == (
        "CREATE TABLE IF NOT EXISTS t ON CLUSTER `c-1` (\n    x UInt8\n)\n"
        "ENGINE = ReplicatedSummingMergeTree('/clickhouse/tallyflow/c-1/db/t', '{replica}', (x, y))\nORDER BY x\n"
        "SETTINGS replicated_deduplication_window_seconds = 2592000, replicated_deduplication_window = 10000, "
        "fsync_after_insert = 1, min_compressed_bytes_to_fsync_after_fetch = 1, fsync_part_directory = 1"
    )


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.split("(")[0].split(" AS")[0])
def test_every_statement_of_ours_can_be_run_on_a_cluster(statement: str) -> None:
    found = on_cluster(statement, "db", "c")
    head, _, rest = found.partition(" ON CLUSTER `c`")
    assert statement.startswith(head) and rest
    if "ENGINE" in statement:
        assert f"MergeTree('/clickhouse/tallyflow/c/db/{head.split()[-1]}', '{{replica}}'" in rest
        assert "ENGINE = Replicated" in rest and "non_replicated" not in rest
        assert "fsync_after_insert = 1, min_compressed_bytes_to_fsync_after_fetch = 1" in rest


@pytest.mark.parametrize(
    "statement",
    [
        "RENAME TABLE a TO b",
        "CREATE TABLE IF NOT EXISTS t (x UInt8) ENGINE = Memory",
        "CREATE TABLE IF NOT EXISTS t AS u",
    ],
)
def test_a_statement_that_would_not_be_replicated_is_refused(statement: str) -> None:
    with pytest.raises(ValueError, match=r"cannot be run on a cluster|has no line of its own"):
        on_cluster(statement, "db", "c")


# ---- What a server is sent ----


def test_every_request_carries_what_consistency_depends_on(
    front: Front, server: Connect, write_rows: Callable[..., Path]
) -> None:
    balance = dict.fromkeys(PIPELINE_BALANCE.names, 1) | {"lineage": "l", "writer": "w", "shard": "s"}
    path = write_rows("pipeline_balance", [balance])
    with server() as client:
        begun = len(front.requests)
        migrate(client)
        term = take_term(client, "l")
        for _ in range(2):
            insert_arrow_file(client, "pipeline_balance", PIPELINE_BALANCE.names, path, "token")
        check_term(client, term)
        assert client.rows("SELECT sum(read) FROM pipeline_balance") == [(1,)]
        sent = front.requests[begun:]
    with server(readonly=True) as reader:
        begun = len(front.requests)
        check_schema(reader)
        assert reader.answer("SELECT count() AS n FROM usage_by_month").rows == [[0]]
        sent += front.requests[begun:]
    for query, parameters in sent:
        assert CLUSTER_SETTINGS.items() <= parameters.items(), query
    made = [query for query, _ in front.requests if query.startswith(("CREATE", "ALTER"))]
    assert len(made) == len(STATEMENTS) + 1
    assert all(f" ON CLUSTER `{CLUSTER}`" in query for query in made)


def test_a_server_alone_is_sent_nothing_of_it(front: Front, server: Connect) -> None:
    with server(None) as client:
        migrate(client)
        take_term(client, "l")
    for query, parameters in front.requests:
        assert not CLUSTER_SETTINGS.keys() & parameters.keys()
        assert "CLUSTER" not in query


def test_an_insert_waits_for_its_turn(
    front: Front, server: Connect, write_rows: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_rows("rollup_day", [{"customer": "acme", "events": 2}])
    columns = ROLLUPS["rollup_day"].names
    with server() as client:
        migrate(client)
        front.faults.append(Fault("error", times=3, code=286, match="INSERT"))
        insert_arrow_file(client, "rollup_day", columns, path, "token")
        assert (front.met, client.rows("SELECT sum(events) FROM rollup_day")) == (3, [(2,)])
        front.faults.append(Fault("error", times=1, code=286, match="INSERT INTO fence"))
        take_term(client, "l")
        assert front.met == 4
        monkeypatch.setattr(flow.store.client, "_TURN_WAIT_S", 0)
        front.faults.append(Fault("error", times=1, code=286))
        with pytest.raises(StoreUnavailable, match="Another quorum insert has been already started"):
            insert_arrow_file(client, "rollup_day", columns, path, "token-2")


# ---- What is refused ----


def test_clusters_that_cannot_hold_the_tables(front: Front, server: Connect) -> None:
    with server("other") as client, pytest.raises(StoreError, match="knows no cluster other; define it"):
        check_cluster(client)
    with server() as client:
        check_cluster(client)
        front.shards = 2
        with pytest.raises(RefusedStart, match="cluster billing has 2 shards, and every server has to hold all rows"):
            migrate(client)
        front.shards = 1
        front.macro = "shard"
        with pytest.raises(StoreError, match="has no macro `replica`"):
            migrate(client)
        assert not [query for query, _ in front.requests if query.startswith("CREATE")]


def test_tables_stay_what_they_were_made_as(front: Front, server: Connect) -> None:
    with server(None) as alone, server() as member:
        migrate(alone)
        for start in (migrate, check_schema):
            with pytest.raises(
                RefusedStart, match=r"these tables are not replicated: .*rollup_day.*; .*another database"
            ):
                start(member)
        alone.command(f"DROP DATABASE {alone.database}")
        migrate(member)
        for start in (migrate, check_schema):
            with pytest.raises(
                RefusedStart, match=r"these tables are replicated: .*rollup_day.*; add `\?cluster=NAME`"
            ):
                start(alone)
        migrate(member)
        assert set(TABLES) <= {str(name) for (name,) in member.rows("SHOW TABLES")}


# ---- What a server must be and allow, for doctor ----


def test_a_server_that_can_do_all_passes(server: Connect) -> None:
    for cluster in (CLUSTER, None):
        with server(cluster) as client:
            check_server(client)
            assert server_version(client) >= VERSION_TESTED


def test_what_a_server_lacks_is_named(server: Connect, new_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    with server() as client, monkeypatch.context() as patch:
        patch.setitem(CLUSTER_SETTINGS, "insert_dozen", "1")
        with pytest.raises(StoreError, match=r"not know insert_dozen, on which .*; upgrade ClickHouse to 26\.9"):
            check_server(client)
    with connect(new_store) as reader:
        reader.native.set_client_setting("readonly", "2")  # a user that may only read
        with pytest.raises(StoreError, match=r"no privilege INSERT ON `test_\d+`\.\*, CREATE .*; GRANT INSERT ON"):
            check_server(reader)
