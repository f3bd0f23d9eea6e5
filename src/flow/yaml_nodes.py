"""YAML as a tree of nodes that know their line: what the config and the price book are read from.

Nodes and not values, because an error names its line, a repeated key must not win in silence, and a price
must be read as the text that stands in the file, before YAML makes a float of it. Problems are collected
and raised together.
"""

import difflib
import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from .errors import ConfigError

Steps = tuple[str | int, ...]
"""Where a value stands in a document: keys and indexes from its top."""

NODES_MAX = 2_000_000
"""A book of 20,000 prices has some 300,000 nodes; more than this is not a config."""

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml gives the same tree, many times as fast
_TAG = "tag:yaml.org,2002:"


def dotted(steps: Steps) -> str:
    """`("prices", 3, "per")` as `prices[3].per`."""
    text = ""
    for step in steps:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """What to say after an unknown word: the nearest known one, or all of them."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"known here: {', '.join(known)}"


class Problems:
    """Every error found in one file, raised at once and in the order of its lines."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._found: list[tuple[int, str]] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, line: int, steps: Steps, message: str) -> None:
        path = f"{dotted(steps)}: " if steps else ""
        self._found.append((line, f"{self.name}:{line}: {path}{message}"))

    def raise_if_any(self) -> None:
        """Raises ConfigError with all of them."""
        if self._found:
            raise ConfigError([message for _, message in sorted(self._found, key=lambda found: found[0])])


def line_of(node: yaml.Node) -> int:
    """The line, from 1, on which a node begins."""
    return int(node.start_mark.line) + 1


def kind_of(node: yaml.Node) -> str:
    """`map`, `seq`, `str`, `int`, `float`, `bool`, `null`, `timestamp`, ...: how YAML reads the node."""
    return str(node.tag).removeprefix(_TAG)


def is_quoted(node: yaml.Node) -> bool:
    """Whether a scalar is text by its quotes, and not because no other YAML type happens to fit it."""
    return isinstance(node, yaml.ScalarNode) and node.style in ("'", '"', "|", ">")


def shown(node: yaml.Node) -> str:
    """A node in a message: a scalar as it is written, short and on one line."""
    if isinstance(node, yaml.MappingNode):
        return "a mapping"
    if isinstance(node, yaml.SequenceNode):
        return "a list"
    if not node.value and not is_quoted(node):
        return "nothing"
    text = node.value if len(node.value) <= 80 else node.value[:77] + "..."
    return "".join(c if c.isprintable() else " " for c in f"'{text}'")


def read_text(path: Path) -> str:
    """Raises ConfigError with one line where the file is missing, unreadable or not UTF-8."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a YAML file is expected") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text (at byte {error.start})") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None


@contextmanager
def collector_paused() -> Iterator[None]:
    """While a tree is made and read, Python's search for cycles would walk all of it again and again, and find none:
    half of the time of a large book."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def compose(text: str, name: str) -> yaml.MappingNode:
    """The one mapping that a file holds. Raises ConfigError with one line where it is something else."""
    try:
        node = yaml.compose(text, Loader=_LOADER)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        if "but found another document" in str(error.problem):
            raise ConfigError(f"{name}:{line}: a second document begins here; one is expected") from None
        around = "".join(text.splitlines()[max(line - 2, 0) : line])
        mend = "; within braces, quote a value that holds ${...}" if "${" in around else ""
        raise ConfigError(f"{name}:{line}: not YAML: {error.problem}{mend}") from None
    except yaml.YAMLError as error:  # a control character: there is no line
        raise ConfigError(f"{name}: not YAML: {str(error).splitlines()[0]}") from None
    except (RecursionError, UnicodeError):
        raise ConfigError(f"{name}: not YAML: nested too deep, or a lone surrogate") from None
    if node is None:
        raise ConfigError(f"{name}: is empty; `tallyflow init` writes one to start from")
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{name}:{line_of(node)}: keys and values are expected, not {shown(node)}")
    _refuse_aliases(node, name)
    return node


def _refuse_aliases(root: yaml.Node, name: str) -> None:
    """An aliased mapping or list can hold itself, or double a document with every line; none is needed."""
    seen: set[int] = set()
    waiting: list[yaml.Node] = [root]
    count = 0
    while waiting:
        node = waiting.pop()
        count += 1
        if count > NODES_MAX:
            raise ConfigError(f"{name}: more than {NODES_MAX:,} values")
        if isinstance(node, yaml.ScalarNode):
            continue
        if id(node) in seen:
            raise ConfigError(f"{name}:{line_of(node)}: an anchor (&) on a mapping or list; write it out")
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            waiting.extend(value for _, value in node.value)
        else:
            waiting.extend(node.value)


def pairs(node: yaml.MappingNode, steps: Steps, problems: Problems) -> dict[str, tuple[yaml.Node, yaml.Node]]:
    """A mapping's (key, value) nodes by key; a repeated key is a problem, and its first value is kept."""
    found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            problems.add(line_of(key), steps, f"{shown(key)} as a key")
        elif key.value in found:
            first = line_of(found[key.value][0])
            problems.add(line_of(key), (*steps, key.value), f"stands twice (first in line {first})")
        else:
            found[key.value] = (key, value)
    return found


def fields(node: yaml.MappingNode, steps: Steps, problems: Problems, known: Sequence[str]) -> dict[str, yaml.Node]:
    """A mapping's values by key, where only `known` keys may stand."""
    found = {}
    for key, (key_node, value) in pairs(node, steps, problems).items():
        if key in known:
            found[key] = value
        else:
            problems.add(line_of(key_node), (*steps, key), f"unknown key; {did_you_mean(key, known)}")
    return found
