"""Rejected events by any filter, and what has become of them."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from flow.store import StoreClient
from flow.store.queries.rejected import Filter, groups, notes, payload_slices, payloads, rejected

SEEN_US = 1_772_366_400_000_000
InsertRows = Callable[[str, Sequence[dict[str, Any]]], None]

REASONS = ["MISSING_ID", "INVALID_UTF8", "MISSING_ID", "INVALID_JSON", "MISSING_ID", "MISSING_ID", "MISSING_ID"]
PAYLOADS = [b"{}", b"\xff'\\\x00", b'{"a": 1}', b"x" * 9_000_000, b"[]", b"", b"{}"]
OUTCOMES = ["open", "fixed", "waiting", "accepted", "duplicate", "rejected", "late"]


@pytest.fixture
def filled(client: StoreClient, insert_rows: InsertRows) -> StoreClient:
    """Seven rejected events, one of each status."""

    def key(number: int) -> dict[str, Any]:
        return {"seen_at": SEEN_US + number, "source_position": f"a/{number}.ndjson:0"}

    def insert(table: str, **columns: list[Any]) -> None:
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        insert_rows(table, rows)

    events = [
        {**key(n), "reason": reason, "detail": f"Détail of {n}", "payload": payload}
        for n, (reason, payload) in enumerate(zip(REASONS, PAYLOADS, strict=True))
    ]
    insert_rows("rejected_events", events)
    fixes = [(1, 5, b"first"), (1, 9, b"last \xff"), (1, 7, b"between"), (3, 6, b"fix")]
    who = {"author": "Ann", "reason": "why"}
    insert_rows("rejected_fixes", [{**key(n), "created": at, "payload": payload, **who} for n, at, payload in fixes])
    back = [
        {**key(n), "created": 10, "payload": b"back", "author": "Bob", "reason": "b", "file": "1.ndjson", "position": n}
        for n in range(2, 7)
    ]
    insert_rows("redrives", back)
    came = [
        {"seen_at": SEEN_US, "file": "1.ndjson", "position": n, "outcome": OUTCOMES[n], "source": "", "id": ""}
        | {"reason": "INVALID_TIME" if OUTCOMES[n] == "rejected" else ""}
        for n in range(3, 7)
    ]
    insert_rows("inbox_events", came)
    return client


def numbers(client: StoreClient, limit: int = 100, **given: Any) -> list[int]:
    return [event.seen_at_us - SEEN_US for event in rejected(client, Filter(**given), limit)]


def test_each_event_has_its_status(filled: StoreClient) -> None:
    found = rejected(filled, Filter(), 100)
    assert [event.status for event in found] == OUTCOMES
    assert [event.reason for event in found] == REASONS
    assert [event.payload_bytes for event in found] == [len(payload) for payload in PAYLOADS]
    assert [event.rejected_again_for for event in found] == ["", "", "", "", "", "INVALID_TIME", ""]
    as_null = filled.rows("SELECT status FROM rejected_outcomes ORDER BY seen_at SETTINGS join_use_nulls = 1")
    assert [status for (status,) in as_null] == OUTCOMES
    assert [event.inbox_position for event in found[1:4]] == ["", "inbox/1.ndjson:2", "inbox/1.ndjson:3"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"reasons": ("INVALID_UTF8", "INVALID_JSON")}, [1, 3]),
        ({"prefix": "a/4"}, [4]),
        ({"prefix": "b"}, []),
        ({"position": "a/4.ndjson:0"}, [4]),
        ({"position": "a/4"}, []),
        ({"from_us": SEEN_US + 2, "before_us": SEEN_US + 4}, [2, 3]),
        ({"text": "DÉTAIL of 5"}, [5]),
        ({"text": "%"}, []),
        ({"statuses": ("open", "late")}, [0, 6]),
        ({"statuses": ("open",), "reasons": ("INVALID_JSON",)}, []),
        ({"limit": 2}, [0, 1]),
        ({"prefix": "a' OR 1 --"}, []),
    ],
)
def test_filters(filled: StoreClient, given: dict[str, Any], expected: list[int]) -> None:
    assert numbers(filled, **given) == expected


def test_groups_count_by_reason(filled: StoreClient) -> None:
    found = groups(filled, Filter())
    assert [(group.reason, group.events, group.can_go_back) for group in found] == [
        ("MISSING_ID", 5, 1),
        ("INVALID_JSON", 1, 0),
        ("INVALID_UTF8", 1, 1),
    ]
    assert found[0].first_seen < found[0].last_seen
    assert found[1].example == "Détail of 3"
    assert groups(filled, Filter(text="nothing")) == []


def test_payloads_are_as_they_were(filled: StoreClient) -> None:
    events = rejected(filled, Filter(), 100)
    found = list(payloads(filled, Filter(), events, 1000))
    assert [payload for _, payload, _ in found] == [p if len(p) <= 1000 else None for p in PAYLOADS]
    assert [fix for _, _, fix in found] == [None, b"last \xff", None, b"fix", None, None, None]
    assert [payload for _, payload, _ in payloads(filled, Filter(), events[1:3], 1000)] == PAYLOADS[1:3]
    assert b"".join(payload_slices(filled, events[3])) == PAYLOADS[3]
    assert [len(piece) for piece in payload_slices(filled, events[3], 5_000_000)] == [1 << 22, 5_000_000 - (1 << 22)]
    assert b"".join(payload_slices(filled, events[1])) == PAYLOADS[1]


def test_what_was_done_is_told_in_order(filled: StoreClient) -> None:
    events = rejected(filled, Filter(), 100)
    assert [note.payload for note in notes(filled, events[1])] == [b"first", b"between", b"last \xff"]
    done = [(note.what, note.author, note.created_us) for note in notes(filled, events[3])]
    assert done == [("fixed", "Ann", 6), ("redriven", "Bob", 10)]
    assert notes(filled, events[0]) == []
