"""Providers' payloads to meters. Every row of the tables is met by a payload of SAMPLES, all of them made up."""

import json
from decimal import Decimal
from typing import Any

import pytest

from flow.adapters.classes import CLASSES, FOLDS, fold, meters_of
from flow.adapters.events import Adapter, batches, kind_named, time_us
from flow.adapters.kind import Kind
from flow.adapters.reading import read_payload
from flow.adapters.spans import spans
from flow.adapters.tables import KINDS
from flow.errors import ConfigError, PayloadError
from flow.prices.book import parse_price_book
from flow.prices.explain import Usage, explain, total_femto
from flow.prices.price import PROMPT

CHAT = {
    "prompt_tokens": 1000,
    "completion_tokens": 500,
    "total_tokens": 1500,
    "prompt_tokens_details": {"cached_tokens": 300, "audio_tokens": 50},
    "completion_tokens_details": {
        "reasoning_tokens": 200,
        "audio_tokens": 20,
        "accepted_prediction_tokens": 7,
        "rejected_prediction_tokens": 8,
    },
}
CHAT_METERS = {
    "input_tokens": 650,
    "cached_input_tokens": 300,
    "input_audio_tokens": 50,
    "output_tokens": 280,
    "output_audio_tokens": 20,
    "reasoning_tokens": 200,
}
RESPONSES = {
    "input_tokens": 1000,
    "output_tokens": 500,
    "total_tokens": 1500,
    "input_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 100},
    "output_tokens_details": {"reasoning_tokens": 200},
}
MESSAGES = {
    "input_tokens": 3,
    "output_tokens": 500,
    "cache_read_input_tokens": 1000,
    "cache_creation_input_tokens": 400,
    "cache_creation": {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 100},
    "output_tokens_details": {"thinking_tokens": 120},
}


def details(**tokens: int) -> list[dict[str, object]]:
    return [{"modality": name, "tokenCount": count} for name, count in tokens.items()]


