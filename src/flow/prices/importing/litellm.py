"""LiteLLM's `model_prices_and_context_window.json`: one object a model, a key a price, in USD for one unit.

A key is made of a base (`input_cost_per_token`), for cache writes how long the cache lives (`_above_1hr`), a number of
prompt tokens (`_above_200k_tokens`) and a service tier (`_priority`). LiteLLM takes a key without the tier where the
one with it is missing, and so does this: at a tier, too, contexts above an edge have the price of standard requests
there if the tier has none. Reasoning is part of the output where it has no price of its own.

Factors on token prices become prices: of a region (`regional_processing_uplift_multiplier_eu`, or `us` under
`provider_specific_entry`) for each service tier, and of the service tier `fast`.

The same file with only its token prices, as decimal text under `usd_per_token`, is read as well.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from .collect import TOKENS, Collector, Kind, Names, Tiers
from .numbers import as_decimal, as_mapping

_TOKEN_METERS = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "output_cost_per_reasoning_token": "reasoning_tokens",
    "cache_read_input_token_cost": "cached_input_tokens",
    "input_cost_per_token_cache_hit": "cached_input_tokens",
    "explicit_cache_read_input_token_cost": "explicit_cached_input_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "cache_creation_input_token_cost_above_12hr": "cache_write_12h_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
    "output_cost_per_audio_token": "output_audio_tokens",
    "cache_read_input_audio_token_cost": "cached_input_audio_tokens",
    "cache_read_input_token_cost_per_audio_token": "cached_input_audio_tokens",
    "cache_creation_input_audio_token_cost": "cache_write_audio_tokens",
    "input_cost_per_image_token": "input_image_tokens",
    "output_cost_per_image_token": "output_image_tokens",
    "cache_read_input_image_token_cost": "cached_input_image_tokens",
    "input_cost_per_video_token": "input_video_tokens",
    "output_cost_per_video_token": "output_video_tokens",
    "citation_cost_per_token": "citation_tokens",
}
_UNIT_METERS = {
    "input_cost_per_character": "input_characters",
    "output_cost_per_character": "output_characters",
    "input_cost_per_image": "input_images",
    "output_cost_per_image": "images",
    "input_cost_per_pixel": "input_pixels",
    "output_cost_per_pixel": "output_pixels",
    "input_cost_per_second": "audio_seconds",
    "output_cost_per_second": "output_seconds",
    "input_cost_per_audio_per_second": "input_audio_seconds",
    "output_cost_per_audio_per_second": "output_audio_seconds",
    "input_cost_per_video_per_second": "input_video_seconds",
    "output_cost_per_video_per_second": "output_video_seconds",
    "input_cost_per_query": "search_units",
    "input_cost_per_request": "requests",
    "ocr_cost_per_page": "documents_processed",
    "annotation_cost_per_page": "annotated_documents_processed",
    "code_interpreter_cost_per_session": "code_interpreter_sessions",
}
_OUTPUT_METERS = ("output", "reasoning", "citation")
_SERVICE_TIERS = {"batches": "batch"}
"""Where LiteLLM's word is not the one of requests."""

_KEY = re.compile(
    r"(?P<base>.+?(?:_above_\d+hr)?)(?:_above_(?P<edge>\d+)(?P<thousand>k?)_tokens)?"
    r"(?:_(?P<tier>batches|flex|priority|balanced|ultrafast|decisions|fast))?"
)
_IS_PRICE = re.compile(r"cost|price|pricing|dbu|multiplier|provider_specific_entry")
_STEPS = "tiered_pricing"
_UPLIFT = re.compile(r"regional_processing_uplift_multiplier_([a-z]{2})")
_ANYWHERE_UPLIFT = "regional_endpoint_uplift_multiplier"
_FACTORS = "provider_specific_entry"
_REGION = re.compile("[a-z]{2}")
_FAST = "fast"
_SEARCHES = "search_context_"
_SEARCH_SIZE = "search_context_size_"

_Prices = dict[tuple[str, str | None], Tiers]
"""Tiers by meter and service tier."""


def read(root: Any, where: str, collector: Collector) -> None:
    """Takes all prices of a file. Raises ConfigError if it is no such file."""
    models = as_mapping(root, where)
    if isinstance(models.get("models"), dict):
        models = models["models"]
    for key, value in models.items():
        if key == "sample_spec":  # LiteLLM's own explanation of the keys
            continue
        model = as_mapping(value, f"{where}: {key}")
        name = collector.name(str(model.get("litellm_provider", model.get("provider", ""))), key)
        if name is not None:
            _Model(collector, key, name).read(model)


