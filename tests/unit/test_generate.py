"""The synthetic generator against a second, slow one in plain Python: same draws, row by row, no arrays.

Goal: whoever trusts `expected` to judge the pipeline must be able to trust `expected` itself.
"""

from datetime import UTC, datetime, timedelta
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest

from flow.errors import ConfigError, RejectReason
from flow.generate import (
    BAD_REASONS,
    METERS,
    MODELS,
    REASONING_MODELS,
    SCHEMA,
    UNPRICED_MODEL,
    Synthetic,
    accepted,
    batch,
    batches,
    expected,
    expected_quantities,
    prices_yaml,
)
from flow.prices.book import parse_price_book
from flow.traces import columnar_schema

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15

# Everything rare is made frequent, so that a few hundred events show every class.
DENSE = Synthetic(
    seed=7,
    events=3000,
    customers=40,
    duplicate_ppm=150_000,
    retimed_ppm=500_000,
    conflicting_ppm=60_000,
    bad_ppm=80_000,
    unpriced_ppm=70_000,
    duplicate_distance_max=200,
    disorder_s=300,
)


def mix(word: int) -> int:
    word ^= word >> 30
    word = word * 0xBF58476D1CE4E5B9 & MASK
    word ^= word >> 27
    word = word * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def draw(seed: int, what: int, index: int) -> int:
    return mix((mix((index + mix((seed * 8 + what) * GOLDEN & MASK)) & MASK) + GOLDEN) & MASK)


def drawn_class(spec: Synthetic, index: int) -> str:
    ppm = (draw(spec.seed, 0, index) % 2**32) * 1_000_000 >> 32
    for name in ("duplicate", "conflicting", "bad", "unpriced"):
        ppm -= getattr(spec, f"{name}_ppm")
        if ppm < 0:
            return name
    return "plain"


def log_uniform(lowest: int, octaves: int, step: int) -> int:
    octave, within = divmod(step * octaves, 4096)
    return int((lowest << octave) * (1 + Fraction(within, 4096)))


def slow_event(spec: Synthetic, index: int) -> tuple[str, dict[str, object]]:
    """The class of event `index` and those of its columns that need no lookup table."""
    kind, payload_of, timed_as = drawn_class(spec, index), index, index
    detail = draw(spec.seed, 1, index)
    if kind in ("duplicate", "conflicting"):
        original = index - 1 - (detail % 2**32 * min(index, spec.duplicate_distance_max) >> 32)
        if original < 0 or drawn_class(spec, original) not in ("plain", "unpriced"):
            kind = "plain"
        else:
            payload_of = timed_as = original
            if kind == "duplicate" and (detail >> 32) * 1_000_000 >> 32 < spec.retimed_ppm:
                timed_as = index
    high, low = draw(spec.seed, 2, payload_of), draw(spec.seed, 3, payload_of)
    text = f"{high & ~0xF000 | 0x8000:016x}{low >> 2 | 1 << 63:016x}"
    even = Fraction((spec.duration_s - spec.disorder_s) * 10**6 * timed_as, spec.events)
    whole, rest = divmod((spec.duration_s - spec.disorder_s) * 10**6, spec.events)
    late_us = (draw(spec.seed, 6, timed_as) % 2**20) * spec.disorder_s * 10**6 >> 20
    time_us = timed_as * whole + timed_as * rest // spec.events + late_us
    assert 0 <= even + late_us - time_us < 1
    usage = draw(spec.seed, 5, payload_of)
    columns: dict[str, object] = {
        "id": f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
        "time": spec.start + timedelta(microseconds=time_us),
        "input_tokens": log_uniform(8, 9, usage % 4096),
        "cached_input_tokens": ((usage >> 12) % 16 + 1) * 64 if (usage >> 16) % 4 == 0 else None,
        "output_tokens": log_uniform(4, 8, (usage >> 18) % 4096) + (kind == "conflicting"),
        "images": (usage >> 42) % 4 + 1 if (usage >> 44) % 64 == 0 else None,
    }
    if kind == "bad":
        match BAD_REASONS[detail % 2**32 * len(BAD_REASONS) >> 32]:
            case RejectReason.MISSING_ID:
                columns["id"] = ""
            case RejectReason.TIME_OUT_OF_RANGE:
                columns["time"] = datetime(1969, 12, 31, 0, 0, 0, 1, tzinfo=UTC)
            case RejectReason.MISSING_CUSTOMER:
                columns["customer"] = ""
            case RejectReason.MISSING_METER:
                columns |= dict.fromkeys(METERS)
            case RejectReason.NEGATIVE_QUANTITY:
                columns["input_tokens"] = -log_uniform(8, 9, usage % 4096)
            case RejectReason.QUANTITY_TOO_LARGE:
                columns["output_tokens"] = 2**63 - 1
    return kind, columns


def rows_of(spec: Synthetic, **cut: int) -> list[dict[str, object]]:
    return pa.Table.from_batches(batches(spec, **cut), SCHEMA).to_pylist()


def test_each_row_is_that_of_the_slow_generator() -> None:
    for index, row in enumerate(rows_of(DENSE)):
        _, columns = slow_event(DENSE, index)
        assert {name: row[name] for name in columns} == columns, index


