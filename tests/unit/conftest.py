"""Fixtures for tests that need a store: an embedded one, whose tables are emptied behind every test."""

from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import ipc

from flow.config import Store
from flow.store import StoreClient, connect, insert_arrow_file, migrate
from flow.store.tables import TABLES

_databases = count()
_tokens = count()
WriteRows = Callable[..., Path]


@pytest.fixture(scope="session")
def store_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def new_store(store_path: Path) -> Store:
    """A store whose database does not exist yet."""
    return Store(kind="chdb", path=store_path, database=f"test_{next(_databases)}")


@pytest.fixture
def new_client(new_store: Store) -> Iterator[StoreClient]:
    """A connection to tables of its own, which may be changed."""
    with connect(new_store) as client:
        migrate(client)
        yield client
        client.command(f"DROP DATABASE {new_store.database}")


@pytest.fixture(scope="session")
def store(store_path: Path) -> Store:
    """A store with the tables that tests share."""
    store = Store(kind="chdb", path=store_path)
    with connect(store) as client:
        migrate(client)
    return store


@pytest.fixture
def client(store: Store) -> Iterator[StoreClient]:
    """A connection to empty tables."""
    with connect(store) as client:
        client.use_database()
        yield client
        filled = "SELECT name FROM system.tables WHERE database = {d:String} AND total_rows > 0"
        for (name,) in client.rows(filled, {"d": store.database}):
            if name != "schema_version":
                client.command(f"TRUNCATE TABLE {store.database}.{name}")


@pytest.fixture
def write_rows(tmp_path: Path) -> WriteRows:
    """write_rows(table, rows) -> an Arrow file; a row is a dict, 128-bit values and amounts are ints, meters a list."""
    numbers = count()

    def write(table: str, rows: Sequence[dict[str, Any]]) -> Path:
        schema = TABLES[table]
        path = tmp_path / f"block-{next(numbers)}.arrow"
        columns = [_column(field, [row.get(field.name) for row in rows]) for field in schema]
        with pa.OSFile(str(path), "wb") as file, ipc.new_file(file, schema) as writer:
            writer.write_batch(pa.RecordBatch.from_arrays(columns, schema=schema))
        return path

    return write


@pytest.fixture
def insert_rows(client: StoreClient, write_rows: WriteRows) -> Callable[[str, Sequence[dict[str, Any]]], None]:
    """insert_rows(table, rows): one block, with a token of its own."""

    def insert(table: str, rows: Sequence[dict[str, Any]]) -> None:
        path = write_rows(table, rows)
        insert_arrow_file(client, table, TABLES[table].names, path, f"test-{next(_tokens)}")

    return insert


def _column(field: pa.Field, values: list[Any]) -> pa.Array:
    if field.type == pa.binary(16) or pa.types.is_decimal(field.type):
        # By bytes: pyarrow refuses a decimal past 38 digits, a sum of 128 bits does not.
        wide = [(value or 0) % 2**128 for value in values]
        buffer = pa.py_buffer(b"".join(value.to_bytes(16, "little") for value in wide))
        return pa.Array.from_buffers(field.type, len(values), [None, buffer])
    if field.name == "meters":
        values = [",".join(value or ["", "", "", ""]) for value in values]
    if pa.types.is_dictionary(field.type):
        return pa.array([value or "" for value in values], pa.string()).dictionary_encode()
    absent: object = "" if pa.types.is_string(field.type) else 0
    return pa.array([absent if value is None else value for value in values], field.type)
