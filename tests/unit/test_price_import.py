"""Price files of each format, made up and small: what they become, and what is said of the rest."""

import json
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.errors import ConfigError
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.prices.importing.collect import Imported
from flow.prices.importing.formats import Format, import_file
from flow.prices.importing.write import book_text
from flow.prices.price import PROMPT

EVER = "1970-01-01T00:00:00Z"


def imported(tmp_path: Path, format_: Format, root: Any, **options: Any) -> Imported:
    file = tmp_path / "prices.json"
    file.write_text(root if isinstance(root, str) else json.dumps(root))
    return import_file(format_, file, **options)


def rows(found: Imported) -> list[str]:
    """The rows of the book, without what all of them say; the whole book is read as well."""
    text = book_text(found, "a test")
    assert len(parse_price_book(text, "book.yaml").prices) == len(found.prices)
    lines = [line.strip().removeprefix("- {").removesuffix("}") for line in text.splitlines() if line[:4] == "  - "]
    return [line.replace(f"from: {EVER}, ", "").replace("per: 1_000_000, ", "").replace('"', "") for line in lines]


def remarks(found: Imported, kind: str) -> list[str]:
    return [f"{remark.where}: {remark.text}" for remark in found.remarks if remark.kind == kind]


# ---- LiteLLM ----


def litellm(tmp_path: Path, model: dict[str, Any], **options: Any) -> Imported:
    root = {"sample_spec": {"input_cost_per_token": "say so"}, "m": {"litellm_provider": "p", **model}}
    return imported(tmp_path, Format.LITELLM, root, **options)


def test_litellm_token_prices(tmp_path: Path) -> None:
    found = litellm(
        tmp_path,
        {
            "mode": "chat",
            "max_tokens": 8192,
            "input_cost_per_token": 2.5e-06,
            "output_cost_per_token": 1e-05,
            "cache_read_input_token_cost": 1.25e-06,
            "cache_creation_input_token_cost_above_1hr": 5e-06,
            "input_cost_per_audio_token": None,
            "search_context_cost_per_query": {
                "search_context_size_low": 0.01,
                "search_context_size_medium": 0.01,
                "search_context_size_high": 0.01,
            },
        },
    )
    assert rows(found) == [
        "model: m, meter: cache_write_1h_tokens, price: 5",
        "model: m, meter: cached_input_tokens, price: 1.25",
        "model: m, meter: input_tokens, price: 2.5",
        "model: m, meter: output_tokens, price: 10",
        "model: m, meter: reasoning_tokens, price: 10",
        "model: m, meter: web_search_requests, per: 1, price: 0.01",
    ]
    assert found.remarks == []


def test_litellm_tiers_of_context_and_of_service(tmp_path: Path) -> None:
    found = litellm(
        tmp_path,
        {
            "input_cost_per_token": 1e-06,
            "input_cost_per_token_above_200k_tokens": 2e-06,
            "input_cost_per_token_fast": 3e-06,
            "input_cost_per_token_batches": 0,
            "input_cost_per_token_above_200k_tokens_batches": 1e-06,
            "explicit_cache_read_input_token_cost": 4e-06,
            "output_cost_per_token_above_200k_tokens": 5e-06,
        },
    )
    above = "above: [{above: 200_000, price:"
    of_all = f"context: [{', '.join(sorted((*PROMPT, 'explicit_cached_input_tokens')))}]"
    assert rows(found) == [
        "model: m, meter: explicit_cached_input_tokens, price: 4",
        f"model: m, meter: input_tokens, price: 1, {above} 2}}], {of_all}",
        f"model: m, service_tier: batch, meter: input_tokens, free: true, {above} 1}}], {of_all}",
        f"model: m, service_tier: fast, meter: input_tokens, price: 3, {above} 2}}], {of_all}",
    ]
    assert remarks(found, "assumed") == [
        "m: input_tokens: no fast price of input_tokens above 200,000 prompt tokens; the standard one holds there"
    ]
    assert remarks(found, "left out") == [
        "m: output_tokens: a price above 200,000 prompt tokens without one below",
        "m: reasoning_tokens: a price above 200,000 prompt tokens without one below",
    ]


