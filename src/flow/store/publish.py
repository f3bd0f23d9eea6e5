"""Publishing a frozen block: one Arrow IPC file becomes one insert that may be repeated without harm."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import StoreError
from .client import StoreClient

ROWS_PER_FILE_MAX = 1_000_000
"""Longest file that is still inserted as one block a partition, below the engine's 1,048,449 rows."""

_BLOCK_ROWS = "1048449"
_GLOB_SIGNS = frozenset("*?{}[]")

INSERT_SETTINGS: dict[str, str] = {
    # The token, not the content, decides whether a block has been here: two blocks may well be equal.
    "insert_deduplicate": "1",
    # One file is one block a partition, whatever it weighs: a block is inserted whole or not at all, a
    # statement is not.
    "max_insert_block_size": _BLOCK_ROWS,
    "min_insert_block_size_rows": _BLOCK_ROWS,
    "min_insert_block_size_bytes": "0",
    "max_threads": "1",
    "max_insert_threads": "1",
    # A backfill may touch any number of months.
    "max_partitions_per_insert_block": "0",
    # The sink has combined the rows already; sorting and summing them again on insert would be work for
    # nothing.
    "optimize_on_insert": "0",
    "async_insert": "0",
    # A NULL or a missing column is a bug of ours, never a zero.
    "input_format_null_as_default": "0",
    "input_format_defaults_for_omitted_fields": "0",
    "input_format_arrow_allow_missing_columns": "0",
    "input_format_parallel_parsing": "0",
}
"""Everything that the effect of an insert depends on; nothing is left to the server's profile."""


def insert_arrow_file(client: StoreClient, table: str, columns: Sequence[str], path: Path, token: str) -> None:
    """Insert the rows of an Arrow IPC file; with a token that the table has seen this does nothing.

    Args:
        path: at most ROWS_PER_FILE_MAX rows of `tables.TABLES[table]`; for an embedded store, absolute.
        token: names the block. It is remembered by partition, for the table's last 10,000 blocks, also over
            restarts.
    Raises:
        StoreUnavailable: whether the rows arrived is unknown; repeat with the same token.
        StoreError: repeating will not help.
    """
    if not token:
        raise StoreError(f"insert into {table}: a block needs a token")
    if client.embedded and _GLOB_SIGNS & set(str(path)):
        # The engine reads these signs as a pattern and would insert other files.
        raise StoreError(
            f"{path}: the embedded store cannot read paths with any of * ? {{ }} [ ]; rename the directory"
        )
    settings = {**INSERT_SETTINGS, "insert_deduplication_token": token}
    if client.knows_setting("deduplicate_insert"):  # supersedes insert_deduplicate from 26.x on
        settings["deduplicate_insert"] = "enable"
    client.insert_file(table, columns, path, settings)
