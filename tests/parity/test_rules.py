"""Goal: the kernel finds just the rules that an event fails, whatever they are and however many.

Method: rules on the boundaries by hand, then random rules and events, against the plain loops of tests/oracle/rules.py.
"""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import ODD_TEXTS, PROPERTY, QUANTITY, TIMES_US, event_batch, event_batches, plain_event
from tests.oracle.rules import failures

from flow.kernels.rules import CHECKS_MAX, ValueTable
from flow.rules.checker import NO_CLOCK_US, Checker
from flow.rules.reading import FOREVER_US
from flow.rules.rule import COLUMNS, Check, Clock, Known, Range, Required, Rule, Speed, Sum, Values

MOST = 2**63 - 1


def values(*texts: str) -> Values:
    whole = frozenset(text for text in texts if not text.endswith("*"))
    return Values(whole, frozenset(text[:-1] for text in texts if text.endswith("*")))


def rule(check: Check, since_us: int = 0, until_us: int = FOREVER_US, **where: Values) -> Rule:
    return Rule("r", "flag", since_us, until_us, tuple(where.items()), check, (), 1)


def failing(check: Check, *events: dict[str, Any], now_us: int = 0, since_us: int = 0, **where: Values) -> list[int]:
    """The events that fail one rule, by kernel and by oracle."""
    rules = [rule(check, since_us, **where)]
    plain = [plain_event(id=str(n), **event) for n, event in enumerate(events)]
    found = Checker(rules).failures(event_batch(plain, seed=1), now_us)
    assert found == failures(rules, plain, now_us)
    return list(found)


def usage(**quantities: int) -> dict[str, Any]:
    return {"usage": list(quantities.items())}


# ---- Boundaries ----


def test_known_texts_and_beginnings() -> None:
    known = Known("customer", values("acme", "glo*", "globex-eu*", "", "Zürich"))
    texts = ["acme", "acm", "acmes", "glo", "gl", "global", "globex-eu-1", "", "zürich", "Zürich", "Zu\u0308rich", "\0"]
    assert failing(known, *({"customer": text} for text in texts)) == [1, 2, 4, 8, 10, 11]


def test_a_rule_is_for_the_events_that_it_names_and_from_its_instant() -> None:
    of = {"model": values("gpt*"), "region": values("eu", "us")}
    events = [
        {"model": "gpt-4o", "region": "eu", "event_time_us": 10},
        {"model": "gpt-4o", "region": "eu", "event_time_us": 9},
        {"model": "gp", "region": "eu", "event_time_us": 10},
        {"model": "gpt", "region": "eu-1", "event_time_us": 10},
        {"model": "gpt", "region": "us", "event_time_us": 11},
    ]
    assert failing(Required(("project", "source")), *events, since_us=10, **of) == [0, 4]
    with_project = [{**event, "project": "p"} for event in events]
    assert failing(Required(("project", "source")), *with_project, since_us=10, **of) == []
    assert failing(Required(("project",)), *events) == [0, 1, 2, 3, 4]


def test_ranges_include_their_bounds() -> None:
    events = [usage(), usage(a=9), usage(a=10), usage(a=20), usage(a=21), usage(b=21), usage(a=MOST), usage(b=1, a=0)]
    assert failing(Range("a", 10, 20), *events) == [1, 4, 6, 7]
    assert failing(Range("a", 0, MOST), *events) == []
    assert failing(Range("a", 0, None), *events) == []
    assert failing(Range("a", 0, 0), *events) == [1, 2, 3, 4, 6]


def test_sums_agree_to_the_last_unit() -> None:
    total = Sum("t", ("a", "b", "c"), 0)
    events = [usage(a=1, b=2), usage(a=1, t=3, b=2), usage(a=1, t=3, b=1), usage(t=0), usage(t=1), usage(z=5, t=0)]
    assert failing(total, *events) == [2, 4]
    assert failing(Sum("t", ("a", "b", "c"), 1), *events) == []
    # Beyond 64 bits a sum must not wrap: 2 x (2^63 - 1) + 2 is 2^64, which is 0 there.
    assert failing(total, usage(a=MOST, b=MOST, c=2, t=0), usage(a=MOST, b=1, t=MOST)) == [0, 1]


