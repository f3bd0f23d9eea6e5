"""Rejected payloads: what a run would take them for now, and what a fix makes of them."""

import json

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import RejectReason
from flow.quarantine.json_text import Number, changed, parse, write
from flow.quarantine.payload import Checked, Edit, Gate, edited, is_row, original
from flow.quarantine.payload import check as check_all
from flow.rules.book import parse_rule_book
from flow.steps.batches import Columns, Limits
from flow.steps.decode import decode

NOW_US = 1_772_366_400_000_000  # 2026-03-01T12:00:00Z
LIMITS = Limits(quantity_max=1000)
GATE = Gate(LIMITS)
EVENT = {"id": "e1", "time": "2026-03-01T11:00:00Z", "customer": "acme", "usage": {"input_tokens": 5}}


def check(payload: bytes, gate: Gate, now_us: int) -> Checked:
    """One payload, among others that are what they are."""
    good, found, bad = check_all([line(), payload, b"{}"], gate, now_us)
    assert (good.line, bad.reason) == (line(), "MISSING_ID")
    return found


def check_original(payload: bytes, reason: str, detail: str, gate: Gate, now_us: int, *, row: bool = False) -> Checked:
    try:
        return check(original(payload, reason, detail, gate.limits, row=row), gate, now_us)
    except ValueError as error:
        return Checked(None, reason, str(error))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(VALUES)
def test_what_is_written_is_what_was_parsed(value: object) -> None:
    assert json.loads(write(parse(json.dumps(value)))) == value


@pytest.mark.parametrize(
    "text", ['{"a":9.0,"b":1E2,"a":123456789012345678901234567890}', '[{"ä":"\\u0001"},[],{},null]']
)
def test_numbers_and_repeated_members_stay_as_they_are(text: str) -> None:
    assert write(parse(text)) == text


@pytest.mark.parametrize("text", ["", "{", "NaN", "[" * 99_999, '{"a" 1}'])
def test_what_is_no_json_is_said(text: str) -> None:
    with pytest.raises(ValueError, match=r"line 1|is not JSON|nested"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "path", "new", "expected"),
    [
        ('{"a":1,"b":2}', "a", "x", '{"a":"x","b":2}'),
        ('{"a":1,"b":2,"a":3}', "a", "x", '{"a":"x","b":2}'),
        ('{"a":1,"b":2,"a":3}', "a", None, '{"b":2}'),
        ('{"a":1}', "b.c", "x", '{"a":1,"b":{"c":"x"}}'),
        ('{"a":{"b":1,"c":2}}', "a.b", None, '{"a":{"c":2}}'),
        ('{"a":1}', "b", None, '{"a":1}'),
        ('{"a":1}', "b.c", None, '{"a":1}'),
    ],
)
def test_an_edit_changes_its_field_and_nothing_else(text: str, path: str, new: object, expected: str) -> None:
    assert write(changed(parse(text), path.split("."), new)) == expected


def test_an_edit_below_what_is_no_object_is_refused() -> None:
    with pytest.raises(ValueError, match=r"what has b is to be an object, and is \[1\]"):
        changed(parse('{"a":[1]}'), ["a", "b"], "x")


def line(**changes: object) -> bytes:
    return json.dumps(EVENT | changes).encode()


def test_an_event_is_acceptable_once_the_limits_allow_it() -> None:
    big = line(usage={"input_tokens": 5000})
    found = check_original(big, "QUANTITY_TOO_LARGE", "", GATE, NOW_US)
    assert (found.line, found.reason) == (None, "QUANTITY_TOO_LARGE")
    assert "above 1000" in found.detail
    assert check_original(big, "QUANTITY_TOO_LARGE", "", Gate(Limits()), NOW_US).line == big
    future = line(time="2026-03-01T13:00:00Z")
    assert check(future, GATE, NOW_US).reason == "TIME_IN_FUTURE"
    assert check(future, GATE, NOW_US + 3_600_000_000).line == future


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "INVALID_JSON"),
        (b" \n", "INVALID_JSON"),
        (line() + b"\n" + line(id="e2"), "INVALID_JSON"),
        (b"\xff\xfe", "INVALID_UTF8"),
        (b"[1]", "NOT_AN_OBJECT"),
        (b"{}", "MISSING_ID"),
        (b'{"id":"a"}', "MISSING_TIME"),
    ],
)
def test_what_still_is_wrong_is_said(payload: bytes, reason: str) -> None:
    found = check_original(payload, reason, "as before", GATE, NOW_US)
    assert (found.line, found.reason) == (None, reason)
    assert found.detail


@pytest.mark.parametrize("reason", ["TRUNCATED_INPUT", "INVALID_ARROW"])
def test_a_piece_of_an_input_is_no_event_whatever_it_looks_like(reason: str) -> None:
    found = check_original(line(), reason, "the gzip stream ends", GATE, NOW_US)
    assert (found.line, found.reason) == (None, reason)
    assert found.detail.startswith("the gzip stream ends; it is a piece of an input")


