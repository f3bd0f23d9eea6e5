"""Pydantic's genai-prices: `data.json` and `data_slim.json` of its versions 1 to 3.

A list of providers (version 3: under `providers`, beside `units`), each with models, and a model with `prices`: one
object of prices, or a list of them of which the last one whose constraint holds is in force, and the first one where
none does. A price has a key such as `input_mtok`, and is a number of USD or `{base, tiers}`: the tier that the input of
the request is above holds for the whole of it. `price_variants` go before these, key by key, for requests of a service
tier; of several that hold, the first one in the list does.

By the definition of that file a usage that has no price of its own has that of the usage it is part of: cached input is
input, reasoning is output. The book is given these for the standard meters, which it does not derive from each other.

A model is found there by patterns, the first one of the provider that matches, in small letters; in the book it has its
id, the names that a pattern gives in full, and those of the names in use (`--names`) for which it is found.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ...errors import ConfigError
from ..price import Hours, Schedule
from ..schedules import overlap
from .collect import TOKENS, Collector, Kind, Names, Tiers
from .numbers import as_mapping

_UNITS = {
    "mtok": ("tokens", TOKENS),
    "mchars": ("characters", TOKENS),
    "kcount": ("", 1_000),
    "gpixels": ("pixels", 1_000_000_000),
    "kpages": ("pages", 1_000),
    "minutes": ("seconds", 60),
    "hours": ("seconds", 3_600),
}
"""The last part of a price's key, where the file has no `units`: what it counts, and how many the price is for."""
_KEY = re.compile(rf"([a-z0-9_]+)_({'|'.join(_UNITS)})")
_METERS = {
    "cache_read_tokens": "cached_input_tokens",
    "cache_text_read_tokens": "cached_input_text_tokens",
    "cache_audio_read_tokens": "cached_input_audio_tokens",
    "cache_image_read_tokens": "cached_input_image_tokens",
    "cache_video_read_tokens": "cached_input_video_tokens",
    "input_tool_tokens": "tool_input_tokens",
    "output_reasoning_tokens": "reasoning_tokens",
    "output_citation_tokens": "citation_tokens",
    "web_searches": "web_search_requests",
    "rerank_searches": "search_units",
    "input_document_pages": "documents_processed",
}
"""Usages whose meter has another name."""
_PARTS = {
    "cached_input_tokens": "input_tokens",
    "cache_write_tokens": "input_tokens",
    "reasoning_tokens": "output_tokens",
}
"""Standard meters, and what each is part of."""
_TIER_NAMES = {"service_tier", "processing", "speed"}
_OUTPUT_METERS = ("output", "reasoning", "citation")
_CLOCK = re.compile(r"(\d\d):(\d\d)(?::00)?(?:\.0+)?(?:Z|\+00:00)?")

_Prices = dict[str, Tiers]
_Units = Mapping[str, tuple[str, int]]
"""The usage that a price's key counts, and how many the price is for."""


def read(root: Any, where: str, collector: Collector) -> None:
    """Takes all prices of a file. Raises ConfigError if it is no such file."""
    providers = root.get("providers") if isinstance(root, dict) else root
    if not isinstance(providers, list):
        raise ConfigError(f"{where}: a list of providers is expected; is the file of this format?")
    known: set[str | None] = set()
    units = _units(as_mapping(root.get("units") or {}, f"{where}: units")) if isinstance(root, dict) else {}
    for n, value in enumerate(providers):
        provider = as_mapping(value, f"{where}: [{n}]")
        provider_id, models = str(provider.get("id")), provider.get("models")
        if not isinstance(models, list):
            raise ConfigError(f"{where}: {provider_id}: a list of models is expected")
        models = [as_mapping(model, f"{where}: {provider_id}") for model in models]
        in_use = _in_use(collector.in_use_of(provider_id), models)
        known |= {collector.name(provider_id, f"{provider_id}/{name}") for names in in_use for name in names}
        for model, names in zip(models, in_use, strict=True):
            _read_model(collector, units, provider_id, model, names)
    for name in sorted(collector.in_use - known):
        collector.remark(Kind.LEFT_OUT, name, "is in use, and no pattern of the file stands for it")


def _units(table: Mapping[str, Any]) -> _Units:
    """What the file itself says of its keys."""
    found = {}
    for usage, value in table.items():
        unit = as_mapping(value, f"units: {usage}")
        if isinstance(per := unit.get("per"), int):
            found[str(unit.get("price_key", usage))] = (usage, per)
    return found


def _in_use(names: Iterable[str], models: Sequence[Mapping[str, Any]]) -> list[set[str]]:
    """For each model of a provider, those of the names that it is found by."""
    found: list[set[str]] = [set() for _ in models]
    for name in names:
        for number, model in enumerate(models):
            if _matches(model.get("match"), name.lower()):
                found[number].add(name)
                break
    return found


