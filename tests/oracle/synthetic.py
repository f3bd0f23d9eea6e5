"""Synthetic events one by one, in plain Python: the second generator, which shares nothing with the first but names.

Source and dimensions are told by their codes: places among the names that the first one has tables of.
"""

from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

from flow.errors import RejectReason
from flow.generate import BAD_REASONS, METERS, MODELS, REASONING_MODELS, Synthetic

Columns = dict[str, Any]

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
DENSE = Synthetic(
    seed=7,
    events=3000,
    customers=40,
    duplicate_ppm=150_000,
    retimed_ppm=500_000,
    conflicting_ppm=60_000,
    bad_ppm=80_000,
    unpriced_ppm=70_000,
    duplicate_distance_max=200,
    disorder_s=300,
)
"""Everything rare is frequent, so that a few hundred events show every class."""

REASONING = [MODELS.index(name) for name in REASONING_MODELS]
CLASS, DETAIL, ID_HIGH, ID_LOW, WHO, USAGE, TIME, COMBINATION = range(8)


def mix(word: int) -> int:
    """The finaliser of splitmix64."""
    word ^= word >> 30
    word = word * 0xBF58476D1CE4E5B9 & MASK
    word ^= word >> 27
    word = word * 0x94D049BB133111EB & MASK
    return word ^ word >> 31


def draw(seed: int, what: int, index: int) -> int:
    return mix((mix((index + mix((seed * 8 + what) * GOLDEN & MASK)) & MASK) + GOLDEN) & MASK)


def below(word: int, shift: int, bits: int, bound: int) -> int:
    return (word >> shift) % 2**bits * bound >> bits


@lru_cache
def shares(count: int, exponent_permille: int, slots: int) -> list[int]:
    """Which of `count` things each slot stands for: a slot each, and the others by a power of their rank."""
    context = Context(prec=24)
    weights = [
        int(context.power(Decimal(k), -Decimal(exponent_permille) / 1000).scaleb(18)) + 1 for k in range(1, count + 1)
    ]
    before, end, of_slot = 0, 0, []
    for thing, weight in enumerate(weights):
        before += weight
        last, end = end, before * (slots - count) // sum(weights)
        of_slot += [thing] * (end - last + 1)
    return of_slot


def log_uniform(lowest: int, octaves: int, step: int) -> int:
    octave, within = divmod(step * octaves, 4096)
    return int((lowest << octave) * (1 + Fraction(within, 4096)))


def drawn_class(spec: Synthetic, index: int) -> str:
    ppm = below(draw(spec.seed, CLASS, index), 0, 32, 1_000_000)
    for name in ("duplicate", "conflicting", "bad", "unpriced"):
        ppm -= getattr(spec, f"{name}_ppm")
        if ppm < 0:
            return name
    return "plain"


def codes(spec: Synthetic, payload_of: int, unpriced: bool) -> dict[str, int]:
    slots = 2**16
    while slots < 16 * spec.customers:
        slots *= 2
    who = draw(spec.seed, WHO, payload_of)
    customer = shares(spec.customers, spec.zipf_permille, slots)[who % slots]
    number = customer * spec.combinations_per_customer + below(who, 24, 20, spec.combinations_per_customer)
    combination = draw(spec.seed, COMBINATION, number)
    return {
        "source": below(who, 44, 10, 4),
        "customer": customer,
        "project": below(combination, 12, 14, spec.projects),
        "feature": below(combination, 26, 14, spec.features),
        "model": spec.models if unpriced else shares(spec.models, 1000, 4096)[combination % 4096],
        "region": below(combination, 40, 14, spec.regions),
        "service_tier": shares(3, 2500, 64)[combination >> 54 & 63],
    }


def time_of(spec: Synthetic, index: int) -> datetime:
    spread_us = (spec.duration_s - spec.disorder_s) * 10**6
    whole, rest = divmod(spread_us, spec.events)
    time_us = index * whole + index * rest // spec.events
    assert 0 <= Fraction(spread_us * index, spec.events) - time_us < 1
    late_us = below(draw(spec.seed, TIME, index), 0, 20, spec.disorder_s * 10**6)
    return spec.start + timedelta(microseconds=time_us + late_us)


def event(spec: Synthetic, index: int) -> tuple[str, Columns]:
    """What event `index` is, and its columns."""
    kind, payload_of, timed_as = drawn_class(spec, index), index, index
    detail = draw(spec.seed, DETAIL, index)
    if kind in ("duplicate", "conflicting"):
        original = index - 1 - below(detail, 0, 32, min(index, spec.duplicate_distance_max))
        if original < 0 or drawn_class(spec, original) not in ("plain", "unpriced"):
            kind = "plain"
        else:
            payload_of = timed_as = original
            if kind == "duplicate" and below(detail, 32, 32, 1_000_000) < spec.retimed_ppm:
                timed_as = index
    unpriced = (kind if payload_of == index else drawn_class(spec, payload_of)) == "unpriced"
    high, low = draw(spec.seed, ID_HIGH, payload_of), draw(spec.seed, ID_LOW, payload_of)
    text = f"{high & ~0xF000 | 0x8000:016x}{low >> 2 | 1 << 63:016x}"
    usage = draw(spec.seed, USAGE, payload_of)
    columns: Columns = {
        "id": f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}",
        "time": time_of(spec, timed_as),
        "input_tokens": log_uniform(8, 9, usage % 4096),
        "cached_input_tokens": ((usage >> 12) % 16 + 1) * 64 if (usage >> 16) % 4 == 0 else None,
        "output_tokens": log_uniform(4, 8, (usage >> 18) % 4096) + (kind == "conflicting"),
        "reasoning_tokens": None,
        "images": (usage >> 42) % 4 + 1 if (usage >> 44) % 64 == 0 else None,
    }
    placed = codes(spec, payload_of, unpriced)
    if placed["model"] in REASONING and not unpriced:
        columns["reasoning_tokens"] = 2 * log_uniform(4, 8, (usage >> 30) % 4096)
    columns |= placed
    if kind == "bad":
        spoil(columns, BAD_REASONS[below(detail, 0, 32, len(BAD_REASONS))], spec)
    return kind, columns


def spoil(columns: Columns, reason: RejectReason, spec: Synthetic) -> None:
    match reason:
        case RejectReason.MISSING_ID:
            columns["id"] = ""
        case RejectReason.TIME_OUT_OF_RANGE:
            columns["time"] = datetime(1969, 12, 31, 0, 0, 0, 1, tzinfo=UTC)
        case RejectReason.MISSING_CUSTOMER:
            columns["customer"] = spec.customers
        case RejectReason.MISSING_METER:
            columns.update(dict.fromkeys(METERS))
        case RejectReason.NEGATIVE_QUANTITY:
            columns["input_tokens"] = -columns["input_tokens"]
        case RejectReason.QUANTITY_TOO_LARGE:
            columns["output_tokens"] = 2**63 - 1
