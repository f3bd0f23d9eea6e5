"""The detector of anomalies against its twin in plain Python; and that nothing but the events decides what is found.

Method: hours of random use of a few customers, models and sources, with steps of every kind, cut into batches and
blocks anywhere, with a restart from the manifest anywhere.
"""

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.anomalies import HOUR_US, Arrived, Flag, Twin, level
from tests.oracle.batches import PROPERTY, event_batch, plain_event, rated, selection

from flow.anomalies.found import Kind
from flow.anomalies.intake import SAMPLED_MAX, Intake
from flow.anomalies.levels import NUMBER_MAX, levels_of, number_of
from flow.anomalies.names import Names, hash_of, packed_columns, unpacked_columns
from flow.anomalies.series import RING, Series
from flow.anomalies.tally import Tally, carried, shifted, whole
from flow.config import Anomalies
from flow.kernels import Verdicts
from flow.state.manifest import seal, unseal
from flow.steps.combine import BlockBuilder
from flow.steps.rate import Rated
from flow.steps.watch_usage import UsageWatch

SETTINGS = Anomalies(
    events_min=2, spike_factor=4, peak_factor=2, silence_hours=2, share_factor=2, price_factor=2, grace="10m"
)
BEGIN_US = 490_000 * HOUR_US
STREAM = settings(PROPERTY, max_examples=8)


# ---- A made-up stream ----


def stream(seed: int) -> list[Arrived]:
    """Some days of three customers, of which each does something odd now and then; mostly in order."""
    rng = random.Random(seed)
    hours = rng.randint(28, 60)
    events = []
    price = {"a": 3 << 40, "b": 9 << 40}
    for hour in range(hours):
        for customer in ("x", "y", "z"):
            count = rng.choice((2, 3, 3, 4, 4, 4))
            if hour > RING and rng.random() < 0.1:
                count = rng.choice((0, 0, 1, 30, 60))
            if customer == "z" and hour > RING + 3:
                count = 0
            model = "b" if hour > RING and rng.random() < 0.2 else "a"
            factor = rng.choice((1, 8)) if hour > RING and rng.random() < 0.1 else 1
            unpriced = hour > RING and rng.random() < 0.1
            for _ in range(count):
                late_us = HOUR_US * rng.randint(1, 3) if rng.random() < 0.02 else 0
                time_us = BEGIN_US + hour * HOUR_US + rng.randrange(HOUR_US) - late_us
                quantity = rng.choice((5, 6, 7, 1000))
                amount = 0 if unpriced else quantity * price[model] * factor
                event = Arrived(time_us, customer, model, f"s{customer in 'yz'}", True, quantity, amount, unpriced)
                events += [(time_us + late_us, event)]
                if rng.random() < (0.5 if hour == RING + 5 else 0.02):
                    events += [(time_us + late_us + rng.randrange(1000), event._replace(accepted=False))]
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def batches(events: Sequence[Arrived], sizes: Iterator[int]) -> Iterator[Rated]:
    """The stream as batches that were judged."""
    first, watermark_us = 0, -1
    while first < len(events):
        part = events[first : first + next(sizes)]
        plain = [
            # Half of the meters are counted in thirds of 10^-15.
            plain_event(
                id=str(first + n),
                source=event.source,
                event_time_us=event.time_us,
                customer=event.customer,
                model=event.model,
                usage=[("input_tokens" if event.unpriced or event.quantity % 2 else "input_tokens/3", event.quantity)],
            )
            for n, event in enumerate(part)
        ]
        amounts = [
            [None if event.unpriced else event.amount_femto * (1 if event.quantity % 2 else 3)] for event in part
        ]
        accepted = [n for n, event in enumerate(part) if event.accepted]
        watermark_us = max([watermark_us, *(part[n].time_us for n in accepted)])
        made = rated(event_batch(plain, first), amounts, [0] * len(part))
        none = made.judged.verdicts.late
        verdicts = Verdicts(selection(accepted), len(accepted), len(part) - len(accepted), none, 0, none, 0)
        yield replace(made, judged=replace(made.judged, verdicts=verdicts, watermark_us=watermark_us))
        first += len(part)