def _matches(match: Any, name: str) -> bool:
    """Whether a pattern stands for a name in small letters."""
    kind, value = next(iter(match.items())) if isinstance(match, dict) and match else ("", "")
    if isinstance(value, list):
        found = [_matches(one, name) for one in value]
        return any(found) if kind == "or" else kind == "and" and all(found)
    text = str(value).lower()
    if kind == "regex":
        try:
            return re.search(str(value), name) is not None
        except re.error:  # whose model keeps its id; the pattern is told with those that no book can hold
            return False
    return (
        (kind == "equals" and name == text)
        or (kind == "starts_with" and name.startswith(text))
        or (kind == "ends_with" and name.endswith(text))
        or (kind == "contains" and text in name)
    )


def _read_model(
    collector: Collector, units: _Units, provider: str, model: Mapping[str, Any], in_use: Collection[str]
) -> None:
    key = f"{provider}/{model.get('id')}"
    exact, patterns = _names(model.get("match"))
    own = sorted({str(model.get("id")), *exact, *in_use})
    found = [collector.name(provider, f"{provider}/{name}") for name in own]
    names = [name for name in found if name is not None]
    if not names:
        return
    if patterns:
        collector.remark(
            Kind.LEFT_OUT,
            key,
            f"stands for names by {', '.join(patterns)} as well; a book has whole names: give those in use by --names",
        )
    for name in names:
        # What is said of a model is said once, though it has several names.
        into = collector if name == names[0] else collector.silent()
        _Model(into, units, key, name).read(model)


def _names(match: Any) -> tuple[set[str], list[str]]:
    """The names that a pattern gives in full, and what else it would match."""
    if not isinstance(match, dict) or not match:
        return set(), []
    kind, value = next(iter(match.items()))
    if kind == "equals":
        return {str(value)}, []
    if kind == "or" and isinstance(value, list):
        exact: set[str] = set()
        patterns: list[str] = []
        for one in value:
            names, others = _names(one)
            exact |= names
            patterns += others
        return exact, patterns
    return set(), [f"{kind} {value!r}"]


