"""Rejected events fixed, and put into the inbox of the state directory again, each of them once.

    redrives/LOCK                  held by the command that fixes or redrives
    redrives/<digest>.arrow        rows of the table `redrives`, written before their events go into the inbox

The file in the inbox is what makes it happen: its key is the digest of the rejected events in it. Behind it the rows go
into the store, by a token of that file's name, and the arrow file is deleted. A command that was cut short leaves the
arrow file, and the next one begins with it: if the inbox has the file, the rows are put into the store (again), and
else nothing has happened.
"""

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa

from ..config import Config
from ..errors import ConfigError, RefusedStart
from ..faults import point
from ..job import event_limits
from ..prices.book import load_price_book
from ..rules.book import load_rule_book
from ..state.directory import StateDirectory
from ..state.files import delete, locked, make_folder, write_whole
from ..state.inbox import Inbox
from ..steps.batches import Limits
from ..store import check_schema, connect, insert_arrow_file
from ..store.queries.rejected import WAY_BACK_OPEN, Filter, RejectedEvent, by_status, payloads, rejected
from ..store.tables import REDRIVES, REJECTED_FIXES, TABLES
from .json_text import parse, write
from .payload import Checked, Edit, Gate, check, edited, is_row, original

CHUNK_BYTES = 32 << 20
"""Payloads that are read, and put into one file of the inbox, at once."""
CHUNK_EVENTS = 10_000
PROBLEMS_MAX = 20
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Signature:
    """Who changes something, and why."""

    author: str
    reason: str

    def __post_init__(self) -> None:
        missing = [f"--{name}: is missing" for name in ("author", "reason") if not getattr(self, name).strip()]
        if missing:
            raise ConfigError(missing)


@dataclass(frozen=True, slots=True)
class Problem:
    """An event that cannot go back as it is."""

    event: RejectedEvent
    reason: str
    detail: str


@dataclass
class Done:
    """What a command has done, or would do."""

    events: int = 0
    """Fixed or redriven."""
    back_before: Counter[str] = field(default_factory=Counter)
    """Events that the filter names and that went back before, by what has become of them."""
    refused: Counter[str] = field(default_factory=Counter)
    """The others, by what is wrong with them now."""
    problems: list[Problem] = field(default_factory=list)
    """The first of them."""
    files: list[str] = field(default_factory=list)
    """In the inbox."""
    beyond_limit: int = 0

    def refuse(self, event: RejectedEvent, found: Checked) -> None:
        self.refused[found.reason] += 1
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(Problem(event, found.reason, found.detail))


Change = Callable[[bytes | None, bool], bytes]
"""The last fix of an event, or its payload (None: it is longer than any event), and whether that is the row of a table;
to what it is to be. Raises ValueError."""

_Found = tuple[RejectedEvent, bytes | None, bytes | None]  # with its payload, as Change has it, and its last fix


