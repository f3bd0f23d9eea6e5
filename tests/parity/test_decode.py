"""Native parser, exact reader and oracle say the same of every line: boundaries first, then mutations."""

import json
import random
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.compare import NARROW, NOW_US, WIDE, compare
from tests.fuzz.messages import PIECES, damaged, lines_of
from tests.oracle.decode import decode_line

from flow.kernels import LineParser
from flow.schema import DIMENSIONS
from flow.steps import decode as decode_module
from flow.steps.batches import Lines
from flow.steps.decode import decode
from flow.steps.decode_json import read_line

CLOUD_EVENT = (
    '{"specversion":"1.0","id":"7f3c","source":"gateway/eu-1","type":"llm.usage",'
    '"time":"2026-11-01T12:00:00.123456Z","subject":"acme","data":{"project":"search","feature":"chat",'
    '"model":"gpt-4o-mini","region":"eu-west-1","service_tier":"standard",'
    '"usage":{"input_tokens":900,"cached_input_tokens":300,"output_tokens":95}}}'
)
FLAT = (
    '{"id": "7f3c", "source": "gateway/eu-1", "time": "2026-11-01T12:00:00+01:00", "customer": "acme", '
    '"project": "search", "model": "gpt-4o-mini", "usage": {"input_tokens": "900", "output_tokens": 0}}'
)


def check(chunk, limits=NARROW, offset=0, late=False):
    return compare(chunk, limits, offset, late)


def flat(**fields):
    members = {"id": '"a"', "time": '"2026-11-01T12:00:00Z"', "customer": '"c"', "usage": '{"t":1}', **fields}
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text is not None) + "}"


def cloud(**fields):
    members = {
        "specversion": '"1.0"',
        "id": '"a"',
        "type": '"llm.usage"',
        "time": '"2026-11-01T12:00:00Z"',
        "subject": '"c"',
        "data": '{"usage":{"t":1}}',
        **fields,
    }
    return "{" + ",".join(f'"{name}":{text}' for name, text in members.items() if text is not None) + "}"


