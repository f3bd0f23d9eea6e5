"""The audit at the end of a seed: everything that was left behind, held against the oracle.

Goal: no difference goes unseen: rows of every table, the ledger, the segments and stray files. Method: each
`_check` gives the problems of one place as sentences; nothing is asserted half-way, so that one seed shows
everything that is wrong with it.
"""

import json
import struct
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tests.oracle.ledger import read
from tests.oracle.retired import filter_of

from flow.schema import DIMENSIONS
from flow.state.manifest import unseal
from flow.state.retired import ERROR_RATE
from flow.steps.arrivals import HOUR_S

from .commands import LEDGER_FOLDER, STATE_FOLDER, event_of
from .commands_audit import check_commands
from .oracle import DAY_S, MINUTE_S, Expected, Sums, UsageKey, expect, fingerprint
from .store import Row
from .workload import CONFLICT_ADDS, CORRECTION, LATE, Event, canonical, microseconds, spelt

if TYPE_CHECKING:
    from .world import World

Problems = Iterator[str]


def audit(world: "World") -> list[str]:
    """Everything that is wrong."""
    expected = expect(world.history, world.workload, world.commands.all_lines(), world.options)
    return [
        *expected.problems,
        *_check_usage(world, expected),
        *_check_balance(world, expected),
        *_check_set_aside(world, expected),
        *_check_changes(world, expected),
        *check_commands(world, expected),
        *_check_completeness(world),
        *_check_ledger(world, expected),
        *_check_segments(world, expected),
        *_check_filters(world, expected),
        *_check_strays(world),
    ]


# ---- Usage --------------------------------------------------------------------------------------------------------


def _check_usage(world: "World", expected: Expected) -> Problems:
    told: dict[tuple[str, str, int], Row] = {}
    found: dict[UsageKey, Sums] = defaultdict(Sums)
    for table, window_s in (("rollup_minute", MINUTE_S), ("rollup_day", DAY_S)):
        for row in world.store.rows[table]:
            named = {name: row.get(name, "") for name in (*DIMENSIONS, "currency", "meters", "unpriced")}
            if told.setdefault((table, row["customer"], row["key"]), named) != named:
                yield f"the key {row['key']:x} of {table} stands for two combinations"
            _add_row(found, window_s, row)
    for key in sorted({*found, *expected.usage}):
        if found.get(key) != expected.usage.get(key):
            yield f"usage {key}: found {found.get(key)}, expected {expected.usage.get(key)}"


def _add_row(found: dict[UsageKey, Sums], window_s: int, row: Row) -> None:
    dims = tuple(sorted((name, row.get(name, "")) for name in DIMENSIONS))
    for slot, meter in enumerate(row["meters"].split(",")):
        if meter:
            quantity = row[f"q{slot}"]
            unpriced = quantity if row["unpriced"] >> slot & 1 else 0
            sums = Sums(quantity, row[f"a{slot}"], row["events"], unpriced, row["digest"])
            found[window_s, row["window_start"], dims, meter].add(sums)


# ---- The balance and what was set aside ---------------------------------------------------------------------------


def _check_balance(world: "World", expected: Expected) -> Problems:
    rows = world.store.rows["pipeline_balance"]
    blocks = Counter((row["lineage"], row["writer"], row["block"], row["shard"]) for row in rows)
    yield from (f"pipeline_balance has {key} {count} times" for key, count in blocks.items() if count > 1)
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for name in ("accepted", "duplicate", "conflicting", "late"):
            found[row["shard"]][name] += row[name]
        found[""]["rejected"] += row["rejected"]
        found[""]["read"] += row["read"]
        if row["read"] != sum(row[name] for name in ("accepted", "duplicate", "conflicting", "rejected", "late")):
            yield f"the balance of {row} does not hold"
    expected.outcomes[""]["read"] = sum(len(batch.lines) for batch in world.history.batches())
    yield from _check_totals(world, found)
    for shard in sorted({*found, *expected.outcomes}):
        if +found[shard] != +expected.outcomes[shard]:
            yield f"balance of {shard or 'rejects'}: found {found[shard]}, expected {expected.outcomes[shard]}"


def _check_totals(world: "World", found: dict[str, Counter[str]]) -> Problems:
    """The writers' own totals, which a run holds against the store at its end."""
    written: Counter[str] = Counter()
    for shard, sealed in world.recovery.of("outbox").items():
        written.update(unseal(sealed, "writer", shard)["totals"])
    stored: Counter[str] = sum(found.values(), Counter())
    if +written != +stored:
        yield f"the writers counted {written}, the store has {stored}"


