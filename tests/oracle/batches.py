"""Events in plain Python, the EVENTS batches that the kernels get for them, and strategies for both.

A plain event is a dict: `id`, `source`, `event_time_us`, a value for each of DIMENSIONS, and `usage`, a list of
(meter, quantity).
"""

import random
from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
from hypothesis import settings
from hypothesis import strategies as st

from flow.kernels import Amounts, Identity, Rows, Verdicts, identify
from flow.schema import DIMENSIONS, EVENTS, STANDARD_METERS
from flow.steps.batches import Rejects
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rated
from flow.steps.route import Routed

PlainEvent = dict[str, Any]

PROPERTY = settings(max_examples=60)
"""For every property: how long one example takes is no part of what is tested."""

MINUTE_US = 60_000_000
DAY_US = 86_400_000_000
TIME_MAX_US = 4_294_967_295_999_999
"""The last microsecond of the last second that DateTime can hold: 2106-02-07T06:28:15."""

ODD_TEXTS = (
    "",
    "\0",
    "a",
    "A",
    "a\0",
    "é",  # one code point
    "e\u0301",  # the same letter in two
    "Zürich",
    "Ωmega",
    "日本",
    "\U0001f4b8",
    "\ufeffacme",
    "\uffff",
    "\U0010ffff",
    "x" * 15,
    "x" * 16,
    "x" * 17,
    "long " * 60,
)
QUANTITIES = (0, 1, 2, 2**31 - 1, 2**31, 2**32, 2**53 + 1, 10**12, 847_392_584_203, 2**62, 2**63 - 1)
USAGE_SIZES = (0, 1, 2, 3, 4, 5, 7, 8, 63, 64, 65, 70)
"""Numbers of meters an event: about every edge of a store row of four slots, and beyond the default limit."""


def plain_event(**fields: Any) -> PlainEvent:
    """An event with defaults for what is not given."""
    defaults = {"id": "1", "source": "s", "event_time_us": 0, "usage": [("input_tokens", 1)]}
    return defaults | dict.fromkeys(DIMENSIONS, "") | {"customer": "acme"} | fields


def event_batch(events: Sequence[PlainEvent], seed: int | None = None) -> pa.RecordBatch:
    """EVENTS of plain events. With a seed, dictionaries hold unused and repeated values, in any order."""
    rng = None if seed is None else random.Random(seed)
    offsets, meters, quantities = [0], [], []
    for event in events:
        for meter, quantity in event["usage"]:
            meters.append(meter)
            quantities.append(quantity)
        offsets.append(len(meters))
    usage_type = EVENTS.field("usage").type
    items = pa.StructArray.from_arrays(
        [_coded(meters, rng), pa.array(quantities, pa.int64())], fields=list(usage_type.value_type)
    )
    columns = {
        "id": pa.array([event["id"] for event in events], pa.string()),
        "event_time_us": pa.array([event["event_time_us"] for event in events], pa.int64()),
        "usage": pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), items, type=usage_type),
        "position": pa.array(range(len(events)), pa.int64()),
    }
    for name in ("source", *DIMENSIONS):
        columns[name] = _coded([event[name] for event in events], rng)
    return pa.RecordBatch.from_arrays([columns[name] for name in EVENTS.names], schema=EVENTS)


def _coded(values: Sequence[str], rng: random.Random | None) -> pa.DictionaryArray:
    dictionary = list(dict.fromkeys(values))
    if rng is not None:
        dictionary += rng.choices(dictionary, k=rng.randrange(4)) if dictionary else []
        dictionary += [f"unused {n}" for n in range(rng.randrange(3))]
        rng.shuffle(dictionary)
    places: dict[str, list[int]] = {}
    for place, value in enumerate(dictionary):
        places.setdefault(value, []).append(place)
    codes = [places[value][0] if rng is None else rng.choice(places[value]) for value in values]
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array(dictionary, pa.string()))


def selection(rows: Iterable[int]) -> pa.Buffer:
    """A selection of rows as the kernels take it: uint32 row numbers."""
    return pa.py_buffer(b"".join(row.to_bytes(4, "little") for row in rows))


def numbers(buffer: pa.Buffer, width: int = 16, *, signed: bool = False) -> list[int]:
    """The little-endian integers of `width` bytes in a buffer."""
    content = bytes(buffer)
    return [int.from_bytes(content[at : at + width], "little", signed=signed) for at in range(0, len(content), width)]


def wide(values: Iterable[int], *, signed: bool = False) -> pa.Buffer:
    """A buffer of 16-byte little-endian integers."""
    return pa.py_buffer(b"".join(value.to_bytes(16, "little", signed=signed) for value in values))