ACCEPTED = None
TABLE = [
    # line, the reason or ACCEPTED
    (CLOUD_EVENT, ACCEPTED),
    (FLAT, ACCEPTED),
    (flat(), ACCEPTED),
    (cloud(), ACCEPTED),
    # strict JSON
    ("", "BLANK"),
    (" \t\r", "BLANK"),
    ("{", "INVALID_JSON"),
    ("{}", "MISSING_ID"),
    ("[]", "NOT_AN_OBJECT"),
    ("null", "NOT_AN_OBJECT"),
    ('"x"', "NOT_AN_OBJECT"),
    ("1", "NOT_AN_OBJECT"),
    ("01", "INVALID_JSON"),
    ("[" * 64 + "]" * 64, "NOT_AN_OBJECT"),
    ("[" * 65 + "]" * 65, "INVALID_JSON"),
    ("[" * 700 + "]" * 700, "INVALID_JSON"),
    (flat(x="[" * 63 + "]" * 63), ACCEPTED),
    (flat(x="[" * 64 + "]" * 64), "INVALID_JSON"),
    (flat(x='{"a":' * 63 + "1" + "}" * 63), ACCEPTED),
    (flat(x='{"a":' * 64 + "1" + "}" * 64), "INVALID_JSON"),
    (flat() + "x", "INVALID_JSON"),
    (flat() + flat(), "INVALID_JSON"),
    (flat() + "\0", "INVALID_JSON"),
    ("\ufeff" + flat(), "INVALID_JSON"),
    (flat().replace("}", ",}", 1), "INVALID_JSON"),
    (flat(x="NaN"), "INVALID_JSON"),
    (flat(x="-Infinity"), "INVALID_JSON"),
    (flat(x="tru"), "INVALID_JSON"),
    (flat(x="[1,]"), "INVALID_JSON"),
    (flat(x="[1.5e-3,true,false,null,-0,{}]"), ACCEPTED),
    (flat(x="1."), "INVALID_JSON"),
    (flat(x=".5"), "INVALID_JSON"),
    (flat(x="+1"), "INVALID_JSON"),
    (flat(x="-"), "INVALID_JSON"),
    (flat(x="1e"), "INVALID_JSON"),
    (flat(x='"\x01"'), "INVALID_JSON"),
    (flat(x='"\x7f"'), ACCEPTED),
    (flat(x=r'"\ud800"'), "INVALID_JSON"),
    (flat(x=r'"\udc00\ud800"'), "INVALID_JSON"),
    (flat(x=r'"\ud83d\ude00"'), ACCEPTED),
    (flat(x=r'"\ud83d\ud83d\ude00"'), "INVALID_JSON"),
    (flat(x=r'"\u12g4"'), "INVALID_JSON"),
    (flat(x=r'"\x"'), "INVALID_JSON"),
    (flat(x='"\\'), "INVALID_JSON"),
    (flat(x=r'{"\ud800":1}'), "INVALID_JSON"),
    (flat(id=r'"\ud83d\ude00\n\"\\\/\b\f\r\té"'), ACCEPTED),
    (flat().encode().replace(b'"a"', b'"\xff"'), "INVALID_UTF8"),
    (b"\xff", "INVALID_UTF8"),
    (b"\xc0\x80", "INVALID_UTF8"),
    (flat().encode().replace(b'"a"', b'"\xed\xa0\x80"'), "INVALID_UTF8"),
    (flat().encode().replace(b'"a"', b'"\xf4\x90\x80\x80"'), "INVALID_UTF8"),
    (flat().encode().replace(b'"a"', b'"\xf4\x8f\xbf\xbf"'), ACCEPTED),
    (flat().encode().replace(b'"a"', b'"\xe0\x9f\xbf"'), "INVALID_UTF8"),
    # size of a line
    (flat(x='"' + "x" * (1500 - len(flat(x='""'))) + '"'), ACCEPTED),
    (flat(x='"' + "x" * (1501 - len(flat(x='""'))) + '"'), "OVERSIZED"),
    (" " * 2000, "BLANK"),
    # envelope
    (cloud(specversion='"0.3"'), "UNSUPPORTED_ENVELOPE"),
    (cloud(specversion="1.0"), "UNSUPPORTED_ENVELOPE"),
    (cloud(specversion="null"), "UNSUPPORTED_ENVELOPE"),
    (cloud(type=None), "UNSUPPORTED_TYPE"),
    (cloud(type="null"), "UNSUPPORTED_TYPE"),
    (cloud(type='"other"'), "UNSUPPORTED_TYPE"),
    (cloud(data=None), "MISSING_METER"),
    (cloud(data="[]"), "MISSING_METER"),
    (cloud(subject=None, customer='"c"'), "MISSING_CUSTOMER"),
    (cloud(datacontenttype="1", dataschema="2"), ACCEPTED),
    (cloud(customer="[]", usage="{}", extra="1"), ACCEPTED),
    (cloud(data='{"usage":{"t":1},"id":1,"data":{},"subject":2}'), ACCEPTED),
    (cloud(data='{"usage":{"t":1},"usage":{"t":1}}'), "DUPLICATE_FIELD"),
    (cloud(data='{"usage":{"t":1},"id":1,"id":2}'), ACCEPTED),
    (flat(type='"llm.usage"'), ACCEPTED),
    (flat(type="null"), ACCEPTED),
    (flat(type='"x"'), "UNSUPPORTED_TYPE"),
    (flat(type="1"), "UNSUPPORTED_TYPE"),
    (flat(data='{"id":1,"id":2}', subject="[]", datacontenttype="null"), ACCEPTED),
    (flat(data='{"usage":{"a":[1,{}],"a":2}}'), ACCEPTED),
    # fields that stand twice
    (flat()[:-1] + ',"id":"a"}', "DUPLICATE_FIELD"),
    (flat()[:-1] + ',"\\u0069d":"a"}', "DUPLICATE_FIELD"),
    (flat()[:-1] + ',"x":1,"x":2}', ACCEPTED),
    (flat()[:-1] + ',"data":1,"data":{}}', ACCEPTED),
    (flat(usage='{"t":1,"t":1}'), "DUPLICATE_FIELD"),
    (flat(usage='{"t":1,"\\u0074":1}'), "DUPLICATE_FIELD"),
    (flat(usage='{"T":1,"T":1}'), "DUPLICATE_FIELD"),
    # texts
    (flat(id=None), "MISSING_ID"),
    (flat(id="null"), "MISSING_ID"),
    (flat(id='""'), "MISSING_ID"),
    (flat(id="1"), "INVALID_ID"),
    (flat(id='"' + "x" * 40 + '"'), ACCEPTED),
    (flat(id='"' + "x" * 41 + '"'), "INVALID_ID"),
    (flat(id='"' + "é" * 20 + '"'), ACCEPTED),
    (flat(id='"' + "é" * 20 + 'x"'), "INVALID_ID"),
    (flat(id='"' + "\\u00e9" * 20 + '"'), ACCEPTED),
    (flat(id='"' + "\\u00e9" * 21 + '"'), "INVALID_ID"),
    (flat(id=r'"\u0000"'), ACCEPTED),
    (flat(source="null"), ACCEPTED),
    (flat(source='""'), ACCEPTED),
    (flat(source="{}"), "INVALID_SOURCE"),
    (flat(customer=None), "MISSING_CUSTOMER"),
    (flat(customer='""'), "MISSING_CUSTOMER"),
    (flat(customer="true"), "INVALID_CUSTOMER"),
    (flat(model="null", region='""'), ACCEPTED),
    (flat(model="1"), "INVALID_DIMENSION"),
    (flat(service_tier='"' + "x" * 41 + '"'), "INVALID_DIMENSION"),
    (flat(id="1", customer="1", usage="1", time="1"), "INVALID_ID"),
    # meters and quantities
    (flat(usage=None), "MISSING_METER"),
    (flat(usage="null"), "MISSING_METER"),
    (flat(usage="{}"), "MISSING_METER"),
    (flat(usage="[1]"), "MISSING_METER"),
    (flat(usage='{"a":1,"b":1,"c":1,"d":1}'), ACCEPTED),
    (flat(usage='{"a":1,"b":1,"c":1,"d":1,"e":1}'), "TOO_MANY_METERS"),
    (flat(usage='{"":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"A":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"1a":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"_a":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"a-b":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"a\\n":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"é":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"requests":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"requests_":1,"z9_":2}'), ACCEPTED),
    (flat(usage='{"' + "a" * 64 + '":1}'), ACCEPTED),
    (flat(usage='{"' + "a" * 65 + '":1}'), "INVALID_METER_NAME"),
    (flat(usage='{"t":0,"u":-0,"v":"007","w":"0"}'), ACCEPTED),
    (flat(usage='{"t":1000000000000}'), ACCEPTED),
    (flat(usage='{"t":1000000000001}'), "QUANTITY_TOO_LARGE"),
    (flat(usage='{"t":"1000000000001"}'), "QUANTITY_TOO_LARGE"),
    (flat(usage='{"t":"' + "0" * 900 + '1"}'), ACCEPTED),
    (flat(usage='{"t":' + "9" * 900 + "}"), "QUANTITY_TOO_LARGE"),
    (flat(usage='{"t":-1}'), "NEGATIVE_QUANTITY"),
    (flat(usage='{"t":-' + "9" * 900 + "}"), "NEGATIVE_QUANTITY"),
    (flat(usage='{"t":"-1"}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":""}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":" 1"}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":"٣"}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":1.0}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":1e3}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":-0.0}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":null}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":true}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":{}}'), "INVALID_QUANTITY"),
    (flat(usage='{"t":[1]}'), "INVALID_QUANTITY"),
]