SAMPLES: list[tuple[str, dict[str, Any], dict[str, int]]] = [
    ("azure/chat", {"usage": CHAT}, CHAT_METERS),
    (
        "openai/chat",
        {"usage": {**CHAT, "prompt_tokens_details": {"cached_tokens": 300, "cache_write_tokens": 100}}},
        {
            "input_tokens": 600,
            "cached_input_tokens": 300,
            "cache_write_tokens": 100,
            "output_tokens": 280,
            "output_audio_tokens": 20,
            "reasoning_tokens": 200,
        },
    ),
    (
        "openrouter/chat",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "cost": 1,
                "cost_details": {"upstream_inference_cost": 2},
                "prompt_tokens_details": {"video_tokens": 4},
                "completion_tokens_details": {"image_tokens": 3},
            }
        },
        {"input_tokens": 10, "output_tokens": 5},
    ),
    (
        "anthropic/chat",
        {"usage": {"prompt_tokens": 10, "cached_tokens": 4, "completion_tokens": 5}},
        {"input_tokens": 6, "cached_input_tokens": 4, "output_tokens": 5},
    ),
    (
        "deepseek/chat",
        {
            "usage": {
                "prompt_tokens": 10,
                "prompt_cache_hit_tokens": 4,
                "prompt_cache_miss_tokens": 6,
                "prompt_tokens_details": {"cached_tokens": 4},
                "completion_tokens": 5,
            }
        },
        {"input_tokens": 6, "cached_input_tokens": 4, "output_tokens": 5},
    ),
    (
        "mistral/default",
        {"usage": {"prompt_tokens": 10, "num_cached_tokens": 9, "completion_tokens": 5}},
        {"input_tokens": 10, "output_tokens": 5},
    ),
    (
        "x-ai/chat",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "completion_tokens_details": {"reasoning_tokens": 50},
                "total_tokens": 65,
            }
        },
        {"input_tokens": 10, "output_tokens": 5, "reasoning_tokens": 50},
    ),
    (
        "x-ai/default",
        {
            "usage": {
                "prompt_tokens": 10,
                "cached_prompt_text_tokens": 4,
                "completion_tokens": 5,
                "reasoning_tokens": 50,
            }
        },
        {"input_tokens": 6, "cached_input_tokens": 4, "output_tokens": 5, "reasoning_tokens": 50},
    ),
    (
        "perplexity/default",
        {
            "usage": {
                "prompt_tokens": 10,
                "completion_tokens": 5,
                "total_tokens": 15,
                "reasoning_tokens": 50,
                "citation_tokens": 40,
                "num_search_queries": 3,
                "cost": {"total_cost": 1},
            }
        },
        {
            "input_tokens": 10,
            "output_tokens": 5,
            "reasoning_tokens": 50,
            "citation_tokens": 40,
            "web_search_requests": 3,
        },
    ),
    (
        "modal/chat",
        {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "reasoning_tokens": 2}},
        {"input_tokens": 10, "output_tokens": 3, "reasoning_tokens": 2},
    ),
    ("openai/embeddings", {"usage": {"prompt_tokens": 8, "total_tokens": 8}}, {"input_tokens": 8}),
    ("voyageai/embeddings", {"usage": {"total_tokens": 8}}, {"input_tokens": 8}),
    (
        "openai/responses",
        {"usage": RESPONSES},
        {
            "input_tokens": 600,
            "cached_input_tokens": 300,
            "cache_write_tokens": 100,
            "output_tokens": 300,
            "reasoning_tokens": 200,
        },
    ),
    (
        "openai/images",
        {
            "usage": {
                "input_tokens": 100,
                "input_tokens_details": {"text_tokens": 20, "image_tokens": 80},
                "output_tokens": 1000,
                "output_tokens_details": {"text_tokens": 10, "image_tokens": 990},
                "total_tokens": 1100,
            }
        },
        {"input_tokens": 20, "input_image_tokens": 80, "output_tokens": 10, "output_image_tokens": 990},
    ),
    (
        "openai/realtime",
        {
            "response": {
                "usage": {
                    "input_tokens": 200,
                    "output_tokens": 60,
                    "total_tokens": 260,
                    "input_token_details": {
                        "text_tokens": 100,
                        "audio_tokens": 80,
                        "image_tokens": 20,
                        "cached_tokens": 75,
                        "cached_tokens_details": {"text_tokens": 40, "audio_tokens": 30, "image_tokens": 5},
                    },
                    "output_token_details": {"text_tokens": 20, "audio_tokens": 40},
                }
            }
        },
        {
            "input_tokens": 60,
            "input_audio_tokens": 50,
            "input_image_tokens": 15,
            "cached_input_tokens": 40,
            "cached_input_audio_tokens": 30,
            "cached_input_image_tokens": 5,
            "output_tokens": 20,
            "output_audio_tokens": 40,
        },
    ),
    (
        "openai/transcriptions",
        {
            "usage": {
                "type": "tokens",
                "input_tokens": 50,
                "input_token_details": {"text_tokens": 10, "audio_tokens": 40},
                "output_tokens": 9,
                "total_tokens": 59,
            }
        },
        {"input_tokens": 10, "input_audio_tokens": 40, "output_tokens": 9},
    ),
    ("openai/transcriptions", {"usage": {"type": "duration", "seconds": 12}}, {"audio_seconds": 12}),
    (
        "anthropic/default",
        {"usage": {**MESSAGES, "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 1}}},
        {
            "input_tokens": 3,
            "cached_input_tokens": 1000,
            "cache_write_tokens": 300,
            "cache_write_1h_tokens": 100,
            "output_tokens": 380,
            "reasoning_tokens": 120,
            "web_search_requests": 2,
            "web_fetch_requests": 1,
        },
    ),
    (
        "aws/anthropic",
        {"usage": MESSAGES},
        {
            "input_tokens": 3,
            "cached_input_tokens": 1000,
            "cache_write_tokens": 300,
            "cache_write_1h_tokens": 100,
            "output_tokens": 500,
        },
    ),
    (
        "aws/default",
        {
            "usage": {
                "inputTokens": 3,
                "outputTokens": 5,
                "cacheReadInputTokens": 40,
                "cacheReadInputTokenCount": 40,
                "cacheWriteInputTokens": 30,
                "cacheWriteInputTokenCount": 30,
                "cacheDetails": [{"ttl": "5m", "inputTokens": 20}, {"ttl": "1h", "inputTokens": 10}],
                "totalTokens": 78,
            }
        },
        {
            "input_tokens": 3,
            "cached_input_tokens": 40,
            "cache_write_tokens": 20,
            "cache_write_1h_tokens": 10,
            "output_tokens": 5,
        },
    ),
    ("aws/embeddings", {"embedding": [0], "inputTextTokenCount": 8}, {"input_tokens": 8}),
    (
        "google/default",
        {
            "usageMetadata": {
                "promptTokenCount": 1000,
                "promptTokensDetails": details(TEXT=100, AUDIO=200, IMAGE=300, DOCUMENT=50, VIDEO=350),
                "cachedContentTokenCount": 500,
                "cacheTokensDetails": details(TEXT=40, AUDIO=110, IMAGE=150, DOCUMENT=25, VIDEO=175),
                "toolUsePromptTokenCount": 100,
                "toolUsePromptTokensDetails": details(TEXT=60, AUDIO=10, IMAGE=11, DOCUMENT=12, VIDEO=7),
                "candidatesTokenCount": 70,
                "candidatesTokensDetails": details(TEXT=30, AUDIO=10, IMAGE=15, DOCUMENT=5, VIDEO=10),
                "thoughtsTokenCount": 25,
                "totalTokenCount": 1195,
            }
        },
        {
            "input_tokens": 60,
            "input_audio_tokens": 100,
            "input_image_tokens": 198,
            "input_video_tokens": 182,
            "tool_input_tokens": 60,
            "cached_input_tokens": 40,
            "cached_input_audio_tokens": 110,
            "cached_input_image_tokens": 175,
            "cached_input_video_tokens": 175,
            "output_tokens": 30,
            "output_audio_tokens": 10,
            "output_image_tokens": 20,
            "output_video_tokens": 10,
            "reasoning_tokens": 25,
        },
    ),
    (
        "google/default",
        {"usageMetadata": {"promptTokenCount": 7, "promptTokenDetails": details(TEXT=7)}},
        {"input_tokens": 7},
    ),
    (
        "mistral/ocr",
        {"usage_info": {"pages_processed": 9, "doc_size_bytes": 4096}},
        {"documents_processed": 9},
    ),
    (
        "cohere/default",
        {
            "usage": {
                "billed_units": {"input_tokens": 40, "output_tokens": 5, "search_units": 1, "classifications": 2},
                "tokens": {"input_tokens": 1440, "output_tokens": 6},
                "cached_tokens": 1000,
            }
        },
        {"input_tokens": 40, "output_tokens": 5, "search_units": 1, "classifications": 2},
    ),
    (
        "cohere/tokens",
        {
            "usage": {
                "billed_units": {"input_tokens": 40},
                "tokens": {"input_tokens": 1440, "output_tokens": 6},
                "cached_tokens": 1000,
            }
        },
        {"input_tokens": 440, "cached_input_tokens": 1000, "output_tokens": 6},
    ),
    (
        "cohere/embeddings",
        {
            "meta": {
                "billed_units": {"input_tokens": 4, "image_tokens": 9, "images": 1, "search_units": 1},
                "tokens": {"input_tokens": 4},
            }
        },
        {"input_tokens": 4, "input_image_tokens": 9, "images": 1, "search_units": 1},
    ),
    (
        "ollama/chat",
        {"prompt_eval_count": 4, "eval_count": 5, "total_duration": 10**9},
        {"input_tokens": 4, "output_tokens": 5},
    ),
    (
        "litellm/logging",
        {
            "prompt_tokens": 1000,
            "completion_tokens": 500,
            "total_tokens": 1500,
            "model_map_information": {"model_map_value": {"max_tokens": 8192}},
            "metadata": {
                "usage_object": {
                    "prompt_tokens": 1000,
                    "completion_tokens": 500,
                    "total_tokens": 1500,
                    "prompt_cache_hit_tokens": 300,
                    "prompt_cache_miss_tokens": 700,
                    "cache_read_input_tokens": 300,
                    "cache_creation_input_tokens": 100,
                    "cost": 1,
                    "cost_details": {"upstream": 1},
                    "prompt_tokens_details": {
                        "cached_tokens": 300,
                        "cached_tokens_details": {"text_tokens": 290, "audio_tokens": 8, "image_tokens": 2},
                        "cache_write_tokens": 100,
                        "cache_creation_tokens": 100,
                        "cache_creation_token_details": {
                            "ephemeral_5m_input_tokens": 85,
                            "ephemeral_1h_input_tokens": 10,
                            "ephemeral_12h_input_tokens": 5,
                        },
                        "text_tokens": 500,
                        "audio_tokens": 40,
                        "image_tokens": 30,
                        "video_tokens": 20,
                        "tool_use_tokens": 3,
                        "initial_prompt_tokens": 900,
                        "web_search_requests": 2,
                    },
                    "completion_tokens_details": {
                        "reasoning_tokens": 200,
                        "text_tokens": 240,
                        "audio_tokens": 30,
                        "image_tokens": 20,
                        "video_tokens": 10,
                        "accepted_prediction_tokens": 1,
                        "rejected_prediction_tokens": 2,
                    },
                    "server_tool_use": {"web_search_requests": 2, "web_fetch_requests": 4},
                }
            },
        },
        {
            "input_tokens": 510,
            "cached_input_tokens": 290,
            "cached_input_audio_tokens": 8,
            "cached_input_image_tokens": 2,
            "cache_write_tokens": 85,
            "cache_write_1h_tokens": 10,
            "cache_write_12h_tokens": 5,
            "input_audio_tokens": 40,
            "input_image_tokens": 30,
            "input_video_tokens": 20,
            "output_tokens": 240,
            "output_audio_tokens": 30,
            "output_image_tokens": 20,
            "output_video_tokens": 10,
            "reasoning_tokens": 200,
            "web_search_requests": 2,
            "web_fetch_requests": 4,
        },
    ),
    (
        "opentelemetry/spans",
        {
            "attributes": {
                "gen_ai.request.max_tokens": 4096,
                "gen_ai.usage.input_tokens": "1000",
                "gen_ai.usage.cache_read.input_tokens": 300,
                "gen_ai.usage.cache_creation.input_tokens": 100,
                "gen_ai.usage.output_tokens": 500,
                "gen_ai.usage.reasoning.output_tokens": 200,
                "gen_ai.usage.total_tokens": 1500,
            }
        },
        {
            "input_tokens": 600,
            "cached_input_tokens": 300,
            "cache_write_tokens": 100,
            "output_tokens": 300,
            "reasoning_tokens": 200,
        },
    ),
    (
        "opentelemetry/spans",
        {"attributes": {"gen_ai.usage.prompt_tokens": 10, "gen_ai.usage.completion_tokens": 5}},
        {"input_tokens": 10, "output_tokens": 5},
    ),
]


@pytest.mark.parametrize(("kind", "payload", "meters"), SAMPLES, ids=[sample[0] for sample in SAMPLES])
def test_payload_becomes_disjoint_meters(kind: str, payload: dict[str, Any], meters: dict[str, int]) -> None:
    (reading,) = read_payload(KINDS[kind], payload)
    assert reading.meters == meters
    assert reading.findings == []


def paths_of(value: object, path: str = "") -> set[str]:
    if isinstance(value, dict):
        return {found for name, inner in value.items() for found in paths_of(inner, f"{path}.{name}" if path else name)}
    if isinstance(value, list):
        tags = [item.get("modality") or item.get("ttl") if isinstance(item, dict) else "" for item in value]
        return {found for tag, item in zip(tags, value, strict=True) for found in paths_of(item, f"{path}[{tag}]")}
    return {path}


def test_every_row_is_met_by_a_sample() -> None:
    met: set[tuple[tuple[str, ...], tuple[str, ...]]] = set()
    for name, payload, _ in SAMPLES:
        there = paths_of(payload)
        for names, classes in rows_of(KINDS[name]):
            if any(path == some or (some.endswith(".") and path.startswith(some)) for path in there for some in names):
                met.add((names, classes))
    missing = {(name, row) for name, kind in KINDS.items() for row in rows_of(kind) if row not in met}
    assert not missing, "a row without a payload that shows it: add one to SAMPLES"


def rows_of(kind: Kind) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    return [((names,) if isinstance(names, str) else names, classes) for names, classes in kind.rows.items()]


def test_tables_name_classes_that_there_are() -> None:
    for name, kind in KINDS.items():
        for row, classes in rows_of(kind):
            assert set(classes) <= set(CLASSES), (name, row)
    meters = {meter for signs in CLASSES.values() for meter in signs}
    assert set(FOLDS) | set(FOLDS.values()) <= meters


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_takes_from_another_what_it_adds(name: str) -> None:
    """Tokens are counted once: a part of input or of output changes no sum."""
    tokens = {meter: sign for meter, sign in CLASSES[name].items() if meter.endswith("_tokens")}
    assert sum(tokens.values()) == (1 if name in ("input", "output") else 0)


# ---- What is reported, and what is refused ----


def test_an_unknown_count_is_reported() -> None:
    payload = {
        "usage": {
            **CHAT,
            "prompt_tokens_details": {"speculated_tokens": 5},
            "pages": 3,
            "cost": 0,
            "tier": "x",
            "ok": True,
        },
        "extra_token_count": 9,
        "max_tokens": 100,
        "n": 1,
    }
    (reading,) = read_payload(KINDS["openai/chat"], payload)
    assert {found.path: found.quantity for found in reading.findings} == {
        "usage.prompt_tokens_details.speculated_tokens": 5,
        "usage.pages": 3,
        "extra_token_count": 9,
    }


def test_a_total_that_the_parts_do_not_come_to_is_reported() -> None:
    payload = {"usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 65}}
    (finding,) = read_payload(KINDS["openai/chat"], payload)[0].findings
    assert (finding.path, finding.quantity) == ("the provider's total", 65)
    assert "15" in finding.why


def test_cached_audio_is_as_much_as_it_must_be() -> None:
    """Given cached and audio tokens that are more than the prompt, when they are told apart, the excess is both."""
    both = {"cached_tokens": 900, "audio_tokens": 600}
    (reading,) = read_payload(KINDS["openai/chat"], {"usage": {"prompt_tokens": 1000, "prompt_tokens_details": both}})
    assert reading.meters == {
        "cached_input_tokens": 400,
        "cached_input_audio_tokens": 500,
        "input_audio_tokens": 100,
    }
    assert [(found.path, found.quantity) for found in reading.findings] == [("cached audio", 500)]


def test_two_names_of_one_number_that_disagree_are_reported() -> None:
    usage = {"inputTokens": 3, "outputTokens": 5, "cacheReadInputTokens": 4, "cacheReadInputTokenCount": 40}
    (reading,) = read_payload(KINDS["aws/default"], {"usage": usage})
    assert reading.meters["cached_input_tokens"] == 4
    assert [found.path for found in reading.findings] == ["usage.cacheReadInputTokenCount"]


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        ({}, "it of another kind"),
        ({"usage": {"cost": 1}}, "it of another kind"),
        ({"usage": None}, "it of another kind"),
        ({"usage": {"prompt_tokens": -1}}, "usage.prompt_tokens is -1"),
        ({"usage": {"prompt_tokens": "many"}}, "usage.prompt_tokens is many"),
        ({"usage": {"prompt_tokens": True}}, "usage.prompt_tokens is True"),
        ({"usage": {"prompt_tokens": Decimal("1.5")}}, "usage.prompt_tokens is 1.5"),
        ({"usage": {"prompt_tokens": 2**63}}, "input_tokens would be"),
        ({"usage": {"prompt_tokens": "9" * 5000}}, "counts nothing"),
        ({"usage": {"prompt_tokens": 1, "prompt_tokens_details": {"cached_tokens": 2}}}, "contradict each other"),
        (
            {"usage": {"prompt_tokens": 9, "prompt_tokens_details": {"cached_tokens": 10, "audio_tokens": 8}}},
            "contradict each other",
        ),
    ],
)
def test_refused(payload: dict[str, Any], message: str) -> None:
    with pytest.raises(PayloadError, match=message):
        read_payload(KINDS["openai/chat"], payload)


