"""Chunks of lines for the decoder, by a seed: what producers write, and what may become of it on the way.

A producer writes all of its events in one form (fields and their order, white space, line end), as programs do; their
values are drawn from pools with the awkward ones in them. The lines of a few producers are mixed, and some of them
damaged. So a form that the decoder has learnt meets lines that differ from it in one byte, anywhere.
"""

import json
from collections.abc import Callable
from random import Random

from flow.schema import DIMENSIONS

Draw = Callable[[Random], str]

PIECES = [
    b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"-", b"0", b"1", b"9", b".", b"e", b"+", b" ", b"\t",
    b"\r", b"\n", b"\0", b"\x1f", b"\x7f", b"\x80", b"\xc3\xa9", b"\xe2\x82\xac", b"\xf0\x9f\x98\x80",
    b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"\xff", b"\\u0041", b"\\ud83d", b"\\ude00",
    b"\\ud83d\\ude00", b"\\u0000", b"\\n", b"\\/", b"\\u00", b"null", b"true", b"false", b"NaN", b"1e3", b"-0",
    b"-1", b"1.0", b"00", b"1000000000000", b"1000000000001", b"9223372036854775807", b"9223372036854775808",
    b"99999999999999999999", b'""', b'"7"', b"[]", b"{}", b'"id":"x",', b'"usage":{"t":1},',
    b'"data":{"usage":{"t":1}},', b'"specversion":"1.0",', b'"type":"llm.usage",', b'"subject":"s",',
    b'"customer":"c",', b'"time":"2026-11-01T12:00:00Z",', b'"x":1,', b'"dataschema":1,', b'"model":null,',
    b'"t":1,', b'"requests":1,', b'"type":"usage.correction",', b'"corrects":{"id":"x"},', b"Z",
    b"+01:00", b"T", b"60", b"x" * 41, b"\xef\xbb\xbf", b"[" * 64, b"]" * 64,
]  # fmt: skip
"""What is put into lines."""

_TEXTS = [
    "a", "", "acme", "x" * 7, "x" * 8, "x" * 9, "y" * 15, "y" * 16, "y" * 17, "z" * 31, "z" * 32, "z" * 33, "w" * 40,
    "w" * 41, "é", "é" * 20, "日本語", "😀", 'say "hi"', "back\\slash", "a/b", "tab\t", "line\n", "\0", "\x7f",
    "\u2028", "null", "0", "{}", "a,b", "llm.usage", "1.0",
]  # fmt: skip
_QUANTITIES = [
    "0", "1", "7", "42", "999", "1234567", "12345678", "99999999", "100000000", "123456789", "999999999999",
    "1000000000000", "1000000000001", "999999999999999999", "1000000000000000000", "9223372036854775807",
    "9223372036854775808", "1" + "0" * 30, '"5"', '"12345678"', '"123456789"', '"007"', '""', '" 1"', '"1 "', '"-1"',
    "007", "00", "-0", "-1", "1.0", "1e2", "1E2", "+1", ".5", "null", "true", "[1]", '{"a":1}',
]  # fmt: skip
_TIMES = [
    "2026-11-01T12:00:00Z", "2026-11-01T12:00:00.123456Z", "2026-11-01T12:00:00.123Z", "2026-11-01T12:00:59.999999999Z",
    "2026-11-01T12:00:60Z", "2026-11-01T12:00:61Z", "2026-11-01T12:60:00Z", "2026-11-01T24:00:00Z",
    "2026-02-29T00:00:00Z", "2024-02-29T00:00:00Z", "2026-11-01t12:00:00z", "2026-11-01 12:00:00+00:00",
    "2026-11-01T12:00:00-23:59", "2026-11-01T12:00:00+24:00", "2026-11-01T12:00:00", "2026-11-01T12:00Z",
    "1970-01-01T00:00:00Z", "1969-12-31T23:59:59.999999Z", "2027-01-15T08:05:00Z", "2027-01-15T08:05:00.000001Z",
    "2106-02-07T06:28:14Z", "2106-02-07T06:28:15Z", "0000-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "",
    "\0" * 17 + "00Z",
]  # fmt: skip
_METERS = ["input_tokens", "output_tokens", "cached_input_tokens", "t", "a1"]
_ODD_METERS = ["m" * 64, "m" * 65, "requests", "T", "é", ""]
_STARTS = ["2026-11-02T12:00:00Z", "2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z"]
"""Of windows that 2026-11-02T12:00 is in: of a minute and hour, a day and week, a month."""
_GRAINS = ["minute", "hour", "day", "week", "month"]
_UNKNOWN = ["1", "-1.5e300", "null", "true", '"x"', '"\\u00e9\\n"', "[]", "{}", '[1,{"a":[null]}]', '{"id":"no"}', '""']


def _text(rng: Random) -> str:
    if rng.random() < 0.9:
        value = "".join(rng.choices("abcdefghijklmnopqrstuvwxyz0123456789-/._ ", k=rng.randint(1, 36)))
    else:
        value = rng.choice(_TEXTS)
    return json.dumps(value, ensure_ascii=rng.random() < 0.5)


def _quantity(rng: Random) -> str:
    return str(rng.randrange(10 ** rng.randint(1, 13))) if rng.random() < 0.97 else rng.choice(_QUANTITIES)


def _time(rng: Random) -> str:
    if rng.random() < 0.06:
        return json.dumps(rng.choice(_TIMES))
    minute = f"2026-{rng.randint(10, 11)}-{rng.randint(1, 30):02}T12:{rng.randint(0, 2):02}:{rng.randint(0, 59):02}"
    digits = rng.choice((0, 3, 6, 6, 9))
    fraction = "." + "".join(rng.choices("0123456789", k=digits)) if digits else ""
    return f'"{minute}{fraction}{rng.choice(("Z", "Z", "+01:00", "-09:30"))}"'


