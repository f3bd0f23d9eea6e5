"""The only door to the native package: typed wrappers, Arrow in, Arrow out; addresses are taken only here.

Every wrapper checks lengths and holds on to the buffers that a kernel reads until it returns.
"""

from pathlib import Path

import pyarrow as pa

import _core
from _core import decode as _decode

from .schema import EVENTS, USAGE

if _core.ABI != 1 or Path(_core.__file__).parent.parent != Path(__file__).parent.parent:
    raise ImportError(f"{_core.__file__} is not the native part of {__file__}; run `make build`")


# --- decode --------------------------------------------------------------------------------------------

LineParser = _decode.LineParser


def usage_lists(
    rows: int, offsets: pa.Buffer, meters: pa.Buffer, quantities: pa.Buffer, items: int, names: pa.Array
) -> pa.Array:
    """The `usage` column of EVENTS: i32 offsets (rows + 1); an i32 meter and an i64 quantity an item."""
    codes = pa.Array.from_buffers(pa.int32(), items, [None, meters])
    struct = pa.StructArray.from_arrays(
        [
            pa.DictionaryArray.from_arrays(codes, names, safe=False),
            pa.Array.from_buffers(pa.int64(), items, [None, quantities]),
        ],
        fields=list(USAGE.value_type),
    )
    return pa.Array.from_buffers(USAGE, rows, [None, offsets], children=[struct])


def parsed_events(parser: LineParser) -> pa.RecordBatch:
    """The events that a parser has read so far, as EVENTS."""
    rows = parser.events
    columns = {name: pa.py_buffer(content) for name, content in parser.columns().items()}

    def dictionary(number: int) -> pa.Array:
        entries, offsets, text = parser.dictionary(number)
        return pa.StringArray.from_buffers(entries, pa.py_buffer(offsets), pa.py_buffer(text))

    def coded(number: int) -> pa.Array:
        codes = pa.Array.from_buffers(pa.int32(), rows, [None, columns[f"codes_{number}"]])
        return pa.DictionaryArray.from_arrays(codes, dictionary(number), safe=False)

    texts = [coded(number) for number in range(7)]
    usage = usage_lists(
        rows,
        columns["usage_offsets"],
        columns["meter"],
        columns["quantity"],
        columns["meter"].size // 4,
        dictionary(7),
    )
    arrays = [
        pa.StringArray.from_buffers(rows, columns["id_offsets"], columns["id_text"]),
        texts[0],
        pa.Array.from_buffers(pa.int64(), rows, [None, columns["event_time_us"]]),
        *texts[1:],
        usage,
        pa.Array.from_buffers(pa.int64(), rows, [None, columns["position"]]),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=EVENTS)


def interleaved_usage(meters: dict[str, pa.Array], rows: int, quantity_max: int) -> pa.Array | None:
    """The `usage` column of EVENTS from integer columns, nulls left out; None if one is out of range."""
    columns = []
    for array in meters.values():
        validity, values = array.buffers()
        if array.null_count == 0:
            validity = None
        width = array.type.bit_width // 8
        columns.append(
            (
                values.address if values is not None else 0,
                validity.address if validity is not None else 0,
                array.offset,
                width if pa.types.is_signed_integer(array.type) else -width,
            )
        )
    offsets = pa.allocate_buffer(4 * (rows + 1))
    codes = pa.allocate_buffer(4 * rows * len(columns))
    quantities = pa.allocate_buffer(8 * rows * len(columns))
    items = _decode.interleave(
        columns, rows, quantity_max, offsets.address, codes.address, quantities.address
    )
    if items < 0:
        return None
    return usage_lists(rows, offsets, codes, quantities, items, pa.array(list(meters), pa.string()))