def test_whole_numbers_are_counts_however_they_are_written() -> None:
    payload = {"usage": {"prompt_tokens": Decimal("41.0"), "completion_tokens": "28", "total_tokens": None}}
    assert read_payload(KINDS["openai/chat"], payload)[0].meters == {"input_tokens": 41, "output_tokens": 28}


def test_usage_beside_the_sums_is_an_event_of_its_own() -> None:
    iteration = {"input_tokens": 220, "output_tokens": 8, "type": "message"}
    usage = {
        "input_tokens": 220,
        "output_tokens": 8,
        "iterations": [
            {"input_tokens": 5519, "output_tokens": 12, "type": "compaction"},
            iteration,
            {"input_tokens": 2518, "output_tokens": 22, "type": "advisor_message", "model": "claude-big"},
        ],
    }
    adapter = Adapter("anthropic", {"customer": "acme", "time": "2026-11-01T00:00:00Z"})
    events = list(adapter.events({"id": "msg_1", "model": "claude-small", "usage": usage}))
    assert [(event.texts["id"], event.texts["model"], event.usage) for event in events] == [
        ("msg_1", "claude-small", {"input_tokens": 220, "output_tokens": 8}),
        ("msg_1/usage.iterations[0]", "claude-small", {"input_tokens": 5519, "output_tokens": 12}),
        ("msg_1/usage.iterations[2]", "claude-big", {"input_tokens": 2518, "output_tokens": 22}),
    ]


