"""Invariants broken on purpose, one at a time: the simulator is worth what it finds.

Goal: show that each promise of exactly-once is really tested. Method: a mutation replaces one small thing
in the real code while a seed runs; tests/sim/test_mutations.py wants a failing seed for each. The missing
fsyncs are taken out at the disk, so that they name what must be synced and not who does it. Where the code
itself would notice at the next start and stop, its check is taken out as well (`_unnoticed`): the oracle has
to see what is wrong.
"""

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa

import flow.amending.correcting
import flow.amending.resolving
import flow.quarantine.redriving
import flow.sources.inbox
import flow.state.inbox
import flow.state.ledger
import flow.state.segments
import flow.steps.combine
import flow.steps.rate
import flow.steps.route
from flow.faults import point
from flow.kernels import Verdicts, identify
from flow.kernels.fingerprints import FingerprintSet
from flow.sinks.outbox import Block, Outbox
from flow.sinks.writer import Writer
from flow.sources.inbox import _Reader
from flow.sources.pausing import PausingPartition
from flow.state.inbox import Inbox
from flow.state.ledger import LedgerWriter
from flow.state.manifest import seal
from flow.state.retired import RetiredFilters
from flow.steps.combine import BlockBuilder
from flow.steps.deduplicate import Deduplicator
from flow.store.client import StoreUnavailable

from .world import Break, World


@dataclass(frozen=True)
class Mutation:
    """One broken invariant: its name, why it must hold, and what breaks it."""

    name: str
    why: str
    broken: Break
    given: dict[str, Any]
    """Options under which it is looked for; the others are those of the seed."""
    found_by: int
    """A seed that found it, which is tried before others."""

    def __str__(self) -> str:
        return self.name


MUTATIONS: list[Mutation] = []


def _mutation(why: str, *, found_by: int = 0, **given: Any) -> Callable[[Callable[[World], Iterator[None]]], Break]:
    def register(make: Callable[[World], Iterator[None]]) -> Break:
        broken = contextmanager(make)
        MUTATIONS.append(Mutation(make.__name__, why, broken, given, found_by))
        return broken

    return register


@contextmanager
def _unnoticed() -> Iterator[None]:
    """Without the checks of a start that the recovery store has not gone back, and that all fingerprints are there."""
    with (
        patch.object(Outbox, "begin", lambda self, block: None),
        patch.object(FingerprintSet, "__len__", lambda self: 0),
    ):
        yield


# ---- Blocks and tokens --------------------------------------------------------------------------------------------


@_mutation(
    "until its epoch is committed a block may come out otherwise after a crash, under the same token", found_by=2
)
def publish_at_cut(world: World) -> Iterator[None]:
    snapshot = Writer.snapshot

    def eager(self: Writer) -> dict[str, Any]:
        manifest = snapshot(self)
        if self._cut is not None:
            self._publisher.submit(self._outbox, self._cut)
            self._cut = None
            with suppress(StoreUnavailable):
                self._publisher.publish_next()
        return manifest

    with patch.object(Writer, "snapshot", eager), _unnoticed():
        yield


@_mutation("two blocks with one token: the store drops the second")
def token_without_block_number(world: World) -> Iterator[None]:
    with patch.object(Block, "token", property(lambda block: f"{block.lineage}-{block.writer}")):
        yield


@_mutation("an insert that is repeated by the next process must carry the same token", found_by=2)
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


@_mutation("blocks of uncommitted epochs are cut again after a restart; what they held comes twice", found_by=3)
def uncommitted_blocks_kept(world: World) -> Iterator[None]:
    resume = Outbox.resume
    with patch.object(Outbox, "resume", lambda self, last, in_store: resume(self, 10**9, in_store)):
        yield


@_mutation("a frozen block that is not published again after a restart is lost")
def frozen_blocks_dropped(world: World) -> Iterator[None]:
    resume = Outbox.resume
    with patch.object(Outbox, "resume", lambda self, last, in_store: resume(self, None, in_store)), _unnoticed():
        yield


