"""Which field of which provider's usage object adds to which class.

`KINDS` is all there is to know of a provider; `reading.py` knows none. A kind is named `provider/api`. To add one, add
its rows, and a payload for each row to `tests/unit/test_adapters.py`. A field that a provider is not known to send has
no row even if a provider with the same API sends it: it is then reported, and somebody finds out what it counts.
"""

from .kind import INERT, Beside, Kind, Paths

Rows = dict[Paths, tuple[str, ...]]

# ---- Chat completions, as OpenAI introduced them and most providers speak them ----

_PROMPT, _COMPLETION = "usage.prompt_tokens_details", "usage.completion_tokens_details"

_PLAIN: Rows = {
    "usage.prompt_tokens": ("input",),
    "usage.completion_tokens": ("output",),
    "usage.total_tokens": ("total",),
    # Predicted tokens are within completion_tokens, at their price, whether they were accepted or not.
    f"{_COMPLETION}.accepted_prediction_tokens": INERT,
    f"{_COMPLETION}.rejected_prediction_tokens": INERT,
}
_CACHED: Rows = {f"{_PROMPT}.cached_tokens": ("cached_input",)}
_WRITTEN: Rows = {f"{_PROMPT}.cache_write_tokens": ("cache_write",)}
_AUDIO_IN: Rows = {f"{_PROMPT}.audio_tokens": ("input_audio",)}
_AUDIO_OUT: Rows = {f"{_COMPLETION}.audio_tokens": ("output_audio",)}
_REASONING: Rows = {f"{_COMPLETION}.reasoning_tokens": ("reasoning",)}

_CHAT: Rows = _PLAIN | _CACHED | _AUDIO_IN | _AUDIO_OUT | _REASONING
_CHAT_EVENT = {"id": ("id",), "time": ("created",), "model": ("model",), "service_tier": ("service_tier",)}


def _chat(*rows: Rows) -> Kind:
    merged: Rows = {}
    for some in rows:
        merged |= some
    return Kind(merged, ("usage",), _CHAT_EVENT)


# What an OpenRouter response says besides: money, and encodings that it bills with the text.
_OPENROUTER: Rows = {
    "usage.cost": INERT,
    "usage.cost_details.": INERT,
    f"{_PROMPT}.video_tokens": INERT,
    f"{_COMPLETION}.image_tokens": INERT,
}
_EMBEDDINGS = Kind({"usage.prompt_tokens": ("input",), "usage.total_tokens": ("total",)}, ("usage",), _CHAT_EVENT)

# ---- Responses, as OpenAI introduced them ----

_RESPONSES: Rows = {
    "usage.input_tokens": ("input",),
    "usage.input_tokens_details.cached_tokens": ("cached_input",),
    "usage.output_tokens": ("output",),
    "usage.total_tokens": ("total",),
}
_RESPONSES_WRITTEN: Rows = {"usage.input_tokens_details.cache_write_tokens": ("cache_write",)}
_RESPONSES_REASONING: Rows = {"usage.output_tokens_details.reasoning_tokens": ("reasoning",)}
_RESPONSES_EVENT = {
    "id": ("id",),
    "time": ("created_at",),
    "customer": ("metadata.customer",),
    "model": ("model",),
    "service_tier": ("service_tier",),
}


def _responses(*rows: Rows) -> Kind:
    merged = dict(_RESPONSES)
    for some in rows:
        merged |= some
    return Kind(merged, ("usage",), _RESPONSES_EVENT)


def _realtime(usage: str) -> Rows:
    """Text, audio and images, each read from a cache or not."""
    details = f"{usage}.input_token_details"
    rows: Rows = {
        f"{usage}.input_tokens": ("input",),
        f"{details}.cached_tokens": ("cached_input",),
        f"{usage}.output_tokens": ("output",),
        f"{usage}.total_tokens": ("total",),
        f"{usage}.output_token_details.text_tokens": ("output_text",),
        f"{usage}.output_token_details.audio_tokens": ("output_audio",),
    }
    for encoding in ("text", "audio", "image"):
        rows[f"{details}.{encoding}_tokens"] = (f"input_{encoding}",)
        rows[f"{details}.cached_tokens_details.{encoding}_tokens"] = (f"cached_{encoding}",)
    return rows


