"""The dated price history of `model-prices`, made of models.dev's commits: `snapshot.json`, schema 1.

Per provider, model and mode a list of rates, each from an instant on (`start`; null: since ever) until the next one;
`rates: null` is a time without a price. A mode other than `standard` is a service tier of the book.

By the definition of that file a cache price that is missing is the price of input, a tier's price that is missing is
the one below the tier, a one-hour cache write costs `cache_write_1h_multiple` times the input, else what any cache
write costs, and a schedule multiplies all prices of some models at some hours.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from ...errors import ConfigError
from ..price import HOLIDAY, Hours, Schedule
from ..values import parse_instant_us
from .collect import TOKENS, Collector, Kind, Money, Names, Tiers
from .numbers import as_decimal, as_mapping, meant

SCHEMA = 1
STANDARD = "standard"
EVER_US = 0

_METERS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "cache_read": "cached_input_tokens",
    "cache_write": "cache_write_tokens",
}
_ONE_HOUR = "cache_write_1h_tokens"
_MULTIPLE = "cache_write_1h_multiple"
_NO_PRICES = {"source", "valid_from", "valid_from_basis", "model", "tiers", "above", _MULTIPLE}
_MINUTES_A_DAY = 1440


def is_history(root: Mapping[str, Any]) -> bool:
    """Whether a file is this one and not models.dev's own."""
    return "schema" in root and "prices" in root and "models_dev" in root


def read(root: Mapping[str, Any], where: str, collector: Collector) -> None:
    """Takes all prices of a file. Raises ConfigError if it is of another schema."""
    if root["schema"] != SCHEMA:
        raise ConfigError(f"{where}: schema {root['schema']} is not known here, only {SCHEMA}")
    surcharges = list(_surcharges(as_mapping(root.get("schedules") or {}, f"{where}: schedules"), collector))
    for provider, models in as_mapping(root["prices"], f"{where}: prices").items():
        for model, modes in as_mapping(models, f"{where}: {provider}").items():
            name = collector.name(provider, f"{provider}/{model}")
            if name is None:
                continue
            of_model = [s for s in surcharges if s.provider == provider and s.factor_of(model) is not None]
            for mode, rows in as_mapping(modes, f"{where}: {provider}/{model}").items():
                names = Names(name, None if mode == STANDARD else mode)
                _Mode(collector, f"{provider}/{model} ({mode})", names, model, of_model).read(rows)
    _tell_the_rest(root, collector)


@dataclass(frozen=True, slots=True)
class _Surcharge:
    """Hours in which a provider's prices are multiplied, from an instant on."""

    provider: str
    schedule: Schedule
    from_us: int
    to_us: int | None
    factors: Decimal | Mapping[str, Any]
    """One for every model, or by model."""

    def factor_of(self, model: str) -> Decimal | None:
        return self.factors if isinstance(self.factors, Decimal) else as_decimal(self.factors.get(model))