def test_litellm_factors_of_regions_and_of_fast_requests(tmp_path: Path) -> None:
    found = litellm(
        tmp_path,
        {
            "input_cost_per_token": 5e-06,
            "input_cost_per_token_above_200k_tokens": 1e-05,
            "input_cost_per_token_batches": 2.5e-06,
            "cache_read_input_token_cost": 1e-15,
            "input_cost_per_image": 0.1,
            "regional_processing_uplift_multiplier_eu": 1.10,
            "regional_endpoint_uplift_multiplier": 1.1,
            "provider_specific_entry": {"us": 1.2, "fast": 6.0, "moon": 2, "de": 0},
        },
    )
    low, high = "price: {}", "above: [{{above: 200_000, price: {}}}]"

    def row(names: str, one: str, other: str) -> str:
        return f"model: m, {names}meter: input_tokens, {low.format(one)}, {high.format(other)}"

    assert [text for text in rows(found) if "meter: input_tokens" in text] == [
        row("", "5", "10"),
        row("region: eu, ", "5.5", "11"),
        row("region: us, ", "6", "12"),
        row("service_tier: batch, ", "2.5", "10"),
        row("service_tier: batch, region: eu, ", "2.75", "11"),
        row("service_tier: batch, region: us, ", "3", "12"),
        row("service_tier: fast, ", "30", "60"),
        row("service_tier: fast, region: eu, ", "33", "66"),
        row("service_tier: fast, region: us, ", "36", "72"),
    ]
    assert [text for text in rows(found) if "meter: input_tokens" not in text] == [
        "model: m, meter: cached_input_tokens, price: 0.000000001",
        "model: m, meter: input_images, per: 1, price: 0.1",
        "model: m, service_tier: fast, meter: cached_input_tokens, price: 0.000000006",
    ]
    assert remarks(found, "left out") == [
        "m: regional_endpoint_uplift_multiplier: a factor of 1.1 in every region but global; a book names each region",
        "m: provider_specific_entry.moon: no region or service tier is known for it",
        "m: provider_specific_entry.de: 0 is no factor",
        "m: cached_input_tokens, standard, eu: 0.000000001 times 1.1 is finer than 10^-15 a unit",
        "m: cached_input_tokens, fast, eu: 0.000000006 times 1.1 is finer than 10^-15 a unit",
        "m: cached_input_tokens, standard, us: 0.000000001 times 1.2 is finer than 10^-15 a unit",
        "m: cached_input_tokens, fast, us: 0.000000006 times 1.2 is finer than 10^-15 a unit",
    ]


def test_litellm_ranges(tmp_path: Path) -> None:
    steps = [
        {"range": [0, 32000.0], "input_cost_per_token": 1e-06, "output_cost_per_reasoning_token": 4e-06},
        {"range": [32000.0, 128000.0], "input_cost_per_token": 2e-06, "output_cost_per_reasoning_token": 8e-06},
    ]
    found = litellm(tmp_path, {"tiered_pricing": steps, "output_cost_per_token": 3e-06})
    assert rows(found) == [
        "model: m, meter: input_tokens, price: 1, above: [{above: 32_000, price: 2}]",
        "model: m, meter: output_tokens, price: 3",
        "model: m, meter: reasoning_tokens, price: 4, above: [{above: 32_000, price: 8}]",
    ]