_IMAGES: Rows = {
    "usage.input_tokens": ("input",),
    "usage.input_tokens_details.text_tokens": ("input_text",),
    "usage.input_tokens_details.image_tokens": ("input_image",),
    "usage.output_tokens": ("output",),
    "usage.output_tokens_details.text_tokens": ("output_text",),
    "usage.output_tokens_details.image_tokens": ("output_image",),
    "usage.total_tokens": ("total",),
}
_TRANSCRIPTIONS: Rows = {
    "usage.input_tokens": ("input",),
    "usage.input_token_details.text_tokens": ("input_text",),
    "usage.input_token_details.audio_tokens": ("input_audio",),
    "usage.output_tokens": ("output",),
    "usage.total_tokens": ("total",),
    "usage.seconds": ("audio_second",),  # of models that are billed by the length of what they hear
}

# ---- Anthropic: input_tokens are what no cache was involved in, so the cached ones add to `input` as well ----

_MESSAGES: Rows = {
    "usage.input_tokens": ("input",),
    "usage.cache_read_input_tokens": ("cached_input", "input"),
    "usage.cache_creation_input_tokens": ("cache_write", "input"),
    "usage.cache_creation.ephemeral_5m_input_tokens": INERT,  # what cache_write_tokens are if nothing else is said
    "usage.cache_creation.ephemeral_1h_input_tokens": ("cache_write_1h",),
    "usage.output_tokens": ("output",),
}
_FIVE_MINUTES: Rows = {"usage.cache_creation.ephemeral_5m_input_tokens": ("cache_write_5m",)}
_SERVER_TOOLS: Rows = {
    "usage.server_tool_use.web_search_requests": ("web_search",),
    "usage.server_tool_use.web_fetch_requests": ("web_fetch",),
}
_THOUGHT = "usage.output_tokens_details.thinking_tokens"
_THINKING: Rows = {_THOUGHT: ("reasoning",)}
_THINKING_WITHIN: Rows = {_THOUGHT: INERT}  # on the clouds it is told, and priced, as output
_MESSAGES_EVENT = {"id": ("id",), "model": ("model",), "service_tier": ("usage.service_tier",)}
# The sums are of the messages; what compaction or an advisor used is billed besides, perhaps by another model.
_ITERATIONS = Beside("usage.iterations", frozenset({"message"}))


def _messages(*rows: Rows) -> Kind:
    merged = dict(_MESSAGES)
    for some in rows:
        merged |= some
    return Kind(merged, ("usage",), _MESSAGES_EVENT, _ITERATIONS)


# ---- Google: thoughts are not within the candidates, nor what tools brought in within the prompt ----


def _modalities(path: str, text: tuple[str, ...], audio: str, image: str, video: str) -> Rows:
    return {
        f"{path}[TEXT].tokenCount": text,
        f"{path}[AUDIO].tokenCount": (audio,),
        f"{path}[IMAGE].tokenCount": (image,),
        f"{path}[DOCUMENT].tokenCount": (image,),  # pages, counted and billed as images
        f"{path}[VIDEO].tokenCount": (video,),
    }


_GOOGLE: Rows = {
    "usageMetadata.promptTokenCount": ("input",),
    "usageMetadata.toolUsePromptTokenCount": ("tool_input", "input"),
    "usageMetadata.cachedContentTokenCount": ("cached_input",),
    "usageMetadata.candidatesTokenCount": ("output",),
    "usageMetadata.thoughtsTokenCount": ("reasoning", "output"),
    "usageMetadata.totalTokenCount": ("total",),
    "usageMetadata.promptTokenDetails[TEXT].tokenCount": INERT,  # of embeddings, which take nothing but text
    **_modalities("usageMetadata.promptTokensDetails", ("input_text",), "input_audio", "input_image", "input_video"),
    **_modalities("usageMetadata.cacheTokensDetails", ("cached_text",), "cached_audio", "cached_image", "cached_video"),
    **_modalities(
        "usageMetadata.candidatesTokensDetails", ("output_text",), "output_audio", "output_image", "output_video"
    ),
    "usageMetadata.toolUsePromptTokensDetails[TEXT].tokenCount": ("tool_text", "input_text"),
    "usageMetadata.toolUsePromptTokensDetails[AUDIO].tokenCount": ("tool_audio", "input_audio"),
    "usageMetadata.toolUsePromptTokensDetails[IMAGE].tokenCount": ("tool_image", "input_image"),
    "usageMetadata.toolUsePromptTokensDetails[DOCUMENT].tokenCount": ("tool_image", "input_image"),
    "usageMetadata.toolUsePromptTokensDetails[VIDEO].tokenCount": ("tool_video", "input_video"),
}

