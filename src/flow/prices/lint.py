"""What is allowed in a price book, and yet probably not meant: `tallyflow prices lint`."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

from ..schema import STANDARD_METERS
from .book import PriceBook
from .explain import Usage, amount_text, explain, total_femto
from .price import PROMPT, Price, Selector, covers, names_of, narrowness
from .rules import rule_of
from .values import instant_text

JUMP_MAX = 10
"""A price that is so many times another one, or more, is taken for a slip of the decimal point."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to look at."""

    line: int
    rule: str
    """gap, overlap, jump, tier or meter."""
    message: str


def lint(book: PriceBook, previous: PriceBook | None = None, market: PriceBook | None = None) -> list[Finding]:
    """Everything found, in the order of lines.

    previous: an older version of the book, against which prices are held for jumps.
    market: a book of the provider's own prices, against which tiers and meters are held.
    """
    found = [*_gaps(book), *_overlaps(book), *_jumps(book), *_meters(book)]
    if previous is not None:
        found += _jumps_from(book, previous)
    if market is not None:
        found += _against_market(book, market)
    return sorted(found, key=lambda finding: (finding.line, finding.rule, finding.message))


def failed_examples(book: PriceBook) -> list[Finding]:
    """The examples of the book that do not come out."""
    found = []
    for example in book.examples:
        model, service_tier, region, customer = (
            example.dims[n] for n in ("model", "service_tier", "region", "customer")
        )
        names = (model, service_tier, region, customer)
        items = explain(book, Usage(example.event_time_us, names, dict(example.usage)))
        total, unpriced = total_femto(items), {item.meter for item in items if item.outcome == "unpriced"}
        if total != example.amount * 10**15:
            told = f"costs {amount_text(total)}, and not {amount_text(example.amount * 10**15)}"
            found.append(Finding(example.line, "amount", told))
        if unpriced != example.unpriced:
            told = f"unpriced is {sorted(unpriced) or 'nothing'}, and not {sorted(example.unpriced) or 'nothing'}"
            found.append(Finding(example.line, "unpriced", told))
    return found


def _by_names(prices: Iterable[Price]) -> dict[tuple[str, Selector, object], list[Price]]:
    """The rows that supersede one another, in the order of their instants."""
    groups: dict[tuple[str, Selector, object], list[Price]] = defaultdict(list)
    for price in sorted(prices, key=lambda price: price.from_us):
        groups[price.meter, price.selector, price.schedule].append(price)
    return groups


def _gaps(book: PriceBook) -> Iterator[Finding]:
    """Prices that end with nothing behind them, or that hold in some hours only."""
    groups = _by_names(book.prices)
    for (meter, selector, schedule), rows in groups.items():
        wider = [
            groups[meter, cover, None]
            for cover in covers(selector)
            if (meter, cover, None) in groups and (cover != selector or schedule is not None)
        ]
        for n, row in enumerate(rows):
            behind = any(_holds(other, row.from_us) for other in wider)
            if row.withdrawn and not behind:
                until = f" until {instant_text(rows[n + 1].from_us)}" if n + 1 < len(rows) else ""
                told = f"{meter} {names_of(selector)} is unpriced from {instant_text(row.from_us)}{until}"
                yield Finding(row.line, "gap", told)
            elif row.schedule is not None and not row.withdrawn and not behind:
                told = f"{meter} {names_of(selector)} is unpriced outside the hours of {row.schedule.name}"
                yield Finding(row.line, "gap", told)


def _holds(rows: Sequence[Price], time_us: int) -> bool:
    begun = [row for row in rows if row.from_us <= time_us]
    return bool(begun) and not begun[-1].withdrawn


def _overlaps(book: PriceBook) -> Iterator[Finding]:
    """Rows that say what holds already."""
    for rows in _by_names(book.prices).values():
        for before, row in pairwise(rows):
            same = before.withdrawn == row.withdrawn and (row.withdrawn or rule_of(before) == rule_of(row))
            if same:
                yield Finding(row.line, "overlap", f"says again what line {before.line} says; it changes nothing")


