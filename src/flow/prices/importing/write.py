"""A book of imported prices as YAML: one row a line, in one order, so that two imports can be compared as text."""

import json
from collections.abc import Iterable, Iterator

from ..price import NARROWING, PROMPT, Hours, Price, Schedule, Tier
from ..schedules import DAYS, MINUTES_A_DAY
from ..values import instant_text
from .collect import Imported, Kind


def book_text(imported: Imported, source: str, currency: str = "USD") -> str:
    """The whole file. What is not in it, or not as it stood in the source, is in comments at its top."""
    lines = [f"# {len(imported.prices):,} prices of {imported.models:,} models, imported from {_comment(source)}."]
    for kind in Kind:
        remarks = [remark for remark in imported.remarks if remark.kind is kind]
        if remarks:
            lines += ["#", f"# {kind.capitalize()}:"]
            lines += [f"#   {_comment(remark.where)}: {_comment(remark.text)}" for remark in remarks]
    lines += ["", f"currency: {currency}"]
    schedules = {price.schedule.name: price.schedule for price in imported.prices if price.schedule is not None}
    if schedules:
        lines += ["schedules:", *(line for name in sorted(schedules) for line in _schedule_lines(schedules[name]))]
    lines += ["prices:" if imported.prices else "prices: []", *(_price_line(price) for price in imported.prices)]
    return "\n".join(lines) + "\n"


def _comment(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


def _price_line(price: Price) -> str:
    names = zip(NARROWING, price.selector, strict=True)
    fields = [f"{name}: {_quoted(value)}" for name, value in names if value is not None]
    fields += [f"meter: {price.meter}", f"from: {instant_text(price.from_us)}"]
    if price.schedule is not None:
        fields.append(f"schedule: {_quoted(price.schedule.name)}")
    if price.withdrawn:
        fields.append("withdrawn: true")
    else:
        fields += [f"per: {price.per:_}", _money(price.price)]
    if price.tiers:
        fields.append(f"above: [{', '.join(_tier(tier, price.per) for tier in price.tiers)}]")
        if set(price.context) != set(PROMPT):
            fields.append(f"context: [{', '.join(price.context)}]")
    return f"  - {{{', '.join(fields)}}}"


def _tier(tier: Tier, per: int) -> str:
    own = f", per: {tier.per:_}" if tier.per != per else ""
    return f"{{above: {tier.above:_}{own}, {_money(tier.price)}}}"


def _money(price: str) -> str:
    return "free: true" if price == "0" else f'price: "{price}"'


def _schedule_lines(schedule: Schedule) -> Iterator[str]:
    yield f"  {_quoted(schedule.name)}:"
    yield f"    zone: {schedule.zone}"
    yield "    hours:"
    for hours in schedule.hours:
        yield f"      - {{{_days(hours.days)}{_clocks(hours)}}}"
    if schedule.holidays:
        yield f"    holidays: [{', '.join(sorted(day.isoformat() for day in schedule.holidays))}]"


def _days(days: Iterable[int]) -> str:
    found = [name for n, name in enumerate(DAYS) if n in set(days)]
    return "" if len(found) == len(DAYS) else f"days: [{', '.join(found)}], "


def _clocks(hours: Hours) -> str:
    return f'from: "{_clock(hours.from_minute)}", to: "{_clock(hours.to_minute)}"'


def _clock(minute: int) -> str:
    hour, rest = divmod(minute, 60)
    return "24:00" if minute == MINUTES_A_DAY else f"{hour:02d}:{rest:02d}"


def _quoted(text: str) -> str:
    """A YAML scalar in double quotes: what JSON escapes in printable text, YAML reads in the same way."""
    return json.dumps(text, ensure_ascii=False)
