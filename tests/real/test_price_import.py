"""The public price files import whole: every price in the book is the one of the file, and what is not is named.

The files are read once more here, in fractions and by other code than the import's.
"""

import gzip
import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.prices.importing.collect import Imported, Kind
from flow.prices.importing.formats import Format, import_file
from flow.prices.importing.write import book_text
from flow.prices.price import Price

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
LITELLM = DATA / "prices_litellm_2026-11.json.gz"
HISTORY = DATA / "price_history_model_prices.json.gz"
pytestmark = pytest.mark.skipif(not LITELLM.exists(), reason="the data folder is not there")

MILLION = 10**6
NEAR = Fraction(1, 10**15)
"""Less than what two neighbouring doubles differ by, relative to their size."""


def book_of(imported: Imported) -> PriceBook:
    return parse_price_book(book_text(imported, "a test"), "book.yaml")


def by_names(book: PriceBook) -> dict[tuple[str, str, str], list[Price]]:
    """Prices by (model, service tier, meter)."""
    found: dict[tuple[str, str, str], list[Price]] = {}
    for price in book.prices:
        model, tier, _, _ = price.selector
        found.setdefault((model or "", tier or "", price.meter), []).append(price)
    return found


def usd(price: str, per: int) -> Fraction:
    return Fraction(price) / per


# ---- LiteLLM ----

PLAIN = {
    "input_cost_per_token": "input_tokens",
    "output_cost_per_token": "output_tokens",
    "cache_read_input_token_cost": "cached_input_tokens",
    "cache_creation_input_token_cost": "cache_write_tokens",
    "cache_creation_input_token_cost_above_1hr": "cache_write_1h_tokens",
    "input_cost_per_audio_token": "input_audio_tokens",
}
TIERS = {"": "", "_batches": "batch", "_flex": "flex", "_priority": "priority"}


def token_prices(models: dict[str, Any]) -> Iterator[tuple[str, str, str, int, str]]:
    """(model, service tier, meter, edge, text) of the keys that most models have."""
    for model, found in models.items():
        for key, text in found["usd_per_token"].items():
            match = re.fullmatch(r"(.+?)(?:_above_(\d+)k_tokens)?(_batches|_flex|_priority|)", key)
            if match is not None and match[1] in PLAIN:
                yield model, TIERS[match[3]], PLAIN[match[1]], int(match[2] or 0) * 1000, text


def test_every_litellm_price_is_in_the_book_or_named() -> None:
    models = json.loads(gzip.decompress(LITELLM.read_bytes()))["models"]
    imported = import_file(Format.LITELLM, LITELLM)
    prices = by_names(book_of(imported))
    left_out = {remark.where for remark in imported.remarks if remark.kind is Kind.LEFT_OUT}
    checked, inexact = 0, set()
    for model, tier, meter, edge, text in token_prices(models):
        found = prices.get((model, tier, meter))
        if found is None:
            assert f"{model}: {meter}" in left_out
            continue
        (price,) = found
        edges = {0: usd(price.price, price.per), **{t.above: usd(t.price, t.per) for t in price.tiers}}
        written = Fraction(text)
        if edges[edge] != written:
            assert abs(edges[edge] - written) <= NEAR * written
            inexact.add((model, text))
        checked += 1
    snapped = {(remark.where.split(": ")[0], remark.text) for remark in imported.remarks if remark.kind is Kind.SNAPPED}
    assert checked > 12_000
    assert all(any(model == of and told.startswith(text) for of, told in snapped) for model, text in inexact)
    assert {model for model, *_ in token_prices(models)} - {model for model, *_ in prices} <= {
        where.split(": ")[0] for where in left_out
    }


def test_litellm_noise_is_what_was_counted_by_other_means() -> None:
    precision = json.loads((DATA / "price_precision.json").read_text())["sources"][0]
    remarks = import_file(Format.LITELLM, LITELLM).remarks
    snapped = {remark.where for remark in remarks if remark.kind is Kind.SNAPPED}
    artefacts = {found["where"] for found in precision["float_artefacts"]}
    # What is finer for other reasons is kept as it stands, or is a price in yuan at 7 to the dollar, cut by a double.
    sevenths = {found["where"] for found in precision["genuinely_finer"] if found["where"].startswith("bigmodel/")}
    assert len(artefacts) == 56
    assert len(sevenths) == 6
    assert snapped == artefacts | sevenths
    assert [remark for remark in remarks if remark.kind is Kind.LEFT_OUT and "finer" in remark.text] == []