def test_litellm_noise_is_said_and_what_does_not_fit_is_named(tmp_path: Path) -> None:
    found = litellm(
        tmp_path,
        {
            "input_cost_per_token": 2.0000000000000002e-07,
            "output_cost_per_token": 1.142857142857143e-06,
            "cache_read_input_token_cost": "1.00000001234567890123e-7",
            "input_cost_per_image": -1,
            "output_cost_per_image": "free",
            "input_cost_per_second": 1e30,
            "input_dbu_cost_per_token": 1e-06,
            "input_cost_per_token_cache_hit": 1e-06,
            "tiered_pricing": [{"max_results_range": [0, 25], "input_cost_per_query": 0.005}],
            "search_context_cost_per_query": {"search_context_size_low": 0.01, "search_context_size_high": 0.02},
        },
    )
    assert rows(found) == [
        "model: m, meter: cached_input_tokens, price: 1",
        "model: m, meter: input_tokens, price: 0.2",
        "model: m, meter: output_tokens, per: 7_000_000, price: 8",
        "model: m, meter: reasoning_tokens, per: 7_000_000, price: 8",
        "model: m, meter: web_search_high_requests, per: 1, price: 0.02",
        "model: m, meter: web_search_low_requests, per: 1, price: 0.01",
    ]
    assert remarks(found, "snapped") == [
        "m: input_cost_per_token: 2.0000000000000002E-7 is 0.0000002 with the noise of a binary float",
        "m: output_cost_per_token: 0.000001142857142857143 is 0.000008 / 7 with the noise of a binary float",
    ]
    assert remarks(found, "left out") == [
        "m: cache_read_input_token_cost: 1.00000001234567890123e-7 is finer than 10^-15 a unit",
        "m: input_cost_per_image: -1 is negative",
        "m: output_cost_per_image: 'free' is no number",
        "m: input_cost_per_second: 1E+30 is more than can be rated",
        "m: input_dbu_cost_per_token: no meter is known for it",
        "m: tiered_pricing: its prices go by max_results_range, which no event has",
    ]


def test_litellm_two_keys_for_one_price(tmp_path: Path) -> None:
    found = litellm(tmp_path, {"cache_read_input_token_cost": 1e-06, "input_cost_per_token_cache_hit": 2e-06})
    assert rows(found) == ["model: m, meter: cached_input_tokens, price: 1"]
    assert remarks(found, "left out") == [
        "m: input_cost_per_token_cache_hit: another key says 1 for the same cached_input_tokens"
    ]


def test_one_provider_by_its_own_names(tmp_path: Path) -> None:
    root = {
        "azure/m": {"litellm_provider": "azure", "input_cost_per_token": "1e-6"},
        "n": {"litellm_provider": "other", "input_cost_per_token": "1e-6"},
    }
    found = imported(tmp_path, Format.LITELLM, root, provider="azure", from_us=1_700_000_000_000_000)
    assert rows(found) == ["model: m, meter: input_tokens, from: 2023-11-14T22:13:20Z, price: 1"]


# ---- models.dev ----


def test_models_dev(tmp_path: Path) -> None:
    cost = {
        "input": 2,
        "output": 8.0,
        "cache_read": 0.2,
        "tiers": [{"tier": {"type": "context", "size": 272000}, "input": 4, "output": 12}],
        "context_over_200k": {"input": 4, "output": 12},
    }
    fast = {"cost": {"input": 5, "output": 20, "per_minute": 1}, "provider": {"body": {"service_tier": "priority"}}}
    root = {
        "p": {"models": {"m": {"cost": cost, "experimental": {"modes": {"fast": fast}}}, "none": {}}},
        "q": {"models": {"m": {"cost": {"input": 1, "output": 0, "reasoning": 3, "context_over_200k": {"input": 2}}}}},
    }
    found = imported(tmp_path, Format.MODELS_DEV, root)
    assert rows(found) == [
        "model: p/m, meter: cached_input_tokens, price: 0.2",
        "model: p/m, meter: input_tokens, price: 2, above: [{above: 272_000, price: 4}]",
        "model: p/m, meter: output_tokens, price: 8, above: [{above: 272_000, price: 12}]",
        "model: p/m, meter: reasoning_tokens, price: 8, above: [{above: 272_000, price: 12}]",
        "model: p/m, service_tier: fast, meter: input_tokens, price: 5",
        "model: p/m, service_tier: fast, meter: output_tokens, price: 20",
        "model: p/m, service_tier: fast, meter: reasoning_tokens, price: 20",
        "model: q/m, meter: input_tokens, price: 1, above: [{above: 200_000, price: 2}]",
        "model: q/m, meter: output_tokens, free: true",
        "model: q/m, meter: reasoning_tokens, price: 3",
    ]
    assert remarks(found, "left out") == [
        "p/m (fast): per_minute: no meter is known for it",
        "p/none: has no price in the file",
    ]