def test_a_speed_is_a_product_and_no_quotient() -> None:
    speed = Speed(("a", "b"), 2000)
    events = [
        usage(a=2000),
        usage(a=1999, b=1, duration_ms=1000),
        usage(a=2000, b=1, duration_ms=1000),
        usage(duration_ms=0),
        usage(a=1, duration_ms=0),
        usage(a=MOST, b=MOST, duration_ms=MOST),
    ]
    assert failing(speed, *events) == [2, 4]
    assert failing(Speed(("a", "b"), 1), *events) == [1, 2, 4, 5]
    assert failing(Speed(("a", "b"), MOST), *events) == [4]


def test_clocks_say_nothing_of_another_time() -> None:
    events = [{"event_time_us": time_us} for time_us in (899, 900, 1000, 1010, 1011)]
    clock = Clock(100, 10)
    assert failing(clock, *events, now_us=1000) == [0, 4]
    assert failing(Clock(None, 10), *events, now_us=1000) == [4]
    assert failing(Clock(100, None), *events, now_us=1000) == [0]
    assert failing(clock, *events, now_us=NO_CLOCK_US) == []


@pytest.mark.parametrize("count", [0, 1, CHECKS_MAX - 1, CHECKS_MAX, CHECKS_MAX + 1, 2 * CHECKS_MAX + 1])
def test_any_number_of_rules(count: int) -> None:
    rules = [rule(Range("a", n, None)) for n in range(count)]
    plain = [plain_event(id=str(a), usage=[("a", a)]) for a in (0, 1, count - 2, count - 1, count) if a >= 0]
    assert Checker(rules).failures(event_batch(plain), 0) == failures(rules, plain, 0)


def test_all_values_of_a_long_list_are_found() -> None:
    names = [f"customer-{n}" for n in range(20_000)]
    found = Checker([rule(Known("customer", values(*names)))]).failures(
        event_batch([plain_event(id=str(n), customer=f"customer-{n}") for n in range(-100, 20_100)]), 0
    )
    assert list(found) == [*range(100), *range(20_100, 20_200)]


def test_a_table_without_values() -> None:
    ValueTable([]).masks(0, 0, 0, 0, 0, 0)
    assert Checker([]).failures(event_batch([plain_event()]), 0) == {}
    assert Checker([rule(Range("a", 1, None))]).failures(event_batch([]), 0) == {}


@pytest.mark.parametrize("large", [2000, 2**40])
@pytest.mark.parametrize("uneven", [None, 0, 700, 1029])
def test_rows_of_the_same_meters(uneven: int | None, large: int) -> None:
    """Most batches have the same meters in each row; here but for one row, in each block of the kernel or in none."""
    rng = random.Random(f"{uneven} {large}")
    rules = [
        rule(Sum("t", ("a", "b"), 1)),
        rule(Sum("t", ("a", "b"), 2), model=values("m1")),
        rule(Sum("nobody", ("a", "b"), 0)),
        rule(Speed(("b",), 500)),
        rule(Speed(("b",), 300), model=values("m2")),
        rule(Speed(("a", "b"), 2**30)),
        rule(Range("a", 3, 950), 0, 900),
        rule(Range("b", 0, 20), model=values("m3")),
        rule(Required(("project",)), model=values("m4")),
    ]
    plain = []
    for n in range(1030):
        a, b = 1 if rng.random() < 0.02 else rng.randrange(5, 900), rng.randrange(400)
        odd = rng.choice((1, 2, 3, large)) if rng.random() < 0.04 else 0
        told = [("a", a), ("t", a + b + odd), ("duration_ms", rng.choice((1000, 2000, 2000, 2000))), ("b", b)]
        told = [*told[:2], ("c", 1)] if n == uneven else told
        model = rng.choice(("m1", "m2", "m2", "m3" if n % 40 == 0 else "m2"))
        plain.append(plain_event(id=str(n), model=model, event_time_us=n, usage=told))
    found = Checker(rules).failures(event_batch(plain), 0)
    assert found == failures(rules, plain, 0)
    assert 10 < len(found) < 200
    assert {number for numbers in found.values() for number in numbers} == {0, 1, 4, 6, 7}