def _check_completeness(world: "World") -> Problems:
    """Each block says where it went on and how far it went, once, and told no customer's hour twice."""
    reached_us: dict[tuple[str, str], int] = {}
    began_us: dict[tuple[str, int], int] = {}
    for row in sorted(world.store.rows["watermarks"], key=lambda row: (row["writer"], row["block"])):
        writer = (row["lineage"], row["writer"])
        if row["began"] != reached_us.get(writer, 0):
            yield f"{row} does not go on at {reached_us.get(writer, 0)}"
        reached_us[writer] = row["watermark"]
        began_us[row["writer"], row["block"]] = row["began"]
    arrivals = world.store.rows["arrivals"]
    told = Counter((row["writer"], row["block"], row["customer"], row["window_start"]) for row in arrivals)
    yield from (f"arrivals has {key} {count} times" for key, count in told.items() if count > 1)
    for row in arrivals:
        if row["began"] != began_us.get((row["writer"], row["block"])):
            yield f"{row} is of no block that began then"
        if row["began"] < (row["window_start"] + HOUR_S) * 1_000_000:
            yield f"{row} tells of an hour that had not ended"


def _check_set_aside(world: "World", expected: Expected) -> Problems:
    rows = world.store.rows
    rejected = Counter((row["source_position"], row["reason"], row["payload"]) for row in rows["rejected_events"])
    yield from _differences("rejected_events", rejected, expected.rejected)
    conflicting = Counter((row["source_position"], _event(row)) for row in rows["conflicting_events"])
    yield from _differences("conflicting_events", conflicting, expected.conflicting)
    late = Counter((row["source_position"], _event(row), row["watermark"]) for row in rows["late_events"])
    yield from _differences("late_events", late, expected.late)
    inbox = Counter(
        (f"inbox/{row['file']}:{row['position']}", row["outcome"], row["reason"]) for row in rows["inbox_events"]
    )
    yield from _differences("inbox_events", inbox, expected.inbox)
    for row in rows["conflicting_events"]:
        if row["fingerprint"] != fingerprint(row["source"], row["id"]):
            yield f"conflicting_events: the fingerprint of {row['id']} is wrong"


def _differences(place: str, found: Counter[Any], expected: Counter[Any]) -> Problems:
    yield from (f"{place}: not expected: {row} (x{count})" for row, count in (found - expected).items())
    yield from (f"{place}: missing: {row} (x{count})" for row, count in (expected - found).items())


def _check_changes(world: "World", expected: Expected) -> Problems:
    """The table `corrections`; prices of the workload leave no remainder."""
    names = ("customer", "window_start", "meter", "id", "kind", "reason", "author", "corrects", "quantity")
    found = Counter(
        tuple(str(row[name]) for name in (*names, "unpriced_quantity", "amount"))
        for row in world.store.rows["corrections"]
    )
    yield from _differences("corrections", found, expected.changes)
    yield from (f"{row} has a remainder" for row in world.store.rows["corrections"] if row["amount_remainder"])


def _event(row: Row) -> Event:
    """The event in a row's payload; its columns must say the same."""
    payload = json.loads(row["payload"])
    time_us = microseconds(payload["time"])
    if (payload["source"], payload["id"], time_us) != (row["source"], row["id"], row["event_time"]):
        return Event("the payload is of another event", "", 0, (), ())
    said = {name: payload[name] for name in ("corrects", "reason", "author") if name in payload}
    kind = CORRECTION if payload.get("type") == "usage.correction" else LATE
    return event_of(payload, time_us, canonical({"kind": kind, **said}) if said else "")


# ---- The ledger ---------------------------------------------------------------------------------------------------


def _check_ledger(world: "World", expected: Expected) -> Problems:
    if world.options.ledger_file_bytes is None:
        return
    found: Counter[tuple[str, Event]] = Counter()
    for path in sorted((world.disk.root / LEDGER_FOLDER).glob("2*/*/*.parquet")):
        for batch in read(path):
            times = batch.column("time").cast(pa.int64()).to_pylist()
            for row, time_us in zip(batch.drop_columns(["time"]).to_pylist(), times, strict=True):
                event = event_of(row, time_us, row.get("amends") or "")
                found[row["source_position"], event] += 1
    yield from _differences("ledger", found, expected.accepted)
    for _, event in found:
        if "~" not in event.id:  # a command made it; commands.py knows what it must say
            continue
        dims, usage, _ = spelt(event.id)
        (first, quantity), *others = usage
        if event.dims != dims or event.usage not in (usage, ((first, quantity + CONFLICT_ADDS), *others)):
            yield f"ledger: {event} is not what its id spells"


