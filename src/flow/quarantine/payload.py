"""A rejected payload as a line that a run would read: whether it would be accepted now, and what is wrong if not."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import RejectReason
from ..rules.book import RuleBook
from ..rules.checker import NO_CLOCK_US, Checker
from ..schema import DIMENSIONS
from ..steps.batches import Decoded, Limits, Lines
from ..steps.check import check as hold_to_rules
from ..steps.decode import decode
from ..steps.decode_json import is_meter_name
from ..steps.inbox_rows import ORIGIN
from .json_text import Members, Number, changed, parse, write

PIECES = (RejectReason.TRUNCATED_INPUT.name, RejectReason.INVALID_ARROW.name)
"""Reasons of payloads that are no events, but what was left of an input that could not be read."""

_UNREADABLE = "unreadable: "  # how steps/row_json.py writes a value that it cannot read
_ARROW_MESSAGE = re.compile(r"\[\d+\]:\d+:\d+$")  # topic[partition]:offset:row
_TABLES = (".parquet", ".arrow", ".feather", ".ipc")
_COLUMNS = ("id", "source", "time", *DIMENSIONS)


@dataclass(frozen=True, slots=True)
class Checked:
    """What a run would make of a payload now."""

    line: bytes | None
    """The event on one line, without its end, if it would be accepted."""
    reason: str = ""
    """A RejectReason's name, if not."""
    detail: str = ""


@dataclass(frozen=True)
class Gate:
    """What a run holds an event of the inbox against."""

    limits: Limits
    rules: RuleBook | None = None

    @cached_property
    def _checker(self) -> Checker | None:
        return Checker(self.rules.rules) if self.rules is not None and self.rules.rules else None

    def decoded(self, lines: bytes, now_us: int) -> Decoded:
        """Whole lines. As in a run, clocks say nothing of events of the inbox, which were read before."""
        decoded = decode(Lines(ORIGIN, 0, lines), self.limits, now_us)
        if self._checker is None or self.rules is None:
            return decoded
        return hold_to_rules(decoded, self._checker, self.rules.label, NO_CLOCK_US)[0]


@dataclass(frozen=True, slots=True)
class Edit:
    """One change to a payload; `value` None takes the field out."""

    path: tuple[str, ...]
    value: object | None


def is_row(source_position: str, reason: str, format: str) -> bool:
    """Whether what was rejected there was the row of a table, of which the payload is JSON; `format`: of the source."""
    if reason == RejectReason.RULE.name:
        return False  # a rule leaves the event itself, whatever it came as
    if _ARROW_MESSAGE.search(source_position):
        return True
    suffix = Path(source_position.rpartition(":")[0]).suffix.lower()
    return suffix in _TABLES or (format in ("parquet", "arrow") and not source_position.startswith(ORIGIN))


def original(payload: bytes, reason: str, detail: str, limits: Limits, *, row: bool = False) -> bytes:
    """A payload as it was rejected, as an event. The `row` of a table is JSON of its columns, and becomes a flat event.

    Raises ValueError if somebody has to say more.
    """
    if reason in PIECES:
        raise ValueError(f"{detail}; it is a piece of an input and no event: give it whole, by a fix")
    event = _of_columns(payload, limits) if row else None
    if event is None:
        return payload
    if reason == RejectReason.SCHEMA_MISMATCH.name and "binary" in detail:
        raise ValueError(f"{detail}; what its bytes mean as text has to be said, by a fix")
    unreadable = [name for name, value in event if isinstance(value, str) and value.startswith(_UNREADABLE)]
    if unreadable:
        raise ValueError(f"{detail}; column {unreadable[0]} could not be read: give its value, by a fix")
    return write(event).encode()


def check(payloads: Sequence[bytes], gate: Gate, now_us: int) -> list[Checked]:
    """Events, each of which has to stand on one line; by the decoder of a run, all in one batch."""
    found: list[Checked] = []
    places: dict[int, int] = {}  # byte of the joined lines: number of the payload
    joined = bytearray()
    for number, payload in enumerate(payloads):
        line = payload.strip(b" \t\r\n")
        if not line:
            found.append(Checked(None, RejectReason.INVALID_JSON.name, "it is empty"))
        elif b"\n" in line:
            found.append(Checked(None, RejectReason.INVALID_JSON.name, "it has several lines; an event stands on one"))
        else:
            found.append(Checked(line))
            places[len(joined)] = number
            joined += line + b"\n"
    for rejected in gate.decoded(bytes(joined), now_us).rejected.to_pylist():
        place = int(rejected["source_position"].rpartition(":")[2])
        found[places[place]] = Checked(None, rejected["reason"], rejected["detail"])
    return found


def edited(payload: bytes, edits: Sequence[Edit], limits: Limits, *, row: bool = False) -> bytes:
    """A payload with some fields changed, on one line; the `row` of a table is a flat event first.

    Raises ValueError if it is not JSON, or a field cannot be set.
    """
    try:
        event = (_of_columns(payload, limits) if row else None) or parse(payload)
    except ValueError as error:
        raise ValueError(f"the payload is not JSON ({error}), so no field of it can be set: give it whole") from None
    for edit in edits:
        event = changed(event, edit.path, edit.value)
    return write(event).encode()


def _of_columns(payload: bytes, limits: Limits) -> Members | None:
    """The row of a table as a flat event, with the columns that decode takes for meters in `usage`; None for others.

    Of a number that is no integer the decoder then says that it is none, where it has the name of a known meter.
    """
    try:
        row = parse(payload)
    except ValueError:
        return None
    if not isinstance(row, Members):
        return None
    event = Members((name, value) for name, value in row if name in _COLUMNS and value is not None)
    usage = Members(
        (name, value)
        for name, value in row
        if name not in _COLUMNS and value is not None and _is_meter(name, value, limits)
    )
    event.append(("usage", usage))
    return event


def _is_meter(name: str, value: object, limits: Limits) -> bool:
    integer = isinstance(value, Number) and value.removeprefix("-").isdigit()
    return name in limits.known_meters or (integer and is_meter_name(name))
