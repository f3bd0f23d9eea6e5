"""Corrections apart from other events: who they are, and on which shard, by the oracle's hashes."""

import json
import pickle
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
from tests.oracle.batches import numbers

from flow.kernels import Verdicts
from flow.oracle.hashing import fingerprint, murmur3_128, payload_hash
from flow.prices.book import parse_price_book
from flow.schema import DIMENSIONS
from flow.steps.amend import starts_window, usage_before_and_after
from flow.steps.batches import Limits, Lines
from flow.steps.combine import BlockBuilder
from flow.steps.decode import decode
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rater
from flow.steps.route import identified, route

HOUR_US = 3_600_000_000
NOW_US = 1_800_000_000_000_000
SATURDAY_US = 1_772_236_800_000_000  # 2026-02-28T00:00:00Z


def line(number: int, **changes: Any) -> dict[str, Any]:
    plain = {"id": f"e{number}", "source": "s", "time": "2026-03-01T12:00:00Z", "customer": "acme"}
    return plain | {"usage": {"input_tokens": number}} | changes


def correction(number: int) -> dict[str, Any]:
    corrects = {"source": "s", "id": f"e{number}"}
    said = {"type": "usage.correction", "corrects": corrects, "reason": f"because {number}", "author": "ana"}
    return line(number, id=f"c{number}", usage={"input_tokens": -number, "pages": 1}, **said)


def test_each_shard_has_its_own_with_what_they_say() -> None:
    events = [said for n in range(1, 20) for said in (line(n), correction(n))]
    data = b"".join(json.dumps(one).encode() + b"\n" for one in events)
    decoded = identified(decode(Lines("f", 0, data), Limits(), NOW_US))
    assert [(part.read, part.events.num_rows) for part in decoded.parts] == [(19, 19), (19, 19)]
    found = {}
    for routed in route(decoded, 4):
        sent = pickle.loads(pickle.dumps(routed.compact()))  # as it goes to another process
        assert (sent.events.num_rows, sent.count) == (routed.count, routed.count)
        if sent.amends is None:
            continue
        for row, (event, text) in enumerate(zip(sent.events.to_pylist(), sent.amends.texts.to_pylist(), strict=True)):
            number = json.loads(text)["reason"].removeprefix("because ")
            assert event["id"] == f"c{number}"
            usage = [(item["meter"], item["quantity"]) for item in event["usage"]]
            plain = payload_hash({name: event[name] for name in DIMENSIONS}, usage)
            bound = murmur3_128(f"{plain.to_bytes(16, 'little').hex()}{text}".encode())
            assert numbers(sent.identity.payload)[row] == bound
            assert numbers(sent.identity.fingerprint)[row] == fingerprint("s", event["id"])
            found[event["id"]] = sent.shard
    assert len(found) == 19 and len(set(found.values())) == 4


@pytest.mark.parametrize(
    ("change", "before", "expected"),
    [
        ({"a": -2, "b": 3}, None, ({"a": 2}, {"a": 0, "b": 3})),
        ({"a": -2, "b": 3}, {"a": 5, "c": 1}, ({"a": 5, "c": 1}, {"a": 3, "c": 1, "b": 3})),
        ({"requests": -1, "a": -5}, {"a": 5}, ({"a": 5}, {"a": 0})),
    ],
)
def test_before_and_after(change: Any, before: Any, expected: Any) -> None:
    assert usage_before_and_after(change, before) == expected


@pytest.mark.parametrize(
    ("grain", "start_us", "last_us"),
    [
        ("minute", SATURDAY_US + 60_000_000, SATURDAY_US + 119_999_999),
        ("hour", SATURDAY_US + HOUR_US, SATURDAY_US + 2 * HOUR_US - 1),
        ("day", SATURDAY_US, SATURDAY_US + 24 * HOUR_US - 1),
        ("week", SATURDAY_US - 5 * 24 * HOUR_US, SATURDAY_US + 2 * 24 * HOUR_US - 1),
        ("month", SATURDAY_US - 27 * 24 * HOUR_US, SATURDAY_US + 24 * HOUR_US - 1),
    ],
)
def test_a_window_has_its_first_and_its_last_instant(grain: str, start_us: int, last_us: int) -> None:
    assert starts_window(grain, start_us, start_us) and starts_window(grain, start_us, last_us)
    assert not starts_window(grain, start_us, start_us - 1) and not starts_window(grain, start_us, last_us + 1)
    assert not starts_window(grain, start_us + 1, start_us + 1)


@pytest.mark.parametrize("meters", range(1, 9))
def test_a_request_is_taken_back_wherever_its_meter_comes_to_stand(meters: int) -> None:
    """Given an event of so many meters that is taken back, rows of four meters have its request in any place."""
    usage = {f"meter_{n}": 7 for n in range(meters)}
    taken = dict.fromkeys(usage, -7) | {"requests": -1}
    void = correction(1) | {"usage": taken, "corrects": {"id": "e1", "source": "s", "usage": usage}}
    decoded = decode(Lines("f", 0, json.dumps(void).encode() + b"\n"), Limits(), NOW_US)
    (routed,) = route(decoded, 1)
    verdicts = Verdicts(pa.py_buffer(bytes(4)), 1, 0, *(pa.py_buffer(b""), 0) * 2)
    prices = "prices: [{meter: x, from: 2000-01-01T00:00:00Z, per: 1, price: '1'}]"
    book = parse_price_book(f"currency: USD\n{prices}", "book")
    builder = BlockBuilder("USD")
    builder.add(Rater(book).rate(Judged(routed, verdicts, 0)))
    found: Counter[str] = Counter()
    for table, rows in builder.cut("lineage", "writer", 1, 0):
        for row in pa.Table.from_batches(rows.batches).to_pylist() if table == "rollup_minute" else ():
            for slot, meter in enumerate(row["meters"].split(",")):
                found[meter] += int.from_bytes(row[f"q{slot}"], "little", signed=True)
    del found[""]
    assert found == taken == {meter: quantity for meter, (quantity, *_) in builder.meters.items()}
