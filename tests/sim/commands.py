"""What people do beside the job: they put rejected events back, resolve late ones, and correct what was billed.

Goal: whatever a command was about to do when it died, in the end each of its events has come in once, and the store
says so. Method: the real commands run against the simulated disk and store, between two steps of the job; the SQL that
they ask is answered here from the rows of the store. A command that was cut short is given again, as people do.
"""

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from random import Random
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from flow.amending import correcting, resolving
from flow.errors import ConfigError, EventError
from flow.job import event_limits
from flow.quarantine import redriving
from flow.quarantine.payload import Gate
from flow.sinks.committed import committed_by
from flow.sources import inbox as inbox_source
from flow.state.directory import StateDirectory
from flow.state.inbox import Inbox, kind_of
from flow.steps.amend import Change
from flow.store.queries.late import Filter as LateFilter
from flow.store.queries.late import LateEvent
from flow.store.queries.rejected import Filter, RejectedEvent

from .options import Options
from .store import Row
from .workload import (
    CORRECTION,
    DIMENSION_VALUES,
    EVENT_BYTES_MAX,
    GRAINS_S,
    INBOX,
    LATE,
    METERS,
    QUANTITY_MAX,
    Event,
    Line,
    Workload,
    canonical,
    good_line,
    microseconds,
    spelt,
)

if TYPE_CHECKING:
    from .world import World

LEDGER_FOLDER = "ledger"
STATE_FOLDER = "state"
TRIES_MAX = 6
"""After so many times that a command finds nothing to do, nobody gives it again."""
AUTHOR, REASON = "Ada", "they asked"


@dataclass(eq=False)
class Command:
    """What somebody wants done. `kind`: put, redrive, late or correct."""

    kind: str
    lines: tuple[bytes, ...] = ()
    asked: correcting.Asked | None = None
    tries: int = 0
    file: str | None = None
    """The file of the inbox, once it is known."""
    changes: list[Change] = field(default_factory=list)
    """What a correction was said to change."""


def draw_commands(rng: Random, options: Options, workload: Workload) -> list[Command]:
    """The commands of a seed, in the order in which they are given."""
    drawn = [Command("put", lines) for lines in workload.puts]
    kept = options.ledger_file_bytes is not None
    kinds = ["redrive"] * (3 if workload.mended else 0)
    kinds += ["late"] * (3 if kept and options.late and options.horizon_us is not None else 0)
    kinds += ["correct"] * (2 if kept and workload.settled else 0)
    for number in range(options.commands if kinds else 0):
        kind = rng.choice(kinds)
        asked = _asked(rng, number, rng.choice(workload.settled)) if kind == "correct" else None
        drawn.append(Command(kind, asked=asked))
    rng.shuffle(drawn)
    return drawn


def _asked(rng: Random, number: int, event: Event) -> correcting.Asked:
    """What an event, or a window of it, is to be; the reason makes each command another correction."""
    said = {"author": AUTHOR, "reason": f"{REASON} {number}"}
    if rng.random() < 0.3:
        grain, window_s = rng.choice(list(GRAINS_S.items()))
        start_us = event.event_time_us // 1_000_000 // window_s * window_s * 1_000_000
        window = correcting.WindowNamed(start_us, grain, dict(event.dims))
        by = {rng.choice(METERS): rng.choice((-1_000, 1, 77))}
        return correcting.Asked(window, to={}, by=by, void=False, **said)
    named, meter = correcting.EventNamed(event.source, event.id), rng.choice(METERS)
    how: dict[str, Any] = {"to": {}, "by": {}, "void": False}
    how |= rng.choice(({"void": True}, {"to": {meter: rng.randrange(1_000)}}, {"by": {event.usage[0][0]: -1}}))
    return correcting.Asked(named, **how, **said)


