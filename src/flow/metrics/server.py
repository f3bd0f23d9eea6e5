"""Serves `/metrics`, `/healthz` and `/readyz` over HTTP, from a thread of its own."""

import socket
import threading
from collections.abc import Callable
from http.server import ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, MetricsHandler

from ..errors import RefusedStart
from .health import Health


class Endpoint:
    """Listens while inside. Raises RefusedStart if the address cannot be listened on."""

    def __init__(self, address: tuple[str, int], registry: CollectorRegistry, health: Health) -> None:
        answers = {"/healthz": health.dead, "/readyz": health.unready}
        handler = type("Handler", (_Handler,), {"registry": registry, "answers": answers})
        host, port = address
        try:
            self._server = _server_class(host)(address, handler)
        except OSError as error:
            raise RefusedStart(
                f"metrics.listen: cannot listen on {host}:{port} ({error.strerror}); is another job, or another "
                "program, there? Each process of a job needs a port of its own, from that of the config upwards"
            ) from error
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


def _server_class(host: str) -> type[_Server]:
    return _Server6 if ":" in host else _Server


class _Handler(MetricsHandler):
    answers: dict[str, Callable[[], list[str]]]
    timeout = 10

    def do_GET(self) -> None:  # noqa: N802 - the base class names it
        path = urlsplit(self.path).path
        if path == "/metrics":
            super().do_GET()
        elif path in self.answers:
            found = self.answers[path]()
            self._say(503 if found else 200, "\n".join(found or ["ok"]))
        else:
            self._say(404, "/metrics, /healthz or /readyz")

    def _say(self, status: int, text: str) -> None:
        body = f"{text}\n".encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