class _Mode:
    """The prices of one model in one mode, over time."""

    def __init__(self, collector: Collector, key: str, names: Names, model: str, surcharges: list[_Surcharge]) -> None:
        self._collector = collector
        self._key = key
        self._names = names
        self._model = model
        self._surcharges = surcharges

    def read(self, rows: Any) -> None:
        if not isinstance(rows, list):
            raise ConfigError(f"{self._key}: a list is expected")
        found = [as_mapping(row, self._key) for row in rows]
        starts = [_instant(row.get("start"), self._key) for row in found]
        ends = [*starts[1:], None]
        seen: set[str] = set()
        for row, from_us, to_us in zip(found, starts, ends, strict=True):
            rates = row.get("rates")
            prices = {} if rates is None else self._prices(as_mapping(rates, self._key))
            for meter in seen - prices.keys():
                self._collector.offer(self._names, meter, from_us, None)
            for meter, tiers in prices.items():
                self._collector.offer(self._names, meter, from_us, tiers)
            for surcharge in self._surcharges:
                self._offer_surcharge(surcharge, seen, prices, from_us, to_us)
            seen |= prices.keys()

    def _prices(self, rates: Mapping[str, Any]) -> dict[str, Tiers]:
        prices: dict[str, Tiers] = {}
        self._take(rates, 0, prices)
        for tier in rates.get("tiers") or ():
            place = f"{self._key}: tiers"
            edge = self._collector.whole(place, as_mapping(tier, place).get("above"))
            if edge is not None:
                self._take(tier, edge, prices)
        if 0 not in prices.get("input_tokens", {}):
            return {meter: tiers for meter, tiers in prices.items() if 0 in tiers}
        self._fill(prices, rates.get(_MULTIPLE))
        return {meter: tiers for meter, tiers in prices.items() if 0 in tiers}

    def _take(self, rates: Mapping[str, Any], edge: int, prices: dict[str, Tiers]) -> None:
        for key, value in rates.items():
            if key in _NO_PRICES or value is None:
                continue
            if key not in _METERS:
                self._collector.remark(Kind.LEFT_OUT, f"{self._key}: {key}", "no meter is known for it")
            elif (money := self._collector.money(f"{self._key}: {key}", value, TOKENS)) is not None:
                prices.setdefault(_METERS[key], {})[edge] = money

    def _fill(self, prices: dict[str, Tiers], multiple: Any) -> None:
        """The prices that the file leaves to its reader."""
        of_input = prices["input_tokens"]
        caches_writes = "cache_write_tokens" in prices or multiple is not None
        for meter in ("cached_input_tokens", "cache_write_tokens"):
            own = prices.get(meter, {})
            prices[meter] = {**of_input, **own} if 0 not in own else own
        if "output_tokens" in prices:
            prices["reasoning_tokens"] = prices["output_tokens"]
        if caches_writes:
            prices[_ONE_HOUR] = self._one_hour(of_input, prices["cache_write_tokens"], multiple)
            self._collector.count_as_context(self._names.model, [_ONE_HOUR])

    def _one_hour(self, of_input: Tiers, of_write: Tiers, multiple: Any) -> Tiers:
        factor = as_decimal(multiple)
        if factor is None:
            return of_write
        place = f"{self._key}: {_MULTIPLE}"
        scaled = {edge: self._collector.scaled(place, money, meant(factor)[0]) for edge, money in of_input.items()}
        return {edge: money for edge, money in scaled.items() if money is not None}

    def _offer_surcharge(
        self, surcharge: _Surcharge, seen: set[str], prices: Mapping[str, Tiers], from_us: int, to_us: int | None
    ) -> None:
        """The part of [from_us, to_us) in which the surcharge holds."""
        begin = max(from_us, surcharge.from_us)
        if (to_us is not None and to_us <= begin) or (surcharge.to_us is not None and surcharge.to_us <= begin):
            return
        factor = surcharge.factor_of(self._model)
        assert factor is not None  # only such surcharges were taken for the model
        for meter in seen - prices.keys():
            self._collector.offer(self._names, meter, begin, None, surcharge.schedule)
        for meter, tiers in prices.items():
            scaled = {edge: self._scaled(meter, money, factor) for edge, money in tiers.items()}
            whole = {edge: money for edge, money in scaled.items() if money is not None}
            self._collector.offer(self._names, meter, begin, whole if 0 in whole else None, surcharge.schedule)
            if surcharge.to_us is not None and (to_us is None or surcharge.to_us <= to_us):
                self._collector.offer(self._names, meter, surcharge.to_us, None, surcharge.schedule)

    def _scaled(self, meter: str, money: Money, factor: Decimal) -> Money | None:
        return self._collector.scaled(f"{self._key}: {meter}, scheduled", money, factor)


def _instant(value: Any, where: str) -> int:
    try:
        return EVER_US if value is None else parse_instant_us(str(value))
    except ValueError as error:
        raise ConfigError(f"{where}: {value!r} {error}") from None


# ---- Schedules ----------------------------------------------------------------------------------------------------


