"""One life of the job: the real steps, driven by hand in the order in which Bytewax could drive them.

Goal: every interleaving that Bytewax allows, and none that it does not. Method: queues between the steps
and a random choice of which goes on. What Bytewax promises is kept: items of one source partition reach a
shard in order; an epoch is drained before it is closed; a key is built from its last committed snapshot at
the start, or with None on its first item; only keys that were awake in an epoch are asked for a snapshot,
sinks after everything before them; the next epoch begins once the snapshots of this one are durable.
"""

import json
import os
from collections import defaultdict, deque
from collections.abc import Callable
from threading import Event
from typing import TYPE_CHECKING, Any

from flow.config import Anomalies
from flow.errors import RefusedStart, RejectReason
from flow.faults import point
from flow.sinks.outbox import Outbox
from flow.sinks.publisher import Publisher
from flow.sinks.sink import BlockSink
from flow.sinks.writer import Writer
from flow.sources.inbox import PART, InboxSource
from flow.sources.pausing import Flow, Item, PausingPartition
from flow.state.directory import StateDirectory
from flow.state.inbox import kind_of
from flow.state.ledger import LedgerWriter
from flow.steps.batches import Heartbeat, Limits, Lines, Unreadable
from flow.steps.combine import BlockBuilder
from flow.steps.decode import decode
from flow.steps.deduplicate import DeduplicateLogic, Deduplicator, MakeDeduplicator
from flow.steps.rate import Rated, Rater
from flow.steps.route import Routed, route, route_heartbeat
from flow.steps.shards import shard_keys
from flow.steps.watch_usage import UsageWatch
from flow.store.client import StoreUnavailable

from .commands import LEDGER_FOLDER, STATE_FOLDER
from .history import Batch
from .oracle import why_rejected
from .workload import CORRECTION, EVENT_BYTES_MAX, INBOX, LATE, QUANTITY_MAX, Line

if TYPE_CHECKING:
    from .world import World

TRIES_MAX = 20
"""After so many refusals at the end of a run its operator kills it."""

MEMORY_BYTES_MAX = 43_000
"""Of a shard: what the smallest index takes, and a few sealed segments; others leave for their files."""


