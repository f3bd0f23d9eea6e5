"""Invariants broken on purpose, one at a time: the simulator is worth what it finds.

Goal: show that each promise of exactly-once is really tested. Method: a mutation replaces one small thing
in the real code while a seed runs; tests/sim/test_mutations.py wants a failing seed for each. The missing
fsyncs are taken out at the disk, so that they name what must be synced and not who does it.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

import flow.state.ledger
import flow.state.segments
from flow.kernels import FingerprintSet, Verdicts
from flow.sinks.outbox import Block, Outbox
from flow.sinks.writer import Writer
from flow.sources.pausing import PausingPartition
from flow.state.ledger import LedgerWriter
from flow.steps.combine import BlockBuilder
from flow.steps.deduplicate import Deduplicator

from .world import Break, World


@dataclass(frozen=True)
class Mutation:
    """One broken invariant: its name, why it must hold, and what breaks it."""

    name: str
    why: str
    broken: Break

    def __str__(self) -> str:
        return self.name


MUTATIONS: list[Mutation] = []


def _mutation(why: str) -> Callable[[Callable[[World], Iterator[None]]], Break]:
    def register(make: Callable[[World], Iterator[None]]) -> Break:
        broken = contextmanager(make)
        MUTATIONS.append(Mutation(make.__name__, why, broken))
        return broken

    return register


# ---- Blocks and tokens --------------------------------------------------------------------------------------------


@_mutation("until its epoch is committed a block may come out otherwise after a crash, under the same token")
def publish_at_cut(world: World) -> Iterator[None]:
    snapshot = Writer.snapshot

    def eager(self: Writer) -> dict[str, Any]:
        manifest = snapshot(self)
        if self._cut is not None:
            self._publisher.submit(self._outbox, self._cut)
            self._cut = None
        return manifest

    with patch.object(Writer, "snapshot", eager):
        yield


@_mutation("two blocks with one token: the store drops the second")
def token_without_block_number(world: World) -> Iterator[None]:
    with patch.object(Block, "token", property(lambda block: f"{block.lineage}-{block.writer}")):
        yield


@_mutation("an insert that is repeated by the next process must carry the same token")
def token_of_the_process(world: World) -> Iterator[None]:
    with patch.object(Block, "token", property(lambda block: f"{block.writer}-{block.number}-{world.crashes}")):
        yield


@_mutation("a block number that is used again after a restart meets the token of the frozen block")
def block_number_used_again(world: World) -> Iterator[None]:
    resume = Writer.resume

    def back_by_one(self: Writer, manifest: dict[str, Any] | None) -> None:
        resume(self, manifest)
        self._last = max(self._last - 1, 0)

    with patch.object(Writer, "resume", back_by_one):
        yield


@_mutation("blocks of uncommitted epochs are cut again after a restart; what they held comes twice")
def uncommitted_blocks_kept(world: World) -> Iterator[None]:
    resume = Outbox.resume
    with patch.object(Outbox, "resume", lambda self, last: resume(self, 10**9)):
        yield


@_mutation("a frozen block that is not published again after a restart is lost")
def frozen_blocks_dropped(world: World) -> Iterator[None]:
    resume = Outbox.resume
    with patch.object(Outbox, "resume", lambda self, last: resume(self, None)):
        yield


@_mutation("a block may leave the outbox only once the store has answered")
def done_before_insert(world: World) -> Iterator[None]:
    check = Outbox.check

    def forget(self: Outbox, block: Block) -> None:
        check(self, block)
        self._json(block.number).unlink(missing_ok=True)

    with patch.object(Outbox, "check", forget):
        yield


@_mutation("a second process on one state directory counts everything twice")
def lock_not_taken(world: World) -> Iterator[None]:
    with patch.object(fcntl, "flock", lambda descriptor, how: None):
        yield


# ---- Deduplication ------------------------------------------------------------------------------------------------


@_mutation("fingerprints that are only in memory are forgotten by a crash")
def journal_not_appended(world: World) -> Iterator[None]:
    take = FingerprintSet.take_journal
    with patch.object(FingerprintSet, "take_journal", lambda self: [(n, at, b"") for n, at, _ in take(self)]):
        yield


@_mutation("fingerprints of an uncommitted epoch would make its events duplicates when they come again")
def segments_not_cut_back(world: World) -> Iterator[None]:
    def adopt(path: Path, length: int) -> None:
        """Takes the file as it lies there."""

    read = flow.state.segments.SegmentFiles.read

    def whole(self: Any, number: int) -> bytes:
        self._lengths[number] = self.path(number).stat().st_size
        return read(self, number)

    with (
        patch.object(flow.state.segments, "cut_back", adopt),
        patch.object(flow.state.segments.SegmentFiles, "read", whole),
    ):
        yield


@_mutation("a snapshot must say what is on disk now, not an epoch ago")
def manifest_of_the_epoch_before(world: World) -> Iterator[None]:
    snapshot = Deduplicator.snapshot

    def stale(self: Any) -> dict[str, Any]:
        manifest = snapshot(self)
        before = self.__dict__.get("stale", manifest)
        self.__dict__["stale"] = manifest
        return before

    with patch.object(Deduplicator, "snapshot", stale):
        yield


@_mutation("a segment may only be deleted once the snapshot without it is durable")
def retired_segments_deleted_at_once(world: World) -> Iterator[None]:
    snapshot = Deduplicator.snapshot

    def eager(self: Deduplicator) -> dict[str, Any]:
        manifest = snapshot(self)
        for number in self._doomed:
            self._files.remove(number)
        return manifest

    with patch.object(Deduplicator, "snapshot", eager):
        yield


@_mutation("duplicates are promised to be caught for the whole horizon")
def horizon_one_slice_short(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def short(self: FingerprintSet, *args: Any) -> Verdicts:
        kernel, horizon_us = self._set, world.options.horizon_us
        if horizon_us is not None:
            kernel.horizon_us = horizon_us - kernel.slice_us
        return judge(self, *args)

    with patch.object(FingerprintSet, "judge", short):
        yield


@_mutation("of two events with one identity only the first counts")
def conflicting_counted_as_new(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def lenient(self: FingerprintSet, *args: Any) -> Verdicts:
        found = judge(self, *args)
        rows = sorted(row for buffer in (found.accepted, found.conflicting) for row in memoryview(buffer).cast("I"))
        accepted = pa.py_buffer(b"".join(row.to_bytes(4, "little") for row in rows))
        return found._replace(
            accepted=accepted, accepted_count=len(rows), conflicting=pa.py_buffer(b""), conflicting_count=0
        )

    with patch.object(FingerprintSet, "judge", lenient):
        yield


@_mutation("what is late may depend on the events alone, or a replay judges otherwise than the run before it")
def watermark_from_wall_clock(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def hurried(self: FingerprintSet, *args: Any) -> Verdicts:
        self.restore_watermark(world.clock())
        return judge(self, *args)

    with patch.object(FingerprintSet, "judge", hurried):
        yield


# ---- The ledger ---------------------------------------------------------------------------------------------------


@_mutation("what an uncommitted epoch appended to the ledger is appended again after a restart")
def ledger_not_cut_back(world: World) -> Iterator[None]:
    append = flow.state.ledger.append

    def behind_whatever_is_there(path: Path, at: int, pieces: list[bytes]) -> None:
        append(path, path.stat().st_size if path.exists() else 0, pieces)

    with (
        patch.object(flow.state.ledger, "cut_back", lambda path, length: None),
        patch.object(flow.state.ledger, "append", behind_whatever_is_there),
    ):
        yield


@_mutation("a sealed file is never cut back, so it may only hold committed epochs")
def ledger_sealed_before_durable(world: World) -> Iterator[None]:
    snapshot = LedgerWriter.snapshot

    def eager(self: LedgerWriter, now_us: int) -> dict[str, Any]:
        manifest = snapshot(self, now_us)
        self.seal()
        return manifest

    with patch.object(LedgerWriter, "snapshot", eager):
        yield


@_mutation("snapshots of an epoch that was not committed come back unless the next life replaces them all")
def no_heartbeat_at_the_beginning(world: World) -> Iterator[None]:
    with patch.object(PausingPartition, "next_batch", lambda self: self.read()):
        yield


# ---- What is not synced -------------------------------------------------------------------------------------------


def _unsynced(world: World, skipped: Callable[[Path], bool]) -> Any:
    """The disk, but an fsync of what `skipped` names does nothing."""
    disk = world.disk
    fsync = disk.fsync

    def partial(descriptor: int) -> None:
        if not skipped(Path(f"/proc/self/fd/{descriptor}").readlink()):
            fsync(descriptor)

    return patch.object(disk, "fsync", partial)


@_mutation("a committed block whose rows were never synced is gone after a power loss")
def block_rows_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.suffix == ".arrow"):
        yield


@_mutation("a file is only as durable as its name")
def outbox_folder_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.name == "outbox"):
        yield


@_mutation("fingerprints of a committed epoch must survive a power loss")
def segments_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.suffix == ".fps"):
        yield


@_mutation("a new folder is only as durable as its name in the one above")
def new_folders_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.name == "shards"):
        yield


@_mutation("the open ledger file may only go once the sealed one is durable, name and all")
def sealed_ledger_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.parent.name.startswith("2")):
        yield


@_mutation("a block that forgets after a restart where it went on calls nothing behind")
def watermark_of_blocks_forgotten(world: World) -> Iterator[None]:
    with patch.object(BlockBuilder, "resume", lambda self, watermark_us: None):
        yield
