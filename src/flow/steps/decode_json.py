"""One JSON line to an event or a reject, exactly and with a reason: for lines the native parser hands over.

It is the definition of what is rejected and why; the native parser only accepts. Built on the standard `json`
module, whose hooks keep every number's text and every object's members (twice the same name too).
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NoReturn

from ..errors import RejectReason
from ..schema import DIMENSIONS, REQUESTS
from .amend import CORRECTION, LATE, amends_text, starts_window, usage_before_and_after
from .batches import Limits

DEPTH_MAX = 64
"""The deepest nesting accepted; the event's own object is 1."""

TIME_END_US = (2**32 - 1) * 1_000_000
"""The first instant that is out of range: windows are ClickHouse DateTime, 32-bit seconds."""

CORRECTION_TYPE = "usage.correction"

_OWN = (*DIMENSIONS[1:], "usage")  # in `data` of a CloudEvent, at the top of a flat event
_AMENDING = ("corrects", "reason", "author")  # beside them, in a correction; without the first, in a late event
_ENVELOPE = ("specversion", "id", "source", "type", "time", "subject", "data")
_IGNORED = ("datacontenttype", "dataschema")  # known to CloudEvents, without meaning here
_FLAT = ("id", "source", "type", "time", "customer", *_OWN)

_TIME = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})[Tt ]([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{1,30}))?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?"
)
_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_BLANK = b" \t\r"


class Members(list[tuple[str, object]]):
    """A JSON object: its members in order, repeated names included."""


class Integer(str):
    """The literal of a JSON number without fraction or exponent."""

    __slots__ = ()


class Fractional(str):
    """The literal of any other JSON number."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Event:
    """An accepted event; `texts` are source and the six dimensions."""

    id: str
    event_time_us: int
    texts: list[str]
    usage: list[tuple[str, int]]
    kind: str = ""
    """CORRECTION or LATE, with its text as in `batches.Amends`; "": a plain event."""
    amends: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one line: an event, or the reason and detail of its reject."""

    event: Event | None
    reason: RejectReason | None
    detail: str
    unknown_fields: int


Problems = list[tuple[RejectReason, str]]


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is not JSON")


_DECODER = json.JSONDecoder(
    object_pairs_hook=Members, parse_int=Integer, parse_float=Fractional, parse_constant=_refuse, strict=True
)


def read_line(line: bytes, limits: Limits, now_us: int, *, late: bool = False) -> Outcome:
    """Reads one line (without its line end). Never raises; of all reasons that hold it gives the lowest.

    `late`: a plain event is one that was too late and is billed now, with a `reason` and an `author`.
    """
    if len(line) > limits.event_bytes_max:
        return _reject(RejectReason.OVERSIZED, f"{len(line)} bytes; the limit is {limits.event_bytes_max}")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return _reject(RejectReason.INVALID_UTF8, f"byte {error.start}: {error.reason}")
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        return _reject(RejectReason.INVALID_JSON, f"character {error.pos}: {error.msg}")
    except ValueError as error:
        return _reject(RejectReason.INVALID_JSON, str(error))
    except RecursionError:
        return _reject(RejectReason.INVALID_JSON, f"nested deeper than {DEPTH_MAX}")
    flaw = _flaw(value)
    if flaw:
        return _reject(RejectReason.INVALID_JSON, flaw)
    if not isinstance(value, Members):
        return _reject(RejectReason.NOT_AN_OBJECT, f"{show(value)} is not an object")
    return _read_event(value, limits, now_us, late)


def _reject(reason: RejectReason, detail: str) -> Outcome:
    return Outcome(None, reason, detail, 0)


def _flaw(value: object) -> str:
    """What RFC 8259 or the depth limit forbids and `json` lets pass: lone surrogates, deep nesting."""
    pending: list[tuple[object, int]] = [(value, 1)]
    while pending:
        found, depth = pending.pop()
        if type(found) is str:
            if _SURROGATE.search(found):
                return "a lone surrogate in a string"
        elif isinstance(found, list):
            if depth > DEPTH_MAX:
                return f"nested deeper than {DEPTH_MAX}"
            inside = _children(found)
            pending.extend((child, depth + 1) for child in inside)
    return ""


def _children(container: list[object]) -> Iterator[object]:
    if isinstance(container, Members):
        for name, member in container:
            yield name
            yield member
    else:
        yield from container


