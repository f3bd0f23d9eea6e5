"""What a committed history must have come to: plain Python integers, one event at a time.

Goal: the truth, independent of kernels, batches, epochs and crashes. Method: the rules of DESIGN 5 are
written down again in a dozen lines (`_Shard`), fed with the committed batches of each shard in the order in
which it judged them; money and hashes come from flow/oracle, what a line says comes from the workload.
Where the order of arrival decides (which of two conflicting events is first, what is late), it is the
committed order that counts.
"""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache

from flow.oracle import hashing, rating
from flow.schema import REQUESTS

from .history import Batch, History
from .options import Options
from .workload import CORRECTION, INBOX, Event, Line, Workload, canonical

MINUTE_S, DAY_S = 60, 86_400


@dataclass
class Sums:
    """One row of usage: of one window, combination of dimensions and meter."""

    quantity: int = 0
    amount_femto: int = 0
    events: int = 0
    unpriced_quantity: int = 0
    digest: int = 0

    def add(self, other: "Sums") -> None:
        self.quantity += other.quantity
        self.amount_femto += other.amount_femto
        self.events += other.events
        self.unpriced_quantity += other.unpriced_quantity
        self.digest = (self.digest + other.digest) % 2**128


UsageKey = tuple[int, int, tuple[tuple[str, str], ...], str]
"""(window length in seconds, window start in seconds, dimensions, meter)."""


@dataclass
class Expected:
    """What the store, the ledger and the segments must hold; a Counter counts rows."""

    outcomes: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """Per shard; rejected events stand under "", since any shard may report them."""
    usage: dict[UsageKey, Sums] = field(default_factory=lambda: defaultdict(Sums))
    accepted: Counter[tuple[str, Event]] = field(default_factory=Counter)
    conflicting: Counter[tuple[str, Event]] = field(default_factory=Counter)
    late: Counter[tuple[str, Event, int]] = field(default_factory=Counter)
    rejected: Counter[tuple[str, str, bytes]] = field(default_factory=Counter)
    inbox: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    """Position, outcome and reason of each event that came by the inbox."""
    changes: Counter[tuple[str, ...]] = field(default_factory=Counter)
    """What corrections, and late events that are billed, change: see `_change`."""
    fingerprints: dict[str, list[dict[int, int]]] = field(default_factory=dict)
    """Per shard, its generations on disk, oldest first: fingerprint to the low word of the payload hash."""
    retired: dict[str, list[tuple[int, dict[int, int]]]] = field(default_factory=dict)
    """Per shard, those that have left a filter, oldest first, each with the watermark when it was sealed."""
    problems: list[str] = field(default_factory=list)


@cache
def fingerprint(source: str, id: str) -> int:
    return hashing.fingerprint(source, id)


@cache
def payload_hash(event: Event) -> int:
    """A late event is the event that it always was; a correction is also what it says besides its usage."""
    payload = hashing.payload_hash(dict(event.dims), event.usage)
    if event.kind != CORRECTION:
        return payload
    return hashing.name_hash(payload.to_bytes(16, "little").hex() + event.amends)