def history(prices: Any, **rest: Any) -> dict[str, Any]:
    return {"schema": 1, "models_dev": {}, "prices": {"p": {"m": prices}}, **rest}


def test_history_becomes_instants(tmp_path: Path) -> None:
    first = {"input": 2, "output": 8, "source": "s", "valid_from": "2025-01-01T00:00:00Z"}
    second = {"input": 1.0, "output": 8, "cache_read": 0.1, "tiers": [{"above": 100, "input": 3}], "model": "n"}
    modes = {
        "standard": [
            {"start": None, "rates": first},
            {"start": "2026-01-01T00:00:00Z", "rates": {**first, "source": "t"}},
            {"start": "2026-02-01T00:00:00Z", "rates": second},
            {"start": "2026-03-01T00:00:00Z", "rates": None},
        ],
        "batch": [
            {"start": None, "rates": None},
            {"start": "2026-02-01T00:00:00Z", "rates": {"input": 0.30000000000000004, "output": 4}},
        ],
    }
    root = history(modes, plans=[{"provider": "p", "id": "pro"}], aliases={"models": {"x": "p/m"}})
    found = imported(tmp_path, Format.MODELS_DEV, root)
    above = "above: [{above: 100, price: 3}]"
    february, march = "from: 2026-02-01T00:00:00Z", "from: 2026-03-01T00:00:00Z"
    assert rows(found) == [
        "model: p/m, meter: cache_write_tokens, price: 2",
        f"model: p/m, meter: cache_write_tokens, {february}, price: 1, {above}",
        f"model: p/m, meter: cache_write_tokens, {march}, withdrawn: true",
        "model: p/m, meter: cached_input_tokens, price: 2",
        f"model: p/m, meter: cached_input_tokens, {february}, price: 0.1",
        f"model: p/m, meter: cached_input_tokens, {march}, withdrawn: true",
        "model: p/m, meter: input_tokens, price: 2",
        f"model: p/m, meter: input_tokens, {february}, price: 1, {above}",
        f"model: p/m, meter: input_tokens, {march}, withdrawn: true",
        "model: p/m, meter: output_tokens, price: 8",
        f"model: p/m, meter: output_tokens, {march}, withdrawn: true",
        "model: p/m, meter: reasoning_tokens, price: 8",
        f"model: p/m, meter: reasoning_tokens, {march}, withdrawn: true",
        f"model: p/m, service_tier: batch, meter: cache_write_tokens, {february}, price: 0.3",
        f"model: p/m, service_tier: batch, meter: cached_input_tokens, {february}, price: 0.3",
        f"model: p/m, service_tier: batch, meter: input_tokens, {february}, price: 0.3",
        f"model: p/m, service_tier: batch, meter: output_tokens, {february}, price: 4",
        f"model: p/m, service_tier: batch, meter: reasoning_tokens, {february}, price: 4",
    ]
    assert remarks(found, "left out") == [
        "p: plan pro: a subscription by the month, no price of usage",
        "x: another name for p/m; events must carry that one",
    ]


