"""Reconciliation while a job runs: every so often, on a thread of its own, against what the store has by then.

The dataflow never waits for it. What comes of it is a row of `reconciliations`, metrics, and a warning where the two
differ. The row is no part of a block: it tells what was seen at a moment, and one that is lost is told again by the
next.
"""

import json
import logging
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

from ..config import Config, Reconcile
from ..errors import ConfigError, TallyflowError
from ..store import connect
from .asked import Scope
from .others import store_of_config
from .reconciling import Asked, reconcile
from .report import Reconciliation, as_json
from .variance import percent

LOG = logging.getLogger(__name__)
DETAIL_ROWS_MAX = 100
"""Rows of each kind that the store keeps of a reconciliation."""
_INSERT = (
    "INSERT INTO reconciliations (lineage, begun, finished, against, window_from, window_before, verdict, events_here, "
    "events_there, differing, threshold, detail) VALUES ({lineage:String}, {begun:DateTime64(6, 'UTC')}, "
    "now64(6, 'UTC'), {against:String}, {from_s:UInt32}, {before_s:UInt32}, {verdict:String}, {events_here:UInt64}, "
    "{events_there:UInt64}, {differing:UInt64}, {threshold:String}, {detail:String})"
)


class Verdict(StrEnum):
    """What one came to."""

    AGREES = "agrees"
    WITHIN = "within"
    BEYOND = "beyond"
    FAILED = "failed"
    """It could not be made; nothing is known."""


@dataclass(frozen=True, slots=True)
class Told:
    """The last reconciliation of a job."""

    finished_us: int
    verdict: Verdict
    differing: int
    """Minutes of customers, or buckets of a report."""


def refuse_two_embedded(config: Config) -> None:
    """A process can have one embedded store open, so that a job with such a store cannot be held against a pipeline
    with another one. (The config itself refuses the URL of one.)

    Raises ConfigError, also if the config of the other pipeline is not valid.
    """
    if config.reconcile is None or config.store.kind != "chdb":
        return
    against = config.reconcile.against[0]
    other = store_of_config(against)
    if other is not None and other.kind == "chdb":
        raise ConfigError(
            f"reconcile.against: {against} is an embedded store ({other.url}), as the job's own is, and a process can "
            "have one of them open; compare the two with `tallyflow reconcile`, or here with its event files"
        )


class _Stopping(Exception):
    """The job ends; a reconciliation that is on is given up."""


class Reconciler:
    """The reconciliations of one job. `once` can be driven by hand; `start` drives it from a thread."""

    def __init__(self, config: Config, asked: Reconcile, lineage: str, clock: Callable[[], int]) -> None:
        """`clock`: microseconds since 1970."""
        self._config = config
        self._asked = asked
        self._lineage = lineage
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.last: Told | None = None
        self.counts: Counter[Verdict] = Counter()
        """How many of each there were in this run."""

    def start(self) -> None:
        """Begins, the first time after the interval: by then there is something in the store."""
        self._thread = threading.Thread(target=self._run, name="reconciler", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends the thread, once the question that is on has been answered."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while not self._stop.wait(self._asked.every_us // 1_000_000):
            try:
                self.once()
            except _Stopping:
                return

    def once(self) -> None:
        """Compares the windows that are settled, and tells what came of it."""
        begun_us = self._clock()
        end_s = (begun_us - self._asked.settle_us) // 60_000_000 * 60
        scope = Scope(max(end_s - self._asked.back_us // 1_000_000, 0), max(end_s, 0))
        asked = Asked(self._asked.against, self._asked.threshold, scope, False, self._asked.mapping, self._asked.models)
        try:
            found = reconcile(self._config, asked, begun_us, self._on_step, threads=1)
        except _Stopping:
            raise
        except Exception as error:  # whatever it was, the job goes on without it
            LOG.warning("the reconciliation failed: %s", error)
            self._tell(begun_us, scope, Verdict.FAILED, None, {"error": str(error)})
            return
        verdict = Verdict.AGREES if found.agrees else Verdict.WITHIN if found.passes else Verdict.BEYOND
        level = logging.WARNING if verdict is Verdict.BEYOND else logging.INFO
        told = {"here": found.here, "against": found.there, "verdict": verdict.value}
        LOG.log(level, "reconciled: %s", found.verdict(), extra=told)
        self._tell(begun_us, scope, verdict, found, as_json(_shortened(found)))

    def _on_step(self, step: str) -> None:
        if self._stop.is_set():
            raise _Stopping

    def _tell(
        self, begun_us: int, scope: Scope, verdict: Verdict, found: Reconciliation | None, detail: dict[str, Any]
    ) -> None:
        differing = 0 if found is None else found.minute_count + len(found.usage)
        self.last = Told(self._clock(), verdict, differing)
        self.counts[verdict] += 1
        row = {
            "lineage": self._lineage,
            "begun": f"{begun_us // 1_000_000}.{begun_us % 1_000_000:06}",
            "against": "" if found is None else found.there,
            "from_s": scope.from_s,
            "before_s": scope.before_s,
            "verdict": verdict.value,
            "events_here": 0 if found is None else found.events_here,
            "events_there": 0 if found is None else found.events_there,
            "differing": differing,
            "threshold": percent(self._asked.threshold),
            "detail": json.dumps(detail, ensure_ascii=False),
        }
        try:
            with connect(self._config.store) as client:
                client.use_database()
                client.command(_INSERT, row)
        except TallyflowError as error:
            LOG.warning("the reconciliation is not in the store: %s", error)


def _shortened(found: Reconciliation) -> Reconciliation:
    """With the first rows of each kind only."""
    lists = ("variances", "minutes", "events", "usage")
    return replace(found, **{name: getattr(found, name)[:DETAIL_ROWS_MAX] for name in lists})
