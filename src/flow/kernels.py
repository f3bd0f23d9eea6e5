"""The only door to the native package: typed wrappers that take and give Arrow; addresses are taken nowhere else.

Every wrapper checks lengths and holds on to the buffers that a kernel reads until it returns.
"""

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow as pa

import _core
from _core import columns as _columns
from _core import combine as _combine
from _core import decode as _decode
from _core import dedup as _dedup
from _core import hash as _hash
from _core import rate as _rate

from .errors import OverflowStop
from .schema import DIMENSIONS, EVENTS, USAGE

if _core.ABI != 1 or Path(_core.__file__).parent.parent != Path(__file__).parent.parent:
    raise ImportError(f"{_core.__file__} is not the native part of {__file__}; run `make build`")

SLOTS = _combine.SLOTS
Rows: TypeAlias = pa.Buffer | None
"""A selection: uint32 row numbers of a batch, or None for all of its rows in order."""


def _address(buffer: pa.Buffer | None) -> int:
    return 0 if buffer is None else buffer.address


def _codes(column: pa.DictionaryArray) -> int:
    """The address of the int32 codes of a dictionary column."""
    return int(column.indices.buffers()[1].address) if len(column) else 0


def _name_hashes(strings: pa.StringArray) -> pa.Buffer:
    """16-byte name hashes of the values of a dictionary."""
    out = pa.allocate_buffer(16 * len(strings))
    _, offsets, data = strings.buffers()
    if len(strings):
        _hash.hash_strings(offsets.address + 4 * strings.offset, _address(data), len(strings), out.address)
    return out


def name_hash(text: str) -> bytes:
    """The 16-byte name hash (little endian) of one string."""
    return bytes(_name_hashes(pa.array([text], pa.string())))


class _Usage(NamedTuple):
    """Addresses of the usage lists of a batch, and the meters' names."""

    offsets: int
    meters: int
    quantities: int
    items: int
    names: pa.StringArray


def _usage(events: pa.RecordBatch) -> _Usage:
    """Raises ValueError for a batch of which a kernel, which sees addresses only, would read other rows."""
    if events.schema != EVENTS:
        raise ValueError(f"a kernel reads EVENTS, not {events.schema}")
    usage = events.column("usage")
    items = usage.values
    meter, quantity = items.field("meter"), items.field("quantity")
    for column in (*events.columns, items, meter, quantity):
        if column.offset:
            raise ValueError("a kernel reads whole arrays, not slices")
        if column.null_count:
            raise ValueError("a kernel reads columns without nulls")
    return _Usage(
        _address(usage.buffers()[1]), _codes(meter), _address(quantity.buffers()[1]), len(items), meter.dictionary
    )


class Identity(NamedTuple):
    """Who each event of a batch is: 16 little-endian bytes a row."""

    fingerprint: pa.Buffer
    payload: pa.Buffer
    dims: pa.Buffer
    coarse: pa.Buffer
    """Of the dimensions without project and model: what the day rollup tells apart."""


def identify(events: pa.RecordBatch) -> Identity:
    """Fingerprint (source, id), payload hash (dimensions, usage) and dimensions hash of each row of EVENTS."""
    rows = events.num_rows
    usage = _usage(events)
    identity = Identity(*(pa.allocate_buffer(16 * rows) for _ in range(4)))
    if not rows:
        return identity
    ids, source = events.column("id"), events.column("source")
    _, id_offsets, id_data = ids.buffers()
    seeds = _name_hashes(source.dictionary)
    _hash.fingerprints(
        rows, id_offsets.address, _address(id_data), _codes(source), seeds.address, identity.fingerprint.address
    )
    columns = [events.column(name) for name in DIMENSIONS]
    dim_hashes = [_name_hashes(column.dictionary) for column in columns]
    meter_hashes = _name_hashes(usage.names)
    _hash.payload_hashes(
        rows,
        tuple(_codes(column) for column in columns),
        tuple(hashes.address for hashes in dim_hashes),
        usage.offsets,
        usage.meters,
        usage.quantities,
        meter_hashes.address,
        identity.dims.address,
        identity.payload.address,
        identity.coarse.address,
    )
    return identity