def _surcharges(schedules: Mapping[str, Any], collector: Collector) -> Iterator[_Surcharge]:
    calendars = as_mapping(schedules.get("holidays") or {}, "schedules.holidays")
    for n, value in enumerate(schedules.get("schedule") or ()):
        where = f"schedules.schedule[{n}]"
        rule = as_mapping(value, where)
        provider = str(rule.get("provider"))
        try:
            calendar = calendars[rule["holidays"]] if "holidays" in rule else None
            surcharge = _surcharge(rule, n, provider, calendar)
        except (KeyError, TypeError, ValueError) as error:
            collector.remark(Kind.LEFT_OUT, f"{provider}: {where}", f"is not understood ({error})")
            continue
        yield surcharge
        if calendar is not None:
            text = f"holidays are known to {calendar.get('covers_through')}; later ones count as working days"
            collector.remark(Kind.ASSUMED, f"{provider}: {where}", text)


def _surcharge(rule: Mapping[str, Any], n: int, provider: str, calendar: Mapping[str, Any] | None) -> _Surcharge:
    """Raises KeyError, TypeError or ValueError where the rule is none."""
    kind = "off_peak" if "off_peak_hours_utc" in rule else "peak"
    zone_minutes = 60 * int(calendar["utc_offset_hours"]) if calendar is not None else 0
    holidays = frozenset(date.fromisoformat(day) for day in calendar["dates"]) if calendar is not None else frozenset()
    hours = _hours(rule[f"{kind}_hours_utc"], bool(rule.get("weekdays_only")), calendar is not None, zone_minutes)
    schedule = Schedule(f"{provider}-{kind.replace('_', '-')}-{n}", _zone(zone_minutes), hours, holidays)
    factors, until = rule[f"{kind}_multiplier"], rule.get("valid_until")
    factor = as_decimal(factors)
    if factor is None and not isinstance(factors, dict):
        raise ValueError(f"{factors!r} is no factor")
    return _Surcharge(
        provider,
        schedule,
        parse_instant_us(rule["valid_from"]),
        parse_instant_us(until) if until is not None else None,
        factors if factor is None else factor,
    )


def _hours(windows: Any, weekdays: bool, holidays: bool, zone_minutes: int) -> tuple[Hours, ...]:
    """Windows in UTC as hours of a fixed zone. Raises ValueError where a day of UTC is two of the zone's."""
    days = frozenset(range(5 if weekdays else 7)) | (frozenset() if holidays else frozenset({HOLIDAY}))
    found = []
    for begin, end in windows:
        first, last = (_minute(clock) + zone_minutes for clock in (begin, end))
        if (holidays or weekdays) and not 0 <= first <= last <= _MINUTES_A_DAY:
            raise ValueError(f"{begin} to {end} UTC crosses a midnight of its days")
        found.append(Hours(days, first % _MINUTES_A_DAY, last % _MINUTES_A_DAY or _MINUTES_A_DAY))
    return tuple(found)


def _minute(clock: str) -> int:
    hour, _, minute = clock.partition(":")
    return int(hour) * 60 + int(minute)


def _zone(offset_minutes: int) -> str:
    """The zone of a fixed offset; the names of these count westward."""
    return f"Etc/GMT{-offset_minutes // 60:+d}" if offset_minutes else "UTC"


# ---- The rest -----------------------------------------------------------------------------------------------------


def _tell_the_rest(root: Mapping[str, Any], collector: Collector) -> None:
    """What else the file holds, by name."""
    for plan in root.get("plans") or ():
        where = f"{plan.get('provider')}: plan {plan.get('id')}"
        collector.remark(Kind.LEFT_OUT, where, "a subscription by the month, no price of usage")
    aliases = as_mapping(root.get("aliases") or {}, "aliases").get("models") or {}
    for alias, model in aliases.items():
        collector.remark(Kind.LEFT_OUT, alias, f"another name for {model}; events must carry that one")
    for provider, bases in as_mapping(root.get("bases") or {}, "bases").items():
        for model, base in bases.items():
            text = f"another name for {provider}/{base}; events must carry that one"
            collector.remark(Kind.LEFT_OUT, f"{provider}/{model}", text)
    for estimate in root.get("estimates") or ():
        where = f"{estimate.get('provider')}/{estimate.get('model')}"
        collector.remark(Kind.LEFT_OUT, where, f"an estimate by {estimate.get('like')}, no price")
