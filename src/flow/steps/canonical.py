"""One event as canonical JSON: how events that are set aside are kept."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ..schema import DIMENSIONS


def instant(time_us: int) -> datetime:
    """Microseconds since 1970 as a datetime in UTC."""
    return datetime.fromtimestamp(time_us // 1_000_000, UTC).replace(microsecond=time_us % 1_000_000)


def canonical(event: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> bytes:
    """A row of EVENTS in Python's own values as one flat JSON event, its meters by name; `more`: further fields."""
    usage = {item["meter"]: item["quantity"] for item in event["usage"]}
    time = instant(event["event_time_us"]).isoformat().replace("+00:00", "Z")
    payload = {"id": event["id"], "source": event["source"], "time": time}
    payload |= {name: event[name] for name in DIMENSIONS} | {"usage": dict(sorted(usage.items()))} | dict(more or {})
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()
