"""Native parser, exact reader and oracle say the same of every line, at every boundary."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fuzz.compare import NARROW, NOW_US, WIDE

from flow.steps import decode as decode_module
from flow.steps.batches import Lines
from flow.steps.decode import decode

from .decode_lines import ACCEPTED, CLOUD_EVENT, CORRECTIONS, FLAT, LATE, TABLE, agree_alone, check, flat


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


def test_nothing_canonical_leaves_the_native_parser(monkeypatch):
    # The exact reader is a hundred times slower: every form that is not an error must stay native.
    monkeypatch.setattr(decode_module, "read_line", lambda *_: pytest.fail("handed over"))
    lines = [line for line, reason in TABLE if reason is ACCEPTED and isinstance(line, str)]
    rare = ('":-0', '"usage":{"a":[1,{}],"a":2}', '"id":1,"id":2', '"data":1,"data"')
    kept = [line for line in lines if not any(part in line for part in rare)]
    decoded = decode(Lines("f", 0, "\n".join(kept).encode()), NARROW, NOW_US)
    assert decoded.events.num_rows == len(kept) > 40


# --- corrections, and late events that are billed now ---------------------------------------------------


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
