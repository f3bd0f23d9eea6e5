"""Several hosts: host 0 decides, and the supervisors of the others do as it says.

Each host has an address, host:port. The supervisor of host 0 listens at its own one, and the others come to it. The
processes of a host talk to all others at the ports behind its address: host:port+1, host:port+2, ...

What makes it safe is that a host says that it is ready only when none of its processes is left, and that no attempt
begins before all are ready: so whatever happens to a connection, two attempts are never at work on one state directory.
A host that is out of reach kills its own processes as soon as it notices; until it is back, host 0 waits. A supervisor
that takes the place of one that was killed learns by its lock whether processes of that one are left (HostLock in
flow/state/directory.py), before it starts any; and until all are started, those of the others wait for them.
"""

import hashlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from .. import __version__
from ..config import Config
from ..errors import ClusterError, ConfigError, RefusedStart, SourceError, TallyflowError
from ..prices.book import PriceBook
from ..state.directory import HostLock
from .crew import Attempt, Crew, Failure, Kind, Look
from .wire import (
    Message,
    Wire,
    WireLost,
    attempt_message,
    attempt_of,
    error_message,
    error_of,
    look_message,
    look_of,
)

LOOK_S = 0.05
CONNECT_S = 2.0
AGAIN_S = 0.25
_ADDRESS = re.compile(r"(?:([A-Za-z0-9._-]+)|\[([0-9A-Fa-f:.]+)\]):([0-9]{1,5})")


@dataclass(frozen=True)
class Hosts:
    """All hosts of a job, and which of them this is."""

    addresses: tuple[str, ...]
    number: int

    @classmethod
    def parse(cls, addresses: str, number: int) -> Self:
        """From `host:port,host:port,...`. Raises ConfigError."""
        found = tuple(part.strip() for part in addresses.split(","))
        wrong = [
            f"--addresses: {one!r} is not host:port; write host-1:2101 or [::1]:2101" for one in found if not _good(one)
        ]
        if len(set(found)) < len(found):
            wrong.append(f"--addresses: {addresses!r} names an address twice")
        if not 0 <= number < len(found):
            wrong.append(f"--host {number}: there are {len(found)} addresses, so it is one of 0 to {len(found) - 1}")
        if wrong:
            raise ConfigError(wrong)
        return cls(found, number)

    def endpoint(self, number: int) -> tuple[str, int]:
        """Name and port of a host, without brackets."""
        host, _, port = self.addresses[number].rpartition(":")
        return host.strip("[]"), int(port)

    def of_processes(self, number: int, processes: int) -> list[str]:
        """The addresses of the processes of a host."""
        host, _, port = self.addresses[number].rpartition(":")
        return [f"{host}:{int(port) + 1 + n}" for n in range(processes)]


def _good(address: str) -> bool:
    match = _ADDRESS.fullmatch(address)
    return match is not None and 0 < int(match[3]) < 65_000  # the ports behind it are used too


def identity(config: Config) -> Message:
    """What has to be the same on all hosts. Raises SourceError."""
    try:
        prices = hashlib.sha256(config.prices.read_bytes()).hexdigest()
    except OSError as error:
        raise SourceError(f"{config.prices}: cannot be read: {error.strerror}") from error
    settings = hashlib.sha256(config.model_dump_json().encode()).hexdigest()
    return {"version": __version__, "config, with its paths": settings, "price file": prices}


# ---- Host 0 -------------------------------------------------------------------------------------------------------


