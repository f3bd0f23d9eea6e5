"""From the YAML of a rule book to its rules; every error of the file, and of its lists, at once and with its line."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from ..errors import ConfigError
from ..prices.examples import usage_of
from ..prices.values import Place, list_of
from ..schema import STANDARD_METERS
from ..yaml_nodes import Problems, Steps, compose, fields, kind_of, line_of, shown
from .rule import (
    COLUMNS,
    DURATION,
    Check,
    Clock,
    Example,
    Known,
    Range,
    Required,
    Rule,
    Severity,
    Speed,
    Sum,
    Values,
    Version,
)

CHECKS = ("known", "required", "range", "sum", "speed", "clock")
_RULE_KEYS = ("id", "severity", "since", "until", "where", *CHECKS, "examples")
_EXAMPLE_KEYS = ("time", "read", *COLUMNS, "usage")
RULES_MAX = 2000
LIST_VALUES_MAX = 5_000_000
QUANTITY_MAX = 2**63 - 1
FOREVER_US = 2**62
"""Behind every event time."""

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_WHOLE = re.compile(r"[0-9][0-9_]{0,25}")
_DURATION = re.compile(r"([0-9]{1,6})(ms|s|m|h|d)")
_DURATION_US = {"ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in a rule book."""

    version: Version | None
    rules: tuple[Rule, ...]
    lists: Mapping[str, bytes]
    """What was in each file that it names, by the name that stands there."""


def read_rules(text: str, name: str, read_list: Callable[[str], bytes]) -> Contents:
    """`read_list` gives the content of a list by its name in the book, or raises ConfigError.

    Raises ConfigError with every error found.
    """
    problems = Problems(name)
    found = fields(compose(text, name), (), problems, ("version", "rules"))
    version = _version(found["version"], problems) if "version" in found else None
    if "rules" not in found:
        problems.add(1, ("rules",), "is missing; write `rules: []` for none")
    nodes = list_of(found.get("rules"), ("rules",), problems)
    if len(nodes) > RULES_MAX:
        problems.add(line_of(nodes[RULES_MAX]), ("rules", RULES_MAX), f"more than {RULES_MAX} rules")
    reader = _Reader(problems, read_list)
    rules = tuple(rule for n, node in enumerate(nodes) if (rule := reader.rule(node, ("rules", n))) is not None)
    problems.raise_if_any()
    return Contents(version, rules, {name: content for name, (content, _) in reader.lists.items()})


def _version(node: yaml.Node, problems: Problems) -> Version | None:
    place = Place(node, ("version",), problems, ("name", "author", "reason"))
    place.require("name", "author", "reason")
    return Version(*(place.text(key) or "" for key in ("name", "author", "reason")))