def test_history_one_hour_cache_writes_are_a_multiple_of_the_input(tmp_path: Path) -> None:
    rates = {"input": 0.8, "output": 4, "cache_write": 1, "cache_write_1h_multiple": 2.5}
    tiers = [{"above": 200, "input": 1.6}]
    found = imported(
        tmp_path, Format.MODELS_DEV, history({"standard": [{"start": None, "rates": {**rates, "tiers": tiers}}]})
    )
    assert "model: p/m, meter: cache_write_1h_tokens, price: 2, above: [{above: 200, price: 4}]" in rows(found)


def cost(book: PriceBook, instant: str, **dims: str) -> Fraction | None:
    """What an input token of p/m costs at an instant, in USD for a million."""
    time_us = (datetime.fromisoformat(instant) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    event = Event(time_us, (("input_tokens", 1_000_000),), {"model": "p/m", **dims})
    amount = rate_event(book.prices, book.unbilled, event)[0][2]
    return None if amount is None else amount / 10**15


def test_history_schedules(tmp_path: Path) -> None:
    night = {
        "provider": "p",
        "off_peak_hours_utc": [["16:30", "00:30"]],
        "off_peak_multiplier": {"m": 0.25},
        "valid_from": "2025-02-26T16:30:00Z",
        "valid_until": "2025-09-05T16:00:00Z",
    }
    peak = {
        "provider": "p",
        "holidays": "cn",
        "peak_hours_utc": [["01:00", "04:00"], ["06:00", "10:00"]],
        "peak_multiplier": 2.0,
        "weekdays_only": True,
        "valid_from": "2026-08-16T16:00:00Z",
    }
    wrong = {**peak, "peak_hours_utc": [["12:00", "20:00"]], "valid_from": "2027-01-01T00:00:00Z"}
    calendar = {"covers_through": "2026-12-31", "dates": ["2026-10-01"], "utc_offset_hours": 8}
    prices = {
        "standard": [
            {"start": None, "rates": {"input": 1, "output": 8}},
            {"start": "2025-09-05T16:00:00Z", "rates": {"input": 4, "output": 8}},
        ]
    }
    root = history(prices, schedules={"schedule": [night, peak, wrong, {}], "holidays": {"cn": calendar}})
    found = imported(tmp_path, Format.MODELS_DEV, root)
    book = parse_price_book(book_text(found, "a test"), "book.yaml")
    expected = {
        "2025-02-26T16:29:59+00:00": "1",
        "2025-02-26T16:30:00+00:00": "0.25",
        "2025-02-27T00:29:59+00:00": "0.25",
        "2025-02-27T00:30:00+00:00": "1",
        "2025-09-05T16:40:00+00:00": "4",
        "2026-09-30T09:59:59+00:00": "8",  # a Wednesday
        "2026-09-30T10:00:00+00:00": "4",
        "2026-10-01T02:00:00+00:00": "4",  # a holiday
        "2026-10-03T02:00:00+00:00": "4",  # a Saturday
        "2026-10-05T01:00:00+00:00": "8",
    }
    assert {instant: cost(book, instant) for instant in expected} == {
        instant: Fraction(price) for instant, price in expected.items()
    }
    assert remarks(found, "left out") == [
        "p: schedules.schedule[2]: is not understood (12:00 to 20:00 UTC crosses a midnight of its days)",
        "None: schedules.schedule[3]: is not understood ('peak_hours_utc')",
    ]
    assert remarks(found, "assumed") == [
        "p: schedules.schedule[1]: holidays are known to 2026-12-31; later ones count as working days"
    ]


def test_history_of_another_schema_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="schema 2 is not known"):
        imported(tmp_path, Format.MODELS_DEV, history({}) | {"schema": 2})


# ---- genai-prices ----


def genai(tmp_path: Path, **model: Any) -> Imported:
    return imported(tmp_path, Format.GENAI_PRICES, [{"id": "p", "models": [{"id": "m", **model}]}])


