"""From the YAML of a plan to a Plan; every error of the file at once, each with its line and its mend.

Amounts are quoted decimal text: a YAML number has been, or will be, a float somewhere. docs/plans.md has the format.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TypeVar

import yaml

from ..errors import ConfigError
from ..rounding import FEMTO_DIGITS, RULES, RoundingRule
from ..yaml_nodes import Problems, Steps, compose, did_you_mean, fields, is_quoted, kind_of, line_of, read_text, shown
from .events import Percentage
from .lines import EXACT, FEMTO, NOTHING, PERCENT, UNLIMITED, Limits, Rounding
from .models import Blocks, BlockTier, Flat, Packages, Tier, Tiered
from .plan import Accumulate, Charge, Plan
from .quantities import Conversion, DiscountTier, UsageDiscount

PLAN_KEYS = ("plan", "currency", "accumulate", "rounding", "minimum", "maximum", "charges")
CHARGE_KEYS = ("meter", "model", "conversion", "usage_discount", "discount_percent", "minimum", "maximum")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")
_CURRENCY = re.compile(r"[A-Z]{3}")
_DECIMAL = re.compile(r"([0-9][0-9_]{0,60}(\.[0-9]{0,60})?|\.[0-9]{1,60})")
_COUNT = re.compile(r"[0-9][0-9_]{0,60}")

T = TypeVar("T")
Choice = TypeVar("Choice", bound=str)
Model = Tiered | Packages | Blocks | Percentage | Flat


def load_plan(path: Path) -> Plan:
    """Reads a plan. Raises ConfigError with every error of the file, each with its line."""
    return parse_plan(read_text(path), str(path))


def parse_plan(text: str, name: str) -> Plan:
    """`load_plan` of text; `name` stands for the file in messages."""
    problems = Problems(name)
    root = _Map(compose(text, name), (), problems, PLAN_KEYS)
    title = root.text("plan", _NAME, "a name of letters, digits, . _ and -")
    currency = root.text("currency", _CURRENCY, "a currency; write three capital letters: USD")
    spans: tuple[Accumulate, ...] = ("period", "contract")
    accumulate = root.choice("accumulate", spans)
    rounding = _rounding(root)
    limits = _limits(root)
    charges = [_charge(node, steps, problems) for node, steps in root.items("charges")]
    root.bad |= None in charges
    plan = root.build(lambda: Plan(title, currency, tuple(filter(None, charges)), accumulate, rounding, limits))
    problems.raise_if_any()
    assert plan is not None  # without problems everything was built
    return plan


class _Map:
    """A mapping while it is read. A value that is wrong adds a problem, and a harmless one stands in for it."""

    def __init__(self, node: yaml.Node, steps: Steps, problems: Problems, keys: Sequence[str]) -> None:
        self.node, self.steps, self.problems = node, steps, problems
        self.bad = not isinstance(node, yaml.MappingNode)
        self.found: Mapping[str, yaml.Node] = {}
        if isinstance(node, yaml.MappingNode):
            self.found = fields(node, steps, problems, keys)
        else:
            self._add(line_of(node), steps, f"a mapping of {', '.join(keys)} is expected, not {shown(node)}")

    def __contains__(self, key: str) -> bool:
        return key in self.found

    def problem(self, key: str, message: str) -> None:
        """A problem at a key, or at the mapping where it has none."""
        self._add(line_of(self.found.get(key, self.node)), (*self.steps, key), message)

    def text(self, key: str, pattern: re.Pattern[str], what: str) -> str:
        node = self._node(key)
        if isinstance(node, yaml.ScalarNode) and pattern.fullmatch(node.value):
            return str(node.value)
        if node is not None:
            self.problem(key, f"{shown(node)} is not {what}")
        return "-"

    def choice(self, key: str, known: Sequence[Choice], usual: Choice | None = None) -> Choice:
        node = self._node(key, required=usual is None)
        if isinstance(node, yaml.ScalarNode):
            for word in known:
                if node.value == word:
                    return word
        if node is not None:
            written = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
            self.problem(key, f"{shown(node)} is none of these; {did_you_mean(written, known)}")
        return usual or known[0]

    def flag(self, key: str) -> bool:
        node = self._node(key, required=False)
        if node is not None and not (kind_of(node) == "bool" and not is_quoted(node)):
            self.problem(key, f"{shown(node)} is neither true nor false")
        return isinstance(node, yaml.ScalarNode) and node.value.lower() == "true"

    def number(self, key: str, *, required: bool = True, above_0: bool = False) -> Fraction | None:
        """A decimal that is not below 0: quoted text, or a whole number."""
        node = self._node(key, required=required)
        if node is None:
            return None
        if kind_of(node) == "float" and not is_quoted(node):
            self.problem(key, f'{shown(node)} has been a float; quote it: {key}: "{getattr(node, "value", "")}"')
        elif isinstance(node, yaml.ScalarNode) and _DECIMAL.fullmatch(node.value):
            found = Fraction(node.value.replace("_", ""))
            if found or not above_0:
                return found
            self.problem(key, f"{shown(node)} is not above 0")
        else:
            self.problem(key, f"{shown(node)} is not a decimal number that is at least 0")
        return None

    def count(self, key: str, *, required: bool = True, above_0: bool = False) -> int | None:
        node = self._node(key, required=required)
        if isinstance(node, yaml.ScalarNode) and _COUNT.fullmatch(node.value):
            found = int(node.value.replace("_", ""))
            if found or not above_0:
                return found
        if node is not None:
            above = " above 0" if above_0 else ""
            self.problem(key, f"{shown(node)} is not a whole number{above}; write 1 or 1_000_000")
        return None

    def femto(self, key: str, *, required: bool = True) -> Fraction | None:
        """An amount, in 10^-15 currency units."""
        found = self.number(key, required=required)
        return None if found is None else found * FEMTO

    def price(self) -> Fraction:
        """`price` for `per` units, or `free: true`, in 10^-15 currency units of one unit; any rational."""
        if self.flag("free"):
            for key in ("price", "per"):
                if key in self:
                    self.problem(key, "what is free has no price; drop one of the two")
            return NOTHING
        femto = self.femto("price")
        if femto == 0:
            self.problem("price", "a price of 0 is said: free: true")
        per = self.count("per", required=False, above_0=True)
        return Fraction(femto or 0, per or 1)

    def items(self, key: str) -> list[tuple[yaml.Node, Steps]]:
        """The items of a list with at least one."""
        node = self._node(key)
        if isinstance(node, yaml.SequenceNode) and node.value:
            return [(item, (*self.steps, key, n)) for n, item in enumerate(node.value)]
        if node is not None:
            self.problem(key, f"a list of at least one is expected, not {shown(node)}")
        return []

    def map(self, key: str, keys: Sequence[str]) -> "_Map | None":
        node = self._node(key, required=False)
        return None if node is None else _Map(node, (*self.steps, key), self.problems, keys)

    def build(self, make: Callable[[], T]) -> T | None:
        """What a mapping without problems makes; what cannot hold together is a problem of the whole mapping."""
        if self.bad:
            return None
        try:
            return make()
        except ConfigError as error:
            self._add(line_of(self.node), self.steps, str(error))
            return None

    def _node(self, key: str, *, required: bool = True) -> yaml.Node | None:
        node = self.found.get(key)
        if node is None and required and isinstance(self.node, yaml.MappingNode):
            self._add(line_of(self.node), (*self.steps, key), "is missing")
        return node

    def _add(self, line: int, steps: Steps, message: str) -> None:
        self.bad = True
        self.problems.add(line, steps, message)


def _rounding(root: _Map) -> Rounding:
    found = root.map("rounding", ("rule", "digits", "at"))
    if found is None:
        return EXACT
    rules: tuple[RoundingRule, ...] = tuple(RULES)
    rule = found.choice("rule", rules)
    digits = found.count("digits")
    if digits is not None and digits > FEMTO_DIGITS:
        found.problem("digits", f"amounts have {FEMTO_DIGITS} digits; write 0 to {FEMTO_DIGITS}")
    at = found.choice("at", ("total", "line"), "total")
    root.bad |= found.bad
    return Rounding(rule, digits or 0, "line" if at == "line" else "total")


def _limits(found: _Map) -> Limits:
    least, most = (found.femto(key, required=False) for key in ("minimum", "maximum"))
    return Limits(least, most) if "minimum" in found or "maximum" in found else UNLIMITED


def _charge(node: yaml.Node, steps: Steps, problems: Problems) -> Charge | None:
    kind = _model_of(node)
    keys, read = _MODELS.get(kind, ((), None))
    known = _ALL_KEYS if isinstance(node, yaml.MappingNode) and read is None else keys
    found = _Map(node, steps, problems, [*CHARGE_KEYS, *known])
    meter = found.text("meter", _METER, "a meter: a small letter, then small letters, digits and _, 64 at most")
    found.choice("model", tuple(_MODELS))
    model = read(found) if read else None
    conversion, usage_discount = _conversion(found), _usage_discount(found)
    discount_percent = found.number("discount_percent", required=False) or NOTHING
    limits = _limits(found)
    if model is None:
        return None
    return found.build(lambda: Charge(meter, model, conversion, usage_discount, discount_percent, limits))


def _model_of(node: yaml.Node) -> str:
    """The model that a charge names, before its keys are known."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == "model" and isinstance(value, yaml.ScalarNode):
                return str(value.value)
    return ""