def show(value: object) -> str:
    """A value as JSON-like text, short enough for a detail."""
    if isinstance(value, Integer | Fractional):
        text = str(value)
    elif isinstance(value, Members):
        text = "an object"
    elif isinstance(value, list):
        text = "an array"
    else:
        text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _read_event(members: Members, limits: Limits, now_us: int, late: bool) -> Outcome:
    problems: Problems = []
    type_ = next((value for name, value in members if name == "type"), None)
    kind = CORRECTION if type(type_) is str and type_ == CORRECTION_TYPE else LATE if late else ""
    fields = _OWN + {CORRECTION: _AMENDING, LATE: _AMENDING[1:], "": ()}[kind]
    if any(name == "specversion" for name, _ in members):
        top, unknown = _pick(members, _ENVELOPE, _IGNORED, problems)
        if top["specversion"] != "1.0" or type(top["specversion"]) is not str:
            problems.append(
                (RejectReason.UNSUPPORTED_ENVELOPE, f'specversion: {show(top["specversion"])} is not "1.0"')
            )
        own: dict[str, object] = {}
        inner = top.get("data")
        if isinstance(inner, Members):
            own, more = _pick(inner, fields, (), problems, "data.")
            unknown += more
        prefix, customer, typed = "data.", "subject", True
    else:
        top, unknown = _pick(members, (*_FLAT, *fields), (), problems)
        own, prefix, customer, typed = top, "", "customer", top.get("type") is not None
    if typed and kind != CORRECTION and (type(top.get("type")) is not str or top["type"] != "llm.usage"):
        found = show(top["type"]) if "type" in top else "missing"
        problems.append((RejectReason.UNSUPPORTED_TYPE, f'type: {found}, not "llm.usage"'))
    reasons = RejectReason
    identity = _text(top, "id", "", reasons.MISSING_ID, reasons.INVALID_ID, limits, problems)
    texts = [
        _text(top, "source", "", None, reasons.INVALID_SOURCE, limits, problems),
        _text(top, customer, "", reasons.MISSING_CUSTOMER, reasons.INVALID_CUSTOMER, limits, problems),
        *[_text(own, name, prefix, None, reasons.INVALID_DIMENSION, limits, problems) for name in DIMENSIONS[1:]],
    ]
    time_us = read_time(top.get("time"), limits, now_us, problems)
    usage = _usage(own.get("usage"), prefix, limits, problems, signed=kind == CORRECTION)
    amends = _amends(kind, own, prefix, usage, time_us, limits, problems) if kind else ""
    if problems:
        reason, detail = min(problems, key=lambda problem: problem[0])
        return Outcome(None, reason, detail, unknown)
    return Outcome(Event(identity, time_us, texts, usage, kind, amends), None, "", unknown)


# --- corrections ---------------------------------------------------------------------------------------


def _amends(
    kind: str,
    own: dict[str, object],
    prefix: str,
    usage: list[tuple[str, int]],
    time_us: int,
    limits: Limits,
    problems: Problems,
) -> str:
    """Why a bill changes later, as `batches.Amends` has it."""
    reasons = (RejectReason.CORRECTION_WITHOUT_REASON, RejectReason.CORRECTION_WITHOUT_AUTHOR)
    said: dict[str, object] = {
        name: _text(own, name, prefix, reason, reason, limits, problems)
        for name, reason in zip(("reason", "author"), reasons, strict=True)
    }
    if kind == CORRECTION:
        said["corrects"] = _corrects(own.get("corrects"), f"{prefix}corrects", usage, time_us, limits, problems)
    return amends_text(kind, said)


