"""Goal: what a price says besides a rate is rated as flow.oracle.rating rates it, exactly.

Method: tables on every edge (tiers, packages, hours about summer time, instants to the microsecond, 128 bits), then
books that hypothesis makes up of all clauses at once, with events about their edges.
"""

import random
from datetime import UTC, datetime, timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.oracle.batches import PROPERTY, PlainEvent, event_batch, plain_event
from tests.parity.test_rate import JANUARY_US, MARCH_US, amounts_of, book, check

from flow.errors import ConfigError, OverflowStop
from flow.prices.book import PriceBook
from flow.prices.zones import offset_changes
from flow.steps.rate import Rater


def us(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def event(usage: dict[str, int], time_us: int = MARCH_US, **dims: str) -> PlainEvent:
    return plain_event(event_time_us=time_us, usage=list(usage.items()), **dims)


def amount(prices: PriceBook, usage: dict[str, int], time_us: int = MARCH_US, **dims: str) -> Fraction | None:
    """Of the first meter, in 10^-15."""
    return amounts_of(Rater(prices), event_batch([event(usage, time_us, **dims)]))[0][0][0]


# ---- Context tiers ----

TIERED = 'per: 1, price: "1", above: [{above: 100, price: "2"}, {above: 200, price: "4"}]'
EDGES = (0, 1, 99, 100, 101, 199, 200, 201, 10**12)


def test_the_whole_of_a_context_above_an_edge() -> None:
    prices = book(f"meter: input_tokens, {TIERED}", f"meter: output_tokens, {TIERED}")
    assert amount(prices, {"input_tokens": 100}) == 100 * 10**15
    assert amount(prices, {"input_tokens": 101}) == 202 * 10**15
    assert amount(prices, {"input_tokens": 1, "cached_input_tokens": 200}) == 4 * 10**15
    assert amount(prices, {"output_tokens": 7, "input_tokens": 100, "cache_write_tokens": 1}) == 14 * 10**15
    check(
        prices, [event({"input_tokens": a, "cached_input_tokens": b, "output_tokens": 3}) for a in EDGES for b in EDGES]
    )


def test_any_number_of_tiers() -> None:
    """Meters of one event with other edges, other contexts, and none."""
    rows = ['meter: a, per: 1, price: "9"']
    for n in range(1, 6):
        above = ", ".join(f'{{above: {40 * edge}, price: "{n * 10 + edge}"}}' for edge in range(1, n + 1))
        context = ", context: [a, t3]" if n % 2 else ""
        rows.append(f'meter: t{n}, per: 1, price: "{n}", above: [{above}]{context}')
    prices = book(*rows)
    usages = [{"a": size, "input_tokens": 201 - size} | {f"t{n}": n for n in range(1, 6)} for size in range(0, 202, 5)]
    check(prices, [event(usage) for usage in usages])


def test_the_part_of_a_context_above_an_edge() -> None:
    """Each meter's units stand behind those of the meters before it."""
    order = "context: [cached_input_tokens, input_tokens], applies: part"
    prices = book(
        f"meter: input_tokens, {TIERED}, {order}",
        f"meter: cached_input_tokens, {TIERED}, {order}",
        f"meter: output_tokens, {TIERED}, applies: part",
    )
    assert amount(prices, {"input_tokens": 250}) == (100 + 200 + 200) * 10**15
    assert amount(prices, {"input_tokens": 20, "cached_input_tokens": 90}) == (10 + 20) * 10**15
    assert amount(prices, {"cached_input_tokens": 90, "input_tokens": 500}) == 90 * 10**15
    assert amount(prices, {"output_tokens": 101, "input_tokens": 10**9}) == 102 * 10**15
    usages = [{"input_tokens": a, "output_tokens": b, "cached_input_tokens": b} for a in EDGES for b in EDGES]
    check(prices, [event(usage) for usage in usages])


def test_a_context_beyond_64_bits_is_above_every_edge() -> None:
    whole, part = (
        book(
            'meter: input_tokens, per: 1, price: "1e-15", '
            f'above: [{{above: 1_000_000_000_000_000_000, price: "2e-15"}}], applies: {applies}'
        )
        for applies in ("whole", "part")
    )
    huge = {"input_tokens": 2**63 - 1, "cached_input_tokens": 2**63 - 1, "cache_write_tokens": 2**63 - 1}
    for prices in (whole, part):
        check(prices, [event(huge), event({"cached_input_tokens": 2**63 - 1, "input_tokens": 2**63 - 1})])


# ---- Packages, products, factors ----


def test_started_packages() -> None:
    prices = book('meter: pages, per_started: 1_000, price: "0.05"')
    for quantity, packages in ((0, 0), (1, 1), (999, 1), (1000, 1), (1001, 2), (2**63 - 1, 9_223_372_036_854_776)):
        assert amount(prices, {"pages": quantity}) == packages * 5 * 10**13
    check(prices, [event({"pages": n}) for n in (0, 1, 1000, 1001, 10**12)])


def test_products_and_factors() -> None:
    prices = book(
        'meter: denoising_steps, per: 1, price: "0.001", times: [images, width]',
        'meter: output_tokens, price: "2", multiply: [{by: quality, table: {1: "1", 2: "1.5", 7: "1e-3"}}, '
        '{by: parallel, table: {0: "0.1", 4: "3"}, otherwise: "1"}]',
        unbilled="images, width, quality, parallel",
    )
    assert amount(prices, {"denoising_steps": 50, "images": 3}) == 150 * 10**12
    assert amount(prices, {"denoising_steps": 50, "images": 0, "width": 5}) == 0
    assert amount(prices, {"output_tokens": 10, "quality": 2, "parallel": 4}) == 10 * 2 * 10**9 * Fraction(9, 2)
    assert amount(prices, {"output_tokens": 10, "quality": 2}) == 30 * 10**9
    assert amount(prices, {"output_tokens": 10, "quality": 3}) is None, "not in the table: unpriced, never a guess"
    assert amount(prices, {"output_tokens": 10}) is None
    usages = [
        {"denoising_steps": a, "output_tokens": 11, "images": b, "quality": c, "parallel": d, "width": 2}
        for a in (0, 1, 2**31)
        for b in (0, 3)
        for c in (0, 1, 2, 7, 8)
        for d in (0, 1, 4)
    ]
    check(prices, [event(usage) for usage in usages])


def test_matrix_operations_beside_tokens_of_a_decoding_strategy() -> None:
    """The rows of docs/prices.md: operations by the thousand million, tokens by strategy and parallel samples."""
    prices = book(
        'meter: matrix_gigaops, per: 1_000_000_000, price: "0.35"',
        'meter: output_tokens, price: "2", multiply: [{by: decoding, table: {1: "1", 2: "1.6"}, otherwise: "1"}], '
        "times: [parallel_samples]",
        unbilled="decoding, parallel_samples",
    )
    assert amount(prices, {"matrix_gigaops": 10**12}) == 350 * 10**15
    usage = {"output_tokens": 1_000_000, "decoding": 2, "parallel_samples": 4}
    assert amount(prices, usage) == Fraction("12.8") * 10**15
    usages = [usage | {"matrix_gigaops": 2**62, "decoding": n} for n in range(4)]
    check(prices, [event(usage) for usage in usages])


def test_a_formula_is_the_sum_of_its_terms() -> None:
    prices = book(
        'model: dream, formula: [{meter: output_tokens, per: 1_000, price: "0.2"}, {meter: denoising_steps, per: 1, '
        'price: "0.001", times: [parallel]}]'
    )
    events = [event({"output_tokens": 1000, "denoising_steps": 64, "parallel": 2}, model="dream")]
    items, _ = amounts_of(Rater(prices), event_batch(events))
    assert items[0][:2] == [200 * 10**12, 128 * 10**12]
    check(prices, events)


def test_a_product_beyond_128_bits_stops() -> None:
    prices = book('meter: a, per: 1, price: "1", times: [b]', quantity_max=10**12, unbilled="b")
    check(prices, [event({"a": 2**63 - 1, "b": 18446})])
    with pytest.raises(OverflowStop, match="does not fit in 128 bits at row 0"):
        amount(prices, {"a": 2**63 - 1, "b": 18447})
    twice = book('meter: a, per: 1, price: "1e-15", times: [b, c]', quantity_max=10**12, unbilled="b, c")
    with pytest.raises(OverflowStop, match="does not fit in 128 bits"):
        amount(twice, {"a": 2**63 - 1, "b": 2**63 - 1, "c": 2**63 - 1})


def test_parts_beyond_128_bits_stop() -> None:
    top = "18446744073709"
    prices = book(
        f'meter: input_tokens, per: 1, price: "1", above: [{{above: 5, price: "{top}"}}], applies: part',
        quantity_max=1,
    )
    fits = (2**127 - 1 - 5 * 10**15) // (int(top) * 10**15) + 5
    check(prices, [event({"input_tokens": fits})])
    with pytest.raises(OverflowStop, match="does not fit in 128 bits"):
        amount(prices, {"input_tokens": fits + 1})


# ---- Hours ----

HOURS = """schedules:
  night: {zone: Europe/Berlin, hours: [{from: "22:30", to: "02:30"}]}
  work: {zone: America/New_York, hours: [{days: mon-fri, from: "09:00", to: "17:00"}], holidays: [2026-12-25]}
  rest:
    zone: Asia/Kathmandu
    hours: [{days: [sat, sun, holiday], from: "00:00", to: "24:00"}, {days: fri, from: "18:15", to: "03:00"}]
    holidays: [2026-10-20, 2026-10-21]
  far: {zone: Pacific/Kiritimati, hours: [{days: mon, from: "00:00", to: "24:00"}]}
  liberia: {zone: Africa/Monrovia, hours: [{from: "12:00", to: "13:00"}]}
"""


def scheduled(name: str) -> PriceBook:
    return book(
        'meter: a, per: 1, price: "3", from: 1970-01-01T00:00:00Z',
        f'meter: a, per: 1, price: "1", from: 1970-01-01T00:00:00Z, schedule: {name}',
        rest=HOURS,
    )


@pytest.mark.parametrize(
    ("name", "instants"),
    [
        # Summer time begins at 01:00Z: the clock goes from 02:00 to 03:00, and the night ends where 02:30 would be.
        ("night", [("2026-03-29T00:59:59.999999Z", 1), ("2026-03-29T01:00:00Z", 3), ("2026-03-29T20:30:00Z", 1)]),
        # It ends at 01:00Z: the clock shows 02:00 to 03:00 twice, and the night has both of its half hours.
        (
            "night",
            [
                ("2026-10-25T00:29:59.999999Z", 1),
                ("2026-10-25T00:30:00Z", 3),
                ("2026-10-25T01:00:00Z", 1),
                ("2026-10-25T01:29:59.999999Z", 1),
                ("2026-10-25T01:30:00Z", 3),
            ],
        ),
        ("work", [("2026-12-24T13:59:59.999999Z", 3), ("2026-12-24T14:00:00Z", 1), ("2026-12-25T14:00:00Z", 3)]),
        ("work", [("2026-03-06T14:00:00Z", 1), ("2026-03-09T13:00:00Z", 1), ("2026-03-09T12:59:59.999999Z", 3)]),
        ("rest", [("2026-10-19T18:14:59Z", 3), ("2026-10-19T18:15:00Z", 1), ("2026-10-21T18:14:59Z", 1)]),
        ("rest", [("2026-10-16T12:29:59Z", 3), ("2026-10-16T12:30:00Z", 1), ("2026-10-21T18:15:00Z", 3)]),
        ("far", [("2026-11-01T09:59:59.999999Z", 3), ("2026-11-01T10:00:00Z", 1), ("2026-11-02T10:00:00Z", 3)]),
        ("liberia", [("1971-06-01T12:44:29Z", 3), ("1971-06-01T12:44:30Z", 1), ("1973-06-01T12:00:00Z", 1)]),
    ],
)
def test_hours_by_the_clock_on_the_wall(name: str, instants: list[tuple[str, int]]) -> None:
    prices = scheduled(name)
    events = [event({"a": 1}, us(instant)) for instant, _ in instants]
    found, _ = amounts_of(Rater(prices), event_batch(events))
    assert found == [[price * 10**15] for _, price in instants]
    check(prices, events)


@PROPERTY
@given(st.sampled_from(["night", "work", "rest", "far", "liberia"]), st.integers(0, 2**32))
def test_hours_about_every_edge(name: str, seed: int) -> None:
    rng, prices = random.Random(seed), scheduled(name)
    zones = {"night": "Europe/Berlin", "work": "America/New_York", "rest": "Asia/Kathmandu"}
    changes = [change for change, _ in offset_changes(zones.get(name, "Africa/Monrovia"))[1:]]
    times = [rng.choice(changes) + rng.choice((0, 1800, 3600, 5400)) * rng.choice((-1, 1)) for _ in range(8)]
    times += [rng.randrange(2**32 // 900) * 900 for _ in range(8)]
    check(prices, [event({"a": 1}, max(time * 10**6 + rng.choice((-1, 0, 1)), 0)) for time in times])


def test_hours_without_a_price_beside_them_fall_back_to_wider_prices() -> None:
    prices = book(
        'meter: a, per: 1, price: "5"',
        'meter: a, per: 1, price: "1", model: m, schedule: work',
        'meter: b, per: 1, price: "1", schedule: work',
        rest=HOURS,
    )
    events = [event({"a": 1, "b": 1}, us(f"2026-11-02T{hour}:00:00Z"), model="m") for hour in ("13", "14")]
    assert amounts_of(Rater(prices), event_batch(events))[0] == [[5 * 10**15, None], [10**15, 10**15]]
    check(prices, events)


# ---- Percentages, fractions, credits, ends ----


def test_adjustments() -> None:
    prices = book(
        'meter: a, per: 1, price: "10"',
        'meter: a, per: 1, price: "4", service_tier: batch',
        'meter: a, per: 1, price: "7", customer: fixed, region: us',
        rest="""adjustments:
  - {customer: acme, percent: "-10", from: 2026-01-01T00:00:00Z}
  - {customer: acme, percent: "-20", from: 2026-02-01T00:00:00Z}
  - {customer: acme, model: m, percent: "5", from: 2026-01-01T00:00:00Z}
  - {customer: fixed, region: us, percent: "-50", from: 2026-01-01T00:00:00Z}
  - {service_tier: batch, percent: "-50", from: 2026-01-01T00:00:00Z}
  - {region: eu, meter: a, percent: "12.5", from: 2026-01-01T00:00:00Z}
""",
    )
    for dims, cost in (
        ({"customer": "other"}, "10"),
        ({"customer": "acme"}, "8"),
        ({"customer": "acme", "model": "m"}, "10.5"),
        ({"customer": "fixed", "region": "us"}, "7"),
        ({"customer": "acme", "service_tier": "batch"}, "3.2"),
        ({"customer": "acme", "region": "eu"}, "9"),
    ):
        assert amount(prices, {"a": 1}, **dims) == Fraction(cost) * 10**15
        check(prices, [event({"a": 3}, time, **dims) for time in (JANUARY_US - 1, JANUARY_US, MARCH_US)])


def test_fractions_are_kept() -> None:
    prices = book(
        'meter: a, per: 12_000_000, price: "1"',
        'meter: b, per: 7_000_000, price: "8"',
        'meter: c, per: 1, price: "1e-15", customer: acme',
        'meter: d, per: 1, price: "1e-15"',
        rest='adjustments: [{customer: acme, percent: "-10", from: 2026-01-01T00:00:00Z}]\n',
    )
    rater = Rater(prices)
    parts = [1, 5, 7, 11_999_987]
    items, _ = amounts_of(rater, event_batch([event({"a": n, "b": n, "c": n, "d": n}) for n in parts], 3))
    assert sum(item[0] for item in items) == 12 * 10**6 * Fraction(10**15, 12 * 10**6) * Fraction(9, 10)
    assert items[0] == [Fraction(250_000_000, 3) * Fraction(9, 10), Fraction(72, 70) * 10**9, 1, Fraction(9, 10)]
    check(prices, [event({"a": n, "b": n, "c": n, "d": n}, customer=name) for n in parts for name in ("acme", "x")])


def test_credits_and_ends() -> None:
    prices = book(
        'meter: a, per: 1, price: "5"',
        'meter: a, per: 1, price: "-2", credit: true, model: m',
        "meter: a, model: m, withdrawn: true, from: 2026-03-01T00:00:00Z",
        'meter: a, per: 1, price: "3", model: m, from: 2026-03-02T00:00:00Z',
        'meter: b, per: 1, price: "5"',
        "meter: b, withdrawn: true, from: 2026-02-01T00:00:00Z",
    )
    times = [MARCH_US - 1, MARCH_US, us("2026-03-01T23:59:59.999999Z"), us("2026-03-02T00:00:00Z")]
    events = [event({"a": 1, "b": 1}, time, model="m") for time in times]
    assert amounts_of(Rater(prices), event_batch(events))[0] == [[amount * 10**15, None] for amount in (-2, 5, 5, 3)]
    check(prices, events)


def test_customers_are_alike_only_where_no_row_names_their_model() -> None:
    names = [f"c{n}" for n in range(12)]
    rows = ['meter: a, per: 1, price: "1"', 'meter: a, per: 1, price: "5", model: m']
    rows += [f'meter: a, per: 1, price: "{7 + n}", model: m, customer: c{n}' for n in range(0, 12, 2)]
    rows += [f'meter: a, per: 1, price: "3", service_tier: batch, customer: c{n}, model: k' for n in range(0, 12, 3)]
    rest = "adjustments:\n" + "".join(
        f'  - {{customer: {name}, percent: "{-10 * (n % 3)}", from: 2026-01-01T00:00:00Z}}\n'
        for n, name in enumerate(names)
    )
    prices = book(*rows, rest=rest)
    assert len(set(prices.profiles().values())) == 3
    events = [
        event({"a": 1}, model=model, customer=name, service_tier=tier)
        for name in [*names, "nobody"]
        for model in ("m", "k", "")
        for tier in ("", "batch")
    ]
    check(prices, events)


# ---- Everything at once ----

CLAUSES = (
    'per: 1, price: "3"',
    'price: "1", per: 12_000_000',
    'price: "0.7", per_started: 3',
    'per: 1, price: "2", above: [{above: 2, price: "5"}, {above: 5, free: true}]',
    'per: 1, price: "2", above: [{above: 2, price: "5", per: 7}, {above: 5, price: "1"}], applies: part, '
    "context: [b, a]",
    'per: 1, price: "2", above: [{above: 3, price: "5"}], context: [c]',
    'per: 1, price: "2", times: [c, e]',
    'per: 1, price: "2", multiply: [{by: c, table: {1: "1", 3: "0.3"}, otherwise: "7"}]',
    'price: "2", per_started: 2, times: [c], multiply: [{by: d, table: {2: "1.5"}}], above: [{above: 4, price: "9"}]',
    'per: 1, price: "-1", credit: true',
    "per: 1, free: true",
    "withdrawn: true",
)
ROW = st.tuples(
    st.sampled_from(CLAUSES),
    st.sampled_from([None, "x", "y"]),
    st.sampled_from([None, "x", "y"]),
    st.sampled_from(["2026-01-01", "2026-02-01", "2026-03-01"]),
    st.sampled_from([None, None, "night", "work"]),
)
ADJUSTMENT = st.tuples(
    st.sampled_from(
        ["model: x", "customer: x", "customer: y", "customer: x, model: y", "region: eu", "customer: x, meter: a"]
    ),
    st.sampled_from(["-10", "33.3", "0", "-99"]),
    st.sampled_from(["2026-01-01", "2026-02-01"]),
)
REST = 'schedules:\n  night: {zone: UTC, hours: [{from: "22:00", to: "06:00"}]}\n' + (
    '  work: {zone: UTC, hours: [{from: "09:00", to: "17:00"}]}\n'
)


def loadable(rows: list[tuple[str | None, ...]], adjustments: list[tuple[str, ...]]) -> PriceBook:
    """A book of those rows that do not tie with rows before them."""
    kept: list[str] = []
    rest = (
        REST
        + "adjustments:\n"
        + "".join(
            f'  - {{{names}, percent: "{percent}", from: {day}T00:00:00Z}}\n'
            for (names, day), percent in {(names, day): percent for names, percent, day in adjustments}.items()
        )
    )
    rest = rest if adjustments else REST
    prices = book(rest=rest)
    for clause, model, customer, day, schedule in rows:
        names = {"model": model, "customer": customer, "schedule": schedule, "from": f"{day}T00:00:00Z"}
        row = f"meter: a, {clause}" + "".join(f", {key}: {name}" for key, name in names.items() if name)
        try:
            prices = book(*kept, row, rest=rest)
        except ConfigError as error:
            assert all("ties with" in line or "same meter" in line for line in error.errors), error
        else:
            kept.append(row)
    return prices


@PROPERTY
@given(st.lists(ROW, max_size=7), st.lists(ADJUSTMENT, max_size=4), st.integers(0, 2**32))
def test_rules_are_oracle(rows: list[tuple[str | None, ...]], adjustments: list[tuple[str, ...]], seed: int) -> None:
    prices, rng = loadable(rows, adjustments), random.Random(seed)
    events = [
        plain_event(
            event_time_us=us(f"2026-0{rng.randint(1, 3)}-01T{rng.choice(['05', '06', '09', '17', '22'])}:00:00Z")
            + rng.choice((-1, 0, 1)),
            usage=[(meter, rng.randrange(8)) for meter in rng.sample("abcde", rng.randint(1, 5))],
            model=rng.choice(["x", "y", ""]),
            customer=rng.choice(["x", "y", "z"]),
            region=rng.choice(["", "eu"]),
        )
        for _ in range(24)
    ]
    check(prices, events, seed)