def split_by_shard(fingerprint: pa.Buffer, shards: int) -> list[tuple[pa.Buffer, int]]:
    """For each shard its rows (a selection) and how many they are."""
    rows = fingerprint.size // 16
    starts = pa.allocate_buffer(8 * (shards + 1))
    order = pa.allocate_buffer(4 * rows)
    _hash.shard_rows(rows, fingerprint.address, shards, starts.address, order.address)
    bounds = memoryview(starts).cast("b").cast("q")
    return [(order.slice(4 * lo, 4 * (hi - lo)), hi - lo) for lo, hi in pairwise(bounds)]


class Verdicts(NamedTuple):
    """What deduplication says of a batch: selections of the rows, and how many each has."""

    accepted: pa.Buffer
    accepted_count: int
    duplicate_count: int
    conflicting: pa.Buffer
    conflicting_count: int
    late: pa.Buffer
    late_count: int


class FingerprintSet:
    """The fingerprints of one shard; see `_core/dedup.pyx`."""

    def __init__(self, horizon_us: int | None, slice_us: int) -> None:
        self._set = _dedup.FingerprintSet(-1 if horizon_us is None else horizon_us, slice_us)

    def judge(self, identity: Identity, event_time_us: pa.Int64Array, rows: Rows, count: int) -> Verdicts:
        """Judges the selected rows, in order, and remembers the new ones. Raises MemoryError."""
        if event_time_us.offset:
            raise ValueError("a kernel reads whole arrays, not slices")
        verdicts = pa.allocate_buffer(count)
        chosen = _address(rows)
        new, duplicate, conflicting, late = self._set.judge(
            count,
            chosen,
            identity.fingerprint.address,
            identity.payload.address,
            _address(event_time_us.buffers()[1]),
            verdicts.address,
        )

        def picked(verdict: int, size: int) -> pa.Buffer:
            out = pa.allocate_buffer(4 * size)
            if size:
                _dedup.select(count, chosen, verdicts.address, verdict, out.address)
            return out

        return Verdicts(
            picked(_dedup.NEW, new),
            new,
            duplicate,
            picked(_dedup.CONFLICTING, conflicting),
            conflicting,
            picked(_dedup.LATE, late),
            late,
        )

    @property
    def watermark_us(self) -> int:
        """The latest event time of an accepted event; -1 before the first."""
        return self._set.watermark_us

    @property
    def memory_bytes(self) -> int:
        return self._set.memory_bytes()

    def __len__(self) -> int:
        return len(self._set)

    def take_journal(self) -> list[tuple[int, int, bytes]]:
        """(segment number, watermark at which it was sealed or -1, 24-byte records) learnt since the last call."""
        return self._set.take_journal()

    def take_retired(self) -> list[int]:
        """Numbers of the segments that the horizon has passed since the last call."""
        return self._set.take_retired()

    def restore(self, number: int, sealed_at_us: int, records: bytes) -> None:
        """Loads a segment; oldest first."""
        self._set.restore(number, sealed_at_us, records)

    def restore_watermark(self, watermark_us: int) -> None:
        self._set.restore_watermark(watermark_us)


class Amounts(NamedTuple):
    """What the selected rows of a batch cost."""

    amounts: pa.Buffer
    """16 bytes a usage item: femto-units, signed."""
    flags: pa.Buffer
    """uint8 a usage item: 1 unpriced, 2 unbilled; else priced, and the number of its denominator << PER_SHIFT."""
    requests: pa.Buffer
    """16 bytes a row: the amount of the implicit meter `requests`."""


