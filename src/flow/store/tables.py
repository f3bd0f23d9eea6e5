"""The Arrow schema of every storage table, as its blocks are written to the outbox. The DDL is in
ddl/.

128-bit integers are fixed_size_binary(16), little endian; DateTime is uint32 seconds; DateTime64(6) is
microseconds.
"""

import pyarrow as pa

_TEXT = pa.dictionary(pa.int32(), pa.string())
_WIDE = pa.binary(16)
_INSTANT = pa.timestamp("us", tz="UTC")
SLOTS = 4
"""Meters a storage row holds; an event with more has more than one key."""


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, column, nullable=False) for name, column in columns.items()])


def _rollup(*dimensions: str) -> pa.Schema:
    """Codes may also be int8 or int16."""
    return _schema(
        customer=_TEXT,
        window_start=pa.uint32(),  # seconds since 1970-01-01T00:00:00Z
        key=_WIDE,
        **dict.fromkeys(dimensions, _TEXT),
        currency=_TEXT,
        meters=_TEXT,  # SLOTS names joined by commas, '' for an empty slot
        unpriced=pa.uint8(),
        events=pa.uint64(),
        digest=_WIDE,
        **{f"q{slot}": _WIDE for slot in range(SLOTS)},
        **{f"a{slot}": pa.decimal128(38, 15) for slot in range(SLOTS)},
    )


ROLLUPS = {
    "rollup_minute": _rollup("project", "feature", "model", "region", "service_tier"),
    "rollup_day": _rollup("feature", "region", "service_tier"),
}

REJECTED_EVENTS = _schema(
    seen_at=_INSTANT, source_position=pa.string(), reason=_TEXT, detail=pa.string(), payload=pa.binary()
)

CONFLICTING_EVENTS = _schema(
    seen_at=_INSTANT,
    source_position=pa.string(),
    source=_TEXT,
    id=pa.string(),
    event_time=_INSTANT,
    fingerprint=_WIDE,
    payload=pa.binary(),
)

LATE_EVENTS = _schema(
    seen_at=_INSTANT,
    source_position=pa.string(),
    source=_TEXT,
    id=pa.string(),
    event_time=_INSTANT,
    watermark=_INSTANT,
    payload=pa.binary(),
)

PIPELINE_BALANCE = _schema(
    lineage=pa.string(),
    writer=pa.string(),
    block=pa.uint64(),
    shard=pa.string(),
    read=pa.uint64(),
    accepted=pa.uint64(),
    duplicate=pa.uint64(),
    conflicting=pa.uint64(),
    rejected=pa.uint64(),
    late=pa.uint64(),
)

CORRECTIONS = _schema(
    customer=_TEXT,
    window_start=pa.uint32(),
    meter=_TEXT,
    id=_TEXT,
    kind=_TEXT,
    currency=_TEXT,
    quantity=_WIDE,
    unpriced_quantity=_WIDE,
    amount=pa.decimal128(38, 15),
    amount_remainder=_WIDE,
    reason=_TEXT,
    author=_TEXT,
    book_before=_TEXT,
    book_after=_TEXT,
    created=_INSTANT,
    corrects=pa.string(),
)

FLAGGED_EVENTS = _schema(
    seen_at=_INSTANT,
    source_position=pa.string(),
    rule=_TEXT,
    severity=_TEXT,
    detail=pa.string(),
    customer=_TEXT,
    source=_TEXT,
    id=pa.string(),
    event_time=_INSTANT,
)

LATE_RESOLUTIONS = _schema(
    created=_INSTANT,
    seen_at=_INSTANT,
    source_position=pa.string(),
    source=_TEXT,
    id=pa.string(),
    decision=_TEXT,
    counted=pa.string(),
    author=pa.string(),
    reason=pa.string(),
    file=pa.string(),
)

INBOX_EVENTS = _schema(
    seen_at=_INSTANT,
    file=pa.string(),
    position=pa.uint64(),
    outcome=_TEXT,
    reason=_TEXT,
    source=_TEXT,
    id=_TEXT,
)

WATERMARKS = _schema(
    lineage=pa.string(),
    writer=pa.string(),
    block=pa.uint64(),
    began=_INSTANT,
    watermark=_INSTANT,
    seen_at=_INSTANT,
)

ARRIVALS = _schema(
    customer=_TEXT,
    window_start=pa.uint32(),
    began=_INSTANT,
    currency=_TEXT,
    events=pa.uint64(),
    amount=pa.decimal128(38, 15),
    lineage=pa.string(),
    writer=pa.string(),
    block=pa.uint64(),
    seen_at=_INSTANT,
)

REJECTED_FIXES = _schema(
    created=_INSTANT,
    seen_at=_INSTANT,
    source_position=pa.string(),
    payload=pa.binary(),
    author=pa.string(),
    reason=pa.string(),
)

REDRIVES = _schema(
    created=_INSTANT,
    seen_at=_INSTANT,
    source_position=pa.string(),
    payload=pa.binary(),
    author=pa.string(),
    reason=pa.string(),
    file=pa.string(),
    position=pa.uint64(),
)

ANOMALIES = _schema(
    id=pa.string(),
    kind=_TEXT,
    customer=_TEXT,
    project=_TEXT,
    model=_TEXT,
    source=_TEXT,
    window_start=pa.uint32(),
    unit=_TEXT,
    seen=pa.decimal128(38, 15),
    expected=pa.decimal128(38, 15),
    low=pa.decimal128(38, 15),
    high=pa.decimal128(38, 15),
    score=pa.decimal128(18, 3),
    rule=_TEXT,
    status=_TEXT,
    author=pa.string(),
    note=pa.string(),
    lineage=pa.string(),
    writer=_TEXT,
    block=pa.uint64(),
    changed_at=_INSTANT,
)

LEFT_OUT = {
    **{table: {"events", "digest", *(f"q{slot}" for slot in range(SLOTS))} for table in ROLLUPS},
    "corrections": {"quantity", "unpriced_quantity", "amount_remainder", "corrects"},
}
"""Columns that a file may be without, which are then 0 or empty in all its rows, as in many correction deltas."""

LINEAGES = _schema(lineage=pa.string(), created=_INSTANT, state_dir=pa.string(), currency=pa.string())

TABLES: dict[str, pa.Schema] = {
    **ROLLUPS,
    "rejected_events": REJECTED_EVENTS,
    "conflicting_events": CONFLICTING_EVENTS,
    "late_events": LATE_EVENTS,
    "pipeline_balance": PIPELINE_BALANCE,
    "corrections": CORRECTIONS,
    "flagged_events": FLAGGED_EVENTS,
    "inbox_events": INBOX_EVENTS,
    "late_resolutions": LATE_RESOLUTIONS,
    "watermarks": WATERMARKS,
    "arrivals": ARRIVALS,
    "rejected_fixes": REJECTED_FIXES,
    "redrives": REDRIVES,
    "anomalies": ANOMALIES,
    "lineages": LINEAGES,
}