TIMES = [
    ("2026-11-01T12:00:00Z", ACCEPTED),
    ("2026-11-01t12:00:00z", ACCEPTED),
    ("2026-11-01 12:00:00+00:00", ACCEPTED),
    ("2026-11-01T12:00:00.1Z", ACCEPTED),
    ("2026-11-01T12:00:00.1234569Z", ACCEPTED),
    ("2026-11-01T12:00:00." + "9" * 30 + "Z", ACCEPTED),
    ("2026-11-01T12:00:00." + "9" * 31 + "Z", "INVALID_TIME"),
    ("2026-11-01T12:00:00.Z", "INVALID_TIME"),
    ("2026-11-01T12:00:00,5Z", "INVALID_TIME"),
    ("2026-11-01T23:59:60Z", ACCEPTED),
    ("2026-12-31T23:59:60.999999Z", ACCEPTED),
    ("2026-11-01T23:59:61Z", "INVALID_TIME"),
    ("2026-11-01T24:00:00Z", "INVALID_TIME"),
    ("2026-11-01T12:60:00Z", "INVALID_TIME"),
    ("2026-11-01T12:00Z", "INVALID_TIME"),
    ("2026-11-01", "INVALID_TIME"),
    ("2026-11-01T12:00:00", "TIME_WITHOUT_OFFSET"),
    ("2026-11-01T12:00:00.5", "TIME_WITHOUT_OFFSET"),
    ("2026-13-01T12:00:00", "INVALID_TIME"),
    ("0000-01-01T00:00:00", "TIME_WITHOUT_OFFSET"),
    ("2026-02-29T00:00:00Z", "INVALID_TIME"),
    ("2024-02-29T00:00:00Z", ACCEPTED),
    ("2000-02-29T23:59:59Z", ACCEPTED),
    ("1900-02-29T00:00:00Z", "INVALID_TIME"),
    ("0000-02-29T00:00:00Z", "TIME_OUT_OF_RANGE"),
    ("2026-00-01T00:00:00Z", "INVALID_TIME"),
    ("2026-01-00T00:00:00Z", "INVALID_TIME"),
    ("2026-04-31T00:00:00Z", "INVALID_TIME"),
    ("2026-11-01T12:00:00+23:59", ACCEPTED),
    ("2026-11-01T12:00:00-23:59", ACCEPTED),
    ("2026-11-01T12:00:00-00:00", ACCEPTED),
    ("2026-11-01T12:00:00+24:00", "INVALID_TIME"),
    ("2026-11-01T12:00:00+00:60", "INVALID_TIME"),
    ("2026-11-01T12:00:00+0100", "INVALID_TIME"),
    ("2026-11-01T12:00:00+01", "INVALID_TIME"),
    ("2026-11-01T12:00:00ZZ", "INVALID_TIME"),
    (" 2026-11-01T12:00:00Z", "INVALID_TIME"),
    ("2026-11-01T12:00:00Z\\n", "INVALID_TIME"),
    ("２026-11-01T12:00:00Z", "INVALID_TIME"),
    ("1970-01-01T00:00:00Z", ACCEPTED),
    ("1969-12-31T23:59:59.999999Z", "TIME_OUT_OF_RANGE"),
    ("1969-12-31T23:30:00-01:00", ACCEPTED),
    ("1970-01-01T00:30:00+01:00", "TIME_OUT_OF_RANGE"),
    ("1969-12-31T23:59:60Z", ACCEPTED),
    ("2027-01-15T08:05:00Z", ACCEPTED),  # now + clock skew
    ("2027-01-15T08:05:00.000000999Z", ACCEPTED),
    ("2027-01-15T08:05:00.000001Z", "TIME_IN_FUTURE"),
    ("2106-02-07T06:28:14.999999Z", "TIME_IN_FUTURE"),
    ("2106-02-07T06:28:15Z", "TIME_OUT_OF_RANGE"),
    ("9999-12-31T23:59:60Z", "TIME_OUT_OF_RANGE"),
    ("", "MISSING_TIME"),
]
TABLE += [(flat(time=f'"{time}"'), reason) for time, reason in TIMES]
TABLE += [(flat(time=text), "INVALID_TIME") for text in ("1", "1.5", "true", "[]", "{}")]
TABLE += [(flat(time="null"), "MISSING_TIME"), (flat(time=None), "MISSING_TIME")]


