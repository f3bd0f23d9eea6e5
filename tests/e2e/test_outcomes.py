"""What becomes of events that are not new: duplicates, conflicts, late and rejected ones."""

import json
from datetime import UTC, datetime, timedelta

from .harness import Pipeline, balance, event, flat, lines, make_events, truth


def test_duplicates_and_retries_with_new_timestamps_count_once(pipeline: Pipeline) -> None:
    events = make_events(500)
    retries = [one | {"time": one["time"] + timedelta(days=2, seconds=3)} for one in events[::5]]
    # In one file: of two, either may be read first, and it is the first to arrive that counts.
    pipeline.write("events.ndjson", events + events[::3] + retries)
    outcome = pipeline.run(shards=2)
    assert outcome.balance == balance(accepted=500, duplicate=len(events[::3]) + len(retries))
    assert pipeline.views() == truth(events)


def test_an_id_belongs_to_its_source(pipeline: Pipeline) -> None:
    # Given pairs of source and id that would run together without their lengths.
    pairs = [("a", "bc"), ("ab", "c"), ("", "abc"), ("b", "bc")]
    events = [event(0, source=source, id=id_) for source, id_ in pairs]
    pipeline.write("events.ndjson", events)
    assert pipeline.run().balance == balance(accepted=4)
    assert pipeline.views() == truth(events)


def test_a_conflict_is_recorded_and_the_first_one_counts(pipeline: Pipeline) -> None:
    changes = [
        {"usage": {"input_tokens": 900, "output_tokens": 96}},
        {"usage": {"input_tokens": 900}},
        {"customer": "other"},
        {"service_tier": "batch"},
    ]
    first = event(7)
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
        assert kept["usage"] == change.get("usage", first["usage"])
        assert kept["customer"] == change.get("customer", "acme")
        assert time == first["time"].replace(tzinfo=None)


def test_an_event_older_than_the_horizon_is_late_and_kept(pipeline: Pipeline) -> None:
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


def test_rejected_events_keep_reason_position_and_bytes(pipeline: Pipeline) -> None:
    def changed(**changes: object) -> bytes:
        return json.dumps(flat(event(1)) | changes).encode()

    future = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    bad = [
        (b'{"id": "x", ', "INVALID_JSON"),
        (b"\xff\xfe not text", "INVALID_UTF8"),
        (b"[1, 2]", "NOT_AN_OBJECT"),
        (b'{"id":"a","id":"b"}', "DUPLICATE_FIELD"),
        (changed(id=""), "MISSING_ID"),
        (changed(time="2026-03-01T12:00:00"), "TIME_WITHOUT_OFFSET"),
        (changed(time="yesterday"), "INVALID_TIME"),
        (changed(time=future), "TIME_IN_FUTURE"),
        (changed(customer=None), "MISSING_CUSTOMER"),
        (changed(usage={}), "MISSING_METER"),
        (changed(usage={"input_tokens": -1}), "NEGATIVE_QUANTITY"),
        (changed(usage={"input_tokens": 1.5}), "INVALID_QUANTITY"),
        (changed(usage={"input_tokens": 10**12 + 1}), "QUANTITY_TOO_LARGE"),
        (changed(usage={"Input": 1}), "INVALID_METER_NAME"),
        (b"\x00" * 9, "INVALID_JSON"),
    ]
    good = [event(n) for n in range(100, 100 + len(bad) + 1)]
    text, positions = lines(good[:1]), {}
    for (line, reason), one in zip(bad, good[1:], strict=True):
        positions[f"{pipeline.folder}/events/events.ndjson:{len(text)}"] = (reason, line)
        text += line + b"\n" + lines([one])
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
