"""What becomes of events that are not new: duplicates, conflicts, late and rejected ones."""

import json
import math
from datetime import UTC, datetime, timedelta
from random import Random

from flow.schema import DIMENSIONS

from .harness import Event, Pipeline, balance, event, flat, lines, make_events, truth

HOT = {"project": "search", "feature": "chat", "model": "small"}


def test_duplicates_and_retries_with_new_timestamps_count_once(pipeline: Pipeline) -> None:
    events = make_events(500)
    retries = [one | {"time": one["time"] + timedelta(days=2, seconds=3)} for one in events[::5]]
    # In one file: of two, either may be read first, and it is the first to arrive that counts.
    pipeline.write("events.ndjson", events + events[::3] + retries)
    outcome = pipeline.run(shards=2)
    assert outcome.balance == balance(accepted=500, duplicate=len(events[::3]) + len(retries))
    assert pipeline.views() == truth(events)


def test_row_9_a_storm_of_duplicates_across_files_shards_and_restarts(pipeline: Pipeline) -> None:
    # Given each event a thousand times, in any order, half of them with another time.
    events = make_events(40)
    copies = [one if n % 2 else one | {"time": one["time"] + timedelta(hours=n)} for one in events for n in range(999)]
    Random(9).shuffle(copies)
    pipeline.write("1.ndjson", events + copies[:20_000])
    # When they are read in two runs, then each one counts once, and every other one is a duplicate.
    assert pipeline.run(shards=3, workers=2).balance == balance(accepted=40, duplicate=20_000)
    pipeline.write("2.ndjson", copies[20_000:])
    assert pipeline.run().balance == balance(accepted=40, duplicate=40 * 999)
    assert pipeline.views() == truth(events)


def test_row_27_a_hot_customer_makes_no_hot_shard(pipeline: Pipeline) -> None:
    # Given a customer with nine of ten events, and a single model, project and feature.
    events = [one | {"customer": "hot", **HOT} if n % 10 else one for n, one in enumerate(make_events(800))]
    pipeline.write("events.ndjson", events)
    # When they are spread over shards, then each has about as many as any other, and the sums are whole.
    assert pipeline.run(shards=4, workers=2).balance == balance(accepted=800)
    counts = [count for (count,) in pipeline.rows("SELECT sum(accepted) FROM pipeline_balance GROUP BY shard")]
    assert len(counts) == 4
    assert min(counts) > 140 and max(counts) < 260
    assert pipeline.views() == truth(events)


def test_an_id_belongs_to_its_source(pipeline: Pipeline) -> None:
    # Given pairs of source and id that would run together without their lengths.
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("b", "bc")]
    events = [event(0, source=source, id=id_) for source, id_ in pairs]
    pipeline.write("events.ndjson", events)
    assert pipeline.run().balance == balance(accepted=4)
    assert pipeline.views() == truth(events)


def test_row_10_a_conflict_is_recorded_and_the_first_one_counts(pipeline: Pipeline) -> None:
    first = event(7)
    changes: list[Event] = [{name: "other"} for name in DIMENSIONS]
    changes += [{"usage": usage} for usage in ({"input_tokens": 900, "output_tokens": 96}, {"input_tokens": 900})]
    changes += [{"usage": first["usage"] | {"images": 1}}]
    pipeline.write("1.ndjson", [first])
    pipeline.write("2.ndjson", [event(7, **change) for change in changes])
    outcome = pipeline.run()
    assert outcome.balance == balance(accepted=1, conflicting=len(changes))
    assert pipeline.views() == truth([first])
    found = pipeline.rows(
        "SELECT source, id, source_position, payload, event_time FROM conflicting_events ORDER BY source_position"
    )
    origin = pipeline.folder / "events" / "2.ndjson"
    written = lines([event(7, **change) for change in changes]).splitlines(keepends=True)
    offsets = [sum(map(len, written[:n])) for n in range(len(written))]
    assert {row[2] for row in found} == {f"{origin}:{offset}" for offset in offsets}
    for source, id_, position, payload, time in found:
        change = changes[offsets.index(int(position.rpartition(":")[2]))]
        kept = json.loads(payload)
        assert (source, id_, kept["id"], kept["source"]) == (first["source"], first["id"], first["id"], first["source"])
        assert {name: kept[name] for name in ("usage", *DIMENSIONS)}.items() <= (first | change).items()
        assert time == first["time"].replace(tzinfo=None)