# ---- Folding ----


def test_finer_meters_fold_into_what_they_are_part_of() -> None:
    meters = {"input_tokens": 1, "cached_input_audio_tokens": 2, "cache_write_1h_tokens": 4, "reasoning_tokens": 8}
    assert fold(meters, {"cached_input_tokens"}) == {
        "input_tokens": 5,
        "cached_input_tokens": 2,
        "output_tokens": 8,
    }
    assert fold(meters, meters) == meters


def test_a_context_counts_every_class_of_input() -> None:
    """A request of much audio is above an edge of its model whichever of the meters the book has prices for."""
    inputs = {name for name in (*FOLDS, "input_tokens") if fold({name: 1}, ()) == {"input_tokens": 1}}
    assert set(PROMPT) == inputs
    text = """
currency: USD
prices:
  - {meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1, price: "1", above: [{above: 100, price: "2"}]}
"""
    book = parse_price_book(text, "prices.yaml")
    for meter in inputs - {"input_tokens"}:
        usage = Usage(2_000_000_000_000_000, ("", "", "", ""), {"input_tokens": 40, meter: 61})
        assert total_femto(explain(book, usage)) == 80 * 10**15, meter


def test_meters_of_nothing() -> None:
    assert meters_of({}) == {}


# ---- Events ----


