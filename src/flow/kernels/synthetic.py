"""The kernel of synthetic events; see `_core/synthetic.pyx`."""

from typing import Any, NamedTuple

import pyarrow as pa

from _core import synthetic as _synthetic

PLAIN, UNPRICED, DUPLICATE = _synthetic.PLAIN, _synthetic.UNPRICED, _synthetic.DUPLICATE
CONFLICTING, BAD = _synthetic.CONFLICTING, _synthetic.BAD
"""What an event is; numbers from BAD on also say what is wrong with it."""

_ID_BYTES = 36
_ROWS_MAX = (2**31 - 1) // _ID_BYTES  # text beyond 32-bit offsets has another type
_CODES, _METERS = 7, 5


class Tables(NamedTuple):
    """What draws are looked up in: arrays that let their memory be read."""

    customer_of: Any
    """int32 [a power of two]: the code of the customer of each slot."""
    model_of: Any  # int32 [4096]
    tier_of: Any  # int32 [64]
    reasons: Any
    """uint8 [models + 1]: whether a model reasons."""
    inputs: Any  # int64 [4096]
    outputs: Any  # int64 [4096]


class Numbers(NamedTuple):
    """The rest of what makes a stream."""

    seed: int
    events: int
    step_us: int
    rest_us: int
    """Two events are step_us + rest_us / events from each other."""
    disorder_us: int
    start_us: int
    retimed_ppm: int
    distance_max: int
    combinations: int
    projects: int
    features: int
    regions: int
    sources: int
    unknown_customer: int
    unpriced_model: int
    edges_ppm: tuple[int, int, int, int]
    """Of a draw from a million: below them an event is a duplicate, conflicting, bad, unpriced."""


class Made(NamedTuple):
    """Columns of events."""

    ids: pa.StringArray
    time_us: pa.Int64Array
    codes: tuple[pa.Int32Array, ...]
    """Of source, customer, project, feature, model, region and service tier."""
    quantities: tuple[pa.Int64Array, ...]
    """Of input, cached input, output and reasoning tokens, and images; null where an event is without."""


class Maker:
    """Makes the events of one stream. Raises ValueError for tables of another size, and for a stream without events."""

    def __init__(self, numbers: Numbers, tables: Tables) -> None:
        self._maker = _synthetic.Maker(numbers._asdict(), *tables)

    def kinds(self, first: int, rows: int) -> bytearray:
        """[rows]: what each event from number `first` on is."""
        kinds = bytearray(rows)
        self._maker.kinds(first, kinds)
        return kinds

    def make(self, first: int, rows: int) -> Made:
        """The events from number `first` on. Raises ValueError for more than text with 32-bit offsets can hold."""
        if rows > _ROWS_MAX:
            raise ValueError(f"{rows} events are too many for one batch; at most {_ROWS_MAX}")
        text, ends = pa.allocate_buffer(_ID_BYTES * rows), pa.allocate_buffer(4 * (rows + 1))
        time_us = pa.allocate_buffer(8 * rows)
        codes = tuple(pa.allocate_buffer(4 * rows) for _ in range(_CODES))
        quantities = tuple(pa.allocate_buffer(8 * rows) for _ in range(_METERS))
        valid = tuple(pa.allocate_buffer((rows + 7) // 8) for _ in range(_METERS))
        absent = self._maker.make(
            first,
            rows,
            text.address,
            ends.address,
            time_us.address,
            tuple(buffer.address for buffer in codes),
            tuple(buffer.address for buffer in quantities),
            tuple(buffer.address for buffer in valid),
        )
        return Made(
            pa.StringArray.from_buffers(rows, ends, text),
            pa.Array.from_buffers(pa.int64(), rows, [None, time_us]),
            tuple(pa.Array.from_buffers(pa.int32(), rows, [None, buffer]) for buffer in codes),
            tuple(
                pa.Array.from_buffers(pa.int64(), rows, [bitmap if nulls else None, buffer], nulls)
                for bitmap, buffer, nulls in zip(valid, quantities, absent, strict=True)
            ),
        )
