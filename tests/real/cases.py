"""What is known about each real trace, in a form that columns, or a run, can be held against.

`truth_cases()` is one case a data file. The truth files were made without this project, in plain integers and
decimals.

Price plans A and B can be loaded as price files. Plan C cannot: its output price of 1.142857142857143 USD per
million is 1142857142.857143 in 10^-15 USD a token, which is not whole, so no price book takes it. Its charges
are computed from the quantities, which `TruthCase.charge` does for any plan.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

BASE_TIME = datetime(2026, 1, 5, tzinfo=UTC)

PLANS = {"A": "A_list_price", "B": "B_small_price", "C": "C_finer_than_picodollar"}
PRICE_FILE_PLANS = ("A", "B")

Totals = dict[str, int]


@dataclass(frozen=True)
class TruthCase:
    """One data file: how to make events of it and what a run over them must find.

    All totals are by meter; in buckets and totals `requests` is the implicit meter.
    """

    name: str
    kind: str
    """The KIND of `tallyflow trace`."""
    data: Path
    arguments: tuple[str, ...]
    """Further arguments of `tallyflow trace`."""
    truth: Mapping[str, Any]
    input_meters: tuple[str, ...]
    """The meters that together are the truth's input tokens."""
    output_meters: tuple[str, ...]
    unbilled: tuple[str, ...]
    totals: Totals
    by_hour: Mapping[datetime, Totals]
    """By window start: requests, input_tokens (all input_meters), output_tokens. Empty: not in the truth."""
    by_minute: Mapping[datetime, Totals]
    by_customer: Mapping[str, Totals]
    by_model: Mapping[str, Totals]
    by_day: Mapping[datetime, Totals]
    requests_meter: str
    """The meter that counts the trace's requests: `requests` if an event is a request."""
    charge_grain: str
    """The grain of the truth's charges per bucket: `hour`, `minute`, or empty."""

    def prices(self, plan: str) -> str:
        """A price file for a plan of PRICE_FILE_PLANS; cached input costs the same as other input."""
        usd = self.truth["charges"][PLANS[plan]]["usd_per_million_tokens"]
        return _price_file(
            {
                **dict.fromkeys(self.input_meters, usd["input"]),
                **dict.fromkeys(self.output_meters, usd["output"]),
            },
            self.unbilled,
        )

    def charge(self, plan: str, input_tokens: int, output_tokens: int) -> Fraction:
        """The exact charge in USD of these quantities."""
        usd = self.truth["charges"][PLANS[plan]]["usd_per_million_tokens"]
        return (Fraction(usd["input"]) * input_tokens + Fraction(usd["output"]) * output_tokens) / 10**6

    def expected_charge(self, plan: str) -> Decimal:
        """The truth's charge over the whole trace, exact."""
        return Decimal(self.truth["charges"][PLANS[plan]]["charge_usd_exact"])

    def expected_charges(self, plan: str) -> dict[datetime, Decimal]:
        """The truth's exact charge of each bucket of `charge_grain`."""
        buckets = self.truth["charges"][PLANS[plan]].get("charge_usd_exact_per_bucket", {})
        return {_bucket(key): Decimal(text) for key, text in buckets.items()}

    def cached_prices(self) -> str:
        """The price file of the truth's `prefix_cache` part, in which cached input is cheaper."""
        usd = self.truth["prefix_cache"]["usd_per_million_tokens"]
        prices = {f"{meter}_tokens": usd[meter] for meter in ("input", "cached_input", "output")}
        return _price_file(prices, self.unbilled)


def truth_cases() -> list[TruthCase]:
    """A case for each trace with a truth file; empty if there is no data folder."""
    cases = []
    for path in sorted(DATA.glob("truth_*.json")):
        name = path.stem.removeprefix("truth_")
        data = next(iter(DATA.glob(f"{name}.*")))
        truth = json.loads(path.read_text(encoding="utf-8"))
        kind = name.split("_", 1)[0]
        cases.append(_servegen_case(name, data, truth) if kind == "servegen" else _request_case(name, data, truth))
    return cases