def rejected_row(limits: Limits = LIMITS, **columns: object) -> tuple[bytes, str, str]:
    """Payload, reason and detail of a row of a table that decode rejects."""
    given = {
        "id": ["e1"],
        "time": pa.array([NOW_US], pa.timestamp("us", tz="UTC")),
        "customer": ["acme"],
        "input_tokens": pa.array([5], pa.int64()),
        "images": pa.array([None], pa.int64()),
        "latency": [1.5],
        "note": ["text"],
    } | columns
    table = pa.RecordBatch.from_pydict({name: value for name, value in given.items() if value is not None})
    (row,) = decode(Columns("rows.parquet", 0, table), limits, NOW_US).rejected.to_pylist()
    return row["payload"], row["reason"], row["detail"]


def test_the_row_of_a_table_becomes_the_event_that_its_columns_say() -> None:
    found = check_original(*rejected_row(input_tokens=pa.array([5000])), Gate(Limits()), NOW_US, row=True)
    assert found.line is not None
    assert json.loads(found.line) == {
        "id": "e1",
        "time": "2026-03-01T12:00:00.000000Z",
        "customer": "acme",
        "usage": {"input_tokens": 5000},
    }


@pytest.mark.parametrize(
    ("columns", "reason", "said"),
    [
        ({"input_tokens": [5.5]}, RejectReason.INVALID_QUANTITY, "usage.input_tokens: 5.5 is not an integer"),
        ({"input_tokens": [-5]}, RejectReason.NEGATIVE_QUANTITY, "negative"),
        ({"time": pa.array([NOW_US], pa.timestamp("us"))}, RejectReason.TIME_WITHOUT_OFFSET, "no UTC offset"),
        ({"id": [7]}, RejectReason.INVALID_ID, "not a string"),
        ({"id": [b"\x01"]}, RejectReason.SCHEMA_MISMATCH, "what its bytes mean"),
    ],
    ids=["float", "negative", "no zone", "number as id", "bytes as id"],
)
def test_a_row_that_still_is_wrong_is_not_mended_by_guessing(
    columns: dict[str, object], reason: RejectReason, said: str
) -> None:
    found = check_original(*rejected_row(**columns), GATE, NOW_US, row=True)
    assert (found.line, found.reason) == (None, reason.name)
    assert said in found.detail


def test_numbers_of_an_event_without_usage_are_no_meters() -> None:
    payload = json.dumps({"id": "e", "time": EVENT["time"], "customer": "c", "status_code": 200}).encode()
    assert check_original(payload, "MISSING_METER", "", GATE, NOW_US).reason == "MISSING_METER"
    fixed = edited(payload, [Edit(("usage", "input_tokens"), Number("5"))], LIMITS)
    assert json.loads(fixed)["usage"] == {"input_tokens": 5}


@pytest.mark.parametrize(
    ("position", "format", "expected"),
    [
        ("/data/rows.parquet:7", "auto", True),
        ("/data/rows.ARROW:7", "auto", True),
        ("/data/part-0:7", "parquet", True),
        ("usage[3]:1007:5", "auto", True),
        ("usage[3]:1007", "auto", False),
        ("usage[3]:1007+52", "auto", False),
        ("/data/events.ndjson.gz:7", "auto", False),
        ("inbox/000000000001-redrive.ndjson:0", "parquet", False),
    ],
)
def test_a_position_tells_rows_from_lines(position: str, format: str, expected: bool) -> None:
    assert is_row(position, "MISSING_ID", format) is expected
    assert not is_row(position, "RULE", format)


RULES = """
version: {name: v1, author: Ann, reason: first}
rules:
  - id: known
    severity: reject
    since: 2026-01-01T00:00:00Z
    known: {customer: [acme]}
    examples: {pass: [{customer: acme}], fail: [{customer: nobody}]}
"""


def test_an_event_that_a_rule_refused_is_held_to_the_rules_of_now() -> None:
    book = parse_rule_book(RULES, "rules.yaml", lambda name: b"")
    other = line(customer="other")
    found = check(other, Gate(LIMITS, book), NOW_US)
    assert (found.line, found.reason) == (None, "RULE")
    assert found.detail.startswith("known: ")
    assert check(other, GATE, NOW_US).line == other


def test_a_column_that_could_not_be_read_is_no_value() -> None:
    payload = b'{"id": "unreadable: offsets", "time": "2026-03-01T11:00:00Z", "customer": "acme", "input_tokens": 5}'
    found = check_original(payload, "SCHEMA_MISMATCH", "column id is corrupt", GATE, NOW_US, row=True)
    assert found.line is None
    assert "column id could not be read" in found.detail


def test_fields_are_set_in_events_and_in_rows_of_tables() -> None:
    fixed = edited(line(customer=None), [Edit(("customer",), "acme"), Edit(("usage", "output_tokens"), "7")], LIMITS)
    assert json.loads(fixed) == EVENT | {"usage": {"input_tokens": 5, "output_tokens": "7"}}
    assert check(fixed, GATE, NOW_US).line == fixed
    payload, _, _ = rejected_row(customer=None)
    fixed = edited(payload, [Edit(("customer",), "acme")], LIMITS, row=True)
    assert check(fixed, GATE, NOW_US).line == fixed
    with pytest.raises(ValueError, match="the payload is not JSON"):
        edited(b"\xff", [Edit(("customer",), "acme")], LIMITS)
