"""Holds a store against a second source of the same usage. Start at `reconcile`.

Digests are compared first, from the month down to the minute (`descend.py`); events are compared only in the minutes
that differ, from the ledger and the log, or from two ledgers (`naming.py`).
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np

from ..config import Config
from ..errors import ConfigError
from ..sinks.outbox import empty_outbox
from ..store.queries.buckets import late_identities
from .against_provider import against_provider
from .asked import Scope
from .buckets import Ints, Names, customers_of, starts_of
from .conflicts import conflicts_there
from .descend import Descent, descend
from .from_log import CONFLICTS_MAX, LogSide
from .from_store import StoreSide, in_parts
from .naming import EventDifference, Kind, Unequal, unequal
from .others import limits_of, other_side, usage_report
from .report import SHOWN_MAX, MinuteDifference, Reconciliation, iso
from .sides import Side
from .variance import variances

EVENTS_MAX = 1_000_000
"""Events of differing minutes that are compared one by one; some 300 bytes of memory each."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the store is held against, and how far it may be off."""

    against: tuple[str, ...]
    """A config, a store's URL, or event files, which may be globs."""
    threshold: Fraction
    scope: Scope = field(default_factory=Scope)
    name_events: bool = True
    mapping: Path | None = None
    """Of a provider's report: what it counts, and its names."""
    models: tuple[str, ...] = ()
    """Globs of the models that a provider's report may know of; none: all."""


def reconcile(
    config: Config,
    asked: Asked,
    now_us: int,
    on_step: Callable[[str], None] = lambda step: None,
    threads: int | None = None,
) -> Reconciliation:
    """Compares the store of a config with another source.

    `now_us`: the clock by which events of the future are rejected. `on_step` is told of each step, and of each batch of
    a log. `threads`: how many the store may use for a question. Raises ConfigError, RefusedStart, SourceError,
    StateError, StoreError, OverflowStop.
    """
    names = Names()
    here = StoreSide(config.store, names, config.ledger, threads)
    on_step("reading")
    report = usage_report(asked.against, asked.mapping)
    if report is not None:
        return against_provider(here, report, asked.scope, asked.threshold, asked.models)
    if asked.mapping is not None or asked.models:
        raise ConfigError("--mapping, --model: only a provider's report is compared by them")
    there = other_side(config, asked.against, asked.scope, names, now_us, on_step)
    kind = "log" if isinstance(there, LogSide) else "store"
    found = Reconciliation(here.label, there.label, kind, asked.scope, asked.threshold)
    both_embedded = isinstance(there, StoreSide) and here.store.kind == there.store.kind == "chdb"
    with nullcontext() if both_embedded else here.held():
        named = _compare(found, here, there, asked, names, on_step)
        if isinstance(there, LogSide):
            _tell_of_log(found, there)
            if asked.name_events and there.conflicts:
                _add_conflicts(found, here, there, named, config, now_us)
    if config.state_dir.exists() and not empty_outbox(config.state_dir / "outbox"):
        found.notes.append("blocks wait in the outbox: what is in them is not in the store yet")
    return found


def _compare(
    found: Reconciliation,
    here: StoreSide,
    there: StoreSide | LogSide,
    asked: Asked,
    names: Names,
    on_step: Callable[[str], None],
) -> Unequal | None:
    """Goes down to the minutes that differ, and to their events; None where those are not compared."""
    descent = descend(here, there, names, asked.scope, on_step)
    found.levels, found.events_here, found.events_there = descent.levels, descent.events_here, descent.events_there
    found.minute_count = len(descent.minutes.here)
    if not found.minute_count:
        return None
    found.minutes = list(_minutes(descent, names))
    on_step("quantities")
    found.variances = variances(here.quantities(asked.scope), there.quantities(asked.scope))
    if not asked.name_events:
        return None
    on_step("events")
    return _name_events(found, here, there, descent, names)