@pytest.mark.parametrize(("line", "reason"), TABLE)
def test_boundaries(line, reason):
    line = line if isinstance(line, bytes) else line.encode()
    expected = check(line)
    if reason == "BLANK":
        assert expected.read == 0
    else:
        assert expected.read == 1
        assert [row[1] for row in expected.rejected] == ([] if reason is ACCEPTED else [reason])


def test_the_clock_may_stand_beyond_the_range():
    # given a clock after 2106, when an event is at the first instant out of range, then the range still holds
    for time, rows in (("2106-02-07T06:28:14.999999Z", 1), ("2106-02-07T06:28:15Z", 0)):
        decoded = decode(Lines("f", 0, flat(time=f'"{time}"').encode()), NARROW, 5 * 10**15)
        assert decoded.events.num_rows == rows


@pytest.mark.parametrize("quantity", [0, 1, 2**31, 2**53 + 1, 10**18 - 1, 10**18, 2**63 - 1, 2**63, 2**64, -(2**63)])
def test_quantities_at_the_edges(quantity):
    check(flat(usage=f'{{"t":{quantity}}}').encode(), WIDE)
    check(flat(usage=f'{{"t":"{quantity}"}}').encode(), WIDE)


@pytest.mark.parametrize("meters", [1023, 1024, 1025])
def test_meters_up_to_the_room_there_is(meters):
    usage = "{" + ",".join(f'"m{i}":{i}' for i in range(meters)) + "}"
    expected = check(flat(usage=usage).encode(), WIDE)
    assert len(expected.rejected) == (meters > 1024)


