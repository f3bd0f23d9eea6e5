"""`tallyflow correct`: a correction made of what the ledger says, and put into the inbox of the state directory once.

The id of a correction is derived from what it corrects, what was asked for, and the reason: the same command twice is
one correction. The usage before, which it says, is that of the event with all corrections of it so far.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ..config import Config
from ..errors import ConfigError, RefusedStart, StateError, StoreError
from ..prices.book import load_price_book
from ..prices.values import instant_text
from ..schema import DIMENSIONS, REQUESTS
from ..sinks.committed import committed_ledger
from ..state.directory import StateDirectory
from ..state.inbox import Inbox, kind_of
from ..state.ledger import ledger_files, unsealed_files, unsealed_rows
from ..state.ledger_file import LedgerFile
from ..state.ledger_lookup import BATCH_ROWS, LedgerEvent, find_events
from ..steps.amend import CORRECTION, Change, canonical
from ..steps.decode_json import CORRECTION_TYPE
from ..store import check_schema, connect
from ..store.queries.window_usage import window_usage
from .effect import changes

SOURCE = "tallyflow correct"


@dataclass(frozen=True, slots=True)
class EventNamed:
    """An accepted event."""

    source: str
    id: str


@dataclass(frozen=True, slots=True)
class WindowNamed:
    """A window of a customer's usage."""

    start_us: int
    grain: str
    dimensions: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be corrected, how, by whom and why. One of `to`, `by` and `void` says how."""

    named: EventNamed | WindowNamed
    to: Mapping[str, int]
    by: Mapping[str, int]
    void: bool
    author: str
    reason: str

    def check(self) -> None:
        """Raises ConfigError with all that is wrong."""
        problems = [f"--{name}: is missing" for name in ("author", "reason") if not getattr(self, name).strip()]
        if sum((bool(self.to), bool(self.by), self.void)) != 1:
            problems.append("correct: give one of --to METER=N, --by METER=N and --void")
        if isinstance(self.named, WindowNamed) and not self.by:
            problems.append("--window: what its usage should be is not known event by event: give --by METER=N")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class BelowZero:
    """A meter of which a window has less than a correction takes away."""

    meter: str
    has: int
    """What is published of the window, for just these dimensions."""
    would_have: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was, or would be, done."""

    event: dict[str, Any]
    """The correction, as JSON has it."""
    changes: list[Change]
    currency: str
    file: str | None
    """In the inbox; None after a dry run."""
    there_before: bool
    """Whether the same was asked for before."""
    below_zero: list[BelowZero]
    not_looked_up: str
    """Why the store did not tell what the window has; "" if it did, or was not asked."""


def correct(config: Config, asked: Asked, now_us: int, *, dry: bool = False) -> Outcome:
    """Makes a correction, and puts it into the inbox.

    Raises ConfigError, RefusedStart, StateError, and EventError if a run would reject it.
    """
    asked.check()
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None:
        raise RefusedStart(f"{config.state_dir}: no run has begun there, so there is nothing to correct")
    book = load_price_book(config.prices, config.limits.quantity_max)
    inbox = Inbox(config.state_dir)
    id_ = _derived_id(asked)
    file = inbox.find(CORRECTION, id_)
    if file is not None:
        event = json.loads((inbox.path / file).read_bytes())
    elif isinstance(asked.named, EventNamed):
        event = _of_event(config, lineage.id, asked, asked.named, inbox)
    else:
        event = _of_window(asked, asked.named)
    event["id"] = id_
    line = f"{json.dumps(event, ensure_ascii=False, separators=(',', ':'))}\n".encode()
    found = changes(config, book, line, now_us)
    there_before = file is not None
    below_zero, not_looked_up = _below_zero(config, asked) if not there_before else ([], "")
    if not dry:
        file = inbox.put(CORRECTION, line, id_)
    return Outcome(event, found, book.currency, file, there_before, below_zero, not_looked_up)