# ---- What differs -------------------------------------------------------------------------------------------------


def _minutes(descent: Descent, names: Names) -> Iterator[MinuteDifference]:
    here, there = descent.minutes.here, descent.minutes.there
    for n in range(min(len(here), SHOWN_MAX)):
        yield MinuteDifference(
            names[int(here.customers[n])], iso(int(here.starts_s[n])), int(here.events[n]), int(there.events[n])
        )


def _name_events(found: Reconciliation, here: Side, there: Side, descent: Descent, names: Names) -> Unequal | None:
    """Compares the events of the minutes that differ; None where they are not kept."""
    minutes = descent.minutes
    together = np.cumsum(np.maximum(minutes.here.events, minutes.there.events))
    keys = minutes.here.keys[: max(int(np.searchsorted(together, EVENTS_MAX, side="right")), 1)]
    whole = len(keys) == len(minutes.here)
    rows = [side.events(keys) for side in (here, there)]
    if rows[0] is None or rows[1] is None:
        found.notes.append("events are not named: there is no ledger on both sides")
        return None
    differing = unequal(rows[0], rows[1])
    found.counts = differing.counts()
    found.events = [
        _with_note(one, late) for late in [_late(here, differing)] for one in differing.described(SHOWN_MAX)
    ]
    if not whole:
        found.notes.append(
            f"events are compared in the first {len(keys):,} of the minutes that differ, which have {EVENTS_MAX:,} "
            "events; one that was moved beyond them counts as missing: choose a shorter period, or a customer"
        )
    elif unexplained := _all_minutes(keys, names) - differing.minutes():
        customer, start_s = min(unexplained)
        found.notes.append(
            f"{len(unexplained):,} minutes differ although their events do not, first {iso(start_s)} of {customer}: a "
            "store does not say what its ledger says; see `tallyflow verify`"
        )
    return differing


def _all_minutes(keys: Ints, names: Names) -> set[tuple[str, int]]:
    return {
        (names[customer], start_s)
        for customer, start_s in zip(customers_of(keys).tolist(), starts_of(keys).tolist(), strict=True)
    }


def _late(here: Side, differing: Unequal) -> set[tuple[str, str]]:
    """(source, id) of events only there that wait here because they were late."""
    if not isinstance(here, StoreSide) or not differing.only_there.num_rows:
        return set()
    ids = differing.only_there.slice(0, SHOWN_MAX).column("id").to_pylist()
    with here.open() as client:
        return {found for part in in_parts(ids) for found in late_identities(client, part)}


def _with_note(one: EventDifference, late: set[tuple[str, str]]) -> EventDifference:
    if one.kind is Kind.ONLY_THERE and (one.source, one.id) in late:
        return one.noted("late here: it waits for `tallyflow late`")
    return one


# ---- A log -----------------------------------------------------------------------------------------------------------


def _tell_of_log(found: Reconciliation, log: LogSide) -> None:
    read = log.read
    found.notes.append(
        f"{log.label}: {read.lines:,} lines or rows, {read.events:,} events counted; {read.duplicates:,} duplicates "
        f"and {read.conflicting:,} conflicting events left out"
    )
    if read.rejected:
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in read.rejected.most_common())
        found.notes.append(f"{log.label}: rejected, as in a run, and in no number: {reasons}")


def _add_conflicts(
    found: Reconciliation, here: StoreSide, log: LogSide, named: Unequal | None, config: Config, now_us: int
) -> None:
    """Events that stand in the log with two payloads, of which the store has seen one only."""
    count, events = conflicts_there(here, log, named, limits_of(config), now_us)
    found.counts = (found.counts or {}) | {Kind.CONFLICTING: count}
    found.events += events
    if log.read.conflicting > CONFLICTS_MAX:
        found.notes.append(
            f"{log.label}: only the first {CONFLICTS_MAX:,} conflicting events were looked up in the store"
        )
