"""Goal: a running job takes over a good new version of its price book at the book's own instants, and no other.

Method: small books that follow one another; a watch whose file is rewritten between batches.
"""

import logging
import random
from pathlib import Path

import pytest
from tests.oracle.batches import event_batch, judged, numbers, plain_event
from tests.parity.test_rate_rules import us

from flow.errors import RefusedStart, StateError
from flow.prices.book import PriceBook, parse_price_book
from flow.prices.versions import first_change, refusals, refusals_at_start, unapproved
from flow.steps.rate import Rater
from flow.steps.watch_prices import PriceWatch, UsedVersions, begin

HEAD = "currency: USD\nprices:\n"
OLD = '  - {meter: a, from: 2026-01-01T00:00:00Z, per: 1, price: "1"}\n'
NOON = "2026-03-01T12:00:00Z"
NEW = OLD + f'  - {{meter: a, from: {NOON}, per: 1, price: "2"}}\n'
MORNING_US, NOON_US = us("2026-03-01T11:00:00Z"), us(NOON)


def book(rows: str, before: str = "", behind: str = "") -> PriceBook:
    return parse_price_book(f"{before}{HEAD}{rows}{behind}", "b.yaml")


def version(name: str, approver: str = "bo") -> str:
    return f"version: {{name: {name}, author: ana, approver: {approver}, reason: new list}}\n"


# ---- What may follow what ----


def test_the_first_change() -> None:
    old = book(OLD)
    assert first_change(old, book(OLD.replace('"1"', '"1.0"') + "# a remark\n")) is None
    assert first_change(old, book(NEW)) == (NOON_US, "a {}")
    assert first_change(book(NEW), old) == (NOON_US, "a {}")
    assert first_change(old, book(OLD.replace('"1"', '"3"'))) == (us("2026-01-01T00:00:00Z"), "a {}")
    percent = f'adjustments: [{{customer: c, percent: "1", from: {NOON}}}]\n'
    assert first_change(old, book(OLD, behind=percent)) == (NOON_US, "adjustment {customer: c}")
    found = first_change(old, book(OLD, behind="unbilled: [images]\n"))
    assert found is not None and found[0] == 0
    requests = f'  - {{meter: requests, from: {NOON}, per: 1, price: "1"}}\n'
    assert first_change(old, book(OLD + requests)) == (NOON_US, "requests {}")


def test_a_running_job_takes_no_change_of_what_was_rated() -> None:
    old, new = book(OLD), book(NEW)
    assert refusals(old, new, NOON_US - 1) == []
    assert refusals(old, new, NOON_US)[0].startswith(
        f"changes prices from {NOON} on (a {{}}), and events until {NOON} "
    )
    assert (
        "amounts so far are in USD" in refusals(old, parse_price_book(f"{HEAD}{NEW}".replace("USD", "EUR"), "b"), 0)[0]
    )
    named = [book(rows, version("v1")) for rows in (OLD, NEW)]
    assert "another book under the name of version 'v1'" in refusals(*named, 0)[0]
    assert refusals(named[0], book(NEW, version("v2")), 0) == []


def test_at_the_start_what_was_in_force_must_still_be_there() -> None:
    later = OLD + OLD.replace("2026-01-01", "2025-01-01").replace('"1"', '"5"')
    assert refusals_at_start(book(OLD), book(later), NOON_US) == [], "added for the past: to be re-rated"
    assert refusals_at_start(book(NEW), book(OLD), NOON_US - 1) == [], "had not begun"
    (told,) = refusals_at_start(book(NEW), book(OLD), NOON_US)
    assert told.startswith(f"1 rows that have been in force are gone or edited, the first of them a {{}} from {NOON}")


def test_approval() -> None:
    assert unapproved(book(OLD, version("v1"))) is None
    assert "ana has approved a version of their own" in str(unapproved(book(OLD, version("v1", "ana"))))
    assert "names no approver" in str(unapproved(book(OLD)))


# ---- The watch ----