@pytest.mark.parametrize("added", [0, 1, 2, 6, 7, 40])
def test_any_number_of_meters_is_added_up(added: int) -> None:
    """With the same meters in each row, and with some left out; one of them tells another sum at the same time."""
    rng = random.Random(added)
    names = tuple(f"m{n}" for n in range(added))
    rules = [
        rule(Sum("t", (*names, "u"), 1)),
        rule(Speed((*names, "t"), 10)),
        rule(Speed((*names, "u"), 2**20 + 1)),
        rule(Sum("u", ("v", "w"), 0)),
    ]
    for left_out in (0.0, 0.2):
        plain = []
        for n in range(1100):
            quantities = {name: rng.randrange(4) for name in (*names, "u")}
            quantities |= {"t": sum(quantities.values()), "v": quantities["u"], "w": 0, "duration_ms": 40_000}
            if rng.random() < 0.05:
                quantities[rng.choice(("t", "u", "v"))] += rng.choice((1, 2, 500, 2**21, 2**33))
            kept = [(name, quantity) for name, quantity in quantities.items() if rng.random() >= left_out]
            plain.append(plain_event(id=str(n), usage=kept))
        found = Checker(rules).failures(event_batch(plain), 0)
        assert found == failures(rules, plain, 0)
        assert {number for numbers in found.values() for number in numbers} == {0, 1, 2, 3}


@pytest.mark.parametrize("width", [1, 7, 8, 9])
@pytest.mark.parametrize("meters", [10, 255, 256])
def test_rows_of_many_sequences_of_meters(meters: int, width: int) -> None:
    """Few or hundreds of sequences in a block, of up to `width` meters of as many as a byte can number, or of more."""
    rng = random.Random(f"{meters} {width}")
    names = [f"m{n}" for n in range(meters)]
    rules = [rule(Sum("t", tuple(names[::2]), 5)), rule(Speed(("m1", "m2"), 90)), rule(Range("m3", 0, 95))]
    rules += [rule(Range(f"m{meters - 1}", 2, None))]
    plain = [plain_event(id="all", usage=[(name, 3) for name in names])]
    for n in range(1100):
        few = rng.random() < 0.5
        kept = names[: width - 1] if few else rng.sample(names, min(meters, rng.randrange(width + 1)))
        kept = [*names[: width - 1], names[-1]] if rng.random() < 0.1 else kept
        usage = [(name, rng.randrange(100)) for name in kept]
        told = sum(quantity for name, quantity in usage if name in names[::2])
        if few:
            usage += [rng.choice([("t", told + rng.choice((0, 0, 0, 6))), ("duration_ms", 1000)])]
        plain.append(plain_event(id=str(n), usage=usage))
    found = Checker(rules).failures(event_batch(plain), 0)
    assert found == failures(rules, plain, 0)
    assert found


# ---- At random ----

TEXT = st.sampled_from(["x", "ac*", "acme", *ODD_TEXTS, *(f"{text[:1]}*" for text in ODD_TEXTS if text)])
VALUES = st.builds(lambda texts: values(*texts), st.lists(TEXT, min_size=1, max_size=4))
COLUMN = st.sampled_from(COLUMNS)
METER = st.sampled_from(["input_tokens", "output_tokens", "a", "b_2", "m" * 64, "duration_ms"])
METERS = st.lists(METER, min_size=1, max_size=3, unique=True).map(tuple)
US = st.one_of(st.none(), st.integers(0, 10**13), st.integers(0, 2**52))
CHECK = st.one_of(
    st.builds(Known, COLUMN, VALUES),
    st.builds(Required, st.lists(COLUMN, min_size=1, max_size=3, unique=True).map(tuple)),
    st.builds(Range, METER, QUANTITY, st.one_of(st.none(), QUANTITY)),
    st.builds(Sum, METER, METERS, QUANTITY),
    st.builds(Speed, METERS, QUANTITY),
    st.builds(Clock, US, US),
)


@st.composite
def rules_of_any_kind(draw: st.DrawFn) -> Rule:
    check = draw(CHECK)
    about = {getattr(check, "column", ""), *getattr(check, "columns", ())}
    where = draw(st.dictionaries(COLUMN.filter(lambda column: column not in about), VALUES, max_size=2))
    return rule(check, draw(st.one_of(st.just(0), TIMES_US)), draw(st.one_of(st.just(FOREVER_US), TIMES_US)), **where)


@PROPERTY
@given(
    st.lists(rules_of_any_kind(), max_size=8),
    st.integers(1, 20),
    event_batches(),
    st.one_of(TIMES_US, st.just(NO_CLOCK_US)),
    st.integers(0, 2**16),
)
def test_rules_of_any_kind(rules: list[Rule], repeated: int, batch: Any, now_us: int, seed: int) -> None:
    renamed = {"b_2": "duration_ms"}
    plain = [event | {"usage": [(renamed.get(meter, meter), q) for meter, q in event["usage"]]} for event in batch[0]]
    events, rules = event_batch(plain, seed), rules * repeated
    assert Checker(rules).failures(events, now_us) == failures(rules, plain, now_us)