def test_genai_prices_by_key(tmp_path: Path) -> None:
    prices = {
        "input_mtok": {"base": 1.25, "tiers": [{"start": 200000, "price": 2.5}]},
        "output_mtok": 10,
        "cache_audio_read_mtok": 0.5,
        "web_searches_kcount": 35,
        "input_audio_minutes": 0.006,
        "secrets_kg": 1,
    }
    match = {"or": [{"equals": "m-1"}, {"starts_with": "m-"}, {"and": [{"contains": "x"}]}]}
    found = genai(tmp_path, match=match, prices=prices)
    tiers = "above: [{above: 200_000, price: 2.5}]"
    assert rows(found) == [
        row.replace("NAME", name)
        for name in ("p/m", "p/m-1")
        for row in (
            f"model: NAME, meter: cache_write_tokens, price: 1.25, {tiers}",
            "model: NAME, meter: cached_input_audio_tokens, price: 0.5",
            f"model: NAME, meter: cached_input_tokens, price: 1.25, {tiers}",
            "model: NAME, meter: input_audio_seconds, per: 60, price: 0.006",
            f"model: NAME, meter: input_tokens, price: 1.25, {tiers}",
            "model: NAME, meter: output_tokens, price: 10",
            "model: NAME, meter: reasoning_tokens, price: 10",
            "model: NAME, meter: web_search_requests, per: 1_000, price: 35",
        )
    ]
    assert remarks(found, "left out") == [
        "p/m: stands for names by starts_with 'm-', and [{'contains': 'x'}] as well; a book has whole names: "
        "give those in use by --names",
        "p/m: prices.secrets_kg: no meter is known for it",
    ]


def test_genai_prices_of_names_in_use(tmp_path: Path) -> None:
    """The first model of the provider whose pattern stands for a name gives its price."""
    patterns: list[Any] = [
        {"equals": "Full"},
        {"and": [{"starts_with": "gpt-4"}, {"ends_with": "-mini"}]},
        {"or": [{"contains": "GPT-4"}, {"regex": "^o[0-9]$"}]},
        {"regex": "("},
        {"starts_with": "gpt"},
    ]
    models = [{"id": f"m{n}", "match": match, "prices": {"output_mtok": n + 1}} for n, match in enumerate(patterns)]
    root = [{"id": "p", "models": models}, {"id": "q", "models": models[4:]}]
    in_use = ["p/gpt-4-mini", "p/my-gpt-4", "p/o3", "p/o33", "p/full", "q/gpt-4-mini", "gpt-5", "r/gpt-5", "p/GPT-5"]
    found = imported(tmp_path, Format.GENAI_PRICES, root, in_use=in_use)
    prices = {price.selector[0]: price.price for price in found.prices if price.meter == "output_tokens"}
    own = {f"p/m{n}": str(n + 1) for n in range(5)} | {"q/m4": "5", "p/Full": "1"}
    named = {"p/gpt-4-mini": "2", "p/my-gpt-4": "3", "p/o3": "3", "p/full": "1", "q/gpt-4-mini": "5", "p/GPT-5": "5"}
    assert prices == own | named
    assert [text for text in remarks(found, "left out") if "is in use" in text] == [
        f"{name}: is in use, and no pattern of the file stands for it" for name in ("gpt-5", "p/o33", "r/gpt-5")
    ]
    alone = imported(tmp_path, Format.GENAI_PRICES, root, provider="q", in_use=["gpt-5", "o3"])
    assert {price.selector[0] for price in alone.prices} == {"m4", "gpt-5"}
    with pytest.raises(ConfigError, match="litellm has whole names"):
        litellm(tmp_path, {"input_cost_per_token": 1e-06}, in_use=["m"])


def test_genai_prices_of_version_3_say_their_units(tmp_path: Path) -> None:
    units = {"input_tokens": {"per": 1_000, "price_key": "input_ktok"}, "stamps": {"per": 5}}
    root = {
        "units": units,
        "providers": [{"id": "p", "models": [{"id": "m", "prices": {"input_ktok": 1, "stamps": 2}}]}],
    }
    assert rows(imported(tmp_path, Format.GENAI_PRICES, root)) == [
        "model: p/m, meter: cache_write_tokens, per: 1_000, price: 1",
        "model: p/m, meter: cached_input_tokens, per: 1_000, price: 1",
        "model: p/m, meter: input_tokens, per: 1_000, price: 1",
        "model: p/m, meter: stamps, per: 5, price: 2",
    ]


