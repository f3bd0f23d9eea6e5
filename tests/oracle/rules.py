"""Which rules each event fails, asked one rule and one event at a time, in plain Python."""

from collections.abc import Mapping, Sequence

from flow.rules.rule import Clock, Known, Range, Required, Rule, Speed, Sum, Values

from .batches import PlainEvent


def failures(rules: Sequence[Rule], events: Sequence[PlainEvent], now_us: int) -> dict[int, list[int]]:
    """Rows with the numbers of the rules that each fails; a negative now_us: there is no clock."""
    found = {row: [n for n, rule in enumerate(rules) if fails(rule, event, now_us)] for row, event in enumerate(events)}
    return {row: failed for row, failed in found.items() if failed}


def fails(rule: Rule, event: PlainEvent, now_us: int) -> bool:
    if not rule.since_us <= event["event_time_us"] < rule.until_us:
        return False
    if not all(_among(event[column], values) for column, values in rule.where):
        return False
    usage: Mapping[str, int] = dict(event["usage"])
    match rule.check:
        case Known(column, values):
            return not _among(event[column], values)
        case Required(columns):
            return any(event[column] == "" for column in columns)
        case Range(meter, least, most):
            return meter in usage and (usage[meter] < least or (most is not None and usage[meter] > most))
        case Sum(meter, of, tolerance):
            return meter in usage and abs(usage[meter] - sum(usage.get(name, 0) for name in of)) > tolerance
        case Speed(meters, per_second_max):
            added = sum(usage.get(name, 0) for name in meters)
            return "duration_ms" in usage and added * 1000 > per_second_max * usage["duration_ms"]
        case Clock(behind_us, ahead_us):
            apart_us = event["event_time_us"] - now_us
            behind, ahead = (
                behind_us is not None and -apart_us > behind_us,
                ahead_us is not None and apart_us > ahead_us,
            )
            return now_us >= 0 and (behind or ahead)


def _among(text: str, values: Values) -> bool:
    return text in values.whole or any(text.startswith(beginning) for beginning in values.beginnings)
