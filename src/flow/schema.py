"""Every Arrow schema that crosses a room's wall, once. The ClickHouse tables are in `store/ddl/*.sql`."""

import pyarrow as pa

DIMENSIONS = ("customer", "project", "feature", "model", "region", "service_tier")
"""The dimensions of an event, in the order in which they are hashed and stored."""

STANDARD_METERS = (
    "input_tokens",
    "cached_input_tokens",
    "cache_write_tokens",
    "output_tokens",
    "reasoning_tokens",
)
"""The disjoint token classes of DESIGN 3.1; any `[a-z][a-z0-9_]*` is a meter besides."""

REQUESTS = "requests"
"""The implicit meter: 1 an event."""

_TEXT = pa.dictionary(pa.int32(), pa.string())

USAGE = pa.list_(
    pa.field(
        "item",
        pa.struct([pa.field("meter", _TEXT, nullable=False), pa.field("quantity", pa.int64(), nullable=False)]),
        nullable=False,
    )
)

EVENTS = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", _TEXT, nullable=False),
        pa.field("event_time_us", pa.int64(), nullable=False),  # microseconds since 1970-01-01T00:00:00Z
        *[pa.field(name, _TEXT, nullable=False) for name in DIMENSIONS],
        pa.field("usage", USAGE, nullable=False),  # one item a meter, no meter twice, in any order
        pa.field("position", pa.int64(), nullable=False),  # within the batch's origin: byte offset, row or offset
    ]
)
"""Decoded, validated events. No column has nulls, no array has an offset, a batch is one chunk."""

REJECTED = pa.schema(
    [
        pa.field("source_position", pa.string(), nullable=False),  # origin:position
        pa.field("reason", pa.string(), nullable=False),  # a RejectReason's name
        pa.field("detail", pa.string(), nullable=False),
        pa.field("payload", pa.binary(), nullable=False),  # the original bytes; for a columnar row, its JSON
    ]
)

LEDGER = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        *[pa.field(name, pa.string(), nullable=False) for name in DIMENSIONS],
        pa.field("usage", pa.map_(pa.string(), pa.field("value", pa.int64(), nullable=False)), nullable=False),
        pa.field("source_position", pa.string(), nullable=False),
    ]
)
"""One accepted event a row, as kept in the ledger's Parquet files."""
