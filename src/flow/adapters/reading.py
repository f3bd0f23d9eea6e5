"""One payload to quantities, by the rows of its kind; and what in it looks like a count and has no row.

A payload is what `json.loads(text, parse_float=Decimal)` gives: integers as int, other numbers as Decimal. Floats of a
payload that never was text are taken as well; only their whole numbers count.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from ..errors import PayloadError
from .classes import meters_of
from .kind import Kind

QUANTITY_MAX = 2**63 - 1
"""What a meter's column holds; `limits.quantity_max` is for the run to enforce."""

_DIGITS_MAX = 40
"""More digits than any count has."""

_TAGS = ("modality", "type", "ttl")
"""What tells the items of a list apart: the first that is there."""

_DEPTH_OUTSIDE = 3
"""How deep names are looked at outside of where usage stands: a response holds a whole conversation."""

_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_TOKENS = frozenset(("token", "tokens"))
_NO_USAGE = frozenset(("max", "min", "limit", "budget", "cost", "price", "per", "rate", "threshold", "left", "time"))
"""Words in the names of numbers that are settings, money or durations."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something in a payload that may be usage and is in no meter, or numbers of it that disagree."""

    path: str
    quantity: int
    why: str


@dataclass(frozen=True, slots=True)
class Reading:
    """What a payload says."""

    gross: dict[str, int]
    """{class: quantity}, overlapping as the provider counts; classes of quantity 0 left out."""
    meters: dict[str, int]
    """{meter: quantity}, disjoint; meters of quantity 0 left out."""
    findings: list[Finding]
    part: str = ""
    """Empty for the payload itself; for usage that its sums leave out, where it stands."""
    model: str = ""
    """Of a part: the model that it names, if it does."""


def read_payload(kind: Kind, payload: Mapping[str, object]) -> list[Reading]:
    """What a payload says, and after it the parts that its sums leave out.

    Raises PayloadError if no field of it has a row, a quantity is no count, or classes contradict each other.
    """
    readings = [_read(kind, payload)]
    if kind.beside is None:
        return readings
    items = look_up(payload, kind.beside.path)
    for number, item in enumerate(items if isinstance(items, list) else ()):
        if isinstance(item, Mapping) and item.get("type") not in kind.beside.included:
            place = f"{kind.beside.path}[{number}]"
            read = _read(kind, {kind.beside.path.partition(".")[0]: item})
            findings = [Finding(f"{place} {found.path}", found.quantity, found.why) for found in read.findings]
            model = item.get("model")
            named = model if isinstance(model, str) else ""
            readings.append(Reading(read.gross, read.meters, findings, place, named))
    return readings


def look_up(payload: object, path: str) -> object:
    """The value at a path, or None. A name may itself hold dots, as OpenTelemetry's do: the longest there is wins."""
    if not isinstance(payload, Mapping):
        return None
    if path in payload:
        return payload[path]
    name = path
    while "." in name:
        name = name.rpartition(".")[0]
        if name in payload:
            return look_up(payload[name], path[len(name) + 1 :])
    return None


def _read(kind: Kind, payload: Mapping[str, object]) -> Reading:
    found: dict[str, int] = {}
    findings: dict[str, Finding] = {}
    for path, value in _leaves(kind, payload):
        if path in kind.row_of:
            found[path] = found.get(path, 0) + count(path, value)
        elif not kind.is_inert(path) and _looks_like_count(kind, path, value):
            earlier = findings[path].quantity if path in findings else 0
            findings[path] = Finding(path, earlier + (_whole(value) or 0), "looks like a count, and no row reads it")
    if not found:
        places = ", ".join(kind.roots or sorted(kind.row_of))
        raise PayloadError(f"it has nothing that this kind of payload counts in ({places}); is it of another kind?")
    gross = _gross(kind, found, findings)
    _find_overlap(gross, findings)
    meters = meters_of(gross)
    for meter, quantity in meters.items():
        if not 0 <= quantity <= QUANTITY_MAX:
            said = ", ".join(f"{path} {number}" for path, number in found.items() if number)
            raise PayloadError(f"{meter} would be {quantity}: its numbers contradict each other ({said})")
    parts = gross.get("input", 0) + gross.get("output", 0)
    if gross.get("total", 0) not in (0, parts):
        why = f"is not the {parts} that input and output come to"
        findings["total"] = Finding("the provider's total", gross["total"], why)
    return Reading(
        {name: quantity for name, quantity in gross.items() if quantity and name != "total"},
        {meter: quantity for meter, quantity in meters.items() if quantity},
        list(findings.values()),
    )