def test_lines_ends_and_positions():
    # given lines with both line ends, blank lines, rejects between events, and no end at the end
    lines = [CLOUD_EVENT, FLAT + "\r", "", " \r", "{\r", flat(id='"é"'), "\t", flat() + "\r\r", "]", flat()]
    chunk = "\n".join(lines).encode()
    expected = check(chunk, offset=10**12)
    assert expected.read == 7
    check(chunk + b"\n")
    check(chunk + b"\r")
    check(b"")
    check(b"\n\n\r\n")


def test_every_cut_of_a_chunk():
    chunk = (CLOUD_EVENT + "\n" + flat(id=r'"\ud83d\ude00"') + "\r\n").encode()
    for size in range(len(chunk)):
        check(chunk[:size])


def test_dictionaries_grow():
    # more distinct texts than the tables have room for at first, each of a different size
    lines = [flat(id=f'"{i}"', customer=f'"{"c" * (i % 30)}{i}"', usage=f'{{"m{i % 300}":{i}}}') for i in range(3000)]
    expected = check("\n".join(lines).encode())
    assert len(expected.events) == 3000


def test_the_exact_reader_alone_agrees():
    for line, _ in TABLE:
        line = (line if isinstance(line, bytes) else line.encode()).rstrip(b"\r")
        if line.strip():
            agree_alone(line, NARROW)


def agree_alone(line, limits):
    outcome, found = read_line(line, limits, NOW_US), decode_line(line, limits, NOW_US)
    assert outcome.unknown_fields == found.unknown_fields
    assert outcome.reason == (min(found.reasons) if found.reasons else None)
    if outcome.event is not None:
        assert outcome.event.id == found.event["id"]
        assert outcome.event.event_time_us == found.event["event_time_us"]
        assert outcome.event.usage == [(item["meter"], item["quantity"]) for item in found.event["usage"]]


def test_nothing_canonical_leaves_the_native_parser(monkeypatch):
    # The exact reader is a hundred times slower: every form that is not an error must stay native.
    monkeypatch.setattr(decode_module, "read_line", lambda *_: pytest.fail("handed over"))
    lines = [line for line, reason in TABLE if reason is ACCEPTED and isinstance(line, str)]
    rare = ('":-0', '"usage":{"a":[1,{}],"a":2}', '"id":1,"id":2', '"data":1,"data"')
    kept = [line for line in lines if not any(part in line for part in rare)]
    decoded = decode(Lines("f", 0, "\n".join(kept).encode()), NARROW, NOW_US)
    assert decoded.events.num_rows == len(kept) > 40


# --- corrections, and late events that are billed now ---------------------------------------------------

EVENT_NAMED = '{"source":"s","id":"e","usage":{"t":5,"u":1}}'
LARGE = str(10**12)


def correction(**fields):
    """A flat one."""
    said = {"type": '"usage.correction"', "reason": '"r"', "author": '"a"', "corrects": EVENT_NAMED}
    return flat(**{"usage": '{"t":-5}'} | said | fields)


def window(start, grain, time="2026-11-04T12:34:00Z", **more):
    corrects = f'{{"window_start":"{start}","grain":"{grain}"}}'
    return correction(corrects=corrects, time=f'"{time}"', **more)


