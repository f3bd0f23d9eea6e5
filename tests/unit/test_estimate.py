"""The estimate of an open period: intervals that hold as often as they say, or none, and what an invoice tells."""

import csv
import io
import json
import random
from collections import defaultdict
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from rich.console import Console

from flow.prices.book import PriceBook, parse_price_book
from flow.statements.aside import set_aside
from flow.statements.estimate import Estimate, make_estimate
from flow.statements.invoice import Invoice, make_invoice, parse_period
from flow.statements.render import as_csv, as_json, print_table
from flow.statements.still_to_come import MOMENTS_MIN, Development, Interval, Moment, Past, interval_at
from flow.store import StoreClient
from flow.store.queries.completeness import amounts_by_hour, came_behind, reach_of_store
from flow.store.queries.waiting import Waiting

Insert = Callable[[str, list[dict[str, Any]]], None]
HOUR_US = 3_600_000_000
NOVEMBER = 1_793_491_200 // 3600
"""2026-11-01T00:00:00Z, in hours since 1970."""
HORIZON_H = 6
BOOK = parse_price_book(
    """
currency: USD
prices:
  - {meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "2"}
""",
    "prices.yaml",
)


# ---- Intervals ----------------------------------------------------------------------------------------------------


def test_an_interval_lies_between_the_ranks_of_what_came_later() -> None:
    """Given a tenth of what had come, times 1 to 99, came later: of 99 errors the 5th and the 95th are the ends."""
    past = [Moment((1000,), (later,)) for later in range(1, 100)]
    assert interval_at(Moment((1000,), (0,)), past) == Interval(5, 50, 95)
    assert interval_at(Moment((3000,), (0,)), past) == Interval(15, 150, 285), "it grows with what has come"
    assert interval_at(Moment((0,), (0,)), past) is None, "no past moment was like this"


def test_where_nothing_was_to_be_expected_it_is_of_moments_like_that() -> None:
    quiet, loud = [Moment((0,), (n % 20 == 0,)) for n in range(100)], [Moment((10,), (10,))] * 100
    assert interval_at(Moment((0,), (0,)), [*quiet, *loud]) == Interval(0, 0, 1)
    assert interval_at(Moment((10,), (0,)), [*quiet, *loud]) == Interval(10, 10, 10)


@pytest.mark.parametrize(("moments", "said"), [(MOMENTS_MIN - 1, False), (MOMENTS_MIN, True)])
def test_a_short_past_says_nothing(moments: int, said: bool) -> None:
    assert (interval_at(Moment((10,), (0,)), [Moment((10,), (1,))] * moments) is not None) == said


def late_reporters(seed: int, hours: int) -> Past:
    """Hours of any size, of which each part comes after a delay of its own."""
    rng = random.Random(seed)
    amounts: dict[int, int] = defaultdict(int)
    behind: dict[tuple[int, int], int] = defaultdict(int)
    for hour in range(hours):
        for _ in range(rng.randrange(5, 60)):
            amount, delay = rng.randrange(1, 10**18), int(rng.expovariate(1.2))
            amounts[hour] += amount
            if 0 < delay <= HORIZON_H:
                behind[hour, delay - 1] += amount
    return Past(amounts, behind, 0)


def test_intervals_hold_as_often_as_they_say() -> None:
    held = tested = 0
    for seed in range(8):
        development = Development(late_reporters(seed, 300), 300, range(HORIZON_H), HORIZON_H)
        of_seed = development.backtest()
        held, tested = held + of_seed[0], tested + of_seed[1]
    assert tested == 800
    assert 0.85 * tested < held < 0.97 * tested


def test_a_backtest_knows_only_what_was_known_then() -> None:
    """Given that five times as much comes late from hour 200 on, what was known before it is wrong for four moments."""
    behind = {(hour, 0): 10 if hour < 200 else 50 for hour in range(210)}
    development = Development(Past(dict.fromkeys(range(210), 100), behind, 0), 210, range(HORIZON_H), HORIZON_H)
    assert development.backtest() == (96, 100)