def _conversion(charge: _Map) -> Conversion | None:
    found = charge.map("conversion", ("multiply", "divide", "rounding", "digits"))
    if found is None:
        return None
    if ("multiply" in found) == ("divide" in found):
        found.problem("divide", "either multiply or divide is needed, by how much")
    by = found.number("divide" if "divide" in found else "multiply", required=False, above_0=True) or Fraction(1)
    rules: tuple[RoundingRule, ...] = tuple(RULES)
    rule = found.choice("rounding", rules) if "rounding" in found else None
    digits = found.count("digits", required=False) or 0
    charge.bad |= found.bad
    return found.build(lambda: Conversion(Fraction(1, by) if "divide" in found else by, rule, digits))


def _usage_discount(charge: _Map) -> UsageDiscount | None:
    found = charge.map("usage_discount", ("quantity", "percent", "tiers"))
    if found is None:
        return None
    quantity = found.number("quantity", required=False) or NOTHING
    percent = found.number("percent", required=False)
    tiers = [DiscountTier(None, percent)] if percent is not None else []
    if "tiers" in found:
        if "percent" in found:
            found.problem("tiers", "stands beside percent; drop one of the two")
        rows = [_Map(node, steps, found.problems, ("up_to", "percent")) for node, steps in found.items("tiers")]
        bounds = _bounds(rows)
        tiers = [DiscountTier(up_to, row.number("percent") or NOTHING) for row, up_to in zip(rows, bounds, strict=True)]
        found.bad |= any(row.bad for row in rows)
    elif not found.bad and "quantity" not in found and percent is None:
        found.problem("quantity", "either quantity, percent or tiers is needed")
    discount = found.build(lambda: UsageDiscount(quantity, tuple(tiers)))
    charge.bad |= found.bad
    return discount


