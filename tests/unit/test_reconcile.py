"""Buckets against plain integers, and the parts of a reconciliation that need no store."""

import random
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pytest

from flow.config import parse_threshold
from flow.errors import ConfigError
from flow.oracle.rollup import window_start_s
from flow.reconcile.asked import Scope
from flow.reconcile.buckets import GRAINS, Buckets, Names, added, compared, keys_of, moments
from flow.reconcile.html import as_html
from flow.reconcile.report import Reconciliation
from flow.reconcile.variance import Variance, percent, variances

START_S = int(datetime(2024, 2, 28, tzinfo=UTC).timestamp())
Event = tuple[int, int, int]
"""The customer's number, a time in seconds, a digest."""


def buckets(events: list[Event]) -> Buckets:
    """Of minutes."""
    digests = np.array([[digest % 2**64, digest >> 64] for _, _, digest in events], np.uint64).reshape(-1, 2)
    starts_s = np.array([time_s - time_s % 60 for _, time_s, _ in events], np.int64)
    keys = keys_of(np.array([customer for customer, _, _ in events], np.int64), starts_s)
    return added(keys, np.ones(len(events), np.int64), np.concatenate([digests, moments(digests, starts_s)], axis=1))


def expected(events: list[Event], grain: str) -> dict[int, tuple[int, int, int]]:
    """(events, digest, sum of digest x minute) by key, in Python's integers."""
    sums: dict[int, tuple[int, int, int]] = {}
    for customer, time_s, digest in events:
        key = customer << 32 | window_start_s(grain, time_s)
        count, total, moment = sums.get(key, (0, 0, 0))
        sums[key] = count + 1, (total + digest) % 2**128, (moment + digest * (time_s // 60)) % 2**128
    return sums


def found(of: Buckets) -> dict[int, tuple[int, int, int]]:
    words = [[int(word) for word in row] for row in of.sums]
    wide = [(low | high << 64, moment_low | moment_high << 64) for low, high, moment_low, moment_high in words]
    return {int(key): (int(count), *sums) for key, count, sums in zip(of.keys, of.events, wide, strict=True)}


def made(count: int, seed: int = 1) -> list[Event]:
    draw = random.Random(seed)
    high = [2**128 - 1, 2**64 - 1, 2**64, 0, 1]
    return [
        (draw.randrange(3), START_S + draw.randrange(200_000), draw.choice([draw.getrandbits(128), *high]))
        for _ in range(count)
    ]


@pytest.mark.parametrize("grain", GRAINS)
def test_buckets_are_sums_modulo_2_128(grain: str) -> None:
    events = made(2000)
    whole = buckets(events)
    assert found(whole.coarser(grain)) == expected(events, grain)
    parts = Buckets.together([buckets(events[:700]), buckets(events[700:])])
    assert found(parts.coarser(grain)) == expected(events, grain)


def test_an_event_that_moves_is_seen_in_every_grain() -> None:
    """Given the same events but for one that is a minute later, then the digests of its month are equal, and the month
    is still told apart."""
    events = made(50)
    customer, time_s, digest = max(events, key=lambda event: event[2] % 2**100)
    moved = [event for event in events if event != (customer, time_s, digest)] + [(customer, time_s + 60, digest)]
    for grain in GRAINS:
        sides = [buckets(side).coarser(grain) for side in (events, moved)]
        differing = compared(*sides).differing.tolist()
        keys = {customer << 32 | window_start_s(grain, at) for at in (time_s, time_s + 60)}
        assert set(differing) == keys


def test_buckets_of_one_side_only_and_none() -> None:
    events = made(20)
    nothing = Buckets.none()
    comparison = compared(buckets(events), nothing)
    assert comparison.differing.tolist() == sorted(expected(events, "minute"))
    assert comparison.there.events.sum() == 0
    assert not len(compared(nothing, nothing).differing)
    assert not len(nothing.coarser("day").within("month", comparison.differing))


def test_names_are_numbered_once() -> None:
    names = Names()
    assert names.numbers(["a", "b", "a"]).tolist() == [0, 1, 0]
    assert names.numbers(["c", "b"]).tolist() == [2, 1]
    assert [names[n] for n in range(3)] == ["a", "b", "c"]


def test_variances_are_exact() -> None:
    here = {("acme", "input_tokens"): 10**30 + 1, ("zeta", "input_tokens"): 5, ("zeta", "images"): 1}
    there = {("acme", "input_tokens"): 10**30, ("zeta", "input_tokens"): 5}
    every = variances(here, there)
    assert [(one.customer, one.meter, one.here, one.there) for one in every] == [
        (None, "images", 1, 0),
        (None, "input_tokens", 10**30 + 6, 10**30 + 5),
        ("acme", "input_tokens", 10**30 + 1, 10**30),
        ("zeta", "images", 1, 0),
    ]
    assert every[2].ratio == Fraction(1, 10**30)
    assert every[2].beyond(Fraction(0)) and not every[2].beyond(Fraction(1, 10**30))
    assert every[3].ratio is None and every[3].beyond(Fraction(100))
    assert not Variance("acme", "images", 0, 0).beyond(Fraction(0))


@pytest.mark.parametrize(
    ("ratio", "text"),
    [(Fraction(0), "0%"), (Fraction(1, 10**30), "0.000001%"), (Fraction(1, 8), "12.5%"), (None, "all")],
)
def test_percentages_are_never_shown_as_less(ratio: Fraction | None, text: str) -> None:
    assert percent(ratio) == text


def test_thresholds() -> None:
    assert parse_threshold("0.01%") == Fraction(1, 10_000)
    assert parse_threshold(" 5 % ") == Fraction(1, 20)
    assert parse_threshold("0") == 0
    for wrong in ("0.01", "1e-3%", "-1%", "%", "some"):
        with pytest.raises(ConfigError, match=r"write 0\.01%"):
            parse_threshold(wrong)


def test_a_page_shows_what_was_read_as_text() -> None:
    found = Reconciliation("<here>", "there & now", "log", Scope(customers=("<b>",)), Fraction(1, 10_000))
    found.variances = [Variance("<script>", "images", 2, 1), Variance(None, "images", 2, 1)]
    page = as_html(found)
    assert "<script>" not in page and "<b>" not in page and "&lt;script&gt;" in page
    assert page.count('<tr class="bad">') == 2
    assert "100%" in page and "Minutes that differ" not in page