def _time_of_windows(rng: Random) -> str:
    return f'"2026-11-02T12:00:{rng.randint(0, 59):02}Z"' if rng.random() < 0.9 else _time(rng)


def _difference(rng: Random) -> str:
    return rng.choice(("", "-")) + _quantity(rng)


def _one_of(values: list[str]) -> Draw:
    return lambda rng: rng.choice(values)


def _always(value: str) -> Draw:
    return lambda _: value


class Producer:
    """Writes lines of one form."""

    def __init__(self, rng: Random) -> None:
        colon, comma = rng.choice(((":", ","), (":", ","), (": ", ", "), (" :\t", " , ")))
        self._colon, self._comma = colon, comma
        self._end = rng.choice((b"", b"", b"", b"\r", b" ", b"\r\r"))
        self._start = rng.choice(("", "", "", " ", "\t"))
        fields = rng.sample(DIMENSIONS[1:], k=rng.randint(0, len(DIMENSIONS) - 1))
        own: list[tuple[str, Draw | Producer]] = [(name, self._draw(rng, _text)) for name in fields]
        kind = rng.choices(("plain", "late", "correction"), (18, 1, 1))[0]
        quantity, time, type_ = _quantity, _time, "llm.usage"
        if kind != "plain":  # why the bill changes, as in an event that comes late
            own += [("reason", self._draw(rng, _text)), ("author", self._draw(rng, _text))]
        if kind == "correction":
            own.append(("corrects", self._corrects(rng)))
            quantity, time, type_ = _difference, _time_of_windows, "usage.correction"
        own.append(("usage", self._usage(rng, quantity)))
        top: list[tuple[str, Draw | Producer]] = [("id", _text), ("time", time)]
        if rng.random() < 0.9:
            top.append(("source", self._draw(rng, _text)))
        if rng.random() < 0.6:
            top += [("specversion", _always('"1.0"')), ("type", _always(f'"{type_}"')), ("subject", _text)]
            top.append(("data", self._members(own, rng)))
        else:
            top += [("customer", _text), *own]
            if kind == "correction":
                top.append(("type", _always(f'"{type_}"')))
        self._line = self._members(top, rng)

    def line(self, rng: Random) -> bytes:
        return (self._start + self._line(rng)).encode() + self._end

    def _meters(self, rng: Random) -> list[str]:
        meters = rng.sample(_METERS, k=rng.choice((1, 2, 3, 3, 3, 4, 5)))
        return meters if rng.random() < 0.95 else [*meters, rng.choice(_ODD_METERS)]

    def _usage(self, rng: Random, quantity: Draw) -> Draw:
        return self._members([(name, self._draw(rng, quantity)) for name in self._meters(rng)], rng)

    def _corrects(self, rng: Random) -> Draw:
        """An event, perhaps with what it said, or a window."""
        if rng.random() < 0.5:
            start, grain = (_one_of([json.dumps(text) for text in texts]) for texts in (_STARTS, _GRAINS))
            return self._members([("window_start", start), ("grain", grain)], rng)
        named = [("source", self._draw(rng, _text)), ("id", _text), ("usage", self._usage(rng, _quantity))]
        return self._members(rng.choice((named, named[:2], named[1:])), rng)

    def _draw(self, rng: Random, draw: Draw) -> Draw:
        """A field that is the same in all lines, of a few values, or any."""
        kind = rng.random()
        if kind < 0.2:
            return _always(rng.choice(("null", draw(rng), draw(rng), draw(rng))))
        return _one_of([draw(rng) for _ in range(rng.randint(1, 4))]) if kind < 0.5 else draw

    def _members(self, members: list[tuple[str, Draw]], rng: Random) -> Draw:
        """An object of these members in an order of the producer's own, sometimes with one too many."""
        members = list(members)
        if rng.random() < 0.15:
            members.append((rng.choice(("x", "dataschema", "é", members[0][0])), _one_of(_UNKNOWN)))
        if rng.random() < 0.5:
            rng.shuffle(members)
        names = [json.dumps(name, ensure_ascii=rng.random() < 0.5) + self._colon for name, _ in members]
        if rng.random() < 0.05:
            names[0] = f'"\\u{ord(members[0][0][0]) if members[0][0] else 0:04x}{names[0][2:]}'
        draws = [draw for _, draw in members]
        return lambda line: (
            "{" + self._comma.join(name + draw(line) for name, draw in zip(names, draws, strict=True)) + "}"
        )


def damaged(line: bytes, rng: Random) -> bytes:
    """The line with one to three edits: a byte changed, a piece put in or over, a cut, a repeat."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at, to = sorted((rng.randint(0, len(line)), rng.randint(0, len(line))))
        kind = rng.randrange(7)
        if kind < 2:
            line = line[:at] + bytes([rng.randrange(256)]) + line[at + 1 :]
        elif kind == 2:
            line = line[:at] + rng.choice(PIECES) + line[at:]
        elif kind == 3:
            line = line[:at] + rng.choice(PIECES) + line[at + 1 :]
        elif kind == 4:
            line = line[:at] + line[min(to, at + 8) :]
        elif kind == 5:
            line = line[:to] + line[at:to] + line[to:]
        elif rng.random() < 0.3:
            line = line[:at]
    return line


def lines_of(rng: Random, count: int) -> list[bytes]:
    """So many lines, without the newlines between them."""
    producers = [Producer(rng) for _ in range(rng.choice((1, 1, 2, 3, 6)))]
    lines = [rng.choice(producers).line(rng) for _ in range(count)]
    share = rng.choice((0, 0.02, 0.1, 0.3))
    return [damaged(line, rng) if rng.random() < share else line for line in lines]
