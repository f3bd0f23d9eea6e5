"""Synthetic usage events: any number of them, made from (seed, index) alone.

Event `i` is a pure function of the seed and `i`: every random draw is a hash (splitmix64) of the seed, of
what is drawn and of an index. A source can therefore begin at any event without making those before it, every
way of cutting the stream into batches gives the same events, and `expected` counts what a pipeline must find
without running one. Only integers are used, so the events are the same on every machine.

They are made by a kernel, since a run of a trillion tokens would else be a benchmark of what makes its events.

What an event is, is drawn first. A duplicate or conflicting event `i` takes identity and payload
of an earlier event `j`, at most `duplicate_distance_max` before it. `j` must itself be drawn as plain or
unpriced (else `i` becomes a plain event), so there are no chains and an event's original is always accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from importlib.resources import files
from itertools import accumulate, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import ConfigError, RejectReason
from .kernels.synthetic import BAD, CONFLICTING, DUPLICATE, PLAIN, UNPRICED, Maker, Numbers, Tables
from .schema import DIMENSIONS

METERS = ("input_tokens", "cached_input_tokens", "output_tokens", "reasoning_tokens", "images")
"""The meters of the synthetic events; null where an event does not have one."""

SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("source", pa.dictionary(pa.int32(), pa.string()), nullable=False),
        pa.field("time", pa.timestamp("us", tz="UTC"), nullable=False),
        *[pa.field(name, pa.dictionary(pa.int32(), pa.string()), nullable=False) for name in DIMENSIONS],
        *[pa.field(name, pa.int64()) for name in METERS],
    ]
)
"""The columnar form of DESIGN 3.1."""

MODELS = (
    "gpt-4o-mini",
    "gpt-4o",
    "claude-3-5-sonnet",
    "llama-3.3-70b",
    "gemini-1.5-flash",
    "o3-mini",
    "deepseek-v3",
    "mistral-large",
    "claude-3-5-haiku",
    "qwen-2.5-72b",
    "deepseek-r1",
    "phi-4",
)
"""The models of the sample prices, the most used one first; the next would be `sample-model-13`."""

REASONING_MODELS = ("o3-mini", "deepseek-r1")
UNPRICED_MODEL = "unlisted-model"
"""The model of unpriced events: no sample price names it."""

_PROJECTS = ("assistant", "search", "support", "analytics", "batch-jobs")
_FEATURES = (
    "chat",
    "summary",
    "completion",
    "extraction",
    "translation",
    "classification",
    "code-review",
    "agent",
    "rewrite",
    "report",
    "vision",
    "evaluation",
)
_REGIONS = ("eu-west-1", "us-east-1", "us-west-2", "ap-south-1", "eu-central-1")
_TIERS = ("standard", "batch", "priority")
_SOURCES = ("gateway/eu-1", "gateway/us-1", "gateway/us-2", "gateway/ap-1")

BAD_REASONS = (
    RejectReason.MISSING_ID,  # an empty id
    RejectReason.TIME_OUT_OF_RANGE,  # in 1969
    RejectReason.MISSING_CUSTOMER,  # an empty customer
    RejectReason.MISSING_METER,  # all meters null
    RejectReason.NEGATIVE_QUANTITY,
    RejectReason.QUANTITY_TOO_LARGE,  # 2^63 - 1 output tokens
)
"""What is wrong with a bad event, in the order of the kernel; each is drawn equally often."""

_PPM = 1_000_000
_EVENTS_MAX = 4_000_000_000  # index x remainder of the duration must fit 64 bits
_ROWS = 1 << 16
_SLOTS_MIN = 1 << 16
_SLOTS_PER_CUSTOMER = 16  # so that the rarest customer's share is not rounded to a multiple of itself


@dataclass(frozen=True)
class Synthetic:
    """What to generate; `ppm` is of all events. Raises ConfigError for values that make no sense.

    Where two events with one id differ in time or payload, the one that arrives first is counted: only with
    retimed_ppm = conflicting_ppm = 0 are the rollups the same in every order of arrival.
    """

    seed: int = 1
    events: int = 3_000_000
    customers: int = 1000
    zipf_permille: int = 1300
    """The k-th customer's share is proportional to k^-(zipf_permille / 1000)."""
    projects: int = 5
    features: int = 12
    models: int = 12
    regions: int = 5
    combinations_per_customer: int = 24
    """How many combinations of project, feature, model, region and service tier one customer uses."""
    duplicate_ppm: int = 10_000
    retimed_ppm: int = 200_000
    """How many of a million duplicates carry a time of their own, as a retry does, and not the original's."""
    conflicting_ppm: int = 100
    bad_ppm: int = 100
    unpriced_ppm: int = 500
    duplicate_distance_max: int = 50_000
    disorder_s: int = 120
    """Each event time is this much late at most, drawn evenly."""
    start: datetime = datetime(2026, 11, 1, tzinfo=UTC)
    duration_s: int = 6 * 3600
    """All event times are in [start, start + duration_s), but for those in 1969."""

    def __post_init__(self) -> None:
        errors = [
            f"synthetic.{name}: must be from {low} to {high}, not {getattr(self, name)}"
            for name, (low, high) in _LIMITS.items()
            if not low <= getattr(self, name) <= high
        ]
        if self.duplicate_ppm + self.conflicting_ppm + self.bad_ppm + self.unpriced_ppm > _PPM:
            errors.append("synthetic: duplicate_ppm, conflicting_ppm, bad_ppm, unpriced_ppm: the sum exceeds 1000000")
        if self.disorder_s >= self.duration_s:
            errors.append(f"synthetic.disorder_s: must be less than duration_s ({self.duration_s})")
        if self.start.utcoffset() is None:
            errors.append("synthetic.start: needs a UTC offset, such as 2026-11-01T00:00:00Z")
        if errors:
            raise ConfigError(errors)