def test_identity_and_dimensions_come_from_where_one_says() -> None:
    line = {
        "at": "2026-11-01T13:00:00.5+01:00",
        "tenant": {"name": "acme"},
        "project": "search",
        "body": {"id": "resp_1", "created": 1, "model": "gpt", "service_tier": "default", "usage": CHAT},
    }
    adapter = Adapter("openai/chat", {"feature": "chat"}, {"time": "at", "customer": "tenant.name"}, "body")
    (event,) = adapter.events(line)
    assert event.texts == {
        "id": "resp_1",
        "source": "openai/chat",
        "customer": "acme",
        "project": "search",
        "feature": "chat",
        "model": "gpt",
        "region": "",
        "service_tier": "standard",
    }
    assert event.event_time_us == 1_793_534_400_500_000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ([], "no JSON object"),
        ({"usage": CHAT}, "no id, no customer, no time"),
        ({"id": 1.5, "usage": CHAT}, "id: 1.5 is no text"),
        ({"id": "a", "customer": "c", "created": "yesterday", "usage": CHAT}, "no time with a UTC offset"),
    ],
)
def test_no_event_can_be_made(line: object, message: str) -> None:
    adapter = Adapter("openai/chat", paths={"customer": "customer"})
    with pytest.raises(PayloadError, match=message):
        list(adapter.events(line))