def judged(events: pa.RecordBatch, rows: Sequence[int] | None = None, identity: Identity | None = None) -> Judged:
    """A batch on one shard, all of whose selected rows were accepted."""
    chosen: Rows = None if rows is None else selection(rows)
    count = events.num_rows if rows is None else len(rows)
    accepted = selection(range(events.num_rows) if rows is None else rows)
    none = pa.py_buffer(b"")
    routed = Routed("shard-000", "test", events, identity or identify(events), chosen, count, Rejects("test").batch())
    return Judged(routed, Verdicts(accepted, count, 0, none, 0, none, 0), 0)


def rated(
    events: pa.RecordBatch,
    amounts: Sequence[Sequence[int | None]],
    requests: Sequence[int],
    rows: Sequence[int] | None = None,
) -> Rated:
    """A judged batch with given amounts: per event one a usage item (None is unpriced), and one for `requests`.

    What belongs to rows that are not selected is filled with rubbish, which nobody may look at.
    """
    chosen = set(range(events.num_rows) if rows is None else rows)
    rubbish = -(2**127) + 1
    by_item: list[int] = []
    flags: list[int] = []
    for row, of_event in enumerate(amounts):
        known = row in chosen
        by_item += [(0 if amount is None else amount) if known else rubbish for amount in of_event]
        flags += [(1 if amount is None else 0) if known else 255 for amount in of_event]
    by_row = [amount if row in chosen else rubbish for row, amount in enumerate(requests)]
    given = Amounts(wide(by_item, signed=True), pa.py_buffer(bytes(flags)), wide(by_row, signed=True))
    return Rated(judged(events, rows), given, events)


# --- random events --------------------------------------------------------------------------------------


def random_usage(rng: random.Random, size: int | None = None, quantity_max: int = 2**63 - 1) -> list[tuple[str, int]]:
    """Usage of `size` distinct meters, in any order."""
    if size is None:
        size = rng.choice(USAGE_SIZES) if rng.random() < 0.1 else rng.randrange(6)
    pool = [*STANDARD_METERS, *(f"m{n}" for n in range(size + 2))]
    edges = [quantity for quantity in QUANTITIES if quantity <= quantity_max]
    return [
        (meter, rng.choice(edges) if rng.random() < 0.5 else rng.randint(0, quantity_max))
        for meter in rng.sample(pool, size)
    ]


def random_events(seed: int, count: int, quantity_max: int = 2**63 - 1) -> list[PlainEvent]:
    """Events with distinct identities, few dimensions, odd texts and times about the edges of windows."""
    rng = random.Random(seed)
    times = [0, 1, MINUTE_US - 1, MINUTE_US, DAY_US - 1, DAY_US, TIME_MAX_US - MINUTE_US, TIME_MAX_US]
    times += [rng.randint(0, TIME_MAX_US) for _ in range(3)]
    texts = rng.sample(ODD_TEXTS, 4)
    return [
        plain_event(
            id=f"{n}-{rng.choice(ODD_TEXTS)}",
            source=rng.choice(texts),
            event_time_us=rng.choice(times),
            usage=random_usage(rng, quantity_max=quantity_max),
            **{name: rng.choice(texts) for name in DIMENSIONS},
        )
        for n in range(count)
    ]


TEXTS = st.one_of(st.sampled_from(ODD_TEXTS), st.text("aB0-_ \0é\u0301ß日\U0001f4b8\uffff", max_size=40))
QUANTITY = st.one_of(st.sampled_from(QUANTITIES), st.integers(0, 2**63 - 1))
TIMES_US = st.one_of(
    st.sampled_from([0, MINUTE_US - 1, MINUTE_US, DAY_US - 1, DAY_US, TIME_MAX_US]), st.integers(0, TIME_MAX_US)
)


@st.composite
def plain_events(draw: st.DrawFn) -> PlainEvent:
    """One event. Its meters come from few names, so that events share them; now and then there are many."""
    size = draw(st.one_of(st.integers(0, 5), st.sampled_from(USAGE_SIZES)))
    if size <= 5:
        meters = draw(st.permutations(["input_tokens", "output_tokens", "a", "b_2", "m" * 64]))[:size]
        usage = [(meter, draw(QUANTITY)) for meter in meters]
    else:
        usage = random_usage(random.Random(draw(st.integers(0, 2**32))), size)
    dims = {name: draw(st.sampled_from(["", "x", *ODD_TEXTS[-8:]])) for name in DIMENSIONS[1:]}
    return plain_event(
        id=draw(TEXTS),
        source=draw(TEXTS),
        event_time_us=draw(TIMES_US),
        customer=draw(TEXTS),
        usage=usage,
        **dims,
    )


def event_batches(max_size: int = 8) -> st.SearchStrategy[tuple[list[PlainEvent], pa.RecordBatch]]:
    """Plain events and their batch, from none up."""
    lists = st.lists(plain_events(), max_size=max_size)
    return st.builds(
        lambda events, seed: (events, event_batch(events, seed)), lists, st.one_of(st.none(), st.integers(0, 2**16))
    )