class _Model:
    def __init__(self, collector: Collector, units: _Units, key: str, name: str) -> None:
        self._collector = collector
        self._units = units
        self._key = key
        self._name = name
        self._own: set[str] = set()
        """Meters that have a price of their own among the standard prices."""

    def read(self, model: Mapping[str, Any]) -> None:
        prices = model.get("prices")
        self._offer(prices if isinstance(prices, list) else [{"prices": prices or {}}])
        steps: dict[tuple[str, str], list[tuple[int, Tiers]]] = {}
        # Backwards, so that what is taken later goes before what was taken earlier.
        for n, value in reversed(list(enumerate(model.get("price_variants") or ()))):
            variant, place = as_mapping(value, self._key), f"price_variants[{n}]"
            tier = self._tier(place, as_mapping(variant.get("when") or {}, self._key))
            from_us = self._start_us(place, as_mapping(variant.get("constraint") or {}, self._key))
            if tier is None or from_us is None:
                continue
            for meter, tiers in self._prices(place, as_mapping(variant.get("prices") or {}, self._key), tier).items():
                earlier = [step for step in steps.get((tier, meter), ()) if step[0] < from_us]
                steps[tier, meter] = [*earlier, (from_us, tiers)]
        for (tier, meter), of_meter in steps.items():
            for from_us, tiers in of_meter:
                self._collector.offer(Names(self._name, tier), meter, from_us, tiers)

    def _tier(self, place: str, when: Mapping[str, Any]) -> str | None:
        """The service tier that a variant is for, under whatever name the provider has for such a choice."""
        found = next(iter(when.values())) if len(when) == 1 and when.keys() <= _TIER_NAMES else None
        if isinstance(found, str):
            return found
        told = ", ".join(f"{key}: {value}" for key, value in when.items())
        self._leave(place, f"is for {{{told}}}, which is no service tier")
        return None

    def _leave(self, place: str, reason: str) -> None:
        self._collector.remark(Kind.LEFT_OUT, f"{self._key}: {place}", reason)

    def _offer(self, entries: Sequence[Any]) -> None:
        """The entries of one list; a later one goes before an earlier one."""
        always: list[tuple[int, _Prices]] = []
        hours: list[tuple[Schedule, _Prices]] = []
        is_dated = any("start_date" in (as_mapping(entry, self._key).get("constraint") or {}) for entry in entries)
        for n, entry in enumerate(entries):
            place = f"prices[{n}]" if len(entries) > 1 else "prices"
            constraint = as_mapping(entry.get("constraint") or {}, self._key)
            prices = self._prices(place, as_mapping(entry.get("prices") or {}, self._key), None)
            if n == 0:  # holds where no constraint does, its own one as well
                always.append((0 if is_dated else self._collector.from_us, prices))
            elif "start_time" in constraint:
                schedule = self._schedule(place, constraint)
                if schedule is not None and any(overlap(schedule, other) for other, _ in hours):
                    self._leave(place, "its hours overlap with others")
                elif schedule is not None:
                    hours.append((schedule, prices))
            elif hours:
                self._leave(place, "goes before hours of the day, which a book cannot say")
            elif (from_us := self._start_us(place, constraint)) is not None:
                always = [entry for entry in always if entry[0] < from_us]
                always.append((from_us, prices))
        self._offer_all(Names(self._name), always, hours)

    def _offer_all(
        self, names: Names, always: list[tuple[int, _Prices]], hours: list[tuple[Schedule, _Prices]]
    ) -> None:
        seen: set[str] = set()
        for from_us, prices in always:
            for meter in seen - prices.keys():
                self._collector.offer(names, meter, from_us, None)
            self._offer_prices(names, from_us, prices, None)
            seen |= prices.keys()
        for schedule, prices in hours:
            self._offer_prices(names, always[0][0], prices, schedule)
            for meter in sorted(seen - prices.keys()):
                self._leave(f"{schedule.name}, {meter}", "has no price in these hours, which a book cannot say")

    def _offer_prices(self, names: Names, from_us: int, prices: _Prices, schedule: Schedule | None) -> None:
        of_tokens = [meter for meter in prices if meter.endswith("_tokens") and not meter.startswith(_OUTPUT_METERS)]
        self._collector.count_as_context(names.model, of_tokens)
        for meter, tiers in prices.items():
            self._collector.offer(names, meter, from_us, tiers, schedule)

    def _prices(self, place: str, prices: Mapping[str, Any], tier: str | None) -> _Prices:
        """By meter. A part of a usage has the price of the whole, unless the standard prices give it one of its own."""
        found: _Prices = {}
        for key, value in prices.items():
            if value is None:
                continue
            if (unit := self._unit(key)) is None:
                self._leave(f"{place}.{key}", "no meter is known for it")
                continue
            usage, per = unit
            tiers = self._tiers(f"{place}.{key}", value, per)
            if 0 in tiers:
                found[_METERS.get(usage, usage)] = tiers
        if tier is None:
            self._own |= found.keys()
        for meter, whole in _PARTS.items():
            if whole in found and meter not in self._own:
                found.setdefault(meter, found[whole])
        return found

    def _unit(self, key: str) -> tuple[str, int] | None:
        match = _KEY.fullmatch(key)
        if key in self._units or match is None:
            return self._units.get(key)
        counted, per = _UNITS[match[2]]
        return (f"{match[1]}_{counted}" if counted else match[1]), per

    def _tiers(self, place: str, value: Any, per: int) -> Tiers:
        tiers: Tiers = {}
        parts: list[tuple[Any, Any]] = [(0, value)]
        if isinstance(value, dict):
            steps = [as_mapping(step, f"{self._key}: {place}") for step in value.get("tiers") or ()]
            parts = [(0, value.get("base")), *((step.get("start"), step.get("price")) for step in steps)]
        for start, price in parts:
            edge = self._collector.whole(f"{self._key}: {place}", start)
            money = self._collector.money(f"{self._key}: {place}", price, per, per)
            if edge is not None and money is not None:
                tiers[edge] = money
        return tiers

    def _start_us(self, place: str, constraint: Mapping[str, Any]) -> int | None:
        """Since when an entry holds; dates are days of UTC."""
        if not constraint:
            return self._collector.from_us
        try:
            start = datetime.strptime(str(constraint.get("start_date")), "%Y-%m-%d").replace(tzinfo=UTC)
        except ValueError:
            self._leave(place, f"its constraint is not known here: {', '.join(constraint)}")
            return None
        return (start - datetime(1970, 1, 1, tzinfo=UTC)).days * 86_400_000_000

    def _schedule(self, place: str, constraint: Mapping[str, Any]) -> Schedule | None:
        clocks = [_CLOCK.fullmatch(str(constraint.get(key))) for key in ("start_time", "end_time")]
        begin, end = (int(clock[1]) * 60 + int(clock[2]) if clock is not None else None for clock in clocks)
        if begin is None or end is None or begin == end:
            self._leave(place, "its hours are no whole minutes of UTC")
            return None
        name = f"utc-{begin // 60:02d}{begin % 60:02d}-{end // 60:02d}{end % 60:02d}"
        return Schedule(name, "UTC", (Hours(frozenset(range(8)), begin, end),), frozenset())