# ---- Bedrock's Converse: as Anthropic, by other names ----

_CONVERSE: Rows = {
    "usage.inputTokens": ("input",),
    ("usage.cacheReadInputTokens", "usage.cacheReadInputTokenCount"): ("cached_input", "input"),
    ("usage.cacheWriteInputTokens", "usage.cacheWriteInputTokenCount"): ("cache_write", "input"),
    "usage.cacheDetails[5m].inputTokens": INERT,
    "usage.cacheDetails[1h].inputTokens": ("cache_write_1h",),
    "usage.outputTokens": ("output",),
    "usage.totalTokens": ("total",),
}

# ---- LiteLLM's logging payload: OpenAI's usage object for every provider, input with the cached ----


def _litellm(name: str) -> tuple[str, ...]:
    """A field of the usage object, which stands in the metadata, or (before LiteLLM 1.60) in the response alone."""
    return (f"metadata.usage_object.{name}", f"response.usage.{name}")


_LITELLM: Rows = {
    (*_litellm("prompt_tokens"), "prompt_tokens"): ("input",),
    (*_litellm("completion_tokens"), "completion_tokens"): ("output",),
    (*_litellm("total_tokens"), "total_tokens"): ("total",),
    (
        *_litellm("prompt_tokens_details.cached_tokens"),
        *_litellm("cache_read_input_tokens"),
        *_litellm("prompt_cache_hit_tokens"),
    ): ("cached_input",),
    (
        *_litellm("prompt_tokens_details.cache_write_tokens"),
        *_litellm("prompt_tokens_details.cache_creation_tokens"),
        *_litellm("cache_creation_input_tokens"),
    ): ("cache_write",),
    **{
        _litellm(f"prompt_tokens_details.cache_creation_token_details.ephemeral_{kept}_input_tokens"): (
            f"cache_write_{kept}",
        )
        for kept in ("5m", "1h", "12h")
    },
    _litellm("prompt_tokens_details.cached_tokens_details.text_tokens"): ("cached_text",),
    # Of Gemini, where audio_tokens and image_tokens are what is left without the cached ones.
    _litellm("prompt_tokens_details.cached_tokens_details.audio_tokens"): ("cached_audio", "input_audio"),
    _litellm("prompt_tokens_details.cached_tokens_details.image_tokens"): ("cached_image", "input_image"),
    _litellm("prompt_tokens_details.tool_use_tokens"): INERT,  # in prompt_tokens as far as they are billed
    _litellm("prompt_tokens_details.initial_prompt_tokens"): INERT,
    _litellm("prompt_tokens_details.text_tokens"): INERT,  # what is left of prompt_tokens, however LiteLLM got it
    _litellm("prompt_tokens_details.audio_tokens"): ("input_audio",),
    _litellm("prompt_tokens_details.image_tokens"): ("input_image",),
    _litellm("prompt_tokens_details.video_tokens"): ("input_video",),
    _litellm("completion_tokens_details.reasoning_tokens"): ("reasoning",),
    _litellm("completion_tokens_details.text_tokens"): INERT,
    _litellm("completion_tokens_details.audio_tokens"): ("output_audio",),
    _litellm("completion_tokens_details.image_tokens"): ("output_image",),
    _litellm("completion_tokens_details.video_tokens"): ("output_video",),
    _litellm("completion_tokens_details.accepted_prediction_tokens"): INERT,
    _litellm("completion_tokens_details.rejected_prediction_tokens"): INERT,
    (
        *_litellm("server_tool_use.web_search_requests"),
        *_litellm("prompt_tokens_details.web_search_requests"),
    ): ("web_search",),
    _litellm("server_tool_use.web_fetch_requests"): ("web_fetch",),
    _litellm("prompt_cache_miss_tokens"): INERT,  # prompt_tokens without prompt_cache_hit_tokens
    _litellm("cost"): INERT,
    _litellm("cost_details."): INERT,
}

# ---- OpenTelemetry: attributes of the GenAI conventions; the old names stand in for the new ----