class RemoteCrew:
    """The processes of another host, as host 0 sees them; used as a Crew is."""

    def __init__(self, number: int, address: str) -> None:
        self.number = number
        self.name = f"host {number} ({address})"
        self.processes = 0
        self.ready = False
        """Whether it is there, and none of its processes is left."""
        self.wants_stop = False
        self._wire: Wire | None = None
        self._attempt = -1
        self._look = Look()

    def join(self, wire: Wire, processes: int) -> None:
        """The host has come; it has no processes."""
        self.lose("has begun anew")
        self._wire, self.processes, self.ready = wire, processes, True

    def listen(self) -> None:
        """Hears what it says, if anything."""
        if self._wire is None:
            return
        try:
            for message in self._wire.receive():
                kind = message.get("kind")
                self.wants_stop |= kind == "stop"
                if message.get("attempt") == self._attempt:
                    self.ready |= kind == "ready"
                    self._look = look_of(message) if kind == "look" else self._look
        except WireLost as lost:
            self.lose(str(lost))

    def start(self, attempt: Attempt, first: int) -> None:
        self._attempt, self.ready, self._look = attempt.number, False, Look()
        self._send("start", first=first, **attempt_message(attempt))

    def stop(self) -> None:
        self._send("stop")

    def show_others(self, waiting_bytes: int) -> None:
        """Says what waits on other hosts, and that host 0 is there."""
        if self._wire is not None:
            try:
                self._wire.beat("beat", waiting_bytes=waiting_bytes)
            except WireLost as lost:
                self.lose(str(lost))

    def look(self) -> Look:
        return self._look

    def end(self) -> None:
        """Has it kill its processes; it is `ready` when that is done."""
        if not self.ready:
            self._send("end")

    def tell_end(self, error: TallyflowError | None) -> None:
        """Tells it that the job has ended, and waits for it to go."""
        self._send("over", error=error_message(error))
        if self._wire is not None:
            self._wire.finish()
            self._wire = None

    def _send(self, kind: str, **content: object) -> None:
        if self._wire is not None:
            try:
                self._wire.send(kind, **content)
            except WireLost as lost:
                self.lose(str(lost))

    def lose(self, how: str) -> None:
        """It is not there any more, and has to come anew."""
        if self._wire is not None:
            self._wire.close()
            self._wire = None
        self.ready = False
        self._look = Look(running=False, failure=Failure(Kind.ENDED, f"{self.name} {how}", final=True))


class Gate:
    """Where the other hosts come to host 0; use as a context manager."""

    def __init__(self, hosts: Hosts, ours: Message, allowed_s: int) -> None:
        """`ours` is what the others must have too; longer silence than `allowed_s` means that one of them is gone."""
        self._hosts, self._ours, self._allowed_s = hosts, ours, allowed_s
        self.crews = [RemoteCrew(n, address) for n, address in enumerate(hosts.addresses) if n > 0]
        self._coming: list[Wire] = []

    def __enter__(self) -> Self:
        host, port = self._hosts.endpoint(0)
        try:
            family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
            self._server = socket.create_server((host, port), family=family)
        except OSError as error:
            raise ClusterError(
                f"host 0 cannot listen at {self._hosts.addresses[0]}: {error.strerror or error}; is that an address of "
                "this host, and free?"
            ) from error
        self._server.setblocking(False)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._server.close()
        for wire in self._coming:
            wire.close()
        for crew in self.crews:
            crew.lose("is left alone")

    def addresses(self, processes: int) -> list[str]:
        """Of all processes of all hosts; host 0 has this many. Raises ConfigError."""
        found = self._hosts.of_processes(0, processes)
        for crew in self.crews:
            found += self._hosts.of_processes(crew.number, crew.processes)
        if len({*found, *self._hosts.addresses}) < len(found) + len(self._hosts.addresses):
            raise ConfigError("--addresses: the ports behind an address belong to its processes; leave room for them")
        return found

    def gather(self, stopped: Callable[[], bool], say: Callable[[str], None]) -> None:
        """Waits until all hosts are there and have no processes. Raises ClusterError at a signal."""
        told: list[str] = []
        begun = time.monotonic()
        while True:
            self.poll()
            missing = [crew.name for crew in self.crews if not crew.ready]
            if not missing:
                return
            if stopped():
                raise ClusterError(f"stopped by a signal while waiting for {' and '.join(missing)}; nothing is lost")
            if missing != told and time.monotonic() > begun + 1:
                told = missing
                say(f"waiting for {' and '.join(missing)}")
            time.sleep(LOOK_S)  # signals, sockets and processes are looked at in turn: no one wait covers all three

    def poll(self) -> None:
        """Lets in who comes, hears what all say, and shows them that host 0 is there."""
        while (connection := self._accept()) is not None:
            self._coming.append(Wire(connection, self._allowed_s))
        coming, self._coming = self._coming, []
        for wire in coming:
            try:
                messages = wire.receive()
                if messages:
                    self._let_in(wire, messages[0])
                else:
                    self._coming.append(wire)
            except WireLost:
                wire.close()
        for crew in self.crews:
            crew.listen()
            if crew.ready:
                crew.show_others(0)

    def _accept(self) -> socket.socket | None:
        try:
            return self._server.accept()[0]
        except BlockingIOError:
            return None

    def _let_in(self, wire: Wire, hello: Message) -> None:
        """A host, or a stranger. Raises WireLost."""
        number, processes, theirs = hello.get("host"), hello.get("processes"), hello.get("identity")
        crew = next((crew for crew in self.crews if crew.number == number), None)
        if crew is None or not isinstance(processes, int) or not isinstance(theirs, dict):
            wire.close()
            return
        differs = [name for name, value in self._ours.items() if theirs.get(name) != value]
        if differs:
            text = f"is not what host 0 has: {', '.join(differs)}; all hosts of a job need the same"
            wire.send("refused", text=f"host {number}: {text}")
            wire.finish()
            return
        crew.join(wire, processes)


