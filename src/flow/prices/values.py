"""The single values of a price book: decimal text, counts, instants, names; each refused with its line and its mend.

A price is read as the text in the file: a YAML number has been, or will be, a float somewhere.
"""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from fractions import Fraction
from functools import lru_cache

import yaml

from ..schema import PER_OF_ALL
from ..yaml_nodes import Problems, Steps, fields, is_quoted, kind_of, line_of, shown
from .price import FEMTO

INT128_MAX = 2**127 - 1
PER_MAX = 10**6
"""The largest denominator of a rate: a row of the store must have room for an amount so many times as large."""

_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_DECIMAL = re.compile(r"-?([0-9]{1,40}(\.[0-9]{0,60})?|\.[0-9]{1,60})([eE][+-]?[0-9]{1,2})?")
_COUNT = re.compile(r"[1-9][0-9_]{0,40}")
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MAX = datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)  # the last second that DateTime can hold


@lru_cache(maxsize=4096)
def parse_instant_us(text: str) -> int:
    """Microseconds since 1970 of an instant with a UTC offset. Raises ValueError with what is wrong."""
    match = _INSTANT.fullmatch(text)
    if match is None:
        raise ValueError("is not an instant; write date, time and UTC offset: 2026-01-01T00:00:00Z")
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = match.groups()
    microsecond = int((fraction or "").ljust(6, "0"))
    try:
        offset = timedelta(hours=int(off_hours or 0), minutes=int(off_minutes or 0))
        zone = timezone(-offset if sign == "-" else offset)
        instant = datetime(
            int(year),
            int(month),
            int(day),
            int(hour),
            int(minute),
            int(second or 0),
            microsecond,
            tzinfo=zone,
        )
        since = instant - _EPOCH
    except (ValueError, OverflowError):
        raise ValueError("is not in the calendar") from None
    if not timedelta(0) <= since <= _INSTANT_MAX - _EPOCH:
        raise ValueError("is outside 1970-01-01 .. 2106-02-07")
    return since // timedelta(microseconds=1)


def instant_text(time_us: int) -> str:
    """An instant as it is written in a book."""
    return (_EPOCH + timedelta(microseconds=time_us)).isoformat().replace("+00:00", "Z")


def decimal_text(rate_femto: int, per: int) -> str:
    """The price for `per` units at a whole rate, without exponent or trailing zeros."""
    sign = "-" if rate_femto < 0 else ""
    whole, rest = divmod(abs(rate_femto) * per, FEMTO)
    return sign + f"{whole}.{rest:015d}".rstrip("0").rstrip(".")


def unit_problem(rate: Fraction) -> str | None:
    """What is wrong with the denominator of a rate in 10^-15 currency units; None: nothing."""
    per = rate.denominator
    if PER_OF_ALL % per == 0 and per <= PER_MAX:
        return None
    return f"its denominator, {per}, is none that amounts can be kept in (see docs/prices.md)"


class Place:
    """One mapping of the file while it is read: its fields, and where a problem with one of them is."""

    def __init__(self, node: yaml.Node, steps: Steps, problems: Problems, known: Sequence[str]) -> None:
        self.node = node
        self.steps = steps
        self.problems = problems
        self.found: dict[str, yaml.Node] = {}
        self.is_mapping = isinstance(node, yaml.MappingNode)
        if isinstance(node, yaml.MappingNode):
            self.found = fields(node, steps, problems, known)
        else:
            message = f"a mapping of {', '.join(known)} is expected, not {shown(node)}"
            problems.add(line_of(node), steps, message)

    @property
    def line(self) -> int:
        return line_of(self.node)

    def problem(self, key: str, message: str, node: yaml.Node | None = None) -> None:
        """Adds a problem with the value of a key, as it is written."""
        of = node if node is not None else self.found[key]
        self.problems.add(line_of(of), (*self.steps, key), f"{shown(of)} {message}")

    def require(self, *keys: str) -> None:
        """Adds a problem for each of these keys that is not there."""
        for key in keys:
            if key not in self.found and self.is_mapping:
                self.problems.add(self.line, (*self.steps, key), "is missing")

    def refuse(self, key: str, *others: str, because: str) -> None:
        """Adds a problem for each other key that stands beside `key`."""
        for other in others:
            if key in self.found and other in self.found:
                message = f"cannot stand beside {key}: {because}"
                self.problems.add(line_of(self.found[other]), (*self.steps, other), message)

    def true(self, key: str) -> bool:
        """Whether a switch is on."""
        node = self.found.get(key)
        if node is None:
            return False
        if kind_of(node) != "bool" or node.value.lower() != "true":
            self.problem(key, "can only be true; leave it out otherwise")
        return True

    def text(self, key: str, empty: str = "is empty") -> str | None:
        """Text that is not empty."""
        node = self.found.get(key)
        if node is None:
            return None
        if kind_of(node) != "str":
            self.problem(key, "is not text; quote it")
        elif node.value == "":
            self.problem(key, empty)
        return str(node.value)

    def instant_us(self, key: str) -> int | None:
        node = self.found.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.problem(key, "is not an instant")
            return None
        try:
            return parse_instant_us(node.value)
        except ValueError as error:
            self.problem(key, str(error))
            return None

    def count(self, key: str) -> int | None:
        node = self.found.get(key)
        if node is None:
            return None
        if isinstance(node, yaml.ScalarNode) and _COUNT.fullmatch(node.value):
            return int(node.value.replace("_", ""))
        self.problem(key, "is not a positive whole number; write 1 or 1_000_000")
        return None

    def decimal(self, key: str, example: str = '"0.60" or "6e-7"', what: str = "price") -> str | None:
        """Quoted decimal text, perhaps negative."""
        node = self.found.get(key)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode):
            self.problem(key, f"is not a {what}")
        elif not is_quoted(node):
            self.problem(key, f'is a bare number, a float to many readers; quote it: "{node.value}"')
        elif not _DECIMAL.fullmatch(node.value):
            self.problem(key, f"is not a decimal number; write {example}")
        else:
            return str(node.value)
        return None

    def meter(self, key: str) -> str | None:
        return meter_of(self.found[key], (*self.steps, key), self.problems) if key in self.found else None

    def meters(self, key: str) -> tuple[str, ...] | None:
        """A list of meters, none twice."""
        if key not in self.found:
            return None
        steps = (*self.steps, key)
        items = list_of(self.found[key], steps, self.problems)
        found = [meter_of(item, (*steps, n), self.problems) for n, item in enumerate(items)]
        names = tuple(name for name in found if name is not None)
        if len(set(names)) < len(names):
            self.problems.add(line_of(self.found[key]), steps, "names a meter twice")
        return names


def meter_of(node: yaml.Node, steps: Steps, problems: Problems) -> str | None:
    """The name of a meter."""
    if isinstance(node, yaml.ScalarNode) and _METER.fullmatch(node.value):
        return str(node.value)
    message = f"{shown(node)} is not a meter: a small letter, then small letters, digits and _, 64 at most"
    problems.add(line_of(node), steps, message)
    return None


def list_of(node: yaml.Node | None, steps: Steps, problems: Problems) -> Sequence[yaml.Node]:
    """The nodes of a list; none where there is no list."""
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode):
        problems.add(line_of(node), steps, f"a list is expected, not {shown(node)}")
        return ()
    items: list[yaml.Node] = node.value
    return items