CORRECTIONS = [
    (correction(), ACCEPTED),
    (correction(corrects='{"id":"e"}', source='"x"'), ACCEPTED),
    (correction(corrects='{"id":"e","x":1,"x":2}', x="1"), ACCEPTED),
    (correction(corrects="null"), "CORRECTION_OF_NOTHING"),
    (correction(corrects=None), "CORRECTION_OF_NOTHING"),
    (correction(corrects="[]"), "CORRECTION_OF_NOTHING"),
    (correction(corrects="{}"), "CORRECTION_OF_NOTHING"),
    (correction(corrects='{"id":"e","grain":"day"}'), "CORRECTION_OF_NOTHING"),
    (correction(corrects='{"source":"s"}'), "CORRECTION_OF_NOTHING"),
    (correction(corrects='{"id":""}'), "CORRECTION_OF_NOTHING"),
    (correction(corrects='{"id":1}'), "INVALID_CORRECTION"),
    (correction(corrects='{"id":"e","source":1}'), "INVALID_CORRECTION"),
    (correction(corrects='{"id":"e","id":"e"}'), "DUPLICATE_FIELD"),
    (correction(corrects='{"id":"e","usage":{}}'), "MISSING_METER"),
    (correction(corrects='{"id":"e","usage":{"t":-5}}'), "NEGATIVE_QUANTITY"),
    (correction(corrects='{"id":"e","usage":{"requests":1}}'), "INVALID_METER_NAME"),
    (correction(corrects='{"id":"e","usage":{"t":4}}'), "INVALID_CORRECTION"),
    (correction(usage='{"t":1}', corrects=f'{{"id":"e","usage":{{"t":{LARGE}}}}}'), "INVALID_CORRECTION"),
    (correction(usage='{"a":1,"b":1,"c":1}'), "TOO_MANY_METERS"),
    (correction(usage='{"a":1,"b":1,"requests":-1}'), ACCEPTED),
    (correction(usage='{"t":0}'), "INVALID_CORRECTION"),
    (correction(usage='{"t":"-5","u":"2"}'), ACCEPTED),
    (correction(usage='{"t":"--5"}'), "INVALID_QUANTITY"),
    (correction(usage='{"t":"-"}'), "INVALID_QUANTITY"),
    (correction(usage='{"t":-5.0}'), "INVALID_QUANTITY"),
    (correction(usage=f'{{"x":{LARGE}}}'), ACCEPTED),
    (correction(usage=f'{{"x":-{LARGE}}}', corrects='{"id":"e"}'), ACCEPTED),
    (correction(usage=f'{{"x":-{LARGE}1}}', corrects='{"id":"e"}'), "QUANTITY_TOO_LARGE"),
    (correction(usage='{"requests":1}'), "INVALID_CORRECTION"),
    (correction(usage='{"requests":-1}'), ACCEPTED),
    (correction(reason=None), "CORRECTION_WITHOUT_REASON"),
    (correction(reason='""'), "CORRECTION_WITHOUT_REASON"),
    (correction(author="1"), "CORRECTION_WITHOUT_AUTHOR"),
    (correction(author='"' + "x" * 41 + '"'), "CORRECTION_WITHOUT_AUTHOR"),
    (correction(type='"llm.usage"', usage='{"t":1}'), ACCEPTED),  # its other fields are unknown ones
    (window("2026-11-04T12:34:00Z", "minute"), ACCEPTED),
    (window("2026-11-04T13:34:00+01:00", "minute", "2026-11-04T12:34:59.999999Z"), ACCEPTED),
    (window("2026-11-04T12:34:00Z", "minute", "2026-11-04T12:35:00Z"), "INVALID_CORRECTION"),
    (window("2026-11-04T12:00:00Z", "hour"), ACCEPTED),
    (window("2026-11-04T12:30:00Z", "hour"), "INVALID_CORRECTION"),
    (window("2026-11-04T00:00:00Z", "day"), ACCEPTED),
    (window("2026-11-04T00:00:00.000001Z", "day"), "INVALID_CORRECTION"),
    (window("2026-11-02T00:00:00Z", "week"), ACCEPTED),
    (window("2026-11-03T00:00:00Z", "week"), "INVALID_CORRECTION"),
    (window("2026-11-02T00:00:00Z", "week", "2026-11-09T00:00:00Z"), "INVALID_CORRECTION"),
    (window("2026-11-01T00:00:00Z", "month"), ACCEPTED),
    (window("2026-11-01T00:00:00Z", "month", "2026-11-30T23:59:59Z"), ACCEPTED),
    (window("2026-11-01T00:00:00Z", "month", "2026-12-01T00:00:00Z"), "INVALID_CORRECTION"),
    (window("2024-02-01T00:00:00Z", "month", "2024-02-29T23:59:59Z"), ACCEPTED),
    (window("2026-11-05T00:00:00Z", "day"), "INVALID_CORRECTION"),
    (window("2026-11-04T12:34:00Z", "second"), "INVALID_CORRECTION"),
    (window("2026-11-04", "day"), "INVALID_CORRECTION"),
    (correction(corrects='{"grain":"day"}'), "INVALID_CORRECTION"),
    (cloud(type='"usage.correction"', data=correction()), ACCEPTED),
    (cloud(type='"usage.correction"', corrects=EVENT_NAMED), "CORRECTION_OF_NOTHING"),
]
LATE = [
    (flat(reason='"r"', author='"a"'), ACCEPTED),
    (flat(reason='"r"'), "CORRECTION_WITHOUT_AUTHOR"),
    (flat(corrects="1", author='"a"', reason='"r"'), ACCEPTED),
    (correction(), ACCEPTED),
    (cloud(data=flat(reason='"r"', author='"a"')), ACCEPTED),
    (cloud(reason='"r"', author='"a"'), "CORRECTION_WITHOUT_REASON"),
]