def test_unknown_kinds_and_fields() -> None:
    with pytest.raises(ConfigError, match="there are openai/chat, openai/responses"):
        kind_named("openai/chats")
    with pytest.raises(ConfigError, match="tenant: no field of an event"):
        Adapter("openai/chat", {"tenant": "acme"})


@pytest.mark.parametrize(
    ("value", "us"),
    [
        (1_700_000_000, 1_700_000_000_000_000),
        (Decimal("1700000000.1234567"), 1_700_000_000_123_456),
        (1_700_000_000_123, 1_700_000_000_123_000),
        ("1700000000123456789", 1_700_000_000_123_456),
        (1_700_000_000_123_456, 1_700_000_000_123_456),
        ("2023-11-14T22:13:20.123456789Z", 1_700_000_000_123_456),
    ],
)
def test_times(value: object, us: int) -> None:
    assert time_us(value) == us


@pytest.mark.parametrize("value", [True, -1, "2023-11-14T22:13:20", "x", Decimal("NaN"), 10**30, [1]])
def test_no_times(value: object) -> None:
    with pytest.raises(PayloadError, match="time"):
        time_us(value)


def test_columns_are_the_same_for_every_batch() -> None:
    adapter = Adapter("openai/chat", {"customer": "acme", "time": "2026-11-01T00:00:00Z"})
    lines = [{"id": f"e{n}", "usage": {"prompt_tokens": n}} for n in range(5)]
    made = list(batches(adapter, (event for line in lines for event in adapter.events(line)), batch_rows=2))
    assert [batch.num_rows for batch in made] == [2, 2, 1]
    assert made[0].column("input_tokens").to_pylist() == [0, 1]  # an event says at least one meter
    assert made[0].column("reasoning_tokens").to_pylist() == [None, None]
    assert {batch.schema for batch in made} == {adapter.schema()}


