"""A connection to the store, embedded (chdb) or a ClickHouse server over HTTP, with one set of settings and
errors.

A client serialises its own calls: use one client a thread. Several clients of one process may share an
embedded store; two processes may not, and two embedded stores in one process may not either. The engine
cannot survive a fork: connect only in processes that are not forked afterwards.
"""

import errno
import fcntl
import json
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pyarrow as pa

from ..config import Store
from ..errors import StoreError, TallyflowError


class StoreUnavailable(StoreError):
    """The store did not answer or asked to be tried again: the one StoreError that a retry may mend."""


class StoreBusy(StoreUnavailable):
    """The store answered that it has too much to do. A retry may mend that, but not one without end."""


Parameters = Mapping[str, Any]

SETTINGS: dict[str, str] = {
    # An acknowledged write is a finished write. The engine's own default is to answer before it (async_insert
    # = 1).
    "async_insert": "0",
    "wait_for_async_insert": "1",
    "mutations_sync": "2",
    "alter_sync": "2",
    # Joins must neither invent NULLs nor depend on the server's taste.
    "join_use_nulls": "0",
    "final": "0",
    # Large views spill to disk instead of failing on the memory limit below.
    "max_bytes_before_external_group_by": "536870912",
    "max_bytes_before_external_sort": "536870912",
}
"""Settings that results depend on, passed on every connection whatever the server's profile says."""

CLUSTER_SETTINGS: dict[str, str] = {
    # A write is answered once most replicas have it: the failure of one does not take an answered write away.
    "insert_quorum": "auto",
    "insert_quorum_timeout": "60000",  # ms; the server gives up before we do, and says so
    # A replica that lacks a write which was answered refuses to be read, instead of showing an old fence or a smaller
    # bill. ClickHouse can tell only if a table takes one write at a time.
    "select_sequential_consistency": "1",
    "insert_quorum_parallel": "0",
    "enable_parallel_replicas": "0",
    # A change of tables is done when all servers have done it.
    "distributed_ddl_task_timeout": "180",
    "distributed_ddl_output_mode": "throw",
}
"""Passed as well where the tables are on a cluster."""

ENGINE_OPTIONS: dict[str, str] = {
    # The engine shares the process with the pipeline. By default it would take 90 % of the machine and 5 GB
    # of caches.
    "max_server_memory_usage": str(2 << 30),
    "mark_cache_size": str(64 << 20),
    "index_mark_cache_size": str(16 << 20),
    "uncompressed_cache_size": "0",
    "background_pool_size": "2",
}
"""Options of the embedded engine; the first connection of a process decides."""

_ENGINE = threading.Lock()
"""The first client of a process starts the embedded engine and the last one stops it: one thread at a time."""

_CODES_WORTH_A_RETRY = frozenset(
    {
        159,  # TIMEOUT_EXCEEDED
        203,  # NO_FREE_CONNECTION
        209,  # SOCKET_TIMEOUT
        210,  # NETWORK_ERROR
        236,  # ABORTED
        242,  # TABLE_IS_READ_ONLY (a replica that lost its keeper)
        285,  # TOO_FEW_LIVE_REPLICAS
        286,  # UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE
        289,  # REPLICA_IS_NOT_IN_QUORUM (it is behind the others)
        319,  # UNKNOWN_STATUS_OF_INSERT
        394,  # QUERY_WAS_CANCELLED
        425,  # SYSTEM_ERROR
        999,  # KEEPER_EXCEPTION
    }
)
_CODES_OF_A_BUSY_STORE = frozenset(
    {
        202,  # TOO_MANY_SIMULTANEOUS_QUERIES
        241,  # MEMORY_LIMIT_EXCEEDED
        252,  # TOO_MANY_PARTS
    }
)
_CODES_OF_A_FULL_DISK = frozenset({75, 243})  # CANNOT_WRITE_TO_FILE_DESCRIPTOR, NOT_ENOUGH_SPACE
_CODE_READONLY = 164
_CODE_NOT_OUR_TURN = 286
_TURN_WAIT_S = 5
"""How long an insert waits for those of other processes into the same replicated table, before that is a trouble."""
_keeping: list[tuple[Path, Any]] | None = None
"""The store and a connection of `engine_kept` that nobody uses; None outside of it."""
_CONNECT_TIMEOUT_S = 10
_ANSWER_TIMEOUT_S = 300


