"""models.dev's `api.json`: providers, their models, and a `cost` in USD for a million tokens each.

`cost.tiers` are prices of prompts above a size; `context_over_200k` is the older way to say so, and is read where there
are no tiers. `experimental.modes` are named ways to ask for a model that cost something else; the book has them as
service tiers. A tier that does not name a price leaves the one below in force. A model is called `provider/model`, as
two providers may sell the same one at two prices.

The dated history that is made of these files (`model-prices`) is `models_dev_history`.
"""

from collections.abc import Mapping
from typing import Any

from . import models_dev_history
from .collect import TOKENS, Collector, Kind, Names, Tiers
from .numbers import as_mapping

METERS = {
    "input": "input_tokens",
    "output": "output_tokens",
    "reasoning": "reasoning_tokens",
    "cache_read": "cached_input_tokens",
    "cache_write": "cache_write_tokens",
    "input_audio": "input_audio_tokens",
    "output_audio": "output_audio_tokens",
}
CONTEXT = ("input_audio_tokens",)
_OLD_EDGE = 200_000


def read(root: Any, where: str, collector: Collector) -> None:
    """Takes all prices of a file, of today or dated. Raises ConfigError if it is neither."""
    found = as_mapping(root, where)
    if models_dev_history.is_history(found):
        models_dev_history.read(found, where, collector)
        return
    providers = found.get("providers", found)
    for provider_id, value in as_mapping(providers, where).items():
        provider = as_mapping(value, f"{where}: {provider_id}")
        models = as_mapping(provider.get("models"), f"{where}: {provider_id}.models")
        for model_id, model in models.items():
            key = f"{provider_id}/{model_id}"
            name = collector.name(provider_id, key)
            if name is not None:
                _read_model(collector, key, name, as_mapping(model, f"{where}: {key}"))


def _read_model(collector: Collector, key: str, name: str, model: Mapping[str, Any]) -> None:
    cost = model.get("cost")
    if cost is None:
        collector.remark(Kind.LEFT_OUT, key, "has no price in the file")
        return
    _offer(collector, key, Names(name), as_mapping(cost, f"{key}: cost"))
    experimental = as_mapping(model.get("experimental") or {}, f"{key}: experimental")
    modes = as_mapping(experimental.get("modes") or {}, f"{key}: experimental.modes")
    for mode, value in modes.items():
        of_mode = as_mapping(value, f"{key}: {mode}").get("cost")
        if of_mode is not None:
            _offer(collector, f"{key} ({mode})", Names(name, mode), as_mapping(of_mode, f"{key} ({mode}): cost"))


def _offer(collector: Collector, key: str, names: Names, cost: Mapping[str, Any]) -> None:
    prices: dict[str, Tiers] = {}
    _take(collector, key, cost, 0, prices)
    tiers = cost.get("tiers")
    old = cost.get("context_over_200k")
    if isinstance(tiers, list):
        for n, tier in enumerate(tiers):
            place = f"{key}: tiers[{n}]"
            rule = as_mapping(as_mapping(tier, place).get("tier"), place)
            if rule.get("type", "context") != "context":
                collector.remark(Kind.LEFT_OUT, place, f"a tier by {rule['type']}, not by context")
            elif (edge := collector.whole(place, rule.get("size"))) is not None:
                _take(collector, place, tier, edge, prices)
    elif old is not None:
        _take(collector, f"{key}: context_over_200k", as_mapping(old, key), _OLD_EDGE, prices)
    offer_all(collector, key, names, collector.from_us, prices)


def _take(collector: Collector, place: str, cost: Mapping[str, Any], edge: int, prices: dict[str, Tiers]) -> None:
    for key, value in cost.items():
        if key in ("tiers", "tier", "context_over_200k") or value is None:
            continue
        if key not in METERS:
            collector.remark(Kind.LEFT_OUT, f"{place}: {key}", "no meter is known for it")
        elif (money := collector.money(f"{place}: {key}", value, TOKENS)) is not None:
            prices.setdefault(METERS[key], {})[edge] = money


def offer_all(collector: Collector, key: str, names: Names, from_us: int, prices: dict[str, Tiers]) -> None:
    """Offers a model's prices; reasoning is part of the output where it has none of its own."""
    if "output_tokens" in prices:
        prices.setdefault("reasoning_tokens", prices["output_tokens"])
    collector.count_as_context(names.model, [meter for meter in CONTEXT if meter in prices])
    for meter, tiers in prices.items():
        if 0 in tiers:
            collector.offer(names, meter, from_us, tiers)
        else:
            text = f"a price above {min(tiers):,} prompt tokens without one below"
            collector.remark(Kind.LEFT_OUT, f"{key}: {meter}", text)
