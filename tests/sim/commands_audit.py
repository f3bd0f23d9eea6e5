"""What the commands of a seed have left: each event that they put back came in once, and the store says what became of
it."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from flow.amending import correcting, resolving
from flow.schema import REQUESTS
from flow.state.inbox import kind_of

from .commands import AUTHOR, REASON, Command
from .oracle import Expected
from .workload import CORRECTION, INBOX, LATE, Event, Line, microseconds, spelt

if TYPE_CHECKING:
    from .world import World

Problems = Iterator[str]


def check_commands(world: "World", expected: Expected) -> Problems:
    yield from _check_said(world)
    yield from _check_redrives(world)
    yield from _check_resolutions(world, expected)
    yield from _check_corrections(world, expected)


def _check_said(world: "World") -> Problems:
    """An event is put back as it was, a late one with who bills it and why."""
    known = {event for event, _ in world.workload.said.values()} | set(world.workload.mended.values())
    for line in world.commands.all_lines():
        event = line.event
        if event is None or kind_of(_file(line)) == CORRECTION:
            continue
        if event.kind == LATE:
            said = json.loads(event.amends)
            if (said["author"], said["reason"]) != (AUTHOR, REASON):
                yield f"{line.position}: says {said}"
            event = replace(event, amends="")
        if event not in known:
            yield f"{line.position}: is no event that was ever sent: {event}"


def _check_redrives(world: "World") -> Problems:
    """Each rejected event goes back once, and each line of a file that was redriven has the row that says so."""
    rows = world.store.rows["redrives"]
    rejected = {(row["seen_at"], row["source_position"]) for row in world.store.rows["rejected_events"]}
    told = Counter((row["seen_at"], row["source_position"]) for row in rows)
    yield from (f"redrives has {key} {count} times" for key, count in told.items() if count > 1)
    yield from (f"redrives has {key}, which was not rejected" for key in told.keys() - rejected)
    found = Counter((f"{INBOX}{row['file']}:{row['position']}", row["payload"]) for row in rows)
    put = {command.file for command in world.commands.all if command.kind == "put"}
    there = Counter(
        (line.position, line.content)
        for line in world.commands.all_lines()
        if kind_of(_file(line)) == "redrive" and _file(line) not in put
    )
    yield from (f"redrives: wrong or missing: {key}" for key in (found - there) + (there - found))


def _check_resolutions(world: "World", expected: Expected) -> Problems:
    """A late event is resolved once, and what is billed is in the file that its row names."""
    rows, late = world.store.rows["late_resolutions"], world.store.rows["late_events"]
    events = {(row["seen_at"], row["source_position"]): (row["source"], row["id"]) for row in late}
    told = Counter((row["seen_at"], row["source_position"]) for row in rows)
    yield from (f"late_resolutions has {key} {count} times" for key, count in told.items() if count > 1)
    accepted = {(event.source, event.id) for _, event in expected.accepted}
    found: Counter[tuple[str, str, str]] = Counter()
    for row in rows:
        identity = row["source"], row["id"]
        if events.get((row["seen_at"], row["source_position"])) != identity:
            yield f"late_resolutions: {row} is of no late event"
        if row["decision"] == resolving.BILLED:
            found[row["file"], *identity] += 1
        elif identity not in accepted:
            yield f"late_resolutions: {identity} is called {row['decision']}, and was never counted"
    there = Counter(
        (_file(line), line.event.source, line.event.id)
        for line in world.commands.all_lines()
        if kind_of(_file(line)) == LATE and line.event is not None
    )
    yield from (f"late_resolutions: wrong or missing: {key}" for key in (found - there) + (there - found))


def _check_corrections(world: "World", expected: Expected) -> Problems:
    """Each correction that somebody asked for is one event, of what was asked for, on top of those before it."""
    commands = sorted(
        (command for command in world.commands.all if command.kind == "correct" and command.file),
        key=lambda command: str(command.file),
    )
    files = {name for name in world.commands.inbox.names() if kind_of(name) == CORRECTION}
    yield from (f"nobody asked for {name}" for name in files - {command.file for command in commands})
    usage = _Usage(expected)
    for command in commands:
        if command.file not in files:
            yield f"{command.file}: is gone, and somebody was told that it is there"
            continue
        (line,) = world.commands.lines(command.file)
        assert command.asked is not None and line.event is not None  # its kind says so
        yield from (f"{command.asked}: {problem}" for problem in _of_correction(line.event, command.asked, usage))
        yield from _check_told(world, command, line.event)


class _Usage:
    """What the events that commands have corrected say now."""

    def __init__(self, expected: Expected) -> None:
        self._expected = expected
        self._now: dict[tuple[str, str], dict[str, int]] = {}

    def before(self, named: correcting.EventNamed, said: dict[str, int]) -> dict[str, int]:
        """That of an event; `said`: what a correction of it takes for that, if two of this identity were counted."""
        identity = named.source, named.id
        if identity not in self._now:
            events = [event for _, event in self._expected.accepted if (event.source, event.id) == identity]
            counted = [dict(event.usage) for event in events if event.kind != CORRECTION]
            self._now[identity] = said if said in counted else dict(next(iter(counted), {}))
        return self._now[identity]


def _of_correction(event: Event, asked: correcting.Asked, usage: _Usage) -> Problems:
    said, change = json.loads(event.amends), dict(event.usage)
    if (said["author"], said["reason"]) != (asked.author, asked.reason):
        yield f"it says {said}"
    named = asked.named
    if isinstance(named, correcting.WindowNamed):
        start = said["corrects"]["window_start"], said["corrects"]["grain"]
        if (microseconds(start[0]), start[1]) != (named.start_us, named.grain) or change != asked.by:
            yield f"it corrects {start} by {change}"
        return
    dims, _, _ = spelt(named.id)
    before = usage.before(named, dict(said["corrects"]["usage"]))
    if asked.void:
        wanted = {**{meter: -quantity for meter, quantity in before.items() if quantity}, REQUESTS: -1}
    else:
        to = {meter: before.get(meter, 0) + by for meter, by in asked.by.items()} | dict(asked.to)
        wanted = {meter: quantity - before.get(meter, 0) for meter, quantity in to.items()}
    if (
        event.dims != dims
        or change != wanted
        or said["corrects"]
        != {
            "source": named.source,
            "id": named.id,
            "usage": before,
        }
    ):
        yield f"of {before} it made {change} of {said['corrects']}"
    for meter, by in wanted.items():
        if meter != REQUESTS:
            before[meter] = before.get(meter, 0) + by


def _check_told(world: "World", command: Command, event: Event) -> Problems:
    """What it was said to change is what it changed."""
    names = ("customer", "window_start", "meter", "quantity", "unpriced_quantity")
    told = {(*(getattr(change, name) for name in names), change.amount_femto) for change in command.changes}
    found = {
        (*(row[name] for name in names), row["amount"])
        for row in world.store.rows["corrections"]
        if row["id"] == event.id
    }
    if found != told:
        yield f"{command.asked}: was said to change {told}, and changed {found}"


def _file(line: Line) -> str:
    return line.origin.removeprefix(INBOX)
