"""JSON whose text is kept: numbers as they are written, members in their order and repeated ones too.

A fix must change what a person named and nothing else, which `json` alone does not do: it reads 9.0 as a float, and of
a member that stands twice it keeps the last.
"""

import json
from collections.abc import Sequence


class Number(str):
    """The literal of a number."""

    __slots__ = ()


class Members(list[tuple[str, object]]):
    """An object: its members in order."""

    def get(self, name: str) -> object:
        """The first member of this name, or None."""
        return next((value for found, value in self if found == name), None)


def parse(text: str | bytes) -> object:
    """Raises ValueError, with a place, if it is not JSON."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is not JSON")

    try:
        return json.loads(
            text, object_pairs_hook=Members, parse_int=Number, parse_float=Number, parse_constant=refuse, strict=True
        )
    except RecursionError:
        raise ValueError("nested too deep") from None


def write(value: object) -> str:
    """On one line."""
    if isinstance(value, Number):
        return str(value)
    if isinstance(value, Members):
        return "{" + ",".join(f"{write(name)}:{write(member)}" for name, member in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(write, value)) + "]"
    return json.dumps(value, ensure_ascii=False)


def changed(value: object, path: Sequence[str], new: object | None) -> object:
    """The same with another value at a path of names, which are made where they are missing; None: without it.

    Raises ValueError if something on the path is no object.
    """
    if not path:
        return new
    if not isinstance(value, Members):
        raise ValueError(f"what has {path[0]} is to be an object, and is {write(value)[:60]}")
    name, rest = path[0], path[1:]
    if new is None and not any(found == name for found, _ in value):
        return value
    inner = value.get(name)
    member = changed(Members() if rest and inner is None else inner, rest, new)
    kept = Members()
    for found, old in value:
        if found != name:
            kept.append((found, old))
        elif member is not None and not any(found == name for found, _ in kept):  # of repeated ones the first place
            kept.append((name, member))
    if member is not None and not any(found == name for found, _ in kept):
        kept.append((name, member))
    return kept