_LIMITS = {
    "seed": (0, 2**63 - 1),
    "events": (0, _EVENTS_MAX),
    "customers": (1, 100_000),
    "zipf_permille": (0, 5000),
    "projects": (1, 1000),
    "features": (1, 1000),
    "models": (1, 1000),
    "regions": (1, 1000),
    "combinations_per_customer": (1, 1 << 20),
    "duplicate_ppm": (0, _PPM),
    "retimed_ppm": (0, _PPM),
    "conflicting_ppm": (0, _PPM),
    "bad_ppm": (0, _PPM),
    "unpriced_ppm": (0, _PPM),
    "duplicate_distance_max": (1, 2**31),
    "disorder_s": (0, 10**6),
    "duration_s": (1, 10**9),
}


@dataclass(frozen=True)
class Expected:
    """What a pipeline with the sample prices must count.

    read = accepted + duplicate + conflicting + rejected; unpriced ones are among the accepted.
    """

    read: int
    accepted: int
    duplicate: int
    conflicting: int
    rejected: int
    rejected_by_reason: dict[str, int]
    """By the name of the RejectReason."""
    unpriced: int
    """Accepted events whose token meters have no price."""


# ---- Tables made once for a spec ----


def _shares(count: int, exponent_permille: int, slots: int) -> NDArray[np.int32]:
    """[slots]: which of `count` things a slot stands for; the k-th has about k^-exponent of them.

    Each has at least one. Decimal and not float, whose powers may differ in the last bit between machines.
    """
    context = Context(prec=24)
    exponent = -Decimal(exponent_permille) / 1000
    weights = [int(context.power(Decimal(k), exponent).scaleb(18)) + 1 for k in range(1, count + 1)]
    total, cumulative, ends = sum(weights), 0, []
    for weight in weights:
        cumulative += weight
        ends.append(cumulative * (slots - count) // total)
    lengths = [end - start + 1 for start, end in pairwise([0, *ends])]
    return np.repeat(np.arange(count, dtype=np.int32), lengths)


def _log_uniform(lowest: int, octaves: int) -> NDArray[np.int64]:
    """[4096]: quantities from `lowest` to lowest x 2^octaves, each octave equally often."""
    step = np.arange(4096, dtype=np.int64) * octaves
    octave, within = step >> 12, step & 4095
    base = np.int64(lowest) << octave
    return base + (base * within >> 12)


def _names(named: tuple[str, ...], count: int, stem: str) -> list[str]:
    return [*named[:count], *(f"{stem}-{n}" for n in range(len(named) + 1, count + 1))]


class _Stream:
    """The dictionaries of a spec, and the kernel that makes its events."""

    def __init__(self, spec: Synthetic) -> None:
        models = _names(MODELS, spec.models, "sample-model")
        width = max(4, len(str(spec.customers)))
        customers = [f"customer-{n:0{width}}" for n in range(1, spec.customers + 1)]
        self.dictionaries = {
            "source": pa.array(_SOURCES),
            "customer": pa.array([*customers, ""]),  # the last one is a bad event's
            "project": pa.array(_names(_PROJECTS, spec.projects, "project")),
            "feature": pa.array(_names(_FEATURES, spec.features, "feature")),
            "model": pa.array([*models, UNPRICED_MODEL]),
            "region": pa.array(_names(_REGIONS, spec.regions, "region")),
            "service_tier": pa.array(_TIERS),
        }
        slots = max(_SLOTS_MIN, 1 << (spec.customers * _SLOTS_PER_CUSTOMER - 1).bit_length())
        self.maker = Maker(
            _numbers(spec),
            Tables(
                customer_of=_shares(spec.customers, spec.zipf_permille, slots),
                model_of=_shares(spec.models, 1000, 1 << 12),
                tier_of=_shares(len(_TIERS), 2500, 1 << 6),
                reasons=np.array([name in REASONING_MODELS for name in [*models, UNPRICED_MODEL]], dtype=np.uint8),
                inputs=_log_uniform(8, 9),
                outputs=_log_uniform(4, 8),
            ),
        )


def _numbers(spec: Synthetic) -> Numbers:
    events = max(spec.events, 1)  # of none, none is ever asked for
    step_us, rest_us = divmod((spec.duration_s - spec.disorder_s) * 1_000_000, events)
    duplicate, conflicting, bad, unpriced = accumulate(
        (spec.duplicate_ppm, spec.conflicting_ppm, spec.bad_ppm, spec.unpriced_ppm)
    )
    return Numbers(
        seed=spec.seed,
        events=events,
        step_us=step_us,
        rest_us=rest_us,
        disorder_us=spec.disorder_s * 1_000_000,
        start_us=(spec.start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
        retimed_ppm=spec.retimed_ppm,
        distance_max=spec.duplicate_distance_max,
        combinations=spec.combinations_per_customer,
        projects=spec.projects,
        features=spec.features,
        regions=spec.regions,
        sources=len(_SOURCES),
        unknown_customer=spec.customers,
        unpriced_model=spec.models,
        edges_ppm=(duplicate, conflicting, bad, unpriced),
    )


@lru_cache(maxsize=4)
def _stream(spec: Synthetic) -> _Stream:
    return _Stream(spec)


# ---- Events ----


def _kinds(spec: Synthetic, first: int, rows: int) -> NDArray[np.uint8]:
    """[rows]: what each event from `first` on is, in the kernel's numbers; fewer at the end of the spec."""
    rows = max(min(rows, spec.events - first), 0)
    return np.frombuffer(_stream(spec).maker.kinds(first, rows), dtype=np.uint8)


def accepted(spec: Synthetic, first: int, rows: int) -> NDArray[np.bool_]:
    """[rows]: which events from `first` on are to be counted, in the order of their numbers; fewer at its end."""
    kinds = _kinds(spec, first, rows)
    return np.asarray((kinds == PLAIN) | (kinds == UNPRICED))


def expected(spec: Synthetic) -> Expected:
    """Counts what the seed implies, from what each event is drawn as alone; takes about 5 ns an event."""
    counts = np.zeros(BAD + len(BAD_REASONS), dtype=np.int64)
    for first in range(0, spec.events, _ROWS):
        counts += np.bincount(_kinds(spec, first, _ROWS), minlength=counts.size)
    bad = counts[BAD:]
    return Expected(
        read=spec.events,
        accepted=int(counts[PLAIN] + counts[UNPRICED]),
        duplicate=int(counts[DUPLICATE]),
        conflicting=int(counts[CONFLICTING]),
        rejected=int(bad.sum()),
        rejected_by_reason={reason.name: int(n) for reason, n in zip(BAD_REASONS, bad, strict=True) if n},
        unpriced=int(counts[UNPRICED]),
    )


def expected_quantities(spec: Synthetic) -> dict[str, int]:
    """The sum of each meter over the accepted events."""
    totals = dict.fromkeys(METERS, 0)
    for first in range(0, spec.events, _ROWS):
        counted = batch(spec, first, _ROWS).filter(pa.array(accepted(spec, first, _ROWS)))
        for meter in METERS:
            totals[meter] += int(counted.column(meter).drop_null().to_numpy().sum())
    return totals


def batch(spec: Synthetic, first: int, rows: int) -> pa.RecordBatch:
    """Events first .. first+rows-1 (fewer at the end of the spec) as one batch of SCHEMA. Raises ValueError for more
    rows than a batch can have."""
    stream = _stream(spec)
    made = stream.maker.make(first, max(min(rows, spec.events - first), 0))
    columns = {
        "id": made.ids,
        "time": made.time_us.cast(SCHEMA.field("time").type),
        **{
            name: pa.DictionaryArray.from_arrays(codes, dictionary, safe=False)
            for (name, dictionary), codes in zip(stream.dictionaries.items(), made.codes, strict=True)
        },
        **dict(zip(METERS, made.quantities, strict=True)),
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def batches(spec: Synthetic, first: int = 0, rows: int = _ROWS) -> Iterator[pa.RecordBatch]:
    """The events of `spec` from number `first` on, `rows` to a batch of SCHEMA."""
    for start in range(first, spec.events, rows):
        yield batch(spec, start, rows)


# ---- Prices ----

_PRICED_FROM = "2026-01-01T00:00:00Z"
_FURTHER_PRICES = {"input_tokens": "0.50", "cached_input_tokens": "0.05", "output_tokens": "1.50"}
"""For the models that the file of sample prices does not name."""


def prices_yaml(models: int = len(MODELS)) -> str:
    """The sample prices (DESIGN 3.2) that go with the synthetic events, for as many models as a spec has."""
    text = files("flow").joinpath("samples", "prices.yaml").read_text(encoding="utf-8")
    for name in _names(MODELS, models, "sample-model")[len(MODELS) :]:
        for meter, price in _FURTHER_PRICES.items():
            text += f"  - {{model: {name}, meter: {meter}, from: {_PRICED_FROM}, "
            text += f'per: 1_000_000, price: "{price}"}}\n'
    return text
