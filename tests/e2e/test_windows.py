"""Windows at their boundaries, and prices at the instant of their change."""

from datetime import UTC, datetime

import pytest

from .harness import Pipeline, balance, event, make_events, truth

DAY = 86_400


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def starts(pipeline: Pipeline, grain: str) -> dict[int, int]:
    """Events by window start."""
    return {key[0]: row[2] for key, row in pipeline.views()[grain].items() if key[2] == "requests"}


def test_row_30_the_last_and_first_microsecond_of_windows_year_ends_and_leap_days(pipeline: Pipeline) -> None:
    times = [
        "2024-02-28T23:59:59.999999+00:00",
        "2024-02-29T00:00:00+00:00",  # a leap day, a Thursday
        "2024-02-29T23:59:59.999999+00:00",
        "2024-03-01T00:00:00+00:00",
        "2025-02-28T23:59:59.999999+00:00",  # not a leap year
        "2025-03-01T00:00:00+00:00",
        "2025-12-31T23:59:59.999999+00:00",  # a Wednesday: the week goes on into the next year
        "2026-01-01T00:00:00+00:00",
        "2026-01-04T23:59:59.999999+00:00",  # a Sunday
        "2026-01-05T00:00:00+00:00",  # a Monday
        "2026-01-05T00:59:59.999999+00:00",
        "2026-01-05T01:00:00+00:00",
        "2026-01-05T02:30:00+05:30",  # 2026-01-04T21:00:00Z
        "1970-01-01T00:00:00+00:00",
        "2000-02-29T12:00:00+00:00",
    ]
    events = [event(n, time) for n, time in enumerate(times)]
    pipeline.write("events.ndjson", events)
    pipeline.run()
    assert pipeline.views() == truth(events)
    # The oracle is ours as well: these are by hand.
    months = starts(pipeline, "month")
    assert {seconds(f"{month}-01"): count for month, count in MONTHS.items()} == months
    weeks = starts(pipeline, "week")
    assert {seconds(monday): count for monday, count in WEEKS.items()} == {
        start: count for start, count in weeks.items() if start > seconds("2024-01-01")
    }
    assert starts(pipeline, "day")[seconds("2024-02-29")] == 2
    assert starts(pipeline, "hour")[seconds("2026-01-05T00:00:00")] == 2
    assert starts(pipeline, "minute")[seconds("2026-01-05T00:59:00")] == 1
    assert starts(pipeline, "minute")[seconds("2026-01-04T21:00:00")] == 1


MONTHS = {"1970-01": 1, "2000-02": 1, "2024-02": 3, "2024-03": 1, "2025-02": 1, "2025-03": 1}
MONTHS |= {"2025-12": 1, "2026-01": 6}
WEEKS = {"2024-02-26": 4, "2025-02-24": 2, "2025-12-29": 4, "2026-01-05": 3}


def test_row_19_a_price_holds_from_its_very_microsecond_in_mid_window(pipeline: Pipeline) -> None:
    usage = {"output_tokens": 1}
    events = [
        event(1, "2026-03-01T12:00:29.999999Z", usage=usage),
        event(2, "2026-03-01T12:00:30Z", usage=usage),
        event(3, "2026-03-01T12:00:30.000001Z", usage=usage),
    ]
    pipeline.write("events.parquet", events)
    pipeline.run()
    views = pipeline.views()
    assert views == truth(events)
    (row,) = [row for key, row in views["minute"].items() if key[2] == "output_tokens"]
    assert row[:4] == (3, 2_400_000_000 + 2 * 2_500_000_000, 3, 0)


def test_the_numbers_of_the_issue(pipeline: Pipeline) -> None:
    # 847,392,584,203 input tokens at $0.60 per million are $508,435.5505218, exactly.
    largest = event(1, usage={"input_tokens": 847_392_584_203})
    # 5,000 events of 5 * 10^8 tokens sum to 2.5 * 10^12.
    many = [event(n, customer="many", usage={"output_tokens": 5 * 10**8}) for n in range(2, 5002)]
    unpriced = event(5002, model="unlisted", customer="none", usage={"input_tokens": 12})
    pipeline.write("events.arrow", [largest, *many, unpriced])
    pipeline.run()
    found = pipeline.rows(
        "SELECT customer, meter, quantity, toString(amount), unpriced_quantity FROM usage_by_month "
        "WHERE meter != 'requests' ORDER BY customer"
    )
    assert found == [
        ("acme", "input_tokens", 847_392_584_203, "508435.5505218", 0),
        ("many", "output_tokens", 2_500_000_000_000, "6000000", 0),
        ("none", "input_tokens", 12, "0", 12),
    ]


def test_rollups_that_are_inserted_two_at_a_time(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow.sinks.publisher.BESIDE_BYTES_MIN", 1)
    events = make_events(400)
    pipeline.write("events.ndjson", events)
    assert pipeline.run().balance == balance(accepted=400)
    assert pipeline.views() == truth(events)