def _corrects(
    value: object, field: str, usage: list[tuple[str, int]], time_us: int, limits: Limits, problems: Problems
) -> dict[str, object]:
    """What a correction names: an event by its source and id, or a window by its start and grain."""
    if not isinstance(value, Members):
        found = "missing" if value is None else f"{show(value)} is not an object"
        problems.append((RejectReason.CORRECTION_OF_NOTHING, f"{field}: {found}"))
        return {}
    picked, _ = _pick(value, ("source", "id", "usage", "window_start", "grain"), (), problems, f"{field}.")
    invalid = RejectReason.INVALID_CORRECTION
    if not any(usage_of for _, usage_of in usage):
        problems.append((invalid, f"{field}: every quantity of the correction is 0"))
    named = {"source", "id", "usage"} & picked.keys()
    if bool(named) == bool({"window_start", "grain"} & picked.keys()):
        found = "an event and a window" if named else "neither an event nor a window"
        problems.append((RejectReason.CORRECTION_OF_NOTHING, f"{field}: names {found}"))
        return {}
    if named:
        return _event_named(picked, f"{field}.", dict(usage), limits, problems)
    start_problems: Problems = []
    start_us = read_time(picked.get("window_start"), limits, time_us, start_problems)
    grain = picked.get("grain")
    if start_problems or type(grain) is not str or not starts_window(grain, start_us, time_us):
        window = f"{show(grain)} from {show(picked.get('window_start'))}"
        problems.append((invalid, f"{field}: {window} is no window that the correction's time is in"))
    return {"window_start": picked.get("window_start"), "grain": grain}


def _event_named(
    picked: dict[str, object], prefix: str, usage: dict[str, int], limits: Limits, problems: Problems
) -> dict[str, object]:
    nothing, invalid = RejectReason.CORRECTION_OF_NOTHING, RejectReason.INVALID_CORRECTION
    found: dict[str, object] = {
        "source": _text(picked, "source", prefix, None, invalid, limits, problems),
        "id": _text(picked, "id", prefix, nothing, invalid, limits, problems),
    }
    if "usage" not in picked:
        return found
    before = dict(_usage(picked["usage"], prefix, limits, problems))
    after = usage_before_and_after(usage, before)[1]
    for meter, quantity in after.items():
        if not 0 <= quantity <= limits.quantity_max:
            detail = f"{prefix}usage.{meter}: {before.get(meter, 0)} and {usage.get(meter, 0)} make {quantity}"
            problems.append((invalid, detail))
    if len(after) > limits.meters_per_event_max:
        detail = f"{prefix}usage: {len(after)} meters with those corrected; the limit is {limits.meters_per_event_max}"
        problems.append((RejectReason.TOO_MANY_METERS, detail))
    return found | {"usage": before}


# --- fields --------------------------------------------------------------------------------------------


def _pick(
    members: Members, known: tuple[str, ...], ignored: tuple[str, ...], problems: Problems, prefix: str = ""
) -> tuple[dict[str, object], int]:
    """The known fields by name, the first where one stands twice, and how many others there are."""
    picked: dict[str, object] = {}
    unknown = 0
    for name, value in members:
        if name not in known:
            unknown += name not in ignored
        elif name in picked:
            problems.append((RejectReason.DUPLICATE_FIELD, f"{prefix}{name} stands twice"))
        else:
            picked[name] = value
    return picked, unknown


def _text(
    fields: dict[str, object],
    name: str,
    prefix: str,
    missing: RejectReason | None,
    invalid: RejectReason,
    limits: Limits,
    problems: Problems,
) -> str:
    """A string field; `missing` is the reason where it may be neither missing nor empty."""
    value = fields.get(name)
    if value is None or (value == "" and type(value) is str):
        if missing is not None:
            found = "missing" if name not in fields else f"{show(value)}"
            problems.append((missing, f"{prefix}{name}: {found}"))
    elif type(value) is not str:
        problems.append((invalid, f"{prefix}{name}: {show(value)} is not a string"))
    elif len(value.encode()) > limits.string_bytes_max:
        problems.append(
            (invalid, f"{prefix}{name}: {len(value.encode())} bytes; the limit is {limits.string_bytes_max}")
        )
    else:
        return value
    return ""


def read_time(value: object, limits: Limits, now_us: int, problems: Problems) -> int:
    """The event time in microseconds since 1970-01-01T00:00:00Z, or 0 and a problem."""
    if value is None or (value == "" and type(value) is str):
        problems.append((RejectReason.MISSING_TIME, "time: missing" if value is None else 'time: ""'))
        return 0
    match = _TIME.fullmatch(value) if type(value) is str else None
    time_us = None if match is None else _instant_us(match)
    if match is None or time_us is None:
        problems.append((RejectReason.INVALID_TIME, f"time: {show(value)} is not a time as in RFC 3339"))
        return 0
    if match[8] is None:
        problems.append((RejectReason.TIME_WITHOUT_OFFSET, f"time: {show(value)} has no UTC offset"))
        return 0
    if not 0 <= time_us < TIME_END_US:
        problems.append((RejectReason.TIME_OUT_OF_RANGE, f"time: {show(value)} is not in 1970 to 2106-02-07"))
    elif time_us > now_us + limits.clock_skew_us:
        problems.append((RejectReason.TIME_IN_FUTURE, f"time: {show(value)} is in the future"))
    return time_us