def _gross(kind: Kind, found: Mapping[str, int], findings: dict[str, Finding]) -> dict[str, int]:
    """{class: quantity}: of each row the first of its names that is there; the others have to say the same."""
    gross: dict[str, int] = {}
    for path, quantity in found.items():
        names, classes = kind.row_of[path]
        first = path if names[0] == path else next(name for name in names if name in found)
        if first == path:
            for name in classes:
                gross[name] = gross.get(name, 0) + quantity
        elif quantity != found[first]:
            why = f"is not the {found[first]} of {first}, which was read in its place"
            findings[path] = Finding(path, quantity, why)
    return gross


def _find_overlap(gross: dict[str, int], findings: dict[str, Finding]) -> None:
    """Cached tokens may be audio, and not every provider says how many are. Where both together are more than the
    input, so many at least are both; as many are taken for it, and that is said."""
    short = -meters_of(gross).get("input_tokens", 0) if "cached_input" in gross else 0
    for encoding in ("audio", "image", "video"):
        both = min(short, gross.get("cached_input", 0), gross.get(f"input_{encoding}", 0))
        if both > 0 and f"cached_{encoding}" not in gross:
            gross[f"cached_{encoding}"] = both
            short -= both
            why = "must be, of the cached tokens; whether more are, the payload does not say"
            findings[encoding] = Finding(f"cached {encoding}", both, why)


def _leaves(kind: Kind, payload: Mapping[str, object]) -> Iterator[tuple[str, object]]:
    """(path, value) of whatever is neither null nor holds other values: all of it where usage stands, elsewhere the
    upper levels."""
    pending: list[tuple[str, object, int]] = [(name, payload[name], 1) for name in reversed(list(payload))]
    while pending:
        path, value, depth = pending.pop()
        if isinstance(value, dict):
            if depth < _DEPTH_OUTSIDE or _is_near(kind.roots, path):
                pending.extend((f"{path}.{name}", value[name], depth + 1) for name in reversed(list(value)))
        elif isinstance(value, list):
            if _is_near(kind.roots, path) and (kind.beside is None or path != kind.beside.path):
                pending.extend((f"{path}[{_tag(item)}]", item, depth + 1) for item in reversed(value))
        elif value is not None:
            yield path, value


@lru_cache(4096)
def _is_near(roots: tuple[str, ...], path: str) -> bool:
    """Whether usage stands at, above or beneath a path."""
    return any(f"{root}.".startswith(f"{path}.") or _is_in(root, path) for root in roots)


def _is_in(root: str, path: str) -> bool:
    return path.startswith(root) and path[len(root) : len(root) + 1] in ("", ".", "[")


def _tag(item: object) -> str:
    found = [item[name] for name in _TAGS if name in item] if isinstance(item, Mapping) else []
    return found[0] if found and isinstance(found[0], str) else ""


def count(path: str, value: object) -> int:
    """A quantity: an integer, digits in a string (protobuf writes 64 bits so), or a number without a fraction (as its
    structs do). Raises PayloadError for anything else."""
    quantity = _whole(value)
    if quantity is None or quantity < 0:
        raise PayloadError(f"{path} is {value!s:.40}, which counts nothing")
    return quantity


def _whole(value: object) -> int | None:
    """The integer that a value says, or None."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    text = str(value)
    if len(text) > _DIGITS_MAX or (isinstance(value, str) and not (text.isascii() and text.isdigit())):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:  # it is no number at all
        return None
    return int(number) if number.is_finite() and number.adjusted() < _DIGITS_MAX and number == int(number) else None


def _looks_like_count(kind: Kind, path: str, value: object) -> bool:
    """Whether a value without a row may be usage: a whole number where usage stands, and anywhere one that is named
    after tokens; unless its name says that it is a setting, money or a duration."""
    if _whole(value) is None:
        return False
    words = {word.lower() for word in _WORD.findall(path.rpartition(".")[2])}
    if words & _NO_USAGE:
        return False
    return bool(words & _TOKENS) or any(_is_in(root, path) for root in kind.roots)
