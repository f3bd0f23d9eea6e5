"""Columns to events: types, nulls, ranges, slices; every row is judged as the same event in JSON would be."""

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from tests.oracle.decode import Number, Object, decode_object

from flow.errors import RejectReason
from flow.schema import DIMENSIONS, EVENTS
from flow.steps.batches import Columns
from flow.steps.decode import Limits, decode

NOW_US = 1_800_000_000_000_000
LIMITS = Limits(string_bytes_max=12, meters_per_event_max=3)
END_S = 2**32 - 1
UTC_US = pa.timestamp("us", tz="UTC")


def batch(rows=3, **columns):
    """A good batch, with some columns replaced, added, or (None) left out."""
    base = {
        "id": pa.array([f"i{row}" for row in range(rows)]),
        "time": pa.array([10**15 + row for row in range(rows)], UTC_US),
        "customer": pa.array(["acme"] * rows).dictionary_encode(),
        "output_tokens": pa.array(list(range(rows)), pa.int64()),
    } | columns
    kept = {name: column for name, column in base.items() if column is not None}
    return pa.RecordBatch.from_arrays(list(kept.values()), names=list(kept))


def decoded(table, limits=LIMITS, row=0, now_us=NOW_US):
    result = decode(Columns("f.parquet", row, table), limits, now_us)
    result.events.validate(full=True)
    result.rejected.validate(full=True)
    assert result.events.schema == EVENTS
    for column in result.events.columns:
        assert column.offset == 0 and column.null_count == 0
    assert result.read == table.num_rows == result.events.num_rows + result.rejected.num_rows
    return result


def rejects(result):
    return [(row["source_position"], row["reason"], row["detail"]) for row in result.rejected.to_pylist()]


def test_a_good_batch():
    result = decoded(batch(source=pa.array(["g"] * 3), model=pa.array(["m", None, ""])), row=7)
    assert result.rejected.num_rows == 0 and result.unknown_fields == 0
    assert result.events.to_pylist()[1] == {
        "id": "i1",
        "source": "g",
        "event_time_us": 10**15 + 1,
        **dict.fromkeys(DIMENSIONS, ""),
        "customer": "acme",
        "usage": [{"meter": "output_tokens", "quantity": 1}],
        "position": 8,
    }


def test_an_empty_batch():
    assert decoded(batch(0)).events.num_rows == 0
    assert decoded(batch(3).slice(3)).events.num_rows == 0
    assert decoded(batch(0, id=None, output_tokens=None)).read == 0


TEXT_TYPES = [
    pa.string(),
    pa.large_string(),
    pa.string_view(),
    *[
        pa.dictionary(index, text)
        for index in (pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64())
        for text in (pa.string(), pa.large_string())
    ],
    pa.dictionary(pa.int16(), pa.string_view()),
]


def text_array(values, type_):
    if not pa.types.is_dictionary(type_):
        return pa.array(values, type_)
    distinct = sorted({value for value in values if value is not None})
    codes = [None if value is None else distinct.index(value) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, type_.index_type), pa.array(distinct, type_.value_type))


@pytest.mark.parametrize("type_", TEXT_TYPES, ids=str)
def test_every_text_type(type_):
    names = ["a", "é", "a", "c" * 13, "b", None, "b"]
    table = batch(7, customer=text_array(names, type_), region=text_array(names, type_), id=text_array(names, type_))
    for at in range(7):
        for size in range(8 - at):
            result = decoded(table.slice(at, size), row=at)
            good = [name for name in names[at : at + size] if name is not None and name != "c" * 13]
            assert result.events["customer"].to_pylist() == result.events["region"].to_pylist() == good
            assert result.events["id"].to_pylist() == good
            reasons = {3: "INVALID_ID", 5: "MISSING_ID"}
            expected = [(f"f.parquet:{row}", reasons[row]) for row in (3, 5) if at <= row < at + size]
            assert [row[:2] for row in rejects(result)] == expected


def test_dictionaries_as_foreign_writers_make_them():
    # given values repeated, null, unused, and far more of them than rows, then only the rows decide
    values = pa.array(["a", "b", "a", None, "x" * 99, ""])
    customer = pa.DictionaryArray.from_arrays(pa.array([0, 1, 2, 3, 5], pa.int8()), values)
    result = decoded(batch(5, customer=customer, region=customer))
    assert result.events["customer"].to_pylist() == ["a", "b", "a"]
    assert len(set(result.events["customer"].indices.to_pylist())) == 2
    assert rejects(result) == [
        ("f.parquet:3", "MISSING_CUSTOMER", "customer: null"),
        ("f.parquet:4", "MISSING_CUSTOMER", 'customer: ""'),
    ]
    many = pa.DictionaryArray.from_arrays(pa.array([999, 0, 999]), pa.array([f"c{n}" for n in range(1000)]))
    events = decoded(batch(customer=many)).events
    assert events["customer"].to_pylist() == ["c999", "c0", "c999"] and len(events["customer"].dictionary) == 2


INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]


@pytest.mark.parametrize("type_", INTEGERS, ids=str)
def test_every_integer_type_and_slice(type_):
    top = min(2**type_.bit_width // (2 if pa.types.is_signed_integer(type_) else 1) - 1, 10**12)
    values = [0, 1, None, top, 7, None, 100, top, 3, None]
    meter = pa.array(values, type_)
    for array in (meter, meter.dictionary_encode()):
        table = batch(10, output_tokens=array, images=pa.array(range(10)))
        for at in range(10):
            result = decoded(table.slice(at), row=at)
            expected = [([] if value is None else [value]) + [at + n] for n, value in enumerate(values[at:])]
            assert [[item["quantity"] for item in usage] for usage in result.events["usage"].to_pylist()] == expected


def test_quantities_out_of_range():
    table = batch(
        4,
        output_tokens=pa.array([-1, 5, -(2**63), 10**12 + 1]),
        input_tokens=pa.array([2**64 - 1, 10**12, None, 2**63], pa.uint64()),
        images=pa.array([None, None, -1, None], pa.int8()),
    )
    assert rejects(decoded(table)) == [
        ("f.parquet:0", "NEGATIVE_QUANTITY", "output_tokens: -1 is negative"),
        ("f.parquet:2", "NEGATIVE_QUANTITY", "output_tokens: -9223372036854775808 is negative"),
        ("f.parquet:3", "QUANTITY_TOO_LARGE", "output_tokens: 1000000000001 is above 1000000000000"),
    ]


def test_rows_without_or_with_too_many_meters():
    meters = {name: pa.array([None, 1, 0]) for name in ("a", "b", "c")}
    result = decoded(batch(output_tokens=pa.array([None, 1, None]), **meters))
    assert rejects(result) == [
        ("f.parquet:0", "MISSING_METER", "every meter is null"),
        ("f.parquet:1", "TOO_MANY_METERS", "4 meters; the limit is 3"),
    ]
    assert [item["quantity"] for item in result.events["usage"][0].as_py()] == [0, 0, 0]


@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_times_in_every_unit(unit, per_s):
    values = [0, -1, END_S * per_s - 1, END_S * per_s, None, per_s + 1, 2**63 - 1, -(2**63)]
    table = batch(8, time=pa.array(values, pa.timestamp(unit, tz="Europe/Paris")))
    result = decoded(table, now_us=2**62)
    expected = [0, (END_S * per_s - 1) * 10**6 // per_s, (per_s + 1) * 10**6 // per_s]
    assert result.events["event_time_us"].to_pylist() == expected
    reasons = [
        "TIME_OUT_OF_RANGE",
        "TIME_OUT_OF_RANGE",
        "MISSING_TIME",
        "TIME_OUT_OF_RANGE",
        "TIME_OUT_OF_RANGE",
    ]
    assert [row[1] for row in rejects(result)] == reasons
    json.loads(result.rejected["payload"][3].as_py())


@pytest.mark.parametrize(("unit", "per_s"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
def test_row_16_the_future_begins_behind_the_clock_skew(unit, per_s):
    latest_us = NOW_US + LIMITS.clock_skew_us
    last = ((latest_us + 1) * per_s - 1) // 10**6
    result = decoded(batch(2, time=pa.array([last, last + 1], pa.timestamp(unit, tz="UTC"))))
    assert result.events["position"].to_pylist() == [0]
    assert [row[1] for row in rejects(result)] == ["TIME_IN_FUTURE"]


def test_times_without_a_zone():
    result = decoded(batch(2, time=pa.array([1, None], pa.timestamp("us"))))
    assert rejects(result) == [
        ("f.parquet:0", "TIME_WITHOUT_OFFSET", "column time has no time zone"),
        ("f.parquet:1", "MISSING_TIME", "time: null"),
    ]


@pytest.mark.parametrize(
    ("columns", "detail"),
    [
        (
            {"time": pa.array(["2026-01-01T00:00:00Z"] * 3)},
            "column time is string; cast it to timestamp[us, tz=UTC]",
        ),
        (
            {"time": pa.array([1, 2, 3], pa.date32())},
            "column time is date32[day]; cast it to timestamp[us, tz=UTC]",
        ),
        ({"id": pa.array([1, 2, 3])}, "column id is int64; cast it to string"),
        ({"region": pa.array([b"a"] * 3)}, "column region is binary; cast it to string"),
        ({"output_tokens": pa.array([1.0, 2.0, 3.0])}, "column output_tokens is double; cast it to int64"),
        ({"input_tokens": pa.array(["1"] * 3)}, "column input_tokens is string; cast it to int64"),
        (
            {"input_tokens": pa.array([1] * 3, pa.decimal128(9, 0))},
            "column input_tokens is decimal128(9, 0); cast it to int64",
        ),
        (
            {"type": pa.array([1, 2, 3])},
            "column type is int64; it cannot be a meter: cast it to string, or rename it",
        ),
        (
            {"requests": pa.array([1, 1, 1])},
            "column requests is int64; it is counted by itself, 1 an event: drop or rename it",
        ),
    ],
)
def test_a_column_of_a_type_that_cannot_be(columns, detail):
    result = decoded(batch(**columns))
    assert rejects(result) == [(f"f.parquet:{row}", "SCHEMA_MISMATCH", detail) for row in range(3)]


def test_a_column_that_stands_twice():
    table = batch()
    twice = pa.RecordBatch.from_arrays([*table.columns, table["id"]], names=[*table.schema.names, "id"])
    result = decoded(twice)
    assert {row[1:] for row in rejects(result)} == {("DUPLICATE_FIELD", "column id stands twice")}
    assert result.rejected["payload"][0].as_py().count(b'"id": "i0"') == 2


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("id", "MISSING_ID"),
        ("time", "MISSING_TIME"),
        ("customer", "MISSING_CUSTOMER"),
        ("output_tokens", "MISSING_METER"),
    ],
)
def test_a_missing_column(name, reason):
    for column in (None, pa.nulls(3)):
        result = decoded(batch(**{name: column}))
        assert {row[1] for row in rejects(result)} == {reason} and result.unknown_fields == 0
    result = decoded(batch(id=None, customer=None))
    assert {row[1] for row in rejects(result)} == {"MISSING_ID"}


def test_unknown_columns_are_counted_once():
    table = batch(
        score=pa.array([1.5, float("nan"), None]),
        Tokens=pa.array([1, 2, 3]),
        note=pa.array([[1], [], None]),
        nothing=pa.nulls(3),
        type=pa.array(["llm.usage"] * 3),
        specversion=pa.array(["1.0"] * 3).dictionary_encode(),
    )
    result = decoded(table)
    assert (result.events.num_rows, result.unknown_fields) == (3, 4)
    assert decoded(batch(reasoning_tokens=pa.nulls(3))).unknown_fields == 0


def test_payloads_keep_every_column():
    columns = {
        "time": pa.array([1, 2, -(2**62)], pa.timestamp("ns", tz="UTC")),
        "score": pa.array([1.5, float("nan"), float("inf")]),
        "raw": pa.array([b"\xff", b"a", None]),
        "far": pa.array([10**17, -(10**17), None], pa.timestamp("s")),
        "nested": pa.array([{"a": [1]}, None, {"a": []}]),
        "view": pa.array(["a", None, "é"], pa.string_view()),
        "id": pa.nulls(3),
    }
    payloads = [json.loads(text) for text in decoded(batch(**columns)).rejected["payload"].to_pylist()]
    assert payloads[0] == {
        "id": None,
        "time": "1970-01-01T00:00:00.000000001Z",
        "customer": "acme",
        "output_tokens": 0,
        "score": 1.5,
        "raw": "ff",
        "far": str(np.datetime64(10**17, "s")),
        "nested": {"a": [1]},
        "view": "a",
    }
    assert (payloads[1]["score"], payloads[2]["score"], payloads[2]["view"]) == ("nan", "inf", "é")


BROKEN = pa.array([b"ok", b"\xff\xfe", b"ok"])


@pytest.mark.parametrize("name", ["id", "customer", "region"])
def test_texts_that_are_not_utf8(name):
    plain = BROKEN.view(pa.string())
    large = pa.array(BROKEN.to_pylist(), pa.large_binary()).view(pa.large_string())
    view = pa.array(BROKEN.to_pylist(), pa.binary_view()).view(pa.string_view())
    coded = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0]), plain)
    for column in (plain, large, view, coded):
        result = decoded(batch(**{name: column}))
        assert rejects(result) == [("f.parquet:1", "INVALID_UTF8", f"{name}: not UTF-8")]
        assert b"\xff\xfe" in result.rejected["payload"][0].as_py()
    unused = pa.DictionaryArray.from_arrays(pa.array([0, 0, 2]), plain)
    assert decoded(batch(**{name: unused})).rejected.num_rows == 0