class Job:
    """A watched price file, and batches that are rated by it."""

    def __init__(self, folder: Path, approval: bool = False) -> None:
        self.file = folder / "prices.yaml"
        self.used = UsedVersions(folder / "state" / "prices")
        self.write(OLD, version("v1"))
        begin(self.used, self.file, 10**12, approval, MORNING_US)
        first = self.used.last(10**12)
        assert first is not None
        self.watch = PriceWatch(self.file, first, self.used, 10**12, approval)

    def write(self, rows: str, before: str) -> None:
        self.file.write_text(before + HEAD + rows)

    def rate(self, *times_us: int) -> list[int]:
        """The amounts of one unit at each instant, in currency units."""
        events = event_batch([plain_event(event_time_us=time_us, usage=[("a", 1)]) for time_us in times_us])
        rated = Rater(self.watch.book_for(events)).rate(judged(events))
        return [amount // 10**15 for amount in numbers(rated.amounts.amounts, signed=True)]


def test_a_new_version_holds_from_its_instant_in_the_middle_of_a_window(tmp_path: Path) -> None:
    job = Job(tmp_path)
    job.watch.look()
    assert job.rate(MORNING_US, NOON_US - 1) == [1, 1]
    job.write(NEW, version("v2"))
    job.watch.look()
    assert job.rate(NOON_US - 1, NOON_US, NOON_US + 1) == [1, 2, 2]
    assert [path.name[:7] for path in job.used.files()] == ["000001-", "000002-"]


@pytest.mark.parametrize("approval", [False, True])
def test_what_a_killed_process_has_named_is_synced_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, approval: bool
) -> None:
    job = Job(tmp_path)
    synced: list[Path] = []
    monkeypatch.setattr("flow.steps.watch_prices.settle", synced.append)
    begin(job.used, job.file, 10**12, approval, MORNING_US)
    assert synced == [job.used.folder]


@pytest.mark.parametrize("seed", range(8))
def test_the_same_events_cost_the_same_whenever_the_version_comes(tmp_path: Path, seed: int) -> None:
    """Given events in order, when the version is found at any time before its instant, then all is as on a replay."""
    rng, job = random.Random(seed), Job(tmp_path)
    times = sorted(NOON_US + rng.randrange(-50, 50) for _ in range(40))
    before = sum(time < NOON_US for time in times)
    found_at, amounts = rng.randrange(before + 1), []
    for n, time_us in enumerate(times):
        if n == found_at:
            job.write(NEW, version("v2"))
            job.watch.look()
        amounts += job.rate(time_us)
    replay = Rater(book(NEW)).rate(judged(event_batch([plain_event(event_time_us=t, usage=[("a", 1)]) for t in times])))
    assert [amount * 10**15 for amount in amounts] == numbers(replay.amounts.amounts, signed=True)


@pytest.mark.parametrize(
    ("rows", "before", "said"),
    [
        (NEW, version("v2"), "events until 2026-03-01T12:00:00Z may have been rated; let it begin later"),
        (NEW.replace("12:00", "13:00"), version("v1"), "another book under the name of version 'v1'"),
        (NEW.replace("12:00", "13:00"), version("v2", "ana"), "ana has approved a version of their own"),
        (NEW.replace("12:00", "13:00").replace('"2"', '"0"'), version("v2"), "is 0; if that is meant"),
        ("nonsense: [", "", "not YAML"),
    ],
)
def test_a_bad_version_is_refused_loudly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, rows: str, before: str, said: str
) -> None:
    job = Job(tmp_path, approval=True)
    job.rate(NOON_US)
    job.write(rows, before)
    with caplog.at_level(logging.ERROR):
        job.watch.look()
        assert job.rate(NOON_US + 1, us("2026-03-02T00:00:00Z")) == [1, 1], "the old one stays in use"
    assert said in caplog.text
    assert "the new version of the price book is refused; the one before stays in use" in caplog.text
    assert (job.watch.refused, len(job.used.files())) == (1, 1)
    job.write(NEW.replace("03-01T12:00", "03-03T00:00"), version("v3"))
    job.watch.look()
    assert job.rate(us("2026-03-03T00:00:00Z")) == [2], "and a good one is taken after it"


def test_what_another_process_took_over_is_taken_at_once(tmp_path: Path) -> None:
    job = Job(tmp_path)
    other = PriceWatch(job.file, book(OLD, version("v1")), job.used, 10**12, False, lambda: NOON_US)
    job.write(NEW, version("v2"))
    job.watch.look()
    job.rate(MORNING_US)
    other.look()
    events = event_batch([plain_event(event_time_us=NOON_US)])
    assert other.book_for(events).digest() == book(NEW).digest()
    late = PriceWatch(job.file, book(OLD, version("v1")), UsedVersions(tmp_path / "x"), 10**12, False, lambda: NOON_US)
    late.look()
    assert late.book_for(events).digest() == book(OLD).digest(), "others may have rated that instant already"


def test_a_start(tmp_path: Path) -> None:
    job = Job(tmp_path)
    begin(job.used, job.file, 10**12, False, MORNING_US)
    assert len(job.used.files()) == 1
    job.write(OLD.replace('"1"', '"3"'), version("v2"))
    with pytest.raises(RefusedStart, match="gone or edited"):
        begin(job.used, job.file, 10**12, False, MORNING_US)
    job.write(NEW, version("v2", "ana"))
    with pytest.raises(RefusedStart, match="approved a version of their own"):
        begin(job.used, job.file, 10**12, True, MORNING_US)
    begin(job.used, job.file, 10**12, False, MORNING_US)
    kept = job.used.files()[-1]
    kept.write_text(kept.read_text().replace('"2"', '"4"'))
    with pytest.raises(StateError, match="was changed after it was used"):
        job.used.last(10**12)
