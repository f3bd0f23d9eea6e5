"""Every Arrow schema that crosses a room's wall, once. The ClickHouse tables are in `store/ddl/*.sql`."""

import math

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

PER_OF_ALL = math.lcm(*range(1, 74)) * 300
"""Every denominator of a rate divides this one, so that amounts of different denominators have a common one; it has
2^8, 3^4, 5^4, 7^2 and every prime up to 73: thirds, yuan at a seventh, hours of a year, percents of percents."""


def meter_and_per(name: str) -> tuple[str, int]:
    """What the store calls `meter` has amounts in 10^-15 currency units; `meter/per`, in 10^-15 / per."""
    meter, _, per = name.partition("/")
    return meter, int(per or 1)


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

FLAGS = pa.schema(
    [
        pa.field("row", pa.uint32(), nullable=False),  # of the batch of EVENTS beside it, ascending
        pa.field("rule", pa.string(), nullable=False),
        pa.field("severity", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
    ]
)
"""Rules that events fail and go on; a row for each of both."""

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
"""One accepted event a row, as whoever reads the ledger gets it (`state/ledger_file.py`)."""

AMENDS = pa.field("amends", pa.string())
"""Of a file that has corrections, or late events that were billed: for those, JSON of why (`steps/amend.py`); null for
every other event. The quantities of a correction are differences."""

LEDGER_AMENDED = LEDGER.append(AMENDS)

LEDGER_USAGE = pa.map_(_TEXT, LEDGER.field("usage").type.item_field)

LEDGER_FILE = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", _TEXT, nullable=False),
        LEDGER.field("time"),
        *[pa.field(name, _TEXT, nullable=False) for name in DIMENSIONS],
        *[pa.field(meter, pa.int64()) for meter in STANDARD_METERS],  # null: the event has none
        pa.field(
            "source_position",
            pa.struct(
                [
                    pa.field("origin", _TEXT, nullable=False),
                    pa.field("position", pa.int64(), nullable=False),
                    pa.field("message_byte", pa.int32(), nullable=False),  # 0: the message's first event, or no message
                ]
            ),
            nullable=False,
        ),
    ]
)
"""LEDGER as its Parquet files have it, in columns that are cheap to write. Dictionaries become texts there."""

OTHER_USAGE = pa.field("other_usage", LEDGER_USAGE)
"""Of a ledger file that has events with other meters than the standard ones: those; null where there are none."""
