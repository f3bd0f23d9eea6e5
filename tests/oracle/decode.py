"""What decode must say of any line, written as plainly as can be: the grammar of RFC 8259, no `json`.

`decode_chunk` takes what `flow.steps.decode` takes (bytes, limits, a clock) and gives plain Python values. It
shares no code with the product but the names of the reasons and of the dimensions.
"""

import re
from dataclasses import dataclass, field
from functools import cache

from flow.errors import RejectReason
from flow.schema import DIMENSIONS

SPACE = re.compile(r"[ \t\r\n]*")
NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
STRING = re.compile(r'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*)*"')
ESCAPE = re.compile(r"\\(u....|.)")
DIGITS = "0123456789"
ESCAPES = {'"': '"', "\\": "\\", "/": "/", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
LOWER = "abcdefghijklmnopqrstuvwxyz"


class NotJsonError(Exception):
    """The text is not one JSON value of RFC 8259, or is nested too deep."""


class Number(str):
    """A number's literal."""


class Object(list):
    """A list of (name, value)."""


class Text:
    """A JSON text and a place in it."""

    def __init__(self, text):
        self.text, self.at = text, 0

    def peek(self):
        return self.text[self.at] if self.at < len(self.text) else ""

    def take(self, expected):
        if not self.text.startswith(expected, self.at):
            raise NotJsonError
        self.at += len(expected)

    def space(self):
        self.at = SPACE.match(self.text, self.at).end()

    def whole(self):
        self.space()
        value = self.value(1)
        self.space()
        if self.peek():
            raise NotJsonError
        return value

    def value(self, depth):
        if self.peek() == "{":
            return self.object(depth)
        if self.peek() == "[":
            return self.array(depth)
        if self.peek() == '"':
            return self.string()
        for word, value in (("null", None), ("true", True), ("false", False)):
            if self.text.startswith(word, self.at):
                self.take(word)
                return value
        return Number(self.matched(NUMBER))

    def object(self, depth):
        if depth > 64:
            raise NotJsonError
        members = Object()
        self.take("{")
        self.space()
        while self.peek() != "}":
            if members:
                self.take(",")
                self.space()
            name = self.string()
            self.space()
            self.take(":")
            self.space()
            members.append((name, self.value(depth + 1)))
            self.space()
        self.take("}")
        return members

    def array(self, depth):
        if depth > 64:
            raise NotJsonError
        items = []
        self.take("[")
        self.space()
        while self.peek() != "]":
            if items:
                self.take(",")
                self.space()
            items.append(self.value(depth + 1))
            self.space()
        self.take("]")
        return items

    def matched(self, pattern):
        found = pattern.match(self.text, self.at)
        if not found:
            raise NotJsonError
        self.at = found.end()
        return found[0]

    def string(self):
        text = self.matched(STRING)[1:-1]
        if "\\" not in text:
            return text
        text = ESCAPE.sub(lambda found: ESCAPES.get(found[1]) or chr(int(found[1][1:], 16)), text)
        try:  # as UTF-16, where surrogates meet their partners
            return text.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
        except UnicodeDecodeError:
            raise NotJsonError from None


@dataclass
class Found:
    """What one line is."""

    reasons: list = field(default_factory=list)
    unknown_fields: int = 0
    event: dict | None = None
    amends: dict | None = None  # what a correction, or a late event that is billed now, says besides, with its `kind`


@dataclass
class Chunk:
    """Events as dicts in the shape of EVENTS rows; rejects as (position, reason name, payload)."""

    events: list = field(default_factory=list)
    apart: dict = field(default_factory=dict)  # by kind, corrections first: (event, what it says besides)
    rejected: list = field(default_factory=list)
    read: int = 0
    unknown_fields: int = 0


def decode_chunk(chunk, offset, limits, now_us, late=False):
    """Every line of a chunk that starts at byte `offset` of its origin; `late`: it bills events that were too late."""
    result = Chunk(apart={"correction": [], "late": []})
    pieces = chunk.split(b"\n")
    for number, piece in enumerate(pieces):
        ended = number < len(pieces) - 1
        line = piece[:-1] if ended and piece.endswith(b"\r") else piece
        if piece.strip(b" \t\r"):
            result.read += 1
            found = decode_line(line, limits, now_us, late)
            result.unknown_fields += found.unknown_fields
            if found.reasons:
                result.rejected.append((offset, RejectReason(min(found.reasons)).name, line))
            elif found.amends:
                result.apart[found.amends["kind"]].append(({**found.event, "position": offset}, found.amends))
            else:
                result.events.append({**found.event, "position": offset})
        offset += len(piece) + 1
    return result


def decode_line(line, limits, now_us, late=False):
    if len(line) > limits.event_bytes_max:
        return Found([RejectReason.OVERSIZED])
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError:
        return Found([RejectReason.INVALID_UTF8])
    try:
        value = Text(text).whole()
    except NotJsonError:
        return Found([RejectReason.INVALID_JSON])
    if type(value) is not Object:
        return Found([RejectReason.NOT_AN_OBJECT])
    return decode_object(value, limits, now_us, late)


def first(members, name):
    """(is it there, its first value)"""
    for member, value in members:
        if member == name:
            return True, value
    return False, None


def decode_object(top, limits, now_us, late=False):
    found = Found()
    say = found.reasons.append
    data_fields = ["project", "feature", "model", "region", "service_tier", "usage"]
    enveloped, version = first(top, "specversion")
    typed, type_ = first(top, "type")
    kind = "late" if late else ""
    if type(type_) is str and type_ == "usage.correction":
        kind = "correction"
        data_fields.append("corrects")
    if kind:
        data_fields += ["reason", "author"]
    known_type = kind == "correction" or (type(type_) is str and type_ == "llm.usage")
    if enveloped:
        if type(version) is not str or version != "1.0":
            say(RejectReason.UNSUPPORTED_ENVELOPE)
        if not known_type:
            say(RejectReason.UNSUPPORTED_TYPE)
        customer_field = "subject"
        known = ["specversion", "id", "source", "type", "time", "subject", "data"]
        count_fields(top, known, ["datacontenttype", "dataschema"], found)
        _, inner = first(top, "data")
        if type(inner) is not Object:
            inner = Object()
        count_fields(inner, data_fields, [], found)
    else:
        if typed and type_ is not None and not known_type:
            say(RejectReason.UNSUPPORTED_TYPE)
        customer_field = "customer"
        inner = top
        count_fields(top, ["id", "source", "type", "time", "customer", *data_fields], [], found)
    event = {
        "id": required(first(top, "id")[1], RejectReason.MISSING_ID, RejectReason.INVALID_ID, limits, say),
        "source": optional(first(top, "source")[1], RejectReason.INVALID_SOURCE, limits, say),
        "event_time_us": decode_time(first(top, "time")[1], limits, now_us, say),
    }
    for name in DIMENSIONS:
        if name == "customer":
            value = first(top, customer_field)[1]
            reasons = (RejectReason.MISSING_CUSTOMER, RejectReason.INVALID_CUSTOMER)
            event[name] = required(value, *reasons, limits, say)
        else:
            event[name] = optional(first(inner, name)[1], RejectReason.INVALID_DIMENSION, limits, say)
    event["usage"] = decode_usage(first(inner, "usage")[1], limits, say, signed=kind == "correction")
    found.event = event
    if kind:
        found.amends = decode_amends(kind, inner, event, limits, say)
    return found


# --- corrections, and late events that are billed now --------------------------------------------------


def decode_amends(kind, inner, event, limits, say):
    reason, author = RejectReason.CORRECTION_WITHOUT_REASON, RejectReason.CORRECTION_WITHOUT_AUTHOR
    amends = {
        "kind": kind,
        "reason": required(first(inner, "reason")[1], reason, reason, limits, say),
        "author": required(first(inner, "author")[1], author, author, limits, say),
    }
    if kind == "correction":
        amends["corrects"] = decode_corrects(first(inner, "corrects")[1], event, limits, say)
    return amends


def decode_corrects(value, event, limits, say):
    """What a correction names: an event, perhaps with what it says now, or a window that its time is in."""
    if type(value) is not Object:
        say(RejectReason.CORRECTION_OF_NOTHING)
        return None
    count_fields(value, ["source", "id", "usage", "window_start", "grain"], [], inside := Found())
    for reason in inside.reasons:
        say(reason)
    if not any(item["quantity"] for item in event["usage"]):
        say(RejectReason.INVALID_CORRECTION)  # it changes nothing
    names_event = any(first(value, name)[0] for name in ("source", "id", "usage"))
    names_window = any(first(value, name)[0] for name in ("window_start", "grain"))
    if names_event == names_window:
        say(RejectReason.CORRECTION_OF_NOTHING)
        return None
    if names_window:
        start, grain = first(value, "window_start")[1], first(value, "grain")[1]
        if not is_window(start, grain, event["event_time_us"], limits):
            say(RejectReason.INVALID_CORRECTION)
        return {"window_start": start, "grain": grain}
    nothing, invalid = RejectReason.CORRECTION_OF_NOTHING, RejectReason.INVALID_CORRECTION
    corrects = {
        "source": optional(first(value, "source")[1], invalid, limits, say),
        "id": required(first(value, "id")[1], nothing, invalid, limits, say),
    }
    told, usage = first(value, "usage")
    if told:
        before = {item["meter"]: item["quantity"] for item in decode_usage(usage, limits, say)}
        change = {item["meter"]: item["quantity"] for item in event["usage"] if item["meter"] != "requests"}
        for meter in {**before, **change}:
            if not 0 <= (before.get(meter) or 0) + (change.get(meter) or 0) <= limits.quantity_max:
                say(RejectReason.INVALID_CORRECTION)
        if len({**before, **change}) > limits.meters_per_event_max:
            say(RejectReason.TOO_MANY_METERS)
        corrects["usage"] = before
    return corrects


def is_window(start, grain, time_us, limits):
    """Whether a window of this grain begins there, and has the time in it."""
    problems = []
    start_us = decode_time(start, limits, time_us or 0, problems.append)
    if problems or type(grain) is not str or grain not in ("minute", "hour", "day", "week", "month"):
        return False
    end_us = start_us + {"minute": 60, "hour": 3600, "day": 86400, "week": 604800}.get(grain, 0) * 1_000_000
    year, day = 1970, start_us // 86_400_000_000  # the day of the year
    while day >= (366 if is_leap(year) else 365):
        day -= 366 if is_leap(year) else 365
        year += 1
    firsts = [sum(month_days(year, m) for m in range(1, month)) for month in range(1, 13)]
    if grain == "month":
        if day not in firsts:
            return False
        end_us = start_us + month_days(year, firsts.index(day) + 1) * 86_400_000_000
    if grain == "week" and (start_us // 86_400_000_000 + 3) % 7:  # 1970 began on a Thursday
        return False
    unit_s = {"minute": 60, "hour": 3600}.get(grain, 86400)
    return start_us % (unit_s * 1_000_000) == 0 and start_us <= (time_us or 0) < end_us


# --- fields --------------------------------------------------------------------------------------------


def count_fields(members, known, ignored, found):
    names = [name for name, _ in members]
    for name in names:
        if name in known and names.count(name) > 1:
            found.reasons.append(RejectReason.DUPLICATE_FIELD)
        if name not in known and name not in ignored:
            found.unknown_fields += 1


def required(value, missing, invalid, limits, say):
    if value is None or (type(value) is str and value == ""):
        say(missing)
    return optional(value, invalid, limits, say)


def optional(value, invalid, limits, say):
    if value is None:
        return ""
    if type(value) is not str or len(value.encode()) > limits.string_bytes_max:
        say(invalid)
    return value


def decode_usage(value, limits, say, signed=False):
    """`signed`: differences, and requests can be taken away."""
    if type(value) is not Object or not value:
        say(RejectReason.MISSING_METER)
        return []
    if len(value) > limits.meters_per_event_max:
        say(RejectReason.TOO_MANY_METERS)
    names = [name for name, _ in value]
    items = []
    for name, quantity in value:
        if names.count(name) > 1:
            say(RejectReason.DUPLICATE_FIELD)
        letters = all(character in LOWER + DIGITS + "_" for character in name)
        if not name or not letters or name[0] not in LOWER or len(name) > 64 or (name == "requests" and not signed):
            say(RejectReason.INVALID_METER_NAME)
        items.append({"meter": name, "quantity": decode_quantity(quantity, limits, say, signed)})
        if name == "requests" and (items[-1]["quantity"] or 0) > 0:
            say(RejectReason.INVALID_CORRECTION)
    return items


def decode_quantity(value, limits, say, signed=False):
    digits = value
    if (type(value) is Number or (signed and type(value) is str)) and value[:1] == "-":
        digits = value[1:]
    if type(value) not in (str, Number) or not digits or any(digit not in DIGITS for digit in digits):
        say(RejectReason.INVALID_QUANTITY)
        return None
    quantity = 0
    for digit in digits:
        quantity = quantity * 10 + DIGITS.index(digit)
        if quantity > limits.quantity_max:
            break
    if quantity and value[0] == "-" and not signed:
        say(RejectReason.NEGATIVE_QUANTITY)
    elif quantity > limits.quantity_max:
        say(RejectReason.QUANTITY_TOO_LARGE)
    return -quantity if value[0] == "-" else quantity


def decode_time(value, limits, now_us, say):
    if value is None or (type(value) is str and value == ""):
        say(RejectReason.MISSING_TIME)
        return None
    parts = split_time(value) if type(value) is str else None
    if parts is None:
        say(RejectReason.INVALID_TIME)
        return None
    (year, month, day, hour, minute, second), fraction, offset_minutes = parts
    if offset_minutes is None:
        say(RejectReason.TIME_WITHOUT_OFFSET)
        return None
    days = days_to(year)
    days += sum(month_days(year, m) for m in range(1, month)) + day - 1
    time_us = (days * 86400 + hour * 3600 + minute * 60 + second - offset_minutes * 60) * 1_000_000
    time_us += int((fraction + "000000")[:6])
    if time_us < 0 or time_us >= (2**32 - 1) * 1_000_000:
        say(RejectReason.TIME_OUT_OF_RANGE)
    if time_us > now_us + limits.clock_skew_us:
        say(RejectReason.TIME_IN_FUTURE)
    return time_us


@cache
def days_to(year):
    """From the first day of 1970 to that of a year."""
    days = sum(366 if is_leap(y) else 365 for y in range(1970, year))
    return days - sum(366 if is_leap(y) else 365 for y in range(year, 1970))


def is_leap(year):
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def month_days(year, month):
    return [31, 29 if is_leap(year) else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1]


def split_time(text):
    """((year, ..., second), fraction digits, offset in minutes or None), or None if it is no time."""
    shape = "dddd-dd-ddTdd:dd:dd"
    head, rest = text[:19], text[19:]
    if len(head) < 19:
        return None
    for character, kind in zip(head, shape, strict=True):
        allowed = {"d": DIGITS, "T": "Tt "}.get(kind, kind)
        if character not in allowed:
            return None
    numbers = tuple(int(head[start:end]) for start, end in ((0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)))
    year, month, day, hour, minute, second = numbers
    if not 1 <= month <= 12 or not 1 <= day <= month_days(year, month) or hour > 23 or minute > 59 or second > 60:
        return None
    fraction = ""
    if rest[:1] == ".":
        rest = rest[1:]
        while rest and rest[0] in DIGITS:
            fraction, rest = fraction + rest[0], rest[1:]
        if not 1 <= len(fraction) <= 30:
            return None
    if rest == "":
        return numbers, fraction, None
    if rest in ("Z", "z"):
        return numbers, fraction, 0
    hours, minutes = rest[1:3], rest[4:]
    if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":" or any(c not in DIGITS for c in hours + minutes):
        return None
    if int(hours) > 23 or int(minutes) > 59:
        return None
    sign = -1 if rest[0] == "-" else 1
    return numbers, fraction, sign * (int(hours) * 60 + int(minutes))