# ---- Models ----


def _per_unit(found: _Map) -> Model | None:
    price_femto = found.price()
    return found.build(lambda: Tiered((Tier(None, price_femto),)))


def _graduated(found: _Map) -> Model | None:
    return _tiered(found, whole=False)


def _volume(found: _Map) -> Model | None:
    return _tiered(found, whole=True)


def _stair_step(found: _Map) -> Model | None:
    return _tiered(found, whole=True, keys=("up_to", "flat_fee", "free"))


def _tiered(
    found: _Map, whole: bool, keys: Sequence[str] = ("up_to", "price", "per", "percent", "flat_fee", "free")
) -> Model | None:
    rows = [_Map(node, steps, found.problems, keys) for node, steps in found.items("tiers")]
    tiers = [_tier(row, up_to) for row, up_to in zip(rows, _bounds(rows), strict=True)]
    zero_usage_flat_fee = found.flag("zero_usage_flat_fee")
    found.bad |= any(row.bad for row in rows)
    return found.build(lambda: Tiered(tuple(tiers), whole, zero_usage_flat_fee))


def _tier(row: _Map, up_to: Fraction | None) -> Tier:
    flat_femto = row.femto("flat_fee", required=False) or NOTHING
    if "percent" in row:
        for key in ("price", "per", "free"):
            if key in row:
                row.problem(key, "stands beside percent; drop one of the two")
        return Tier(up_to, (row.number("percent") or NOTHING) * PERCENT * FEMTO, flat_femto)
    if "price" in row or "per" in row or "free" in row:
        return Tier(up_to, row.price(), flat_femto)
    if "flat_fee" not in row and not row.bad:
        row.problem("flat_fee", "a tier has a price, a flat_fee, or both; or write free: true")
    return Tier(up_to, NOTHING, flat_femto)


