"""Goal: whoever trusts `expected` to judge the pipeline must be able to trust `expected` itself.

Method: its counts against those of a slow deduplication; tests/parity/test_synthetic.py is for the events themselves.
"""

from collections import Counter
from datetime import UTC, datetime
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pytest
from tests.oracle.synthetic import DENSE

from flow.errors import ConfigError
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


def rows_of(spec: Synthetic, **cut: int) -> list[dict[str, object]]:
    return pa.Table.from_batches(batches(spec, **cut), SCHEMA).to_pylist()


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
    counts = Counter(row["customer"] for row in rows_of(spec))
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
