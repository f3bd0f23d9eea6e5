"""Goal: what a float, or a decimal too narrow, would get wrong comes out exact.

Method: from JSON lines to the tables of a block, through every step.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.oracle.combine import Sums, read_tables, unpivoted

from flow.kernels.fingerprints import FingerprintSet
from flow.prices.book import parse_price_book
from flow.schema import meter_and_per
from flow.steps.batches import Limits, Lines
from flow.steps.combine import BlockBuilder
from flow.steps.decode import decode
from flow.steps.deduplicate import Judged
from flow.steps.rate import Rater
from flow.steps.route import route

NOW_US = 1_800_000_000_000_000
SHARDS = 3
PRICES = """
currency: USD
prices:
  - {meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
"""


def line(number: int, input_tokens: int | str, **fields: Any) -> dict[str, Any]:
    event = {"id": str(number), "source": "s", "customer": "acme", "time": "2026-11-01T12:00:00Z"}
    return event | {"usage": {"input_tokens": input_tokens}} | fields


def total_of(lines: Iterable[dict[str, Any]]) -> Sums:
    """The day's sums of input_tokens."""
    [total] = days_of(lines, PRICES)["input_tokens"]
    return total


def days_of(lines: Iterable[dict[str, Any]], prices: str) -> dict[str, list[Sums]]:
    """The day's rows by the name that the store has for the meter."""
    data = b"".join(json.dumps(event).encode() + b"\n" for event in lines)
    rater, block = Rater(parse_price_book(prices, "prices.yaml")), BlockBuilder("USD")
    sets = {f"shard-{n:03d}": FingerprintSet(None, 1) for n in range(SHARDS)}
    decoded = decode(Lines("test", 0, data), Limits(), NOW_US)
    assert decoded.rejected.num_rows == 0
    for routed in route(decoded, SHARDS):
        known = sets[routed.shard]
        verdicts = known.judge(routed.identity, routed.events.column("event_time_us"), routed.rows, routed.count)
        block.add(rater.rate(Judged(routed, verdicts, known.watermark_us)))
    tables = read_tables(block.cut("lineage", "writer", 1, NOW_US))
    found = defaultdict(list)
    for (table, _, meter, _), sums in unpivoted(tables).items():
        if table == "rollup_day":
            found[meter].append(sums)
    return found


def in_currency(amount_femto: int) -> Decimal:
    with localcontext() as context:
        context.prec = 60
        return Decimal(amount_femto).scaleb(-15)


def test_847_billion_tokens_at_60_cents_a_million() -> None:
    """An amount of 69 bits in 10^-15, where a float has 53."""
    total = total_of([line(1, 847_392_584_203)])
    assert total.quantity == 847_392_584_203
    assert in_currency(total.amount) == Decimal("508435.5505218")
    assert total.amount == 508_435_550_521_800_000_000


def test_the_same_in_a_million_parts() -> None:
    """Given the same tokens in uneven parts, as numbers and as strings of digits, then the same amount."""
    parts = [847_392_584_203 // 997] * 997
    parts[0] += 847_392_584_203 - sum(parts)
    total = total_of(line(n, str(part) if n % 2 else part) for n, part in enumerate(parts))
    assert total.quantity == 847_392_584_203
    assert in_currency(total.amount) == Decimal("508435.5505218")
    assert total.events == 997


def test_sums_beyond_what_decimal_38_26_holds() -> None:
    """Decimal(38, 26) ends below 10^12."""
    total = total_of(line(n, 5 * 10**8) for n in range(5000))
    assert total.quantity == 2_500_000_000_000 > 10**12
    assert in_currency(total.amount) == Decimal(1_500_000)
    assert total.events == 5000


def test_events_that_come_twice_count_once() -> None:
    """A retry has a new time, and its meters may stand in another order."""
    lines = [line(n % 10, 7, time=f"2026-11-01T12:00:{n % 60:02d}Z") for n in range(40)]
    total = total_of(lines)
    assert (total.quantity, total.events) == (70, 10)


def test_more_than_a_float_can_count() -> None:
    """2^53 + 1 is the first integer that a float cannot hold: sums pass it one by one."""
    step = 10**12
    count = 2**53 // step
    lines = [line(n, step) for n in range(count)]
    lines += [line(count, 2**53 - count * step), line(count + 1, 1)]
    total = total_of(lines)
    assert total.quantity == 2**53 + 1
    assert total.amount == (2**53 + 1) * 600_000_000


FRACTIONS = {"a": Fraction(1, 12_000_000), "b": Fraction(2, 7_000_000), "c": Fraction(3, 5), "d": Fraction(1, 73 * 81)}
"""Prices of one unit, by model."""


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 10**12)), min_size=1, max_size=12))
@settings(max_examples=60)
def test_rates_without_a_finite_decimal_add_up_like_fractions(usage: list[tuple[str, int]]) -> None:
    """Given prices of thirds, sevenths and others in one window, in any mixture, then not a fraction is lost."""
    row = '  - {{model: {}, meter: input_tokens, from: 2026-01-01T00:00:00Z, per: {}, price: "{}"}}'
    rows = [row.format(model, price.denominator, price.numerator) for model, price in FRACTIONS.items()]
    lines = [line(n, quantity, model=model) for n, (model, quantity) in enumerate(usage)]
    found = days_of(lines, "\n".join(["currency: USD", "prices:", *rows]))
    amount_femto, quantity = Fraction(0), 0
    for name, sums in found.items():
        meter, per = meter_and_per(name)
        if meter == "input_tokens":
            amount_femto += sum(Fraction(row.amount, per) for row in sums)
            quantity += sum(row.quantity for row in sums)
    assert quantity == sum(of_event for _, of_event in usage)
    assert amount_femto / 10**15 == sum(FRACTIONS[model] * of_event for model, of_event in usage)
