"""What is known of the completeness of an open period: beside the exact invoice, and never in its numbers.

A period is open until the watermark is a horizon behind its end: until then events may come and count. Its usage is of
three kinds: hours that get nothing any more, hours that have ended and may still get some, and hours that go on. For
the second there is an interval (flow/statements/still_to_come.py); the third are as they are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ..prices.book import PriceBook
from ..store import StoreClient
from ..store.queries.completeness import Reach, amounts_between, amounts_by_hour, came_behind, reach_of_store
from ..store.queries.waiting import late_waiting, rejected_of_nobody, rejected_waiting
from .aside import Aside, set_aside
from .invoice import Period
from .still_to_come import MOMENTS_MIN, Development, Interval, Past

HOUR_US = 3_600_000_000
PAST_HOURS = 28 * 24
"""How far back intervals look: four whole weeks, so that no day of the week counts more than another."""


@dataclass(frozen=True, slots=True)
class Growth:
    """What the hours that have ended may still get."""

    interval: Interval
    moments: int
    """Of the past that it is made of."""
    held: int
    """Of how many of the last ones it held, when it was made of what was known before them."""
    tested: int
    late_share: Fraction
    """Of what the last whole hour came to at those moments, the part that came later."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of a customer's open period."""

    watermark_us: int | None
    """None: no block in the store tells one."""
    final_before_s: int | None
    """Hours before get nothing any more, but by `tallyflow late` and corrections; None: there is no horizon."""
    ended_before_s: int
    final_femto: int | Fraction
    ended_femto: int | Fraction
    running_femto: int | Fraction
    growth: Growth | None
    why_not: str
    """Why there is no growth."""
    rejected: Aside
    rejected_of_nobody: int
    late: Aside


def make_estimate(
    client: StoreClient, customer: str, period: Period, horizon_us: int | None, book: Callable[[], PriceBook]
) -> Estimate | None:
    """None for a period that is closed; `book` is asked for only if events wait that may be rated by it.

    Raises ConfigError, StoreError.
    """
    reach = reach_of_store(client)
    final_us = None if reach is None or horizon_us is None else reach.watermark_us - horizon_us
    if final_us is not None and final_us >= period.end_s * 1_000_000:
        return None
    ended_s = period.start_s if reach is None else reach.watermark_us // HOUR_US * 3600
    ended_s = min(max(ended_s, period.start_s), period.end_s)
    final_s = None if final_us is None else min(max(final_us // HOUR_US * 3600, period.start_s), ended_s)
    amounts = amounts_between(
        client, customer, period.start_s, period.start_s if final_s is None else final_s, ended_s, period.end_s
    )
    growth, why_not = _growth(client, customer, period, reach, horizon_us)
    asked = (client, customer, period.start_s, period.end_s)
    return Estimate(
        None if reach is None else reach.watermark_us,
        final_s,
        ended_s,
        *amounts,
        growth,
        why_not,
        set_aside(rejected_waiting(*asked), book),
        rejected_of_nobody(client, period.start_s, period.end_s),
        set_aside(late_waiting(*asked), book),
    )


def _growth(
    client: StoreClient, customer: str, period: Period, reach: Reach | None, horizon_us: int | None
) -> tuple[Growth | None, str]:
    """What the ended hours may still get; or why that cannot be said."""
    if reach is None:
        return None, "no block in the store tells a watermark"
    if horizon_us is None:
        return None, "dedup.horizon is unbounded: events of any age still count"
    now, age_us = divmod(reach.watermark_us, HOUR_US)
    hours_max = -(-horizon_us // HOUR_US)
    ages = range(max(now - period.end_s // 3600, 0), min(now - period.start_s // 3600, hours_max))
    if not ages:
        return None, "no hour of the period has ended yet"
    first = max(now - hours_max - PAST_HOURS, 0)
    amounts = amounts_by_hour(client, customer, first - hours_max)
    behind = came_behind(client, customer, first - hours_max, age_us, horizon_us)
    used_from = min((hour for hour, amount in amounts.items() if amount), default=now)
    known_from = max(first, used_from + 1, -(-reach.told_since_us // HOUR_US))
    development = Development(Past(amounts, behind, known_from), now, ages, hours_max)
    interval = development.interval()
    if interval is None:
        return None, (
            f"the past is too short to say: it has {len(development.moments)} hours that get nothing any more and are "
            f"like the last one, and {MOMENTS_MIN} are needed"
        )
    held, tested = development.backtest()
    return Growth(interval, len(development.moments), held, tested, development.late_share()), ""
