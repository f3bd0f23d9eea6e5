"""What outlives a process: clock, disk, store, recovery store and input; and the sequence of lives of one
seed.

Goal: `simulate(seed)` runs the real steps through many crashes and says everything that is wrong at the
end. Method: one plain loop on one thread; every choice is drawn from the seed. Lives with faults (*safety*:
nothing wrong may ever be published) are followed by lives without (*liveness*: everything must now finish),
then by one more that must find nothing left to do, and by the audit.
"""

import os
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from types import MappingProxyType
from typing import Any
from unittest.mock import patch

from flow import faults
from flow.errors import StateError, TallyflowError
from flow.store.client import StoreUnavailable

from .audit import audit
from .commands import Commands, draw_commands
from .disk import FakeDisk
from .history import Batch, History
from .options import Options, draw_options
from .process import Process
from .store import FakeStore
from .workload import Workload, make_workload

STEPS_MAX = 20_000
"""A process that takes longer is stuck."""


class SimulatedCrash(BaseException):
    """The process is gone. Not an Exception: nothing in the code under test may survive it."""


class SimulationFailed(AssertionError):
    """What is wrong with a seed; the message ends with the command that shows it."""


@dataclass
class Recovery:
    """Bytewax's recovery store: the snapshots of an epoch count when it is committed."""

    snapshots: dict[tuple[str, str], bytes] = field(default_factory=dict)
    left: dict[tuple[str, str], bytes] = field(default_factory=dict)
    """Of an epoch that was not committed. They count once a later life commits the epoch, unless it replaces them."""
    epochs: int = 0

    def of(self, step: str) -> dict[str, bytes]:
        """The last snapshot of every key of a step; a key without one was never in a committed epoch."""
        return {key: snapshot for (name, key), snapshot in self.snapshots.items() if name == step}