def _instant_us(match: re.Match[str]) -> int | None:
    """The instant of a time's fields, in UTC if there is no offset; None where a field is out of range."""
    year, month, day, hour, minute, second = (int(match[field]) for field in range(1, 7))
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    month_days = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    if not (1 <= month <= 12 and 1 <= day <= month_days[month - 1]):
        return None
    if hour > 23 or minute > 59 or second > 60:
        return None
    offset_s = 0
    if match[8] is not None and len(match[8]) == 6:
        hours, minutes = int(match[8][1:3]), int(match[8][4:6])
        if hours > 23 or minutes > 59:
            return None
        offset_s = (hours * 3600 + minutes * 60) * (-1 if match[8][0] == "-" else 1)
    # Leap days before the year: datetime.date would do, but for the year 0000.
    before = year - 1
    days = year * 365 + before // 4 - before // 100 + before // 400 + sum(month_days[: month - 1]) + day - 1
    seconds = (days - _DAYS_TO_1970) * 86400 + hour * 3600 + minute * 60 + second - offset_s
    return seconds * 1_000_000 + int((match[7] or "")[:6].ljust(6, "0"))


_DAYS_TO_1970 = 1970 * 365 + 1969 // 4 - 1969 // 100 + 1969 // 400


def _usage(
    value: object, prefix: str, limits: Limits, problems: Problems, *, signed: bool = False
) -> list[tuple[str, int]]:
    """The meters and quantities; `signed`: differences, and requests can be taken away."""
    if not isinstance(value, Members) or not value:
        found = "missing" if value is None else "empty" if isinstance(value, Members) else f"{show(value)}"
        problems.append((RejectReason.MISSING_METER, f"{prefix}usage: {found}"))
        return []
    if len(value) > limits.meters_per_event_max:
        problems.append(
            (
                RejectReason.TOO_MANY_METERS,
                f"{prefix}usage: {len(value)} meters; the limit is {limits.meters_per_event_max}",
            )
        )
    usage: dict[str, int] = {}
    for meter, quantity in value:
        field = f"{prefix}usage.{meter if len(meter) <= 64 else meter[:61] + '...'}"
        if meter in usage:
            problems.append((RejectReason.DUPLICATE_FIELD, f"{field} stands twice"))
        if not is_meter_name(meter) and not (signed and meter == REQUESTS):
            problems.append((RejectReason.INVALID_METER_NAME, f"{field} is not a meter's name"))
        usage[meter] = _quantity(quantity, field, limits, problems, signed)
        if meter == REQUESTS and usage[meter] > 0:
            problems.append((RejectReason.INVALID_CORRECTION, f"{field}: requests can only be taken away"))
    return list(usage.items())


def is_meter_name(name: str) -> bool:
    """Whether an event may carry a meter of this name (`requests` is implicit)."""
    return _METER.fullmatch(name) is not None and name != REQUESTS


def _quantity(value: object, field: str, limits: Limits, problems: Problems, signed: bool) -> int:
    sign = 1
    if isinstance(value, Integer):
        if value.startswith("-") and value != "-0":
            sign = -1
            if not signed:
                problems.append((RejectReason.NEGATIVE_QUANTITY, f"{field}: {show(value)} is negative"))
                return 0
        digits = value.lstrip("-")
    elif type(value) is str and value.isascii() and value.removeprefix("-" if signed else "").isdigit():
        sign = -1 if value.startswith("-") else 1
        digits = value.removeprefix("-")
    else:
        problems.append((RejectReason.INVALID_QUANTITY, f"{field}: {show(value)} is not an integer"))
        return 0
    digits = digits.lstrip("0") or "0"
    # By length first: Python refuses to convert thousands of digits.
    if len(digits) > 19 or int(digits) > limits.quantity_max:
        problems.append((RejectReason.QUANTITY_TOO_LARGE, f"{field}: {show(value)} is above {limits.quantity_max}"))
        return 0
    return sign * int(digits)
