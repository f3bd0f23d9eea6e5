"""The only door to the native package: typed wrappers that take and give Arrow; addresses are taken in no other room.

Every wrapper checks lengths and holds on to the buffers that a kernel reads until it returns.
"""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple, TypeAlias

import pyarrow as pa

import _core
from _core import columns as _columns
from _core import combine as _combine
from _core import decode as _decode
from _core import hash as _hash
from _core import rate as _rate

from ..errors import OverflowStop
from ..schema import DIMENSIONS, EVENTS, USAGE
from .memory import touch_ahead

if _core.ABI != 1 or Path(_core.__file__).parent.parent != Path(__file__).parents[2]:
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


def _fingerprints(source: pa.DictionaryArray, ids: pa.StringArray, out: pa.Buffer) -> None:
    _, id_offsets, id_data = ids.buffers()
    seeds = _name_hashes(source.dictionary)
    _hash.fingerprints(len(ids), id_offsets.address, _address(id_data), _codes(source), seeds.address, out.address)


def fingerprints_of(identities: Sequence[tuple[str, str]]) -> pa.Buffer:
    """The 16-byte fingerprint of each (`source`, `id`)."""
    out = pa.allocate_buffer(16 * len(identities))
    if identities:
        sources, ids = (pa.array(texts, pa.string()) for texts in zip(*identities, strict=True))
        _fingerprints(sources.dictionary_encode(), ids, out)
    return out


