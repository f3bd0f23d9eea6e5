"""Watches the job of one process from outside: the calls that Bytewax makes, and the blocks that the store takes.

Steps know nothing of it, and without `metrics` or `traces` in the config nothing is wrapped. Each wrapped call is one
batch, the end of one epoch of a shard, or one block, so that no cost is per event.
"""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ..job import Job
from ..sinks.outbox import Block
from ..sinks.writer import MANIFEST as WRITER_MANIFEST
from ..state.manifest import unseal
from ..steps.batches import Decoded, Heartbeat
from ..steps.deduplicate import MANIFEST as SHARD_MANIFEST
from ..steps.deduplicate import DeduplicateLogic, Judged
from ..steps.rate import Rated
from .measures import Measures
from .spans import Parent, Spans

VIEW_TABLES = {
    "usage_by_minute": "rollup_minute",
    "usage_by_hour": "rollup_minute",
    "usage_by_day": "rollup_minute",
    "usage_by_week": "rollup_day",
    "usage_by_month": "rollup_day",
}
"""The table that each view reads."""

_NS = 10**9
Step = Callable[..., Any]


@dataclass
class _Epoch:
    """Where one writer is."""

    begun_ns: int
    block: int
    watermark_us: int = -1


@dataclass(frozen=True)
class _Cut:
    """A block on its way to the store."""

    watermark_us: int
    parent: Parent