def test_genai_prices_that_begin_on_a_day(tmp_path: Path) -> None:
    prices = [
        {"prices": {"output_mtok": 5, "requests_kcount": 1}},
        {"constraint": {"start_date": "2026-05-01"}, "prices": {"output_mtok": 7}},
        {"constraint": {"start_date": "2026-03-13"}, "prices": {"output_mtok": 6}},
        {"constraint": {"moon": "full"}, "prices": {"output_mtok": 9}},
    ]
    found = genai(tmp_path, prices=prices)
    assert rows(found) == [  # the later entry of an earlier day goes before the other one, as it does there
        "model: p/m, meter: output_tokens, price: 5",
        "model: p/m, meter: output_tokens, from: 2026-03-13T00:00:00Z, price: 6",
        "model: p/m, meter: reasoning_tokens, price: 5",
        "model: p/m, meter: reasoning_tokens, from: 2026-03-13T00:00:00Z, price: 6",
        "model: p/m, meter: requests, per: 1_000, price: 1",
        "model: p/m, meter: requests, from: 2026-03-13T00:00:00Z, withdrawn: true",
    ]
    assert remarks(found, "left out") == ["p/m: prices[3]: its constraint is not known here: moon"]


def test_genai_prices_by_the_hour(tmp_path: Path) -> None:
    day = {"start_time": "00:30:00Z", "end_time": "16:30:00Z"}
    prices = [
        {"prices": {"input_mtok": 1, "output_mtok": 1}},
        {"constraint": day, "prices": {"input_mtok": 2}},
        {"constraint": {"start_time": "16:00:00Z", "end_time": "17:00:00Z"}, "prices": {"input_mtok": 3}},
        {"constraint": {"start_date": "2026-03-13"}, "prices": {"input_mtok": 4}},
    ]
    found = genai(tmp_path, prices=prices)
    book = parse_price_book(book_text(found, "a test"), "book.yaml")
    instants = ("2026-01-01T00:29:59+00:00", "2026-01-01T00:30:00+00:00", "2026-01-01T16:30:00+00:00")
    # the fourth entry is in force nowhere, as it would go before the hours; the first one begins where dates are none
    assert [cost(book, instant) for instant in instants] == [1, 2, 1]
    assert remarks(found, "left out") == [
        "p/m: prices[2]: its hours overlap with others",
        "p/m: prices[3]: goes before hours of the day, which a book cannot say",
        "p/m: utc-0030-1630, output_tokens: has no price in these hours, which a book cannot say",
        "p/m: utc-0030-1630, reasoning_tokens: has no price in these hours, which a book cannot say",
    ]