def _bounds(rows: Sequence[_Map]) -> list[Fraction | None]:
    """`up_to` of each tier; only the last may leave it out, and each is above the one before."""
    bounds: list[Fraction | None] = []
    below = NOTHING
    for number, row in enumerate(rows, 1):
        bound = row.number("up_to", required=number < len(rows))
        if bound is not None and bound <= below:
            row.problem("up_to", f"is not above {'the tier before' if number > 1 else '0'}; sort the tiers")
        below = below if bound is None else bound
        bounds.append(bound)
    return bounds


def _package(found: _Map) -> Model | None:
    size, price_femto = found.number("size", above_0=True), found.price()
    free_units = found.number("free_units", required=False) or NOTHING
    begun = found.choice("begun", ("whole", "free"), "whole")
    return found.build(
        lambda: Packages(size or NOTHING, price_femto, free_units, "free" if begun == "free" else "whole")
    )


def _graduated_blocks(found: _Map) -> Model | None:
    return _blocks(found, whole=False)


def _volume_blocks(found: _Map) -> Model | None:
    return _blocks(found, whole=True)


def _blocks(found: _Map, whole: bool) -> Model | None:
    keys = ("block_size", "blocks_max", "price", "free")
    rows = [_Map(node, steps, found.problems, keys) for node, steps in found.items("tiers")]
    tiers = [
        BlockTier(
            row.number("block_size", above_0=True) or NOTHING,
            row.price(),
            row.count("blocks_max", required=number < len(rows), above_0=True),
        )
        for number, row in enumerate(rows, 1)
    ]
    found.bad |= any(row.bad for row in rows)
    return found.build(lambda: Blocks(tuple(tiers), whole))


def _percentage(found: _Map) -> Model | None:
    percent = found.number("percent") or NOTHING
    fee_femto = found.femto("fee_per_event", required=False) or NOTHING
    free_events, free_amount = found.count("free_events", required=False), found.number("free_amount", required=False)
    least, most = (found.femto(key, required=False) for key in ("minimum_per_event", "maximum_per_event"))
    return found.build(lambda: Percentage(percent, fee_femto, free_events, free_amount, least, most))


def _flat(found: _Map) -> Model | None:
    fee_femto = found.femto("price") or NOTHING
    return found.build(lambda: Flat(fee_femto))


_PERCENTAGE_KEYS = ("percent", "fee_per_event", "free_events", "free_amount", "minimum_per_event", "maximum_per_event")

_MODELS: Mapping[str, tuple[Sequence[str], Callable[[_Map], Model | None]]] = {
    "per_unit": (("price", "per", "free"), _per_unit),
    "graduated": (("tiers", "zero_usage_flat_fee"), _graduated),
    "volume": (("tiers", "zero_usage_flat_fee"), _volume),
    "stair_step": (("tiers", "zero_usage_flat_fee"), _stair_step),
    "package": (("size", "price", "free", "free_units", "begun"), _package),
    "graduated_blocks": (("tiers",), _graduated_blocks),
    "volume_blocks": (("tiers",), _volume_blocks),
    "percentage": (_PERCENTAGE_KEYS, _percentage),
    "flat": (("price",), _flat),
}
"""By model: the keys of a charge that are its own, and what reads them."""

_ALL_KEYS = sorted({key for keys, _ in _MODELS.values() for key in keys})