def _jumps(book: PriceBook) -> Iterator[Finding]:
    """Prices that are many times what they supersede, or what a wider price says."""
    groups = _by_names(book.prices)
    for rows in groups.values():
        for before, row in pairwise(rows):
            yield from _jump(row, before, f"line {before.line} before it")
    for (meter, selector, schedule), rows in groups.items():
        wider = [cover for cover in covers(selector) if cover != selector and (meter, cover, schedule) in groups]
        if wider and any(name is not None for name in selector[:1]):
            of = groups[meter, max(wider, key=narrowness), schedule][-1]
            # A price for a model is no slip of the price for all models; one for a customer or tier of it may be.
            if of.selector[0] == selector[0]:
                yield from _jump(rows[-1], of, f"line {of.line}, which is for more events")


def _jump(row: Price, before: Price, than: str) -> Iterator[Finding]:
    if row.withdrawn or before.withdrawn or row.started != before.started:
        return
    new, old = row.rate_femto, before.rate_femto
    if new <= 0 or old <= 0:
        return
    times = max(Fraction(new, old), Fraction(old, new))
    if times >= JUMP_MAX:
        more = "more" if new > old else "less"
        yield Finding(
            row.line, "jump", f"{row.meter} costs {times.numerator // times.denominator} times {more} than {than}"
        )


def _jumps_from(book: PriceBook, previous: PriceBook) -> Iterator[Finding]:
    """Rows that the previous version had otherwise, or not at all."""
    before = {(price.meter, price.selector, price.schedule, price.from_us): price for price in previous.prices}
    latest = {key: rows[-1] for key, rows in _by_names(previous.prices).items()}
    for price in book.prices:
        key = price.meter, price.selector, price.schedule
        same = before.pop((*key, price.from_us), None)
        if same is not None and (same.withdrawn, rule_of(same)) != (price.withdrawn, rule_of(price)):
            told = (
                f"{price.meter} from {instant_text(price.from_us)} was {same.price} per {same.per}; supersede, not edit"
            )
            yield Finding(price.line, "jump", told)
        elif same is None and key in latest:
            yield from _jump(price, latest[key], "in the previous version")
    for gone in before.values():
        told = f"{gone.meter} {names_of(gone.selector)} from {instant_text(gone.from_us)} is gone; withdraw, not delete"
        yield Finding(1, "jump", told)


def _meters(book: PriceBook) -> Iterator[Finding]:
    """Meters that decide a price and are not for sale themselves; models that sell input and no output."""
    for meter in sorted(book.deciding - book.meters - book.unbilled - {*STANDARD_METERS, *PROMPT}):
        line = min(price.line for price in book.prices if meter in price.deciding)
        yield Finding(line, "meter", f"{meter} decides a price and has none itself: add it to unbilled")
    of_model: dict[str, dict[str, int]] = defaultdict(dict)
    for price in book.prices:
        if price.selector[0] is not None and not price.withdrawn:
            of_model[price.selector[0]].setdefault(price.meter, price.line)
    anywhere = {price.meter for price in book.prices if price.selector[0] is None}
    for model, meters in of_model.items():
        for one, other in (("input_tokens", "output_tokens"), ("cached_input_tokens", "input_tokens")):
            if one in meters and other not in meters and other not in anywhere and other not in book.unbilled:
                yield Finding(meters[one], "meter", f"{model} has a price of {one} and none of {other}")


def _against_market(book: PriceBook, market: PriceBook) -> Iterator[Finding]:
    """Context tiers, service tiers and meters that the market has of a model which the book sells."""
    theirs: dict[str, list[Price]] = defaultdict(list)
    for price in market.prices:
        if price.selector[0] is not None:
            theirs[price.selector[0]].append(price)
    ours: dict[str, list[Price]] = defaultdict(list)
    for price in book.prices:
        if price.selector[0] in theirs and price.selector[3] is None:
            ours[str(price.selector[0])].append(price)
    for model, prices in ours.items():
        line = min(price.line for price in prices)
        for meter in sorted({price.meter for price in theirs[model]} - {price.meter for price in prices}):
            if meter not in book.unbilled:
                yield Finding(line, "meter", f"{model}: the market has a price of {meter}")
        for tier in sorted(
            {str(p.selector[1]) for p in theirs[model] if p.selector[1]} - {p.selector[1] for p in prices}
        ):
            yield Finding(line, "tier", f"{model}: the market has the service tier {tier}")
        edges = {(price.meter, tier.above) for price in theirs[model] for tier in price.tiers}
        for meter, above in sorted(edges - {(price.meter, tier.above) for price in prices for tier in price.tiers}):
            if meter in {price.meter for price in prices}:
                yield Finding(
                    line, "tier", f"{model}: the market has another price of {meter} above {above:_} of context"
                )