def watched(events: Sequence[Arrived], seed: int, told: Anomalies = SETTINGS) -> list[dict[str, Any]]:
    """The rows of all blocks; the seed decides where batches and blocks end, and where the job starts again."""
    rng = random.Random(seed)
    step = rng.choice((20, 100, 400))
    block = BlockBuilder("USD", anomalies=UsageWatch("USD", told))
    found: list[dict[str, Any]] = []
    for batch in batches(events, iter(lambda: rng.randint(1, step), 0)):
        block.add(batch)
        if rng.random() < 0.1:
            found += cut(block)
            if rng.random() < 0.5:
                assert block.anomalies is not None
                manifest = unseal(seal("writer", block.anomalies.dump()), "writer", "")
                block = BlockBuilder("USD", anomalies=UsageWatch("USD", told))
                assert block.anomalies is not None
                block.anomalies.load(manifest)
    return sorted(found + cut(block), key=lambda row: (row["window_start"], row["id"]))


def cut(block: BlockBuilder) -> list[dict[str, Any]]:
    tables = [(table, list(rows.batches)) for table, rows in block.cut("lineage", "writer", 1, 0)]
    block.clear()
    return [row for table, found in tables if table == "anomalies" for batch in found for row in batch.to_pylist()]


def flags(rows: Sequence[dict[str, Any]]) -> list[Flag]:
    def who(row: dict[str, Any]) -> str:
        return "/".join(row[name] for name in ("customer", "model", "source") if row[name])

    return sorted((row["kind"], row["window_start"] // 3600, who(row), row["unit"]) for row in rows)


# ---- What is found ----


@STREAM
@given(st.integers(0, 2**32))
def test_the_detector_finds_what_its_twin_finds(seed: int) -> None:
    events = stream(seed)
    assert flags(watched(events, seed)) == Twin(SETTINGS).read(events)


@STREAM
@given(st.integers(0, 2**32), st.integers(0, 2**32))
def test_where_blocks_are_cut_and_the_job_starts_again_changes_nothing(seed: int, other: int) -> None:
    """Not a digit of what is seen, expected and bounded."""
    events = stream(seed)
    assert watched(events, seed) == watched(events, other)


def test_the_streams_meet_every_kind_that_the_twin_knows() -> None:
    kinds = Counter(kind for seed in range(40) for kind, *_ in Twin(SETTINGS).read(stream(seed)))
    assert set(kinds) == set(Kind) - {Kind.REJECT_RATE, Kind.REQUEST_LOOP}, kinds
    assert min(kinds.values()) >= 3, kinds


def test_of_too_many_customers_the_same_are_watched_wherever_blocks_are_cut() -> None:
    few = SETTINGS.model_copy(update={"tracked_max": 2})
    found = [watched(stream(seed), seed, few) for seed in range(3)]
    assert found == [watched(stream(seed), seed + 1, few) for seed in range(3)]
    named = {row["customer"] for rows in found for row in rows} - {""}
    assert len(named) == 2, "the third has the highest hash"


def test_names_that_came_once_are_forgotten_and_change_nothing() -> None:
    others = (f"once-{n}" for n in range(10_000))
    last = max(map(hash_of, "xyz"))
    once = iter([name for name in others if hash_of(name) > last])
    few, events = SETTINGS.model_copy(update={"tracked_max": 5}), stream(1)
    for hour in range(28):
        at = BEGIN_US + hour * HOUR_US
        first = next(n for n, event in enumerate(events) if event.time_us >= at)
        events[first:first] = [Arrived(at, next(once), "a", "s1", True, 5, 15 << 40, False)]
    found = watched(events, 0, few)
    assert found == watched(events, 1, SETTINGS) != []


# ---- Rejected events, and sizes of requests ----


def hours(intake: Intake, counts: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """Enters an hour for each (read, rejected)."""
    for hour, (read, rejected) in enumerate(counts):
        intake.enter(hour)
        intake.count(read, rejected)
    intake.enter(len(counts))
    return [(found.kind, found.hour) for found in intake.take()]


def test_rejects_are_told_once_when_their_share_jumps() -> None:
    usual = [(1000, 10)] * RING
    assert hours(Intake(Anomalies()), usual) == []
    assert hours(Intake(Anomalies()), [*usual, (1000, 60), (1000, 300), (1000, 300)]) == [("reject_rate", RING)]
    assert hours(Intake(Anomalies()), [*usual, (1000, 49)]) == []


def sizes(intake: Intake, hour: int, count: int, even: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    drawn = np.full(count, 5000) + rng.integers(0, 20, count) if even else rng.integers(1, 100_000, count)
    intake.enter(hour)
    none = np.zeros(count, np.int64)
    intake.add_sizes((["acme"], none), (["search"], none), drawn)


@pytest.mark.parametrize("even", [True, False])
def test_a_loop_is_many_requests_of_one_size(even: bool) -> None:
    intake = Intake(Anomalies())
    intake.enter(0)  # of which nothing is known, so that one in SAMPLED_MAX would be looked at
    assert intake.sampled == SAMPLED_MAX
    for hour in range(1, RING + 1):
        sizes(intake, hour, 30, False, hour)
    sizes(intake, RING + 1, 30, False, 0)
    sizes(intake, RING + 1, 600, even, 1)
    intake.enter(RING + 2)
    found = intake.take()
    assert [(row.kind, row.customer, row.project) for row in found] == [("request_loop", "acme", "search")] * even
    assert all(row.seen == 630 * 10**15 for row in found)


# ---- Arithmetic ----


@PROPERTY
@given(st.lists(st.integers(0, NUMBER_MAX), min_size=1))
def test_levels(numbers: list[int]) -> None:
    levels = levels_of(np.array(numbers, np.int64)).tolist()
    assert levels == [level(number) for number in numbers]
    for number, of in zip(numbers, levels, strict=True):
        assert number_of(of) <= number
        assert number == 0 or number_of(of + 1) >= number


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(-(2**127), 2**127 - 1)), min_size=1))
def test_wide_sums(rows: list[tuple[int, int]]) -> None:
    """Sums of 128-bit integers in limbs are exact, and are cut down to a level's range as they should."""
    tally = Tally(3)
    for key, number in rows:
        tally.add(np.array([key]), np.array([[number & 2**32 - 1, number >> 32 & 2**32 - 1, number >> 64]]))
    carried(tally.sums, 0)
    truth: Counter[int] = Counter()
    for key, number in rows:
        truth[key] += number
    truth = Counter({key: (total + 2**127) % 2**128 - 2**127 for key, total in truth.items()})
    assert tally.keys.tolist() == sorted(truth)
    for bits in (0, 20):
        cut_down = shifted(tally.sums, 0, bits).tolist()
        for row, key in enumerate(sorted(truth)):
            exact = whole(tally.sums, row, 0)
            assert (exact - truth[key]) % 2**128 == 0
            assert cut_down[row] == min(max(exact >> bits, 0), 2**62 - 1)


def test_of_more_names_than_the_limit_the_lowest_hashes_stay() -> None:
    texts = [f"c{n}" for n in range(20)]
    kept = []
    for order in (texts, texts[::-1]):
        names, series = Names(), Series((), (), 5)
        rows = series.rows(np.sort(names.numbers(order)))
        series.counts["last"][rows] = 100
        series.forget(100, lambda keys, names=names: names.hashes()[keys])
        kept.append({names.texts()[key] for key in series.keys})
    assert kept[0] == kept[1]
    assert len(kept[0]) == 5


def test_names_that_are_kept_stay_in_order() -> None:
    names = Names()
    assert names.numbers(["a", "b", "c", "d"]).tolist() == [0, 1, 2, 3]
    hashes = names.hashes().tolist()
    moved = names.keep((np.array([3]), np.array([1, 3])))
    assert (names.texts(), moved[[1, 3]].tolist()) == (["b", "d"], [0, 1])
    assert names.hashes().tolist() == [hashes[1], hashes[3]]
    assert names.numbers(["e", "d"]).tolist() == [2, 1]


@PROPERTY
@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1))))
def test_packed_columns(columns: list[list[int]]) -> None:
    packed = packed_columns([np.array(column, np.int64) for column in columns])
    assert [column.tolist() for column in unpacked_columns(packed)] == columns


def test_the_sample_gets_thinner_with_the_rate() -> None:
    intake = Intake(Anomalies())
    rates = []
    for hour, events in enumerate((10, 16_383, 16_384, 40_000, 10**9, 5)):
        intake.enter(hour)
        rates.append(intake.sampled)
        intake.count_sources(["a"], [events], [0])
    assert rates == [SAMPLED_MAX, 1, 1, 2, 4, SAMPLED_MAX]