# ---- Spans ----


def attribute(key: str, value: object) -> dict[str, object]:
    return {"key": key, "value": {"intValue": str(value)} if isinstance(value, int) else {"stringValue": value}}


def otlp_span(span: str, operation: str, **more: object) -> dict[str, object]:
    return {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": span,
        "startTimeUnixNano": "1793534400500000123",
        "attributes": [
            attribute("gen_ai.operation.name", operation),
            attribute("gen_ai.response.model", "gpt"),
            attribute("enduser.id", "acme"),
            *[attribute(key, value) for key, value in more.items()],
        ],
    }


def test_spans_of_calls_become_events_and_others_none() -> None:
    usage = {"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5}
    scope = [
        otlp_span("b7ad6b7169203331", "invoke_agent", **usage),  # the sum of the calls within: not once more
        otlp_span("b7ad6b7169203332", "chat", **usage),
        otlp_span("b7ad6b7169203333", "chat"),
    ]
    resource = {"attributes": [attribute("service.name", "search")]}
    line = {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": scope}]}]}
    (event,) = Adapter("opentelemetry/spans").events(line)
    assert event.texts["id"] == "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203332"
    assert (event.texts["customer"], event.texts["project"], event.texts["model"]) == ("acme", "search", "gpt")
    assert event.event_time_us == 1_793_534_400_500_000
    assert event.usage == {"input_tokens": 10, "output_tokens": 5}


def test_a_span_of_the_sdk() -> None:
    line = {
        "context": {"trace_id": "0x0af7", "span_id": "0xb7ad"},
        "start_time": "2026-11-01T12:00:00.500000Z",
        "attributes": {"gen_ai.usage.input_tokens": 10, "user.id": "acme"},
        "resource": {"attributes": {}},
    }
    (event,) = Adapter("opentelemetry/spans").events(json.loads(json.dumps(line)))
    assert event.texts["id"] == "0af7-b7ad"
    assert [span["id"] for span in spans({"attributes": {"gen_ai.usage.input_tokens": 1}})] == [None]
