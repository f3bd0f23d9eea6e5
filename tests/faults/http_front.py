"""ClickHouse's HTTP interface in front of the embedded engine: what is sent is really executed, and the network is bad.

It plays a server of a cluster as well: a statement ON CLUSTER is parsed by the engine as it is, then run without what
needs other servers, since the embedded engine cannot replicate. What then differs from a cluster is said in
docs/guarantees.md.

`Front` serves from threads of this process. `FrontProcess` runs one in a process of its own, as a server is, so that
what it stores outlives the runs that write to it. Spoken is what clickhouse-connect needs for our statements.
"""

import json
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from clickhouse_connect.driver.exceptions import DatabaseError

from flow.config import Store
from flow.store import StoreClient, connect
from flow.store.client import quote_text
from flow.store.publish import INSERT_SETTINGS

Parameters = dict[str, str]
CLUSTER = "billing"
"""The cluster that the server says it belongs to."""
_REPLICATED = re.compile(r"CREATE TABLE IF NOT EXISTS `?(\w+)`? ON CLUSTER .*\nENGINE = Replicated", re.DOTALL)
BLOCK = " FORMAT Arrow"
"""What stands in every insert of a block, and in nothing else."""

ERRORS = {
    164: "Cannot execute query in readonly mode. (READONLY)",
    241: "(total) memory limit exceeded: would use 3.00 GiB, maximum: 2.00 GiB. (MEMORY_LIMIT_EXCEEDED)",
    243: "Cannot reserve 1.00 MiB, not enough space. (NOT_ENOUGH_SPACE)",
    285: "Number of alive replicas (1) is less than requested quorum (2/3). (TOO_FEW_LIVE_REPLICAS)",
    286: "Another quorum insert has been already started. (UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE)",
    289: "Replica doesn't have part 202611_0_0_0 which was successfully written to quorum of other replicas. "
    "(REPLICA_IS_NOT_IN_QUORUM)",
    252: "Too many parts (3000). Merges are processing significantly slower than inserts. (TOO_MANY_PARTS)",
    469: "Constraint `somebody_added` for table t is violated at row 1. (VIOLATED_CONSTRAINT)",
}
"""What a server says, by code."""


@dataclass
class Fault:
    """What happens to the next `times` requests whose query holds `match`."""

    kind: Literal["error", "stall", "lose", "drop"]
    """Answer `code`; wait; close the line instead of executing it; execute it and close the line."""
    times: int = 1
    match: str = BLOCK
    code: int = 0
    seconds: float = 0


