"""An invoice: a customer's period, from its total down to any level asked for. Start at `make_invoice`.

How the numbers hang together:
- Exact amounts are counts of 10^-15 currency units, integers but where a rate is a fraction, and each level adds up to
  the one above by itself.
- Rounding happens once, on the invoice's lines, and the total is the sum of the rounded lines. A line is a
  feature, whatever drill-down is asked for: an invoice has one total.
- Any other item is not rounded again: it gets its share of the amount above by largest remainder, so that also
  in cents each level adds up to the one above. The remainder beside it is exact - rounded.
- Events and digests add up over everything but meters, since one event counts on several: below a level
  `meter` they are None.
- A quantity without a price is counted, flagged and has no amount: it is never billed as zero in silence.
"""

import re
from calendar import monthrange
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from ..errors import ConfigError, StoreError
from ..rounding import FEMTO_DIGITS, RULES, RoundingRule, largest_remainder, minor_digits
from ..schema import REQUESTS
from ..store import StoreClient
from ..store.queries.corrections_of_customer import Corrected, corrections_of_customer
from ..store.queries.customers_like import customers_like
from ..store.queries.months_of_customer import months_of_customer
from ..store.queries.usage_of_customer import LEVELS, TIME_LEVELS, Usage, usage_of_customer

LINE = "feature"
"""The level whose items are the invoice's lines: what is rounded."""

_DIGEST_MODULUS = 2**128
_PERIOD = re.compile(r"(\d{4})-(\d{2})(?:-(\d{2}))?")


@dataclass(frozen=True, slots=True)
class Period:
    """A billing period: windows that start in [start_s, end_s), seconds since 1970-01-01T00:00:00Z."""

    name: str
    start_s: int
    end_s: int


@dataclass(frozen=True, slots=True)
class MeterUse:
    """What one meter came to."""

    quantity: int
    unpriced_quantity: int
    amount_femto: int | Fraction


@dataclass(frozen=True, slots=True)
class Item:
    """One place in the drill-down; the invoice's total is the item at the top, of level `total`."""

    level: str
    value: str
    amount_femto: int | Fraction
    amount_minor: int
    events: int | None
    digest: int | None
    meters: dict[str, MeterUse]
    items: list["Item"]

    @property
    def unpriced(self) -> bool:
        """Whether something in it has no price, so that its amount is not the whole truth."""
        return any(use.unpriced_quantity for use in self.meters.values())


@dataclass(frozen=True, slots=True)
class Invoice:
    """A customer's period, as a tree whose first level is the first of `by`."""

    customer: str
    period: Period
    currency: str
    minor_digits: int
    rounding: RoundingRule
    by: tuple[str, ...]
    total: Item
    notes: list[str]
    corrected: list[Corrected] = field(default_factory=list)
    """What of the amounts was changed after it had been billed, and why."""

    def remainder_femto(self, item: Item) -> int | Fraction:
        """What rounding took away from an item: exact - rounded."""
        return item.amount_femto - item.amount_minor * self.minor_unit_femto

    @property
    def minor_unit_femto(self) -> int:
        return _minor_unit_femto(self.minor_digits)


def make_invoice(
    client: StoreClient,
    customer: str,
    period: Period,
    by: Sequence[str] = ("feature",),
    rounding: RoundingRule = "half-even",
) -> Invoice:
    """Read and add up one customer's period.

    Args:
        by: levels of the drill-down, from the top down; see `parse_levels`.
    Raises:
        StoreError: there is no usage, or it is priced in more than one currency.
    """
    levels = tuple(by) if LINE in by else (*by, LINE)
    rows = usage_of_customer(client, customer, period.start_s, period.end_s, levels)
    if not rows:
        raise _no_usage(client, customer, period)
    currency = _only_currency({row.currency for row in rows}, customer, period)
    digits = minor_digits(currency)
    total = _Tree(levels, len(by), RULES[rounding], _minor_unit_femto(digits)).total(rows)
    notes = []
    if total.unpriced:
        meters = ", ".join(sorted(name for name, use in total.meters.items() if use.unpriced_quantity))
        notes.append(f"unpriced: no price was in force for some of the {meters}; it is not in the amounts")
    corrected = corrections_of_customer(client, customer, period.start_s, period.end_s)
    return Invoice(customer, period, currency, digits, rounding, tuple(by), total, notes, corrected)


def parse_period(text: str) -> Period:
    """A month like 2026-11 or a day like 2026-11-03, in UTC. Raises ConfigError."""
    match = _PERIOD.fullmatch(text.strip())
    try:
        if match is None:
            raise ValueError
        year, month, day = int(match[1]), int(match[2]), int(match[3] or 1)
        if not 1970 <= year <= 2105:  # what a DateTime can hold whole
            raise ValueError
        start = datetime(year, month, day, tzinfo=UTC)
    except ValueError:
        raise ConfigError(
            f"--period {text}: is no month like 2026-11 and no day like 2026-11-03, from 1970 to 2105"
        ) from None
    end = start + timedelta(days=1 if match[3] else monthrange(year, month)[1])
    return Period(text.strip(), _seconds(start), _seconds(end))