@pytest.mark.parametrize(
    ("line", "reason", "late"),
    [(*row, False) for row in CORRECTIONS] + [(*row, True) for row in LATE],
)
def test_what_changes_a_bill_later(line, reason, late):
    expected = check(line.encode(), late=late)
    assert [row[1] for row in expected.rejected] == ([] if reason is ACCEPTED else [reason])


AMOUNTS = (
    st.integers(-3, 3)
    | st.integers(0, 3)
    | st.sampled_from(("-5", "5", "-0", "x", -(10**12), 10**12, 10**12 + 1, 1.5, None))
)
USAGES = st.dictionaries(
    st.sampled_from(("t", "t", "u", "v", "w", "x", "requests", "No")), AMOUNTS, min_size=1, max_size=5
)
TEXTS = st.sampled_from(("", "s", "é", "x" * 41, None, 1))
INSTANTS = st.builds(
    lambda day, time, zone: f"2026-{day}T{time}{zone}",
    st.sampled_from(("11-01", "11-02", "11-04", "11-30", "12-01")),
    st.sampled_from(("00:00:00", "00:00:00", "12:00:00", "12:34:00", "23:59:60")),
    st.sampled_from(("Z", "Z", "Z", "+01:00", "")),
)
GRAINS = st.sampled_from(("minute", "hour", "day", "week", "month", "year", None, 1))


CORRECTS = st.fixed_dictionaries({}, optional={"source": TEXTS, "id": TEXTS, "usage": USAGES}) | st.fixed_dictionaries(
    {"window_start": INSTANTS, "grain": GRAINS}, optional={"id": TEXTS}
)
CHANGES = st.one_of(
    st.tuples(st.just("usage"), USAGES),
    st.tuples(st.just("corrects"), CORRECTS),
    st.tuples(st.just("corrects"), CORRECTS),
    st.tuples(st.just("time"), INSTANTS),
    st.tuples(st.sampled_from(("reason", "author", "x")), TEXTS),
    st.tuples(st.just("type"), st.sampled_from(("usage.correction", "llm.usage", None))),
)
GOOD = [json.loads(line) for line, reason in CORRECTIONS + LATE if reason is ACCEPTED and "specversion" not in line]


@settings(max_examples=300, derandomize=True)
@given(st.sampled_from(GOOD), st.lists(CHANGES, max_size=2), st.booleans())
def test_corrections_of_any_values(line, changes, late):
    check(json.dumps(line | dict(changes), ensure_ascii=False).encode(), late=late)


# --- mutations -------------------------------------------------------------------------------------------

SEEDS = [line if isinstance(line, bytes) else line.encode() for line, _ in TABLE + CORRECTIONS if len(line) < 700]


def mutated(rng):
    """A line of the table, perhaps with its members in another order, perhaps damaged."""
    line = rng.choice(SEEDS) if rng.random() < 0.6 else rng.choice((CLOUD_EVENT, FLAT)).encode()
    if rng.random() < 0.2:
        line = swapped_values(line, rng)
    return damaged(line, rng) if rng.random() < 0.85 else line


def swapped_values(line, rng):
    """The members of the top object in another order, one of them with another's value."""
    try:
        members = list(json.loads(line).items())
    except (ValueError, AttributeError):
        return line
    rng.shuffle(members)
    if members and rng.random() < 0.5:
        name = rng.choice(members)[0]
        members.append((name + rng.choice(("", "", "x")), rng.choice(members)[1]))
    text = ",".join(f"{json.dumps(name)}: {json.dumps(value)}" for name, value in members)
    return b"{" + text.encode("utf-8", "surrogatepass") + b"}"