def test_what_a_slow_deduplication_counts_is_what_is_expected() -> None:
    # Given every event in order, when identities are kept with their first payload, then the counts are those
    # which `expected` draws from the seed without looking at events.
    seen: dict[tuple[object, object], dict[str, object]] = {}
    counts = dict.fromkeys(("accepted", "duplicate", "conflicting", "rejected", "unpriced", "retimed"), 0)
    quantities = dict.fromkeys(METERS, 0)
    for row in rows_of(DENSE):
        meters = [row[meter] for meter in METERS if row[meter] is not None]
        time = row.pop("time")
        assert isinstance(time, datetime)
        bad = not row["id"] or not row["customer"] or time.year < 1970 or not meters
        if bad or min(meters) < 0 or max(meters) > 10**12:
            counts["rejected"] += 1
        elif (row["source"], row["id"]) not in seen:
            seen[row["source"], row["id"]] = row | {"first_time": time}
            counts["accepted"] += 1
            counts["unpriced"] += row["model"] == UNPRICED_MODEL
            for meter in METERS:
                quantities[meter] += row[meter] or 0
        else:
            first = dict(seen[row["source"], row["id"]])
            retimed = first.pop("first_time") != time
            counts["duplicate" if first == row else "conflicting"] += 1
            counts["retimed"] += retimed
    assert 0.3 < counts.pop("retimed") / counts["duplicate"] < 0.7
    counted = expected(DENSE)
    assert counts == {name: getattr(counted, name) for name in counts}
    assert all(counts.values())
    assert counted.read == DENSE.events == sum(counts.values()) - counts["unpriced"]
    assert set(counted.rejected_by_reason) == {reason.name for reason in BAD_REASONS}
    assert sum(counted.rejected_by_reason.values()) == counted.rejected
    assert quantities == expected_quantities(DENSE)


@pytest.mark.parametrize("rows", [1, 7, 1000, 1 << 16])
def test_every_cut_into_batches_gives_the_same_events(rows: int) -> None:
    spec = Synthetic(**{**vars(DENSE), "events": 400})
    whole = rows_of(spec)
    assert rows_of(spec, rows=rows) == whole
    assert rows_of(spec, first=123, rows=rows) == whole[123:]


def test_batches_are_valid_and_in_the_public_form() -> None:
    made = batch(DENSE, 0, DENSE.events)
    made.validate(full=True)
    assert made.schema == SCHEMA
    assert columnar_schema(METERS) == SCHEMA


def test_which_events_count_is_told_for_any_part_of_them() -> None:
    """As many as are expected, and none of them twice."""
    told = np.concatenate([accepted(DENSE, first, 1000) for first in range(0, DENSE.events, 1000)])
    assert told.size == DENSE.events
    assert told.sum() == expected(DENSE).accepted
    ids = [row["source"] + "/" + row["id"] for row in rows_of(DENSE)]
    counted = [one for one, counts in zip(ids, told.tolist(), strict=True) if counts]
    assert len(set(counted)) == len(counted)


def test_an_event_depends_on_the_seed() -> None:
    other = Synthetic(**{**vars(DENSE), "seed": 8})
    assert not {row["id"] for row in rows_of(DENSE)} & {row["id"] for row in rows_of(other)} - {""}


def test_default_rates_come_out_as_asked() -> None:
    spec = Synthetic(events=200_000)
    counted = expected(spec)
    assert 0.009 < counted.duplicate / spec.events < 0.01
    assert 0 < counted.conflicting < 40
    assert 0 < counted.rejected < 40
    tokens = expected_quantities(spec)
    assert 1000 < (sum(tokens.values()) - tokens["images"]) / spec.events < 1100


def test_customers_are_zipf_and_each_one_occurs() -> None:
    spec = Synthetic(events=50_000, customers=100, zipf_permille=1000, duplicate_ppm=0, bad_ppm=0)
    counts = {row["customer"]: 0 for row in rows_of(spec)}
    for row in rows_of(spec):
        counts[row["customer"]] += 1
    assert len(counts) == 100
    harmonic = sum(Fraction(1, k) for k in range(1, 101))
    for k in (1, 2, 10):
        assert abs(counts[f"customer-{k:04}"] * k * harmonic / spec.events - 1) < Fraction(1, 10)


def test_times_fill_the_duration_from_the_start() -> None:
    rows = rows_of(Synthetic(events=5000, bad_ppm=0))
    times = [row["time"] for row in rows]
    assert min(times) >= datetime(2026, 11, 1, tzinfo=UTC)
    assert max(times) < datetime(2026, 11, 1, 6, tzinfo=UTC)
    assert times != sorted(times)


def test_only_reasoning_models_reason_and_every_model_is_priced() -> None:
    text = prices_yaml()
    rows = rows_of(Synthetic(events=5000, unpriced_ppm=0))
    assert {row["model"] for row in rows} == set(MODELS)
    for row in rows:
        assert (row["reasoning_tokens"] is not None) == (row["model"] in REASONING_MODELS)
    for model in MODELS:
        for meter in METERS[:3] + (("reasoning_tokens",) if model in REASONING_MODELS else ()):
            assert f"{{model: {model}, meter: {meter}, from" in text
    assert prices_yaml(14).count("sample-model-") == 6
    assert UNPRICED_MODEL not in text
    book = parse_price_book(prices_yaml(14), "prices.yaml")
    assert book.meters | book.unbilled >= set(METERS)


def test_every_error_of_a_spec_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Synthetic(events=-1, customers=0, duplicate_ppm=600_000, bad_ppm=600_000, start=datetime(2026, 1, 1))
    assert len(caught.value.errors) == 4
    assert rows_of(Synthetic(events=0)) == []