class RateTable:
    """A compiled price book: which classes of events it tells apart is the caller's business; see `_core/rate.pyx`."""

    UNPRICED = -1
    UNBILLED = -2

    def __init__(self, meters: int) -> None:
        self._table = _rate.RateTable(meters)
        self.tell_profiles = self._table.tell_profiles
        self.add_schedule = self._table.add_schedule
        self.add_context = self._table.add_context
        self.add_choice = self._table.add_choice
        self.add_vector = self._table.add_vector
        self.add_combination = self._table.add_combination

    def add_rate(self, rate: int, per: int = 0) -> int:
        """A rule: a rate in the unit of the denominator number `per`; returns the rule's number."""
        return self._table.add_rate(rate.to_bytes(16, "little", signed=True), per)

    def add_grid(
        self,
        rates: list[int],
        per: int,
        thresholds: list[int],
        context: int,
        part: bool,
        package: int,
        times: list[int],
        tables: list[tuple[int, list[int], bool]],
    ) -> int:
        """A rule that chooses among rates by quantities; returns the rule's number."""
        cells = b"".join(rate.to_bytes(16, "little", signed=True) for rate in rates)
        return self._table.add_grid(cells, per, thresholds, context, part, package, times, tables)

    def add_timeline(self, steps: list[tuple[int, int]]) -> int:
        """Adds (from_us, rule) steps, ascending; returns the timeline's number."""
        return self._table.add_timeline([from_us for from_us, _ in steps], [rule for _, rule in steps])

    def rate(
        self,
        events: pa.RecordBatch,
        rows: Rows,
        count: int,
        dim_names: tuple[str, str, str, str],
        dim_classes: tuple[pa.Buffer, ...],
        meter_map: pa.Buffer,
    ) -> tuple[Amounts, list[int]]:
        """Rates the selected rows; also returns the class combinations that are unknown yet (then call again).

        Raises OverflowStop.
        """
        usage = _usage(events)
        out = Amounts(
            pa.allocate_buffer(16 * usage.items),
            pa.allocate_buffer(usage.items),
            pa.allocate_buffer(16 * events.num_rows),
        )
        request_flags = pa.allocate_buffer(events.num_rows)
        try:
            missing = self._table.rate(
                count,
                _address(rows),
                _address(events.column("event_time_us").buffers()[1]),
                tuple(_codes(events.column(name)) for name in dim_names),
                tuple(classes.address for classes in dim_classes),
                usage.offsets,
                usage.meters,
                meter_map.address,
                usage.quantities,
                out.amounts.address,
                out.flags.address,
                out.requests.address,
                request_flags.address,
            )
        except OverflowError as error:
            raise OverflowStop(f"rate: {error}; look for an absurd price or quantity") from error
        return out, missing


CLASS_BITS = _rate.CLASS_BITS
PER_SHIFT = _rate.PER_SHIFT


class Grain(NamedTuple):
    """Sorted rows of one grain, column by column, as the store takes them."""

    customer: pa.Buffer  # int32 codes
    window_start: pa.Buffer  # uint32 seconds
    key: pa.Buffer
    events: pa.Buffer
    digest: pa.Buffer
    quantities: tuple[pa.Buffer, ...]
    amounts: tuple[pa.Buffer, ...]
    rows: int