def _below_zero(config: Config, asked: Asked) -> tuple[list[BelowZero], str]:
    """The meters of a window that a correction takes below 0; and, if the store does not tell, why. An event needs no
    look at the store: a run rejects what would take it below 0."""
    taken = {meter: quantity for meter, quantity in asked.by.items() if quantity < 0}
    named = asked.named
    if isinstance(named, EventNamed) or not taken:
        return [], ""
    try:
        with connect(config.store, readonly=True) as client:
            check_schema(client)
            has = window_usage(client, named.start_us // 1_000_000, named.grain, named.dimensions)
    except StoreError as error:
        return [], str(error)
    would_have = {meter: has.get(meter, 0) + quantity for meter, quantity in taken.items()}
    return [BelowZero(meter, has.get(meter, 0), left) for meter, left in would_have.items() if left < 0], ""


def _derived_id(asked: Asked) -> str:
    named = asked.named
    if isinstance(named, EventNamed):
        what: dict[str, object] = {"source": named.source, "id": named.id}
    else:
        what = {"window_start": named.start_us, "grain": named.grain, **named.dimensions}
    how = {"to": dict(asked.to), "by": dict(asked.by), "void": asked.void, "reason": asked.reason}
    return hashlib.sha256(canonical({"corrects": what, **how}).encode()).hexdigest()[:32]


def _event(asked: Asked, time_us: int, dimensions: Mapping[str, str], usage: Mapping[str, int]) -> dict[str, Any]:
    return {
        "type": CORRECTION_TYPE,
        "id": "",
        "source": SOURCE,
        "time": instant_text(time_us),
        **{name: dimensions.get(name, "") for name in DIMENSIONS},
        "usage": dict(usage),
        "reason": asked.reason,
        "author": asked.author,
    }


def _of_window(asked: Asked, named: WindowNamed) -> dict[str, Any]:
    corrects = {"window_start": instant_text(named.start_us), "grain": named.grain}
    return _event(asked, named.start_us, named.dimensions, asked.by) | {"corrects": corrects}


def _of_event(config: Config, lineage: str, asked: Asked, named: EventNamed, inbox: Inbox) -> dict[str, Any]:
    if config.ledger is None:
        raise ConfigError("--event: this config keeps no ledger to look it up in; correct its window (--window)")
    committed, identity = committed_ledger(StateDirectory(config.state_dir)), (named.source, named.id)
    original = find_events(config.ledger, lineage, {identity: 0}, committed).get(identity)
    if original is None:
        raise ConfigError(
            f"--event: the ledger has no event {named.id!r} of source {named.source!r}, or not yet: what has just come "
            "counts once its epoch is committed, a few seconds later"
        )
    if original.amends and json.loads(original.amends)["kind"] == CORRECTION:
        raise ConfigError(f"--event: {named.id!r} is a correction itself; correct the event that it names")
    before = _usage_now(original, _corrections_of(config.ledger, lineage, inbox, named, committed))
    change = _change(asked, before)
    corrects = {"source": named.source, "id": named.id, "usage": before}
    return _event(asked, original.event_time_us, original.dimensions, change) | {"corrects": corrects}


def _usage_now(original: LedgerEvent, corrections: Iterator[Mapping[str, int]]) -> dict[str, int]:
    """What an event says with all its corrections. Raises ConfigError if it was voided."""
    usage = dict(original.usage)
    for change in corrections:
        if change.get(REQUESTS):
            raise ConfigError(f"--event: {original.id!r} was taken back already; there is nothing left of it")
        for meter, quantity in change.items():
            usage[meter] = usage.get(meter, 0) + quantity
    return usage


def _change(asked: Asked, before: Mapping[str, int]) -> dict[str, int]:
    if asked.void:
        return {**{meter: -quantity for meter, quantity in before.items() if quantity}, REQUESTS: -1}
    if asked.by:
        return dict(asked.by)
    change = {meter: to - before.get(meter, 0) for meter, to in asked.to.items()}
    change = {meter: quantity for meter, quantity in change.items() if quantity}
    if not change:
        raise ConfigError("--to: this is what it says already")
    return change


# ---- Corrections so far -------------------------------------------------------------------------------------------


def _corrections_of(
    ledger: Path, lineage: str, inbox: Inbox, named: EventNamed, committed: Mapping[str, int]
) -> Iterator[dict[str, int]]:
    """The differences of each correction of an event, accepted or still waiting in the inbox."""
    seen = set()
    for source, id_, corrects, change in (*_in_inbox(inbox), *_in_ledger(ledger, lineage, committed)):
        if (corrects.get("source", ""), corrects.get("id")) == (named.source, named.id) and (source, id_) not in seen:
            seen.add((source, id_))
            yield change


_Found = tuple[str, str, dict[str, Any], dict[str, int]]


def _in_inbox(inbox: Inbox) -> Iterator[_Found]:
    for name in inbox.names():
        if kind_of(name) == CORRECTION:
            for line in (inbox.path / name).read_bytes().splitlines():
                event = json.loads(line)
                yield event["source"], event["id"], event["corrects"], event["usage"]


def _in_ledger(folder: Path, lineage: str, committed: Mapping[str, int]) -> Iterator[_Found]:
    """Files that have no corrections have no column for them, and cost one look at their footer."""
    try:
        for path in (*unsealed_files(folder), *ledger_files(folder)):
            if path.name.startswith(f"{lineage}-"):
                unsealed = path.parent.name == "open"
                for batch in unsealed_rows(path, committed.get(path.name, 0)) if unsealed else _sealed(path):
                    yield from _rows(batch)
    except (OSError, pa.ArrowException) as error:
        raise StateError(f"{folder}: cannot be read: {str(error).splitlines()[0]}") from error


def _sealed(path: Path) -> Iterator[pa.RecordBatch]:
    with LedgerFile(path) as file:
        if file.amended:
            yield from file.batches(BATCH_ROWS, where=_amended)


def _amended(batch: pa.RecordBatch) -> pa.BooleanArray:
    return pc.is_valid(batch.column("amends"))


def _rows(batch: pa.RecordBatch) -> Iterator[_Found]:
    if "amends" not in batch.schema.names:
        return
    for row in batch.filter(_amended(batch)).to_pylist():
        said = json.loads(row["amends"])
        if said["kind"] == CORRECTION:
            yield row["source"], row["id"], said["corrects"], dict(row["usage"])