class Commands:
    """Gives the commands of a seed, one at a time."""

    def __init__(self, world: "World", drawn: list[Command]) -> None:
        self._world = world
        self.all = drawn
        self.waiting = list(drawn)
        self._state = world.disk.root / STATE_FOLDER
        self.inbox = Inbox(self._state)
        limits = SimpleNamespace(
            event_bytes_max=EVENT_BYTES_MAX,
            string_bytes_max=1024,
            quantity_max=QUANTITY_MAX,
            meters_per_event_max=64,
            clock_skew_us=world.options.clock_skew_us,
        )
        kept = world.options.ledger_file_bytes is not None
        self._config: Any = SimpleNamespace(
            state_dir=self._state,
            prices=None,
            ledger=world.disk.root / LEDGER_FOLDER if kept else None,
            source=SimpleNamespace(kind="synthetic"),
            limits=limits,
        )

    @contextmanager
    def at_hand(self) -> Iterator[None]:
        """While inside, commands find the prices and the store of this world."""
        store = self._world.store
        with ExitStack() as patches:

            def put(module: Any, **names: Any) -> None:
                for name, value in names.items():
                    patches.enter_context(patch.object(module, name, value))

            def book(*_: object) -> Any:
                return self._world.workload.book

            def committed(_: StateDirectory) -> Mapping[str, int]:
                return committed_by(self._world.recovery.of("outbox"))

            put(correcting, load_price_book=book, committed_ledger=committed, _below_zero=lambda *_: ([], ""))
            put(resolving, load_price_book=book, committed_ledger=committed)
            put(resolving, late_events=lambda *asked: _waiting(store.rows, asked[-1]))
            put(resolving, billed_payloads=lambda _, ids: _billed(store.rows, ids))
            put(redriving, time=SimpleNamespace(time_ns=lambda: self._world.now_us * 1000))
            put(redriving, by_status=lambda _, of: Counter(event.status for event, *_ in _found(store.rows, of)))
            put(redriving, rejected=lambda _, of, limit: [event for event, *_ in _found(store.rows, of)][:limit])
            put(redriving, payloads=lambda _, of, events, bytes_max: _payloads(store.rows, of, events))
            put(inbox_source, CHUNK_BYTES=self._world.options.inbox_chunk_bytes)
            yield

    def give_next(self) -> None:
        """Gives the first command that waits; it comes back to the end if it found nothing to do."""
        command = self.waiting[0]
        lineage = StateDirectory(self._state).existing_lineage()
        done = lineage is not None and getattr(self, f"_{command.kind}")(command)
        self.waiting.remove(command)
        command.tries += 1
        if not done and command.tries < TRIES_MAX:
            self.waiting.append(command)

    def _put(self, command: Command) -> bool:
        content = b"".join(line + b"\n" for line in command.lines)
        command.file = self.inbox.put("redrive", content, f"put {self.all.index(command)}")
        return True

    def _correct(self, command: Command) -> bool:
        assert command.asked is not None  # it is drawn with it
        try:
            outcome = correcting.correct(self._config, command.asked, self._world.clock())
        except ConfigError as error:
            return "was taken back already" in str(error) or "says already" in str(error)
        except EventError:
            return True  # a run would reject it
        command.file, command.changes = outcome.file, outcome.changes
        return True

    def _late(self, command: Command) -> bool:
        asked = resolving.Asked(LateFilter(), 10, AUTHOR, REASON)
        lineage = StateDirectory(self._state).existing_lineage()
        assert lineage is not None  # looked at before
        resolver = resolving._Resolver(self._config, asked, lineage, self._world.clock(), False)
        resolver._client = self._world.store.connect()
        with resolver._alone():
            outcome = resolver._decide()
            resolver._carry_out(outcome)
        return bool(outcome.decided)

    def _redrive(self, command: Command) -> bool:
        """Mends what can be mended, and puts all of it back."""
        quarantine = redriving.Quarantine(self._config)
        quarantine.limits = event_limits(self._config, self._world.workload.book)
        quarantine._gate = Gate(quarantine.limits)
        quarantine._client = self._world.store.connect()
        by = redriving.Signature(AUTHOR, REASON)
        for event, payload, _ in _found(self._world.store.rows, Filter(statuses=("open",))):
            if (mended := self._world.workload.mended.get(payload)) is not None:
                at = Filter(position=event.source_position)
                quarantine.fix(at, 1, redriving.whole(good_line(mended)), by)
        return bool(quarantine.redrive(Filter(), 10, by).events)

    # -- what is in the inbox

    def lines(self, name: str) -> tuple[Line, ...]:
        """The lines of a file, each with what it truly is."""
        found, at = [], 0
        for content in (self.inbox.path / name).read_bytes().split(b"\n")[:-1]:
            event, reason = self._world.workload.said.get(content) or (_written(name, content), None)
            found.append(Line(f"{INBOX}{name}", at, content, event, reason))
            at += len(content) + 1
        return tuple(found)

    def all_lines(self) -> list[Line]:
        return [line for name in self.inbox.names() for line in self.lines(name)]


