"""Runs a job as several processes: `tallyflow run --processes N`, on this machine or on several hosts.

The supervisor of host 0 holds the lock, the term and the lineage, and checks the balance over all processes at the end.
Each host has a supervisor that starts, watches and kills the processes of that host (crew.py); those of the other hosts
do as host 0 says (hosts.py). Bytewax cannot replace one process of a cluster: if one dies, hangs or is out of reach,
all are killed and started again, and go on from the last epoch, each with the state of the shards that it is given. How
many there are may change from run to run.
"""

import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from ..config import Config
from ..errors import ClusterError, RefusedStart, TallyflowError
from ..prices.book import load_price_book
from ..run import Outcome, Share, begin_prices, begin_rules, conclude, stopping
from ..start import Claim, prepare
from ..state.directory import StateDirectory
from ..store.client import StoreUnavailable
from .crew import BEGIN_S, Attempt, Crew, Failure, Kind, Look, Quiet
from .hosts import Gate, Hosts, RemoteCrew, follow, identity

RESTARTS_MAX = 5
"""More than this within CALM_S, and the job ends."""
CALM_S = 600.0
WAIT_FIRST_S = 0.5
WAIT_LAST_S = 30.0
LOOK_S = 0.05
GRACE_S = 5.0
"""How long the others may take to say what is wrong, once one has ended without a reason of its own."""


