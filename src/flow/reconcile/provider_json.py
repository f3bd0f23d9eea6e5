"""The usage reports of OpenAI's and Anthropic's APIs: pages of buckets, with results in each.

OpenAI: GET /v1/organization/usage/completions and .../embeddings, times in seconds since 1970. Anthropic: GET
/v1/organizations/usage_report/messages, times as text. FIELDS and DIMENSIONS name every field that is known; a number
in any other may be usage that would not be compared, and is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

from ..errors import ConfigError
from ..schema import REQUESTS
from .provider import GRAIN_S, Refusal, Row, UsageReport, check_rows, check_start
from .provider_mapping import ReportMapping

FILE_BYTES_MAX = 1 << 29
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HEAD_BYTES = 1 << 16
_PAGE = re.compile(rb'"object"\s*:\s*"page"|"starting_at"\s*:')
_INERT: tuple[str, ...] = ()
"""What a field adds where it repeats, or takes apart, what others say."""


@dataclass(frozen=True, slots=True)
class Api:
    """One provider's form of a page."""

    name: str
    start: str
    end: str
    fields: Mapping[str, tuple[str, ...]]
    """Classes that a count adds to; inner fields behind a dot."""
    required: tuple[str, ...]
    dimensions: frozenset[str]


_MODALITIES = ("text", "image", "audio")
OPENAI = Api(
    "OpenAI",
    "start_time",
    "end_time",
    {
        "input_tokens": ("input",),  # with what was read from and written to caches, whatever it encodes
        "input_cached_tokens": ("cached_input",),
        "input_cache_write_tokens": ("cache_write",),
        "input_uncached_tokens": _INERT,
        "output_tokens": ("output",),
        "num_model_requests": (REQUESTS,),
        # With or without the cached ones: what is published of them does not say.
        **{f"{part}_{kind}_tokens": _INERT for part in ("input", "input_cached", "output") for kind in _MODALITIES},
    },
    ("input_tokens", "num_model_requests"),
    frozenset({"object", "project_id", "user_id", "api_key_id", "model", "batch", "service_tier", "api_source"}),
)
ANTHROPIC = Api(
    "Anthropic",
    "starting_at",
    "ending_at",
    {
        "uncached_input_tokens": ("input",),
        "cache_read_input_tokens": ("cached_input", "input"),
        "cache_creation.ephemeral_5m_input_tokens": ("cache_write", "input"),
        "cache_creation.ephemeral_1h_input_tokens": ("cache_write", "cache_write_1h", "input"),
        "output_tokens": ("output",),
        "server_tool_use.web_search_requests": ("web_search",),
    },
    ("uncached_input_tokens", "output_tokens"),
    frozenset(
        {"api_key_id", "workspace_id", "model", "service_tier", "context_window", "inference_geo", "speed"}
        | {"account_id", "service_account_id"}
    ),
)
_OBJECTS = ("organization.usage.completions.result", "organization.usage.embeddings.result")


def is_usage_page(path: Path) -> bool:
    """Whether a JSON file begins as a page of one of these APIs, and not as a log of events."""
    with path.open("rb") as file:
        return _PAGE.search(file.read(_HEAD_BYTES)) is not None


def read_pages(paths: list[Path], mapping: ReportMapping) -> UsageReport:
    """Reads all pages of one report. Raises ConfigError with every problem found."""
    label = ", ".join(map(str, paths))
    refusal = Refusal(label)
    reading = _Reading(refusal, mapping)
    for path in paths:
        for number, page in enumerate(_pages(path)):
            reading.page(page, f"{path.name}: page {number + 1}: " if len(paths) > 1 or number else "")
    return reading.finish(label)


def _pages(path: Path) -> Iterator[Any]:
    """The pages of a file: one, a list of them, or one a line. Raises ConfigError."""
    if path.stat().st_size > FILE_BYTES_MAX:
        raise ConfigError(f"{path}: larger than {FILE_BYTES_MAX >> 20} MiB; expected the pages of a usage report")
    try:
        text = path.read_text("utf-8")
        try:
            found = [_load(text)]
        except json.JSONDecodeError:
            found = [_load(line) for line in text.splitlines() if line.strip()]
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not JSON ({error})") from None
    for one in found:
        yield from one if isinstance(one, list) else [one]


class _Number(str):
    """The literal of a JSON number that is no integer."""

    __slots__ = ()


def _load(text: str) -> Any:
    return json.loads(text, parse_float=_Number, parse_constant=_Number, object_pairs_hook=_once)