class Combiner:
    """Sums of one block; see `_core/combine.pyx`."""

    def __init__(self, currency: str) -> None:
        self._combiner = _combine.Combiner(name_hash(currency), name_hash("requests"), name_hash(""))
        self._meter_hashes: dict[str, bytes] = {}

    @property
    def key_count(self) -> int:
        return self._combiner.key_count

    @property
    def coarse_count(self) -> int:
        """Keys of the day rollup: the same without project and model."""
        return self._combiner.coarse_count

    def add(
        self, events: pa.RecordBatch, identity: Identity, amounts: Amounts, rows: Rows, count: int
    ) -> tuple[pa.Buffer, int]:
        """Adds the selected rows; returns the rows of the first event of each new key (a selection), whose customers
        must then be told with `name_customers`. Raises OverflowStop, MemoryError."""
        usage = _usage(events)
        numbers = pa.array([self._meter_number(name) for name in usage.names.to_pylist()], pa.int32())
        new_rows = pa.allocate_buffer(4 * max(count, 1))
        try:
            new = self._combiner.add(
                count,
                _address(rows),
                _address(events.column("event_time_us").buffers()[1]),
                identity.fingerprint.address,
                identity.payload.address,
                identity.dims.address,
                identity.coarse.address,
                usage.offsets,
                usage.meters,
                _address(numbers.buffers()[1]),
                usage.quantities,
                amounts.amounts.address,
                amounts.flags.address,
                amounts.requests.address,
                new_rows.address,
            )
        except OverflowError as error:
            raise OverflowStop(f"combine: {error} would not fit in 128 bits") from error
        return new_rows.slice(0, 4 * new), new

    def _meter_number(self, name: str) -> int:
        hashed = self._meter_hashes.get(name)
        if hashed is None:
            hashed = self._meter_hashes[name] = name_hash(name)
        return self._combiner.meter_number(name, hashed)

    def name_customers(self, first_key: int, codes: pa.Int32Array) -> None:
        self._combiner.name_customers(first_key, _address(codes.buffers()[1]), len(codes))

    def cut(self) -> tuple[int, int]:
        """Ends the block; returns how many minute rows and day rows will leave. Raises OverflowStop."""
        try:
            return self._combiner.cut()
        except OverflowError as error:
            raise OverflowStop(f"combine: {error} would not fit in 128 bits") from error

    def block_totals(self) -> list[tuple[list[tuple[str, bool]], int, list[int], list[int]]]:
        """What the block that was cut adds up to, a set of meters each: ((meter, unpriced) ..., events, quantities,
        amounts in femto-units, that of `requests` first)."""
        return self._combiner.block_totals()

    def grain(self, day: bool, rows: int, ranks: pa.Int32Array, rows_max: int) -> Iterator[Grain]:
        """The rows of one grain in the store's order, in runs of at most `rows_max`. Raises OverflowStop."""
        self._combiner.sort(day, rows, _address(ranks.buffers()[1]), len(ranks))
        for first in range(0, rows, rows_max):
            count = min(rows_max, rows - first)
            out = Grain(
                pa.allocate_buffer(4 * count),
                pa.allocate_buffer(4 * count),
                pa.allocate_buffer(16 * count),
                pa.allocate_buffer(8 * count),
                pa.allocate_buffer(16 * count),
                tuple(pa.allocate_buffer(16 * count) for _ in range(SLOTS)),
                tuple(pa.allocate_buffer(16 * count) for _ in range(SLOTS)),
                count,
            )
            try:
                self._combiner.write(
                    day,
                    first,
                    count,
                    out.customer.address,
                    out.window_start.address,
                    out.key.address,
                    out.events.address,
                    out.digest.address,
                    tuple(column.address for column in out.quantities),
                    tuple(column.address for column in out.amounts),
                )
            except OverflowError as error:
                raise OverflowStop(f"combine: {error}; look for an absurd price or quantity") from error
            yield out

    def new_keys(self, coarse: bool, first: int) -> tuple[pa.Buffer, pa.Buffer, pa.Buffer, int]:
        """The store keys of the keys (or coarse keys) from `first` on: int32 key numbers, 16-byte store keys, int32
        places in `slot_rows`, and how many they are."""
        count = self._combiner.count_keys(coarse, first)
        numbers, keys, slots = (pa.allocate_buffer(size * count) for size in (4, 16, 4))
        self._combiner.write_keys(coarse, first, numbers.address, keys.address, slots.address)
        return numbers, keys, slots, count

    def slot_rows(self) -> list[tuple[list[str], int]]:
        """(four meter names, unpriced mask) for every place that `new_keys` gives."""
        return self._combiner.slot_rows()

    def clear(self) -> None:
        """The next block begins; keys are remembered."""
        self._combiner.clear()

    def forget_keys(self) -> None:
        """The next block begins with no key known."""
        self._combiner.forget_keys()
        self._meter_hashes = {}


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
    items = _columns.interleave(columns, rows, quantity_max, offsets.address, codes.address, quantities.address)
    if items < 0:
        return None
    return usage_lists(rows, offsets, codes, quantities, items, pa.array(list(meters), pa.string()))
