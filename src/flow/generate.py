"""Synthetic usage events: any number of them, made from (seed, index) alone.

Event `i` is a pure function of the seed and `i`: every random draw is a hash (splitmix64) of the seed, of
what is drawn and of an index. A source can therefore begin at any event without making those before it, every
way of cutting the stream into batches gives the same events, and `expected` counts what a pipeline must find
without running one. Only integers are used, so the events are the same on every machine.

What an event is, its `class`, is drawn first. A duplicate or conflicting event `i` takes identity and payload
of an earlier event `j`, at most `duplicate_distance_max` before it. `j` must itself be drawn as plain or
unpriced (else `i` becomes a plain event), so there are no chains and an event's original is always accepted.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from .errors import ConfigError, RejectReason
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

PLAIN, DUPLICATE, CONFLICTING, BAD, UNPRICED = range(5)
"""The classes of an event."""

BAD_REASONS = (
    RejectReason.MISSING_ID,  # an empty id
    RejectReason.TIME_OUT_OF_RANGE,  # in 1969
    RejectReason.MISSING_CUSTOMER,  # an empty customer
    RejectReason.MISSING_METER,  # all meters null
    RejectReason.NEGATIVE_QUANTITY,
    RejectReason.QUANTITY_TOO_LARGE,  # 2^63 - 1 output tokens
)
"""What is wrong with a bad event; each is drawn equally often."""

_PPM = 1_000_000
_EVENTS_MAX = 4_000_000_000  # index x remainder of the duration must fit 64 bits
_SLOTS_MIN = 1 << 16
_SLOTS_PER_CUSTOMER = 16  # so that the rarest customer's share is not rounded to a multiple of itself

Words = NDArray[np.uint64]


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


# ---- Draws: a hash of the seed, of what is drawn and of an index ----

_GOLDEN = 0x9E3779B97F4A7C15
_MASK64 = 2**64 - 1

# What is drawn; the numbers are part of the stream's definition.
_CLASS, _DETAIL, _ID_HIGH, _ID_LOW, _WHO, _USAGE, _TIME, _COMBINATION = range(8)


def _mix(word: Words) -> Words:
    """The finaliser of splitmix64, in place: a bijection of 64-bit words."""
    word ^= word >> np.uint64(30)
    word *= np.uint64(0xBF58476D1CE4E5B9)
    word ^= word >> np.uint64(27)
    word *= np.uint64(0x94D049BB133111EB)
    word ^= word >> np.uint64(31)
    return word


def _draw(seed: int, what: int, index: Words) -> Words:
    """64 random bits for each index, independent from one `what` to another."""
    base = _mix(np.array([(seed * 8 + what) * _GOLDEN & _MASK64], dtype=np.uint64))
    return _mix(_mix(index + base) + np.uint64(_GOLDEN))


def _field(words: Words, shift: int, bits: int) -> Words:
    """`bits` bits of each word, from bit `shift` up."""
    return (words >> np.uint64(shift)) & np.uint64((1 << bits) - 1)


def _below(words: Words, shift: int, bits: int, bound: int) -> Words:
    """A draw from 0 .. bound-1 by `bits` bits of each word; bound x 2^bits must fit 64 bits."""
    return (_field(words, shift, bits) * np.uint64(bound)) >> np.uint64(bits)


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


class _Tables:
    """The dictionaries and lookup tables of one spec."""

    def __init__(self, spec: Synthetic) -> None:
        slots = max(_SLOTS_MIN, 1 << (spec.customers * _SLOTS_PER_CUSTOMER - 1).bit_length())
        self.customer_bits = slots.bit_length() - 1
        self.customer = _shares(spec.customers, spec.zipf_permille, slots)
        self.model = _shares(spec.models, 1000, 1 << 12)
        self.tier = _shares(3, 2500, 1 << 6)
        models = _names(MODELS, spec.models, "sample-model")
        self.reasons = np.array([name in REASONING_MODELS for name in [*models, UNPRICED_MODEL]])
        self.input = _log_uniform(8, 9)
        self.output = _log_uniform(4, 8)
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


@lru_cache(maxsize=4)
def _tables(spec: Synthetic) -> _Tables:
    return _Tables(spec)


_DIGITS = np.frombuffer(b"0123456789abcdef", np.uint8)
_HEX = _DIGITS[np.arange(1 << 16)[:, None] >> np.array([4, 0, 12, 8]) & 15].view("<u4").ravel()
"""[65536]: four hexadecimal digits for two bytes, the low byte's first, as on a little-endian machine."""


