"""What the tests of several hosts share: hosts that are loopback addresses, or network namespaces, of this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.harness import Pipeline

PORTS = 4
"""Of each host: its own, and those of its processes."""


def free_ports(host: str) -> int:
    """The first of some ports in a row that nobody listens on. Below those that the kernel hands out itself."""
    for first in range(20_000 + os.getpid() % 1000 * 8, 32_000, PORTS):
        try:
            for port in range(first, first + PORTS):
                socket.create_server((host, port)).close()
        except OSError:
            continue
        return first
    raise AssertionError("no ports are free")


@dataclass
class Host:
    """One host of a job: its supervisor, which it starts, and what that says."""

    pipeline: Pipeline
    addresses: Sequence[str]
    number: int
    prefix: Sequence[str] = ()
    """What a command is run with, so that it runs on this host."""
    process: subprocess.Popen[bytes] = field(init=False)
    said: str = ""

    def start(self, processes: int = 1) -> None:
        self._stderr = self.pipeline.folder / f"host-{self.number}.stderr"
        with self._stderr.open("wb") as stderr:
            self.process = subprocess.Popen(
                [
                    *(*self.prefix, sys.executable, "-m", "flow", "run", str(self.pipeline.config_path)),
                    *("--addresses", ",".join(self.addresses), "--host", str(self.number)),
                    *("--processes", str(processes)),
                ],
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=os.environ | {"COLUMNS": "200", "PYTHONFAULTHANDLER": ""},
            )

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def workers(self) -> list[int]:
        """The process ids of its workers."""
        try:
            return [
                int(pid)
                for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
            ]
        except FileNotFoundError:
            return []

    def until(self, happened: Callable[[], object], wait_s: float = 40) -> None:
        """Waits until something happened while this host goes on."""
        end = time.monotonic() + wait_s
        while not happened():
            assert self.process.poll() is None, self.stderr
            assert time.monotonic() < end, self.stderr
            time.sleep(0.01)  # what is waited for happens in other processes

    def finish(self) -> str:
        """Waits for its good end: what it printed."""
        out, _ = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, self.stderr
        return out.decode()


@contextmanager
def running(hosts: Sequence[Host]) -> Iterator[None]:
    """Ends what a test that failed has left behind."""
    try:
        yield
    finally:
        for host in hosts:
            if hasattr(host, "process") and host.process.poll() is None:
                host.process.kill()
                host.process.communicate()


# ---- Network namespaces -------------------------------------------------------------------------------------------


class Network:
    """Three hosts, a, b and s, each with a line to each other one; s is STORE for the others.

    They are network namespaces within a user namespace, so that no right is needed but to make one.
    """

    LINES = ("ab", "as", "bs")
    STORE = "10.9.9.9"

    def __init__(self) -> None:
        self._pids: dict[str, int] = {}
        self._holders: list[subprocess.Popen[bytes]] = []
        self._hold("s", ["unshare", "--user", "--map-root-user", "--net"])
        for name in "ab":
            self._hold(name, [*self._enter("s", "--user", "--preserve-credentials"), "unshare", "--net"])
        for name in "abs":
            self._ip(name, "link set lo up")
        for line in self.LINES:
            one, other = line
            self._ip(one, f"link add {line} type veth peer name {line} netns {self._pids[other]}")
            for name in line:
                self._ip(name, f"addr add {self.address(name, line)}/24 dev {line}")
                self._ip(name, f"link set {line} up")
        self._ip("s", f"addr add {self.STORE}/32 dev lo")
        for name in "ab":
            self._ip(name, f"route add {self.STORE} via {self.address('s', name + 's')}")

    def prefix(self, name: str) -> list[str]:
        """What a command is run with, so that it runs there."""
        return self._enter(name, "--user", "--preserve-credentials", "--net")

    def cut(self, line: str) -> None:
        """From now on nothing passes between two hosts, and nobody is told: frames go to a card that is not there."""
        for name, other in (line, line[::-1]):
            self._ip(
                name, f"neigh replace {self.address(other, line)} lladdr 02:00:00:00:00:00 dev {line} nud permanent"
            )

    def heal(self, line: str) -> None:
        for name, other in (line, line[::-1]):
            self._ip(name, f"neigh del {self.address(other, line)} dev {line}")

    def address(self, name: str, line: str) -> str:
        """Of a host on a line."""
        return f"10.9.{1 + self.LINES.index(line)}.{1 + line.index(name)}"

    def close(self) -> None:
        for holder in self._holders:
            holder.kill()
            holder.communicate()

    def _hold(self, name: str, command: list[str]) -> None:
        """A process that keeps a namespace."""
        holder = subprocess.Popen(
            [*command, "sh", "-c", "echo $$; exec sleep 600"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        self._holders.append(holder)
        assert holder.stdout is not None and holder.stderr is not None
        line = holder.stdout.readline()
        if not line:
            raise OSError(holder.stderr.read().decode().strip())
        self._pids[name] = int(line)

    def _enter(self, name: str, *what: str) -> list[str]:
        return ["nsenter", "--target", str(self._pids[name]), *what]

    def _ip(self, name: str, command: str) -> None:
        self._run([*self.prefix(name), "ip", *command.split()])

    @staticmethod
    def _run(command: list[str]) -> None:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")