class Front:
    """The server, in threads of this process."""

    def __init__(self, client: StoreClient, host: str = "127.0.0.1") -> None:
        self._client = client
        self._host = host
        self._lock = Lock()
        self._server: ThreadingHTTPServer | None = None
        self._thread: Thread | None = None
        self.port = 0
        self.faults: list[Fault] = []
        self.met = 0
        """Requests that a fault has met."""
        self.inserts: list[Parameters] = []
        """The parameters of every insert of a block that was executed."""
        self.requests: list[tuple[str, Parameters]] = []
        """Every query that was executed, as it was sent, and its parameters."""
        self.shards = 1
        """Of the cluster."""
        self.macro = "replica"
        """The one that is defined."""
        self._replicated: set[str] = set()

    def __enter__(self) -> Self:
        self.accept()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.refuse()

    def accept(self) -> None:
        """Begins to listen, again on the same port."""
        front = self

        class Handler(_Handler):
            def answer(self, parameters: Parameters, body: bytes) -> bytes | None:
                return front.answer(parameters, body)

        self._server = _Server((self._host, self.port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def refuse(self) -> None:
        """No new connections, and no answers on the old ones."""
        if self._server is not None and self._thread is not None:
            server, self._server = self._server, None
            server.shutdown()
            server.server_close()
            self._thread.join()

    def answer(self, parameters: Parameters, body: bytes) -> bytes | None:
        """The answer to a request, None for none. Raises DatabaseError."""
        query = parameters.pop("query", "") or body.decode()
        with self._lock:
            fault = next((fault for fault in self.faults if fault.times > 0 and fault.match in query), None)
            if fault is not None:
                fault.times -= 1
                self.met += 1
        if fault is not None and fault.kind == "error":
            raise refusal(fault.code)
        if fault is not None and fault.kind == "stall":
            time.sleep(fault.seconds)
        if self._server is None or (fault is not None and fault.kind == "lose"):
            return None
        with self._lock:
            native = self._client.native
            before, native.database = native.database, parameters.get("database", "default")
            self.requests.append((query, dict(parameters)))
            try:
                found = self._execute(self._on_one_server(query), parameters, body)
            finally:
                native.database = before
        return None if fault is not None and fault.kind == "drop" else found

    def _on_one_server(self, query: str) -> str:
        """A query as one server that has no Keeper can run it."""
        if " ON CLUSTER " in query:
            self._client.native.raw_query(f"EXPLAIN AST {query}")
            self._replicated |= set(_REPLICATED.findall(query))
        names = ", ".join(map(quote_text, ["", *self._replicated]))
        for written, here in (
            (rf" ON CLUSTER `{CLUSTER}`", ""),
            (r"ENGINE = Replicated(\w+)\('[^']*', '{replica}'(?:, )?", r"ENGINE = \1("),
            (r"replicated_deduplication_window_seconds = \d+, ", "non_"),
            (
                r"FROM system\.clusters",
                f"FROM (SELECT '{CLUSTER}' AS cluster, number AS shard_num FROM numbers({self.shards}))",
            ),
            (r"FROM system\.macros", f"FROM (SELECT {quote_text(self.macro)} AS macro)"),
            (
                r"FROM system\.tables",
                f"FROM (SELECT name, database, if(name IN ({names}), 'Replicated', '') || engine AS engine "
                "FROM system.tables)",
            ),
        ):
            query = re.sub(written, here, query)
        return query

    def _execute(self, query: str, parameters: Parameters, body: bytes) -> bytes:
        native = self._client.native
        if not query.endswith(BLOCK):
            given = {key.removeprefix("param_"): value for key, value in parameters.items() if "param_" in key}
            wanted = {key: parameters[key] for key in parameters if key.startswith(("output_format_", "date_time_"))}
            return bytes(native.raw_query(query, parameters=given, settings=wanted))
        self.inserts.append(parameters)
        settings = ", ".join(
            f"{name} = {quote_text(value)}"
            for name, value in parameters.items()
            if name in INSERT_SETTINGS or "dedup" in name
        )
        target = query.removesuffix(BLOCK)
        with tempfile.NamedTemporaryFile() as file:
            file.write(body)
            file.flush()
            native.command(
                f"{target} FROM INFILE {quote_text(file.name)} COMPRESSION 'none' SETTINGS {settings} FORMAT Arrow"
            )
        return b""


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that is killed hangs up; anything else is told."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, parameters: Parameters, body: bytes) -> bytes | None:
        raise NotImplementedError

    def do_POST(self) -> None:
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        try:
            answer = self.answer(parameters, self._body())
            if answer is None:
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            self.send_response(200)
        except DatabaseError as error:
            answer = str(error).encode()
            self.send_response(500)
            self.send_header("X-ClickHouse-Exception-Code", str(error.code))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST  # noqa: N815 - the base class names it

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self._read(int(self.headers["Content-Length"]))
        body, size = bytearray(), 1
        while size and self.headers.get("Transfer-Encoding") == "chunked":
            size = int(self.rfile.readline() or self._read(1), 16)
            body += self._read(size)
            self.rfile.readline()
        return bytes(body)

    def _read(self, size: int) -> bytes:
        """So many bytes; a client that hangs up before has said nothing."""
        body = self.rfile.read(size)
        if len(body) < size:
            raise ConnectionAbortedError("the client hung up")
        return body

    def log_message(self, *arguments: Any) -> None:
        """Tests have nothing to read there."""


def refusal(code: int) -> DatabaseError:
    """What a server answers with this code."""
    error = DatabaseError(f"Code: {code}. DB::Exception: {ERRORS[code]} (version 26.9.1.1)")
    error.code = code
    return error


# ---- In a process of its own ----


class FrontProcess:
    """A server in a process of its own; every method returns once the server has done it."""

    def __init__(self, folder: Path, host: str = "127.0.0.1", prefix: Sequence[str] = ()) -> None:
        """`prefix` is what the command is run with, in a network where `host` is an address."""
        self._host = host
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-m", "tests.faults.http_front", str(folder), host],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).resolve().parents[2],
            text=True,
        )
        self.port: int = self._ask("port")

    @property
    def url(self) -> str:
        return f"clickhouse://default:@{self._host}:{self.port}/tallyflow"

    def refuse(self) -> None:
        """No new connections, and no answers on the old ones."""
        self._ask("refuse")

    def accept(self) -> None:
        """The server is back."""
        self._ask("accept")

    def fault(self, fault: Fault) -> None:
        """Adds a fault."""
        self._ask("fault", asdict(fault))

    def heal(self) -> None:
        """Drops all faults."""
        self._ask("heal")

    def met(self) -> int:
        """Requests that a fault has met so far."""
        return int(self._ask("met"))

    def tokens(self) -> list[str]:
        """The token of every insert that was executed, in order."""
        return [parameters["insert_deduplication_token"] for parameters in self._ask("inserts")]

    def requests(self) -> list[tuple[str, Parameters]]:
        """Every query that was executed, as it was sent, and its parameters."""
        return [(query, parameters) for query, parameters in self._ask("requests")]

    def close(self) -> None:
        """Ends the process."""
        with self._process:
            assert self._process.stdin is not None
            self._process.stdin.close()

    def _ask(self, what: str, value: object = None) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([what, value]) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


def main(folder: Path, host: str) -> None:
    """Serves until stdin ends; reads requests of a FrontProcess there."""
    with connect(Store(kind="chdb", path=folder)) as client, Front(client, host) as front:
        for line in sys.stdin:
            what, value = json.loads(line)
            answer: Any = None
            match what:
                case "fault":
                    front.faults.append(Fault(**value))
                case "heal":
                    front.faults.clear()
                case "refuse" | "accept":
                    getattr(front, what)()
                case _:
                    answer = getattr(front, what)
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