def fuzz(seed, lines):
    rng = random.Random(seed)
    for start in range(0, lines, 200):
        batch = [mutated(rng) for _ in range(min(200, lines - start))]
        check(b"\n".join(batch), rng.choice((NARROW, NARROW, WIDE)), offset=start)
        for line in batch[:20]:
            for piece in line.split(b"\n"):
                if piece.strip(b" \t\r"):
                    agree_alone(piece, NARROW)


@pytest.mark.parametrize("seed", range(4))
def test_mutated_lines(seed):
    fuzz(seed, 4000)


@pytest.mark.parametrize("seed", range(15))
def test_lines_of_producers(seed):
    # `make fuzz` does the same with millions
    rng = random.Random(seed)
    check(b"\n".join(lines_of(rng, 200)), rng.choice((NARROW, WIDE)))


# --- lines of a form that is known -----------------------------------------------------------------------


def parsed(chunk, limits=NARROW):
    """The parser at the first line that it hands over, or at the end."""
    parser = LineParser(
        chunk,
        0,
        event_bytes_max=limits.event_bytes_max,
        string_bytes_max=limits.string_bytes_max,
        quantity_max=limits.quantity_max,
        meters_max=limits.meters_per_event_max,
        time_max_us=NOW_US,
    )
    parser.run()
    return parser


def test_a_form_is_learnt_once():
    # given two producers whose lines alternate, then all but the first of each are read by their forms
    flat_line = flat(id='"1"', model='"m"', usage='{"a":1,"b":"22"}')
    parser = parsed("\r\n".join([CLOUD_EVENT, flat_line] * 50 + [" " * 64]).encode())
    assert (parser.events, parser.known_lines) == (100, 98)


def test_columns_are_handed_over_once():
    parser = parsed(CLOUD_EVENT.encode())
    columns = parser.columns()
    for again in (parser.columns, parser.run, partial(parser.append, b"a", 0, [b""] * 7, [(b"t", 1)])):
        with pytest.raises(ValueError, match="handed over"):
            again()
    assert bytes(columns["id_text"]) == b"7f3c"


def test_forms_beyond_those_that_are_kept():
    # given more forms than are kept or learnt, in turn, then every line is still read
    lines = [flat(**{f"x{n % 90}": str(n)}, usage=f'{{"m{n % 7}":{n}}}') for n in range(400)]
    expected = check("\n".join(lines).encode())
    assert (len(expected.events), expected.unknown_fields) == (400, 400)


@pytest.mark.parametrize(
    "line", [CLOUD_EVENT, flat(customer='"acme"', usage='{"t":12,"u":"7"}')], ids=["cloud", "flat"]
)
def test_a_known_form_with_one_byte_changed(line):
    line = line.encode()
    changed = [line]
    for at in range(len(line)):
        changed += [line[:at] + byte + line[at + 1 :] for byte in (b'"', b"\\", b"}", b"0", b"x", b"\x1f", b"\xc3")]
        changed += [line[:at] + line[at + 1 :], line]
    check(b"\n".join(changed))


def test_values_of_every_length_in_a_known_form():
    lines = [flat(id=f'"{"i" * n}"', customer=f'"{"c" * n}"', usage=f'{{"t":{"9" * n}}}') for n in range(1, 42)]
    check("\n".join(flat() + "\n" + line for line in lines).encode())
    check("\n".join(flat() + "\n" + line for line in lines).encode(), WIDE)


def test_a_time_of_zeros_is_no_minute():
    check((flat(time='"' + "\\u0000" * 17 + '00Z"') + "\n").encode() * 2, WIDE)


@settings(max_examples=150, derandomize=True)
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=3), max_size=30))
def test_lines_from_pieces(pieces):
    check(b"".join(pieces))


NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
NAMES = st.sampled_from(
    [
        "specversion",
        "id",
        "source",
        "time",
        "type",
        "customer",
        "subject",
        *DIMENSIONS[1:],
        "usage",
        "data",
        "x",
    ]
)


@settings(max_examples=200, derandomize=True)
@given(st.dictionaries(NAMES, VALUES, max_size=8), st.booleans(), st.booleans())
def test_objects_of_any_values(fields, enveloped, ascii_only):
    line = json.loads(CLOUD_EVENT if enveloped else FLAT) | fields
    try:
        text = json.dumps(line, ensure_ascii=ascii_only).encode()
    except UnicodeEncodeError:
        return
    check(text)
