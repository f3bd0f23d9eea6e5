"""Every real payload, read as every kind that its peer reads it as, says what the peer says; and costs what it says.

The peer's words are mapped to our classes here, once.
"""

import gzip
import json
from decimal import Decimal
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from tests.e2e.harness import Pipeline

from flow.adapters.classes import fold
from flow.adapters.reading import Reading, read_payload
from flow.adapters.tables import KINDS

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PAYLOADS, CASES = DATA / "llm_usage_payloads.jsonl.gz", DATA / "llm_usage_rating_cases.jsonl.gz"
pytestmark = pytest.mark.skipif(not PAYLOADS.exists(), reason="the data folder is not there")

CLASS_OF = {
    "input_tokens": "input",
    "input_text_tokens": "input_text",
    "input_audio_tokens": "input_audio",
    "input_image_tokens": "input_image",
    "input_video_tokens": "input_video",
    "input_tool_tokens": "tool_input",
    "input_text_tool_tokens": "tool_text",
    "input_audio_tool_tokens": "tool_audio",
    "input_image_tool_tokens": "tool_image",
    "input_video_tool_tokens": "tool_video",
    "cache_read_tokens": "cached_input",
    "cache_text_read_tokens": "cached_text",
    "cache_audio_read_tokens": "cached_audio",
    "cache_image_read_tokens": "cached_image",
    "cache_video_read_tokens": "cached_video",
    "cache_write_tokens": "cache_write",
    "cache_write_5m_tokens": "cache_write_5m",
    "cache_write_1h_tokens": "cache_write_1h",
    "output_tokens": "output",
    "output_text_tokens": "output_text",
    "output_audio_tokens": "output_audio",
    "output_image_tokens": "output_image",
    "output_video_tokens": "output_video",
    "output_reasoning_tokens": "reasoning",
    "output_citation_tokens": "citation",
    "web_searches": "web_search",
}
METER_OF = {
    "input_mtok": "input_tokens",
    "cache_read_mtok": "cached_input_tokens",
    "cache_write_mtok": "cache_write_tokens",
    "cache_write_1h_mtok": "cache_write_1h_tokens",
    "input_audio_mtok": "input_audio_tokens",
    "cache_audio_read_mtok": "cached_input_audio_tokens",
    "output_mtok": "output_tokens",
    "output_image_mtok": "output_image_tokens",
}


@cache
def payloads() -> dict[int, dict[str, Any]]:
    with gzip.open(PAYLOADS, "rt", encoding="utf-8") as file:
        return {row["n"]: row for row in (json.loads(line, parse_float=Decimal) for line in file)}


def read(row: dict[str, Any], extractor: list[str]) -> Reading:
    """The payload itself, without the parts that its sums leave out."""
    return read_payload(KINDS["/".join(extractor)], row["payload"])[0]


def test_every_payload_says_what_the_peer_reads() -> None:
    compared = 0
    for row in payloads().values():
        for stated in row["normal_usage_by_extractor"]:
            usage = {CLASS_OF[name]: quantity for name, quantity in stated["usage"].items()}
            for extractor in stated["extractors"]:
                assert read(row, extractor).gross == usage, (row["n"], extractor)
                compared += 1
    assert compared > 6000


def test_meters_are_disjoint() -> None:
    for row in payloads().values():
        for stated in row["normal_usage_by_extractor"]:
            reading = read(row, stated["extractors"][0])
            tokens = {name: quantity for name, quantity in reading.meters.items() if name.endswith("_tokens")}
            assert sum(tokens.values()) == reading.gross.get("input", 0) + reading.gross.get("output", 0), row["n"]


def usd_per_token(price: Any, input_tokens: int) -> Fraction:
    """Of a price per million, which may hang on how long the input is. Some are finer than our grid."""
    if isinstance(price, dict):
        above = [tier["price"] for tier in price["tiers"] if input_tokens > tier["above_input_tokens"]]
        price = above[-1] if above else price["base"]
    return Fraction(price) / 1_000_000


