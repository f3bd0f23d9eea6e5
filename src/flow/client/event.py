"""One event as the line that is kept and sent: the flat JSON form of DESIGN 3.1."""

import json
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

from ..errors import EventError
from ..schema import DIMENSIONS, REQUESTS

QUANTITY_MAX = 2**63 - 1
EVENT_BYTES_MAX = 64 * 1024
"""The default of `limits.event_bytes_max`, above which a run rejects an event."""

_METER = re.compile(r"[a-z][a-z0-9_]{0,63}")


def event_line(
    usage: Mapping[str, int], source: str, id: str | None, time: datetime | None, dimensions: Mapping[str, str]
) -> bytes:
    """The event in JSON, without a line end. No id: a random one. No time: now.

    Raises EventError, with all that is wrong, for what a run would reject: the caller is here to mend it, the run not.
    """
    instant = datetime.now(UTC) if time is None else time
    errors = [*_wrong_usage(usage), *_wrong_dimensions(dimensions)]
    if id == "":
        errors.append("id: empty")
    if instant.utcoffset() is None:
        errors.append(f"time: {instant} has no UTC offset")
    if errors:
        raise EventError("; ".join(errors))
    event = {
        "id": uuid.uuid4().hex if id is None else id,
        "source": source,
        "time": instant.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
        **{name: text for name, text in dimensions.items() if text},
        "usage": dict(usage),
    }
    try:
        line = json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError as error:
        raise EventError(f"a text of it is no Unicode: {error}") from error
    if len(line) > EVENT_BYTES_MAX:
        raise EventError(f"{len(line)} bytes long; {EVENT_BYTES_MAX} is the most")
    return line


def _wrong_usage(usage: Mapping[str, int]) -> list[str]:
    if not usage:
        return ["usage: names no meter"]
    errors = []
    for meter, quantity in usage.items():
        if not isinstance(meter, str) or not _METER.fullmatch(meter) or meter == REQUESTS:
            errors.append(f"usage: {meter!r} is no name of a meter ([a-z][a-z0-9_]*, and not {REQUESTS!r})")
        if not isinstance(quantity, int) or isinstance(quantity, bool) or not 0 <= quantity <= QUANTITY_MAX:
            errors.append(f"usage: {meter} is {quantity!r}, not an integer from 0 to {QUANTITY_MAX}")
    return errors


def _wrong_dimensions(dimensions: Mapping[str, str]) -> list[str]:
    errors = [
        f"{name}: no dimension; there are {', '.join(DIMENSIONS)}" for name in dimensions if name not in DIMENSIONS
    ]
    errors += [f"{name}: {text!r} is no text" for name, text in dimensions.items() if not isinstance(text, str)]
    if not dimensions.get("customer"):
        errors.append("customer: missing")
    return errors