# ---- The dated history ----


def slow_rates(root: dict[str, Any], provider: str, model: str, at: datetime) -> dict[str, Any] | None:
    """The standard rates in force at an instant, times what the schedules say."""
    rates = None
    for row in root["prices"][provider][model]["standard"]:
        if row["start"] is None or datetime.fromisoformat(row["start"]) <= at:
            rates = row["rates"]
    return None if rates is None else {**rates, "factor": slow_factor(root["schedules"], provider, model, at)}


def slow_factor(schedules: dict[str, Any], provider: str, model: str, at: datetime) -> Fraction:
    for rule in schedules["schedule"]:
        begins, ends = rule["valid_from"], rule.get("valid_until", "2100-01-01T00:00:00Z")
        if rule["provider"] != provider or not datetime.fromisoformat(begins) <= at < datetime.fromisoformat(ends):
            continue
        clock = f"{at:%H:%M}"
        kind = "peak" if "peak_multiplier" in rule else "off_peak"
        within = any(
            first <= clock < last if first <= last else clock >= first or clock < last
            for first, last in rule[f"{kind}_hours_utc"]
        )
        calendar = schedules["holidays"].get(rule.get("holidays"), {"dates": [], "utc_offset_hours": 0})
        day = (at + timedelta(hours=calendar["utc_offset_hours"])).date().isoformat()
        working = not (rule.get("weekdays_only") and at.weekday() >= 5) and day not in calendar["dates"]
        factors = rule[f"{kind}_multiplier"]
        factor = factors.get(model, 1) if isinstance(factors, dict) else factors
        return Fraction(str(factor)) if within and working else Fraction(1)
    return Fraction(1)


def instants(root: dict[str, Any], provider: str, model: str) -> Iterator[datetime]:
    """Each start and the second before it, and times of the day around the schedules."""
    for row in root["prices"][provider][model]["standard"]:
        if row["start"] is not None:
            yield datetime.fromisoformat(row["start"])
            yield datetime.fromisoformat(row["start"]) - timedelta(seconds=1)
    if provider in {rule["provider"] for rule in root["schedules"]["schedule"]}:
        for day in ("2025-02-26", "2025-09-05", "2026-08-16", "2026-09-30", "2026-10-01", "2026-10-03", "2026-11-02"):
            for clock in ("00:15", "01:00", "03:59", "04:00", "08:00", "10:00", "13:59", "15:59", "16:29", "16:31"):
                yield datetime.fromisoformat(f"{day}T{clock}:00+00:00")


def test_the_history_says_the_same_at_every_instant() -> None:
    root = json.loads(gzip.decompress(HISTORY.read_bytes()), parse_float=str)
    imported = import_file(Format.MODELS_DEV, HISTORY)
    prices = by_names(book_of(imported))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    checked = Counter[str]()
    for provider, models in root["prices"].items():
        for model in models:
            name = f"{provider}/{model}"
            for at in instants(root, provider, model):
                rates = slow_rates(root, provider, model, at)
                edges = [tier["above"] for tier in (rates or {}).get("tiers", ())]
                for context in (1, *edges, *(edge + 1 for edge in edges)):
                    usage = (("input_tokens", context), ("output_tokens", 1))
                    event = Event((at - epoch) // timedelta(microseconds=1), usage, {"model": name})
                    of_model = [p for meter in ("input_tokens", "output_tokens") for p in prices[name, "", meter]]
                    amounts = [amount for _, _, amount in rate_event(of_model, (), event)[:2]]
                    if rates is None:
                        assert amounts == [None, None]
                        continue
                    tier = [tier for tier in rates.get("tiers", ()) if context > tier["above"]]
                    in_force = {**rates, **(tier[-1] if tier else {})}
                    for (_, quantity), key, amount in zip(usage, ("input", "output"), amounts, strict=False):
                        expected = Fraction(str(in_force[key])) * rates["factor"] * quantity / MILLION
                        assert amount is not None
                        assert abs(amount / 10**15 - expected) <= NEAR * expected, (name, at, key)
                        checked[key] += 1
    assert checked["input"] > 1_500
    snapped = [remark for remark in imported.remarks if remark.kind is Kind.SNAPPED]
    assert len(snapped) == 17
    assert imported.models == sum(len(models) for models in root["prices"].values())
