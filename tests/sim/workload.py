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
"""How the origin of what comes by the inbox begins; the third partition and those behind it do."""


@dataclass(frozen=True)
class Event:
    """What a valid line says."""

    id: str
    source: str
    event_time_us: int
    dims: tuple[tuple[str, str], ...]
    usage: tuple[tuple[str, int], ...]


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
    book: PriceBook


def make_workload(rng: Random, options: Options) -> Workload:
    """The input of a seed."""
    start_us = _microseconds(rng.choice(_STARTS))
    deliveries = sorted(_deliveries(rng, options, start_us), key=lambda pair: pair[0])
    streams: list[list[Line]] = [[] for _ in range(options.partitions)]
    ends = [0] * options.partitions
    for _, (content, event, reason, readable) in deliveries:
        number = rng.randrange(options.partitions)
        origin = f"partition-{number}" if number < 2 else f"{INBOX}{number:012d}-redrive.ndjson"
        streams[number].append(Line(origin, ends[number], content, event, reason, readable))
        ends[number] += len(content) + 1
    return Workload(start_us, tuple(map(tuple, streams)), _book(rng, options, start_us))


def spelt(id: str) -> tuple[tuple[tuple[str, str], ...], tuple[tuple[str, int], ...], int]:
    """Dimensions, usage and time of the original event of this id."""
    _, customer, others, quantities, time_us = id.split("~")
    dims = {"customer": f"c{customer}"}
    for (name, values), digit in zip(DIMENSION_VALUES.items(), others, strict=True):
        dims[name] = values[int(digit)]
    usage = [(name, int(text)) for name, text in zip(METERS, quantities.split("."), strict=True) if text]
    return tuple(dims.items()), tuple(usage), int(time_us)


Delivery = tuple[bytes, Event | None, str | None, bool]


def _deliveries(rng: Random, options: Options, start_us: int) -> Iterator[tuple[float, Delivery]]:
    """(when it is sent, delivery) in the order in which they were thought of."""
    for index in range(options.events):
        when = index + rng.gauss(0, 1) * options.disorder
        if rng.random() < options.bad:
            yield when, _bad(rng, _original(rng, replace(options, future=0.0), start_us, index))
            continue
        event = _original(rng, options, start_us, index)
        yield when, _good(rng, event)
        while rng.random() < options.duplicate:
            again = event
            if rng.random() < options.retimed:
                again = replace(event, event_time_us=event.event_time_us + rng.randrange(1, 5 * options.gap_us))
            yield when + abs(rng.gauss(0, 1)) * rng.choice((1, 40)), _good(rng, again)
        if rng.random() < options.conflicting:
            usage = ((event.usage[0][0], event.usage[0][1] + CONFLICT_ADDS), *event.usage[1:])
            yield when + rng.gauss(0, 1) * 10, _good(rng, replace(event, usage=usage))


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


def _quantity(rng: Random) -> int:
    return rng.choice((0, 1, 17, rng.randrange(100_000), rng.randrange(100_000), QUANTITY_MAX - CONFLICT_ADDS))


# ---- Lines --------------------------------------------------------------------------------------------------------


def _good(rng: Random, event: Event) -> Delivery:
    return _encoded(_fields(rng, event, rng.random() < 0.5)), event, None, True


def _fields(rng: Random, event: Event, cloud_event: bool) -> dict[str, object]:
    dims, usage = dict(event.dims), list(event.usage)
    rng.shuffle(usage)
    customer = dims.pop("customer")
    time = _text(event.event_time_us, rng.choice((0, 0, 120, -330)))
    fields: dict[str, object] = {"id": event.id, "source": event.source, "time": time}
    inner = {**dims, "usage": {name: str(n) if rng.random() < 0.1 else n for name, n in usage}}
    if cloud_event:
        return {"specversion": "1.0", "type": "llm.usage", **fields, "subject": customer, "data": inner}
    return {**fields, "customer": customer, **inner}


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


# ---- Prices -------------------------------------------------------------------------------------------------------


def _book(rng: Random, options: Options, start_us: int) -> PriceBook:
    """Prices that change in the middle of the events, also within a window."""
    span_us = options.events * options.gap_us
    middle_us = start_us - span_us + rng.randrange(span_us)
    later_us = middle_us + rng.randrange(1, span_us + 1)
    text = _PRICES.replace("MIDDLE", _text(middle_us)).replace("LATER", _text(later_us))
    return parse_price_book(text, "prices of the simulation")


def _microseconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()) * 1_000_000
