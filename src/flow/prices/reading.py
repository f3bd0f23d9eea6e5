"""From the YAML of a price book to its rows; every error of the file at once, each with its line."""

import re
from collections import defaultdict
from dataclasses import dataclass
from fractions import Fraction

import yaml

from ..schema import REQUESTS
from ..yaml_nodes import Problems, collector_paused, compose, fields, line_of, shown
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
"""Pairs of a rate and a percentage that are tried; a book has a few hundred different ones of each."""

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
    with collector_paused():
        return _read(text, name, quantity_max)


def _read(text: str, name: str, quantity_max: int) -> Contents:
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
    # By what they name, for only those that name different things can meet on one price, and then they all apply.
    by_names: dict[frozenset[str], dict[Fraction, tuple[int, Adjustment]]] = defaultdict(dict)
    for n, row in adjusted:
        by_names[row.names - {"meter"}].setdefault(row.factor, (n, row))
    met: dict[Fraction, tuple[int, Adjustment]] = {}
    for factors in by_names.values():
        met |= {by * factor: at for by in [Fraction(1), *met] for factor, at in factors.items()}
        if len(met) * (len(tokens) + len(requests)) > ADJUSTED_MAX:
            n, row = next(iter(factors.values()))
            problems.add(row.line, ("adjustments", n), f"too many percentages and rates to check: {ADJUSTED_MAX:,}")
            return
    for by, (n, row) in met.items():
        wrong = [rate for rate in tokens if unit_problem(rate * by)] + [r for r in requests if (r * by).denominator > 1]
        if wrong:
            message = f"'{row.percent}' makes a rate of {wrong[0]} x 10^-15 one that cannot be kept; use fewer digits"
            problems.add(row.line, ("adjustments", n, "percent"), message)
