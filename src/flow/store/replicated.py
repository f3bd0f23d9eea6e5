"""Tables on a cluster of ClickHouse servers: each of its servers holds all of them, kept equal by ClickHouse.

The files of ddl/ say what a table is on one server; here they become what it is on a cluster. The cluster has one
shard: every row is on every replica, so that a view is whole wherever it is asked. A write is answered once most
replicas have it, and read from a replica that has every write which was answered before (CLUSTER_SETTINGS).
"""

import re

from ..errors import RefusedStart, StoreError
from .client import StoreClient

_TARGET = re.compile(
    r"(CREATE DATABASE IF NOT EXISTS|CREATE TABLE IF NOT EXISTS|CREATE OR REPLACE VIEW|ALTER TABLE"
    r"|DROP TABLE IF EXISTS|DROP VIEW IF EXISTS) `?(\w+)`?"
)
_ENGINE = re.compile(r"^ENGINE = (\w*MergeTree)(?:\((.*)\))?$", re.MULTILINE)
_SETTINGS = {
    "non_replicated_deduplication_window = ": "replicated_deduplication_window_seconds = {window_s}, "
    "replicated_deduplication_window = ",
    # A replica that counts for the quorum has the rows on its disk.
    "fsync_after_insert = 1": "fsync_after_insert = 1, min_compressed_bytes_to_fsync_after_fetch = 1",
}
WINDOW_S = 30 * 86_400
"""How long Keeper remembers a token, counted back from the latest insert into the table and not from now: where nobody
inserts, nothing is forgotten, however long an outage lasts."""


def on_cluster(statement: str, database: str, cluster: str) -> str:
    """The same statement for all servers of a cluster, with replicated tables.

    Replicas find each other by a path of names. ClickHouse's default is one of random ids, with which a table that is
    made later on a server that was added would silently be another one.

    Raises:
        ValueError: a statement of a kind that is not known here.
    """
    target = _TARGET.match(statement)
    if target is None:
        raise ValueError(f"cannot be run on a cluster: {statement.splitlines()[0]}")
    name = target[2]

    def replicated(engine: re.Match[str]) -> str:
        path = f"/clickhouse/tallyflow/{cluster}/{database}/{name}"
        arguments = ", ".join([f"'{path}'", "'{replica}'", *([engine[2]] if engine[2] else [])])
        return f"ENGINE = Replicated{engine[1]}({arguments})"

    rest, engines = _ENGINE.subn(replicated, statement[target.end() :])
    if engines != target[1].startswith("CREATE TABLE"):
        raise ValueError(f"table {name} has no line of its own `ENGINE = ...MergeTree`")
    for setting, here in _SETTINGS.items():
        rest = rest.replace(setting, here.format(window_s=WINDOW_S))
    return f"{target[0]} ON CLUSTER `{cluster}`{rest}"


def check_cluster(client: StoreClient) -> None:
    """Returns if the server can hold replicated tables for the cluster of the config.

    Raises:
        StoreError: it knows no such cluster, or not which of the replicas it is.
        RefusedStart: the cluster has several shards.
    """
    cluster = client.cluster
    found = client.rows(
        "SELECT uniqExact(shard_num) FROM system.clusters WHERE cluster = {cluster:String}", {"cluster": cluster}
    )
    shards = int(found[0][0])
    if shards == 0:
        raise StoreError(
            f"store {client.label}: knows no cluster {cluster}; define it in the server's `remote_servers` (SHOW "
            "CLUSTERS lists them), or change `?cluster=` in `store:`"
        )
    if shards > 1:
        raise RefusedStart(
            f"store {client.label}: cluster {cluster} has {shards} shards, and every server has to hold all rows; "
            "name a cluster of one shard in `?cluster=`, whose replicas are these servers"
        )
    if not client.rows("SELECT count() FROM system.macros WHERE macro = 'replica'")[0][0]:
        raise StoreError(
            f"store {client.label}: has no macro `replica`, by which replicas tell each other apart; define it in the "
            "server's `macros`, another value on each server"
        )


def check_engines(client: StoreClient) -> None:
    """Returns if our tables are replicated just if the config names a cluster.

    Raises:
        RefusedStart: they are not; writing and reading them would then be right on one server only.
    """
    found = client.rows(
        "SELECT name FROM system.tables WHERE database = {database:String} AND engine LIKE '%MergeTree' "
        "AND startsWith(engine, 'Replicated') != {replicated:UInt8} ORDER BY name",
        {"database": client.database, "replicated": int(client.cluster is not None)},
    )
    if not found:
        return
    names = ", ".join(str(name) for (name,) in found)
    if client.cluster is None:
        raise RefusedStart(
            f"store {client.label}: these tables are replicated: {names}; add `?cluster=NAME` to `store:`, or a server "
            "that is behind the others could be believed"
        )
    raise RefusedStart(
        f"store {client.label}: these tables are not replicated: {names}; tables stay what they were made as: name "
        "another database in `store:` and replay the ledger into it"
    )