def _once(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a name stands twice in an object")
    return found


class _Reading:
    """The pages of one report, as they are read."""

    def __init__(self, refusal: Refusal, mapping: ReportMapping) -> None:
        self._refusal = refusal
        self._mapping = mapping
        self._api: Api | None = None
        self._spans: dict[int, tuple[int, str]] = {}  # of each bucket its end, and where it stands
        self._rows: list[Row] = []
        self._more = False
        self._models: set[bool] = set()

    def page(self, page: Any, place: str) -> None:
        """Takes one page."""
        if not isinstance(page, dict) or not isinstance(page.get("data"), list):
            self._refusal.add(f"{place}page", _shown(page), "an object with `data`, a list of buckets")
            return
        self._more = page.get("has_more") is True
        for number, bucket in enumerate(page["data"]):
            self._bucket(bucket, f"{place}data[{number}]")

    def _bucket(self, bucket: Any, place: str) -> None:
        if not isinstance(bucket, dict) or not isinstance(bucket.get("results"), list):
            self._refusal.add(place, _shown(bucket), "a bucket with `results`")
            return
        api = OPENAI if OPENAI.start in bucket else ANTHROPIC
        if self._api not in (None, api):
            self._refusal.add(place, f"a bucket of {api.name}", "the buckets of one provider")
            return
        self._api = api
        times = [self._time(bucket.get(name), f"{place}.{name}") for name in (api.start, api.end)]
        if times[0] is None or times[1] is None:
            return
        start_s, end_s = times[0], times[1]
        if start_s in self._spans:
            self._refusal.add(place, f"the same bucket as {self._spans[start_s][1]}", "each bucket once")
            return
        self._spans[start_s] = end_s, place
        for number, result in enumerate(bucket["results"]):
            self._result(api, result, start_s, f"{place}.results[{number}]")

    def _time(self, value: Any, place: str) -> int | None:
        """Seconds since 1970."""
        if type(value) is int:
            return value
        try:
            instant = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            self._refusal.add(place, _shown(value), "a time")
            return None
        offset = instant.utcoffset()
        if offset is None or offset:
            zone = "no zone" if offset is None else f"the zone {value[-6:]}"
            self._refusal.add(place, f"{value}, {zone}", "UTC, as in 2026-11-01T00:00:00Z")
            return None
        seconds, rest = divmod(instant - _EPOCH, timedelta(seconds=1))
        if rest:
            self._refusal.add(place, value, "the beginning of a minute, an hour or a day")
            return None
        return seconds

    def _result(self, api: Api, result: Any, start_s: int, place: str) -> None:
        if not isinstance(result, dict):
            self._refusal.add(place, _shown(result), "an object")
            return
        kind = result.get("object", _OBJECTS[0])
        if kind not in _OBJECTS or "amount" in result:
            self._refusal.add(place, f"{_shown(kind)}, or a cost", f"usage in tokens: {' or '.join(_OBJECTS)}")
            return
        counts: dict[str, int] = {}
        flat = dict(_flat(result))
        for name in api.required:
            if name not in flat:
                self._refusal.add(place, f"no {name}", "it in each result")
        for name, value in flat.items():
            self._field(api, name, value, counts, f"{place}.{name}")
        model = result.get("model")
        self._models.add(model is not None)
        customer = result.get(self._mapping.customer_field) if self._mapping.customer_field else ""
        if self._mapping.customer_field and not isinstance(customer, str):
            self._refusal.add(f"{place}.{self._mapping.customer_field}", _shown(customer), "a customer in each result")
            return
        self._rows.append(self._mapping.row(place, start_s, str(customer), str(model or ""), counts))

    def _field(self, api: Api, name: str, value: Any, counts: dict[str, int], place: str) -> None:
        classes = api.fields.get(name)
        if classes is None:
            if name not in api.dimensions and isinstance(value, int | _Number) and not isinstance(value, bool):
                self._refusal.add(place, f"an unknown number, {_shown(value)}", "a field that is known to be usage")
            return
        if value is None:
            return
        if type(value) is not int or value < 0:
            self._refusal.add(place, _shown(value), "a whole number of tokens or requests")
            return
        for name_of_class in classes:
            counts[name_of_class] = counts.get(name_of_class, 0) + value

    def finish(self, label: str) -> UsageReport:
        """The report. Raises ConfigError."""
        refusal = self._refusal
        if self._more:
            refusal.add("the last page", "has_more: true", "all pages, the last with has_more: false")
        if not self._spans and not self._more:
            refusal.add("data", "no bucket", "buckets")
        refusal.raise_if_any()
        grain = self._grain()
        if self._models == {True, False}:
            refusal.add(
                "results", "some with a model and some without", "results that are grouped by model, or are not"
            )
        check_rows(self._rows, refusal)
        refusal.raise_if_any()
        last = max(self._spans)
        return UsageReport(
            label,
            grain,
            min(self._spans),
            self._spans[last][0],
            self._rows,
            tells_customers=bool(self._mapping.customer_field),
            tells_models=False not in self._models,
        )

    def _grain(self) -> str:
        """The size of all buckets. Raises ConfigError."""
        sizes = {end_s - start_s: place for start_s, (end_s, place) in self._spans.items()}
        grain = next((name for name, length_s in GRAIN_S.items() if length_s in sizes), "")
        expected = "buckets of 1m, 1h or 1d, all of one size"
        for size_s, place in sizes.items():
            if not grain or size_s != GRAIN_S[grain]:
                self._refusal.add(place, f"a bucket of {size_s:,} s", expected)
        self._refusal.raise_if_any()
        for start_s, (_, place) in self._spans.items():
            check_start(start_s, grain, place, self._refusal)
        starts_s = sorted(self._spans)
        for before_s, start_s in pairwise(starts_s):
            if start_s != before_s + GRAIN_S[grain]:
                self._refusal.add(
                    self._spans[start_s][1], "a gap before this bucket", "each bucket, also without usage"
                )
        return grain


def _flat(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in result.items():
        if isinstance(value, dict):
            yield from ((f"{name}.{inner}", of_inner) for inner, of_inner in value.items())
        else:
            yield name, value


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False) if not isinstance(value, _Number) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
