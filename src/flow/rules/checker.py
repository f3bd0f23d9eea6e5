"""Rules compiled for the kernel: which of them each event of a batch fails.

A rule becomes one check, or one for each column that it requires; CHECKS_MAX of them go through the kernel at once.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from ..kernels.rules import CHECKS_MAX, CLOCK, MEMBER, RANGE, SPEED, SUM, CheckTable, MakeChecks, ValueTable
from .rule import COLUMNS, DURATION, Clock, Known, Range, Required, Rule, Speed, Sum, Values

NO_CLOCK_US = -1
"""In place of the instant at which events are read: that was another time, and clocks say nothing of them."""
_UNBOUNDED = 2**62
_EMPTY = Values(frozenset([""]), frozenset())


@dataclass(frozen=True, slots=True)
class _Check:
    """What the kernel knows of a rule."""

    rule: int
    kind: int
    low: int = 0
    high: int = 0
    inside: Mapping[str, Values] = field(default_factory=dict)
    """The columns whose texts must be one of these for the check to concern an event."""
    outside: Mapping[str, Values] = field(default_factory=dict)
    """Those whose texts must be none of them."""
    bounded: tuple[str, ...] = ()
    told_by: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    """Meters: whose quantity is bounded; which tells what others add up to; these others."""


class Checker:
    """Any number of threads may use one at once."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        checks = [check for number, rule in enumerate(rules) for check in _checks(number, rule)]
        groups = [checks[at : at + CHECKS_MAX] for at in range(0, len(checks), CHECKS_MAX)]
        self._tables = [(self._compiled(group), [check.rule for check in group]) for group in groups]

    def failures(self, events: pa.RecordBatch, now_us: int) -> dict[int, list[int]]:
        """The rows of EVENTS that fail, ascending, and the numbers of the rules that each fails, ascending.

        now_us: when the events are read, or NO_CLOCK_US.
        """
        failed: dict[int, list[int]] = {}
        for table, rules in self._tables:
            rows, bits = table.failed(events, now_us)
            for row, failing in zip(rows.to_pylist(), bits.to_pylist(), strict=True):
                numbers = [rules[n] for n in _ones(failing)]
                failed[row] = list(dict.fromkeys(failed.get(row, []) + numbers))
        return dict(sorted(failed.items())) if len(self._tables) > 1 else failed

    def _compiled(self, checks: Sequence[_Check]) -> CheckTable:
        of = [self.rules[check.rule] for check in checks]
        kernel = [(c.kind, r.since_us, r.until_us, c.low, c.high) for c, r in zip(checks, of, strict=True)]
        columns = [column for name in COLUMNS if (column := _column(name, checks)) is not None]
        meters: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        for bit, check in _bits(checks):
            for n, names in enumerate((check.bounded, check.told_by, check.added)):
                for meter in names:
                    meters[meter][n] |= bit
        return CheckTable(MakeChecks(kernel), columns, {name: (b, t, a) for name, (b, t, a) in meters.items()})


def _checks(number: int, rule: Rule) -> Iterator[_Check]:
    """What fails, said so that the kernel can ask: an event is concerned, and then its quantities are out of bounds."""
    where, check = dict(rule.where), rule.check
    match check:
        case Known():
            yield _Check(number, MEMBER, inside=where, outside={check.column: check.values})
        case Required():
            for column in check.columns:
                yield _Check(number, MEMBER, inside=where | {column: _EMPTY})
        case Range():
            most = _UNBOUNDED * 2 - 1 if check.most is None else check.most
            yield _Check(number, RANGE, check.least, most, where, bounded=(check.meter,))
        case Sum():
            yield _Check(number, SUM, 0, check.tolerance, where, told_by=(check.meter,), added=check.of)
        case Speed():
            yield _Check(number, SPEED, 0, check.per_second_max, where, told_by=(DURATION,), added=check.meters)
        case Clock():
            behind, ahead = (_UNBOUNDED if us is None else us for us in (check.behind_us, check.ahead_us))
            yield _Check(number, CLOCK, behind, ahead, where)


def _column(name: str, checks: Sequence[_Check]) -> tuple[str, ValueTable, int, int] | None:
    """A column as the kernel takes it; None if no check is about it."""
    sets: dict[tuple[str, bool], int] = defaultdict(int)
    concerned = flipped = 0
    for bit, check in _bits(checks):
        values = check.inside.get(name) or check.outside.get(name)
        if values is None:
            continue
        concerned |= bit
        flipped |= bit if name in check.outside else 0
        for texts, beginning in ((values.whole, False), (values.beginnings, True)):
            for text in texts:
                sets[text, beginning] |= bit
    if not concerned:
        return None
    items = [(text.encode(), beginning, bits) for (text, beginning), bits in sets.items()]
    return name, ValueTable(items), (1 << len(checks)) - 1 & ~concerned, flipped


def _bits(checks: Sequence[_Check]) -> Iterator[tuple[int, _Check]]:
    return ((1 << n, check) for n, check in enumerate(checks))


def _ones(bits: int) -> Iterator[int]:
    while bits:
        yield (bits & -bits).bit_length() - 1
        bits &= bits - 1


def plain_events(events: pa.RecordBatch, rows: Sequence[int]) -> list[dict[str, Any]]:
    """Some rows of EVENTS in Python's own values."""
    return list(events.take(pa.array(rows, pa.uint32())).to_pylist())
