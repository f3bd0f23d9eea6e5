"""The kernel of the ledger: usage lists as columns."""

from collections.abc import Sequence

import pyarrow as pa

from _core import spread as _spread

from . import Rows, _address, _usage, usage_lists


def spread_usage(
    events: pa.RecordBatch, rows: Rows, count: int, meters: Sequence[str]
) -> tuple[list[pa.Int64Array], pa.Array | None]:
    """The quantities of the selected rows, of which none is there twice.

    Returns a column for each of `meters`, null where an event has none, and as USAGE what is left; None if nothing is.
    """
    usage = _usage(events)
    names = usage.names.to_pylist()
    there = [meter for meter in meters if meter in names]
    column_of = pa.array([there.index(name) if name in there else -1 for name in names], pa.int32())
    columns = [(pa.allocate_buffer(8 * count), pa.allocate_buffer((count + 7) // 8)) for _ in there]
    room = 0 if set(names) <= set(there) else usage.items
    left = [pa.allocate_buffer(width) for width in (4 * (count + 1), 4 * room, 8 * room)]
    items, valid = _spread.spread(
        count,
        _address(rows),
        usage.offsets,
        usage.meters,
        usage.quantities,
        _address(column_of.buffers()[1]),
        [(values.address, bits.address) for values, bits in columns],
        *(buffer.address for buffer in left),
    )
    found = {
        meter: pa.Array.from_buffers(pa.int64(), count, [bits if known < count else None, values], count - known)
        for meter, (values, bits), known in zip(there, columns, valid, strict=True)
    }
    nothing = _nulls(count) if len(there) < len(meters) else None
    others = usage_lists(count, left[0], left[1], left[2], items, usage.names) if items else None
    return [found.get(meter, nothing) for meter in meters], others


_NULLS = pa.nulls(1 << 17, pa.int64())


def _nulls(count: int) -> pa.Int64Array:
    """So many nulls; up to the rows of a large batch, no memory is written for them."""
    return _NULLS.slice(0, count) if count <= len(_NULLS) else pa.nulls(count, pa.int64())
