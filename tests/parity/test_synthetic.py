"""Goal: an event is a function of its seed and number alone, and the one that tests/oracle/synthetic.py makes of them.

Method: specs at the edges of what they may be, a few events anywhere in them, every column compared; and a spec in
which everything rare is frequent, whole.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY
from tests.oracle.synthetic import DENSE, event

from flow.generate import MODELS, SCHEMA, Synthetic, accepted, batch, expected
from flow.kernels.synthetic import Maker, Numbers, Tables
from flow.schema import DIMENSIONS

PPM = st.sampled_from([0, 1, 200_000, 250_000])
SPECS = st.builds(
    Synthetic,
    seed=st.one_of(st.integers(0, 2**63 - 1), st.sampled_from([0, 1, 2**61, 2**63 - 1])),
    events=st.sampled_from([1, 2, 3, 1000, 3_999_999_999, 4_000_000_000]),
    customers=st.sampled_from([1, 2, 1000, 4096, 4097]),
    zipf_permille=st.sampled_from([0, 1300, 5000]),
    projects=st.sampled_from([1, 5, 1000]),
    features=st.sampled_from([1, 12, 1000]),
    models=st.sampled_from([len(MODELS), 1000]),
    regions=st.sampled_from([1, 5, 1000]),
    combinations_per_customer=st.sampled_from([1, 24, 1 << 20]),
    duplicate_ppm=PPM,
    retimed_ppm=st.sampled_from([0, 1, 500_000, 1_000_000]),
    conflicting_ppm=PPM,
    bad_ppm=PPM,
    unpriced_ppm=PPM,
    duplicate_distance_max=st.sampled_from([1, 2, 50_000, 2**31]),
    disorder_s=st.sampled_from([0, 1, 1_000_000]),
    duration_s=st.sampled_from([1_000_001, 10**9]),
)


def check(spec: Synthetic, first: int, rows: int) -> None:
    """Every column of so many events, and whether they are counted."""
    made = batch(spec, first, rows)
    made.validate(full=True)
    assert made.schema == SCHEMA
    coded = {name: made.column(name).indices.to_pylist() for name in ("source", *DIMENSIONS)}
    columns = {name: coded.get(name) or made.column(name).to_pylist() for name in SCHEMA.names}
    told = [event(spec, index) for index in range(first, min(first + rows, spec.events))]
    assert columns == {name: [row[name] for _, row in told] for name in SCHEMA.names}
    assert accepted(spec, first, rows).tolist() == [kind in ("plain", "unpriced") for kind, _ in told]


@PROPERTY
@given(spec=SPECS, at=st.integers(0, 10_000), rows=st.integers(1, 40))
def test_any_events_of_any_spec(spec: Synthetic, at: int, rows: int) -> None:
    check(spec, at * (spec.events - 1) // 10_000, rows)


def test_every_kind_of_event_and_what_is_expected_of_all() -> None:
    check(DENSE, 0, DENSE.events)
    kinds = [event(DENSE, index)[0] for index in range(DENSE.events)]
    counted = expected(DENSE)
    assert counted.rejected == kinds.count("bad")
    assert (counted.duplicate, counted.conflicting) == (kinds.count("duplicate"), kinds.count("conflicting"))
    assert counted.accepted == kinds.count("plain") + kinds.count("unpriced")


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 63, 64, 65])
def test_the_edges_of_bitmaps(rows: int) -> None:
    check(DENSE, 3, rows)
    assert batch(DENSE, DENSE.events, rows).num_rows == batch(DENSE, DENSE.events + 1, rows).num_rows == 0


def numbers(events: int = 1) -> Numbers:
    return Numbers(*[1] * (len(Numbers._fields) - 1), edges_ppm=(0, 0, 0, 0))._replace(events=events)


def tables(**given: int) -> Tables:
    """Of the right size, but for those given."""
    sizes = {"customer_of": 4, "model_of": 4096, "tier_of": 64, "reasons": 2, "inputs": 4096, "outputs": 4096} | given
    types = {"reasons": np.uint8, "inputs": np.int64, "outputs": np.int64}
    return Tables(**{name: np.zeros(size, types.get(name, np.int32)) for name, size in sizes.items()})


@pytest.mark.parametrize(
    "given",
    [{"customer_of": 0}, {"customer_of": 3}, {"model_of": 4095}, {"tier_of": 65}, {"reasons": 1}, {"outputs": 1}],
)
def test_tables_that_a_kernel_would_read_beyond_are_refused(given: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"slots|steps|behind"):
        Maker(numbers(), tables(**given))
    with pytest.raises(ValueError, match="events at all"):
        Maker(numbers(events=0), tables())
    assert Maker(numbers(), tables()).make(0, 3).ids.validate() is None


def test_more_text_than_its_offsets_can_say_is_refused() -> None:
    with pytest.raises(ValueError, match="too many for one batch"):
        Maker(numbers(), tables()).make(0, 2**31 // 36 + 1)
