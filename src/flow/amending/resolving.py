"""Late events: each is looked up in the ledger, and billed after all if it was never counted. Without a ledger, those
are billed that no filter of a retired generation has (`billed_before.py`).

    late/LOCK              held by the command that resolves
    late/<digest>.arrow    rows of the table `late_resolutions`, written before their events go into the inbox

The file in the inbox is what makes it happen: its key is the digest of the late events of the command. Behind it the
rows go into the store, by a token of that file's name. A command that was cut short leaves the arrow file, and the next
one begins with it: if the inbox has the file, the rows are put into the store (again), and else nothing has happened.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from ..config import Config
from ..errors import ConfigError, RefusedStart
from ..faults import point
from ..prices.book import load_price_book
from ..schema import DIMENSIONS
from ..sinks.committed import committed_ledger
from ..state.directory import Lineage, StateDirectory
from ..state.files import delete, locked, make_folder, write_whole
from ..state.inbox import Inbox
from ..state.ledger_lookup import LedgerEvent, find_events
from ..steps.amend import CORRECTION, LATE, Change, canonical
from ..store import check_schema, connect, insert_arrow_file
from ..store.queries.late import Filter, LateEvent, billed_payloads, late_events
from ..store.tables import LATE_RESOLUTIONS
from .billed_before import Before, billed_before
from .effect import changes

BILLED, DUPLICATE, CONFLICTING = "billed", "duplicate", "conflicting"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Asked:
    """Which late events are resolved, by whom and why."""

    filter: Filter
    limit: int
    author: str
    reason: str
    forced: str | None = None
    """BILLED or DUPLICATE, without looking anything up: where there is no ledger, and filters cannot tell."""

    def check(self, config: Config) -> None:
        """Raises ConfigError."""
        problems = [f"--{name}: is missing" for name in ("author", "reason") if not getattr(self, name).strip()]
        if self.forced is not None and config.ledger is not None:
            problems.append("--force-bill, --force-duplicate: the ledger knows whether an event was counted; leave it")
        if problems:
            raise ConfigError(problems)


@dataclass(frozen=True, slots=True)
class Decided:
    """What becomes of a late event."""

    event: LateEvent
    decision: str
    counted: str = ""
    """JSON of what was counted under its identity, where that is something else."""


@dataclass
class Outcome:
    """What was, or would be, done."""

    decided: list[Decided]
    changes: list[Change]
    """What those that are billed add, meter by meter."""
    currency: str
    left: int = 0
    """Events that nobody can decide but a person: there is no ledger, and they may have been billed before."""
    limited: bool = False
    """As many were looked at as the limit allows, the first ones: others may wait behind them."""
    files: list[str] = field(default_factory=list)
    """In the inbox."""


def resolve(config: Config, asked: Asked, now_us: int, *, dry: bool = False) -> Outcome:
    """Looks the waiting events that the filter names up, and decides them.

    Raises ConfigError, RefusedStart, StateError, StoreError, and EventError if a run would reject one.
    """
    asked.check(config)
    lineage = StateDirectory(config.state_dir).existing_lineage()
    if lineage is None:
        raise RefusedStart(f"{config.state_dir}: no run has begun there, so nothing was late")
    return _Resolver(config, asked, lineage, now_us, dry).run()


class _Resolver:
    def __init__(self, config: Config, asked: Asked, lineage: Lineage, now_us: int, dry: bool) -> None:
        self._config = config
        self._asked = asked
        self._lineage = lineage
        self._now_us = now_us
        self._dry = dry
        self._folder = config.state_dir / "late"
        self._inbox = Inbox(config.state_dir)

    def run(self) -> Outcome:
        with connect(self._config.store, readonly=self._dry) as self._client:
            check_schema(self._client)
            if (self._lineage.id,) not in self._client.rows("SELECT lineage FROM lineages"):
                raise RefusedStart(
                    f"store {self._config.store.url}: holds nothing of lineage {self._lineage.id} of "
                    f"{self._config.state_dir}; name the state_dir that belongs to the store"
                )
            if self._dry:
                return self._decide()
            with self._alone():
                outcome = self._decide()
                self._carry_out(outcome)
                return outcome

    # -- deciding

    def _decide(self) -> Outcome:
        asked = replace(self._asked.filter, states=("waiting",))
        waiting = late_events(self._client, asked, self._asked.limit)
        known = self._known(waiting)
        never = self._never_billed(waiting)
        decided = []
        for event in waiting:
            identity, said = (event.source, event.id), _said(json.loads(event.payload))
            if identity not in known:
                if identity not in never:
                    continue
                decided.append(Decided(event, self._asked.forced or BILLED))
                known[identity] = said
            elif known[identity] == said:
                decided.append(Decided(event, DUPLICATE))
            else:
                decided.append(Decided(event, CONFLICTING, canonical(known[identity])))
        book = load_price_book(self._config.prices, self._config.limits.quantity_max)
        found = changes(self._config, book, self._lines(decided), self._now_us, late=True)
        limited = len(waiting) == self._asked.limit
        return Outcome(decided, found, book.currency, len(waiting) - len(decided), limited)

    def _never_billed(self, waiting: Sequence[LateEvent]) -> set[tuple[str, str]]:
        """Those that may be billed if nothing is known of them: all, but without a ledger only what is certain."""
        identities = {(event.source, event.id) for event in waiting}
        if self._asked.forced is not None or self._config.ledger is not None:
            return identities
        known = billed_before(StateDirectory(self._config.state_dir), self._lineage, identities)
        return {identity for identity, told in known.items() if told.before is Before.NEVER}

    def _known(self, waiting: Sequence[LateEvent]) -> dict[tuple[str, str], dict[str, Any]]:
        """What was counted under these identities, also by way of the inbox since."""
        billed = billed_payloads(self._client, {event.id for event in waiting})
        known = {identity: _said(json.loads(payload)) for identity, payload in billed.items()}
        if self._config.ledger is not None:
            expected = {(event.source, event.id): event.event_time_us for event in waiting}
            committed = committed_ledger(StateDirectory(self._config.state_dir))
            found = find_events(self._config.ledger, self._lineage.id, expected, committed)
            known |= {identity: _counted(event) for identity, event in found.items()}
        return known

    def _lines(self, decided: Sequence[Decided]) -> bytes:
        """The events that are billed, as the inbox takes them: with who bills them, and why."""
        why = {"author": self._asked.author, "reason": self._asked.reason}
        lines = []
        for one in decided:
            if one.decision == BILLED:
                event = json.loads(one.event.payload)
                event = event if "corrects" in event else event | why  # a correction has its own
                lines.append(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
        return "".join(lines).encode()

    # -- doing it

    def _carry_out(self, outcome: Outcome) -> None:
        if not outcome.decided:
            return
        key = hashlib.sha256(repr(sorted(one.event.key for one in outcome.decided)).encode()).hexdigest()[:32]
        lines = self._lines(outcome.decided)
        content = _arrow([self._row(one) for one in outcome.decided])
        if not lines:
            self._insert(content, f"late-{key}")
            return
        write_whole(self._folder / f"{key}.arrow", content)
        point("late.prepared")
        name = self._inbox.put(LATE, lines, key)
        point("late.put")
        self._tell(key, name)
        outcome.files.append(name)

    def _row(self, one: Decided) -> dict[str, Any]:
        return {
            "created": EPOCH + timedelta(microseconds=self._now_us),
            "seen_at": EPOCH + timedelta(microseconds=one.event.seen_at_us),
            "source_position": one.event.source_position,
            "source": one.event.source,
            "id": one.event.id,
            "decision": one.decision,
            "counted": one.counted,
            "author": self._asked.author,
            "reason": self._asked.reason,
            "file": "",
        }

    def _tell(self, key: str, name: str) -> None:
        """Puts the rows of a file of the inbox into the store."""
        path = self._folder / f"{key}.arrow"
        rows = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all().to_pylist()
        billed = [row | ({"file": name} if row["decision"] == BILLED else {}) for row in rows]
        self._insert(_arrow(billed), f"late-{name}")
        point("late.told")
        delete(path)

    def _insert(self, content: bytes, token: str) -> None:
        path = self._folder / "rows.insert"
        write_whole(path, content)
        insert_arrow_file(self._client, "late_resolutions", LATE_RESOLUTIONS.names, path, token)
        delete(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Beside no other command of these, and behind all that an earlier one has begun."""
        make_folder(self._folder)
        with locked(self._folder / "LOCK", busy="resolving late events"):
            for path in sorted(self._folder.glob("*.arrow")):
                name = self._inbox.find(LATE, path.stem)
                if name is None:
                    delete(path)
                else:
                    self._tell(path.stem, name)
            yield


def _said(payload: Mapping[str, Any]) -> dict[str, Any]:
    """What two events of one identity must agree on; not their time, as in a run."""
    names = (*DIMENSIONS, "usage", "corrects", "reason", "author")
    return {name: payload[name] for name in names if name in payload}


def _counted(event: LedgerEvent) -> dict[str, Any]:
    said = {**event.dimensions, "usage": dict(sorted(event.usage.items()))}
    amends = json.loads(event.amends) if event.amends else {}
    if amends.get("kind") == CORRECTION:
        said |= {name: value for name, value in amends.items() if name != "kind"}
    return said


def _arrow(rows: Sequence[dict[str, Any]]) -> bytes:
    table = pa.Table.from_pylist(list(rows), schema=LATE_RESOLUTIONS)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
