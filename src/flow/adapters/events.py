"""Payloads into events: identity, time and dimensions from where the kind has them, or from where one says."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from functools import cached_property

import pyarrow as pa

from ..errors import ConfigError, PayloadError
from ..schema import DIMENSIONS
from .classes import CLASSES, fold
from .kind import Kind
from .reading import Finding, Reading, look_up, read_payload
from .spans import spans
from .tables import KINDS

FIELDS = ("id", "source", "time", *DIMENSIONS)
"""What an event says besides its meters."""

_TIERS = {"default": "standard", "auto": ""}
"""A provider's word for a service tier, and ours: what "auto" came to, it does not say."""

_SECONDS_MAX = 100_000_000_000
"""A number below it is a time in seconds; each thousand times more in milliseconds, microseconds, nanoseconds. So any
instant between 1973 and 5138 is understood, whatever its unit."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Event:
    """One event, ready to be written."""

    texts: dict[str, str]
    """All of FIELDS but the time."""
    event_time_us: int
    usage: dict[str, int]
    findings: list[Finding]


@dataclass(frozen=True)
class Adapter:
    """How the lines of one input become events."""

    kind_name: str
    constants: Mapping[str, str] = field(default_factory=dict)
    """{field: text}: the same for all events."""
    paths: Mapping[str, str] = field(default_factory=dict)
    """{field: path in the line (in the span, where there are several)}, instead of where the kind has it."""
    payload: str = ""
    """Where in a line the payload stands; empty: the line is the payload."""
    meters: Collection[str] | None = None
    """The meters to fold finer ones into (`classes.fold`); None: all as they are."""
    defaults: Mapping[str, str] = field(default_factory=dict)
    """{field: text}: for events that say nothing else."""

    def __post_init__(self) -> None:
        """Raises ConfigError for an unknown kind or field."""
        kind_named(self.kind_name)
        wrong = [name for name in (*self.constants, *self.paths, *self.defaults) if name not in FIELDS]
        if wrong:
            raise ConfigError([f"{name}: no field of an event; there are {', '.join(FIELDS)}" for name in wrong])

    @cached_property
    def kind(self) -> Kind:
        return kind_named(self.kind_name)

    def events(self, line: object) -> list[Event]:
        """The events of one line. Raises PayloadError if there is no making one of them."""
        return [event for payload in self.payloads(line) for event in self.events_of(line, payload)]

    def payloads(self, line: object) -> list[Mapping[str, object]]:
        """What a line holds: one payload, or as many spans as tell the usage of a call. Raises PayloadError."""
        payload = look_up(line, self.payload) if self.payload else line
        if not isinstance(payload, Mapping):
            raise PayloadError(f"{self.payload or 'it'} is no JSON object")
        return list(spans(payload)) if self.kind.by_span else [payload]

    def events_of(self, line: object, payload: Mapping[str, object]) -> list[Event]:
        """The events of one of its `payloads`. Raises PayloadError."""
        texts, event_time_us = self._fields(payload if self.kind.by_span else line, payload)
        return [self._event(reading, texts, event_time_us) for reading in read_payload(self.kind, payload)]

    def _event(self, reading: Reading, texts: Mapping[str, str], event_time_us: int) -> Event:
        usage = reading.meters if self.meters is None else fold(reading.meters, self.meters)
        own = dict(texts)
        if reading.part:
            own["id"] = f"{own['id']}/{reading.part}"
            own["model"] = reading.model or own["model"]
        return Event(own, event_time_us, usage or {self.columns()[0]: 0}, reading.findings)

    def _fields(self, line: object, payload: Mapping[str, object]) -> tuple[dict[str, str], int]:
        texts = {name: self._text(name, line, payload) for name in FIELDS if name != "time"}
        texts["source"] = texts["source"] or self.kind_name
        texts["service_tier"] = _TIERS.get(texts["service_tier"], texts["service_tier"])
        time = self._value("time", line, payload)
        missing = [name for name in ("id", "customer") if not texts[name]] + ["time"] * (time is None)
        if missing:
            raise PayloadError(f"no {', no '.join(missing)}: say where it stands, or what it is for all of them")
        return texts, time_us(time)

    def _text(self, name: str, line: object, payload: Mapping[str, object]) -> str:
        value = self._value(name, line, payload)
        if isinstance(value, int) and not isinstance(value, bool):
            return str(value)
        if value is not None and not isinstance(value, str):
            raise PayloadError(f"{name}: {value!s:.40} is no text")
        return value or ""

    def _value(self, name: str, line: object, payload: Mapping[str, object]) -> object:
        if name in self.constants:
            return self.constants[name]
        if name in self.paths:
            found = [look_up(line, self.paths[name])]
        else:
            found = [look_up(line, name)] if self.payload else []
            found += [look_up(payload, path) for path in self.kind.event.get(name, ())]
        found.append(self.defaults.get(name))
        return next((value for value in found if value not in (None, "")), None)

    def columns(self) -> list[str]:
        """Every meter that an event of this adapter can have."""
        classes = [name for _, names in self.kind.counted for name in names]
        meters = dict.fromkeys(meter for name in classes for meter in CLASSES[name])
        return list(meters if self.meters is None else fold(dict.fromkeys(meters, 0), self.meters))

    def schema(self) -> pa.Schema:
        """The columnar form (DESIGN 3.1) with all meters of `columns`."""
        texts = [pa.field(name, pa.timestamp("us", tz="UTC") if name == "time" else pa.string()) for name in FIELDS]
        return pa.schema([*texts, *[pa.field(name, pa.int64()) for name in self.columns()]])


def batches(adapter: Adapter, events: Iterable[Event], batch_rows: int = 10_000) -> Iterator[pa.RecordBatch]:
    """Events in the columnar form, `batch_rows` at a time."""
    schema = adapter.schema()
    columns: dict[str, list[object]] = {name: [] for name in schema.names}
    for event in events:
        for name, column in columns.items():
            column.append(event.event_time_us if name == "time" else event.texts.get(name, event.usage.get(name)))
        if len(columns["id"]) == batch_rows:
            yield pa.RecordBatch.from_pydict(columns, schema)
            columns = {name: [] for name in columns}
    if columns["id"]:
        yield pa.RecordBatch.from_pydict(columns, schema)


def kind_named(name: str) -> Kind:
    """A kind by its name; `anthropic` alone is `anthropic/default`. Raises ConfigError naming those there are."""
    found = KINDS.get(name) or KINDS.get(f"{name}/default")
    if found is None:
        provider = name.partition("/")[0]
        near = [known for known in KINDS if known.partition("/")[0] == provider]
        raise ConfigError(f"{name}: no known kind of payload; there are {', '.join(near or KINDS)}")
    return found


def time_us(value: object) -> int:
    """Microseconds since 1970 of a time: RFC 3339 with an offset, or a number of seconds (or smaller units) since then.

    What is finer than a microsecond is cut off. Raises PayloadError for anything else.
    """
    if isinstance(value, str) and not value.replace(".", "", 1).isdigit():
        try:
            instant = datetime.fromisoformat(value)
        except ValueError:
            instant = _EPOCH.replace(tzinfo=None)
        if instant.utcoffset() is None:
            raise PayloadError(f"time: {value:.40} is no time with a UTC offset")
        return (instant - _EPOCH) // timedelta(microseconds=1)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        number = Decimal(-1)
    if isinstance(value, bool) or not number.is_finite() or number < 0 or number.adjusted() > 20:
        raise PayloadError(f"time: {value!s:.40} is no time")
    places = 6 - 3 * next((n for n in range(3) if number < _SECONDS_MAX * 1000**n), 3)
    return int(number.scaleb(places))
