"""From the YAML of a price book to its rows; every error of the file at once, each with its line.

A price is read as the text in the file: a YAML number has been, or will be, a float somewhere.
"""

import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from fractions import Fraction

import yaml

from ..schema import REQUESTS
from ..yaml_nodes import Problems, Steps, compose, fields, is_quoted, kind_of, line_of, shown
from .price import NARROWING, Price, Selector, covers, narrowness

BOOK_KEYS = ("currency", "prices", "unbilled")
PRICE_KEYS = ("meter", *NARROWING, "from", "per", "price")

FEMTO = 10**15
INT128_MAX = 2**127 - 1
TIES_MAX = 20
"""Two sets of prices that cross tie in every pair; the first few say enough."""

_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_DECIMAL = re.compile(r"([0-9]{1,40}(\.[0-9]{0,60})?|\.[0-9]{1,60})([eE][+-]?[0-9]{1,2})?")
_COUNT = re.compile(r"[1-9][0-9_]{0,40}")
_INSTANT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?(?:[Zz]|([+-])(\d\d):(\d\d))",
    re.ASCII,
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INSTANT_MAX = datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)  # the last second that DateTime can hold


def read_prices(text: str, name: str, quantity_max: int) -> tuple[str, tuple[Price, ...], frozenset[str]]:
    """Currency, prices and unbilled meters of a price book. Raises ConfigError with every error found.

    quantity_max: the largest quantity of one event; a rate that overflows 128 bits with it is refused.
    """
    problems = Problems(name)
    root = compose(text, name)
    found = fields(root, (), problems, BOOK_KEYS)
    for key in ("currency", "prices"):
        if key not in found:
            problems.add(1, (key,), "is missing")
    currency = _currency(found["currency"], problems) if "currency" in found else "?"
    rows = {
        n: price
        for n, node in enumerate(_list(found.get("prices"), ("prices",), problems))
        if (price := _Row(node, ("prices", n), problems, currency, quantity_max).read()) is not None
    }
    prices = tuple(rows.values())
    unbilled = _unbilled(found.get("unbilled"), prices, problems)
    _check_ties(rows, problems)
    problems.raise_if_any()
    if REQUESTS not in {price.meter for price in prices}:
        unbilled.add(REQUESTS)
    return currency, prices, frozenset(unbilled)


def _currency(node: yaml.Node, problems: Problems) -> str:
    if isinstance(node, yaml.ScalarNode) and _CURRENCY.fullmatch(node.value):
        return str(node.value)
    message = f"{shown(node)} is not a currency; write three capital letters: USD"
    problems.add(line_of(node), ("currency",), message)
    return "?"


def _list(node: yaml.Node | None, steps: Steps, problems: Problems) -> Sequence[yaml.Node]:
    if node is None:
        return ()
    if not isinstance(node, yaml.SequenceNode):
        problems.add(line_of(node), steps, f"a list is expected, not {shown(node)}")
        return ()
    items: list[yaml.Node] = node.value
    return items


def _unbilled(node: yaml.Node | None, prices: Sequence[Price], problems: Problems) -> set[str]:
    lines_priced = {price.meter: price.line for price in reversed(prices)}
    unbilled: set[str] = set()
    for n, item in enumerate(_list(node, ("unbilled",), problems)):
        meter = _meter(item, ("unbilled", n), problems)
        if meter in lines_priced:
            message = f"{meter} is unbilled here and has a price in line {lines_priced[meter]}; drop one"
            problems.add(line_of(item), ("unbilled", n), message)
        if meter is not None:
            unbilled.add(meter)
    return unbilled


def _meter(node: yaml.Node, steps: Steps, problems: Problems) -> str | None:
    if isinstance(node, yaml.ScalarNode) and _METER.fullmatch(node.value):
        return str(node.value)
    message = f"{shown(node)} is not a meter: a small letter, then small letters, digits and _, 64 at most"
    problems.add(line_of(node), steps, message)
    return None


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


def decimal_text(rate_femto: int, per: int) -> str:
    """The price for `per` units at an integer rate, without exponent or trailing zeros."""
    whole, rest = divmod(rate_femto * per, FEMTO)
    return f"{whole}.{rest:015d}".rstrip("0").rstrip(".")