class _Model:
    def __init__(self, collector: Collector, key: str, name: str) -> None:
        self._collector = collector
        self._key = key
        self._name = name
        self._prices: _Prices = defaultdict(dict)
        self._regions: dict[str, Decimal] = {}
        """What token prices are multiplied by in a region."""
        self._fast: Decimal | None = None
        """And at the service tier `fast`."""

    def read(self, model: Mapping[str, Any]) -> None:
        for key, value in _price_keys(model):
            if value is None:
                continue
            if key == _FACTORS:
                for name, factor in as_mapping(value, self._place(key)).items():
                    self._take_factor(f"{key}.{name}", name, factor)
            elif (uplift := _UPLIFT.fullmatch(key)) is not None:
                self._take_factor(key, uplift[1], value)
            elif key == _ANYWHERE_UPLIFT:
                self._leave(key, f"a factor of {value} in every region but global; a book names each region")
            else:
                self._take(key, value)
        if isinstance(steps := model.get(_STEPS), list):
            self._take_steps(steps)
        self._take_searches(model)
        self._offer()

    def _place(self, key: str) -> str:
        return f"{self._key}: {key}"

    def _leave(self, key: str, reason: str) -> None:
        self._collector.remark(Kind.LEFT_OUT, self._place(key), reason)

    def _take(self, key: str, value: Any) -> None:
        """One price of the file, to its meter, tier and edge."""
        match = _KEY.fullmatch(key)
        base = match["base"] if match is not None else key
        per_million = base in _TOKEN_METERS
        meter = _TOKEN_METERS.get(base) or _UNIT_METERS.get(base)
        if match is None or meter is None:
            self._leave(key, "no meter is known for it")
            return
        money = self._collector.money(self._place(key), value, 1, TOKENS if per_million else 1)
        if money is None:
            return
        tier = _SERVICE_TIERS.get(match["tier"], match["tier"])
        edge = int(match["edge"] or 0) * (1000 if match["thousand"] else 1)
        tiers = self._prices[meter, tier]
        if tiers.setdefault(edge, money) != money:
            self._leave(key, f"another key says {tiers[edge].price} for the same {meter}")

    def _take_factor(self, key: str, name: str, value: Any) -> None:
        """What all token prices of a region, or of a service tier, are multiplied by."""
        factor = as_decimal(value)
        if factor is None or factor <= 0:
            self._leave(key, f"{value!r} is no factor")
        elif name == _FAST:
            self._fast = factor
        elif _REGION.fullmatch(name):
            self._regions[name] = factor
        else:
            self._leave(key, "no region or service tier is known for it")

    def _take_steps(self, steps: list[Any]) -> None:
        """`tiered_pricing`: the whole request has the price of the range that its prompt falls in; the last one has no
        end."""
        ranges = [as_mapping(step, self._place(_STEPS)) for step in steps]
        if others := sorted({key for step in ranges for key in step if key.endswith("_range")}):
            self._leave(_STEPS, f"its prices go by {', '.join(others)}, which no event has")
            return
        for n, step in enumerate(ranges):
            bounds = step.get("range")
            low = bounds[0] if isinstance(bounds, list) and len(bounds) == 2 else bounds
            edge = self._collector.whole(self._place(f"{_STEPS}[{n}].range"), low)
            if edge is None:
                continue
            for key, price in step.items():
                self._take_step(f"{_STEPS}[{n}].{key}", key, price, edge)

    def _take_step(self, place: str, key: str, price: Any, edge: int) -> None:
        if key == "range":
            return
        if key not in _TOKEN_METERS:
            self._leave(place, "no meter is known for it")
            return
        money = self._collector.money(self._place(place), price, 1)
        if money is None:
            return
        tiers = self._prices[_TOKEN_METERS[key], None]
        if tiers.get(edge, money) != money:
            # LiteLLM reads the ranges where a model has both.
            self._leave(key, f"the range from {edge} on says {money.price} per million")
        tiers[edge] = money

    def _take_searches(self, model: Mapping[str, Any]) -> None:
        """A search costs the same for every size of its context, or each size is a meter."""
        key = next((key for key in model if key.startswith(_SEARCHES)), None)
        if key is None or model[key] is None:
            return
        found = as_mapping(model[key], self._place(key))
        prices = {
            size: money
            for size, price in found.items()
            if (money := self._collector.money(self._place(f"{key}.{size}"), price, 1, 1)) is not None
        }
        if len(set(prices.values())) == 1:
            self._prices["web_search_requests", None][0] = next(iter(prices.values()))
            return
        for size, money in prices.items():
            self._prices[f"web_search_{size.removeprefix(_SEARCH_SIZE)}_requests", None][0] = money

    def _offer(self) -> None:
        """Every meter at every service tier that has a price of its own, with what the standard one says where it says
        nothing."""
        for meter, tier in list(self._prices):
            own = self._prices[meter, tier]
            self._prices[meter, tier] = {**self._prices.get((meter, None), {}), **own}
            if tier is not None:
                self._tell_borrowed(meter, tier, own)
        if not any(meter == "reasoning_tokens" for meter, _ in self._prices):
            of_output = [(tier, tiers) for (meter, tier), tiers in self._prices.items() if meter == "output_tokens"]
            self._prices.update({("reasoning_tokens", tier): tiers for tier, tiers in of_output})
        of_input = [meter for meter, _ in self._prices if meter.endswith("_tokens")]
        context = [meter for meter in of_input if not meter.startswith(_OUTPUT_METERS)]
        self._collector.count_as_context(self._name, context)
        offered: _Prices = defaultdict(dict)
        for (meter, tier), tiers in self._prices.items():
            if 0 in tiers:
                offered[meter, tier] = tiers
            else:
                self._leave(meter, f"a price above {min(tiers):,} prompt tokens without one below")
        self._offer_fast(offered)
        for (meter, tier), tiers in offered.items():
            self._collector.offer(Names(self._name, tier), meter, self._collector.from_us, tiers)
        for region, factor in self._regions.items():
            self._offer_region(offered, region, factor)

    def _offer_fast(self, offered: _Prices) -> None:
        """Prices of the service tier `fast`, where the file has a factor for it and no price."""
        if self._fast is None:
            return
        of_tokens = [meter for meter, tier in offered if tier is None and meter.endswith("_tokens")]
        for meter in of_tokens:
            scaled = self._scaled(f"{meter}, {_FAST}", offered[meter, None], self._fast)
            if scaled is not None:
                offered.setdefault((meter, _FAST), scaled)

    def _offer_region(self, offered: _Prices, region: str, factor: Decimal) -> None:
        """The prices of a region at every service tier: all of a meter, for a row that names the region alone would
        tie with one that names a tier alone."""
        for meter in sorted({meter for meter, _ in offered if meter.endswith("_tokens")}):
            of_meter = {tier: tiers for (name, tier), tiers in offered.items() if name == meter}
            scaled = {
                tier: self._scaled(f"{meter}, {tier or 'standard'}, {region}", tiers, factor)
                for tier, tiers in of_meter.items()
            }
            if all(tiers is not None for tiers in scaled.values()):
                for tier, tiers in scaled.items():
                    names = Names(self._name, tier, region)
                    self._collector.offer(names, meter, self._collector.from_us, tiers)

    def _scaled(self, place: str, tiers: Tiers, factor: Decimal) -> Tiers | None:
        """The tiers times a factor; None where one of them does not go into a book, which is said."""
        found = {edge: self._collector.scaled(self._place(place), money, factor) for edge, money in tiers.items()}
        whole = {edge: money for edge, money in found.items() if money is not None}
        return whole if len(whole) == len(found) else None

    def _tell_borrowed(self, meter: str, tier: str, own: Tiers) -> None:
        borrowed = sorted(self._prices[meter, tier].keys() - own.keys())
        for edge in borrowed:
            of = f"{meter} above {edge:,} prompt tokens" if edge else meter
            text = f"no {tier} price of {of}; the standard one holds there"
            self._collector.remark(Kind.ASSUMED, self._place(meter), text)


def _price_keys(model: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The keys of a model that are prices, but for those with a form of their own."""
    of_tokens = model.get("usd_per_token")
    for key, value in (of_tokens if isinstance(of_tokens, dict) else model).items():
        if _IS_PRICE.search(key) and key != _STEPS and not key.startswith(_SEARCHES):
            yield key, value