@_mutation("a block may leave the outbox only once the store has answered", found_by=2)
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
    with (
        patch.object(FingerprintSet, "take_journal", lambda self: [(n, at, b"") for n, at, _ in take(self)]),
        patch.object(Deduplicator, "_keep_within_memory", lambda self: None),  # files that it needs are not there
        _unnoticed(),
    ):
        yield


@_mutation("fingerprints of an uncommitted epoch would make its events duplicates when they come again", found_by=3)
def segments_not_cut_back(world: World) -> Iterator[None]:
    def adopt(path: Path, length: int) -> None:
        """Takes the file as it lies there."""

    read = flow.state.segments.SegmentFiles.read

    def whole(self: Any, number: int, checksum: int | None) -> bytes:
        self._lengths[number] = self.path(number).stat().st_size
        return read(self, number, None)

    with (
        patch.object(flow.state.segments, "cut_back", adopt),
        patch.object(flow.state.segments.SegmentFiles, "read", whole),
        _unnoticed(),
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


@_mutation(
    "a segment may only be deleted once the snapshot without it is durable",
    horizon_us=10**8,
    gap_us=10**7,
    segment_ids_max=4,
    crash_step=0.03,
    lives_max=7,
    shards=1,
    epoch_steps_max=8,
    events=60,
    duplicate=0.0,
    late=0.0,
    bad=0.0,
    commands=0,
    found_by=14,
)
def retired_segments_deleted_at_once(world: World) -> Iterator[None]:
    snapshot = Deduplicator.snapshot

    def eager(self: Deduplicator) -> dict[str, Any]:
        manifest = snapshot(self)
        for number in self._doomed:
            self._files.remove(number)
        return manifest

    with patch.object(Deduplicator, "snapshot", eager):
        yield


_RETIRING: dict[str, Any] = {"horizon_us": 10**8, "gap_us": 10**7, "segment_ids_max": 4, "shards": 1, "commands": 0}
"""Generations retire soon and often."""


@_mutation(
    "what retired without a filter would be taken for never billed", **_RETIRING, crash_step=0.03, power_loss=1.0
)
def filters_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: ".bloom" in path.name):
        yield


@_mutation(
    "a filter of a lost epoch says of events that they were billed",
    **_RETIRING,
    crash_step=0.03,
    lives_max=7,
    found_by=10,
)
def filters_of_a_lost_epoch_kept(world: World) -> Iterator[None]:
    with patch.object(RetiredFilters, "resume", lambda self, segments: None):
        yield


