"""Lines that producers may send, what is wrong with each, and how readers of them are held together."""

from tests.fuzz.compare import NARROW, NOW_US, compare
from tests.oracle.decode import decode_line

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


def agree_alone(line, limits):
    outcome, found = read_line(line, limits, NOW_US), decode_line(line, limits, NOW_US)
    assert outcome.unknown_fields == found.unknown_fields
    assert outcome.reason == (min(found.reasons) if found.reasons else None)
    if outcome.event is not None:
        assert outcome.event.id == found.event["id"]
        assert outcome.event.event_time_us == found.event["event_time_us"]
        assert outcome.event.usage == [(item["meter"], item["quantity"]) for item in found.event["usage"]]


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