def test_row_28_an_event_older_than_the_horizon_is_late_and_kept(pipeline: Pipeline) -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    newest = event(1, noon)
    just_in_time = event(2, noon - timedelta(hours=1))
    late = event(3, noon - timedelta(hours=1, microseconds=1))
    retry = event(1, noon - timedelta(days=9))
    pipeline.write("events.ndjson", [newest, just_in_time, late, retry])
    assert pipeline.run(dedup={"horizon": "1h"}).balance == balance(accepted=2, late=1, duplicate=1)
    assert pipeline.views() == truth([newest, just_in_time])
    ((id_, time, watermark, position, payload),) = pipeline.rows(
        "SELECT id, event_time, watermark, source_position, payload FROM late_events"
    )
    assert (id_, time, watermark) == (late["id"], late["time"].replace(tzinfo=None), noon.replace(tzinfo=None))
    assert position == f"{pipeline.folder}/events/events.ndjson:{len(lines([newest, just_in_time]))}"
    assert json.loads(payload)["usage"] == late["usage"]


def test_rows_13_to_16_rejected_events_keep_reason_position_and_bytes(pipeline: Pipeline) -> None:
    def changed(**changes: object) -> bytes:
        return json.dumps(flat(event(1)) | changes).encode()

    now = datetime.now(UTC)
    future = (now + timedelta(minutes=6)).isoformat()
    bad = [
        (b'{"id": "x", ', "INVALID_JSON"),
        (b"\xff\xfe not text", "INVALID_UTF8"),
        (b"[1, 2]", "NOT_AN_OBJECT"),
        (b'{"id":"a","id":"b"}', "DUPLICATE_FIELD"),
        (changed(id=""), "MISSING_ID"),
        (changed(time="2026-03-01T12:00:00"), "TIME_WITHOUT_OFFSET"),
        (changed(time="yesterday"), "INVALID_TIME"),
        (changed(time=future), "TIME_IN_FUTURE"),
        (changed(time="2100-01-01T00:00:00Z"), "TIME_IN_FUTURE"),
        (changed(time="1969-12-31T23:59:59Z"), "TIME_OUT_OF_RANGE"),
        (changed(customer=None), "MISSING_CUSTOMER"),
        (changed(usage={}), "MISSING_METER"),
        (changed(usage=None), "MISSING_METER"),
        (changed(usage={"input_tokens": -1}), "NEGATIVE_QUANTITY"),
        *((changed(usage={"input_tokens": one}), "INVALID_QUANTITY") for one in (1.5, "12.5", "1e3", None, True, "-1")),
        (changed(usage={"input_tokens": 12}).replace(b"12}", b"1e3}"), "INVALID_QUANTITY"),
        (changed(usage={"input_tokens": math.nan}), "INVALID_JSON"),
        *((changed(usage={"input_tokens": n}), "QUANTITY_TOO_LARGE") for n in (10**12 + 1, 2**63, 2**64 - 1, 2**64)),
        (changed(usage={"Input": 1}), "INVALID_METER_NAME"),
        (b"\x00" * 9, "INVALID_JSON"),
    ]
    # What is just good enough: no tokens, the most of them, digits as text, the first instant, a clock that is ahead.
    edges = [{"usage": {"input_tokens": n, "output_tokens": 10**12 - n}} for n in (0, 12, 1000, 10**12)]
    edges += [{"time": datetime(1970, 1, 1, tzinfo=UTC)}, {"time": now + timedelta(minutes=4)}]
    good = [event(n + 100, **(edges[n] if n < len(edges) else {})) for n in range(len(bad) + 1)]
    text, positions = lines(good[:1]), {}
    for (line, reason), one in zip(bad, good[1:], strict=True):
        positions[f"{pipeline.folder}/events/events.ndjson:{len(text)}"] = (reason, line)
        text += line + b"\n" + lines([one]).replace(b'"input_tokens": 1000,', b'"input_tokens": "1000",')
    assert b'"1000"' in text
    (pipeline.folder / "events" / "events.ndjson").write_bytes(text)
    assert pipeline.run(shards=2).balance == balance(accepted=len(good), rejected=len(bad))
    assert pipeline.views() == truth(good)
    found = {
        position: (reason, bytes.fromhex(payload))
        for position, reason, payload in pipeline.rows(
            "SELECT source_position, reason, hex(payload) FROM rejected_events"
        )
    }
    assert found == positions
    details = pipeline.rows("SELECT reason FROM rejected_events WHERE detail = ''")
    assert not details