class Process:
    """From a locked state directory to the end of the input, or of the life."""

    def __init__(self, world: "World") -> None:
        self._world = world
        self._options = world.options
        self._rng = world.rng
        self._directory = StateDirectory(world.disk.root / STATE_FOLDER)
        self._limits = Limits(
            event_bytes_max=EVENT_BYTES_MAX, quantity_max=QUANTITY_MAX, clock_skew_us=world.options.clock_skew_us
        )
        self._publisher = Publisher(world.store.connect)
        self._rater = Rater(world.workload.book)
        self._positions: list[int] = []
        self._logics: dict[str, DeduplicateLogic] = {}
        self._to_judge: dict[str, deque[tuple[Batch, Routed]]] = defaultdict(deque)
        self._to_write: dict[str, deque[Rated]] = defaultdict(deque)
        self._parts = {}
        self._awake: set[tuple[str, str]] = set()
        self._log: dict[str, list[Batch]] = defaultdict(list)

    # -- beginning and end

    def start(self) -> None:
        """Takes the lock and builds everything that has a snapshot, as Bytewax does."""
        self._directory.__enter__()
        lineage = self._directory.lineage(self._options.shards, "USD", self._options.horizon_us)
        self._lineage = lineage.id
        recovery = self._world.recovery
        sources = recovery.of("source")
        self._positions = [
            json.loads(sources.get(str(number), b"0")) for number in range(len(self._world.workload.partitions))
        ]
        self._inbox = self._build_inbox(recovery.of("inbox").get(PART))
        self._sink = BlockSink(shard_keys(self._options.shards, lineage.keys), self._make_writer)
        self._make_deduplicator = MakeDeduplicator(
            self._directory.shard, self._options.horizon_us, self._options.generations, MEMORY_BYTES_MAX
        )
        for shard, snapshot in self._shuffled(recovery.of("deduplicate").items()):
            self._logics[shard] = DeduplicateLogic(self._deduplicator, snapshot)
        for shard, snapshot in self._shuffled(recovery.of("outbox").items()):
            self._parts[shard] = self._sink.build_part("outbox", shard, snapshot)
        self._world.say(f"  resumed at {self._positions}, {len(self._parts)} writers")

    def run(self, steps_max: int) -> bool:
        """Epoch after epoch; True at the end of the input, False after a signal."""
        steps = 0
        self._lead()
        while True:
            for _ in range(self._rng.randint(0, self._options.epoch_steps_max)):
                self._step()
                steps += 1
                if steps > steps_max:
                    raise self._world.failed([f"not at the end after {steps_max} steps without faults"])
            ended = not self._unread() and not self._world.commands.waiting and self._inbox_is_read()
            stopped = ended or self._world.happens(self._options.clean_stop)
            if stopped:
                # Bytewax wakes every key at the end.
                self._awake.update(("deduplicate", shard) for shard in self._logics)
            self._close_epoch()
            if stopped:
                self._finish()
                return ended

    def release_lock(self) -> None:
        """What the kernel does for a dead process."""
        if self._directory._lock is not None:
            os.close(self._directory._lock)
            self._directory._lock = None

    def _finish(self) -> None:
        """As flow/run.py ends a run."""
        point("run.before_finish")
        for writer in self._sink.writers:
            writer.finish()
        tries = 0
        more = True
        while more:
            more = self._publish()
            tries += 1
            if tries > TRIES_MAX and not self._world.calm:
                self._world.maybe_crash(1.0, "the end: the store did not come back")
        point("run.after_finish")
        self._directory.__exit__(None, None, None)

    # -- building

    def _build_inbox(self, snapshot: bytes | None) -> Any:
        """The real reader, by the clock of this world; it looks for files as it does beside a source without an end."""
        source = InboxSource(self._world.commands.inbox, Flow(Event(), lambda: False), 1, ends=False)
        reader = source.build_part("inbox", PART, snapshot)
        reader._clock_ns = lambda: self._world.now_us * 1000
        reader._look_ns = 0
        return reader

    def _deduplicator(self, shard: str) -> Deduplicator:
        """A shard that writes and seals its segments after a few events, where real ones have many."""
        made = self._make_deduplicator(shard)
        made.append_records = self._options.append_records
        kernel = made._fingerprints._set
        made._fingerprints._set = type(kernel)(
            kernel.horizon_us, kernel.slice_us, self._options.segment_ids_max, made._leave_filter
        )
        return made

    def _make_writer(self, name: str) -> Writer:
        options, outbox = self._options, Outbox(self._directory.outbox, self._lineage, name)
        ledger = None
        if options.ledger_file_bytes is not None:
            folder = self._world.disk.root / LEDGER_FOLDER
            ledger = LedgerWriter(folder, self._lineage, name, options.ledger_file_bytes)
        writer = Writer(self._lineage, name, "USD", outbox, ledger, self._publisher, self._world.clock)
        writer._builder = BlockBuilder("USD", options.rows_per_table_max, UsageWatch("USD", Anomalies()))
        return writer

    # -- one step

    def _step(self) -> None:
        self._world.maybe_crash(self._options.crash_step, "between two steps")
        self._world.now_us += self._rng.randrange(self._options.step_us_max)
        if self._world.happens(self._options.second_start):
            self._start_a_second()
        choices: list[tuple[float, Callable[[], object]]] = [(self._options.publish_weight, self._publish)]
        if self._publisher.backlog_bytes <= self._options.outbox_bytes_max:
            choices += [(1.0, lambda number=number: self._read(number)) for number in self._unread()]
            if not self._inbox_is_read():
                choices.append((1.0, self._read_inbox))
        else:
            choices.append((1.0, self._beat))
        if self._world.commands.waiting:
            choices.append((0.1 if self._unread() else 0.5, self._world.command))
        choices += [(1.0, lambda shard=shard: self._judge(shard)) for shard, queue in self._to_judge.items() if queue]
        choices += [(1.0, lambda shard=shard: self._write(shard)) for shard, queue in self._to_write.items() if queue]
        self._rng.choices([act for _, act in choices], [weight for weight, _ in choices])[0]()

    def _unread(self) -> list[int]:
        """Partitions that are not at their end."""
        partitions = self._world.workload.partitions
        return [number for number, at in enumerate(self._positions) if at < len(partitions[number])]

    def _lead(self) -> None:
        """What the source begins with, before anything is read."""
        leading = _Leading(Flow(Event(), lambda: False), leads=True)
        for routed in route_heartbeat(self._options.shards) if any(leading.next_batch()) else ():
            self._to_judge[routed.shard].append((Batch((), self._world.clock()), routed))

    def _read(self, number: int) -> None:
        """The source of one partition, decode and route."""
        partition, at = self._world.workload.partitions[number], self._positions[number]
        lines = partition[at : at + self._rng.randint(1, self._options.batch_lines_max)]
        readable = next((n for n, line in enumerate(lines) if not line.readable), len(lines))
        lines = lines[: max(readable, 1)]
        self._take_in(_item(lines), lines)
        self._positions[number] = at + len(lines)

    def _inbox_is_read(self) -> bool:
        names = self._world.commands.inbox.names()
        last = self._world.commands.inbox.path / names[-1] if names else None
        return last is None or (self._inbox._name == last.name and self._inbox._offset == last.stat().st_size)

    def _read_inbox(self) -> None:
        for item in self._inbox.next_batch():
            if isinstance(item, Heartbeat):
                self._beat()
                continue
            lines = self._world.commands.lines(item.origin.removeprefix(INBOX))
            within = range(item.offset, item.offset + len(item.data))
            self._take_in(item, tuple(line for line in lines if line.offset in within))

    def _take_in(self, item: Lines | Unreadable, lines: tuple[Line, ...]) -> None:
        """Decode and route."""
        now_us = self._world.clock()
        decoded = decode(item, self._limits, now_us)
        read = sum(part.read for part in decoded.parts)
        if read != len(lines):
            raise self._world.failed([f"decode read {read} events of {len(lines)} lines"])
        parts: dict[str, list[Line]] = defaultdict(list)
        for line in lines:
            bad = line.event is None or why_rejected(line, now_us, self._options) is not None
            parts["" if bad else line.event.kind].append(line)
        admitted = isinstance(item, Lines) and kind_of(item.origin.removeprefix(INBOX)) in (CORRECTION, LATE)
        batches = {kind: Batch(tuple(part), now_us, admitted) for kind, part in parts.items()}
        for routed in route(decoded, self._options.shards):
            kind = routed.amends.kind if routed.amends is not None else ""
            self._to_judge[routed.shard].append((batches[kind], routed))

    def _beat(self) -> None:
        """A paused source: a heartbeat for every shard."""
        for routed in route_heartbeat(self._options.shards):
            self._to_judge[routed.shard].append((Batch((), self._world.clock()), routed))

    def _judge(self, shard: str) -> None:
        """Deduplicate, for the batches that have come for a shard; and rate."""
        queue = self._to_judge[shard]
        taken = [queue.popleft() for _ in range(self._rng.randint(1, len(queue)))]
        if shard not in self._logics:
            self._logics[shard] = DeduplicateLogic(self._deduplicator, None)
        judged, _ = self._logics[shard].on_batch([routed for _, routed in taken])
        self._log[shard].extend(batch for batch, _ in taken)
        self._to_write[shard].extend(map(self._rater.rate, judged))
        self._awake.add(("deduplicate", shard))

    def _write(self, shard: str) -> None:
        if shard not in self._parts:
            self._parts[shard] = self._sink.build_part("outbox", shard, None)
        queue = self._to_write[shard]
        self._parts[shard].write_batch([queue.popleft() for _ in range(self._rng.randint(1, len(queue)))])
        self._awake.add(("outbox", shard))

    def _publish(self) -> bool:
        """One turn of the publisher's thread; whether anything is left to do."""
        try:
            return self._publisher.publish_next()
        except StoreUnavailable as error:
            self._world.say(f"    {error}")
            return True

    def _start_a_second(self) -> None:
        """A second process, started by mistake, must not get in."""
        try:
            StateDirectory(self._directory.path).__enter__()
        except RefusedStart:
            return
        raise self._world.failed(["a second process got the lock on the state directory"])

    # -- the end of an epoch

    def _close_epoch(self) -> None:
        while any(self._to_judge.values()) or any(self._to_write.values()):
            for shard in self._shuffled(name for name, queue in self._to_judge.items() if queue):
                self._judge(shard)
            for shard in self._shuffled(name for name, queue in self._to_write.items() if queue):
                self._write(shard)
        snapshots = {("source", str(n)): json.dumps(at).encode() for n, at in enumerate(self._positions)}
        snapshots["inbox", PART] = self._inbox.snapshot()
        with self._world.leaving(snapshots):
            for step, asked in (("deduplicate", self._logics), ("outbox", self._parts)):
                for shard in self._shuffled(key for name, key in sorted(self._awake) if name == step):
                    self._world.maybe_crash(self._options.crash_step, f"before the snapshot of {step} {shard}")
                    snapshots[step, shard] = asked[shard].snapshot()
                    if self._rng.random() < 0.1:
                        self._publish()
                    if self._world.commands.waiting and self._rng.random() < 0.2:
                        self._world.command()  # which finds what is appended, and not committed
        self._awake.clear()
        log, self._log = self._log, defaultdict(list)
        self._world.commit(snapshots, log)

    def _shuffled(self, items):
        shuffled = list(items)
        self._rng.shuffle(shuffled)
        return shuffled


class _Leading(PausingPartition[Item]):
    """The real partition, with nothing to read."""

    def read(self) -> list[Item]:
        return []

    def snapshot(self) -> bytes:
        raise AssertionError("positions are the process's own")


def _item(lines: tuple[Line, ...]) -> Lines | Unreadable:
    first = lines[0]
    if not first.readable:
        return Unreadable(first.origin, first.offset, first.content, RejectReason[first.reason or ""], "simulated")
    return Lines(first.origin, first.offset, b"".join(line.content + b"\n" for line in lines))