def identify(events: pa.RecordBatch) -> Identity:
    """Fingerprint (source, id), payload hash (dimensions, usage) and dimensions hash of each row of EVENTS."""
    rows = events.num_rows
    usage = _usage(events)
    identity = Identity(*(pa.allocate_buffer(16 * rows) for _ in range(3)))
    if not rows:
        return identity
    _fingerprints(events.column("source"), events.column("id"), identity.fingerprint)
    columns = [events.column(name) for name in DIMENSIONS]
    dim_hashes = [_name_hashes(column.dictionary) for column in columns]
    for hashes in dim_hashes:
        _hash.mix_blocks(hashes.size // 16, hashes.address)
    meter_hashes = _name_hashes(usage.names)
    _hash.payload_hashes(
        rows,
        tuple(_codes(column) for column in columns),
        tuple(hashes.address for hashes in dim_hashes),
        usage.offsets,
        usage.meters,
        usage.quantities,
        meter_hashes.address,
        len(usage.names),
        identity.dims.address,
        identity.payload.address,
    )
    return identity


def bound_identity(identity: Identity, texts: pa.StringArray) -> Identity:
    """The same with payloads that have a text each to them: name hash of the payload hash (hex) and the text."""
    payloads = bytes(identity.payload)
    bound = [f"{payloads[16 * n : 16 * n + 16].hex()}{text}" for n, text in enumerate(texts.to_pylist())]
    return identity._replace(payload=_name_hashes(pa.array(bound, pa.string())))


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

    UNPRICED = 0
    """The number of a rule and of a timeline."""
    UNBILLED = 1

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
        dim_classes: tuple[pa.Buffer | None, ...],
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
                tuple(0 if classes is None else classes.address for classes in dim_classes),
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


class Columns(NamedTuple):
    """Sorted rows of one grain, column by column, as the store takes them."""

    codes: tuple[pa.IntegerArray | None, ...]
    """The combiner's code of each dimension's value, as narrow as they allow; None where the grain leaves it out."""
    meters: pa.Buffer  # int32 codes of slots
    unpriced: pa.Buffer  # uint8
    window_start: pa.Buffer  # uint32 seconds
    key: pa.Buffer
    events: pa.Buffer  # uint64
    digest: pa.Buffer
    quantities: tuple[pa.Buffer, ...]
    amounts: tuple[pa.Buffer, ...]


class Slots(NamedTuple):
    """What each row of the store that a set of meters leaves as says of its slots, by the combiner's number."""

    meters: pa.Int32Array  # a code for the names
    unpriced: pa.UInt8Array  # bit j: slot j has no price


_INTEGERS = {1: pa.int8(), 2: pa.int16(), 4: pa.int32()}


class Combiner:
    """Sums of one block; see `_core/combine.pyx`."""

    def __init__(self, currency: str) -> None:
        self._combiner = _combine.Combiner(name_hash(currency), name_hash("requests"), name_hash(""))
        self._meter_hashes: dict[str, bytes] = {}
        self._names: list[list[pa.StringArray]] = [[] for _ in DIMENSIONS]
        self._known: dict[str, _Known] = {}

    def add(self, events: pa.RecordBatch, identity: Identity, amounts: Amounts, rows: Rows, count: int) -> None:
        """Adds the selected rows. Raises OverflowStop, MemoryError."""
        usage = _usage(events)
        if not count:
            return
        numbers = pa.array([self._meter_number(name) for name in usage.names.to_pylist()], pa.int32())
        columns = [events.column(name) for name in DIMENSIONS]
        known = [self._known_of(name, column.dictionary) for name, column in zip(DIMENSIONS, columns, strict=True)]
        values = tuple(_dictionary(column, room) for column, room in zip(columns, known, strict=True))
        try:
            new_counts = self._combiner.add(
                count,
                _address(rows),
                _address(events.column("event_time_us").buffers()[1]),
                identity.fingerprint.address,
                identity.payload.address,
                identity.dims.address,
                values,
                usage.offsets,
                usage.meters,
                _address(numbers.buffers()[1]),
                usage.quantities,
                amounts.amounts.address,
                amounts.flags.address,
                amounts.requests.address,
            )
        except OverflowError as error:
            raise OverflowStop(f"combine: {error} would not fit in 128 bits") from error
        touch_ahead(self._combiner)
        for names, (dictionary, _, new), new_count in zip(self._names, known, new_counts, strict=True):
            if new_count:
                names.append(dictionary.take(pa.Array.from_buffers(pa.uint32(), new_count, [None, new])))

    def _known_of(self, name: str, dictionary: pa.StringArray) -> "_Known":
        """What is known of a dictionary; nothing is looked up again where it is that of the batch before."""
        known = self._known.get(name)
        if known is None or not known.dictionary.equals(dictionary):
            codes = pa.py_buffer(bytearray(b"\xff" * (4 * len(dictionary))))
            known = self._known[name] = _Known(dictionary, codes, pa.allocate_buffer(4 * len(dictionary)))
        return known

    def _meter_number(self, name: str) -> int:
        hashed = self._meter_hashes.get(name)
        if hashed is None:
            hashed = self._meter_hashes[name] = name_hash(name)
        return self._combiner.meter_number(name, hashed)

    def names(self) -> list[pa.StringArray]:
        """The values that the block has met, by code; an array a dimension."""
        return [pa.concat_arrays(names) if names else pa.array([], pa.string()) for names in self._names]

    @property
    def rows(self) -> int:
        """Rows of minutes that the block has so far."""
        return self._combiner.rows

    def cut(self) -> None:
        """Ends the block: what follows is `slot_rows`, `sort` and `write` for the minutes, then for the days."""
        self._combiner.cut()

    def slot_rows(self) -> list[tuple[list[str], int]]:
        """(four meter names, unpriced mask) of every row of the store that a set of meters leaves as."""
        return self._combiner.slot_rows()

    def sort(self, day: bool, customer_ranks: pa.Int32Array) -> int:
        """Puts the rows of one grain into the store's order, by a rank for each customer's code; says how many."""
        return self._combiner.sort(day, _address(customer_ranks.buffers()[1]), len(customer_ranks))

    def write(self, day: bool, first: int, rows: int, widths: tuple[int, ...], slots: Slots) -> Columns:
        """Rows [first, first + rows) of the grain that was sorted last; `widths`: bytes a code, 0 for none.

        Raises OverflowStop.
        """
        codes = tuple(pa.allocate_buffer(width * rows) for width in widths)
        out = Columns(
            tuple(
                pa.Array.from_buffers(_INTEGERS[width], rows, [None, buffer]) if width else None
                for width, buffer in zip(widths, codes, strict=True)
            ),
            pa.allocate_buffer(4 * rows),
            pa.allocate_buffer(rows),
            pa.allocate_buffer(4 * rows),
            pa.allocate_buffer(16 * rows),
            pa.allocate_buffer(8 * rows),
            pa.allocate_buffer(16 * rows),
            tuple(pa.allocate_buffer(16 * rows) for _ in range(SLOTS)),
            tuple(pa.allocate_buffer(16 * rows) for _ in range(SLOTS)),
        )
        try:
            self._combiner.write(
                day,
                first,
                rows,
                tuple(buffer.address for buffer in codes),
                widths,
                _address(slots.meters.buffers()[1]),
                _address(slots.unpriced.buffers()[1]),
                out.meters.address,
                out.unpriced.address,
                out.window_start.address,
                out.key.address,
                out.events.address,
                out.digest.address,
                tuple(buffer.address for buffer in out.quantities),
                tuple(buffer.address for buffer in out.amounts),
            )
        except OverflowError as error:
            raise OverflowStop(f"combine: {error}; look for an absurd price or quantity") from error
        return out

    def block_totals(self) -> list[tuple[list[tuple[str, bool]], int, list[int], list[int]]]:
        """What the block adds up to, a set of meters each: ((meter, unpriced) ..., events, quantities, amounts in
        femto-units, that of `requests` first). To be called once, when the minutes are written. Raises OverflowStop."""
        try:
            return self._combiner.block_totals()
        except OverflowError as error:
            raise OverflowStop(f"combine: {error} would not fit in 128 bits") from error

    def clear(self) -> None:
        """The next block begins."""
        self._combiner.clear()
        self._names = [[] for _ in DIMENSIONS]
        self._known = {}


class _Known(NamedTuple):
    """A dictionary of a batch, and what the combine kernel knows of its values."""

    dictionary: pa.StringArray
    codes: pa.Buffer
    """The block's int32 code of each; -1: not looked up yet."""
    new: pa.Buffer
    """uint32 places of those that the block had not met before the last batch."""


def _dictionary(column: pa.DictionaryArray, known: _Known) -> tuple[int, int, int, int, int]:
    """What the combine kernel reads and fills of one dimension."""
    strings = known.dictionary
    _, offsets, text = strings.buffers()
    return _codes(column), offsets.address + 4 * strings.offset, _address(text), known.codes.address, known.new.address


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