class World:
    """One seed's world; `run` lives it through."""

    def __init__(
        self,
        seed: int,
        root: Path,
        tell: Callable[[str], None] | None = None,
        given: Mapping[str, Any] = MappingProxyType({}),
    ) -> None:
        self.seed = seed
        self.options: Options = replace(draw_options(Random(f"{seed} options")), **given)
        self.workload: Workload = make_workload(Random(f"{seed} input"), self.options)
        self.rng = Random(f"{seed} loop")
        self.now_us = self.workload.start_us
        self.recovery = Recovery()
        self.history = History()
        self.trace: list[str] = []
        self.calm = False
        self.crashes = 0
        self._tell = tell
        self._disk_was_full = False
        self._commanding = False
        self._rates = dict(self.options.crash_point + self.options.crash_disk)
        self.disk = FakeDisk(root, Random(f"{seed} disk"), self.on_call, self._full)
        self.store = FakeStore(Random(f"{seed} store"), self.options, self.on_call)
        self.commands = Commands(self, draw_commands(Random(f"{seed} commands"), self.options, self.workload))

    # -- time and chance

    def clock(self) -> int:
        """Microseconds since 1970; stands still between steps."""
        return self.now_us

    def say(self, what: str) -> None:
        self.trace.append(what)
        if self._tell is not None:
            self._tell(what)

    def happens(self, rate: float) -> bool:
        """Whether a fault of this rate happens now."""
        return not self.calm and rate > 0 and self.rng.random() < rate

    def maybe_crash(self, rate: float, where: str) -> None:
        if self.happens(rate):
            self.say(f"    CRASH at {where}")
            raise SimulatedCrash(where)

    def on_call(self, name: str) -> None:
        """Told of every call to the disk and the store."""
        disk = name.startswith("disk.")
        self.maybe_crash(self._rate(self._rates.get(name, 0.0) if disk else self.options.crash_store), name)

    def on_point(self, name: str) -> None:
        """Told of every point of flow/faults.py."""
        self.maybe_crash(self._rate(self._rates.get(name, 0.0)), name)

    def _rate(self, of_the_job: float) -> float:
        return max(of_the_job, self.options.crash_command) if self._commanding else of_the_job

    def _full(self, name: str) -> bool:
        if not self.happens(self.options.disk_full):
            return False
        self.say(f"    DISK FULL while writing {name}")
        self._disk_was_full = True
        return True

    # -- lives

    def run(self) -> None:
        """Raises SimulationFailed where the code under test is wrong: so it is too if it stops, and no fault made it.

        Any other exception is a defect of the simulator, or of a mutation.
        """
        for line in self.options.lines():
            self.say(f"option {line}")
        before = 0
        try:
            with self._at_hand():
                number = 0
                while not (self._live(number) and self.calm):
                    number += 1
                    self.calm = number >= self.options.lives_max
                before = self.store.inserts
                self._live(number + 1)
                problems = audit(self)
        except TallyflowError as error:
            raise self.failed([f"it stopped, and nothing had made it: {type(error).__name__}: {error}"]) from error
        except Exception as error:
            error.add_note(f"seed {self.seed}; {self._to_see_it()}")
            raise
        finally:
            self.disk.close()
        if self.store.inserts != before:
            problems.append("a run on input that was read to its end published something")
        if problems:
            raise self.failed(problems)

    def failed(self, problems: list[str]) -> SimulationFailed:
        for problem in problems:
            self.say(f"WRONG: {problem}")
        shown = "\n  ".join(problems[:12])
        return SimulationFailed(f"seed {self.seed}:\n  {shown}\n{self._to_see_it()}")

    def _to_see_it(self) -> str:
        return f"to see it: python -m tests.sim {self.seed} --verbose"

    @contextmanager
    def _at_hand(self) -> Iterator[None]:
        ids = Random(f"{self.seed} lineage")
        with (
            self.disk.mounted(),
            self.commands.at_hand(),
            patch.object(faults, "on_point", self.on_point),
            patch.object(uuid, "uuid4", lambda: uuid.UUID(int=ids.getrandbits(128))),
        ):
            yield

    def command(self) -> None:
        """A command beside the job, which may die on its own, or with the machine."""
        self.say(f"    command: {self.commands.waiting[0].kind}")
        self._disk_was_full, self._commanding = False, True
        try:
            self.commands.give_next()
        except SimulatedCrash:
            if self.rng.random() < 0.3:
                raise
            self.say("    the command died alone")
            self.crashes += 1
        except StoreUnavailable as error:
            self.say(f"    {error}")
        except StateError as error:
            if not self._disk_was_full:
                raise
            self.say(f"    gave up: {error}".replace(str(self.disk.root), "DISK"))
        finally:
            self._commanding = False

    def _live(self, number: int) -> bool:
        """One life; whether it came to the end of the input."""
        self.say(f"life {number}{' (no faults)' if self.calm else ''}")
        self._disk_was_full = False
        process = Process(self)
        try:
            process.start()
            ended = process.run(STEPS_MAX)
        except SimulatedCrash:
            self.crashes += 1
            process.release_lock()
            if self.rng.random() < self.options.power_loss:
                self.say("    power was lost as well")
                self.disk.lose_power(self.options.survival)
            return False
        except StateError as error:
            if not self._disk_was_full:
                raise
            self.say(f"    stopped: {error}".replace(str(self.disk.root), "DISK"))
            process.release_lock()
            return False
        finally:
            self.now_us += self.rng.randrange(1, 100 * self.options.step_us_max)
        self.say(f"    ended {'at the end of the input' if ended else 'by a signal'}")
        return ended

    # -- the recovery store

    @contextmanager
    def leaving(self, snapshots: dict[tuple[str, str], bytes]) -> Iterator[None]:
        """While inside, a crash leaves some of these behind: each is written on its own, as soon as it is taken."""
        try:
            yield
        except SimulatedCrash:
            self.recovery.left |= {key: snapshots[key] for key in snapshots if self.rng.random() < 0.8}
            raise

    def commit(self, snapshots: dict[tuple[str, str], bytes], epoch_log: dict[str, list[Batch]]) -> None:
        """Closes an epoch: all of its snapshots count, or none does yet."""
        with self.leaving(snapshots):
            self.maybe_crash(self.options.crash_step, "recovery, before the commit")
        self.recovery.snapshots |= self.recovery.left | snapshots
        self.recovery.left.clear()
        self.recovery.epochs += 1
        self.history.commit(epoch_log)
        self.say(f"  epoch {self.recovery.epochs} committed")
        self.maybe_crash(self.options.crash_step, "recovery, after the commit")


Break = Callable[[World], AbstractContextManager[object]]
"""What breaks the code under test on purpose, while it is entered; see mutations.py."""


def simulate(
    seed: int,
    tell: Callable[[str], None] | None = None,
    broken: Break | None = None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> World:
    """Lives one seed through; `given`: options in the place of its own. Raises SimulationFailed."""
    shared_memory = Path("/dev/shm")  # nothing here needs a disk that really keeps anything
    parent = shared_memory if os.access(shared_memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="tallyflow-sim-", dir=parent) as folder:
        world = World(seed, Path(folder) / "disk", tell, given)
        with broken(world) if broken is not None else nullcontext():
            world.run()
        return world