# ---- Classes ----


def _drawn_class(spec: Synthetic, index: Words) -> NDArray[np.uint8]:
    draw = _below(_draw(spec.seed, _CLASS, index), 0, 32, _PPM)
    edges = np.cumsum([spec.duplicate_ppm, spec.conflicting_ppm, spec.bad_ppm, spec.unpriced_ppm])
    of_band = np.array([DUPLICATE, CONFLICTING, BAD, UNPRICED, PLAIN], dtype=np.uint8)
    # Nearly every draw is beyond the last edge: only the others are looked up.
    classes = np.full(index.size, PLAIN, dtype=np.uint8)
    rare = np.flatnonzero(draw < np.uint64(edges[-1]))
    classes[rare] = of_band[np.searchsorted(edges, draw[rare].astype(np.int64), side="right")]
    return classes


def _classes(spec: Synthetic, index: Words) -> tuple[NDArray[np.uint8], Words, NDArray[np.bool_]]:
    """For each event: its class, the event whose payload it has, and whether that is unpriced."""
    classes = _drawn_class(spec, index)
    payload_of = index.copy()
    unpriced = classes == UNPRICED
    rows = np.flatnonzero((classes == DUPLICATE) | (classes == CONFLICTING))
    if rows.size:
        detail = _draw(spec.seed, _DETAIL, index[rows])
        reach = np.minimum(index[rows], np.uint64(spec.duplicate_distance_max))
        distance = (_field(detail, 0, 32) * reach >> np.uint64(32)) + np.uint64(1)
        # Event 0 has no event before it: it is drawn as itself, which is no original.
        original = index[rows] - np.minimum(distance, reach)
        drawn = _drawn_class(spec, original)
        good = (drawn == PLAIN) | (drawn == UNPRICED)
        classes[rows[~good]] = PLAIN
        payload_of[rows[good]] = original[good]
        unpriced[rows[good]] = drawn[good] == UNPRICED
    return classes, payload_of, unpriced


def accepted(spec: Synthetic, first: int, rows: int) -> NDArray[np.bool_]:
    """[rows]: which events from `first` on are to be counted, in the order of their numbers; fewer at its end."""
    classes, _, _ = _classes(spec, np.arange(first, min(first + rows, spec.events), dtype=np.uint64))
    return np.isin(classes, (PLAIN, UNPRICED))


def expected(spec: Synthetic) -> Expected:
    """Counts what the seed implies, from the classes alone; takes about 20 ns an event."""
    counts = np.zeros(5, dtype=np.int64)
    reasons = np.zeros(len(BAD_REASONS), dtype=np.int64)
    for first in range(0, spec.events, 1 << 16):
        index = np.arange(first, min(first + (1 << 16), spec.events), dtype=np.uint64)
        classes, _, _ = _classes(spec, index)
        counts += np.bincount(classes, minlength=5)
        reasons += np.bincount(_bad_kind(spec, index[classes == BAD]), minlength=len(BAD_REASONS))
    by_class = [int(count) for count in counts]
    return Expected(
        read=spec.events,
        accepted=by_class[PLAIN] + by_class[UNPRICED],
        duplicate=by_class[DUPLICATE],
        conflicting=by_class[CONFLICTING],
        rejected=by_class[BAD],
        rejected_by_reason={r.name: int(n) for r, n in zip(BAD_REASONS, reasons, strict=True) if n},
        unpriced=by_class[UNPRICED],
    )