# ---- Files --------------------------------------------------------------------------------------------------------

_RECORD = struct.Struct("<QQQ")


def _check_segments(world: "World", expected: Expected) -> Problems:
    for shard, sealed in sorted(world.recovery.of("deduplicate").items()):
        manifest = unseal(sealed, "shard", shard)
        generations = expected.fingerprints.get(shard, [])
        if len(manifest["segments"]) != len(generations):
            yield f"{shard}: {len(manifest['segments'])} segments are recorded, expected {len(generations)}"
            continue
        for segment, wanted in zip(manifest["segments"], generations, strict=True):
            path = world.disk.root / STATE_FOLDER / "shards" / shard / f"segment-{segment['number']:08d}.fps"
            content = path.read_bytes() if path.exists() else b""
            if len(content) != segment["length"]:
                yield f"{path.name} of {shard}: {len(content)} bytes, {segment['length']} are recorded"
            elif _records(content) != wanted:
                yield f"{path.name} of {shard}: holds other fingerprints than were accepted"


def _check_filters(world: "World", expected: Expected) -> Problems:
    """Each generation that has retired has left what pybloom_live makes of it, and nothing else has."""
    for shard in sorted(world.recovery.of("deduplicate")):
        folder = world.disk.root / STATE_FOLDER / "shards" / shard
        found = {path.name.rpartition("-")[0]: path.read_bytes() for path in folder.glob("retired-*")}
        wanted = {}
        for number, (sealed_at_us, ids) in enumerate(expected.retired.get(shard, []), start=1):
            file = BytesIO()
            filter_of(ids, len(ids), ERROR_RATE).tofile(file)
            wanted[f"retired-{number:08d}-{sealed_at_us}"] = file.getvalue()
        for name in sorted({*found, *wanted}):
            if found.get(name) != wanted.get(name):
                what = "missing" if name not in found else "not expected" if name not in wanted else "of other ids"
                yield f"filter {name} of {shard}: {what}"


def _records(content: bytes) -> dict[int, int]:
    records, at = {}, 8
    while at < len(content):
        length, checksum = struct.unpack_from("<II", content, at)
        chunk = content[at + 8 : at + 8 + length]
        if zlib.crc32(chunk) != checksum:
            return {}
        records |= {high << 64 | low: payload for low, high, payload in _RECORD.iter_unpack(chunk)}
        at += 8 + length
    return records


def _check_strays(world: "World") -> Problems:
    """Nothing may be left over, but of shards that never came to a commit: that goes with their first."""
    shards, writers = world.recovery.of("deduplicate"), world.recovery.of("outbox")
    wanted = {f"{STATE_FOLDER}/{name}" for name in ("LOCK", "lineage.json")}
    for shard, sealed in shards.items():
        for segment in unseal(sealed, "shard", shard)["segments"]:
            wanted.add(f"{STATE_FOLDER}/shards/{shard}/segment-{segment['number']:08d}.fps")
            if segment["sealed_at_us"] >= 0:
                wanted.add(f"{STATE_FOLDER}/shards/{shard}/segment-{segment['number']:08d}.idx")
    beside = [f"{STATE_FOLDER}/{folder}/LOCK" for folder in ("inbox", "late", "redrives")]
    for name in world.disk.used():
        # Of a command that died when the store had answered, or whose last deletion a power loss took back; the next
        # one tells the same once more, under the same token, and writes over it.
        told = name.endswith((".insert", ".arrow")) and name.startswith(
            (f"{STATE_FOLDER}/late/", f"{STATE_FOLDER}/redrives/")
        )
        if told or name in beside or name.startswith(f"{STATE_FOLDER}/inbox/0"):
            continue
        uncommitted = [f"shard-{number:03d}" for number in range(world.options.shards)]
        uncommitted = [shard for shard in uncommitted if shard not in writers or shard not in shards]
        retired = name.startswith(f"{STATE_FOLDER}/shards/") and name.endswith(".bloom")  # see _check_filters
        sealed_ledger = name.startswith(f"{LEDGER_FOLDER}/2") and name.endswith(".parquet")
        if name not in wanted and not sealed_ledger and not retired and not any(shard in name for shard in uncommitted):
            yield f"left over: {name}"