def parse_levels(text: str) -> tuple[str, ...]:
    """The levels of `--by`: some of LEVELS between commas, from the top down. Raises ConfigError."""
    levels = tuple(part for part in (part.strip() for part in text.split(",")) if part)
    errors = [
        f"--by {level}: there is no such level; choose among {', '.join(LEVELS)}"
        for level in dict.fromkeys(levels)
        if level not in LEVELS
    ]
    errors += [f"--by {level}: stands twice" for level in dict.fromkeys(levels) if levels.count(level) > 1]
    if errors:
        raise ConfigError(errors)
    return levels


@dataclass(frozen=True, slots=True)
class _Sum:
    """An item before its rounded amount is known."""

    level: str
    value: str
    amount_femto: int | Fraction
    events: int | None
    digest: int | None
    meters: dict[str, MeterUse]
    parts: list["_Sum"]


class _Tree:
    """Turns flat rows into items: exact sums on the way down, rounded amounts on the way back."""

    def __init__(self, levels: tuple[str, ...], shown: int, rule: Callable[[int, int], int], unit_femto: int) -> None:
        """`levels` are those of the rows' places, LINE among them; the first `shown` of them become items."""
        self._by = levels[:shown]
        self._line_at = levels.index(LINE)
        self._rule = rule
        self._unit_femto = unit_femto

    def total(self, rows: Sequence[Usage]) -> Item:
        line_femtos: dict[str, int | Fraction] = {}
        for row in rows:
            line = row.place[self._line_at]
            line_femtos[line] = line_femtos.get(line, 0) + row.amount_femto
        line_minors = {
            line: self._rule(femto.numerator, self._unit_femto * femto.denominator)
            for line, femto in line_femtos.items()
        }
        minor = sum(line_minors.values())
        top = self._sum("total", "", rows, 0)
        if self._line_at == 0 and self._by:
            return _item(top, minor, [_shared(line, line_minors[line.value]) for line in top.parts])
        return _shared(top, minor)

    def _sum(self, level: str, value: str, rows: Sequence[Usage], depth: int) -> _Sum:
        meters: dict[str, MeterUse] = {}
        for row in rows:
            before = meters.get(row.meter, MeterUse(0, 0, 0))
            meters[row.meter] = MeterUse(
                before.quantity + row.quantity,
                before.unpriced_quantity + row.unpriced_quantity,
                before.amount_femto + row.amount_femto,
            )
        # Each event counts once on the meter `requests`: its events and digest are those of the whole.
        whole = [row for row in rows if row.meter == REQUESTS]
        by_meter = "meter" in self._by[:depth]
        return _Sum(
            level=level,
            value=value,
            amount_femto=sum(row.amount_femto for row in rows),
            events=None if by_meter else sum(row.events for row in whole),
            digest=None if by_meter else sum(row.digest for row in whole) % _DIGEST_MODULUS,
            meters=dict(sorted(meters.items())),
            parts=self._parts(rows, depth),
        )

    def _parts(self, rows: Sequence[Usage], depth: int) -> list[_Sum]:
        if depth == len(self._by):
            return []
        level = self._by[depth]
        groups: dict[str, list[Usage]] = {}
        for row in rows:
            groups.setdefault(row.place[depth], []).append(row)
        if level in TIME_LEVELS:
            return [
                self._sum(level, _time_text(int(value), level), groups[value], depth + 1)
                for value in sorted(groups, key=int)
            ]
        parts = [self._sum(level, value, group, depth + 1) for value, group in groups.items()]
        return sorted(parts, key=lambda part: (-part.amount_femto, part.value))


def _shared(part: _Sum, minor: int) -> Item:
    """An item of a known rounded amount, which is shared out over everything below it."""
    shares = largest_remainder([below.amount_femto for below in part.parts], minor)
    return _item(part, minor, [_shared(below, share) for below, share in zip(part.parts, shares, strict=True)])


def _item(part: _Sum, minor: int, items: list[Item]) -> Item:
    return Item(part.level, part.value, part.amount_femto, minor, part.events, part.digest, part.meters, items)


def _minor_unit_femto(digits: int) -> int:
    return int(10 ** (FEMTO_DIGITS - digits))


def _only_currency(currencies: set[str], customer: str, period: Period) -> str:
    if len(currencies) > 1:
        raise StoreError(
            f"the usage of {customer} in {period.name} is priced in {' and '.join(sorted(currencies))}; "
            "an invoice has one currency: ask for days before and after the price book changed"
        )
    return next(iter(currencies), "")


def _no_usage(client: StoreClient, customer: str, period: Period) -> StoreError:
    months = months_of_customer(client, customer)
    if months:
        shown = ", ".join(months[-12:])
        return StoreError(f"{customer} has no usage in {period.name}; there is some in {shown}")
    near = customers_like(client, customer)
    hint = f"did you mean {' or '.join(near)}?" if near else "the store holds no usage yet"
    return StoreError(f"there is no customer {customer} in {client.label}; {hint}")


def _seconds(instant: datetime) -> int:
    return (instant - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)


def _time_text(start_s: int, level: str) -> str:
    instant = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=start_s)
    return f"{instant:%Y-%m-%d}" if level == "day" else f"{instant:%Y-%m-%dT%H:%MZ}"
