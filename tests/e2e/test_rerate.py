"""Re-rating: after it the views are those of a run by the new book, to the last digit, and only once."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.errors import ConfigError, RefusedStart, StateError
from flow.prices.book import parse_price_book
from flow.rerate.asked import Scope
from flow.rerate.rerating import Asked, Outcome, Source, dry_run, rerate
from flow.schema import DIMENSIONS, PER_OF_ALL
from flow.verify import verify

from .harness import PRICES, Event, Pipeline, event, make_events, truth

DAY_US = 86_400_000_000
START_US = int(datetime(2026, 2, 27, tzinfo=UTC).timestamp()) * 10**6
WHOLE = Scope(START_US, START_US + 10 * DAY_US)

# What was unpriced has a price, one price is withdrawn, one raised in the middle, requests cost something.
HEALED = (
    PRICES.replace('"15"', '"14.5"').replace("12:00:30Z", "12:01:00Z")
    + """
  - {model: unlisted, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "0.01"}
  - {model: unlisted, meter: output_tokens, from: 2026-02-28T09:41:00Z, per: 1_000_000, price: "0.02"}
  - {meter: denoising_steps, from: 2020-01-01T00:00:00Z, per: 1000, price: "1"}
  - {meter: cached_input_tokens, from: 2026-03-01T00:00:00Z, withdrawn: true}
  - {meter: requests, customer: zeta, from: 2026-02-28T00:00:00Z, per: 1000, price: "5"}