class Quarantine:
    """The rejected events of a config, for one command; use as a context manager.

    On entry it finishes what an earlier command has left. Raises RefusedStart, StateError, StoreError.
    """

    def __init__(self, config: Config, *, dry: bool = False) -> None:
        """`dry`: nothing is to be changed, and nothing is locked."""
        self._config = config
        self._dry = dry
        self._folder = config.state_dir / "redrives"
        self._inbox = Inbox(config.state_dir)
        source = config.source
        self._format = source.format if source.kind == "files" else "auto"

    def __enter__(self) -> "Quarantine":
        lineage = StateDirectory(self._config.state_dir).existing_lineage()
        if lineage is None:
            raise RefusedStart(f"{self._config.state_dir}: no run has begun there, so nothing was rejected")
        config = self._config
        book = load_price_book(config.prices, config.limits.quantity_max)
        self.limits: Limits = event_limits(config, book)
        rules = load_rule_book(self._config.rules) if self._config.rules is not None else None
        self._gate = Gate(self.limits, rules)
        self._client = connect(self._config.store, readonly=self._dry)
        try:
            check_schema(self._client)
            if (lineage.id,) not in self._client.rows("SELECT lineage FROM lineages"):
                raise RefusedStart(
                    f"store {self._config.store.url}: holds nothing of lineage {lineage.id} of "
                    f"{self._config.state_dir}; name the state_dir that belongs to the store"
                )
        except BaseException:
            self._client.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    # -- fixing

    def fix(self, filter: Filter, limit: int, change: Change, by: Signature) -> Done:
        """Keeps a corrected payload for each event that the filter names, if a run would accept it now.

        Raises StateError, StoreError.
        """
        done = Done()
        with self._alone():
            for chunk in self._chunks(filter, limit, done):
                rows = []
                fixes = {event.key: fix for event, _, fix in chunk}
                for event, line in self._accepted(chunk, change, done):
                    done.events += 1
                    if line != fixes[event.key]:
                        rows.append(_row(event, line, by))
                if rows:
                    content = _arrow(rows, REJECTED_FIXES)
                    self._insert("rejected_fixes", content, f"fix-{hashlib.sha256(content).hexdigest()}")
        return done

    # -- the way back

    def redrive(self, filter: Filter, limit: int, by: Signature) -> Done:
        """Puts the events that the filter names into the inbox, if a run would accept them now.

        Raises StateError, StoreError.
        """
        done = Done()
        with self._alone():
            for chunk in self._chunks(filter, limit, done):
                self._put_back(chunk, by, done)
        return done

    def would_redrive(self, filter: Filter, limit: int) -> Done:
        """What `redrive` would do now. Raises StoreError."""
        done = Done()
        for chunk in self._chunks(filter, limit, done):
            done.events += sum(1 for _ in self._accepted(chunk, None, done))
        return done

    def _put_back(self, chunk: list[_Found], by: Signature, done: Done) -> None:
        rows, lines = [], bytearray()
        for event, line in self._accepted(chunk, None, done):
            rows.append(_row(event, line, by) | {"file": "", "position": len(lines)})
            lines += line + b"\n"
        if not rows:
            return
        key = _digest(rows)
        write_whole(self._folder / f"{key}.arrow", _arrow(rows, REDRIVES))
        point("redrive.prepared")
        name = self._inbox.put("redrive", bytes(lines), key)
        point("redrive.put")
        self._tell(key, name)
        done.events += len(rows)
        done.files.append(name)

    def _tell(self, key: str, name: str) -> None:
        """Puts the rows of a file of the inbox into the store."""
        path = self._folder / f"{key}.arrow"
        rows = pa.ipc.open_file(pa.BufferReader(path.read_bytes())).read_all()
        at = rows.schema.get_field_index("file")
        rows = rows.set_column(at, rows.schema.field(at), pa.array([name] * rows.num_rows, pa.string()))
        self._insert("redrives", _as_file(rows), f"redrive-{name}")
        point("redrive.told")
        delete(path)

    # -- what both need

    def _accepted(
        self, chunk: list[_Found], change: Change | None, done: Done
    ) -> Iterator[tuple[RejectedEvent, bytes]]:
        """The events that a run would accept now, each on one line: changed, or as they are, by their last fix."""
        asked, payloads = [], []
        for event, payload, fix in chunk:
            try:
                payloads.append(self._candidate(event, payload, fix, change))
                asked.append(event)
            except ValueError as error:
                done.refuse(event, Checked(None, event.reason, str(error)))
        for event, found in zip(asked, check(payloads, self._gate, time.time_ns() // 1000), strict=True):
            if found.line is None:
                done.refuse(event, found)
            else:
                yield event, found.line

    def _candidate(
        self, event: RejectedEvent, payload: bytes | None, fix: bytes | None, change: Change | None
    ) -> bytes:
        """Raises ValueError."""
        row = fix is None and is_row(event.source_position, event.reason, self._format)
        if change is not None:
            return change(fix or payload, row)
        if fix is not None:
            return fix
        if payload is None:
            raise ValueError(f"{event.payload_bytes} bytes; the limit is {self.limits.event_bytes_max}")
        return original(payload, event.reason, event.detail, self.limits, row=row)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Beside no other command of these, and behind all that an earlier one has begun."""
        make_folder(self._folder)
        with locked(self._folder / "LOCK", busy="fixing or redriving"):
            for path in sorted(self._folder.glob("*.arrow")):
                name = self._inbox.find("redrive", path.stem)
                if name is None:
                    delete(path)
                else:
                    self._tell(path.stem, name)
            yield

    def _chunks(self, filter: Filter, limit: int, done: Done) -> Iterator[list[_Found]]:
        """The events that a filter names and that can go back; counts the others."""
        counts = by_status(self._client, replace(filter, statuses=()))
        done.back_before = Counter({name: count for name, count in counts.items() if name not in WAY_BACK_OPEN})
        statuses = tuple(name for name in WAY_BACK_OPEN if not filter.statuses or name in filter.statuses)
        if not statuses:
            return
        able = replace(filter, statuses=statuses)
        events = rejected(self._client, able, limit)
        done.beyond_limit = sum(counts[name] for name in statuses) - len(events)
        chunk: list[RejectedEvent] = []
        size = 0
        for event in events:
            chunk.append(event)
            size += min(event.payload_bytes, self.limits.event_bytes_max)
            if size >= CHUNK_BYTES or len(chunk) == CHUNK_EVENTS:
                yield list(payloads(self._client, able, chunk, self.limits.event_bytes_max))
                chunk, size = [], 0
        yield list(payloads(self._client, able, chunk, self.limits.event_bytes_max))

    def _insert(self, table: str, content: bytes, token: str) -> None:
        path = self._folder / f"{table}.insert"
        write_whole(path, content)
        insert_arrow_file(self._client, table, TABLES[table].names, path, token)
        delete(path)


def edits(changes: Sequence[Edit], limits: Limits) -> Change:
    """Some fields of each payload set or taken out."""

    def change(payload: bytes | None, row: bool) -> bytes:
        if payload is None:
            raise ValueError(f"it has more than {limits.event_bytes_max} bytes: give it whole")
        return edited(payload, changes, limits, row=row)

    return change


def whole(given: bytes) -> Change:
    """Another payload in its place, which may stand on several lines. Raises ConfigError if it is not JSON."""
    try:
        line = write(parse(given)).encode()
    except ValueError as error:
        raise ConfigError(f"--with: is not JSON: {error}") from None
    return lambda payload, row: line


def _row(event: RejectedEvent, line: bytes, by: Signature) -> dict[str, Any]:
    return {
        "created": datetime.now(UTC),
        "seen_at": EPOCH + timedelta(microseconds=event.seen_at_us),
        "source_position": event.source_position,
        "payload": line,
        "author": by.author,
        "reason": by.reason,
    }


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of the rejected events, whatever is made of them."""
    return hashlib.sha256(repr(sorted((row["seen_at"], row["source_position"]) for row in rows)).encode()).hexdigest()


def _arrow(rows: list[dict[str, Any]], schema: pa.Schema) -> bytes:
    return _as_file(pa.Table.from_pylist(rows, schema=schema))


def _as_file(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())
