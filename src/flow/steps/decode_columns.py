"""Columns of a Parquet or Arrow file to events: types, nulls, lengths and ranges checked a column at a time.

A batch without a fault costs a few passes over its columns. Where something is wrong, each check gives the
rows it rejects; the lowest reason of a row is kept, and the good rows go on.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import RejectReason
from ..kernels import interleaved_usage
from ..schema import DIMENSIONS, EVENTS, REQUESTS
from .arrow_text import BROKEN, as_bytes, check_memory, is_safe_text, is_text, plain, with_strings
from .batches import Columns, Decoded, Limits, Rejects, no_events
from .decode_json import CORRECTION_TYPE, TIME_END_US, is_meter_name
from .row_json import row_texts

TEXTS = ("source", *DIMENSIONS)
_KNOWN = ("id", "time", *TEXTS)
_ENVELOPE = ("type", "specversion")
_UNITS_PER_S = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}

# What a batch damaged in a way that its own validation does not see makes Arrow raise; a column's name that is not
# UTF-8 too. Not MemoryError: that is not the batch's fault.
_UNREADABLE = (*BROKEN, pa.ArrowNotImplementedError, UnicodeDecodeError)

Mask = npt.NDArray[np.bool_]


@dataclass
class Layout:
    """Which column is what; `flaws` reject every row of the batch."""

    known: dict[str, pa.Array]
    meters: dict[str, pa.Array]
    unknown: int
    flaws: list[tuple[RejectReason, str]]
    not_utf8: set[str]  # names of text columns
    type: pa.Array | None = None


@dataclass
class Fault:
    """Rows that one check rejects."""

    reason: RejectReason
    rows: Mask
    detail: Callable[[int], str]  # of one row


@dataclass
class Draft:
    """The columns as in EVENTS; rows with a fault hold placeholders until they are filtered out."""

    columns: dict[str, pa.Array]
    usage: pa.Array | None  # None: a quantity is out of range
    faults: list[Fault]
    not_utf8: set[str]


def decode_columns(item: Columns, limits: Limits, now_us: int) -> Decoded:
    """One batch of rows to events and rejects; never raises for what is in the columns."""
    try:
        return _decode(item, limits, now_us)
    except _UNREADABLE as error:
        return _reject_all(item, f"Arrow cannot read the columns: {error}")


def _decode(item: Columns, limits: Limits, now_us: int) -> Decoded:
    table = item.table
    layout = _sort_columns(table, limits)
    draft = None if layout.flaws else _draft(layout, table.num_rows, limits, now_us)
    if draft is not None and not draft.faults:
        events = _events(draft, np.arange(item.row, item.row + table.num_rows), limits, layout)
        return Decoded(item.origin, events, Rejects(item.origin).batch(), table.num_rows, layout.unknown)
    good = np.zeros(table.num_rows, np.bool_)
    if draft is None:
        reason, detail = min(layout.flaws, key=lambda flaw: flaw[0])
        faults = [Fault(reason, ~good, lambda row: detail)]
    else:
        faults = draft.faults
    lowest = np.full(table.num_rows, 255, np.uint8)
    for fault in faults:
        lowest[fault.rows] = np.minimum(lowest[fault.rows], fault.reason)
    good = lowest == 255
    rejected = _rejected(item, faults, lowest)
    events = no_events()
    if draft is not None and good.any():
        kept = _filtered(draft, layout, good)
        events = _events(kept, np.flatnonzero(good) + item.row, limits, layout)
    return Decoded(item.origin, events, rejected, table.num_rows, layout.unknown)


def _reject_all(item: Columns, detail: str) -> Decoded:
    rows = item.table.num_rows
    rejected = Rejects(item.origin)
    for row, payload in enumerate(row_texts(item.table, np.arange(rows))):
        rejected.add(item.row + row, RejectReason.SCHEMA_MISMATCH, detail, payload)
    return Decoded(item.origin, no_events(), rejected.batch(), rows, 0)


# --- which column is what ------------------------------------------------------------------------------


def _sort_columns(table: pa.RecordBatch, limits: Limits) -> Layout:
    layout = Layout({}, {}, 0, [], set())
    for field, array in zip(table.schema, table.columns, strict=True):
        found = layout.meters if field.name not in _KNOWN else layout.known
        flaw = _column_flaw(field, limits)
        if flaw:
            detail = f"column {field.name} is {field.type}; {flaw}"
            layout.flaws.append((RejectReason.SCHEMA_MISMATCH, detail))
        elif _is_known(field):
            if field.name in found:
                layout.flaws.append((RejectReason.DUPLICATE_FIELD, f"column {field.name} stands twice"))
            _check_content(layout, field.name, array)
            found[field.name] = array
        elif field.name in _ENVELOPE and is_text(field.type):
            if field.name == "type":
                _check_content(layout, field.name, array)
                layout.type = array
        elif not _is_absent(field, limits):
            layout.unknown += 1
    return layout


def _is_integer(type_: pa.DataType) -> bool:
    return bool(pa.types.is_integer(type_.value_type if pa.types.is_dictionary(type_) else type_))


def _is_absent(field: pa.Field, limits: Limits) -> bool:
    """A column of the null type says nothing: as if it were not there."""
    recognised = field.name in _KNOWN or field.name in _ENVELOPE or field.name in limits.known_meters
    return recognised and bool(pa.types.is_null(field.type))


def _is_known(field: pa.Field) -> bool:
    if field.name in _KNOWN:
        return not pa.types.is_null(field.type)
    return _is_integer(field.type) and is_meter_name(field.name)


def _column_flaw(field: pa.Field, limits: Limits) -> str:
    """Why a column cannot be what its name says, with what mends it; empty if it can."""
    name, type_ = field.name, field.type
    if pa.types.is_null(type_):
        return ""
    if name == "time":
        return "" if pa.types.is_timestamp(type_) else "cast it to timestamp[us, tz=UTC]"
    if name in _KNOWN:
        return "" if is_text(type_) else "cast it to string"
    if _is_integer(type_):
        if name == REQUESTS:
            return "it is counted by itself, 1 an event: drop or rename it"
        return "it cannot be a meter: cast it to string, or rename it" if name in _ENVELOPE else ""
    return "cast it to int64" if name in limits.known_meters else ""


def _check_content(layout: Layout, name: str, array: pa.Array) -> None:
    """Notes a column that is unsafe to read (offsets or codes out of bounds), or has texts not in UTF-8."""
    try:
        check_memory(array)
    except BROKEN as error:
        if is_safe_text(array):
            layout.not_utf8.add(name)
        else:
            detail = f"column {name} is corrupt: {error}; write the file again"
            layout.flaws.append((RejectReason.SCHEMA_MISMATCH, detail))


def _invalid_utf8(strings: pa.Array) -> Mask:
    """Which values of `_strings` are not UTF-8."""
    invalid = np.zeros(len(strings), np.bool_)
    for row, value in enumerate(as_bytes(strings).to_pylist()):
        try:
            value.decode()
        except UnicodeDecodeError:
            invalid[row] = True
    return invalid


# --- columns into shape, with their faults -------------------------------------------------------------


def _draft(layout: Layout, rows: int, limits: Limits, now_us: int) -> Draft:
    draft = Draft({}, None, [], layout.not_utf8)
    _refuse_corrections(draft, layout.type)
    _take_id(draft, layout.known.get("id"), rows, limits)
    _take_time(draft, layout.known.get("time"), rows, limits, now_us)
    for name in TEXTS:
        _take_text(draft, name, layout.known.get(name), rows, limits)
    layout.meters = {name: plain(array) for name, array in layout.meters.items()}
    _take_usage(draft, layout.meters, rows, limits)
    return draft


def _fault(draft: Draft, reason: RejectReason, rows: Mask, detail: Callable[[int], str]) -> None:
    if rows.any():
        draft.faults.append(Fault(reason, rows, detail))


def _refuse_corrections(draft: Draft, type_: pa.Array | None) -> None:
    """A correction would be billed as if it were usage."""
    if type_ is None or "type" in draft.not_utf8:
        return
    corrections = pc.fill_null(pc.equal(plain(with_strings(type_)), CORRECTION_TYPE), False)
    rows = np.asarray(corrections.to_numpy(zero_copy_only=False))
    detail = f'type: "{CORRECTION_TYPE}" is read as JSON only; `tallyflow correct` writes it'
    _fault(draft, RejectReason.UNSUPPORTED_TYPE, rows, lambda row: detail)


def _missing(draft: Draft, name: str, reason: RejectReason, rows: int) -> None:
    _fault(draft, reason, np.ones(rows, np.bool_), lambda row: f"there is no column {name}")


def _nulls(array: pa.Array) -> Mask:
    return np.asarray(array.is_null().to_numpy(zero_copy_only=False))


def _numbers(array: pa.Array, type_: pa.DataType) -> pa.Array:
    """The values of a 4- or 8-byte column as `type_`: no offset, no validity, nothing copied."""
    width = type_.bit_width // 8
    values = array.buffers()[1]
    if len(array) == 0 or values is None:
        return pa.array([], type_)
    values = values.slice(array.offset * width, len(array) * width)
    return pa.Array.from_buffers(type_, len(array), [None, values])


def _strings(array: pa.Array) -> pa.Array:
    """A string array with first offset 0, no validity (a null keeps whatever its slot holds)."""
    if len(array) == 0:
        return pa.array([], pa.string())
    _, offset_buffer, text = array.buffers()
    offsets = np.frombuffer(offset_buffer, np.int32, len(array) + 1, 4 * array.offset)
    first, last = int(offsets[0]), int(offsets[-1])
    moved = offset_buffer if first == 0 and array.offset == 0 else pa.py_buffer(offsets - first)
    text = pa.py_buffer(b"") if text is None else text.slice(first, last - first)
    return pa.Array.from_buffers(pa.string(), len(array), [None, moved, text])


def _sizes(strings: pa.Array) -> npt.NDArray[np.int32]:
    """Bytes of each text of `_strings`."""
    if len(strings) == 0:
        return np.zeros(0, np.int32)
    offsets = np.frombuffer(strings.buffers()[1], np.int32, len(strings) + 1)
    return offsets[1:] - offsets[:-1]


def _take_id(draft: Draft, array: pa.Array | None, rows: int, limits: Limits) -> None:
    if array is None:
        return _missing(draft, "id", RejectReason.MISSING_ID, rows)
    texts = plain(with_strings(array))
    strings = _strings(texts)
    sizes = _sizes(strings)
    if rows and (texts.null_count or sizes.min() == 0 or sizes.max() > limits.string_bytes_max):
        nulls = _nulls(texts)
        sizes = np.where(nulls, 0, sizes)
        too_long = sizes > limits.string_bytes_max
        _fault(draft, RejectReason.MISSING_ID, sizes == 0, lambda row: "id: null" if nulls[row] else 'id: ""')
        _fault(draft, RejectReason.INVALID_ID, too_long, _too_long("id", sizes, limits))
    _fault_utf8(draft, "id", strings, np.arange(rows))
    draft.columns["id"] = strings
    return None


def _too_long(name: str, sizes: npt.NDArray[np.int32], limits: Limits) -> Callable[[int], str]:
    return lambda row: f"{name}: {sizes[row]} bytes; the limit is {limits.string_bytes_max}"


def _fault_utf8(draft: Draft, name: str, strings: pa.Array, codes: npt.NDArray[np.integer]) -> None:
    """Rows whose text, `strings[codes[row]]`, is not UTF-8."""
    if name in draft.not_utf8:
        invalid = _invalid_utf8(strings)
        _fault(draft, RejectReason.INVALID_UTF8, invalid[codes], lambda row: f"{name}: not UTF-8")


def _coded(array: pa.Array, is_valid: bool) -> tuple[pa.Array, pa.Array, Mask | None]:
    """Codes (int32), dictionary (string, each value once) and nulls of a text column; a null is coded ""."""
    array = with_strings(array)
    if pa.types.is_dictionary(array.type):
        dictionary, codes = array.dictionary, array.indices
        # A file's dictionary may repeat values, hold nulls or bad texts, or be far larger than this batch.
        is_large = len(dictionary) > 2 * len(array) + 64
        if not is_valid or is_large or dictionary.null_count or not _is_distinct(dictionary):
            array = array.dictionary_decode()
    if not pa.types.is_dictionary(array.type):
        array = array.dictionary_encode()
        dictionary, codes = array.dictionary, array.indices
    dictionary = _strings(dictionary)
    codes = codes.cast(pa.int32())
    nulls = None
    if codes.null_count:
        nulls = _nulls(codes)
        empty = np.flatnonzero(_sizes(dictionary) == 0)
        if len(empty) == 0:
            empty = np.array([len(dictionary)])
            dictionary = pa.concat_arrays([dictionary, pa.array([""])])
        codes = codes.fill_null(pa.scalar(int(empty[0]), pa.int32()))
    return _numbers(codes, pa.int32()), dictionary, nulls


def _is_distinct(dictionary: pa.Array) -> bool:
    return bool(pc.count_distinct(dictionary).as_py() == len(dictionary))


def _take_text(draft: Draft, name: str, array: pa.Array | None, rows: int, limits: Limits) -> None:
    if array is None:
        codes, dictionary, nulls = pa.array(np.zeros(rows, np.int32)), pa.array([""]), None
    else:
        codes, dictionary, nulls = _coded(array, name not in draft.not_utf8)
    draft.columns[name] = pa.DictionaryArray.from_arrays(codes, dictionary, safe=False)
    if array is None and name == "customer":
        return _missing(draft, name, RejectReason.MISSING_CUSTOMER, rows)
    sizes = _sizes(dictionary)
    code_of = codes.to_numpy()
    too_long = sizes > limits.string_bytes_max
    if too_long.any():
        reason = {"source": RejectReason.INVALID_SOURCE, "customer": RejectReason.INVALID_CUSTOMER}
        _fault(
            draft,
            reason.get(name, RejectReason.INVALID_DIMENSION),
            too_long[code_of],
            lambda row: _too_long(name, sizes, limits)(code_of[row]),
        )
    if name == "customer" and (sizes == 0).any():
        _fault(
            draft,
            RejectReason.MISSING_CUSTOMER,
            (sizes == 0)[code_of],
            lambda row: "customer: null" if nulls is not None and nulls[row] else 'customer: ""',
        )
    _fault_utf8(draft, name, dictionary, code_of)
    return None


def _take_time(draft: Draft, array: pa.Array | None, rows: int, limits: Limits, now_us: int) -> None:
    if array is None:
        return _missing(draft, "time", RejectReason.MISSING_TIME, rows)
    unit = array.type.unit
    per_s = _UNITS_PER_S[unit]
    raw = _numbers(array, pa.int64()).to_numpy()
    nulls = _nulls(array) if array.null_count else np.zeros(rows, np.bool_)

    def shown(row: int) -> str:
        return f"time: {np.datetime64(int(raw[row]), unit)}"

    _fault(draft, RejectReason.MISSING_TIME, nulls, lambda row: "time: null")
    if array.type.tz is None:
        _fault(draft, RejectReason.TIME_WITHOUT_OFFSET, ~nulls, lambda row: "column time has no time zone")
    end = TIME_END_US // 1_000_000 * per_s
    latest_us = now_us + limits.clock_skew_us
    latest = (latest_us + 1) * per_s // 1_000_000 - 1 if per_s > 1_000_000 else latest_us * per_s // 1_000_000
    if rows and (raw.min() < 0 or raw.max() > min(latest, end - 1)):
        outside = ~nulls & ((raw < 0) | (raw >= end))
        ahead = ~nulls & (raw > latest) if latest < end else np.zeros(rows, np.bool_)
        _fault(
            draft,
            RejectReason.TIME_OUT_OF_RANGE,
            outside,
            lambda row: f"{shown(row)} is outside 1970 to 2106-02-07",
        )
        _fault(draft, RejectReason.TIME_IN_FUTURE, ahead, lambda row: f"{shown(row)} is in the future")
        raw = np.where(outside | nulls, 0, raw)
    if per_s > 1_000_000:
        raw = raw // (per_s // 1_000_000)
    elif per_s < 1_000_000:
        raw = raw * (1_000_000 // per_s)
    draft.columns["event_time_us"] = pa.array(raw)
    return None


def _take_usage(draft: Draft, meters: dict[str, pa.Array], rows: int, limits: Limits) -> None:
    if not meters:
        _fault(draft, RejectReason.MISSING_METER, np.ones(rows, np.bool_), lambda row: "no integer column")
        return
    draft.usage = interleaved_usage(meters, rows, limits.quantity_max)
    if draft.usage is None:
        for name, array in meters.items():
            _fault_quantities(draft, name, array, limits)
    if len(meters) > limits.meters_per_event_max or any(array.null_count for array in meters.values()):
        counts = _meter_counts(draft.usage, meters, rows)
        _fault(draft, RejectReason.MISSING_METER, counts == 0, lambda row: "every meter is null")
        limit = limits.meters_per_event_max
        _fault(
            draft,
            RejectReason.TOO_MANY_METERS,
            counts > limit,
            lambda row: f"{counts[row]} meters; the limit is {limit}",
        )


def _meter_counts(usage: pa.Array | None, meters: dict[str, pa.Array], rows: int) -> npt.NDArray[np.int32]:
    """[rows]: how many meters each row has; its usage says so, where that could be made."""
    if usage is not None:
        offsets = np.frombuffer(usage.buffers()[1], np.int32, rows + 1)
        return offsets[1:] - offsets[:-1]
    counts = np.zeros(rows, np.int32)
    for array in meters.values():
        counts += ~_nulls(array)
    return counts


def _fault_quantities(draft: Draft, name: str, array: pa.Array, limits: Limits) -> None:
    filled = array.fill_null(0)
    unsigned = pa.types.is_uint64(array.type)
    values = filled.to_numpy() if unsigned else filled.cast(pa.int64()).to_numpy()
    _fault(draft, RejectReason.NEGATIVE_QUANTITY, values < 0, lambda row: f"{name}: {values[row]} is negative")
    _fault(
        draft,
        RejectReason.QUANTITY_TOO_LARGE,
        values > (np.uint64(limits.quantity_max) if unsigned else limits.quantity_max),
        lambda row: f"{name}: {values[row]} is above {limits.quantity_max}",
    )


# --- events and rejects --------------------------------------------------------------------------------


def _filtered(draft: Draft, layout: Layout, good: Mask) -> Draft:
    mask = pa.array(good)
    columns = {name: array.filter(mask) for name, array in draft.columns.items()}
    columns["id"] = _strings(columns["id"])
    for name in TEXTS:  # without the texts of rejected rows
        columns[name] = columns[name].dictionary_decode().dictionary_encode()
    layout.meters = {name: array.filter(mask) for name, array in layout.meters.items()}
    return Draft(columns, None, [], set())


def _events(draft: Draft, positions: npt.NDArray[np.int64], limits: Limits, layout: Layout) -> pa.RecordBatch:
    usage = draft.usage
    if usage is None:
        usage = interleaved_usage(layout.meters, len(positions), limits.quantity_max)
    columns = {**draft.columns, "usage": usage, "position": pa.array(positions, pa.int64())}
    return pa.RecordBatch.from_arrays([columns[field.name] for field in EVENTS], schema=EVENTS)


def _rejected(item: Columns, faults: list[Fault], lowest: npt.NDArray[np.uint8]) -> pa.RecordBatch:
    bad = np.flatnonzero(lowest != 255)
    rejected = Rejects(item.origin)
    by_reason = sorted(faults, key=lambda fault: fault.reason)
    for row, payload in zip(bad.tolist(), row_texts(item.table, bad), strict=True):
        fault = next(fault for fault in by_reason if fault.rows[row])
        rejected.add(item.row + row, fault.reason, fault.detail(row), payload)
    return rejected.batch()