class _Shard:
    """The rules of deduplication. A generation: fingerprints, and the watermark when it was sealed."""

    def __init__(self, horizon_us: int | None, generations: int, ids_max: int) -> None:
        self.horizon_us = horizon_us
        self.slice_us = max((horizon_us or 1) // generations, 1)
        self.ids_max = ids_max
        self.watermark_us = -1
        self.active: dict[int, int] = {}
        self.sealed: list[tuple[int, dict[int, int]]] = []
        self.retired: list[tuple[int, dict[int, int]]] = []

    def judge(self, identity: int, payload: int, time_us: int, admitted: bool) -> str:
        for known in (self.active, *(ids for _, ids in self.sealed)):
            if identity in known:
                return "duplicate" if known[identity] == payload else "conflicting"
        bounded, now_us = self.horizon_us is not None and not admitted, self.watermark_us
        if bounded and time_us < now_us - self.horizon_us:
            return "late"
        next_slice = bounded and time_us > now_us and time_us // self.slice_us != now_us // self.slice_us
        if self.active and (next_slice or len(self.active) >= self.ids_max):
            self.sealed.append((now_us, self.active))
            self.active = {}
            while bounded and self.sealed and self.sealed[0][0] < now_us - self.horizon_us:
                self.retired.append(self.sealed.pop(0))
        self.watermark_us = max(now_us, time_us)
        self.active[identity] = payload
        return "accepted"


def expect(history: History, workload: Workload, inbox: Iterable[Line], options: Options) -> Expected:
    """The truth about a committed history; `inbox`: the lines of all files of the inbox."""
    expected = Expected()
    batches = history.batches()
    _check_routing(history, batches, options, expected)
    _check_all_read(batches, workload, inbox, expected)
    for batch in batches:
        for line in batch.lines:
            reason = why_rejected(line, batch.now_us, options)
            if reason is not None:
                expected.rejected[line.position, reason, line.content] += 1
                expected.outcomes[""]["rejected"] += 1
                if line.origin.startswith(INBOX):
                    expected.inbox[line.position, "rejected", reason] += 1
    for shard, judged in history.judged.items():
        rules = _Shard(options.horizon_us, options.generations, options.segment_ids_max)
        for batch in judged:
            _judge(shard, batch, rules, options, expected)
        expected.fingerprints[shard] = [ids for ids in (*(ids for _, ids in rules.sealed), rules.active) if ids]
        expected.retired[shard] = rules.retired
    for _, event in expected.accepted.elements():
        _bill(event, workload, expected)
    return expected


def why_rejected(line: Line, now_us: int, options: Options) -> str | None:
    """The reason for which a line is rejected now; None: it is not."""
    if line.event is not None and line.event.event_time_us > now_us + options.clock_skew_us:
        return "TIME_IN_FUTURE"
    return line.reason


def shard_of(event: Event, shards: int) -> str:
    return f"shard-{(fingerprint(event.source, event.id) >> 64) % shards:03d}"


def _valid(batch: Batch, options: Options) -> list[tuple[str, Event]]:
    return [
        (line.position, line.event)
        for line in batch.lines
        if line.event is not None and why_rejected(line, batch.now_us, options) is None
    ]


def _judge(shard: str, batch: Batch, rules: _Shard, options: Options, expected: Expected) -> None:
    late = []
    for position, event in _valid(batch, options):
        if shard_of(event, options.shards) != shard:
            continue
        identity = fingerprint(event.source, event.id)
        payload = payload_hash(event) & (2**64 - 1)
        verdict = rules.judge(identity, payload, event.event_time_us, batch.admitted)
        expected.outcomes[shard][verdict] += 1
        if position.startswith(INBOX):
            expected.inbox[position, verdict, ""] += 1
        if verdict == "accepted":
            expected.accepted[position, event] += 1
        elif verdict == "conflicting":
            expected.conflicting[position, event] += 1
        elif verdict == "late":
            late.append((position, event))
    for position, event in late:  # with the watermark behind the whole batch
        expected.late[position, event, rules.watermark_us] += 1


def _bill(event: Event, workload: Workload, expected: Expected) -> None:
    """An event is what it says, and one request; a correction is what it makes of a usage, and no request."""
    digest = hashing.event_digest(fingerprint(event.source, event.id), payload_hash(event))
    if event.kind == CORRECTION:
        before, after = _before_and_after(event)
        sums = {meter: Sums(digest=digest) for meter in (*after, REQUESTS)}
        sides = ((1, after), (-1, before))
    else:
        usage = dict(event.usage) | {REQUESTS: 1}
        sums = {meter: Sums(events=1, digest=digest) for meter in usage}
        sides = ((1, usage),)
    for sign, usage in sides:
        for meter, quantity, amount_femto in _rated(event, usage, workload):
            unpriced = quantity if amount_femto is None else 0
            sums[meter].add(Sums(sign * quantity, sign * (amount_femto or 0), 0, sign * unpriced))
    for meter, of_meter in sums.items():
        _put(event, meter, of_meter, expected.usage)
        if event.amends:
            expected.changes.update(_change(event, meter, of_meter))


def _before_and_after(event: Event) -> tuple[dict[str, int], dict[str, int]]:
    """The two usages whose difference a correction is; a request that is taken back is before."""
    change, said = dict(event.usage), json.loads(event.amends)["corrects"]
    requests = change.pop(REQUESTS, 0)
    before = said.get("usage", {meter: -quantity for meter, quantity in change.items() if quantity < 0})
    after = {meter: before.get(meter, 0) + change.get(meter, 0) for meter in (*before, *change)}
    return before | ({REQUESTS: -requests} if requests else {}), after


def _rated(event: Event, usage: dict[str, int], workload: Workload) -> Iterator[tuple[str, int, int | None]]:
    """(meter, quantity, amount) of a usage at the time of an event."""
    book, items = workload.book, tuple((meter, n) for meter, n in usage.items() if meter != REQUESTS)
    for meter, quantity, amount_femto in rating.rate_event(
        book.prices, book.unbilled, rating.Event(event.event_time_us, items, dict(event.dims))
    ):
        if meter in usage:
            yield meter, quantity, amount_femto


def _put(event: Event, meter: str, sums: Sums, usage: dict[UsageKey, Sums]) -> None:
    dims = dict(event.dims)
    for window_s in (MINUTE_S, DAY_S):
        told_apart = dims if window_s == MINUTE_S else {**dims, "project": "", "model": ""}
        start_s = event.event_time_us // 1_000_000 // window_s * window_s
        usage[window_s, start_s, tuple(sorted(told_apart.items())), meter].add(sums)


def _change(event: Event, meter: str, sums: Sums) -> list[tuple[str, ...]]:
    """The row of `corrections` for a meter, as texts; none where nothing changes."""
    if not (sums.quantity or sums.unpriced_quantity or sums.amount_femto):
        return []
    said = json.loads(event.amends)
    corrects = canonical(said["corrects"]) if "corrects" in said else ""
    of = dict(event.dims)["customer"], event.event_time_us // 60_000_000 * 60, meter, event.id, event.kind
    told = *of, said["reason"], said["author"], corrects, sums.quantity, sums.unpriced_quantity, sums.amount_femto
    return [tuple(map(str, told))]


# ---- The history itself -------------------------------------------------------------------------------------------


def _check_routing(history: History, batches: list[Batch], options: Options, expected: Expected) -> None:
    """Every shard must have judged every batch that has an event for it, once."""
    for shard, judged in history.judged.items():
        if len(set(judged)) != len(judged):
            expected.problems.append(f"{shard} judged a batch twice")
    seen = {shard: set(judged) for shard, judged in history.judged.items()}
    for batch in batches:
        for _, event in _valid(batch, options):
            shard = shard_of(event, options.shards)
            if batch not in seen.get(shard, ()):
                expected.problems.append(f"{event.id} never came to {shard}")


def _check_all_read(batches: list[Batch], workload: Workload, inbox: Iterable[Line], expected: Expected) -> None:
    read = Counter(line.position for batch in batches for line in batch.lines)
    there = Counter(line.position for lines in (*workload.partitions, inbox) for line in lines)
    for position in sorted((read | there).keys()):
        if read[position] != there[position]:
            expected.problems.append(f"{position} was read {read[position]} times in committed epochs")
