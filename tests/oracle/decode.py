"""What decode must say of any line, written as plainly as can be: one character at a time, no `json`.

`decode_chunk` takes what `flow.steps.decode` takes (bytes, limits, a clock) and gives plain Python values. It
shares no code with the product but the names of the reasons and of the dimensions.
"""

from dataclasses import dataclass, field

from flow.errors import RejectReason
from flow.schema import DIMENSIONS

SPACE = " \t\r\n"
DIGITS = "0123456789"
HEX = "0123456789abcdefABCDEF"
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
        while self.peek() and self.peek() in SPACE:
            self.at += 1

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
        return self.number()

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

    def string(self):
        self.take('"')
        units = []  # UTF-16 code units, where surrogates meet their partners
        while self.peek() != '"':
            character = self.peek()
            if not character or ord(character) < 0x20:
                raise NotJsonError
            self.at += 1
            if character == "\\":
                units.append(self.escape())
            elif ord(character) > 0xFFFF:
                units += [
                    0xD800 + ((ord(character) - 0x10000) >> 10),
                    0xDC00 + ((ord(character) - 0x10000) & 0x3FF),
                ]
            else:
                units.append(ord(character))
        self.take('"')
        try:
            return b"".join(unit.to_bytes(2, "big") for unit in units).decode("utf-16-be")
        except UnicodeDecodeError:
            raise NotJsonError from None

    def escape(self):
        kind = self.peek()
        if kind == "u":
            self.at += 1
            digits = self.text[self.at : self.at + 4]
            if len(digits) < 4 or any(digit not in HEX for digit in digits):
                raise NotJsonError
            self.at += 4
            return int(digits, 16)
        if kind not in ESCAPES or not kind:
            raise NotJsonError
        self.at += 1
        return ord(ESCAPES[kind])

    def digits(self):
        if not self.peek() or self.peek() not in DIGITS:
            raise NotJsonError
        while self.peek() and self.peek() in DIGITS:
            self.at += 1

    def number(self):
        start = self.at
        if self.peek() == "-":
            self.at += 1
        if self.peek() == "0":
            self.at += 1
        else:
            self.digits()
        if self.peek() == ".":
            self.at += 1
            self.digits()
        if self.peek() and self.peek() in "eE":
            self.at += 1
            if self.peek() and self.peek() in "+-":
                self.at += 1
            self.digits()
        return Number(self.text[start : self.at])


@dataclass
class Found:
    """What one line is."""

    reasons: list = field(default_factory=list)
    unknown_fields: int = 0
    event: dict | None = None


@dataclass
class Chunk:
    """Events as dicts in the shape of EVENTS rows; rejects as (position, reason name, payload)."""

    events: list = field(default_factory=list)
    rejected: list = field(default_factory=list)
    read: int = 0
    unknown_fields: int = 0


def decode_chunk(chunk, offset, limits, now_us):
    """Every line of a chunk that starts at byte `offset` of its origin."""
    result = Chunk()
    pieces = chunk.split(b"\n")
    for number, piece in enumerate(pieces):
        ended = number < len(pieces) - 1
        line = piece[:-1] if ended and piece.endswith(b"\r") else piece
        if piece.strip(b" \t\r"):
            result.read += 1
            found = decode_line(line, limits, now_us)
            result.unknown_fields += found.unknown_fields
            if found.reasons:
                result.rejected.append((offset, RejectReason(min(found.reasons)).name, line))
            else:
                result.events.append({**found.event, "position": offset})
        offset += len(piece) + 1
    return result


def decode_line(line, limits, now_us):
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
    return decode_object(value, limits, now_us)


def first(members, name):
    """(is it there, its first value)"""
    for member, value in members:
        if member == name:
            return True, value
    return False, None


def decode_object(top, limits, now_us):
    found = Found()
    say = found.reasons.append
    data_fields = ["project", "feature", "model", "region", "service_tier", "usage"]
    enveloped, version = first(top, "specversion")
    typed, type_ = first(top, "type")
    if enveloped:
        if type(version) is not str or version != "1.0":
            say(RejectReason.UNSUPPORTED_ENVELOPE)
        if type(type_) is not str or type_ != "llm.usage":
            say(RejectReason.UNSUPPORTED_TYPE)
        customer_field = "subject"
        known = ["specversion", "id", "source", "type", "time", "subject", "data"]
        count_fields(top, known, ["datacontenttype", "dataschema"], found)
        _, inner = first(top, "data")
        if type(inner) is not Object:
            inner = Object()
        count_fields(inner, data_fields, [], found)
    else:
        if typed and type_ is not None and (type(type_) is not str or type_ != "llm.usage"):
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
    event["usage"] = decode_usage(first(inner, "usage")[1], limits, say)
    found.event = event
    return found


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


def decode_usage(value, limits, say):
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
        if not name or not letters or name[0] not in LOWER or len(name) > 64 or name == "requests":
            say(RejectReason.INVALID_METER_NAME)
        items.append({"meter": name, "quantity": decode_quantity(quantity, limits, say)})
    return items


def decode_quantity(value, limits, say):
    digits = value
    if type(value) is Number and value[0] == "-":
        digits = value[1:]
    if type(value) not in (str, Number) or not digits or any(digit not in DIGITS for digit in digits):
        say(RejectReason.INVALID_QUANTITY)
        return None
    quantity = 0
    for digit in digits:
        quantity = quantity * 10 + DIGITS.index(digit)
        if quantity > limits.quantity_max:
            break
    if quantity and value[0] == "-":
        say(RejectReason.NEGATIVE_QUANTITY)
    elif quantity > limits.quantity_max:
        say(RejectReason.QUANTITY_TOO_LARGE)
    return quantity


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
    days = sum(366 if is_leap(y) else 365 for y in range(1970, year))
    days -= sum(366 if is_leap(y) else 365 for y in range(year, 1970))
    days += sum(month_days(year, m) for m in range(1, month)) + day - 1
    time_us = (days * 86400 + hour * 3600 + minute * 60 + second - offset_minutes * 60) * 1_000_000
    time_us += int((fraction + "000000")[:6])
    if time_us < 0 or time_us >= (2**32 - 1) * 1_000_000:
        say(RejectReason.TIME_OUT_OF_RANGE)
    if time_us > now_us + limits.clock_skew_us:
        say(RejectReason.TIME_IN_FUTURE)
    return time_us


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