def _written(name: str, content: bytes) -> Event:
    """An event that a command wrote; whether it may say so is for the audit."""
    fields = json.loads(content)
    kind = CORRECTION if "corrects" in fields else LATE if kind_of(name) == LATE else ""
    said = {key: fields[key] for key in ("author", "reason", "corrects") if key in fields}
    return event_of(fields, microseconds(fields["time"]), canonical({"kind": kind, **said}) if kind else "")


def event_of(fields: Mapping[str, Any], time_us: int, amends: str) -> Event:
    """A flat event, its meters in the order in which the workload has them, to be compared with its own."""
    try:
        meters = [name for name, _ in spelt(fields["id"])[1]]
    except ValueError:  # a command made its id
        meters = []
    usage = dict(fields["usage"])
    order = [*meters, *sorted(usage.keys() - set(meters))]
    return Event(
        fields["id"],
        fields["source"],
        time_us,
        tuple((name, fields[name]) for name in ("customer", *DIMENSION_VALUES)),
        tuple((name, int(usage[name])) for name in order if name in usage),
        amends,
    )


# ---- What SQL would answer ----------------------------------------------------------------------------------------

Rows = Mapping[str, Sequence[Row]]


def _found(rows: Rows, filter: Filter) -> list[tuple[RejectedEvent, bytes, bytes | None]]:
    """The view `rejected_outcomes`: each event with its payload and its last fix."""
    fixes = {_key(row): row["payload"] for row in rows["rejected_fixes"]}
    redrives = {_key(row): (row["file"], row["position"]) for row in rows["redrives"]}
    outcomes = {(row["file"], row["position"]): row for row in rows["inbox_events"]}
    found = []
    for row in rows["rejected_events"]:
        fix, place = fixes.get(_key(row)), redrives.get(_key(row))
        outcome = outcomes.get(place, {}) if place is not None else {}
        status = outcome.get("outcome") or ("waiting" if place else "fixed" if fix else "open")
        if filter.position not in (None, row["source_position"]) or (filter.statuses and status not in filter.statuses):
            continue
        at = "" if place is None else f"{INBOX}{place[0]}:{place[1]}"
        told = row["reason"], row["detail"], len(row["payload"]), status, outcome.get("reason", ""), at
        found.append((RejectedEvent(*_key(row), *told), row["payload"], fix))
    return sorted(found, key=lambda one: one[0].key)


def _payloads(
    rows: Rows, filter: Filter, events: Sequence[RejectedEvent]
) -> Iterator[tuple[RejectedEvent, bytes | None, bytes | None]]:
    known = {event.key: (payload, fix) for event, payload, fix in _found(rows, replace(filter, statuses=()))}
    for event in events:
        payload, fix = known[event.key]
        yield event, None if len(payload) > EVENT_BYTES_MAX else payload, fix


def _waiting(rows: Rows, limit: int) -> list[LateEvent]:
    """Late events of which nothing was decided yet."""
    decided = {_key(row) for row in rows["late_resolutions"]}
    found = [
        LateEvent(
            *_key(row),
            row["source"],
            row["id"],
            row["event_time"],
            row["watermark"],
            row["payload"],
            *("waiting", "", "", "", ""),
        )
        for row in rows["late_events"]
        if _key(row) not in decided
    ]
    return sorted(found, key=lambda late: (late.seen_at_us, len(late.source_position), late.source_position))[:limit]


def _billed(rows: Rows, ids: Collection[str]) -> dict[tuple[str, str], bytes]:
    billed = {_key(row) for row in rows["late_resolutions"] if row["decision"] == resolving.BILLED}
    late = [row for row in rows["late_events"] if _key(row) in billed and row["id"] in ids]
    return {(row["source"], row["id"]): row["payload"] for row in late}


def _key(row: Row) -> tuple[int, str]:
    return row["seen_at"], row["source_position"]