def test_genai_prices_variants(tmp_path: Path) -> None:
    """The first one that holds goes before the others, key by key."""
    june = {"start_date": "2026-06-01"}
    variants = [
        {"when": {"processing": "batch"}, "constraint": june, "prices": {"output_mtok": 4}},
        {"when": {"processing": "batch"}, "prices": {"output_mtok": 5, "cache_read_mtok": 2}},
        {"when": {"processing": "batch"}, "prices": {"output_mtok": 7}},
        {"when": {"service_tier": "flex"}, "constraint": june, "prices": {"cache_read_mtok": 3}},
        {"when": {"service_tier": "flex", "inference_geo": "us"}, "prices": {"output_mtok": 6}},
        {"when": {"search_type": "web"}, "prices": {"output_mtok": 6}},
    ]
    found = genai(tmp_path, prices={"output_mtok": 10, "cache_read_mtok": 1}, price_variants=variants)
    assert rows(found) == [
        "model: p/m, meter: cached_input_tokens, price: 1",
        "model: p/m, meter: output_tokens, price: 10",
        "model: p/m, meter: reasoning_tokens, price: 10",
        "model: p/m, service_tier: batch, meter: cached_input_tokens, price: 2",
        "model: p/m, service_tier: batch, meter: output_tokens, price: 5",
        "model: p/m, service_tier: batch, meter: output_tokens, from: 2026-06-01T00:00:00Z, price: 4",
        "model: p/m, service_tier: batch, meter: reasoning_tokens, price: 5",
        "model: p/m, service_tier: batch, meter: reasoning_tokens, from: 2026-06-01T00:00:00Z, price: 4",
        "model: p/m, service_tier: flex, meter: cached_input_tokens, from: 2026-06-01T00:00:00Z, price: 3",
    ]
    assert remarks(found, "left out") == [
        "p/m: price_variants[5]: is for {search_type: web}, which is no service tier",
        "p/m: price_variants[4]: is for {service_tier: flex, inference_geo: us}, which is no service tier",
    ]


# ---- Any format ----


@pytest.mark.parametrize("format_", Format)
@pytest.mark.parametrize("root", [{}, [], 1, {"a": 1}, {"a": {"models": 1}}, [{"id": "p"}], [{"models": [1]}], "[1"])
def test_a_file_of_another_form_is_refused(tmp_path: Path, format_: Format, root: Any) -> None:
    with pytest.raises(ConfigError, match=r"prices\.json|models"):
        imported(tmp_path, format_, root)


def test_a_name_that_cannot_be_written_is_left_out(tmp_path: Path) -> None:
    prices = {"input_cost_per_token": "1e-6"}
    found = imported(tmp_path, Format.LITELLM, {"a\nb": prices, "": prices, 'q"é\\': prices})
    assert rows(found) == ["model: q\\é\\\\, meter: input_tokens, price: 1"]
    assert parse_price_book(book_text(found, "a test"), "b").prices[0].selector[0] == 'q"é\\'
    assert remarks(found, "left out") == ["'a\\nb': no name for a model", "'': no name for a model"]


def test_the_command(tmp_path: Path) -> None:
    file, book = tmp_path / "prices.json", tmp_path / "book.yaml"
    file.write_text(
        '{"m": {"input_cost_per_token": 2.0000000000000002e-07, "input_cost_per_token": 1e-7, "dbu_cost": 1}}'
    )
    runner = CliRunner()
    done = runner.invoke(make_app(), ["prices", "import", "litellm", str(file), "-o", str(book)])
    assert done.exit_code == 0, done.output
    assert done.stderr.splitlines() == [
        "assumed   input_cost_per_token: stands twice in one object of the file; the last one counts",
        "left out  m: dbu_cost: no meter is known for it",
        f"1 prices of 1 models in {book}, 1 assumed, 1 left out",
    ]
    assert parse_price_book(book.read_text(), "b").prices[0].price == "0.1"
    again = runner.invoke(make_app(), ["prices", "import", "litellm", str(file), "-o", str(book)])
    assert isinstance(again.exception, ConfigError)
    printed = runner.invoke(make_app(), ["prices", "import", "litellm", str(file)])
    assert printed.stdout == book.read_text()
    late = runner.invoke(make_app(), ["prices", "import", "litellm", str(file), "--from", "2026-01-01"])
    assert isinstance(late.exception, ConfigError)
    model = {"id": "m", "match": {"starts_with": "gpt"}, "prices": {"input_mtok": 1}}
    file.write_text(json.dumps([{"id": "p", "models": [model]}]))
    (tmp_path / "names").write_text("p/gpt-5\n\n")
    used = runner.invoke(
        make_app(), ["prices", "import", "genai-prices", str(file), "--names", str(tmp_path / "names")]
    )
    assert {price.selector[0] for price in parse_price_book(used.stdout, "b").prices} == {"p/m", "p/gpt-5"}