def _price_file(usd_per_million: Mapping[str, str], unbilled: tuple[str, ...]) -> str:
    lines = ["currency: USD", f"unbilled: [{', '.join(unbilled)}]", "prices:"]
    lines += [
        f'  - {{meter: {meter}, from: 2020-01-01T00:00:00Z, per: 1_000_000, price: "{price}"}}'
        for meter, price in usd_per_million.items()
    ]
    return "\n".join(lines) + "\n"


def _bucket(key: str) -> datetime:
    """The window start that a bucket of a truth file names."""
    unit, _, number = key.partition("_")
    if unit in ("minute", "hour"):
        return BASE_TIME + timedelta(**{f"{unit}s": int(number)})
    return datetime.fromisoformat(key.replace("Z", "")).replace(tzinfo=UTC)


def _buckets(buckets: Mapping[str, Mapping[str, Any]]) -> dict[datetime, Totals]:
    return {_bucket(key): _totals(bucket) for key, bucket in buckets.items()}


def _totals(numbers: Mapping[str, Any]) -> Totals:
    """requests, input_tokens and output_tokens, whatever the truth calls them there."""
    return {
        "requests": numbers["requests"],
        "input_tokens": numbers.get("input_tokens", numbers.get("prompt_tokens")),
        "output_tokens": numbers.get("output_tokens", numbers.get("completion_tokens")),
    }


def _request_case(name: str, data: Path, truth: dict[str, Any]) -> TruthCase:
    """A trace of single requests."""
    kind = name.split("_", 1)[0]
    totals = _totals(truth)
    if "prefix_cache" in truth:
        cached = truth["prefix_cache"]["cached_input_tokens"]
        totals |= {"cached_input_tokens": cached, "input_tokens": totals["input_tokens"] - cached}
    charged = truth["charges"][PLANS["A"]]["charge_usd_exact_per_bucket"]
    return TruthCase(
        name=name,
        kind=kind,
        data=data,
        arguments=(),
        truth=truth,
        input_meters=("input_tokens", "cached_input_tokens") if "prefix_cache" in truth else ("input_tokens",),
        output_meters=("output_tokens",),
        unbilled=(),
        totals=totals,
        by_hour=_buckets(truth.get("per_hour", {})),
        by_minute=_buckets(truth.get("per_minute", {})),
        by_customer={},
        by_model={key.replace("null", ""): _totals(of) for key, of in truth.get("per_model", {}).items()},
        by_day=_buckets(truth.get("per_day", {})),
        requests_meter="requests",
        charge_grain="minute" if set(charged) == set(truth.get("per_minute", {})) else "hour",
    )


_SERVEGEN_NAMES = {
    "requests": "published_requests",
    "sum_input_tokens": "input_tokens",
    "sum_output_tokens": "output_tokens",
}


def _servegen_case(name: str, data: Path, truth: dict[str, Any]) -> TruthCase:
    """A trace of published counts, taken with --totals."""

    def renamed(numbers: Mapping[str, int]) -> Totals:
        return {_SERVEGEN_NAMES.get(key, key): number for key, number in numbers.items()}

    totals = renamed(truth["totals"])
    return TruthCase(
        name=name,
        kind="servegen",
        data=data,
        arguments=("--totals",),
        truth=truth,
        input_meters=("input_tokens",),
        output_meters=("output_tokens",),
        unbilled=(
            "published_requests",
            "samples_input_tokens",
            "samples_output_tokens",
            "samples_reason_ratio",
            "histograms_kept_as_probabilities",
        ),
        totals=totals,
        by_hour={_bucket(key): {"published_requests": of} for key, of in truth["requests_per_hour"].items()},
        by_minute={},
        by_customer={key: renamed(of) for key, of in truth["per_client"].items()},
        by_model={},
        by_day={},
        requests_meter="published_requests",
        charge_grain="",
    )