# ---- The others ---------------------------------------------------------------------------------------------------


def follow(
    config: Config,
    book: PriceBook,
    processes: int,
    threads: int,
    hosts: Hosts,
    stop: threading.Event,
    say: Callable[[str], None],
) -> None:
    """Does as host 0 says until the job has ended. A signal here ends it on all hosts, as one at host 0 does.

    Raises RefusedStart, ClusterError: also what has ended the job on another host, with its exit code.
    """
    crew = Crew(config, book, processes, threads, hosts.number)
    hello = {"host": hosts.number, "processes": processes, "identity": identity(config)}
    while True:
        with _reached(hosts, config.limits.stall_us // 10**6, stop, say) as wire:
            follower = _Follower(config, crew, hosts.number, wire, stop)
            try:
                wire.send("hello", **hello)
                follower.serve()
                return
            except WireLost as lost:
                say(f"host 0 ({hosts.addresses[0]}) {lost}; this host has ended its processes and waits for it")
            finally:
                follower.end()


@contextmanager
def _reached(hosts: Hosts, allowed_s: int, stop: threading.Event, say: Callable[[str], None]) -> Iterator[Wire]:
    """A connection to host 0, as soon as it is there. Raises ClusterError at a signal."""
    tries, where = 0, hosts.addresses[0]
    while not stop.is_set():
        try:
            connection = socket.create_connection(hosts.endpoint(0), CONNECT_S)
        except OSError as error:
            tries += 1
            if tries == 8:  # some seconds: at a common start nothing has to be said
                say(f"waiting for host 0 at {where} ({error.strerror or error})")
            stop.wait(AGAIN_S)
            continue
        wire = Wire(connection, allowed_s)
        try:
            yield wire
        finally:
            wire.close()
        return
    raise ClusterError(f"stopped by a signal while host 0 at {where} was out of reach; nothing is lost")


class _Follower:
    """One connection's worth of doing as host 0 says."""

    def __init__(self, config: Config, crew: Crew, number: int, wire: Wire, stop: threading.Event) -> None:
        self._config, self._crew, self._number, self._wire, self._stop = config, crew, number, wire, stop
        self._lock: HostLock | None = None
        self._attempt: int | None = None
        self._failure: Failure | None = None
        self._asked = False

    def serve(self) -> None:
        """Until the job has ended. Raises WireLost, RefusedStart, ClusterError."""
        while True:
            for message in self._wire.receive():
                if message["kind"] == "over":
                    if (error := error_of(message["error"])) is not None:
                        raise error
                    return
                self._obey(message)
            if self._stop.is_set() and not self._asked:
                self._asked = True
                self._wire.send("stop")
            self._show()
            time.sleep(LOOK_S)  # signals, sockets and processes are looked at in turn: no one wait covers all three

    def end(self) -> None:
        """Kills the processes, if there are any, and only then lets go of the lock."""
        self._crew.end()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _obey(self, message: Message) -> None:
        match message["kind"]:
            case "start":
                self._start(message)
            case "beat":
                self._crew.show_others(message["waiting_bytes"])
            case "stop":
                self._crew.stop()
            case "end":
                self.end()
                self._wire.send("ready", attempt=self._attempt)
                self._attempt = None
            case "refused":
                raise RefusedStart(message["text"])
            case _:
                raise WireLost("is no supervisor of Tallyflow")

    def _start(self, message: Message) -> None:
        attempt, who = attempt_of(message), f"host {self._number}"
        self._attempt, self._failure = attempt.number, None
        try:
            self._lock = HostLock(self._config.state_dir, self._number, attempt.holder)
            self._crew.start(attempt, message["first"], self._lock.descriptor)
        except RefusedStart as error:  # what is left there of an earlier supervisor is about to go
            self._failure = Failure(Kind.ENDED, f"{who} cannot start ({error})", final=True)
        except TallyflowError as error:
            self._failure = Failure(Kind.FATAL, f"{who} cannot start", error)

    def _show(self) -> None:
        if self._attempt is None:
            self._wire.beat("beat")
            return
        look = self._crew.look() if self._failure is None else Look(running=False, failure=self._failure)
        self._wire.beat("look", attempt=self._attempt, **look_message(look))
