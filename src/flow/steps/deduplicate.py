"""Deduplication of one shard, and the state that it keeps across restarts."""

from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bytewax.operators import StatefulBatchLogic

from ..errors import StateError
from ..faults import point
from ..kernels import Rows, Verdicts
from ..kernels.fingerprints import RECORDS_MAX, SEGMENT_IDS_MAX, Filtering, FingerprintSet
from ..state.beside import Beside
from ..state.files import explain
from ..state.manifest import DamagedManifest, seal, unseal
from ..state.retired import RetiredFilters
from ..state.segments import RECORD_BYTES, SegmentFiles
from .parcel import Parcel
from .route import Routed

MANIFEST = "shard"
APPEND_RECORDS = 1 << 17
"""Fingerprints that are held back until they are written: few enough to be in the cache still."""
IN_MEMORY_MAX = RECORDS_MAX - 2 * SEGMENT_IDS_MAX
"""Fingerprints that a shard keeps in memory, however much there may be of it, with room for what comes meanwhile."""
ACTIVE_BYTES_MAX = 48
"""What an id takes in the active segment, when its index has just doubled."""


def segment_ids_max(memory_bytes_max: int) -> int:
    """How many ids a segment may have, so that the active one takes three eighths of the memory at most."""
    return min(SEGMENT_IDS_MAX, max(memory_bytes_max * 3 // 8 // ACTIVE_BYTES_MAX, 1 << 12))


@dataclass(frozen=True, slots=True)
class Judged:
    """A routed batch with the verdict on each of its rows."""

    routed: Routed
    verdicts: Verdicts
    watermark_us: int
    """The shard's watermark behind this batch."""

    @property
    def accepted(self) -> tuple[Rows, int]:
        return self.verdicts.accepted, self.verdicts.accepted_count


class LeaveFilter:
    """Makes the filter of each segment that goes, one after the other; one that has left memory is read in its file.

    No method of a Deduplicator: that would hold all fingerprints in a circle, and they would stay in memory until the
    garbage collector comes by.
    """

    def __init__(self, files: SegmentFiles, retired: RetiredFilters, beside: Beside) -> None:
        self._files = files
        self._retired = retired
        self._beside = beside
        self._begun: Future[None] | None = None

    def __call__(self, number: int, sealed_at_us: int, ids: int, records: Iterable[memoryview] | None) -> None:
        self.wait()
        if records is None:
            records = self._files.read(number, self._files.checksum(number))
        self._begun = self._beside.begin(partial(self._retired.leave, number, sealed_at_us, ids, records))

    @property
    def made(self) -> bool:
        """Whether there is one that is not waited for, and made."""
        return self._begun is not None and self._begun.done()

    def wait(self) -> None:
        """Until the last is made. Raises what making it has raised."""
        if self._begun is not None:
            self._begun.result()
            self._begun = None


class Deduplicator:
    """One shard: what of its fingerprints is in memory, and their files. Knows nothing of Bytewax.

    `horizon_us` None is unbounded; `generations` is how many slices a horizon has. Three sixteenths of
    `memory_bytes_max` are for what it takes to let a segment go. When segments need more than the rest, the oldest
    sealed ones leave memory. A segment that the horizon has passed leaves a filter on disk, until that is
    `filters_kept_us` behind the watermark (None: for good).
    """

    def __init__(
        self,
        shard: str,
        folder: Path,
        horizon_us: int | None,
        generations: int,
        memory_bytes_max: int,
        filters_kept_us: int | None = None,
        beside: Beside | None = None,
    ) -> None:
        """`beside` makes the filters, None: each at once."""
        self.shard = shard
        self._filters_kept_us = filters_kept_us
        self._memory_bytes_max = memory_bytes_max
        ids_max = segment_ids_max(memory_bytes_max)
        self._files = SegmentFiles(folder)
        slice_us = max((horizon_us or 1) // generations, 1)
        self._retired = RetiredFilters(folder)
        self._leave_filter = LeaveFilter(self._files, self._retired, beside or Beside(0))
        self._fingerprints = FingerprintSet(horizon_us, slice_us, ids_max, self._leave_filter)
        self._sealed_at_us: dict[int, int] = {}  # per segment on disk; -1 while it is active
        self._doomed: list[int] = []  # in the last snapshot but one, not in the last
        self.append_records = APPEND_RECORDS
        self._learnt = 0  # records that are in no segment file yet

    @property
    def memory_bytes(self) -> int:
        """What the fingerprints and their filters take."""
        return self._fingerprints.memory_bytes

    @property
    def filtering(self) -> Filtering:
        """What its filters did since the start."""
        return self._fingerprints.filtering

    def start_empty(self) -> None:
        """Begins without any state; what lies on disk was never committed."""
        self._files.start_empty()

    def resume(self, manifest: dict[str, Any]) -> None:
        """Loads what a snapshot recorded. Raises StateError if a file is missing, cut or damaged."""
        segments = manifest["segments"]
        sealed = [segment["number"] for segment in segments if segment["sealed_at_us"] >= 0]
        self._files.resume({segment["number"]: segment["length"] for segment in segments}, sealed)
        self._retired.resume([segment["number"] for segment in segments])
        for segment in segments:
            number, sealed_at_us, checksum = segment["number"], segment["sealed_at_us"], segment.get("checksum")
            filed = None if sealed_at_us < 0 or checksum is None else self._files.filed(number, checksum)
            records_max = segment["length"] // RECORD_BYTES
            records = self._files.read(number, checksum)
            self._fingerprints.restore(number, sealed_at_us, records_max, records, filed)
            self._sealed_at_us[number] = sealed_at_us
            self._keep_within_memory()
        if len(self._fingerprints) != manifest["fingerprints"]:
            raise StateError(
                f"{self._files.path(0).parent}: {len(self._fingerprints)} fingerprints were read, "
                f"{manifest['fingerprints']} are recorded; restore the state directory from a backup"
            )
        self._fingerprints.restore_watermark(manifest["watermark_us"])

    def judge(self, routed: Routed) -> Judged:
        """Judges a batch and remembers its new events. Raises StateError if a file cannot be read."""
        times, rows = routed.events.column("event_time_us"), (routed.rows, routed.count)
        try:
            verdicts = self._fingerprints.judge(routed.identity, times, *rows, admitted=routed.admitted)
        except OSError as error:
            raise explain(error, Path(error.filename), "read") from error
        self._learnt += verdicts.accepted_count
        if self._learnt >= self.append_records:
            self._append()
        return Judged(routed, verdicts, self._fingerprints.watermark_us)

    def _append(self) -> None:
        """Appends what was learnt since the last time to the segment files."""
        for number, sealed_at_us, records in self._fingerprints.take_journal():
            if records:
                self._files.append(number, records)
                self._sealed_at_us[number] = -1
            if number in self._sealed_at_us:
                self._sealed_at_us[number] = sealed_at_us
        self._learnt = 0
        self._keep_within_memory()

    def _keep_within_memory(self) -> None:
        """Lets the oldest sealed segments leave memory for their files."""
        bytes_max = self._memory_bytes_max * 13 // 16
        if self._leave_filter.made or self._is_beyond(bytes_max):
            self._wait_for_filters()
        if self._is_beyond(bytes_max) and (sealed := self._fingerprints.sealed_in_memory()):
            self._files.sync()
            while sealed and self._is_beyond(bytes_max):
                number = sealed.pop(0)
                self._fingerprints.leave_memory(number, self._files.file(number, *self._fingerprints.packed(number)))
        self._fingerprints.release(bytes_max)
        if self.memory_bytes > bytes_max:
            raise StateError(
                f"{self.shard}: {len(self._fingerprints)} fingerprints take {self.memory_bytes} bytes of memory, too "
                "much for its share of dedup.memory_max; raise it, or shorten dedup.horizon; nothing is lost"
            )

    def _wait_for_filters(self) -> None:
        self._leave_filter.wait()
        self._fingerprints.let_go()

    def _is_beyond(self, bytes_max: int) -> bool:
        return self.memory_bytes > bytes_max or self._fingerprints.records_in_memory > IN_MEMORY_MAX

    def snapshot(self) -> dict[str, Any]:
        """Appends what was learnt to the segment files, synced, and says how far they go.

        The snapshot before this one is durable now (a property of the pinned Bytewax that the tests keep watch on),
        so that files which it does not name can go.
        """
        for number in self._doomed:
            self._files.remove(number)
        point("shard.before_append")
        self._append()
        self._files.sync()
        self._wait_for_filters()
        point("shard.after_append")
        retired = self._fingerprints.take_retired()
        self._doomed = [number for number in retired if number in self._sealed_at_us]
        for number in self._doomed:
            del self._sealed_at_us[number]
        if retired and self._filters_kept_us is not None:
            self._retired.expire(self._fingerprints.watermark_us - self._filters_kept_us)
        return {
            "shard": self.shard,
            "watermark_us": self._fingerprints.watermark_us,
            "fingerprints": len(self._fingerprints),
            "segments": [
                {
                    "number": number,
                    "sealed_at_us": sealed_at_us,
                    "length": self._files.length(number),
                    "checksum": self._files.checksum(number),
                }
                for number, sealed_at_us in sorted(self._sealed_at_us.items())
            ],
        }


class DeduplicateLogic(StatefulBatchLogic[Routed | Parcel, Judged, bytes]):
    """The Bytewax shell of a Deduplicator. Bytewax tells a logic no key: a new one learns it from its first batch."""

    def __init__(self, make: "MakeDeduplicator", resume_state: bytes | None, begun: Collection[str] = ()) -> None:
        """`begun`: shards that have published, of which a snapshot was therefore committed, and has to be there."""
        self._make = make
        self._begun = begun
        self._shard: Deduplicator | None = None
        if resume_state is not None:
            manifest = unseal(resume_state, MANIFEST, "recovery store, step deduplicate")
            self._shard = make(manifest["shard"])
            self._shard.resume(manifest)

    @property
    def memory_bytes(self) -> int:
        """What the shard takes. To be asked on the worker's thread: a kernel that works holds no lock."""
        return self._shard.memory_bytes if self._shard is not None else 0

    @property
    def filtering(self) -> Filtering:
        """What its filters did since the start; on the worker's thread too."""
        return self._shard.filtering if self._shard is not None else Filtering(0, 0, 0)

    def on_batch(self, values: list[Routed | Parcel]) -> tuple[list[Judged], bool]:
        parts = [value.routed if isinstance(value, Parcel) else value for value in values]
        if self._shard is None:
            shard = parts[0].shard
            if shard in self._begun:
                raise DamagedManifest(
                    f"recovery store, step deduplicate, {shard}: missing, and the shard has published before; restore "
                    "it from a backup, or start a new lineage"
                )
            self._shard = self._make(shard)
            self._shard.start_empty()
        return [self._shard.judge(routed) for routed in parts], StatefulBatchLogic.RETAIN

    def snapshot(self) -> bytes:
        if self._shard is None:
            raise StateError("step deduplicate: a snapshot was asked for before the first batch")
        return seal(MANIFEST, self._shard.snapshot())


AT_ONCE = partial(Beside, 0)
"""Makes filters without a thread."""


@dataclass(frozen=True)
class MakeDeduplicator:
    """Makes the Deduplicator of a shard by name."""

    folder_of: Any  # Callable[[str], Path]; dataclasses take a bare function for a method
    horizon_us: int | None
    generations: int
    memory_bytes_max: int
    """Of one shard."""
    filters_kept_us: int | None = None
    beside: Callable[[], Beside] = AT_ONCE
    """Makes what makes the filters of a shard."""

    def __call__(self, shard: str) -> Deduplicator:
        return Deduplicator(
            shard,
            self.folder_of(shard),
            self.horizon_us,
            self.generations,
            self.memory_bytes_max,
            self.filters_kept_us,
            self.beside(),
        )