@_mutation("duplicates are promised to be caught for the whole horizon", found_by=1)
def horizon_one_slice_short(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def short(self: FingerprintSet, *args: Any, **named: Any) -> Verdicts:
        kernel, horizon_us = self._set, world.options.horizon_us
        if horizon_us is not None:
            kernel.horizon_us = horizon_us - kernel.slice_us
        return judge(self, *args, **named)

    with patch.object(FingerprintSet, "judge", short):
        yield


@_mutation("of two events with one identity only the first counts")
def conflicting_counted_as_new(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def lenient(self: FingerprintSet, *args: Any, **named: Any) -> Verdicts:
        found = judge(self, *args, **named)
        rows = sorted(row for buffer in (found.accepted, found.conflicting) for row in memoryview(buffer).cast("I"))
        accepted = pa.py_buffer(b"".join(row.to_bytes(4, "little") for row in rows))
        return found._replace(
            accepted=accepted, accepted_count=len(rows), conflicting=pa.py_buffer(b""), conflicting_count=0
        )

    with patch.object(FingerprintSet, "judge", lenient):
        yield


@_mutation(
    "what is late may depend on the events alone, or a replay judges otherwise than the run before it", found_by=1
)
def watermark_from_wall_clock(world: World) -> Iterator[None]:
    judge = FingerprintSet.judge

    def hurried(self: FingerprintSet, *args: Any, **named: Any) -> Verdicts:
        self.restore_watermark(world.clock())
        return judge(self, *args, **named)

    with patch.object(FingerprintSet, "judge", hurried):
        yield


# ---- The ledger ---------------------------------------------------------------------------------------------------


@_mutation(
    "what an uncommitted epoch appended to the ledger is appended again after a restart",
    ledger_file_bytes=6_000,
    crash_step=0.02,
    found_by=3,
)
def ledger_not_cut_back(world: World) -> Iterator[None]:
    append = flow.state.ledger.append

    def behind_whatever_is_there(path: Path, at: int, pieces: list[bytes]) -> None:
        append(path, path.stat().st_size if path.exists() else 0, pieces)

    with (
        patch.object(flow.state.ledger, "cut_back", lambda path, length: None),
        patch.object(flow.state.ledger, "append", behind_whatever_is_there),
    ):
        yield


@_mutation(
    "a sealed file is never cut back, so it may only hold committed epochs",
    ledger_file_bytes=1,
    crash_step=0.02,
    found_by=3,
)
def ledger_sealed_before_durable(world: World) -> Iterator[None]:
    snapshot = LedgerWriter.snapshot

    def eager(self: LedgerWriter, now_us: int) -> dict[str, Any]:
        manifest = snapshot(self, now_us)
        self.seal()
        return manifest

    with patch.object(LedgerWriter, "snapshot", eager):
        yield


@_mutation("snapshots of an epoch that was not committed come back unless the next life replaces them all", found_by=10)
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


@_mutation("a file is only as durable as its name", found_by=3)
def outbox_folder_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.name == "outbox"):
        yield


@_mutation("fingerprints of a committed epoch must survive a power loss")
def segments_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.suffix == ".fps"):
        yield


@_mutation("a new folder is only as durable as its name in the one above", found_by=3)
def new_folders_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.name == "shards"):
        yield


@_mutation("the open ledger file may only go once the sealed one is durable, name and all", found_by=2)
def sealed_ledger_not_synced(world: World) -> Iterator[None]:
    with _unsynced(world, lambda path: path.parent.name.startswith("2")):
        yield


@_mutation("a block that forgets after a restart where it went on calls nothing behind")
def watermark_of_blocks_forgotten(world: World) -> Iterator[None]:
    with patch.object(BlockBuilder, "resume", lambda self, watermark_us: None):
        yield


# ---- Corrections and the inbox ------------------------------------------------------------------------------------


@_mutation("a command that is given again after a crash must not put its events into the inbox again")
def inbox_key_not_looked_at(world: World) -> Iterator[None]:
    with patch.object(Inbox, "_of", staticmethod(lambda keys, kind, key: None)):
        yield


@_mutation(
    "a name that a killed command has given is not durable before somebody syncs it",
    commands=6,
    crash_command=0.0,
    crash_point=(),
    crash_disk=(("disk.rename done", 0.4),),
    crash_step=0.05,
    power_loss=0.5,
    survival=0.0,
    lives_max=7,
    horizon_us=None,
    found_by=5,
)
def names_of_others_not_synced(world: World) -> Iterator[None]:
    with patch.object(Inbox, "settle", lambda self: None):
        yield


@_mutation("what was read of the inbox stays read when the job starts again")
def inbox_position_not_kept(world: World) -> Iterator[None]:
    snapshot = _Reader.snapshot

    def from_the_beginning(self: _Reader) -> bytes:
        snapshot(self)
        return seal("inbox", {"file": self._name, "offset": 0})

    with patch.object(_Reader, "snapshot", from_the_beginning):
        yield


@_mutation("a file of the inbox may be there only when it is whole")
def inbox_file_written_in_place(world: World) -> Iterator[None]:
    def in_place(path: Path, content: bytes) -> None:
        half = content[: content.find(b"\n") + 1]
        path.write_bytes(half)
        point("redrive.prepared")
        path.write_bytes(content)

    with patch.object(flow.state.inbox, "write_whole", in_place):
        yield


