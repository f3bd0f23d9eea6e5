"""The `examples:` of a price book: events, and what each must cost; `tallyflow prices test` tries them."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import yaml

from ..schema import DIMENSIONS
from ..yaml_nodes import Problems, Steps, line_of, pairs, shown
from .values import Place, list_of

EXAMPLE_KEYS = ("time", *DIMENSIONS, "usage", "amount", "unpriced")


@dataclass(frozen=True, slots=True)
class Example:
    """One event and what it must cost."""

    event_time_us: int
    dims: Mapping[str, str]
    """A value for each of DIMENSIONS."""
    usage: tuple[tuple[str, int], ...]
    amount: Fraction
    """Currency units; of everything that has a price."""
    unpriced: frozenset[str]
    """The meters that must have no price."""
    line: int


def read_examples(node: yaml.Node | None, problems: Problems) -> tuple[Example, ...]:
    """Raises nothing: what is wrong is added to `problems`."""
    found = [_example(item, ("examples", n), problems) for n, item in enumerate(list_of(node, ("examples",), problems))]
    return tuple(example for example in found if example is not None)


def _example(node: yaml.Node, steps: Steps, problems: Problems) -> Example | None:
    place = Place(node, steps, problems, EXAMPLE_KEYS)
    place.require("time", "usage", "amount")
    time_us = place.instant_us("time")
    dims = {name: place.text(name) or "" for name in DIMENSIONS}
    amount, unpriced = place.decimal("amount"), place.meters("unpriced")
    usage = usage_of(place)
    if time_us is None or amount is None or usage is None:
        return None
    return Example(time_us, dims, usage, Fraction(amount), frozenset(unpriced or ()), place.line)


def usage_of(place: Place) -> tuple[tuple[str, int], ...] | None:
    """The `usage` of an event: (meter, quantity) pairs."""
    node = place.found.get("usage")
    if not isinstance(node, yaml.MappingNode):
        if node is not None:
            place.problem("usage", "is not a mapping of meters to quantities")
        return None
    usage = []
    for meter, (_, value) in pairs(node, (*place.steps, "usage"), place.problems).items():
        text = value.value.replace("_", "") if isinstance(value, yaml.ScalarNode) else ""
        if not (text.isascii() and text.isdigit()):
            message = f"{shown(value)} is not a quantity; write a whole number"
            place.problems.add(line_of(value), (*place.steps, "usage", meter), message)
            continue
        usage.append((meter, int(text)))
    return tuple(usage)