def test_columns_that_point_outside_their_memory():
    # given offsets and codes that no reader may follow, then all rows are rejected and nothing is read there
    offsets = pa.py_buffer(np.array([0, 1, 10**6, 3], np.int32))
    ids = pa.Array.from_buffers(pa.string(), 3, [None, offsets, pa.py_buffer(b"abc")])
    codes = pa.DictionaryArray.from_arrays(pa.array([0, 10**6, 0]), pa.array(["c"]), safe=False)
    broken = pa.DictionaryArray.from_arrays(pa.array([0, 10**6, 0]), BROKEN.view(pa.string()), safe=False)
    for columns in (
        {"id": ids},
        {"customer": codes},
        {"region": broken},
        {"output_tokens": pa.array([1, 2, 3]), "x": ids, "id": pa.nulls(3)},
    ):
        result = decoded(batch(**columns))
        assert result.rejected.num_rows == 3
        assert b"unreadable" in result.rejected["payload"][0].as_py()


def test_a_name_that_is_not_utf8():
    schema = batch().schema
    message = schema.serialize().to_pybytes().replace(b"output_tokens", b"output_token\xff")
    table = pa.RecordBatch.from_arrays(batch().columns, schema=pa.ipc.read_schema(pa.py_buffer(message)))
    result = decoded(table)
    assert {row[1] for row in rejects(result)} == {"SCHEMA_MISMATCH"} and result.rejected.num_rows == 3


