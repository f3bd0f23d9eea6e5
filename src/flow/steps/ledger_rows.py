"""Accepted events as rows of the ledger's files."""

import pyarrow as pa

from ..kernels import Rows
from ..kernels.ledger import spread_usage
from ..kernels.pages import picked
from ..schema import AMENDS, DIMENSIONS, LEDGER_FILE, LEDGER_USAGE, OTHER_USAGE, STANDARD_METERS
from .batches import places, zeros
from .route import Routed

_TAKEN = ("id", "source", "event_time_us", *DIMENSIONS, "position")


def ledger_rows(routed: Routed, rows: Rows, count: int) -> tuple[pa.RecordBatch, Rows, int]:
    """The selected events of a batch as LEDGER_FILE, with OTHER_USAGE and AMENDS where there is any.

    They are a selection of the batch that is returned: where most events are selected, nothing is copied.
    """
    taken, texts = routed.events.select(_TAKEN), None if routed.amends is None else routed.amends.texts
    if count == taken.num_rows:
        rows = None  # a selection keeps the order
    if 2 * count < taken.num_rows:
        taken, texts = picked(taken, rows, count), None if texts is None else picked(texts, rows, count)
        meters, others = spread_usage(routed.events, rows, count, STANDARD_METERS)
        rows = None
    else:
        meters, others = spread_usage(routed.events, None, taken.num_rows, STANDARD_METERS)
    columns = [
        taken.column("id"),
        taken.column("source"),
        taken.column("event_time_us").cast(pa.timestamp("us", tz="UTC")),
        *(taken.column(name) for name in DIMENSIONS),
        *meters,
        _source_position(routed, taken.column("position")),
    ]
    schema = LEDGER_FILE
    if others is not None:
        usage = others.values.field("meter"), others.values.field("quantity")
        columns.append(pa.MapArray.from_arrays(others.offsets, *usage, type=LEDGER_USAGE))
        schema = schema.append(OTHER_USAGE)
    if texts is not None:
        columns.append(texts)
        schema = schema.append(AMENDS)
    return pa.RecordBatch.from_arrays(columns, schema=schema), rows, count


def _source_position(routed: Routed, positions: pa.Int64Array) -> pa.StructArray:
    position, message_byte = places(positions, routed.messages)
    codes = zeros(len(positions))
    origins = pa.DictionaryArray.from_arrays(codes, pa.array([routed.origin]), safe=False)  # 0 need not be looked for
    return pa.StructArray.from_arrays(
        [origins, position, message_byte],
        fields=list(LEDGER_FILE.field("source_position").type),
    )