""".lstrip("\n")
)
# A bill by customer, minute and meter, with the parts of 10^-15 that are in it.
BILL = (
    "SELECT customer, window_start, meter, sum(unpriced), sum(amount_parts) AS parts FROM ({usage}) "
    "GROUP BY ALL ORDER BY ALL"
)
PARTS = f"toInt256(reinterpret(amount, 'Int128')) * toInt256('{PER_OF_ALL}') + toInt256(amount_remainder)"
USAGE = (
    f"SELECT customer, window_start, meter, toInt256(unpriced_quantity) AS unpriced, {PARTS} AS amount_parts "
    "FROM exact_usage_by_minute"
)
TAKEN = (
    "UNION ALL SELECT customer, window_start, meter, -toInt256(unpriced_quantity) AS unpriced, "
    f"-({PARTS}) AS amount_parts FROM corrections"
)
TIERED = HEALED + ('  - {meter: audio_seconds, from: 2020-01-01T00:00:00Z, per_started: 5, price: "1"}\n')


@pytest.fixture
def events() -> list[Event]:
    return make_events(200)


@pytest.fixture
def billed(pipeline: Pipeline, events: list[Event]) -> Pipeline:
    """A pipeline with a month that was billed by PRICES, and two other books."""
    pipeline.write("events.ndjson", events)
    pipeline.run()
    (pipeline.folder / "healed.yaml").write_text(HEALED)
    (pipeline.folder / "tiered.yaml").write_text(TIERED)
    return pipeline


def asked(pipeline: Pipeline, book: str = "healed.yaml", **changes: Any) -> Asked:
    return replace(Asked(WHOLE, pipeline.folder / book, "ana", "ticket 7"), **changes)


def corrections(pipeline: Pipeline) -> list[tuple[Any, ...]]:
    return pipeline.rows("SELECT * FROM corrections ORDER BY ALL")


def check_sums(pipeline: Pipeline, outcome: Outcome) -> None:
    """The differences that are told are those of `corrections`, to the fraction."""
    assert outcome.rerate is not None
    found = pipeline.rows(
        "SELECT sum(toInt256(reinterpret(amount, 'Int128'))), sum(toUInt256(amount_remainder)), sum(unpriced_quantity) "
        f"FROM corrections WHERE id = '{outcome.rerate.name}'"
    )
    amount, remainder, unpriced_quantity = map(int, found[0])
    assert amount + Fraction(remainder, PER_OF_ALL) == outcome.amount_femto
    assert sum(row.amount_femto for row in outcome.differences) == outcome.amount_femto
    assert sum(row.unpriced_quantity for row in outcome.differences) == unpriced_quantity


@pytest.mark.parametrize("source", [Source.LEDGER, Source.ROLLUPS])
def test_row_19_the_views_become_those_of_a_run_by_the_new_book(
    billed: Pipeline, events: list[Event], source: Source
) -> None:
    before = billed.views()
    would = dry_run(billed.config(), asked(billed, source=source))
    assert billed.views() == before
    done = rerate(billed.config(), asked(billed, source=source))
    assert billed.views() == truth(events, HEALED)
    assert done.rerate is not None
    assert (done.differences, done.amount_femto, done.corrections) == (
        would.differences,
        would.amount_femto,
        would.corrections,
    )
    check_sums(billed, done)
    assert len(corrections(billed)) == done.corrections > 50
    digests = [parse_price_book(text, "book").digest() for text in (PRICES, HEALED)]
    said = billed.rows("SELECT DISTINCT id, kind, author, reason, book_before, book_after, currency FROM corrections")
    assert said == [("rerate-000001", "rerate", "ana", "ticket 7", *digests, "USD")]
    again = rerate(billed.config(), asked(billed, source=source))
    assert (again.rerate, again.differences, len(corrections(billed))) == (None, [], done.corrections)


def test_from_one_fraction_to_another_and_back(billed: Pipeline, events: list[Event]) -> None:
    """given amounts in 10^-15, in a third and in a seventh of it, one after the other
    when each is re-rated by the next, from the ledger or from the rollups
    then the views are exact, and so are the corrections"""
    first = billed.rows(BILL.format(usage=USAGE))
    thirds, sevenths = (HEALED.replace("per: 1_000_000", f"per: {per}_000_000") for per in (3, 7))
    for book, source in ((thirds, Source.LEDGER), (sevenths, Source.ROLLUPS), (HEALED, Source.LEDGER)):
        (billed.folder / "next.yaml").write_text(book)
        done = rerate(billed.config(), asked(billed, "next.yaml", source=source))
        assert billed.views() == truth(events, book)
        check_sums(billed, done)
        assert isinstance(done.amount_femto, Fraction)
        if source is Source.ROLLUPS:
            assert not rerate(billed.config(), asked(billed, "next.yaml", source=source)).differences
            assert verify(billed.config()).difference_count == 0
    billed.run()  # whose balance counts in the same units
    assert billed.rows(BILL.format(usage=f"{USAGE} {TAKEN}")) == first


def test_row_20_a_price_heals_what_it_is_for_once(billed: Pipeline) -> None:
    """given usage without a price
    when a price arrives that is backdated, or that begins in the middle of it, a fraction or not
    then what it is for becomes an amount, and only the first time"""
    start_s = START_US // 10**6 + 2 * 86_400
    usage = f"SELECT meter, sum(if(toUnixTimestamp(window_start) < {start_s}, 0, quantity)), sum(quantity)"
    rows = billed.rows(f"{usage} FROM usage_by_minute WHERE model = 'unlisted' GROUP BY meter ORDER BY meter")
    quantity = {meter: (int(later), int(whole)) for meter, later, whole in rows}
    later, _ = quantity["input_tokens"]
    _, whole = quantity["output_tokens"]
    assert 0 < later < quantity["input_tokens"][1]
    row = "  - {{model: unlisted, meter: {}, from: {}, per: {}, price: '1'}}\n"
    future = row.format("input_tokens", "2026-03-01T00:00:00Z", 12_000_000)
    (billed.folder / "future.yaml").write_text(PRICES + future)
    backdated = future + row.format("output_tokens", "2020-01-01T00:00:00Z", 1000)
    (billed.folder / "backdated.yaml").write_text(PRICES + backdated)
    for book, meter, healed, amount in (
        ("future.yaml", "input_tokens", later, Fraction(later * 10**15, 12_000_000)),
        ("backdated.yaml", "output_tokens", whole, Fraction(whole * 10**12)),
    ):
        done = rerate(billed.config(), asked(billed, book, grain="month"))
        assert (done.amount_femto, {row.meter for row in done.differences}) == (amount, {meter})
        assert sum(row.unpriced_quantity for row in done.differences) == -healed
        assert not rerate(billed.config(), asked(billed, book)).differences
    assert billed.rows("SELECT DISTINCT id FROM corrections ORDER BY id") == [("rerate-000001",), ("rerate-000002",)]
    left = billed.rows("SELECT sum(unpriced_quantity) FROM usage_by_month WHERE meter IN ('input_tokens')")
    assert left == [(quantity["input_tokens"][1] - later,)]


def test_without_its_corrections_the_bill_is_the_first_one(billed: Pipeline) -> None:
    before = billed.rows(BILL.format(usage=USAGE))
    scope = Scope(START_US + DAY_US, START_US + 2 * DAY_US, "zeta")
    rerate(billed.config(), asked(billed, source=Source.LEDGER, scope=scope))
    assert billed.rows(BILL.format(usage=f"{USAGE} {TAKEN}")) == before
    assert billed.rows(BILL.format(usage=USAGE)) != before
    within = "customer = 'zeta' AND toDate(window_start) = '2026-02-28'"
    assert billed.rows(f"SELECT count() > 5, countIf(NOT ({within})) FROM corrections") == [(1, 0)]


def test_auto_takes_the_ledger_where_a_minute_has_not_one_rate(
    billed: Pipeline, events: list[Event], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = dry_run(billed.config(), asked(billed))
    assert (found.source, "read faster" in found.why) == (Source.LEDGER, True)
    monkeypatch.setattr("flow.rerate.rerating.ROW_EVENTS", 0)
    assert dry_run(billed.config(), asked(billed)).source is Source.ROLLUPS
    done = rerate(billed.config(), asked(billed, "tiered.yaml"))
    assert done.source is Source.LEDGER
    assert "audio_seconds" in done.why
    assert billed.views() == truth(events, TIERED)
    with pytest.raises(ConfigError, match="audio_seconds"):
        rerate(billed.config(), asked(billed, "tiered.yaml", source=Source.ROLLUPS))
    # The book of the run changes within a minute, at 12:00:30, so that the rollups cannot bring it back.
    back = rerate(billed.config(), asked(billed, "prices.yaml"))
    assert (back.source, back.books_before) == (Source.LEDGER, [parse_price_book(TIERED, "t").digest()])
    assert billed.views() == truth(events)


def test_parts_one_after_the_other(billed: Pipeline, events: list[Event]) -> None:
    """given a customer and then a day, and at last everything, by books that differ
    when each is rated by the book that was last for it
    then the views follow, and so does verify"""
    config = billed.config()
    middle = Scope(START_US + DAY_US, START_US + 2 * DAY_US)
    rerate(config, asked(billed, source=Source.LEDGER, scope=replace(WHOLE, customer="acme")))
    rerate(config, asked(billed, "tiered.yaml", source=Source.LEDGER, scope=middle))
    report = verify(config)
    assert (report.difference_count, report.events) == (0, len(events))
    done = rerate(config, asked(billed, source=Source.LEDGER))
    assert len(done.books_before) == 3
    assert billed.views() == truth(events, HEALED)
    assert verify(config).difference_count == 0


@pytest.mark.parametrize("source", [Source.LEDGER, Source.ROLLUPS])
def test_changes_of_two_minutes_that_cancel_in_their_day(pipeline: Pipeline, source: Source) -> None:
    """given a price that goes up in one minute and down as much in the next
    when both are re-rated
    then the minutes differ and the day does not, and a second time nothing does"""
    times = [f"2026-02-28T10:0{minute}:00Z" for minute in (0, 1)]

    def prices(*dollars: int) -> str:
        rows = (
            f"  - {{meter: frames, from: {time}, per: 1, price: '{price}'}}\n"
            for time, price in zip(times, dollars, strict=True)
        )
        return PRICES + "".join(rows)

    pipeline.prices = prices(3, 4)
    pipeline.write("events.ndjson", [event(n, time, usage={"frames": 5}) for n, time in enumerate(times)])
    pipeline.run()
    (pipeline.folder / "next.yaml").write_text(prices(4, 3))
    done = rerate(pipeline.config(), asked(pipeline, "next.yaml", source=source))
    assert (done.amount_femto, done.corrections) == (0, 2)
    assert verify(pipeline.config()).difference_count == 0
    assert rerate(pipeline.config(), asked(pipeline, "next.yaml", source=source)).rerate is None


def test_a_run_goes_on_behind_it(billed: Pipeline, events: list[Event]) -> None:
    rerate(billed.config(), asked(billed, source=Source.LEDGER))
    more = [event | {"id": f"more-{n}"} for n, event in enumerate(events[:100])]
    billed.write("more.ndjson", more)
    billed.run()
    assert verify(billed.config()).difference_count == 0
    # Of the events behind it the run's own book is what was before.
    done = rerate(billed.config(), asked(billed, source=Source.LEDGER))
    assert done.books_before == sorted(parse_price_book(text, "b").digest() for text in (PRICES, HEALED))
    assert billed.views() == truth([*events, *more], HEALED)


def test_events_of_several_versions_of_the_book(pipeline: Pipeline, events: list[Event]) -> None:
    """given a price that is added for the past between two runs
    when what both have billed is re-rated by it
    then only what was rated without it changes"""
    pipeline.write("a.ndjson", events[:100])
    pipeline.run()
    pipeline.prices = (
        PRICES + '  - {model: unlisted, meter: input_tokens, from: 2020-01-01T00:00:00Z, per: 1, price: "2"}\n'
    )
    pipeline.write("b.ndjson", events[100:])
    pipeline.run()
    assert verify(pipeline.config()).difference_count > 0
    dry = dry_run(pipeline.config(), asked(pipeline, "prices.yaml", source=Source.LEDGER))
    assert len(dry.books_before) == 2
    assert {row.meter for row in dry.differences} == {"input_tokens"}
    rerate(pipeline.config(), asked(pipeline, "prices.yaml", source=Source.LEDGER))
    assert pipeline.views() == truth(events, pipeline.prices)
    assert verify(pipeline.config()).difference_count == 0


def call(pipeline: Pipeline, *arguments: str) -> Any:
    """A command in this process."""
    pipeline.config()
    options = [*arguments, "-c", str(pipeline.config_path)]
    return CliRunner(env={"COLUMNS": "200"}).invoke(make_app(), options)


def test_unpriced_and_rerate_as_commands(billed: Pipeline, events: list[Event]) -> None:
    expected: dict[tuple[str, str, str], int] = {}
    for (_, dims, meter), row in truth(events)["minute"].items():
        key = dims[DIMENSIONS.index("model")], dims[0], meter
        expected[key] = expected.get(key, 0) + row[3]
    rows = json.loads(call(billed, "unpriced", "--format", "json").stdout)
    told = {(row["model"], row["customer"], row["meter"]): int(row["unpriced_quantity"]) for row in rows}
    assert told == {key: quantity for key, quantity in expected.items() if quantity}
    times = ("--from", "2026-02-27T00:00:00Z", "--to", "2026-03-05T00:00:00Z")
    book = ("--prices", str(billed.folder / "healed.yaml"))
    dry = call(billed, "rerate", *times, *book, "--dry-run")
    assert "It would change" in dry.stdout, dry.output
    assert billed.rows("SELECT count() FROM corrections") == [(0,)]
    said = ("--author", "ana", "--reason", "ticket 7", "--window", "month", "--format", "json")
    document = json.loads(call(billed, "rerate", *times, *book, *said).stdout)
    assert (document["id"], document["rated"] > 100) == ("rerate-000001", True)
    assert {row["window_start"] for row in document["differences"]} == {"2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z"}
    left = call(billed, "unpriced", "--model", "unlisted").stdout
    assert " input_tokens" not in left
    assert " output_tokens" in left
    assert call(billed, "rerate", "--resume").stderr == "Nothing was left.\n"
    assert isinstance(call(billed, "rerate", *times).exception, ConfigError)


def test_what_is_refused(billed: Pipeline, tmp_path: Path) -> None:
    config = billed.config()
    with pytest.raises(ConfigError, match="--from: must be a whole minute") as wrong:
        dry_run(config, asked(billed, scope=Scope(5, 1)))
    assert len(wrong.value.errors) == 3
    with pytest.raises(ConfigError, match="say who changes"):
        rerate(config, asked(billed, author=""))
    (billed.folder / "euro.yaml").write_text(HEALED.replace("USD", "EUR"))
    with pytest.raises(ConfigError, match="EUR"):
        dry_run(config, asked(billed, "euro.yaml"))
    with pytest.raises(RefusedStart, match="names no approver"):
        dry_run(billed.config(require_approval=True), asked(billed))
    billed.config(require_approval=False)
    with pytest.raises(StateError, match="no run has begun"):
        dry_run(billed.config(state_dir=str(tmp_path / "other")), asked(billed))