def run_cluster(
    config: Config, processes: int, threads: int, say: Callable[[str], None], hosts: Hosts | None = None
) -> Outcome | None:
    """Runs to the end of the input, or to SIGINT or SIGTERM, and publishes everything.

    `processes` are those of this host, `threads` the worker threads of each; `say` is told when processes are started
    again. Returns None on any host but the first, which knows the outcome.
    Raises what `run` raises, and ClusterError.
    """
    _check(config, processes)
    book = load_price_book(config.prices, config.limits.quantity_max)
    stop = threading.Event()
    if hosts is not None and hosts.number > 0:
        with stopping(stop):
            follow(config, book, processes, threads, hosts, stop, say)
        return None
    with ExitStack() as inside:
        directory = inside.enter_context(StateDirectory(config.state_dir))
        claim = prepare(config, directory, book.currency)
        begin_prices(config, directory)
        begin_rules(config, directory)
        gate = inside.enter_context(Gate(hosts, identity(config), config.limits.stall_us // 10**6)) if hosts else None
        begun = time.monotonic()
        supervisor = _Supervisor(config, claim, directory, Crew(config, book, processes, threads), gate, stop, say)
        try:
            with stopping(stop):
                shares = supervisor.run()
        except TallyflowError as error:
            supervisor.tell_end(error)
            raise
        supervisor.tell_end(None)
        return conclude(config, directory, claim.lineage, shares, begun)


def _check(config: Config, processes: int) -> None:
    if config.store.kind == "chdb":
        raise RefusedStart(
            f"--processes {processes}: the store {config.store.url} is embedded, which serves one process; set "
            "`store: clickhouse://user:password@host:8123/tallyflow`, or use --workers"
        )
    if config.shards < processes:
        raise RefusedStart(
            f"--processes {processes}: there are {config.shards} shards (`shards:` in the config), and a process "
            f"without one has nothing to do; use at most --processes {config.shards}. The number of shards is fixed "
            "for the life of a state directory: more of them need a new one, and an empty store"
        )


@dataclass
class _Supervisor:
    """Attempts, one after the other, until one gets to the end."""

    config: Config
    claim: Claim
    directory: StateDirectory
    crew: Crew
    gate: Gate | None
    stop: threading.Event
    say: Callable[[str], None]
    failures: deque[float] = field(default_factory=deque)
    attempts: int = 0

    @property
    def others(self) -> Sequence[RemoteCrew]:
        return self.gate.crews if self.gate is not None else ()

    @property
    def crews(self) -> Sequence[Crew | RemoteCrew]:
        return [self.crew, *self.others]

    def run(self) -> list[Share]:
        """What each process did, of the attempt that got to the end. Raises what a worker stopped for, ClusterError."""
        while True:
            if self.gate is not None:
                self.gate.gather(self._stopped, self.say)
            if self.attempts > 0:
                self._claim_again()
            try:
                self._start()
                done = self._wait()
            finally:
                for crew in self.crews:
                    crew.end()
            if not isinstance(done, Failure):
                return done
            if done.error is not None:
                raise done.error
            wait_s = self._wait_after(done.reason)
            self.say(f"{done.reason}; all processes start again from the last epoch in {wait_s:g} s")
            self._rest(wait_s)

    def _stopped(self) -> bool:
        """Whether there was a signal, here or on another host."""
        return self.stop.is_set() or any(crew.wants_stop for crew in self.others)

    def _rest(self, wait_s: float) -> None:
        """Until the next attempt; it comes at once when it has only to end what was begun."""
        until = time.monotonic() + wait_s
        while time.monotonic() < until and not self._stopped():
            if self.gate is not None:
                self.gate.poll()
            time.sleep(LOOK_S)  # signals, sockets and processes are looked at in turn: no one wait covers all three

    def _claim_again(self) -> None:
        """For another attempt: blocks were published since the last claim, and what is left of old ones is fenced.

        Waits for the store. Raises ClusterError at a signal, and what `prepare` raises.
        """
        told = False
        while True:
            try:
                self.claim = prepare(self.config, self.directory, self.claim.lineage.currency)
                return
            except StoreUnavailable as error:
                if self._stopped():
                    raise ClusterError(f"stopped by a signal while waiting for the store ({error})") from error
                if not told:
                    told = True
                    self.say(f"waiting for the store ({error})")
                self._rest(WAIT_FIRST_S)

    def tell_end(self, error: TallyflowError | None) -> None:
        """Tells the other hosts how the job has ended."""
        for crew in self.others:
            crew.tell_end(error)

    def _wait_after(self, reason: str) -> float:
        """How long to wait after a failure. Raises ClusterError after too many of them."""
        failures, now = self.failures, time.monotonic()
        failures.append(now)
        while failures[0] < now - CALM_S:
            failures.popleft()
        if len(failures) > RESTARTS_MAX:
            raise ClusterError(
                f"{reason}, and that was failure {len(failures)} in {round(CALM_S / 60)} minutes; find out "
                "why, then start again: nothing is lost"
            )
        return min(WAIT_FIRST_S * (1 << (len(failures) - 1)), WAIT_LAST_S)

    def _start(self) -> None:
        addresses = self.gate.addresses(self.crew.processes) if self.gate else _free_addresses(self.crew.processes)
        if self.config.shards < len(addresses):
            raise RefusedStart(
                f"{len(addresses)} processes on {1 + len(self.others)} hosts: there are {self.config.shards} shards "
                "(`shards:` in the config), and a process without one has nothing to do; use fewer --processes a host"
            )
        self.attempts += 1
        attempt = Attempt(self.attempts, self.claim, self.directory.holder, tuple(addresses))
        first = self.crew.processes
        for crew in self.others:
            crew.start(attempt, first)
            first += crew.processes
        self.crew.start(attempt, 0, self.directory.lock)

    def _wait(self) -> list[Share] | Failure:
        """What all did when they have got to the end, or why one did not."""
        told, quiet = False, Quiet()
        while True:
            if self._stopped() and not told:
                told = True
                for crew in self.crews:
                    crew.stop()
            looks = self._look()
            if any(look.failure for look in looks):
                return self._reason(looks)
            if all(look.shares is not None for look in looks):
                return [share for look in looks for share in look.shares or ()]
            if (failure := self._stuck(looks, quiet)) is not None:
                return failure
            time.sleep(LOOK_S)  # signals, sockets and processes are looked at in turn: no one wait covers all three

    def _look(self) -> list[Look]:
        if self.gate is not None:
            self.gate.poll()
        looks = [crew.look() for crew in self.crews]
        waiting_bytes = sum(look.waiting_bytes for look in looks)
        for crew, look in zip(self.crews, looks, strict=True):
            crew.show_others(waiting_bytes - look.waiting_bytes)
        return looks

    def _stuck(self, looks: Sequence[Look], quiet: Quiet) -> Failure | None:
        """Whether all of them wait for each other: each lives, and none makes a step.

        At least the sources are asked all the time, for as long as the dataflow goes on.
        """
        steps = -1 if any(look.steps < 0 for look in looks) else sum(look.steps for look in looks)
        quiet_s, allowed_s = quiet.look(steps), self.config.limits.stall_us // 10**6
        if steps < 0 or quiet_s <= (allowed_s if steps else max(allowed_s, BEGIN_S)):
            return None
        return Failure(Kind.ENDED, f"no process of the cluster has made a step for {round(quiet_s)} s")

    def _reason(self, looks: Sequence[Look]) -> Failure:
        """What happened to the first that failed; it may be only the first to feel that another has."""
        until, found = time.monotonic() + GRACE_S, list[Failure]()
        while True:
            found += [look.failure for look in looks if look.failure is not None]
            failure = min(found, key=lambda one: one.kind)
            over = time.monotonic() > until or not any(look.running for look in looks)
            if failure.error is not None or failure.final or over:
                return failure
            time.sleep(LOOK_S)  # signals, sockets and processes are looked at in turn: no one wait covers all three
            looks = self._look()


def _free_addresses(count: int) -> list[str]:
    """Addresses of this machine that nobody listens on.

    If another program takes one first, the attempt fails, and the next one asks again.
    """
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    finally:
        for one in sockets:
            one.close()
