"""A report's mapping: a small YAML file that says what a CSV's columns count, and how names there are called here.

    columns: {start: date, model: model_name, customer: account}     # of a CSV; model and customer if it tells them
    bucket: 1d                                                       # 1m, 1h or 1d
    zone: UTC                                                        # of times without an offset
    unit: tokens
    counts: {prompt_tokens: input, cached_tokens: cached_input, completion_tokens: output, requests: requests}
    ignore: [cost_usd]                                               # columns that are to be passed over
    models: {gpt-4o-mini-2024-07-18: gpt-4o-mini}                    # its name there: its name here
    customers: {acct-17: acme}

`counts` names classes of `adapters/classes.py`, whose overlaps are known: `input` with all that was read from and
written to caches, `cached_input` the part of it that was read. `[cached_input, input]` is for a count that is not
within `input` already, and `=images` for a meter that is no class.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from ..adapters.classes import CLASSES
from ..schema import REQUESTS
from ..yaml_nodes import Problems, compose, did_you_mean, fields, line_of, pairs, read_text, shown
from .provider import SIZES, Row

_KEYS = ("columns", "bucket", "zone", "unit", "counts", "ignore", "models", "customers", "customer_field")
_COLUMNS = ("start", "model", "customer")
UNIT = "tokens"


@dataclass(frozen=True, slots=True)
class ReportMapping:
    """What a mapping says; of JSON only `models`, `customers` and `customer_field` are of use."""

    columns: Mapping[str, str] = field(default_factory=dict)
    """By what it is (start, model, customer): the column of a CSV."""
    grain: str = ""
    utc: bool = False
    """Whether times without an offset are said to be UTC."""
    counts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By column: classes, `requests`, or `=meter`."""
    ignore: frozenset[str] = frozenset()
    models: Mapping[str, str] = field(default_factory=dict)
    customers: Mapping[str, str] = field(default_factory=dict)
    customer_field: str = ""
    """Of JSON: the field of a result that `customers` names, such as project_id or workspace_id."""

    def row(self, place: str, start_s: int, customer: str, model: str, counts: Mapping[str, int]) -> Row:
        """A row with the names that customers and models have here."""
        return Row(place, start_s, self.customers.get(customer, customer), self.models.get(model, model), counts)


def read_mapping(path: Path) -> ReportMapping:
    """Reads and checks a mapping. Raises ConfigError with every error found, each with its line."""
    problems = Problems(str(path))
    root = compose(read_text(path), str(path))
    found = fields(root, (), problems, _KEYS)
    reader = _Reader(problems, line_of(root))
    mapping = ReportMapping(
        columns=reader.texts(found, "columns", _COLUMNS),
        grain=SIZES.get(reader.one_of(found, "bucket", tuple(SIZES)), ""),
        utc=reader.one_of(found, "zone", ("UTC",)) == "UTC",
        counts=reader.counts(found),
        ignore=frozenset(reader.list(found, "ignore")),
        models=reader.texts(found, "models"),
        customers=reader.texts(found, "customers"),
        customer_field=reader.text(found, "customer_field"),
    )
    reader.one_of(found, "unit", (UNIT,))
    if mapping.columns or mapping.counts:
        for key in ("columns", "bucket", "unit", "counts"):
            if key not in found:
                problems.add(line_of(root), (key,), "is missing")
    if "columns" in found and "start" not in mapping.columns:
        problems.add(
            line_of(found["columns"]), ("columns", "start"), "is missing: the column with a bucket's beginning"
        )
    problems.raise_if_any()
    return mapping


class _Reader:
    """Values of the mapping's nodes."""

    def __init__(self, problems: Problems, line: int) -> None:
        self._problems = problems
        self._line = line

    def text(self, found: Mapping[str, yaml.Node], key: str) -> str:
        node = found.get(key)
        return "" if node is None else self._scalar(node, (key,))

    def one_of(self, found: Mapping[str, yaml.Node], key: str, known: tuple[str, ...]) -> str:
        """A value that has to be one of a few; empty if it is not there."""
        value = self.text(found, key)
        if value and value not in known:
            self._problems.add(line_of(found[key]), (key,), f"found {shown(found[key])}; expected {' or '.join(known)}")
        return value

    def list(self, found: Mapping[str, yaml.Node], key: str) -> tuple[str, ...]:
        node = found.get(key)
        if node is None:
            return ()
        if not isinstance(node, yaml.SequenceNode):
            self._problems.add(line_of(node), (key,), f"{shown(node)} is not a list")
            return ()
        return tuple(self._scalar(item, (key, n)) for n, item in enumerate(node.value))

    def texts(self, found: Mapping[str, yaml.Node], key: str, known: tuple[str, ...] | None = None) -> dict[str, str]:
        """Keys and texts, of which only some may be known."""
        nodes = self._pairs(found, key)
        for name, (name_node, _) in nodes.items():
            if known is not None and name not in known:
                self._problems.add(line_of(name_node), (key, name), f"unknown key; {did_you_mean(name, known)}")
        return {name: self._scalar(node, (key, name)) for name, (_, node) in nodes.items()}

    def counts(self, found: Mapping[str, yaml.Node]) -> dict[str, tuple[str, ...]]:
        """What each column counts."""
        counts: dict[str, tuple[str, ...]] = {}
        for column, (_, node) in self._pairs(found, "counts").items():
            steps = ("counts", column)
            items = node.value if isinstance(node, yaml.SequenceNode) else [node]
            counts[column] = tuple(self._scalar(item, steps) for item in items)
            for name in counts[column]:
                if name and name not in CLASSES and name != REQUESTS and not name.startswith("="):
                    hint = did_you_mean(name, (*CLASSES, REQUESTS))
                    self._problems.add(line_of(node), steps, f"'{name}' is no class of usage; {hint}")
        return counts

    def _pairs(self, found: Mapping[str, yaml.Node], key: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        node = found.get(key)
        if node is None:
            return {}
        if not isinstance(node, yaml.MappingNode):
            self._problems.add(line_of(node), (key,), f"{shown(node)} stands where keys and values are expected")
            return {}
        return pairs(node, (key,), self._problems)

    def _scalar(self, node: yaml.Node, steps: tuple[str | int, ...]) -> str:
        if isinstance(node, yaml.ScalarNode) and node.value:
            return str(node.value)
        self._problems.add(line_of(node), steps, f"{shown(node)} is not text")
        return ""
