"""The input of a simulation, and the truth about each line of it.

Goal: know what every line must become without asking the code under test. Method: an event's id spells its
truth (dimensions, quantities and time), so that `spelt` recomputes from an id alone what a row with this id
must say; what a line adds to that (another time on a retry, another payload on a conflict, a flaw) is kept
beside the line when it is made, never read back from it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from random import Random

from flow.prices.book import PriceBook, parse_price_book
from flow.schema import REQUESTS

from .options import Options

DIMENSION_VALUES = {
    "project": ("", "search", "Prüfung"),
    "feature": ("chat", "agent"),
    "model": ("m0", "m1", "m2"),
    "region": ("", "eu"),
    "service_tier": ("", "batch"),
}
METERS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "images", "steps")
"""`images` is unbilled and `steps` is in no price book; more than four of them need two keys."""

EVENT_BYTES_MAX = 2_000
QUANTITY_MAX = 10**12
CONFLICT_ADDS = 1_000_000
"""What a conflicting payload has more of its first meter."""

_STARTS = ("2026-11-30T23:58:00", "2026-12-31T23:10:00", "2028-02-29T12:00:00", "2026-07-15T08:00:30")

_PRICES = """
currency: USD
unbilled: [images]
prices:
  - {meter: input_tokens, from: 2000-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
  - {meter: input_tokens, model: m1, from: 2000-01-01T00:00:00Z, per: 1_000_000_000, price: "0.000007"}
  - {meter: input_tokens, model: m1, customer: c1, from: MIDDLE, per: 1_000_000, price: "3.21"}
  - {meter: output_tokens, from: MIDDLE, per: 1_000_000, price: "2.4"}
  - {meter: output_tokens, from: LATER, per: 1_000_000, price: "2.5"}
  - {meter: cached_input_tokens, from: 2000-01-01T00:00:00Z, per: 1_000, price: "1234.567"}
  - {meter: reasoning_tokens, model: m2, region: eu, from: 2000-01-01T00:00:00Z, per: 1, price: "0.0001"}
  - {meter: requests, service_tier: batch, from: MIDDLE, per: 1, price: "0.02"}
"""


INBOX = "inbox/"
"""How the origin of what comes by the inbox begins."""
CORRECTION, LATE = "correction", "late"
GRAINS_S = {"minute": 60, "hour": 3_600, "day": 86_400}


@dataclass(frozen=True)
class Event:
    """What a valid line says."""

    id: str
    source: str
    event_time_us: int
    dims: tuple[tuple[str, str], ...]
    usage: tuple[tuple[str, int], ...]
    amends: str = ""
    """What it says besides as canonical JSON, with its kind: of a correction, or of a late event that is billed."""

    @property
    def kind(self) -> str:
        """CORRECTION, LATE, or "" for a plain event."""
        return json.loads(self.amends)["kind"] if self.amends else ""


@dataclass(frozen=True)
class Line:
    """One line of a partition: its place, its bytes, and either the event in it or why it is rejected."""

    origin: str
    offset: int
    content: bytes
    event: Event | None
    reason: str | None
    readable: bool = True
    """Whether the source can read it as a line at all; else it hands an Unreadable to decode."""

    @property
    def position(self) -> str:
        return f"{self.origin}:{self.offset}"


@dataclass(frozen=True)
class Workload:
    """Everything that comes in, and the prices in force."""

    start_us: int
    """The wall clock when the first process starts; all events are before it, but for those of the future."""
    partitions: tuple[tuple[Line, ...], ...]
    puts: tuple[tuple[bytes, ...], ...]
    """What commands put into the inbox, file by file."""
    said: dict[bytes, tuple[Event | None, str | None]]
    """The truth about the content of every line, wherever it stands: its event, or why it is rejected."""
    mended: dict[bytes, Event]
    """The event of which a rejected line was made."""
    settled: tuple[Event, ...]
    """Events that no line corrects: a command may say what they are to be."""
    book: PriceBook


def make_workload(rng: Random, options: Options) -> Workload:
    """The input of a seed."""
    start_us = microseconds(f"{rng.choice(_STARTS)}Z")
    made = _Deliveries(rng, options, start_us)
    deliveries = sorted(made.all(), key=lambda pair: pair[0])
    streams: list[list[Line]] = [[] for _ in range(options.partitions)]
    ends = [0] * options.partitions
    put: list[bytes] = []
    for _, (content, event, reason, readable) in deliveries:
        if readable and rng.random() < options.put:
            put.append(content)
            continue
        number = rng.randrange(options.partitions)
        streams[number].append(Line(f"partition-{number}", ends[number], content, event, reason, readable))
        ends[number] += len(content) + 1
    files = 1 + len(put) // 4
    return Workload(
        start_us,
        tuple(map(tuple, streams)),
        tuple(tuple(put[n::files]) for n in range(files) if put[n::files]),
        {content: (event, reason) for _, (content, event, reason, _) in deliveries},
        made.mended,
        tuple(made.settled),
        _book(rng, options, start_us),
    )


def spelt(id: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, int], ...], int]:
    """Dimensions, usage and time of the original event of this id; of a correction, usage is its differences."""
    _, customer, others, quantities, time_us = id.split("~")
    dims = {"customer": f"c{customer}"}
    for (name, values), digit in zip(DIMENSION_VALUES.items(), others, strict=True):
        dims[name] = values[int(digit)]
    usage = [(name, int(text)) for name, text in zip((*METERS, REQUESTS), quantities.split("."), strict=False) if text]
    return tuple(dims.items()), tuple(usage), int(time_us)


def canonical(said: dict[str, object]) -> str:
    """The text of what an event says besides its usage."""
    return json.dumps(said, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


Delivery = tuple[bytes, Event | None, str | None, bool]


class _Deliveries:
    """What is sent, and what is known of it besides."""

    def __init__(self, rng: Random, options: Options, start_us: int) -> None:
        self._rng, self._options, self._start_us = rng, options, start_us
        self.mended: dict[bytes, Event] = {}
        self.settled: list[Event] = []

    def all(self) -> Iterator[tuple[float, Delivery]]:
        """(when it is sent, delivery) in the order in which they were thought of."""
        rng, options = self._rng, self._options
        for index in range(options.events):
            when = index + rng.gauss(0, 1) * options.disorder
            if rng.random() < options.bad:
                event = _original(rng, replace(options, future=0.0), self._start_us, index)
                bad = _bad(rng, event)
                self.mended[bad[0]] = event
                yield when, bad
                continue
            event = _original(rng, options, self._start_us, index)
            yield when, _good(rng, event)
            yield from self._again(when, event)
            settled = True
            if rng.random() < options.conflicting:
                usage = ((event.usage[0][0], event.usage[0][1] + CONFLICT_ADDS), *event.usage[1:])
                yield when + rng.gauss(0, 1) * 10, _good(rng, replace(event, usage=usage))
            if rng.random() < options.corrections:
                yield from self._corrections(when, index, event)
                settled = False
            if settled:
                self.settled.append(event)

    def _again(self, when: float, event: Event) -> Iterator[tuple[float, Delivery]]:
        """Retries."""
        rng, options = self._rng, self._options
        while rng.random() < options.duplicate:
            again = event
            if rng.random() < options.retimed and event.kind != CORRECTION:
                again = replace(event, event_time_us=event.event_time_us + rng.randrange(1, 5 * options.gap_us))
            yield when + abs(rng.gauss(0, 1)) * rng.choice((1, 40)), _good(rng, again)

    def _corrections(self, when: float, index: int, event: Event) -> Iterator[tuple[float, Delivery]]:
        """A correction of an event, which may come before it: it is not looked up."""
        rng, options = self._rng, self._options
        correction = _correction(rng, index, event)
        when += rng.gauss(0, 1) * rng.choice((1, 40))
        if rng.random() < options.bad:
            yield when, _bad_correction(rng, correction)
            return
        yield when, _good(rng, correction)
        yield from self._again(when, correction)
        if rng.random() < options.conflicting:
            said = json.loads(correction.amends) | {"reason": "another one"}
            yield when + rng.gauss(0, 1) * 10, _good(rng, replace(correction, amends=canonical(said)))


def _original(rng: Random, options: Options, start_us: int, index: int) -> Event:
    time_us = start_us - (options.events - index) * options.gap_us - rng.randrange(options.gap_us)
    if rng.random() < options.future:
        time_us = start_us + options.clock_skew_us + rng.choice((0, 1, 10_000_000, 3_600_000_000, 10**13))
    elif rng.random() < options.late:
        time_us -= 2 * (options.horizon_us or options.gap_us * 10)
    customer = 0 if rng.random() < options.hot_customer else rng.randrange(options.customers)
    others = "".join(str(rng.randrange(len(values))) for values in DIMENSION_VALUES.values())
    quantities = [str(_quantity(rng)) if rng.random() < 0.4 else "" for _ in METERS]
    if not any(quantities):
        quantities[0] = "1"
    id_ = f"{index}~{customer}~{others}~{'.'.join(quantities)}~{time_us}"
    dims, usage, _ = spelt(id_)
    return Event(id_, rng.choice(("", "gateway/eu-1")) if index % 7 == 0 else "gateway/us-1", time_us, dims, usage)


def _correction(rng: Random, index: int, event: Event) -> Event:
    """Of an event, with the usage before or without; or of its window. Its differences may be below 0."""
    before = dict(event.usage)
    grain, window_s = rng.choice(list(GRAINS_S.items()))
    start_s = event.event_time_us // 1_000_000 // window_s * window_s
    corrects: dict[str, object] = rng.choice(
        (
            {"source": event.source, "id": event.id, "usage": before},
            {"source": event.source, "id": event.id},
            {"window_start": _text(start_s * 1_000_000), "grain": grain},
        )
    )
    changes = [str(_change(rng, before.get(meter, 0))) if rng.random() < 0.5 else "" for meter in METERS]
    if not any(int(text or 0) for text in changes):
        changes[0] = "1"
    if rng.random() < 0.3:
        changes.append("-1")  # requests
    parts = event.id.split("~")
    id_ = f"{index}c~{'~'.join(parts[1:3])}~{'.'.join(changes)}~{parts[4]}"
    dims, usage, time_us = spelt(id_)
    amends = canonical({"kind": CORRECTION, "author": "Ada", "reason": f"№ {index}", "corrects": corrects})
    return Event(id_, rng.choice(("", "audit")), time_us, dims, usage, amends)


def _change(rng: Random, before: int) -> int:
    """A difference that leaves no less than 0, and no more than is allowed."""
    return rng.choice((0, -before, -(before // 2), min(1_000, QUANTITY_MAX - before)))


def _quantity(rng: Random) -> int:
    return rng.choice((0, 1, 17, rng.randrange(100_000), rng.randrange(100_000), QUANTITY_MAX - CONFLICT_ADDS))


# ---- Lines --------------------------------------------------------------------------------------------------------


def good_line(event: Event) -> bytes:
    """An event as a line, in one of the ways that there are."""
    return _encoded(_fields(Random(event.id), event, cloud_event=False))


def _good(rng: Random, event: Event) -> Delivery:
    return _encoded(_fields(rng, event, rng.random() < 0.5)), event, None, True


def _fields(rng: Random, event: Event, cloud_event: bool) -> dict[str, object]:
    dims, usage = dict(event.dims), list(event.usage)
    rng.shuffle(usage)
    customer = dims.pop("customer")
    time = _text(event.event_time_us, rng.choice((0, 0, 120, -330)))
    fields: dict[str, object] = {"id": event.id, "source": event.source, "time": time}
    inner = {**dims, "usage": {name: str(n) if rng.random() < 0.1 else n for name, n in usage}}
    said = json.loads(event.amends) if event.amends else {}
    type_ = {"type": "usage.correction"} if said.pop("kind", "") == CORRECTION else {}
    if cloud_event:
        return {"specversion": "1.0", "type": "llm.usage", **type_, **fields, "subject": customer, "data": inner | said}
    return {**type_, **fields, "customer": customer, **inner, **said}


def _encoded(fields: dict[str, object]) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _text(time_us: int, offset_minutes: int = 0) -> str:
    zone = timezone(timedelta(minutes=offset_minutes))
    instant = datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)
    return instant.astimezone(zone).isoformat()


def _bad(rng: Random, event: Event) -> Delivery:
    """A line with one flaw, and the reason for which it must be rejected."""
    fields = _fields(rng, event, cloud_event=False)
    whole = _encoded(fields)
    flaws: list[tuple[bytes, str]] = [
        (whole.decode()[: len(whole) // 2].encode(), "INVALID_JSON"),
        (b"\xff\xfe" + whole, "INVALID_UTF8"),
        (b"[1]", "NOT_AN_OBJECT"),
        (_encoded({**fields, "note": "x" * EVENT_BYTES_MAX}), "OVERSIZED"),
        (_encoded({**fields, "id": ""}), "MISSING_ID"),
        (_encoded({**fields, "id": 17}), "INVALID_ID"),
        (_encoded({**fields, "time": None}), "MISSING_TIME"),
        (_encoded({**fields, "time": "2026-01-01T00:00:00"}), "TIME_WITHOUT_OFFSET"),
        (_encoded({**fields, "customer": None}), "MISSING_CUSTOMER"),
        (_encoded({**fields, "usage": {}}), "MISSING_METER"),
        (_encoded({**fields, "usage": {"output_tokens": 1.5}}), "INVALID_QUANTITY"),
        (_encoded({**fields, "usage": {"output_tokens": -1}}), "NEGATIVE_QUANTITY"),
        (_encoded({**fields, "usage": {"output_tokens": QUANTITY_MAX + 1}}), "QUANTITY_TOO_LARGE"),
    ]
    if rng.random() < 0.1:
        return b"\x1f\x8b cut", None, "TRUNCATED_INPUT", False
    content, reason = rng.choice(flaws)
    return content, None, reason, True


def _bad_correction(rng: Random, event: Event) -> Delivery:
    """A correction with one flaw."""
    fields = _fields(rng, event, cloud_event=False)
    said: dict[str, object] = json.loads(event.amends)["corrects"]
    flaws: list[tuple[dict[str, object], str]] = [
        ({"corrects": None}, "CORRECTION_OF_NOTHING"),
        ({"corrects": {}}, "CORRECTION_OF_NOTHING"),
        ({"reason": ""}, "CORRECTION_WITHOUT_REASON"),
        ({"author": None}, "CORRECTION_WITHOUT_AUTHOR"),
        ({"usage": {"images": 0}}, "INVALID_CORRECTION"),
    ]
    negative = {type(quantity) for quantity in fields["usage"].values() if int(quantity) < 0}
    if REQUESTS in dict(event.usage):
        flaws.append(({"type": None}, "INVALID_METER_NAME"))
    elif len(negative) == 1:  # of two kinds, their order says which is told
        flaws.append(({"type": None}, "INVALID_QUANTITY" if negative == {str} else "NEGATIVE_QUANTITY"))
    if "grain" in said:
        flaws.append(({"corrects": said | {"grain": "fortnight"}}, "INVALID_CORRECTION"))
    if "usage" in said:
        flaws.append(({"corrects": {**said, "usage": {"images": 0}}, "usage": {"images": -1}}, "INVALID_CORRECTION"))
    changed, reason = rng.choice(flaws)
    return _encoded({**fields, **changed}), None, reason, True


# ---- Prices -------------------------------------------------------------------------------------------------------


def _book(rng: Random, options: Options, start_us: int) -> PriceBook:
    """Prices that change in the middle of the events, also within a window."""
    span_us = options.events * options.gap_us
    middle_us = start_us - span_us + rng.randrange(span_us)
    later_us = middle_us + rng.randrange(1, span_us + 1)
    text = _PRICES.replace("MIDDLE", _text(middle_us)).replace("LATER", _text(later_us))
    return parse_price_book(text, "prices of the simulation")


def microseconds(text: str) -> int:
    """An ISO 8601 time with an offset, since 1970."""
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