def test_the_lowest_reason_wins():
    table = batch(
        id=pa.array(["", "x" * 13, "ok"]),
        customer=pa.array([None, None, "x" * 13]),
        time=pa.array([None, 1, -1], UTC_US),
        output_tokens=pa.array([-1, None, -1]),
    )
    assert [row[1] for row in rejects(decoded(table))] == ["MISSING_ID", "INVALID_ID", "TIME_OUT_OF_RANGE"]


# --- against the oracle of JSON events -------------------------------------------------------------------

WORDS = ["", "a", "b", "é", "acme", "x" * 12, "x" * 13, "é" * 6, "é" * 7, None]


def random_batch(rng):
    rows = rng.randint(1, 12)
    bad = rng.random() < 0.7

    def words():
        return [rng.choice(WORDS if bad else WORDS[1:6]) for _ in range(rows)]

    unit, per_s = rng.choice([("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
    edges = [0, 1, END_S * per_s - 1, 1_800_000_300 * per_s, 1_800_000_301 * per_s, -1, END_S * per_s, None]
    times = [rng.choice(edges if bad else edges[:2]) for _ in range(rows)]
    columns = {
        "id": text_array(words(), rng.choice(TEXT_TYPES)),
        "time": pa.array(times, pa.timestamp(unit, tz="UTC")),
        "customer": text_array(words(), rng.choice(TEXT_TYPES)),
    }
    for name in ("source", "model", "region"):
        if rng.random() < 0.7:
            columns[name] = text_array(words(), rng.choice(TEXT_TYPES))
    for name in rng.sample(["a", "b_1", "c", "input_tokens", "z" * 64], rng.randint(1, 5)):
        type_ = rng.choice(INTEGERS)
        top = 2 ** (type_.bit_width - pa.types.is_signed_integer(type_)) - 1
        edges = [0, 1, min(top, 10**12), None, min(top, 10**12 + 1), top]
        edges += [-1] if pa.types.is_signed_integer(type_) else []
        columns[name] = pa.array([rng.choice(edges if bad else edges[:3]) for _ in range(rows)], type_)
    table = pa.RecordBatch.from_arrays(list(columns.values()), names=list(columns))
    at = rng.randint(0, rows - 1)
    return table.slice(at, rng.randint(1, rows - at)), unit


def as_event(table, row, unit):
    """A row as the parsed JSON of the flat event it stands for."""
    members, usage = Object(), Object()
    for name, column in zip(table.schema.names, table.columns, strict=True):
        if name == "time":
            value = column[row].value
            members.append((name, None if value is None else f"{np.datetime64(value, unit)}Z"))
        elif name in ("id", "source", *DIMENSIONS):
            members.append((name, column[row].as_py()))
        elif column[row].is_valid:
            usage.append((name, Number(column[row].as_py())))
    members.append(("usage", usage))
    return members


@pytest.mark.parametrize("seed", range(300))
def test_rows_are_judged_like_json(seed):
    table, unit = random_batch(random.Random(seed))
    result = decoded(table, row=100)
    events, rejected = [], []
    for row in range(table.num_rows):
        found = decode_object(as_event(table, row, unit), LIMITS, NOW_US)
        if found.reasons:
            rejected.append((f"f.parquet:{100 + row}", RejectReason(min(found.reasons)).name))
        else:
            events.append({**found.event, "position": 100 + row})
    assert result.events.to_pylist() == events
    assert [row[:2] for row in rejects(result)] == rejected


@pytest.mark.parametrize("kind", [pa.string(), pa.dictionary(pa.int8(), pa.large_string())])
def test_a_correction_is_no_usage(kind):
    result = decoded(batch(type=pa.array(["llm.usage", "usage.correction", None]).cast(kind)))
    assert result.events.column("id").to_pylist() == ["i0", "i2"]
    assert [(where, reason) for where, reason, _ in rejects(result)] == [("f.parquet:1", "UNSUPPORTED_TYPE")]
