"""Rules: events that fail one with severity `reject` leave the batch, those that fail another are flagged and go on.

Both are few, and handled row by row; which they are, the kernel finds for the whole batch. A rule holds by the event's
own time, so that all copies of an event, and a replay of its source, meet the same rules.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa

from ..errors import RejectReason
from ..rules.checker import NO_CLOCK_US, Checker, plain_events
from ..rules.rule import REJECT, Rule
from ..schema import FLAGS
from .batches import Decoded, Rejects
from .canonical import canonical

Failures = Counter[tuple[str, str]]
"""How many events fail a rule, by its id and severity."""


def check(decoded: Decoded, checker: Checker, label: str, now_us: int) -> tuple[Decoded, Failures]:
    """Holds new events, which are read now, to the rules; `label` names the rule book in what is set aside."""
    failures = checker.failures(decoded.events, now_us)
    if not failures:
        return replace(decoded, checked=True), Counter()
    counts = _counted(failures, checker)
    severe = {n for n, rule in enumerate(checker.rules) if rule.severity == REJECT}
    rejected = [row for row, failed in failures.items() if not severe.isdisjoint(failed)]
    if rejected:
        rejects = Rejects(decoded.origin, decoded.messages)
        for row, event in zip(rejected, plain_events(decoded.events, rejected), strict=True):
            failed = [checker.rules[n] for n in failures.pop(row) if n in severe]
            detail = f"{_seen(failed, event, now_us)} ({label})"
            rejects.add(event["position"], RejectReason.RULE, detail, canonical(event))
        decoded = _without(decoded, rejected, rejects.batch())
        gone = np.array(rejected)
        failures = {row - int(np.searchsorted(gone, row)): failed for row, failed in failures.items()}
    return replace(decoded, flags=_flags(decoded.events, failures, checker, label, now_us), checked=True), counts


def check_accepted(decoded: Decoded, checker: Checker, label: str) -> tuple[Decoded, Failures]:
    """Events that were accepted once stay accepted, or a replay would not come to the same totals: all that they fail
    is flagged, and clocks say nothing of them."""
    failures = checker.failures(decoded.events, NO_CLOCK_US)
    flags = _flags(decoded.events, failures, checker, label, NO_CLOCK_US)
    return replace(decoded, flags=flags, checked=True), _counted(failures, checker)


def _counted(failures: Mapping[int, Sequence[int]], checker: Checker) -> Failures:
    numbers = Counter(n for failed in failures.values() for n in failed)
    return Counter({(checker.rules[n].id, checker.rules[n].severity): count for n, count in numbers.items()})


def _without(decoded: Decoded, rows: Sequence[int], rejected: pa.RecordBatch) -> Decoded:
    kept = np.ones(decoded.events.num_rows, bool)
    kept[list(rows)] = False
    events = decoded.events.take(pa.array(np.flatnonzero(kept), pa.uint32()))
    both = pa.Table.from_batches([decoded.rejected, rejected]).combine_chunks().to_batches()
    return replace(decoded, events=events, rejected=both[0], identity=None)


def _flags(
    events: pa.RecordBatch, failures: Mapping[int, Sequence[int]], checker: Checker, label: str, now_us: int
) -> pa.RecordBatch | None:
    """FLAGS of these rows; None where there are none."""
    if not failures:
        return None
    found = [
        (row, rule.id, rule.severity, f"{rule.check.seen(event, now_us)} ({label})")
        for (row, failed), event in zip(failures.items(), plain_events(events, list(failures)), strict=True)
        for rule in (checker.rules[n] for n in failed)
    ]
    columns = [pa.array(column, field.type) for column, field in zip(zip(*found, strict=True), FLAGS, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=FLAGS)


def _seen(failed: Sequence[Rule], event: dict[str, Any], now_us: int) -> str:
    return "; ".join(f"{rule.id}: {rule.check.seen(event, now_us)}" for rule in failed)
