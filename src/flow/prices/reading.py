"""From the YAML of a price book to its rows; every error of the file at once, each with its line."""

import re
from dataclasses import dataclass
from fractions import Fraction

import yaml

from ..schema import REQUESTS
from ..yaml_nodes import Problems, compose, fields, line_of, shown
from .examples import Example, read_examples
from .price import Adjustment, Price
from .rows import RowReader
from .rules import rule_of
from .schedules import read_schedules
from .ties import check_adjustments, check_ties
from .values import Place, list_of, meter_of, unit_problem

BOOK_KEYS = ("version", "currency", "prices", "adjustments", "schedules", "unbilled", "examples")
VERSION_KEYS = ("name", "author", "approver", "reason")

ADJUSTED_MAX = 1_000_000
"""Pairs of a rate and a percentage that are tried; a book has a few hundred of each, and most of them are equal."""

_CURRENCY = re.compile(r"[A-Z]{3}")


@dataclass(frozen=True, slots=True)
class Version:
    """Who wrote a book, and why."""

    name: str
    author: str
    approver: str
    """Empty: nobody."""
    reason: str


@dataclass(frozen=True, slots=True)
class Contents:
    """What stands in a price book."""

    currency: str
    prices: tuple[Price, ...]
    unbilled: frozenset[str]
    adjustments: tuple[Adjustment, ...]
    version: Version | None
    examples: tuple[Example, ...]


def read_prices(text: str, name: str, quantity_max: int) -> Contents:
    """The rows of a price book. Raises ConfigError with every error found.

    quantity_max: the largest quantity of one event; a rate that overflows 128 bits with it is refused.
    """
    problems = Problems(name)
    root = compose(text, name)
    found = fields(root, (), problems, BOOK_KEYS)
    for key in ("currency", "prices"):
        if key not in found:
            problems.add(1, (key,), "is missing")
    currency = _currency(found["currency"], problems) if "currency" in found else "?"
    reader = RowReader(problems, currency, quantity_max, read_schedules(found.get("schedules"), problems))
    rows = [
        (n, price)
        for n, node in enumerate(list_of(found.get("prices"), ("prices",), problems))
        for price in reader.prices(node, ("prices", n))
    ]
    adjusted = [
        (n, row)
        for n, node in enumerate(list_of(found.get("adjustments"), ("adjustments",), problems))
        if (row := reader.adjustment(node, ("adjustments", n))) is not None
    ]
    prices = tuple(price for _, price in rows)
    adjustments = tuple(row for _, row in adjusted)
    unbilled = _unbilled(found.get("unbilled"), prices, problems)
    check_ties(rows, problems)
    check_adjustments(adjusted, problems)
    _check_adjusted_rates(prices, adjusted, problems)
    version = _version(found["version"], problems) if "version" in found else None
    examples = read_examples(found.get("examples"), problems)
    problems.raise_if_any()
    if REQUESTS not in {price.meter for price in prices}:
        unbilled.add(REQUESTS)
    return Contents(currency, prices, frozenset(unbilled), adjustments, version, examples)


def _currency(node: yaml.Node, problems: Problems) -> str:
    if isinstance(node, yaml.ScalarNode) and _CURRENCY.fullmatch(node.value):
        return str(node.value)
    message = f"{shown(node)} is not a currency; write three capital letters: USD"
    problems.add(line_of(node), ("currency",), message)
    return "?"


def _version(node: yaml.Node, problems: Problems) -> Version | None:
    place = Place(node, ("version",), problems, VERSION_KEYS)
    place.require("name", "author", "reason")
    name, author, approver, reason = (place.text(key) for key in VERSION_KEYS)
    return Version(name or "", author or "", approver or "", reason or "")


def _unbilled(node: yaml.Node | None, prices: tuple[Price, ...], problems: Problems) -> set[str]:
    lines_priced = {price.meter: price.line for price in reversed(prices)}
    unbilled: set[str] = set()
    for n, item in enumerate(list_of(node, ("unbilled",), problems)):
        meter = meter_of(item, ("unbilled", n), problems)
        if meter in lines_priced:
            message = f"{meter} is unbilled here and has a price in line {lines_priced[meter]}; drop one"
            problems.add(line_of(item), ("unbilled", n), message)
        if meter is not None:
            unbilled.add(meter)
    return unbilled


def _check_adjusted_rates(
    prices: tuple[Price, ...], adjusted: list[tuple[int, Adjustment]], problems: Problems
) -> None:
    """Every rate must still be one that can be kept after every adjustment that can meet it."""
    tokens = {cell for price in prices if price.meter != REQUESTS for cell in rule_of(price).cells}
    requests = {cell for price in prices if price.meter == REQUESTS for cell in rule_of(price).cells}
    factors: dict[tuple[frozenset[str], Fraction], tuple[int, Adjustment]] = {}
    for n, row in adjusted:
        factors.setdefault((row.names - {"meter"}, row.factor), (n, row))
    pairs = 0
    for (names, factor), (n, row) in factors.items():
        # Adjustments that name other things add up on one price; which ones meet, only an event can say.
        stacked = [factor, *(factor * other for (others, other) in factors if not (others <= names or names <= others))]
        for whole, rates in ((False, tokens), (True, requests)):
            pairs += len(stacked) * len(rates)
            if pairs > ADJUSTED_MAX:
                problems.add(row.line, ("adjustments", n), f"too many percentages and rates to check: {ADJUSTED_MAX:,}")
                return
            wrong = (rate for rate in rates for by in stacked if _unfit(rate * by, whole))
            if (rate := next(wrong, None)) is not None:
                message = f"'{row.percent}' makes a rate of {rate} x 10^-15 one that cannot be kept; use fewer digits"
                problems.add(row.line, ("adjustments", n, "percent"), message)


def _unfit(rate: Fraction, whole: bool) -> bool:
    return rate.denominator != 1 if whole else unit_problem(rate) is not None