@dataclass(frozen=True, slots=True)
class Answer:
    """Rows of a query as they go to JSON: 128-bit and wider integers and decimals are digits in a string."""

    names: list[str]
    types: list[str]
    rows: list[list[Any]]


class StoreClient:
    """One connection; `database` is where unqualified table names are looked up."""

    def __init__(self, native: Any, label: str, database: str, *, embedded: bool, cluster: str | None = None) -> None:
        self.native = native
        self.label = label
        self.database = database
        self.embedded = embedded
        self.cluster = cluster

    def use_database(self) -> None:
        """Look up unqualified names in our database from now on; it has to exist."""
        self.native.database = self.database

    def command(self, sql: str, parameters: Parameters | None = None) -> None:
        """Run a statement that returns nothing of interest."""
        self._in_turn(lambda: self.native.command(sql, parameters=parameters))

    def rows(self, sql: str, parameters: Parameters | None = None) -> list[tuple[Any, ...]]:
        """The rows of a query as Python values: integers int, decimals Decimal, times naive and UTC."""
        try:
            return [tuple(row) for row in self.native.query(sql, parameters=parameters).result_rows]
        except Exception as error:
            raise self._error(error) from error

    def arrow(self, sql: str, parameters: Parameters | None = None) -> pa.Table:
        """The rows of a query as Arrow: text as strings, 128-bit integers as 16 bytes. Raises StoreError."""
        settings = {"output_format_arrow_string_as_string": "1"}
        try:
            body = self.native.raw_query(sql, parameters=parameters, settings=settings, fmt="ArrowStream")
        except Exception as error:
            raise self._error(error) from error
        return pa.ipc.open_stream(body).read_all()

    def answer(self, sql: str, parameters: Parameters | None = None) -> Answer:
        """The rows of a query ready for JSON: times ISO 8601 with Z, wide integers and decimals as text."""
        settings = {
            "output_format_json_quote_64bit_integers": "1",
            "output_format_json_quote_decimals": "1",
            "output_format_json_quote_denormals": "1",
            "output_format_json_validate_utf8": "1",
            "date_time_output_format": "iso",
        }
        try:
            body = self.native.raw_query(sql, parameters=parameters, settings=settings, fmt="JSONCompact")
        except Exception as error:
            raise self._error(error) from error
        try:
            parsed = json.loads(body)
        except ValueError as error:
            # The embedded engine runs `a; b` as one call and answers twice.
            raise StoreError(f"store {self.label}: give one statement at a time") from error
        types = [column["type"] for column in parsed["meta"]]
        rows = parsed["data"]
        for index, column_type in enumerate(types):
            # 64-bit integers come quoted together with the wide ones; only those past 64 bits stay text
            # (DESIGN 3.5).
            if column_type.removeprefix("Nullable(").rstrip(")") in ("Int64", "UInt64"):
                for row in rows:
                    row[index] = row[index] if row[index] is None else int(row[index])
        return Answer([column["name"] for column in parsed["meta"]], types, rows)

    def insert_file(self, table: str, columns: Sequence[str], path: Path, settings: Mapping[str, str]) -> None:
        """Insert an Arrow IPC file as it lies on disk; publish.py says with which settings."""
        if self.embedded:
            names = ", ".join(f"`{name}`" for name in columns)
            pairs = ", ".join(f"{name} = {quote_text(value)}" for name, value in settings.items())
            sql = (
                f"INSERT INTO `{self.database}`.`{table}` ({names}) FROM INFILE {quote_text(str(path))} "
                f"COMPRESSION 'none' SETTINGS {pairs} FORMAT Arrow"
            )
            self._in_turn(lambda: self.native.command(sql))
            return

        def send() -> None:
            with path.open("rb") as file:
                self.native.raw_insert(
                    f"`{self.database}`.`{table}`", list(columns), file, settings=dict(settings), fmt="Arrow"
                )

        self._in_turn(send)

    def knows_setting(self, name: str) -> bool:
        """Whether the engine has a setting of this name."""
        return name in self.native.server_settings

    def close(self) -> None:
        """Close the connection; the embedded engine stops with the last one of the process."""
        with _ENGINE if self.embedded else nullcontext():
            self.native.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _in_turn(self, write: Callable[[], object]) -> None:
        """Runs what may write. A replicated table takes one insert at a time and refuses others meanwhile, so an insert
        of another process is waited for."""
        give_up_at = time.monotonic() + _TURN_WAIT_S
        while True:
            try:
                write()
                return
            except Exception as error:
                if getattr(error, "code", None) != _CODE_NOT_OUR_TURN or time.monotonic() >= give_up_at:
                    raise self._error(error) from error
            time.sleep(random.uniform(0.01, 0.05))  # nobody tells when the turn is ours; never in step with others

    def _error(self, error: Exception) -> TallyflowError:
        return translate(error, self.label)