@dataclass
class _Reader:
    """Reads rules one after the other; none may have the id of one before it."""

    problems: Problems
    read_list: Callable[[str], bytes]
    lists: dict[str, tuple[bytes, list[str]]] = field(default_factory=dict)
    lines: dict[str, int] = field(default_factory=dict)
    """Of each id."""

    def rule(self, node: yaml.Node, steps: Steps) -> Rule | None:
        before = len(self.problems)
        place = Place(node, steps, self.problems, _RULE_KEYS)
        place.require("id", "severity", "since", "examples")
        id_, severity = self._id(place), _severity(place)
        since_us, until_us = place.instant_us("since"), place.instant_us("until")
        if since_us is not None and until_us is not None and until_us <= since_us:
            place.problem("until", "is not after `since`")
        where = self._where(place)
        check = self._check(place)
        for column in _columns_of(check):
            if column in where:
                place.problem("where", f"cannot narrow {column}, which is what this rule is about")
        examples = self._examples(place, since_us or 0)
        if len(self.problems) > before:
            return None
        assert id_ is not None and severity is not None and since_us is not None  # else there would be a problem
        assert check is not None  # likewise
        narrowed = tuple(sorted(where.items(), key=lambda item: COLUMNS.index(item[0])))
        return Rule(id_, severity, since_us, until_us or FOREVER_US, narrowed, check, examples, place.line)

    def _id(self, place: Place) -> str | None:
        id_ = place.text("id") if "id" in place.found else None
        if id_ and not _ID.fullmatch(id_):
            place.problem("id", "is not an id: small letters, digits, dots, _ and -, 64 at most")
        elif id_ in self.lines:
            place.problem("id", f"is the id of the rule in line {self.lines[id_]} too")
        elif id_:
            self.lines[id_] = place.line
        return id_

    def _where(self, place: Place) -> dict[str, Values]:
        node = place.found.get("where")
        if node is None:
            return {}
        steps = (*place.steps, "where")
        if not isinstance(node, yaml.MappingNode):
            self.problems.add(line_of(node), steps, f"{shown(node)} stands where {', '.join(COLUMNS)} are expected")
            return {}
        found = fields(node, steps, self.problems, COLUMNS)
        read = {column: self._values(value, (*steps, column)) for column, value in found.items()}
        return {column: values for column, values in read.items() if values is not None}

    # -- checks

    def _check(self, place: Place) -> Check | None:
        given = [key for key in CHECKS if key in place.found]
        if len(given) != 1:
            told = (
                f"has {' and '.join(given)}; a rule checks one thing" if given else f"needs one of {', '.join(CHECKS)}"
            )
            if place.is_mapping:
                self.problems.add(place.line, place.steps, told)
            return None
        key, node, steps = given[0], place.found[given[0]], (*place.steps, given[0])
        if key == "required":
            return self._required(node, steps)
        if key == "known":
            return self._known(node, steps)
        read: dict[str, tuple[tuple[str, ...], Callable[[Place], Check | None]]] = {
            "range": (("meter", "min", "max"), _range),
            "sum": (("meter", "of", "tolerance"), _sum),
            "speed": (("meters", "per_second_max"), _speed),
            "clock": (("behind", "ahead"), _clock),
        }
        keys, make = read[key]
        return make(Place(node, steps, self.problems, keys))

    def _required(self, node: yaml.Node, steps: Steps) -> Required | None:
        columns = []
        for n, item in enumerate(list_of(node, steps, self.problems)):
            if isinstance(item, yaml.ScalarNode) and item.value in COLUMNS and item.value not in columns:
                columns.append(str(item.value))
            else:
                self.problems.add(
                    line_of(item), (*steps, n), f"{shown(item)} is none of {', '.join(COLUMNS)}, or a repeat"
                )
        if not columns:
            self.problems.add(line_of(node), steps, f"names nothing; known here: {', '.join(COLUMNS)}")
        return Required(tuple(columns))

    def _known(self, node: yaml.Node, steps: Steps) -> Known | None:
        place = Place(node, steps, self.problems, COLUMNS)
        if not place.is_mapping:
            return None
        if len(place.found) != 1:
            self.problems.add(place.line, steps, f"names {len(place.found)} columns; one a rule: {{customer: [...]}}")
            return None
        ((column, of),) = place.found.items()
        values = self._values(of, (*steps, column))
        return None if values is None else Known(column, values)

    # -- values

    def _values(self, node: yaml.Node, steps: Steps) -> Values | None:
        """One text, a list of them, or {file: NAME}; a `*` at the end stands for anything."""
        name = ""
        if isinstance(node, yaml.MappingNode):
            place = Place(node, steps, self.problems, ("file",))
            place.require("file")
            name = place.text("file") or ""
            texts = self._listed(name, place) if name else []
        else:
            listed = isinstance(node, yaml.SequenceNode)
            places = [((*steps, n), item) for n, item in enumerate(node.value)] if listed else [(steps, node)]
            texts = [text for at, item in places if (text := self._text(item, at)) is not None]
            if not places:
                self.problems.add(line_of(node), steps, "names nothing")
        if "*" in texts:
            self.problems.add(line_of(node), steps, "'*' alone is everything; leave the rule out, or name a beginning")
        if not texts:
            return None
        beginnings = frozenset(text[:-1] for text in texts if text.endswith("*"))
        return Values(frozenset(text for text in texts if not text.endswith("*")), beginnings, name)

    def _text(self, node: yaml.Node, steps: Steps) -> str | None:
        if kind_of(node) != "str":
            self.problems.add(line_of(node), steps, f"{shown(node)} is not text; quote it")
            return None
        return str(node.value)

    def _listed(self, name: str, place: Place) -> list[str]:
        if name not in self.lists:
            self.lists[name] = b"", []
            try:
                content = self.read_list(name)
                values = [line.strip() for line in content.decode("utf-8-sig").splitlines()]
            except ConfigError as error:
                place.problem("file", f"cannot be used: {error.errors[0]}")
                return []
            except UnicodeDecodeError as error:
                place.problem("file", f"is not UTF-8 text (at byte {error.start})")
                return []
            values = [value for value in values if value and not value.startswith("#")]
            self.lists[name] = content, values
            if not values:
                place.problem("file", "holds no value, so that every event would fail; write one a line")
            elif len(values) > LIST_VALUES_MAX:
                place.problem("file", f"holds more than {LIST_VALUES_MAX:,} values")
        return self.lists[name][1]

    # -- examples

    def _examples(self, of_rule: Place, since_us: int) -> tuple[Example, ...]:
        if "examples" not in of_rule.found:
            return ()
        steps = (*of_rule.steps, "examples")
        place = Place(of_rule.found["examples"], steps, self.problems, ("pass", "fail"))
        examples = []
        for key in ("pass", "fail"):
            items = list_of(place.found.get(key), (*steps, key), self.problems)
            if not items and place.is_mapping:
                self.problems.add(place.line, (*steps, key), f"is missing; give an event that must {key}")
            for n, item in enumerate(items):
                of = Place(item, (*steps, key, n), self.problems, _EXAMPLE_KEYS)
                usage = usage_of(of) or ()
                if any(quantity > QUANTITY_MAX for _, quantity in usage):
                    of.problem("usage", "holds a quantity above 2^63 - 1")
                time_us = of.instant_us("time") if "time" in of.found else since_us
                read_us = of.instant_us("read") if "read" in of.found else time_us
                event: dict[str, Any] = {name: of.text(name) or "" for name in COLUMNS}
                event |= {"event_time_us": time_us or 0, "usage": dict(usage)}
                examples.append(Example(event, read_us or 0, key == "pass", of.line))
        return tuple(examples)