_SPAN = "attributes.gen_ai.usage"
_OTEL: Rows = {
    (f"{_SPAN}.input_tokens", f"{_SPAN}.prompt_tokens"): ("input",),
    (f"{_SPAN}.cache_read.input_tokens", f"{_SPAN}.cache_read_input_tokens"): ("cached_input",),
    (f"{_SPAN}.cache_creation.input_tokens", f"{_SPAN}.cache_creation_input_tokens"): ("cache_write",),
    (f"{_SPAN}.output_tokens", f"{_SPAN}.completion_tokens"): ("output",),
    (f"{_SPAN}.reasoning.output_tokens", f"{_SPAN}.reasoning_tokens"): ("reasoning",),
    f"{_SPAN}.total_tokens": ("total",),
}

# ---- Those who say it in few words ----

_COHERE_BILLED: Rows = {
    "usage.billed_units.input_tokens": ("input",),
    "usage.billed_units.output_tokens": ("output",),
    "usage.billed_units.search_units": ("search_unit",),
    "usage.billed_units.classifications": ("classification",),
    "usage.tokens.": INERT,  # what the model saw; billed is the other
    "usage.cached_tokens": INERT,
}
_COHERE_SEEN: Rows = {
    "usage.tokens.input_tokens": ("input",),
    "usage.tokens.output_tokens": ("output",),
    "usage.cached_tokens": ("cached_input",),
    "usage.billed_units.": INERT,
}
_COHERE_META: Rows = {
    "meta.billed_units.input_tokens": ("input",),
    "meta.billed_units.image_tokens": ("input_image", "input"),
    "meta.billed_units.images": ("image",),
    "meta.billed_units.search_units": ("search_unit",),
    "meta.tokens.": INERT,
}
_OLLAMA: Rows = {"prompt_eval_count": ("input",), "eval_count": ("output",)}

_ID_MODEL = {"id": ("id",), "model": ("model",)}
_HUGGING_FACE: tuple[str, ...] = (
    "cerebras",
    "fireworks-ai",
    "groq",
    "hyperbolic",
    "nebius",
    "novita",
    "nscale",
    "ovhcloud",
)
_HUGGING_FACE += ("publicai", "sambanova", "together")

