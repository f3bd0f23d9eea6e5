"""What a ClickHouse server must be and allow, for `tallyflow doctor` to say before a run meets it."""

from ..errors import StoreError
from .client import CLUSTER_SETTINGS, SETTINGS, StoreClient
from .publish import INSERT_SETTINGS
from .replicated import check_cluster

VERSION_TESTED = (26, 9)
"""The oldest server that our tests run on."""

PRIVILEGES = ("SELECT", "INSERT", "CREATE DATABASE", "CREATE TABLE", "CREATE VIEW", "DROP VIEW")
"""On the database; replacing a view takes dropping it."""


def check_server(client: StoreClient) -> None:
    """Returns if a run can work with this server; changes nothing, but takes a connection that may write.

    Raises:
        StoreError: it lacks a setting that results depend on, a privilege, or what the cluster of the config needs.
        RefusedStart: the cluster has several shards.
    """
    settings = [*SETTINGS, *INSERT_SETTINGS, "insert_deduplication_token"]
    if client.cluster is not None:
        settings += CLUSTER_SETTINGS
    if unknown := [name for name in settings if not client.knows_setting(name)]:
        raise StoreError(
            f"store {client.label}: does not know {', '.join(unknown)}, on which exact results depend; upgrade "
            f"ClickHouse to {VERSION_TESTED[0]}.{VERSION_TESTED[1]}"
        )
    on = f"`{client.database}`.*"
    wanted = [(privilege, on) for privilege in PRIVILEGES]
    if client.cluster is not None:
        wanted.append(("CLUSTER", "*.*"))
    missing = [f"{privilege} ON {on}" for privilege, on in wanted if not _granted(client, privilege, on)]
    if missing:
        raise StoreError(
            f"store {client.label}: the user has no privilege {', '.join(missing)}; "
            f"{', '.join(f'GRANT {one} TO the user' for one in missing)}"
        )
    if client.cluster is not None:
        check_cluster(client)


def server_version(client: StoreClient) -> tuple[int, ...]:
    """Year and month of the server's release. Raises StoreError."""
    return tuple(int(part) for part in str(client.rows("SELECT version()")[0][0]).split(".")[:2])


def _granted(client: StoreClient, privilege: str, on: str) -> bool:
    return bool(client.rows(f"CHECK GRANT {privilege} ON {on}")[0][0])