def connect(store: Store, *, readonly: bool = False, threads: int | None = None) -> StoreClient:
    """Open the store.

    Args:
        readonly: refuse every statement that could change something, and create nothing: a store that does
            not exist yet is an error then. Without it the directory of an embedded store is made; `migrate`
            makes the tables.
        threads: how many the store may use for one statement; None: as it is set up.
    Raises:
        StoreUnavailable: the server does not answer.
        StoreError: the store is in use by another process, not writable, or refuses the user.
    """
    client = _connect_embedded(store, readonly) if store.kind == "chdb" else _connect_server(store)
    try:
        for name, value in (SETTINGS | (CLUSTER_SETTINGS if store.cluster is not None else {})).items():
            if client.knows_setting(name):
                client.native.set_client_setting(name, value)
        if threads is not None:
            client.native.set_client_setting("max_threads", str(threads))
        if readonly:
            # 2 and not 1: settings of a single query (a format, a limit) may still be chosen, data may not be
            # changed.
            client.native.set_client_setting("readonly", "2")
    except Exception as error:
        client.close()
        raise translate(error, client.label) from error
    return client


@contextmanager
def engine_kept() -> Iterator[None]:
    """While inside, an embedded engine that was started stays up between connections: a start takes a tenth of
    a second, and a run connects four times. It stops when another store is opened, or by `release_engine`."""
    global _keeping
    before, _keeping = _keeping, []
    try:
        yield
    finally:
        release_engine()
        _keeping = before


def release_engine() -> None:
    """Stops an engine that only `engine_kept` keeps up: another process may open the store now."""
    while _keeping:
        _, native = _keeping.pop()
        with _ENGINE:
            native.close()


def quote_text(text: str) -> str:
    """A SQL string literal."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def translate(error: Exception, label: str) -> TallyflowError:
    """One clear line for what the engine or the client library raised."""
    if isinstance(error, TallyflowError):
        return error
    code = getattr(error, "code", None)
    text = first_line(str(error))
    if code == _CODE_READONLY:
        return StoreError(
            f"store {label}: this connection only reads, and the statement would change something; `tallyflow run` "
            "needs a server and a user that may write"
        )
    if code in _CODES_OF_A_FULL_DISK or "No space left on device" in text:
        return StoreError(f"store {label}: the disk is full; free some space, then run again: nothing is lost")
    if code in _CODES_OF_A_BUSY_STORE:
        return StoreBusy(f"store {label}: {text}")
    if code in _CODES_WORTH_A_RETRY:
        return StoreUnavailable(f"store {label}: {text}")
    if code is None and type(error).__name__ == "OperationalError":  # clickhouse-connect: no answer over HTTP
        return StoreUnavailable(f"store {label}: no answer ({text}); is the server up, and the address right?")
    return StoreError(f"store {label}: {text}")


def first_line(message: str) -> str:
    """The engine's message without its code, version and stack trace."""
    lines = message.strip().split("\n")
    line = next((line for line in lines if "DB::Exception: " in line), lines[0]).rsplit("DB::Exception: ", 1)[-1]
    for end in (". Stack trace", ", Stack trace", " In scope ", " (version ", " (for url "):
        line = line.split(end)[0]
    return line.rstrip(":. ")