class Observer:
    """Counts what one job does. `watch` it before its dataflow is built."""

    def __init__(self, job: Job, measures: Measures, spans: Spans) -> None:
        self._job = job
        self._measures = measures
        self._spans = spans
        self._lock = threading.Lock()
        self._cut: dict[tuple[str, int], _Cut] = {}
        self._filtering: dict[str, tuple[int, int, int]] = {}  # at the last epoch, by shard
        self.writers: set[str] = set()
        """The names of this process's writers."""

    def watch(self) -> None:
        """Wraps the steps of the job, its sink and its publisher."""
        job = self._job
        self._wrap(job, "decode", self._timed("decode", self._decoded))
        self._wrap(job, "route", self._timed("route"))
        self._wrap(job, "deduplicate", self._logic)
        self._wrap(job, "rate", self._timed("rate"))
        self._wrap(job.sink, "build_part", self._part)
        job.publisher.on_published = self._published

    @staticmethod
    def _wrap(thing: object, name: str, wrapped: Callable[[Step], Step]) -> None:
        setattr(thing, name, wrapped(getattr(thing, name)))

    def _timed(self, stage: str, told: Step = lambda made, *arguments: None) -> Callable[[Step], Step]:
        """Wraps a call: its time is taken, then `told` hears what it made, and of what."""
        seconds = self._measures.stage_seconds.labels(stage)

        def wrapped(step: Step) -> Step:
            def call(*arguments: Any) -> Any:
                begun = time.perf_counter()
                made = step(*arguments)
                if isinstance(made, Iterator):
                    made = list(made)  # the work of a generator is in the reading of it
                seconds.observe(time.perf_counter() - begun)
                told(made, *arguments)
                return made

            return call

        return wrapped

    # -- decode and deduplicate

    def _decoded(self, decoded: Decoded | Heartbeat, *_: Any) -> None:
        if isinstance(decoded, Heartbeat) or not decoded.rejected.num_rows:
            return
        for found in decoded.rejected.column("reason").value_counts():
            self._measures.rejected.labels(found["values"].as_py()).inc(found["counts"].as_py())

    def _logic(self, make: Callable[[bytes | None], DeduplicateLogic]) -> Step:
        def call(resume_state: bytes | None) -> DeduplicateLogic:
            logic = make(resume_state)
            self._wrap(logic, "on_batch", self._timed("deduplicate", self._judged))
            self._wrap(logic, "snapshot", self._timed("shard_snapshot", lambda sealed: self._shard(logic, sealed)))
            return logic

        return call

    def _judged(self, made: tuple[list[Judged], bool], *_: Any) -> None:
        accepted = duplicate = conflicting = late = 0
        for judged in made[0]:
            verdicts = judged.verdicts
            accepted += verdicts.accepted_count
            duplicate += verdicts.duplicate_count
            conflicting += verdicts.conflicting_count
            late += verdicts.late_count
        counts = {"accepted": accepted, "duplicate": duplicate, "conflicting": conflicting, "late": late}
        for verdict, count in counts.items():
            self._measures.verdicts.labels(verdict).inc(count)
        last = made[0][-1]
        if last.watermark_us >= 0:
            self._measures.watermark.labels(last.routed.shard).set(last.watermark_us / 1e6)

    def _shard(self, logic: DeduplicateLogic, sealed: bytes) -> None:
        manifest = unseal(sealed, SHARD_MANIFEST, "a snapshot just taken")
        self._measures.dedup_fingerprints.labels(manifest["shard"]).set(manifest["fingerprints"])
        self._measures.dedup_memory.labels(manifest["shard"]).set(logic.memory_bytes)
        now, before = logic.filtering, self._filtering.get(manifest["shard"], (0, 0, 0))
        self._filtering[manifest["shard"]] = now
        lookups, passed, found = (new - old for new, old in zip(now, before, strict=True))
        answers = {"new": lookups - passed, "known": found, "false_positive": passed - found}
        for answer, count in answers.items():
            self._measures.dedup_filter.labels(manifest["shard"], answer).inc(count)

    # -- the writers

    def _part(self, build: Step) -> Step:
        def call(step_id: str, for_part: str, resume_state: bytes | None) -> Any:
            part = build(step_id, for_part, resume_state)
            block = 0
            if resume_state is not None:
                block = unseal(resume_state, WRITER_MANIFEST, f"recovery store, step {step_id}, {for_part}")["block"]
            epoch = _Epoch(time.time_ns(), block)
            self.writers.add(for_part)
            self._wrap(part, "write_batch", self._timed("combine", lambda _, values: self._written(epoch, values)))
            self._wrap(part, "snapshot", self._timed("writer_snapshot", lambda sealed: self._ended(epoch, sealed)))
            return part

        return call

    @staticmethod
    def _written(epoch: _Epoch, values: list[Rated]) -> None:
        epoch.watermark_us = max(epoch.watermark_us, values[-1].judged.watermark_us)

    def _ended(self, epoch: _Epoch, sealed: bytes) -> None:
        """An epoch of a writer has ended, and most often it has cut a block."""
        manifest = unseal(sealed, WRITER_MANIFEST, "a snapshot just taken")
        now_ns = time.time_ns()
        self._measures.epoch_seconds.observe((now_ns - epoch.begun_ns) / _NS)
        if manifest["block"] != epoch.block:
            epoch.block = manifest["block"]
            parent = self._spans.epoch(manifest["writer"], epoch.block, epoch.begun_ns, now_ns)
            with self._lock:
                self._cut[manifest["writer"], epoch.block] = _Cut(epoch.watermark_us, parent)
        epoch.begun_ns = now_ns

    # -- the publisher

    def _published(self, block: Block, begun_ns: int) -> None:
        """The store has a block; one of an earlier run has no `_Cut`."""
        now_ns = time.time_ns()
        self._measures.stage_seconds.labels("publish").observe((now_ns - begun_ns) / _NS)
        with self._lock:
            cut = self._cut.pop((block.writer, block.number), None)
        self._spans.published(block, begun_ns, now_ns, cut.parent if cut is not None else None)
        tables = {file.table for file in block.files}
        for view, table in VIEW_TABLES.items():
            if table in tables:
                self._measures.view_published.labels(view).set(now_ns / _NS)
                if cut is not None and cut.watermark_us >= 0:
                    self._measures.view_event_time.labels(view).set(cut.watermark_us / 1e6)
