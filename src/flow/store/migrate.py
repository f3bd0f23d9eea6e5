"""Creating and upgrading the tables: numbered SQL files, each applied once, not edited after a release."""

import re
from importlib import resources

from ..errors import RefusedStart, StoreError
from .client import StoreClient
from .replicated import check_cluster, check_engines, on_cluster

_FILE_NAME = re.compile(r"(\d{3})_\w+\.sql")
_VERSION_TABLE = """
CREATE TABLE IF NOT EXISTS schema_version (
    version UInt32,
    applied DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
)
ENGINE = MergeTree
ORDER BY version
SETTINGS fsync_after_insert = 1, fsync_part_directory = 1
"""


def migrate(client: StoreClient) -> None:
    """Create the database and bring its tables to the version of this program; does nothing if they are.

    Every statement may be repeated, so a migration that was cut short is simply run again.

    Raises:
        StoreUnavailable: a server of the cluster did not do its part yet; repeat it.
        StoreError: the server cannot hold the tables.
        RefusedStart: the tables were made by a newer version of Tallyflow, or not for the cluster of the config.
    """
    if client.cluster is not None:
        check_cluster(client)
    _define(client, f"CREATE DATABASE IF NOT EXISTS `{client.database}`")
    client.use_database()
    check_engines(client)
    _define(client, _VERSION_TABLE)
    current = _version(client)
    steps = _steps()
    _refuse_newer(client, current, max(steps))
    for version in sorted(steps):
        if version > current:
            for statement in steps[version]:
                _define(client, statement)
    if current < max(steps):
        client.command(f"INSERT INTO schema_version (version) VALUES ({max(steps)})")


def check_schema(client: StoreClient) -> None:
    """Make a connection that only reads ready: use our database, and check that its tables are the ones we
    know.

    Raises:
        StoreError: the store has no tables of ours yet, or ones of an older version.
        RefusedStart: the tables were made by a newer version of Tallyflow, or not for the cluster of the config.
    """
    check_engines(client)
    found = client.rows(
        "SELECT count() FROM system.tables WHERE database = {database:String} AND name = 'schema_version'",
        {"database": client.database},
    )
    current = 0
    if found[0][0]:
        client.use_database()
        current = _version(client)
    if current == 0:
        raise StoreError(f"store {client.label}: holds no Tallyflow tables yet; run `tallyflow run` first")
    newest = max(_steps())
    _refuse_newer(client, current, newest)
    if current < newest:
        raise StoreError(
            f"store {client.label}: its tables are of version {current}, this program needs {newest}; "
            "`tallyflow run` upgrades them"
        )


def _define(client: StoreClient, statement: str) -> None:
    """Runs a statement of ours that makes or changes tables, everywhere it has to be run."""
    if client.cluster is not None:
        statement = on_cluster(statement.strip(), client.database, client.cluster)
    client.command(statement)


def _version(client: StoreClient) -> int:
    return int(client.rows("SELECT max(version) FROM schema_version")[0][0])


def _refuse_newer(client: StoreClient, current: int, newest: int) -> None:
    if current > newest:
        raise RefusedStart(
            f"store {client.label}: its tables are of version {current}, made by a newer Tallyflow; "
            f"this one knows up to {newest}: upgrade it, or name another database in `store:`"
        )


def _steps() -> dict[int, list[str]]:
    """The statements of each file of ddl/, by version."""
    steps = {}
    for file in resources.files(__package__).joinpath("ddl").iterdir():
        match = _FILE_NAME.fullmatch(file.name)
        if match:
            if int(match[1]) in steps:
                raise ValueError(f"ddl/{file.name}: another file has this number")
            sql = "\n".join(line for line in file.read_text("utf-8").splitlines() if not line.startswith("--"))
            steps[int(match[1])] = [part.strip() for part in sql.split(";\n") if part.strip(" \n;")]
    return steps