class _Row:
    """One entry of `prices:` while it is read; `read` gives None where it has added a problem."""

    def __init__(self, node: yaml.Node, steps: Steps, problems: Problems, currency: str, quantity_max: int) -> None:
        self.node = node
        self.steps = steps
        self.problems = problems
        self.currency = currency
        self.quantity_max = quantity_max

    def read(self) -> Price | None:
        if not isinstance(self.node, yaml.MappingNode):
            message = f"a mapping of {', '.join(PRICE_KEYS)} is expected, not {shown(self.node)}"
            self.problems.add(line_of(self.node), self.steps, message)
            return None
        found = fields(self.node, self.steps, self.problems, PRICE_KEYS)
        for key in ("meter", "from", "per", "price"):
            if key not in found:
                self.problems.add(line_of(self.node), (*self.steps, key), "is missing")
        meter = _meter(found["meter"], (*self.steps, "meter"), self.problems) if "meter" in found else None
        names = [self._name(dimension, found.get(dimension)) for dimension in NARROWING]
        from_us = self._from_us(found["from"]) if "from" in found else None
        per = self._per(found["per"]) if "per" in found else None
        price = self._price(found["price"]) if "price" in found else None
        if per is None or price is None:
            return None
        rate_femto = self._rate_femto(found["price"], price, per)
        if meter is None or from_us is None or rate_femto is None:
            return None
        model, service_tier, region, customer = names
        selector = (model, service_tier, region, customer)
        return Price(meter, selector, from_us, per, price, rate_femto, line_of(self.node))

    def _problem(self, key: str, node: yaml.Node, message: str) -> None:
        self.problems.add(line_of(node), (*self.steps, key), f"{shown(node)} {message}")

    def _name(self, dimension: str, node: yaml.Node | None) -> str | None:
        if node is None:
            return None
        if kind_of(node) != "str":
            self._problem(dimension, node, "is not text; quote it")
        elif node.value == "":
            self._problem(dimension, node, f"is empty; leave {dimension} out to match any")
        return str(node.value)

    def _from_us(self, node: yaml.Node) -> int | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problem("from", node, "is not an instant")
            return None
        try:
            return parse_instant_us(node.value)
        except ValueError as error:
            self._problem("from", node, str(error))
            return None

    def _per(self, node: yaml.Node) -> int | None:
        if isinstance(node, yaml.ScalarNode) and _COUNT.fullmatch(node.value):
            return int(node.value.replace("_", ""))
        self._problem("per", node, "is not a positive whole number; write 1 or 1_000_000")
        return None

    def _price(self, node: yaml.Node) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problem("price", node, "is not a price")
        elif not is_quoted(node):
            self._problem("price", node, f'is a bare number, a float to many readers; quote it: "{node.value}"')
        elif node.value.startswith("-"):
            self._problem("price", node, "is negative; corrections are not prices")
        elif not _DECIMAL.fullmatch(node.value):
            self._problem("price", node, 'is not a decimal number; write "0.60" or "6e-7"')
        else:
            return str(node.value)
        return None

    def _rate_femto(self, node: yaml.Node, price: str, per: int) -> int | None:
        """price / per on the grid of 10^-15; a Fraction, so that off the grid is seen and never rounded."""
        rate = Fraction(Decimal(price)) * FEMTO / per
        below = rate.numerator // rate.denominator
        if rate.denominator != 1:
            nearest = f'"{decimal_text(below, per)}" and "{decimal_text(below + 1, per)}"'
            grid = f"not a whole number of 10^-15 {self.currency} per unit"
            self._problem("price", node, f"per {per} is {grid}; the nearest that are: {nearest}")
            return None
        if below * self.quantity_max > INT128_MAX:
            largest = decimal_text(INT128_MAX // self.quantity_max, per)
            message = f'per {per}, times limits.quantity_max, does not fit in 128 bits; at most "{largest}"'
            self._problem("price", node, message)
            return None
        return below


def _check_ties(rows: dict[int, Price], problems: Problems) -> None:
    """Adds every pair of prices between which nothing decides; `rows`: prices by index in the file."""
    firsts: dict[str, dict[Selector, Price]] = defaultdict(dict)
    starts: dict[tuple[str, Selector, int], Price] = {}
    index_of = {id(price): n for n, price in rows.items()}
    for n, price in rows.items():
        same = starts.setdefault((price.meter, price.selector, price.from_us), price)
        if same is not price:
            message = f"same meter, names and from as line {same.line}; a price is superseded by a later from"
            problems.add(price.line, ("prices", n), message)
        first = firsts[price.meter].setdefault(price.selector, price)
        if price.from_us < first.from_us:
            firsts[price.meter][price.selector] = price
    ties = itertools.chain.from_iterable(_ties_of(of_meter) for of_meter in firsts.values())
    for one, other, union in itertools.islice(ties, TIES_MAX):
        both = zip(NARROWING, union, strict=True)
        names = ", ".join(f"{dimension}: {name}" for dimension, name in both if name is not None)
        mend = f"drop one, or add a price for {{{names}}} from {_since(one, other)} on"
        message = f"ties with line {other.line} on {one.meter} where both match; {mend}"
        problems.add(one.line, ("prices", index_of[id(one)]), message)


def _since(one: Price, other: Price) -> str:
    instant = _EPOCH + timedelta(microseconds=max(one.from_us, other.from_us))
    return instant.isoformat().replace("+00:00", "Z")


def _ties_of(firsts: dict[Selector, Price]) -> Iterator[tuple[Price, Price, Selector]]:
    """(later line, earlier line, what both match) for one meter; `firsts`: the first price of each selector.

    A selector's prices hold from its first one for ever. Two selectors that name the same dimensions never
    match one event, so only those with as many, but other, dimensions are joined, over the values of those
    they share. The pair is no tie if, once both hold, a narrower price holds for every event that both
    match.
    """
    by_shape: dict[tuple[bool, ...], list[Selector]] = defaultdict(list)
    for selector in firsts:
        by_shape[tuple(value is not None for value in selector)].append(selector)
    for one_shape, other_shape in itertools.combinations(by_shape, 2):
        if sum(one_shape) != sum(other_shape):
            continue
        shared = [n for n in range(len(NARROWING)) if one_shape[n] and other_shape[n]]
        others: dict[tuple[str | None, ...], list[Selector]] = defaultdict(list)
        for selector in by_shape[other_shape]:
            others[tuple(selector[n] for n in shared)].append(selector)
        for a in by_shape[one_shape]:
            for b in others.get(tuple(a[n] for n in shared), ()):
                union = (a[0] or b[0], a[1] or b[1], a[2] or b[2], a[3] or b[3])
                both_from_us = max(firsts[a].from_us, firsts[b].from_us)
                if not any(
                    narrowness(c) > narrowness(a) and c in firsts and firsts[c].from_us <= both_from_us
                    for c in covers(union)
                ):
                    earlier, later = sorted((firsts[a], firsts[b]), key=lambda price: price.line)
                    yield later, earlier, union