def _connect_server(store: Store) -> StoreClient:
    import clickhouse_connect

    # It reports what it also raises; without a handler that would come out on stderr.
    logging.getLogger("clickhouse_connect").addHandler(logging.NullHandler())
    try:
        native = clickhouse_connect.get_client(
            host=store.host,
            port=store.port,
            username=store.user or "default",
            password=store.password.get_secret_value() if store.password is not None else "",
            secure=store.secure,
            connect_timeout=_CONNECT_TIMEOUT_S,
            send_receive_timeout=_ANSWER_TIMEOUT_S,
            autogenerate_session_id=False,  # a session would allow one query at a time
        )
    except Exception as error:
        raise translate(error, store.url) from error
    return StoreClient(native, store.url, store.database, embedded=False, cluster=store.cluster)


def _connect_embedded(store: Store, readonly: bool) -> StoreClient:
    assert store.path is not None  # of every chdb store; config.py sees to it
    path, label = Path(os.path.realpath(store.path)), store.url
    if readonly:
        if not (path / "metadata").is_dir():
            raise StoreError(f"store {label}: holds no Tallyflow tables yet; run `tallyflow run` first")
    else:
        _make_directory(path, label)
    _refuse_if_in_use(path, label)

    # Importing the engine takes 0.2 GB and part of a second: only the process that opens a store pays for it.
    import clickhouse_connect

    def start() -> Any:
        return clickhouse_connect.get_client(interface="chdb", path=str(path), chdb_options=dict(ENGINE_OPTIONS))

    if _keeping and _keeping[0][0] != path:
        release_engine()
    try:
        native = start()
        if _keeping is not None and not _keeping:
            _keeping.append((path, start()))
    except Exception as error:
        raise _open_error(error, path, label) from error
    return StoreClient(native, label, store.database, embedded=True)


def _make_directory(path: Path, label: str) -> None:
    try:
        path.mkdir(parents=True, exist_ok=True)
        # The engine ends the process, or prints a stack trace, when it cannot write; ask first.
        probe = path / ".writable"
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        reason = {
            errno.EACCES: "no permission to write there",
            errno.EROFS: "the file system is read-only",
            errno.ENOSPC: "the disk is full",
            errno.EEXIST: "that is a file, not a directory",
            errno.ENOTDIR: "part of that path is a file, not a directory",
        }.get(error.errno or 0, os.strerror(error.errno or 0))
        raise StoreError(f"store {label}: {reason}; choose another directory in `store:`, or mend this one") from error


def _refuse_if_in_use(path: Path, label: str) -> None:
    """Ask for the engine's own lock before it does: its message names neither the reason nor the owner."""
    status = path / "status"
    try:
        descriptor = os.open(status, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(f"store {label}: no permission to write there; run as the owner of the directory") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = _owner(status)
        if owner != os.getpid():  # our own process may open a store many times
            raise _in_use(label, owner) from None
    finally:
        os.close(descriptor)


def _owner(status: Path) -> int | None:
    with suppress(OSError, ValueError, IndexError):
        return int(status.read_text().split("PID:")[1].split()[0])
    return None


def _in_use(label: str, owner: int | None) -> StoreError:
    who = f"another process (pid {owner})" if owner is not None else "another process"
    return StoreError(
        f"store {label}: in use by {who}; wait for it or stop it: an embedded store serves one process "
        "at a time (a ClickHouse server, `store: clickhouse://...`, serves many)"
    )


def _open_error(error: Exception, path: Path, label: str) -> TallyflowError:
    text = str(error)
    if "already initialized with path" in text:
        return StoreError(f"store {label}: this process has another embedded store open; it can hold one at a time")
    if "Error initializing EmbeddedServer: ." in text:
        return _in_use(label, _owner(path / "status"))
    return translate(error, label)