def expected_quantities(spec: Synthetic) -> dict[str, int]:
    """The sum of each meter over the accepted events."""
    totals = dict.fromkeys(METERS, 0)
    for first in range(0, spec.events, 1 << 16):
        index = np.arange(first, min(first + (1 << 16), spec.events), dtype=np.uint64)
        classes, payload_of, unpriced = _classes(spec, index)
        counted = (classes == PLAIN) | (classes == UNPRICED)
        dimensions = _dimensions(spec, payload_of, unpriced)
        for meter, (quantity, absent) in _usage(spec, payload_of, dimensions["model"]).items():
            totals[meter] += int(quantity[counted & ~absent].sum())
    return totals


# ---- Columns ----


def _bad_kind(spec: Synthetic, index: Words) -> NDArray[np.int64]:
    """[index]: the place in BAD_REASONS of what is wrong with each."""
    return _below(_draw(spec.seed, _DETAIL, index), 0, 32, len(BAD_REASONS)).astype(np.int64)


def _ids(spec: Synthetic, payload_of: Words, empty: NDArray[np.bool_]) -> pa.Array:
    """UUIDs of version 8 (made by a rule of ours); empty text where `empty`."""
    halves = np.empty((payload_of.size, 2), dtype=">u8")
    high = _draw(spec.seed, _ID_HIGH, payload_of)
    low = _draw(spec.seed, _ID_LOW, payload_of)
    halves[:, 0] = high & np.uint64(_MASK64 ^ 0xF000) | np.uint64(0x8000)
    halves[:, 1] = low >> np.uint64(2) | np.uint64(1 << 63)
    digits = _HEX[halves.view("<u2")].view(np.uint8)
    text = np.empty((payload_of.size, 36), dtype=np.uint8)
    for to, start, length in ((0, 0, 8), (9, 8, 4), (14, 12, 4), (19, 16, 4), (24, 20, 12)):
        text[:, to : to + length] = digits[:, start : start + length]
    text[:, (8, 13, 18, 23)] = ord("-")
    offsets = np.zeros(payload_of.size + 1, dtype=np.int32)
    if empty.any():
        text = text[~empty]
        np.cumsum(np.where(empty, 0, 36), out=offsets[1:])
    else:
        offsets = np.arange(0, 36 * (payload_of.size + 1), 36, dtype=np.int32)
    return pa.StringArray.from_buffers(payload_of.size, pa.py_buffer(offsets), pa.py_buffer(text))