def _severity(place: Place) -> Severity | None:
    node = place.found.get("severity")
    if node is None:
        return None
    if node.value == "reject":
        return "reject"
    if node.value == "flag":
        return "flag"
    place.problem("severity", "is neither reject nor flag")
    return None


def _columns_of(check: Check | None) -> tuple[str, ...]:
    if isinstance(check, Known):
        return (check.column,)
    return check.columns if isinstance(check, Required) else ()


def _range(place: Place) -> Range | None:
    place.require("meter")
    meter, least, most = place.meter("meter"), _whole(place, "min"), _whole(place, "max")
    if place.is_mapping and "min" not in place.found and "max" not in place.found:
        place.problems.add(place.line, place.steps, "has neither `min` nor `max`")
    if least is not None and most is not None and most < least:
        place.problem("max", "is below `min`")
    return None if meter is None else Range(meter, least or 0, most)


def _sum(place: Place) -> Sum | None:
    place.require("meter")
    meter, of = place.meter("meter"), place.meters("of")
    tolerance = _whole(place, "tolerance") or 0
    if of is not None and (not of or meter in of):
        place.problem("of", "names no meters, or the one that tells their sum")
    return None if meter is None else Sum(meter, STANDARD_METERS if of is None else of, tolerance)


def _speed(place: Place) -> Speed | None:
    place.require("per_second_max")
    meters, per_second_max = place.meters("meters"), _whole(place, "per_second_max")
    if meters is not None and (not meters or DURATION in meters):
        place.problem("meters", f"names no meters, or {DURATION}")
    if per_second_max is None:
        return None
    return Speed(("output_tokens", "reasoning_tokens") if meters is None else meters, per_second_max)


def _clock(place: Place) -> Clock | None:
    if place.is_mapping and not place.found:
        place.problems.add(place.line, place.steps, "has neither `behind` nor `ahead`")
    return Clock(_duration_us(place, "behind"), _duration_us(place, "ahead"))


def _whole(place: Place, key: str) -> int | None:
    node = place.found.get(key)
    if node is None:
        return None
    if isinstance(node, yaml.ScalarNode) and _WHOLE.fullmatch(node.value):
        number = int(node.value.replace("_", ""))
        if number <= QUANTITY_MAX:
            return number
    place.problem(key, "is not a whole number from 0 to 2^63 - 1; write 16_384")
    return None


def _duration_us(place: Place, key: str) -> int | None:
    node = place.found.get(key)
    if node is None:
        return None
    match = _DURATION.fullmatch(node.value) if isinstance(node, yaml.ScalarNode) else None
    if match is None:
        place.problem(key, "is not a duration; write 90s, 5m, 72h or 30d")
        return None
    return int(match[1]) * _DURATION_US[match[2]]