def test_moments_are_those_whose_hours_get_nothing_any_more() -> None:
    past = Past(dict.fromkeys(range(100), 100), {(50, 0): 7, (50, 2): 30, (99, 0): 5}, 40)
    development = Development(past, 100, range(3), HORIZON_H)
    assert len(development.moments) == 100 - HORIZON_H + 1 - 40
    assert development.moments[51 - 40] == Moment((63, 100, 100), (37, 0, 0)), "at 51:00 hour 50 had just ended"
    assert development.moments[53 - 40] == Moment((100, 100, 70), (0, 0, 30))
    assert development.moments[54 - 40] == Moment((100, 100, 100), (0, 0, 0))
    assert development.late_share() == Fraction(37, 100 * len(development.moments))


# ---- From the store -----------------------------------------------------------------------------------------------


def of_hour(hour: int, tokens: int, **more: Any) -> dict[str, Any]:
    row = {"customer": "acme", "key": 1, "feature": "chat", "currency": "USD", "events": 1, "digest": hour}
    meters = {"meters": ["requests", "input_tokens", "", ""], "q0": 1, "q1": tokens, "a1": tokens * 2 * 10**9}
    return {**row, **meters, "window_start": hour * 3600, **more}


def fill(insert_rows: Insert, hours: int, watermark_us: int, *, block: int = 1) -> None:
    """November's first hours: 1 million tokens each, of which a tenth came when the hour had ended for 30 minutes."""
    rows = [of_hour(NOVEMBER + hour, 1_000_000) for hour in range(hours)]
    insert_rows("rollup_minute", rows)
    insert_rows("rollup_day", [{**row, "window_start": row["window_start"] // 86400 * 86400} for row in rows])
    insert_rows("watermarks", [{"writer": "shard-000", "block": block, "watermark": watermark_us}])
    behind = [
        {"customer": "acme", "window_start": (NOVEMBER + hour) * 3600, "amount": 2 * 10**14, "events": 1}
        | {"began": (NOVEMBER + hour + 1) * HOUR_US + HOUR_US // 2, "block": hour}
        for hour in range(hours - 2)
    ]
    insert_rows("arrivals", behind)


def estimated(client: StoreClient, period: str = "2026-11", horizon_h: int | None = HORIZON_H) -> Estimate | None:
    horizon_us = None if horizon_h is None else horizon_h * HOUR_US
    return make_estimate(client, "acme", parse_period(period), horizon_us, lambda: BOOK)


def test_an_open_period_is_told_in_its_parts(client: StoreClient, insert_rows: Insert) -> None:
    """Given a watermark 10 minutes into hour 100: of the hours that had ended for 10 minutes, a tenth was to come."""
    fill(insert_rows, 101, (NOVEMBER + 100) * HOUR_US + HOUR_US // 6)
    found = estimated(client)
    assert found is not None
    assert (found.final_before_s, found.ended_before_s) == ((NOVEMBER + 94) * 3600, (NOVEMBER + 100) * 3600)
    assert found.final_femto == 94 * 2 * 10**15
    assert found.ended_femto == 6 * 2 * 10**15
    assert found.running_femto == 2 * 10**15
    assert found.growth is not None
    # 100 whole hours; a ninth of what the last had come to, which is whole here already
    assert found.growth.interval.low == pytest.approx(found.growth.interval.high, rel=0.01)
    assert found.growth.late_share == Fraction(1, 10)
    assert found.growth.held == found.growth.tested > 0
    assert (found.growth.moments, found.why_not) == (94, "")


def test_at_another_age_less_is_to_come(client: StoreClient, insert_rows: Insert) -> None:
    fill(insert_rows, 101, (NOVEMBER + 100) * HOUR_US + HOUR_US * 5 // 6)
    found = estimated(client)
    assert found is not None and found.growth is not None
    assert found.growth.interval == Interval(0, 0, 0)
    assert found.growth.late_share == 0


@pytest.mark.parametrize(
    ("hours", "horizon_h", "period", "why_not"),
    [
        (40, HORIZON_H, "2026-11", "the past is too short to say: it has 33 hours"),
        (101, None, "2026-11", "dedup.horizon is unbounded"),
        (101, HORIZON_H, "2026-12", "no hour of the period has ended yet"),
    ],
)
def test_what_is_not_known_is_said(
    client: StoreClient, insert_rows: Insert, hours: int, horizon_h: int | None, period: str, why_not: str
) -> None:
    fill(insert_rows, hours, (NOVEMBER + hours - 1) * HOUR_US)
    found = estimated(client, period, horizon_h)
    assert found is not None and found.growth is None
    assert found.why_not.startswith(why_not)


def test_blocks_of_an_older_version_told_nothing(client: StoreClient, insert_rows: Insert) -> None:
    assert reach_of_store(client) is None
    found = estimated(client)
    assert found is not None and found.watermark_us is None
    assert found.why_not == "no block in the store tells a watermark"
    fill(insert_rows, 101, (NOVEMBER + 100) * HOUR_US, block=17)
    found = estimated(client)
    assert found is not None and found.why_not.startswith("the past is too short to say: it has 0 hours")


def test_a_period_is_closed_when_the_watermark_is_a_horizon_behind_its_end(
    client: StoreClient, insert_rows: Insert
) -> None:
    fill(insert_rows, 24 + HORIZON_H, (NOVEMBER + 24 + HORIZON_H) * HOUR_US - 1)
    assert estimated(client, "2026-11-01") is not None
    insert_rows("watermarks", [{"writer": "shard-000", "block": 2, "watermark": (NOVEMBER + 24 + HORIZON_H) * HOUR_US}])
    assert estimated(client, "2026-11-01") is None
    assert estimated(client, "2026-11-02") is not None
    insert_rows("watermarks", [{"writer": "shard-001", "block": 1, "watermark": NOVEMBER * HOUR_US}])
    assert estimated(client, "2026-11-01") is not None, "the writer that is furthest behind counts"


def test_what_came_otherwise_is_no_part_of_the_past(client: StoreClient, insert_rows: Insert) -> None:
    fill(insert_rows, 3, NOVEMBER * HOUR_US)
    usual = {"customer": "acme", "window_start": NOVEMBER * 3600, "amount": 5, "events": 1}
    insert_rows("arrivals", [{**usual, "began": (NOVEMBER + 8) * HOUR_US}, {**usual, "customer": "other"}])
    correction = {"customer": "acme", "window_start": NOVEMBER * 3600, "amount": 7}
    kinds = [{**correction, "kind": kind} for kind in ("rerate", "late", "correction")]
    insert_rows("corrections", kinds)
    assert amounts_by_hour(client, "acme", NOVEMBER)[NOVEMBER] == 2 * 10**15 - 14
    at_once = came_behind(client, "acme", NOVEMBER, 0, HORIZON_H * HOUR_US)
    assert at_once == {(NOVEMBER, 0): 2 * 10**14}
    assert came_behind(client, "acme", NOVEMBER, HOUR_US // 2 + 1, HORIZON_H * HOUR_US) == {}
    assert came_behind(client, "acme", NOVEMBER, HOUR_US, 8 * HOUR_US) == {(NOVEMBER, 6): 5}


# ---- Events that wait ---------------------------------------------------------------------------------------------


def line(**fields: Any) -> str:
    event = {"id": "1", "source": "s", "customer": "acme", "time": "2026-11-03T00:00:00Z"}
    return json.dumps({**event, "usage": {"input_tokens": 500_000}, **fields})


def test_waiting_events_are_rated_where_they_can_be_read() -> None:
    lines = [line(), line(usage={"input_tokens": 1, "unheard_of": 1}), line(usage={"input_tokens": -1}), "{", "\n"]
    found = set_aside(Waiting(payloads=lines), lambda: BOOK)
    assert (found.rated, found.amount_femto) == (1, 10**15)

    def unreadable() -> PriceBook:
        raise AssertionError("nothing is to be rated")

    assert set_aside(Waiting(), unreadable).rated == 0


def test_waiting_events_are_the_customers_own(client: StoreClient, insert_rows: Insert) -> None:
    envelope = {"specversion": "1.0", "type": "llm.usage", "id": "2", "source": "s", "subject": "acme"}
    payloads = [
        ("UNKNOWN_MODEL", line()),
        ("NEGATIVE_QUANTITY", json.dumps({**envelope, "time": "2026-11-30T23:59:59Z", "data": {}})),
        ("INVALID_TIME", line(time="yesterday")),
        ("UNKNOWN_MODEL", line(time="2026-12-01T00:00:00Z")),
        ("UNKNOWN_MODEL", line(customer="other")),
        ("INVALID_JSON", "{nonsense"),
    ]
    seen = {"seen_at": NOVEMBER * HOUR_US + 5}
    insert_rows(
        "rejected_events",
        [
            {**seen, "source_position": f"f:{n}", "reason": reason, "detail": "", "payload": text.encode()}
            for n, (reason, text) in enumerate(payloads)
        ],
    )
    late = {**seen, "source": "s", "id": "9", "event_time": 0, "watermark": 0}
    insert_rows("late_events", [{**late, "payload": line().encode(), "source_position": f"f:{n}"} for n in (9, 10)])
    insert_rows("late_resolutions", [{**seen, "source_position": "f:10", "decision": "duplicate"}])
    found = estimated(client)
    assert found is not None
    assert found.rejected.events == {"UNKNOWN_MODEL": 1, "NEGATIVE_QUANTITY": 1, "INVALID_TIME": 1}
    assert (found.rejected.rated, found.rejected.amount_femto) == (1, 10**15)
    assert found.rejected_of_nobody == 1
    assert (found.late.events.total(), found.late.amount_femto) == (1, 10**15)


# ---- What an invoice tells ----------------------------------------------------------------------------------------


@pytest.fixture
def told(client: StoreClient, insert_rows: Insert) -> tuple[Invoice, Estimate]:
    fill(insert_rows, 101, (NOVEMBER + 100) * HOUR_US + HOUR_US // 6)
    estimate = estimated(client)
    assert estimate is not None
    return make_invoice(client, "acme", parse_period("2026-11")), estimate


def test_json_has_the_estimate_beside_the_exact_invoice(told: tuple[Invoice, Estimate]) -> None:
    invoice, estimate = told
    document = json.loads(as_json(invoice, estimate))
    of_period = document.pop("estimate")
    assert document == json.loads(as_json(invoice)), "the invoice is the same with it"
    assert (of_period["watermark"], of_period["final_before"], of_period["ended_before"]) == (
        "2026-11-05T04:10:00.000000Z",
        "2026-11-04T22:00:00Z",
        "2026-11-05T04:00:00Z",
    )
    parts = [Fraction(of_period[f"amount_{part}"]) for part in ("final", "ended", "running")]
    assert sum(parts) == Fraction(document["total"]["amount_exact"])
    low, high = (Fraction(of_period["estimate_until_ended_before"][end]) for end in ("low", "high"))
    assert parts[0] + parts[1] <= low <= high
    assert of_period["still_to_come"]["confidence"] == "0.9"
    assert of_period["still_to_come"]["late_share"] == "0.100000"


def test_csv_has_it_in_the_row_of_the_total(told: tuple[Invoice, Estimate]) -> None:
    invoice, estimate = told
    total, *rest = csv.DictReader(io.StringIO(as_csv(invoice, estimate)))
    assert Fraction(total["amount_final"]) == 188
    assert Fraction(total["estimate_high"]) >= Fraction(total["estimate_low"]) > 200
    assert rest and {row["estimate_low"] for row in rest} == {""}


def test_people_read_sentences(told: tuple[Invoice, Estimate]) -> None:
    invoice, estimate = told
    console = Console(file=io.StringIO(), width=100)
    print_table(invoice, console, estimate)
    text = console.file.getvalue()  # type: ignore[attr-defined] # it is the StringIO
    for words in (
        "The period is open",
        "188 USD before 2026-11-04T22:00:00Z, complete",
        "still to come of ended hours: 0.2222 to 0.2222 USD (90 %)",
        "of whose amount 10.00 % came later than at this age",
    ):
        assert words in text