@_mutation(
    "a late event that is billed must not be late again",
    commands=6,
    late=0.1,
    ledger_file_bytes=4_000,
    horizon_us=10**9,
)
def late_events_not_admitted(world: World) -> Iterator[None]:
    with patch.object(flow.sources.inbox, "ADMITTED", ()):
        yield


@_mutation(
    "a command that died between the inbox and the store leaves what the next one has to tell the store",
    commands=6,
    crash_command=0.0,
    crash_point=(("late.put", 0.5),),
    late=0.4,
    ledger_file_bytes=4_000,
    horizon_us=10**9,
    found_by=6,
)
def decisions_lost_in_a_crash(world: World) -> Iterator[None]:
    find = Inbox.find
    with patch.object(Inbox, "find", lambda self, kind, key: None if kind == "late" else find(self, kind, key)):
        yield


@_mutation(
    "a rejected event that went back must say so, whatever died meanwhile",
    commands=6,
    crash_command=0.0,
    crash_point=(("redrive.put", 0.5),),
    bad=0.2,
    found_by=9,
)
def way_back_not_told(world: World) -> Iterator[None]:
    find = Inbox.find
    with patch.object(Inbox, "find", lambda self, kind, key: None if kind == "redrive" else find(self, kind, key)):
        yield


@_mutation(
    "what a command tells the store twice must carry the same token",
    commands=6,
    crash_command=0.0,
    crash_point=(("redrive.told", 0.5), ("late.told", 0.5)),
    bad=0.2,
    found_by=4,
)
def told_with_another_token(world: World) -> Iterator[None]:
    insert = flow.quarantine.redriving.insert_arrow_file

    def renamed(client: Any, table: str, columns: Any, path: Path, token: str) -> None:
        insert(client, table, columns, path, f"{token}-{world.crashes}")

    with (
        patch.object(flow.quarantine.redriving, "insert_arrow_file", renamed),
        patch.object(flow.amending.resolving, "insert_arrow_file", renamed),
    ):
        yield


@_mutation("a correction is no request")
def correction_counted_as_event(world: World) -> Iterator[None]:
    with patch.object(flow.steps.combine, "without_events", lambda batch, keep_digest: batch):
        yield


@_mutation("a request is taken back once, and not for each correction", found_by=1)
def correction_pays_for_a_request(world: World) -> Iterator[None]:
    with patch.object(flow.steps.rate, "without_requests", lambda amounts: amounts):
        yield


@_mutation("two corrections that say the same of usage, for other reasons, are two")
def correction_known_by_its_usage(world: World) -> Iterator[None]:
    with patch.object(flow.steps.route, "identify_amending", lambda events, amends: identify(events)):
        yield


@_mutation(
    "a second correction of an event comes on top of the first",
    commands=6,
    ledger_file_bytes=4_000,
    events=12,
    found_by=4,
)
def corrections_before_forgotten(world: World) -> Iterator[None]:
    with patch.object(flow.amending.correcting, "_corrections_of", lambda *_: iter(())):
        yield


@_mutation(
    "a command must not believe what a crash may take back: another event of the same identity may come first then",
    commands=8,
    conflicting=1.0,
    bad=0.0,
    late=0.0,
    corrections=0.0,
    crash_step=0.05,
    partitions=4,
    ledger_file_bytes=4_000,
    events=12,
    found_by=5,
)
def uncommitted_events_corrected(world: World) -> Iterator[None]:
    def all_of_it(folder: Path) -> dict[str, int]:
        return {path.name: path.stat().st_size for path in flow.state.ledger.unsealed_files(folder)}

    find = flow.amending.correcting.find_events
    with patch.object(
        flow.amending.correcting,
        "find_events",
        lambda folder, lineage, expected, _: find(folder, lineage, expected, all_of_it(folder)),
    ):
        yield