def charge_usd(reading: Reading, prices: dict[str, Any]) -> dict[str, Fraction]:
    """Quantity times rate, summed up by side; a meter without a price is charged as what it is a part of."""
    rates = {METER_OF[name]: usd_per_token(price, reading.gross.get("input", 0)) for name, price in prices.items()}
    charge = {"input": Fraction(0), "output": Fraction(0)}
    for meter, quantity in fold(reading.meters, rates).items():
        charge["output" if meter.startswith("output") else "input"] += quantity * rates.get(meter, 0)
    return charge


@cache
def cases() -> list[dict[str, Any]]:
    with gzip.open(CASES, "rt", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def extractors_of(case: dict[str, Any]) -> list[list[str]]:
    """The kinds of the case's provider that read its usage from its payload."""
    stated = payloads()[case["payload_n"]]["normal_usage_by_extractor"]
    same = [found["extractors"] for found in stated if found["usage"] == case["usage"]]
    return [extractor for extractors in same for extractor in extractors if extractor[0] == case["provider"]]


def test_every_rating_case_costs_what_it_says() -> None:
    assert len(cases()) > 800
    for case in cases():
        kinds = extractors_of(case)
        assert kinds, case["id"]
        for extractor in kinds:
            charge = charge_usd(read(payloads()[case["payload_n"]], extractor), case["prices_usd_per_million"])
            assert charge["input"] == Fraction(case["expected_input_usd"]), (case["id"], extractor)
            assert charge["output"] == Fraction(case["expected_output_usd"]), (case["id"], extractor)


# ---- The same, by a run ----

CONTEXT = "[input_tokens, cached_input_tokens, cache_write_tokens, cache_write_1h_tokens]"


def price_rows(model: str, prices: dict[str, Any]) -> list[str]:
    """Rows of a price book for one model."""
    rows = []
    for name, price in prices.items():
        base, tiers = (price["base"], price["tiers"]) if isinstance(price, dict) else (price, [])
        above = ", ".join(f'{{above: {tier["above_input_tokens"]}, price: "{tier["price"]}"}}' for tier in tiers)
        tiered = f", above: [{above}], context: {CONTEXT}" if tiers else ""
        money = "free: true" if Fraction(base) == 0 else f'price: "{base}"'
        held = f"model: {model}, meter: {METER_OF[name]}, from: 2020-01-01T00:00:00Z"
        rows.append(f"  - {{{held}, per: 1_000_000, {money}{tiered}}}")
    return rows


def test_a_run_charges_every_rating_case(tmp_path: Path) -> None:
    """A customer a case, a model a set of prices; what stands in no payload of the case needs no price."""
    books: dict[str, str] = {}
    rows, lines = ["currency: USD", "prices:"], []
    expected: dict[str, Fraction] = {}
    for case in cases():
        prices, extractor = case["prices_usd_per_million"], extractors_of(case)[0]
        reading = read(payloads()[case["payload_n"]], extractor)
        usage = fold(reading.meters, {METER_OF[name] for name in prices})
        used = {name: price for name, price in prices.items() if METER_OF[name] in usage}
        if not used:
            continue
        key = json.dumps(used)
        if key not in books:
            books[key] = f"model-{len(books)}"
            rows += price_rows(books[key], used)
        event = {"id": case["id"], "customer": case["id"], "model": books[key], "usage": usage}
        lines.append(json.dumps({**event, "time": "2026-11-01T12:00:00Z"}))
        expected[case["id"]] = Fraction(case["expected_input_usd"]) + Fraction(case["expected_output_usd"])
    assert len(expected) > 800
    pipeline = Pipeline(tmp_path, prices="\n".join(rows) + "\n")
    (tmp_path / "events" / "cases.ndjson").write_text("\n".join(lines) + "\n")
    pipeline.run()
    charged = pipeline.rows("SELECT customer, toString(sum(amount)) FROM usage_by_month GROUP BY customer")
    assert {customer: Fraction(amount) for customer, amount in charged} == expected