def _times(spec: Synthetic, index: Words) -> NDArray[np.int64]:
    """Microseconds since 1970: evenly over the duration, each late by its own part of `disorder_s`."""
    whole, rest = divmod((spec.duration_s - spec.disorder_s) * 1_000_000, max(spec.events, 1))
    time = index * np.uint64(whole) + index * np.uint64(rest) // np.uint64(max(spec.events, 1))
    if spec.disorder_s:
        # 20 of 32 bits suffice for the second, and keep the product within 64 bits.
        time += _below(_draw(spec.seed, _TIME, index), 0, 20, spec.disorder_s * 1_000_000)
    start_us = (spec.start - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return time.astype(np.int64) + start_us


def _dimensions(spec: Synthetic, payload_of: Words, unpriced: NDArray[np.bool_]) -> dict[str, NDArray[np.int32]]:
    """Dictionary indices of the source and of each dimension."""
    tables = _tables(spec)
    who = _draw(spec.seed, _WHO, payload_of)
    customer = tables.customer[_field(who, 0, tables.customer_bits)]
    number = _below(who, 24, 20, spec.combinations_per_customer)
    combination = _draw(
        spec.seed,
        _COMBINATION,
        customer.astype(np.uint64) * np.uint64(spec.combinations_per_customer) + number,
    )
    model = tables.model[_field(combination, 0, 12)]
    model[unpriced] = spec.models
    return {
        "source": _below(who, 44, 10, len(_SOURCES)).astype(np.int32),
        "customer": customer,
        "project": _below(combination, 12, 14, spec.projects).astype(np.int32),
        "feature": _below(combination, 26, 14, spec.features).astype(np.int32),
        "model": model,
        "region": _below(combination, 40, 14, spec.regions).astype(np.int32),
        "service_tier": tables.tier[_field(combination, 54, 6)],
    }


def _usage(
    spec: Synthetic, payload_of: Words, model: NDArray[np.int32]
) -> dict[str, tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """For each meter: quantities and where it is absent. On average a little over 1,000 tokens an event."""
    tables = _tables(spec)
    word = _draw(spec.seed, _USAGE, payload_of)
    return {
        "input_tokens": (tables.input[_field(word, 0, 12)], np.zeros(word.size, dtype=np.bool_)),
        "cached_input_tokens": (
            (_field(word, 12, 4).astype(np.int64) + 1) << 6,  # prefix blocks of 64 tokens
            _field(word, 16, 2) != 0,
        ),
        "output_tokens": (tables.output[_field(word, 18, 12)], np.zeros(word.size, dtype=np.bool_)),
        "reasoning_tokens": (tables.output[_field(word, 30, 12)] * 2, ~tables.reasons[model]),
        "images": (_field(word, 42, 2).astype(np.int64) + 1, _field(word, 44, 6) != 0),
    }


def batch(spec: Synthetic, first: int, rows: int) -> pa.RecordBatch:
    """Events first .. first+rows-1 (fewer at the end of the spec) as one batch of SCHEMA."""
    tables = _tables(spec)
    index = np.arange(first, min(first + rows, spec.events), dtype=np.uint64)
    classes, payload_of, unpriced = _classes(spec, index)
    dimensions = _dimensions(spec, payload_of, unpriced)
    usage = _usage(spec, payload_of, dimensions["model"])
    duplicates = np.flatnonzero(classes == DUPLICATE)
    timed_as = payload_of.copy()
    retimed = _below(_draw(spec.seed, _DETAIL, index[duplicates]), 32, 32, _PPM) < np.uint64(spec.retimed_ppm)
    timed_as[duplicates[retimed]] = index[duplicates[retimed]]
    times = _times(spec, timed_as)

    # A conflicting event says one token more than its original.
    usage["output_tokens"][0][classes == CONFLICTING] += 1

    bad = np.flatnonzero(classes == BAD)
    kind = np.full(index.size, -1, dtype=np.int64)
    kind[bad] = _bad_kind(spec, index[bad])
    is_bad = {reason: kind == n for n, reason in enumerate(BAD_REASONS)}
    times[is_bad[RejectReason.TIME_OUT_OF_RANGE]] = -86_400_000_000 + 1  # 1969-12-31T00:00:00.000001Z
    dimensions["customer"][is_bad[RejectReason.MISSING_CUSTOMER]] = spec.customers
    usage["input_tokens"][0][is_bad[RejectReason.NEGATIVE_QUANTITY]] *= -1
    usage["output_tokens"][0][is_bad[RejectReason.QUANTITY_TOO_LARGE]] = 2**63 - 1
    for _, absent in usage.values():
        absent |= is_bad[RejectReason.MISSING_METER]

    columns = {
        "id": _ids(spec, payload_of, is_bad[RejectReason.MISSING_ID]),
        "time": pa.array(times).cast(SCHEMA.field("time").type),
        **{
            name: pa.DictionaryArray.from_arrays(indices, tables.dictionaries[name], safe=False)
            for name, indices in dimensions.items()
        },
        **{meter: pa.array(quantity, mask=absent) for meter, (quantity, absent) in usage.items()},
    }
    return pa.RecordBatch.from_arrays([columns[name] for name in SCHEMA.names], schema=SCHEMA)


def batches(spec: Synthetic, first: int = 0, rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
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
