"""The estimate beside the invoice of an open period: JSON, columns of CSV, and lines for people."""

from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

from ..rounding import FEMTO_DIGITS, decimal_text, div_half_even, exact_text, readable_text
from .aside import Aside
from .estimate import Estimate, Growth
from .still_to_come import CONFIDENCE

_SHARE_DIGITS = 6
_ESTIMATE_DIGITS = 4


def estimate_json(estimate: Estimate) -> dict[str, Any]:
    """Amounts and shares are strings, decimals of currency units; instants are UTC."""
    growth = estimate.growth
    return {
        "watermark": _micros_text(estimate.watermark_us),
        "final_before": None if estimate.final_before_s is None else second_text(estimate.final_before_s),
        "ended_before": second_text(estimate.ended_before_s),
        "amount_final": _exact(estimate.final_femto),
        "amount_ended": _exact(estimate.ended_femto),
        "amount_running": _exact(estimate.running_femto),
        "still_to_come": None if growth is None else _growth_json(growth),
        "estimate_until_ended_before": None
        if growth is None
        else {name: _exact(amount) for name, amount in _estimated(estimate, growth).items()},
        "why_not": estimate.why_not,
        "outstanding": {
            "rejected": _aside_json(estimate.rejected),
            "rejected_without_customer": estimate.rejected_of_nobody,
            "late": _aside_json(estimate.late),
        },
    }


def estimate_columns(estimate: Estimate) -> dict[str, object]:
    """By the name of the column."""
    growth = estimate.growth
    estimated = {} if growth is None else _estimated(estimate, growth)
    return {
        "watermark": _micros_text(estimate.watermark_us) or "",
        "final_before": "" if estimate.final_before_s is None else second_text(estimate.final_before_s),
        "ended_before": second_text(estimate.ended_before_s),
        "amount_final": _exact(estimate.final_femto),
        "amount_ended": _exact(estimate.ended_femto),
        "amount_running": _exact(estimate.running_femto),
        **{f"estimate_{name}": _exact(estimated[name]) if estimated else "" for name in ("low", "middle", "high")},
        "rejected_events": estimate.rejected.events.total(),
        "rejected_amount": _exact(estimate.rejected.amount_femto),
        "late_events": estimate.late.events.total(),
        "late_amount": _exact(estimate.late.amount_femto),
    }


def estimate_lines(estimate: Estimate, currency: str) -> list[str]:
    """A sentence each."""
    ended = second_text(estimate.ended_before_s)
    lines = [f"watermark {_micros_text(estimate.watermark_us) or 'not known'}; of the exact amount above:"]
    if estimate.final_before_s is not None:
        lines.append(
            f"{_money(estimate.final_femto)} {currency} before {second_text(estimate.final_before_s)}, complete"
        )
    lines.append(f"{_money(estimate.ended_femto)} {currency} of hours that ended by {ended}, and may still get some")
    lines.append(f"{_money(estimate.running_femto)} {currency} of the hours since")
    lines += _growth_lines(estimate, currency)
    lines += _aside_lines("rejected", estimate.rejected, currency)
    if estimate.rejected_of_nobody:
        lines.append(
            f"{estimate.rejected_of_nobody:,} rejected events name no customer that could be read: not counted"
        )
    lines += _aside_lines("late", estimate.late, currency)
    return lines


def second_text(seconds: int) -> str:
    """An instant in seconds since 1970, in UTC."""
    return f"{datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds):%Y-%m-%dT%H:%M:%SZ}"


def _growth_lines(estimate: Estimate, currency: str) -> list[str]:
    growth = estimate.growth
    if growth is None:
        return [f"what is still to come of ended hours is not known: {estimate.why_not}"]
    interval, total = growth.interval, _estimated(estimate, growth)
    between = f"{_rounded(interval.low)} to {_rounded(interval.high)} {currency}"
    return [
        f"still to come of ended hours: {between} ({CONFIDENCE * 100} %), about {_rounded(interval.middle)}",
        f"so that usage until {second_text(estimate.ended_before_s)} will come to {_rounded(total['low'])} to "
        f"{_rounded(total['high'])} {currency}",
        f"made of {growth.moments:,} past hours, of whose amount {_percent(growth.late_share)} came later than at this "
        f"age; such an interval held for {growth.held} of the last {growth.tested} it could be made for",
    ]


def _aside_lines(what: str, aside: Aside, currency: str) -> list[str]:
    if not aside.events:
        return []
    reasons = ", ".join(f"{events:,} {reason}" for reason, events in aside.events.most_common() if reason)
    of_reasons = f" ({reasons})" if reasons else ""
    worth = "they cannot be rated"
    if aside.rated:
        worth = f"{aside.rated:,} of them would come to {_rounded(aside.amount_femto)} {currency}"
    return [f"{what} events that are in no amount: {aside.events.total():,}{of_reasons}; {worth}"]


def _growth_json(growth: Growth) -> dict[str, Any]:
    interval = growth.interval
    return {
        "low": _exact(interval.low),
        "middle": _exact(interval.middle),
        "high": _exact(interval.high),
        "confidence": exact_text(CONFIDENCE * 10, 1),
        "past_hours": growth.moments,
        "late_share": _share(growth.late_share),
        "held": growth.held,
        "tested": growth.tested,
    }


def _aside_json(aside: Aside) -> dict[str, Any]:
    return {
        "events": aside.events.total(),
        "by_reason": {reason: events for reason, events in aside.events.most_common() if reason},
        "rated": aside.rated,
        "amount": _exact(aside.amount_femto),
    }


def _estimated(estimate: Estimate, growth: Growth) -> dict[str, int | Fraction]:
    """What the usage before `ended_before` will come to."""
    now, interval = estimate.final_femto + estimate.ended_femto, growth.interval
    return {"low": now + interval.low, "middle": now + interval.middle, "high": now + interval.high}


def _exact(femto: int | Fraction) -> str:
    return exact_text(femto, FEMTO_DIGITS)


def _money(femto: int | Fraction) -> str:
    return readable_text(femto, FEMTO_DIGITS)


def _rounded(femto: int | Fraction) -> str:
    """For people: an estimate has no use for more digits."""
    unit = 10 ** (FEMTO_DIGITS - _ESTIMATE_DIGITS)
    return decimal_text(div_half_even(femto.numerator, unit * femto.denominator), _ESTIMATE_DIGITS)


def _share(share: Fraction) -> str:
    return decimal_text(div_half_even(share.numerator * 10**_SHARE_DIGITS, share.denominator), _SHARE_DIGITS)


def _percent(share: Fraction) -> str:
    return f"{decimal_text(div_half_even(share.numerator * 10**4, share.denominator), 2)} %"


def _micros_text(instant_us: int | None) -> str | None:
    if instant_us is None:
        return None
    seconds, micros = divmod(instant_us, 1_000_000)
    return f"{second_text(seconds)[:-1]}.{micros:06d}Z"
