"""Goal: a price book means what it says, or is refused with every error at its line.

Method: tables of books with their exact messages; timelines against the oracle, which scans all prices, on
books and instants that hypothesis makes up.
"""

import gzip
import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.errors import ConfigError
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, load_price_book, parse_price_book
from flow.prices.rows import PRICE_KEYS
from flow.prices.rules import Rule
from flow.prices.values import decimal_text, parse_instant_us

SAMPLE = Path(__file__).resolve().parents[2] / "src" / "flow" / "samples" / "prices.yaml"
SHARED = Path(__file__).resolve().parents[2].parent / "shared" / "data"
JANUARY_US, FEBRUARY_US, MARCH_US = (
    (datetime(2026, month, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    for month in (1, 2, 3)
)


def book(*rows: str, rest: str = "") -> PriceBook:
    """Rows without `per`, `from` or `meter` get the usual ones."""
    return parse_price_book(text(*rows, rest=rest), "b.yaml")


def text(*rows: str, rest: str = "") -> str:
    lines = []
    for row in rows:
        row = row.replace('price: "0"', "free: true")
        for key, usual in (("meter", "input_tokens"), ("from", "2026-01-01T00:00:00Z"), ("per", "1_000_000")):
            row = row if f"{key}:" in row else f"{row}, {key}: {usual}"
        lines.append(f"  - {{{row}}}\n")
    return f"currency: USD\nprices:\n{''.join(lines)}{rest}"


def errors_of(source: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse_price_book(source, "b.yaml")
    return caught.value.errors


def timeline(prices: PriceBook, meter: str = "input_tokens", **dims: str) -> tuple[tuple[int, int], ...]:
    """(from_us, rate) of a meter whose prices have neither tiers nor schedules."""
    steps = prices.timeline(meter, **dict.fromkeys(("model", "service_tier", "region", "customer"), "") | dims)
    assert all(rule == Rule(rule.cells[:1]) for _, rule in steps if isinstance(rule, Rule))
    return tuple((from_us, rule.cells[0]) for from_us, rule in steps if isinstance(rule, Rule))


@pytest.mark.parametrize(
    ("price", "per", "rate_femto"),
    [
        ("0.60", "1_000_000", 600_000_000),
        ("0.60", '"1000000"', 600_000_000),
        ("6e-7", "1", 600_000_000),
        ("6E-7", "1", 600_000_000),
        ("0.000000000000001", "1", 1),
        (".5", "1", 500_000_000_000_000),
        ("5.", "1", 5_000_000_000_000_000),
        ("0.3", "3", 100_000_000_000_000),
        ("1.41953125E-7", "1", 141_953_125),
        ("170141183.460469231731687", "1", 170_141_183_460_469_231_731_687),
    ],
)
def test_a_rate_is_exact(price: str, per: str, rate_femto: int) -> None:
    (row,) = book(f'price: "{price}", per: {per}').prices
    assert row.rate_femto == rate_femto
    assert Fraction(row.price) / row.per == Fraction(rate_femto, 10**15)


METER = "a small letter, then small letters, digits and _, 64 at most"
DROP = "on input_tokens where both match; drop one, or add a price for"
HEAD = "b.yaml:3: prices[0]"


@pytest.mark.parametrize(
    ("row", "errors"),
    [
        (
            'price: "0.60", per: 101',
            [
                f"{HEAD}.price: '0.60' per 101 is not a whole number of 10^-15 USD per unit, and its denominator, 101, "
                "is none that amounts can be kept in (see docs/prices.md); "
                'the nearest that are: "0.599999999999905" and "0.600000000000006"'
            ],
        ),
        (
            'price: "2.0000000000000002E-7", per: 1',
            [
                f"{HEAD}.price: '2.0000000000000002E-7' per 1 is not a whole number of 10^-15 USD per unit; "
                'the nearest that are: "0.0000002" and "0.000000200000001"'
            ],
        ),
        (
            "price: 0.60",
            [f"{HEAD}.price: '0.60' is a bare number, a float to many readers; quote it: \"0.60\""],
        ),
        ("price: 1", [f"{HEAD}.price: '1' is a bare number, a float to many readers; quote it: \"1\""]),
        (
            "price: 6e-7",
            [f"{HEAD}.price: '6e-7' is a bare number, a float to many readers; quote it: \"6e-7\""],
        ),
        ('price: "-0.60"', [f"{HEAD}.price: '-0.60' is negative; what is paid back says credit: true"]),
        ('price: "1,5"', [f'{HEAD}.price: \'1,5\' is not a decimal number; write "0.60" or "6e-7"']),
        ('price: "NaN"', [f'{HEAD}.price: \'NaN\' is not a decimal number; write "0.60" or "6e-7"']),
        ('price: "1e999"', [f'{HEAD}.price: \'1e999\' is not a decimal number; write "0.60" or "6e-7"']),
        ('price: "٣"', [f'{HEAD}.price: \'٣\' is not a decimal number; write "0.60" or "6e-7"']),
        ("price: [1]", [f"{HEAD}.price: a list is not a price"]),
        (
            'price: "170141183460.5", per: 1',
            [
                f"{HEAD}.price: '170141183460.5' per 1, times limits.quantity_max, does not fit in 128 bits; "
                'at most "170141183460.469231731687303"'
            ],
        ),
        ('price: "1", per: 0', [f"{HEAD}.per: '0' is not a positive whole number; write 1 or 1_000_000"]),
        ('price: "1", per: -1', [f"{HEAD}.per: '-1' is not a positive whole number; write 1 or 1_000_000"]),
        ('price: "1", per: 1e6', [f"{HEAD}.per: '1e6' is not a positive whole number; write 1 or 1_000_000"]),
        ('price: "1", per: 010', [f"{HEAD}.per: '010' is not a positive whole number; write 1 or 1_000_000"]),
        (
            'price: "1", per: 1:30',
            [f"{HEAD}.per: '1:30' is not a positive whole number; write 1 or 1_000_000"],
        ),
        ('price: "1", model: 4', [f"{HEAD}.model: '4' is not text; quote it"]),
        ('price: "1", region: no', [f"{HEAD}.region: 'no' is not text; quote it"]),
        ('price: "1", region: ~', [f"{HEAD}.region: '~' is not text; quote it"]),
        ('price: "1", customer: ""', [f"{HEAD}.customer: '' is empty; leave customer out to match any"]),
        ('price: "1", customer: [a]', [f"{HEAD}.customer: a list is not text; quote it"]),
        ('price: "1", customr: a', [f"{HEAD}.customr: unknown key; did you mean customer?"]),
        ('price: "1", price: "2"', [f"{HEAD}.price: stands twice (first in line 3)"]),
        (
            'price: "1", meter: Input',
            [f"{HEAD}.meter: 'Input' is not a meter: {METER}"],
        ),
        (
            'price: "1", from: 2026-01-01T00:00:00',
            [
                f"{HEAD}.from: '2026-01-01T00:00:00' is not an instant; "
                "write date, time and UTC offset: 2026-01-01T00:00:00Z"
            ],
        ),
        (
            'price: "1", from: 2026-01-01',
            [f"{HEAD}.from: '2026-01-01' is not an instant; write date, time and UTC offset: 2026-01-01T00:00:00Z"],
        ),
        (
            'price: "1", from: 2026-02-29T00:00:00Z',
            [f"{HEAD}.from: '2026-02-29T00:00:00Z' is not in the calendar"],
        ),
        (
            'price: "1", from: 1969-12-31T23:59:59Z',
            [f"{HEAD}.from: '1969-12-31T23:59:59Z' is outside 1970-01-01 .. 2106-02-07"],
        ),
        ('meter: "x y", price: 1, per: x, from: never', None),
    ],
)
def test_a_bad_price_is_refused(row: str, errors: list[str] | None) -> None:
    found = errors_of(text(row))
    assert found == errors if errors is not None else len(found) == 4


@pytest.mark.parametrize(
    ("source", "errors"),
    [
        ("", ["b.yaml: is empty; `tallyflow init` writes one to start from"]),
        ("- 1", ["b.yaml:1: keys and values are expected, not a list"]),
        ("a: [1", ["b.yaml:2: not YAML: did not find expected ',' or ']'"]),
        (
            "currency: USD\nprices: []\n---\ncurrency: EUR\nprices: []",
            ["b.yaml:3: a second document begins here; one is expected"],
        ),
        (
            "prices: [&a {meter: x}, *a]\ncurrency: USD",
            ["b.yaml:1: an anchor (&) on a mapping or list; write it out"],
        ),
        (
            "prices: []\nprices: []",
            ["b.yaml:1: currency: is missing", "b.yaml:2: prices: stands twice (first in line 1)"],
        ),
        (
            "currency: usd\nprices: 3\nunbiled: []",
            [
                "b.yaml:1: currency: 'usd' is not a currency; write three capital letters: USD",
                "b.yaml:2: prices: a list is expected, not '3'",
                "b.yaml:3: unbiled: unknown key; did you mean unbilled?",
            ],
        ),
        (
            "currency: USD\nprices: [3]\nunbilled: [images, 3]",
            [
                f"b.yaml:2: prices[0]: a mapping of {', '.join(PRICE_KEYS)} is expected, not '3'",
                f"b.yaml:3: unbilled[1]: '3' is not a meter: {METER}",
            ],
        ),
        (
            "currency: USD\nprices:\n  - model: x",
            [f"{HEAD}.{key}: is missing" for key in ("meter", "from", "per", "price")],
        ),
        (
            text('price: "1"', rest="unbilled:\n  - input_tokens"),
            ["b.yaml:5: unbilled[0]: input_tokens is unbilled here and has a price in line 3; drop one"],
        ),
    ],
)
def test_a_bad_book_is_refused(source: str, errors: list[str]) -> None:
    assert errors_of(source) == errors


@pytest.mark.parametrize(
    ("rows", "errors"),
    [
        (
            ['price: "1", model: m', 'price: "2", model: m, from: 2026-01-01T01:00:00+01:00'],
            ["b.yaml:4: prices[1]: same meter, names and from as line 3; a price is superseded by a later from"],
        ),
        (
            ['price: "1", model: m', "broken: 1", 'price: "2", region: eu, from: 2026-02-01T00:00:00Z'],
            [
                f"b.yaml:4: prices[1].broken: unknown key; known here: {', '.join(PRICE_KEYS)}",
                "b.yaml:4: prices[1].price: is missing",
                f"b.yaml:5: prices[2]: ties with line 3 {DROP} {{model: m, region: eu}} from 2026-02-01T00:00:00Z on",
            ],
        ),
        (  # the price that decides begins too late
            [
                'price: "1", model: m',
                'price: "2", region: eu',
                'price: "3", model: m, region: eu, from: 2026-01-01T00:00:00.000001Z',
            ],
            [f"b.yaml:4: prices[1]: ties with line 3 {DROP} {{model: m, region: eu}} from 2026-01-01T00:00:00Z on"],
        ),
        (  # a narrower price that does not match all that both match
            [
                'price: "1", model: m, region: eu',
                'price: "2", model: m, customer: c',
                'price: "3", model: m, region: eu, service_tier: batch',
            ],
            [
                f"b.yaml:4: prices[1]: ties with line 3 {DROP} "
                "{model: m, region: eu, customer: c} from 2026-01-01T00:00:00Z on"
            ],
        ),
    ],
)
def test_row_19_a_tie_is_refused(rows: list[str], errors: list[str]) -> None:
    assert errors_of(text(*rows)) == errors


def test_many_ties_are_cut_short() -> None:
    rows = [f'price: "1", model: m{n}' for n in range(40)] + [f'price: "1", region: r{n}' for n in range(40)]
    assert len(errors_of(text(*rows))) == 20


@pytest.mark.parametrize(
    "rows",
    [
        ['price: "1", model: m', 'price: "2", model: n'],
        ['price: "1", model: m', 'price: "2", region: eu, meter: output_tokens'],
        ['price: "1", model: m', 'price: "2", model: m, region: eu', 'price: "3"'],
        ['price: "1", model: m', 'price: "2", region: eu', 'price: "3", model: m, region: eu'],
        [  # begins with the later of the two that would tie
            'price: "1", model: m',
            'price: "2", region: eu, from: 2026-02-01T00:00:00Z',
            'price: "3", model: m, region: eu, from: 2026-02-01T00:00:00Z',
        ],
        [  # names fewer dimensions than both together, and still more than each
            'price: "1", model: m, region: eu',
            'price: "2", service_tier: batch, customer: c',
            'price: "3", model: m, region: eu, customer: c',
        ],
    ],
)
def test_what_is_decided_is_no_tie(rows: list[str]) -> None:
    assert len(book(*rows).prices) == len(rows)


def test_the_narrowest_price_in_force_wins_from_its_own_instant() -> None:
    prices = book(
        'price: "1"',
        'price: "3", model: m, from: 2026-02-01T00:00:00Z',
        'price: "2", from: 2026-03-01T00:00:00Z',
    )
    assert timeline(prices) == ((JANUARY_US, 10**9), (MARCH_US, 2 * 10**9))
    assert timeline(prices, model="m") == ((JANUARY_US, 10**9), (FEBRUARY_US, 3 * 10**9))
    assert timeline(prices, meter="output_tokens") == ()


def test_equal_rates_in_a_row_are_one_step() -> None:
    prices = book('price: "1"', 'price: "1e-6", per: 1, model: m, from: 2026-02-01T00:00:00Z')
    assert timeline(prices, model="m") == ((JANUARY_US, 10**9),)


def test_the_price_of_zero_is_a_price() -> None:
    assert timeline(book("free: true")) == ((JANUARY_US, 0),)


def test_requests_are_free_unless_they_have_a_price() -> None:
    assert book('price: "1"').unbilled == {"requests"}
    assert timeline(book('price: "1"'), meter="requests") == ()
    priced = book('price: "0.01", meter: requests, per: 1, model: m', rest="unbilled: [images]")
    assert priced.unbilled == {"images"}
    assert timeline(priced, meter="requests", model="m") == ((0, 0), (JANUARY_US, 10**13))
    assert timeline(priced, meter="requests", model="other") == ((0, 0),)


def test_what_a_book_names() -> None:
    prices = book('price: "1", model: m', 'price: "1", model: n, region: eu', 'price: "1", meter: x')
    assert prices.meters == {"input_tokens", "x"}
    assert prices.named == {
        "model": {"m", "n"},
        "region": {"eu"},
        "service_tier": frozenset(),
        "customer": frozenset(),
    }


def test_the_digest_is_of_the_meaning() -> None:
    one = book('price: "1", model: m', 'price: "2", model: n', rest="unbilled: [a, b]")
    same = book('price: "2.0", model: n', 'price: "1e-6", per: 1, model: m', rest="unbilled: [b, a] # a remark")
    assert one.digest() == same.digest()
    others = [
        book('price: "1", model: m', 'price: "2", model: n', rest="unbilled: [a]"),
        book('price: "1", model: m', 'price: "2.1", model: n', rest="unbilled: [a, b]"),
        book('price: "1", model: m', 'price: "2", model: o', rest="unbilled: [a, b]"),
        parse_price_book(
            text('price: "1", model: m', 'price: "2", model: n', rest="unbilled: [a, b]").replace("USD", "EUR"),
            "b",
        ),
    ]
    assert len({one.digest(), *(other.digest() for other in others)}) == 5


NAMES = st.sampled_from([None, "a", "b"])
INSTANTS = st.sampled_from(["2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z", "2026-03-01T00:00:00+00:00"])
ROWS = st.lists(
    st.tuples(st.sampled_from(["x", "requests"]), NAMES, NAMES, NAMES, INSTANTS, st.sampled_from(["0", "1", "2"])),
    max_size=6,
)
EVENT_US = [instant + step for instant in (JANUARY_US, FEBRUARY_US, MARCH_US) for step in (-1, 0, 1)]


@given(ROWS)
def test_timelines_agree_with_the_oracle(
    rows: list[tuple[str, str | None, str | None, str | None, str, str]],
) -> None:
    """Given any book that loads, when any event is rated, then its timeline gives the oracle's amount."""
    lines = [
        f'meter: {meter}, from: {start}, price: "{price}"'
        + "".join(f", {key}: {name}" for key, name in zip(("model", "region", "customer"), names, strict=True) if name)
        for meter, *names, start, price in rows
    ]
    try:
        prices = book(*lines) if lines else parse_price_book("currency: USD\nprices: []", "b.yaml")
    except ConfigError as error:
        # Given what is made up here, nothing else can be wrong with a book.
        assert all("ties with" in line or "same meter" in line for line in error.errors)
        return
    for model in ("a", "z"):
        for region in ("b", ""):
            for customer in ("a", "z"):
                dims = {"model": model, "region": region, "customer": customer}
                for event_us in EVENT_US:
                    event = Event(event_us, (("x", 3),), dims)
                    assert rate_event(prices.prices, prices.unbilled, event) == [
                        (meter, quantity, amount_by_timeline(prices, meter, quantity, event))
                        for meter, quantity in (("x", 3), ("requests", 1))
                    ]


def amount_by_timeline(prices: PriceBook, meter: str, quantity: int, event: Event) -> int | None:
    begun = [rate for from_us, rate in timeline(prices, meter, **event.dims) if from_us <= event.event_time_us]
    if not begun:
        return 0 if meter in prices.unbilled else None
    return begun[-1] * quantity


def test_the_oracle_on_boundaries() -> None:
    prices = book('price: "0.60"', 'price: "9", meter: big, per: 1', rest="unbilled: [images]")
    usage = (("input_tokens", 847_392_584_203), ("big", 2**63 - 1), ("images", 7), ("other", 1), ("big", 0))
    assert rate_event(prices.prices, prices.unbilled, Event(JANUARY_US, usage)) == [
        ("input_tokens", 847_392_584_203, 508_435_5505218 * 10**8),
        ("big", 2**63 - 1, (2**63 - 1) * 9 * 10**15),
        ("images", 7, 0),
        ("other", 1, None),
        ("big", 0, 0),
        ("requests", 1, 0),
    ]
    assert rate_event(prices.prices, prices.unbilled, Event(JANUARY_US - 1, (("input_tokens", 0),))) == [
        ("input_tokens", 0, None),
        ("requests", 1, 0),
    ]


@pytest.mark.parametrize(
    ("instant", "instant_us"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01 01:00+01:00", 0),
        ("2026-01-01T05:30:00+05:30", JANUARY_US),
        ("2025-12-31T16:00:00.5-08:00", JANUARY_US + 500_000),
        ("2106-02-07T06:28:15Z", (2**32 - 1) * 1_000_000),
    ],
)
def test_instants(instant: str, instant_us: int) -> None:
    assert parse_instant_us(instant) == instant_us


@pytest.mark.parametrize(
    "instant",
    [
        "2106-02-07T06:28:16Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T00:00:60Z",
        "2026-01-01T00:00:00.0000001Z",
        "now",
    ],
)
def test_no_instants(instant: str) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_instant_us(instant)


@given(st.integers(0, 2**80), st.integers(1, 10**9))
def test_decimal_text_is_exact(rate_femto: int, per: int) -> None:
    assert Fraction(decimal_text(rate_femto, per)) == Fraction(rate_femto * per, 10**15)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file$"):
        load_price_book(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="is a folder"):
        load_price_book(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"currency: \xff")
    with pytest.raises(ConfigError, match=r"not UTF-8 text \(at byte 10\)"):
        load_price_book(tmp_path / "latin.yaml")


def test_the_sample_loads() -> None:
    assert load_price_book(SAMPLE).currency == "USD"


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data here")
def test_published_token_prices_load() -> None:
    """All of a real list but what is finer than the grid, which is refused and never rounded."""
    models = json.loads(gzip.decompress((SHARED / "prices_litellm_2026-11.json.gz").read_bytes()))["models"]
    rows = {
        (model, key): price
        for model, entry in models.items()
        for key, price in entry["usd_per_token"].items()
        if key in ("input_cost_per_token", "output_cost_per_token")
    }
    lines = [
        f"model: {json.dumps(model)}, meter: {key.split('_')[0]}_tokens, per: 1, price: {json.dumps(str(price))}"
        for (model, key), price in rows.items()
    ]
    refused = errors_of(text(*lines))
    off_grid = [line for line in refused if "is not a whole number of 10^-15 USD per unit; the nearest" in line]
    assert all("is 0; if that is meant, say so" in line for line in set(refused) - set(off_grid))
    assert len(off_grid) == sum(Fraction(str(price)) * 10**15 % 1 != 0 for price in rows.values()) < 100


@pytest.mark.parametrize(("begins", "refused"), [("2026-03-01T00:00:00Z", False), ("2026-02-01T00:00:00Z", True)])
def test_schedules_that_hold_one_after_the_other_may_be_any(begins: str, refused: bool) -> None:
    source = f"""currency: USD
schedules:
  night: {{zone: UTC, hours: [{{from: "20:00", to: "06:00"}}]}}
  lunch: {{zone: Europe/Rome, hours: [{{from: "12:00", to: "14:00"}}]}}
prices:
  - {{meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1, price: "1", schedule: night}}
  - {{meter: input_tokens, from: 2026-03-01T00:00:00Z, withdrawn: true, schedule: night}}
  - {{meter: input_tokens, from: {begins}, per: 1, price: "2", schedule: lunch}}
"""
    if refused:
        assert [error.split(": ")[0] for error in errors_of(source)] == ["b.yaml:8"]
    else:
        assert len(parse_price_book(source, "b.yaml").prices) == 3
