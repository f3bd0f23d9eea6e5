"""Messages into items, and the way back from a place in joined text to a message. No broker."""

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.sources.kafka_messages import message_items
from flow.steps.batches import Decoded, Limits, Lines, Unreadable, source_positions
from flow.steps.decode import decode

from .conftest import event
from .test_broker import arrow

NOW_US = 1_800_000_000_000_000
ORIGIN = "t[3]"


def outcomes(decoded: Decoded) -> list[tuple[str, str, str]]:
    """(position, id or reason, payload) of every event, accepted or rejected."""
    where = source_positions(decoded.origin, decoded.events["position"], decoded.messages).to_pylist()
    found = [(place, name, "") for place, name in zip(where, decoded.events["id"].to_pylist(), strict=True)]
    found += [(row["source_position"], row["reason"], repr(row["payload"])) for row in decoded.rejected.to_pylist()]
    return sorted(found)


def read(values: list[bytes | None], offsets: list[int]) -> list[tuple[str, str, str]]:
    items = message_items(ORIGIN, values, offsets, 1000)
    return sorted(row for item in items for row in outcomes(decode(item, Limits(), NOW_US)))


pieces = st.sampled_from(
    [event(1), event(2), event(3), b"{", b"", b" ", b"\r", b"nonsense", b"\xff\xff\xff\xff", b"ARROW1", b'"ARROW1"']
)
texts = st.lists(pieces, min_size=1, max_size=4).map(b"\n".join)
messages = st.lists(st.one_of(st.none(), texts, st.sampled_from([arrow(5, 3), arrow(9, 2, file=True)])), max_size=12)


@given(messages, st.integers(0, 2**40))
def test_together_as_one_by_one(values: list[bytes | None], first: int):
    offsets = list(range(first, first + 3 * len(values), 3))  # with gaps, as transaction markers leave them
    one_by_one = sorted(row for value, offset in zip(values, offsets, strict=True) for row in read([value], [offset]))
    assert read(values, offsets) == one_by_one


@given(st.lists(st.sampled_from([event(1), b"nonsense", b"", b"  "]), min_size=1, max_size=6))
def test_a_position_is_a_place_in_a_message(lines: list[bytes]):
    value = b"\n".join(lines)
    found = read([b"{}", value, b"{}"], [7, 8, 9])
    wanted = [("t[3]:7", "MISSING_ID", repr(b"{}")), ("t[3]:9", "MISSING_ID", repr(b"{}"))]
    start = 0
    for line in lines:
        place = f"t[3]:8+{start}" if start else "t[3]:8"
        if line == event(1):
            wanted.append((place, "e1", ""))
        elif line.strip():
            wanted.append((place, "INVALID_JSON", repr(line)))
        start += len(line) + 1
    if not value:
        wanted.append(("t[3]:8", "INVALID_JSON", repr(b"")))
    assert found == sorted(wanted)


def test_many_messages_are_one_item():
    items = list(message_items(ORIGIN, [event(n) for n in range(100)], list(range(100)), 10))
    assert [type(item) for item in items] == [Lines]


def test_no_message():
    assert list(message_items(ORIGIN, [], [], 10)) == []
    assert list(message_items(ORIGIN, [None], [1], 10)) == []


def test_arrow_is_cut_to_batches():
    items = list(message_items(ORIGIN, [arrow(0, 100)], [4], 30))
    assert [(item.origin, item.row, item.table.num_rows) for item in items] == [  # type: ignore[union-attr]
        ("t[3]:4", 0, 30),
        ("t[3]:4", 30, 20),
        ("t[3]:4", 50, 30),
        ("t[3]:4", 80, 20),
    ]


@pytest.mark.parametrize("file", [False, True])
def test_arrow_is_read_whole_or_not_at_all(file: bool):
    whole = arrow(0, 40, file=file)
    for cut in (9, 200, len(whole) - 100, len(whole) - 6):
        (item,) = message_items(ORIGIN, [whole[:-cut]], [4], 1000)
        assert isinstance(item, Unreadable)
        assert (item.origin, item.offset, item.data, item.reason.name) == (ORIGIN, 4, whole[:-cut], "INVALID_ARROW")


def test_positions_of_none():
    assert source_positions("f", pa.array([], pa.int64()), None).to_pylist() == []
