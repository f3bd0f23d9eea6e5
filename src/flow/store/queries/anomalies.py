"""Anomalies as they are now, and what people say about them."""

from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from ..client import StoreClient

_COLUMNS = (
    "id, kind, customer, project, model, source, window_start, unit, seen, expected, low, high, score, rule, writers, "
    "found_at, status, author, note, changed_at"
)


@dataclass(frozen=True, slots=True)
class Anomaly:
    """A row of `anomalies_now`; times are UTC."""

    id: str
    kind: str
    customer: str
    project: str
    model: str
    source: str
    window_start: datetime
    unit: str
    seen: Decimal
    expected: Decimal
    low: Decimal
    high: Decimal
    score: Decimal
    rule: str
    writers: int
    found_at: datetime
    status: str
    author: str
    """Of the last status; empty: nobody has said anything."""
    note: str
    changed_at: datetime


def anomalies(
    client: StoreClient,
    from_s: int,
    before_s: int,
    status: str | None = None,
    kind: str | None = None,
    customer: str | None = None,
) -> list[Anomaly]:
    """Of hours that start in [from_s, before_s), the latest and furthest out of line first. Raises StoreError."""
    given = {"status": status, "kind": kind, "customer": customer}
    wanted = {name: value for name, value in given.items() if value is not None}
    conditions = [f"{name} = {{{name}:String}}" for name in wanted]
    conditions += ["window_start >= toDateTime({from_s:UInt32}, 'UTC')"]
    conditions += ["window_start < toDateTime({before_s:UInt32}, 'UTC')"]
    return _read(
        client,
        " AND ".join(conditions),
        {
            "from_s": from_s,
            "before_s": before_s,
            **{name: value for name, value in wanted.items() if value is not None},
        },
    )


def anomaly(client: StoreClient, id_: str) -> Anomaly | None:
    """One of them. Raises StoreError."""
    found = _read(client, "id = {id:String}", {"id": id_})
    return found[0] if found else None


def _read(client: StoreClient, condition: str, parameters: dict[str, Any]) -> list[Anomaly]:
    rows = client.rows(
        f"SELECT {_COLUMNS} FROM anomalies_now WHERE {condition} ORDER BY window_start DESC, score DESC, id", parameters
    )
    return [Anomaly(*row) for row in rows]


@dataclass(frozen=True, slots=True)
class Said:
    """A status that somebody gave."""

    status: str
    author: str
    note: str
    changed_at: datetime


def history(client: StoreClient, id_: str) -> list[Said]:
    """What people have said of an anomaly, in order. Raises StoreError."""
    rows = client.rows(
        "SELECT status, author, note, changed_at FROM anomalies WHERE id = {id:String} AND writer = '' "
        "ORDER BY changed_at",
        {"id": id_},
    )
    return [Said(*row) for row in rows]


def say(client: StoreClient, found: Anomaly, status: str, author: str, note: str) -> None:
    """Appends a status. Raises StoreError."""
    client.command(
        "INSERT INTO anomalies (id, kind, customer, project, model, source, window_start, unit, rule, status, author, "
        "note, changed_at) VALUES ({id:String}, {kind:String}, {customer:String}, {project:String}, {model:String}, "
        "{source:String}, toDateTime({window_start:String}, 'UTC'), {unit:String}, {rule:String}, {status:String}, "
        "{author:String}, {note:String}, now64(6))",
        {
            **{name: getattr(found, name) for name in ("id", "kind", "customer", "project", "model", "source")},
            "window_start": f"{found.window_start:%Y-%m-%d %H:%M:%S}",
            "unit": found.unit,
            "rule": found.rule,
            "status": status,
            "author": author,
            "note": note,
        },
    )


def open_anomalies(client: StoreClient) -> dict[str, int]:
    """How many are open, of each kind. Raises StoreError."""
    rows = client.rows("SELECT kind, count() FROM anomalies_now WHERE status = 'open' GROUP BY kind ORDER BY kind")
    return {str(kind): int(count) for kind, count in rows}