KINDS: dict[str, Kind] = {
    "openai/chat": _chat(_CHAT, _WRITTEN),
    "openai/responses": _responses(_RESPONSES_WRITTEN, _RESPONSES_REASONING),
    "openai/embeddings": _EMBEDDINGS,
    "openai/images": Kind(_IMAGES, ("usage",), {"time": ("created",)}),
    "openai/realtime": Kind(
        _realtime("response.usage"), ("response.usage",), {"id": ("response.id",), "model": ("response.model",)}
    ),
    "openai/transcriptions": Kind(_TRANSCRIPTIONS, ("usage",)),
    "anthropic/default": _messages(_FIVE_MINUTES, _SERVER_TOOLS, _THINKING),
    # Its OpenAI-compatible endpoint says nothing of caches in the details.
    "anthropic/chat": _chat(_PLAIN, _REASONING, {"usage.cached_tokens": ("cached_input",)}),
    "google/default": Kind(
        _GOOGLE,
        ("usageMetadata",),
        {
            "id": ("responseId",),
            "time": ("createTime",),
            "model": ("modelVersion",),
            "service_tier": ("usageMetadata.serviceTier",),
        },
    ),
    "google/chat": _chat(_CHAT),
    "google/anthropic": _messages(_THINKING_WITHIN),
    "azure/chat": _chat(_CHAT),
    "azure/responses": _responses(_RESPONSES_REASONING),
    "azure/embeddings": _EMBEDDINGS,
    "azure/anthropic": _messages(_THINKING_WITHIN),
    "aws/default": Kind(_CONVERSE, ("usage",), {"id": ("ResponseMetadata.RequestId",)}),
    "aws/anthropic": _messages(_THINKING_WITHIN),
    "aws/embeddings": Kind({"inputTextTokenCount": ("input",)}, ()),  # Titan
    "mistral/default": _chat(_PLAIN, _CACHED, _REASONING, {"usage.num_cached_tokens": INERT}),
    "mistral/ocr": Kind(
        {"usage_info.pages_processed": ("document_page",), "usage_info.doc_size_bytes": INERT},
        ("usage_info",),
        {"model": ("model",)},
    ),
    "groq/default": _chat(_CHAT),
    "cohere/default": Kind(_COHERE_BILLED, ("usage",), _ID_MODEL),
    "cohere/tokens": Kind(_COHERE_SEEN, ("usage",), _ID_MODEL),
    "cohere/embeddings": Kind(_COHERE_META, ("meta",), _ID_MODEL),
    "cohere/rerank": Kind(_COHERE_META, ("meta",), _ID_MODEL),
    "deepseek/chat": _chat(
        _CHAT,
        # The same again: hit = cached_tokens, and hit and miss are prompt_tokens.
        {"usage.prompt_cache_hit_tokens": INERT, "usage.prompt_cache_miss_tokens": INERT},
    ),
    "openrouter/chat": _chat(_CHAT, _WRITTEN, _OPENROUTER),
    # xAI counts what was thought beside the completion, not in it.
    "x-ai/chat": _chat(_PLAIN, _CACHED, _AUDIO_OUT, {f"{_COMPLETION}.reasoning_tokens": ("reasoning", "output")}),
    "x-ai/default": _chat(
        _PLAIN,
        {"usage.cached_prompt_text_tokens": ("cached_input",), "usage.reasoning_tokens": ("reasoning", "output")},
    ),
    "perplexity/default": Kind(
        {
            "usage.prompt_tokens": ("input",),
            "usage.completion_tokens": ("output",),
            "usage.reasoning_tokens": ("reasoning", "output"),
            "usage.citation_tokens": ("citation", "output"),
            "usage.num_search_queries": ("web_search",),
            "usage.total_tokens": INERT,  # prompt and completion, without the others
            "usage.cost.": INERT,
        },
        ("usage",),
        _CHAT_EVENT,
    ),
    "modal/chat": _chat(_PLAIN, _CACHED, _WRITTEN, {"usage.reasoning_tokens": ("reasoning",)}),
    "modal/responses": _responses(_RESPONSES_WRITTEN, _RESPONSES_REASONING),
    "doubleword/chat": _chat(_PLAIN, _CACHED, _WRITTEN, _REASONING),
    "doubleword/responses": _responses(),
    "doubleword/embeddings": _EMBEDDINGS,
    "minimax/default": _messages(),
    "minimax/chat": _chat(_PLAIN, _CACHED, _REASONING),
    "minimax/responses": _responses(),
    "moonshotai/chat": _chat(_PLAIN, _CACHED, _REASONING),
    "fireworks/chat": _chat(_PLAIN, _CACHED, _AUDIO_OUT, _REASONING),
    "cerebras/chat": _chat(_PLAIN, _REASONING),
    "ovhcloud/chat": _chat(_CHAT, _WRITTEN),
    "zai/chat": _chat(_PLAIN, _CACHED, _REASONING),
    "zhipuai/chat": _chat(_PLAIN, _CACHED, _REASONING),
    **{f"huggingface_{name}/chat": _chat(_CHAT, _WRITTEN) for name in _HUGGING_FACE},
    "voyageai/embeddings": Kind({"usage.total_tokens": ("input",)}, ("usage",), {"model": ("model",)}),
    "ollama/chat": Kind(_OLLAMA, (), {"time": ("created_at",), "model": ("model",)}),
    "litellm/logging": Kind(
        _LITELLM,
        ("metadata.usage_object", "response.usage"),
        {
            "id": ("id",),
            "time": ("startTime",),
            "customer": ("end_user", "metadata.user_api_key_end_user_id", "metadata.user_api_key_team_alias"),
            "project": ("metadata.user_api_key_project_alias", "metadata.user_api_key_alias"),
            "model": ("model",),
            "service_tier": ("response.service_tier",),
        },
    ),
    "opentelemetry/spans": Kind(
        _OTEL,
        (_SPAN,),
        {
            "id": ("id",),
            "time": ("time",),
            "customer": ("attributes.tallyflow.customer", "attributes.enduser.id", "attributes.user.id"),
            "project": ("attributes.tallyflow.project", "resource.service.name"),
            "feature": ("attributes.tallyflow.feature",),
            "model": ("attributes.gen_ai.response.model", "attributes.gen_ai.request.model"),
            "region": ("attributes.cloud.region", "resource.cloud.region"),
            "service_tier": (
                "attributes.openai.response.service_tier",
                "attributes.gen_ai.openai.response.service_tier",
            ),
        },
        by_span=True,
    ),
}
