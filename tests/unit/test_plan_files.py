"""Goal: a plan's YAML means what docs/plans.md says, or is refused with every error at its line; and the command.

Method: the documented plans are read and rated; one bad file with an error of each kind, and its exact messages.
"""

import json
import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from flow.cli.plan import plan as plan_commands
from flow.errors import ConfigError, PlanError
from flow.plans.events import Percentage
from flow.plans.lines import FEMTO, Limits, Rounding
from flow.plans.models import Blocks, BlockTier, Flat, Packages, Tier, Tiered
from flow.plans.plan import Charge, Plan
from flow.plans.quantities import Conversion, DiscountTier, UsageDiscount
from flow.plans.rating import rate
from flow.plans.reading import load_plan, parse_plan

DOCS = Path(__file__).resolve().parents[2] / "docs" / "plans.md"

SEED = """\
plan: scale-2026
currency: USD
accumulate: contract
charges:
  - meter: output_tokens
    model: graduated
    tiers:
      - {up_to: 10_000_000, price: "5", per: 1_000_000}
      - {up_to: 100_000_000, price: "4", per: 1_000_000}
      - {price: "3", per: 1_000_000}
"""


def model_of(text: str) -> Any:
    """The model of a charge, which is written in one line."""
    charge = f"plan: p\ncurrency: USD\naccumulate: period\ncharges:\n  - {{meter: m, {text}}}\n"
    return parse_plan(charge, "p.yaml").charges[0]


def money(amount: str) -> Fraction:
    return Fraction(amount) * FEMTO


@pytest.mark.parametrize(
    ("text", "model"),
    [
        ('model: per_unit, price: "1", per: 12', Tiered((Tier(None, money("1") / 12),))),
        ("model: per_unit, free: true", Tiered((Tier(None),))),
        (
            'model: graduated, zero_usage_flat_fee: true, tiers: [{up_to: "0.5", flat_fee: 7}, {percent: "2.5"}]',
            Tiered((Tier(Fraction(1, 2), Fraction(0), money("7")), Tier(None, money("0.025"))), False, True),
        ),
        (
            'model: volume, tiers: [{up_to: 5, price: ".5", flat_fee: "1"}, {free: true}]',
            Tiered((Tier(Fraction(5), money("0.5"), money("1")), Tier(None)), True),
        ),
        (
            "model: stair_step, tiers: [{up_to: 5, flat_fee: 1}, {up_to: 1_0, flat_fee: 2}]",
            Tiered((Tier(Fraction(5), Fraction(0), money("1")), Tier(Fraction(10), Fraction(0), money("2"))), True),
        ),
        (
            'model: package, size: 1_000, price: "0.35", free_units: 100, begun: free',
            Packages(Fraction(1000), money("0.35"), Fraction(100), "free"),
        ),
        (
            "model: graduated_blocks, tiers: [{block_size: 100, blocks_max: 9, price: 1}, {block_size: 5, free: true}]",
            Blocks((BlockTier(Fraction(100), money("1"), 9), BlockTier(Fraction(5), Fraction(0)))),
        ),
        (
            "model: volume_blocks, tiers: [{block_size: 100, price: 1}]",
            Blocks((BlockTier(Fraction(100), money("1")),), whole=True),
        ),
        (
            'model: percentage, percent: "2.9", fee_per_event: "0.30", free_events: 3, free_amount: 50, '
            "minimum_per_event: 1, maximum_per_event: 12",
            Percentage(Fraction("2.9"), money("0.3"), 3, Fraction(50), min_femto=money("1"), max_femto=money("12")),
        ),
        ("model: flat, price: 99", Flat(money("99"))),
    ],
)
def test_every_model_can_be_written(text: str, model: Any) -> None:
    assert model_of(text) == Charge("m", model)


def test_every_term_of_a_charge_and_of_a_plan_can_be_written() -> None:
    found = parse_plan(
        """\
plan: all-terms
currency: KWD
accumulate: period
rounding: {rule: half-up, digits: 3, at: line}
minimum: "10"
maximum: "1_000.5"
charges:
  - meter: bytes
    model: per_unit
    price: "2"
    conversion: {divide: 1_000, rounding: ceil, digits: 1}
    usage_discount: {quantity: 5, tiers: [{up_to: 10, percent: 0}, {percent: "12.5"}]}
    discount_percent: 10
    minimum: 1
    maximum: 2
  - meter: seconds
    model: per_unit
    price: "2"
    conversion: {multiply: 60}
    usage_discount: {percent: 50}
""",
        "p.yaml",
    )
    two = Tiered((Tier(None, money("2")),))
    thousands = Charge(
        "bytes",
        two,
        Conversion(Fraction(1, 1000), "ceil", 1),
        UsageDiscount(Fraction(5), (DiscountTier(Fraction(10), Fraction(0)), DiscountTier(None, Fraction("12.5")))),
        Fraction(10),
        Limits(money("1"), money("2")),
    )
    minutes = Charge("seconds", two, Conversion(Fraction(60)), UsageDiscount(tiers=(DiscountTier(None, Fraction(50)),)))
    limits = Limits(money("10"), money("1000.5"))
    assert found == Plan("all-terms", "KWD", (thousands, minutes), "period", Rounding("half-up", 3, "line"), limits)


BAD = """\
plan: scale 2026
currency: usd
accumulate: year
rounding: {rule: half_even, digits: 17}
minimum: 0.5
maxium: "7"
charges:
  - meter: output_tokens
    model: graduated
    zero_usage_flat_fee: maybe
    tiers:
      - {up_to: 10, price: "5", per: 0}
      - {up_to: 9, price: "0"}
      - {flat_fee: "-1"}
      - {up_to: 11}
    conversion: {divide: "0"}
    usage_discount: {}
  - {meter: Seats, model: packge, size: 5}
  - {meter: pages, model: package, size: 0, price: "0.5", begun: half}
  - {meter: money, model: percentage, percent: "3", minimum_per_event: 5, maximum_per_event: 4}
  - {meter: m, model: per_unit, price: "1", free: true, conversion: {multiply: 2, divide: 2}}
  - {meter: m, model: volume, tiers: [{percent: 2, price: "1"}], usage_discount: {percent: 2, tiers: []}}
  - {meter: m, model: stair_step, tiers: [{price: "1"}]}
  - {meter: m, model: graduated_blocks, tiers: [{price: "1"}]}
  - {meter: m}
  - flat
"""

ERRORS = """\
1: plan: 'scale 2026' is not a name of letters, digits, . _ and -
2: currency: 'usd' is not a currency; write three capital letters: USD
3: accumulate: 'year' is none of these; known here: period, contract
4: rounding.rule: 'half_even' is none of these; did you mean half-even?
4: rounding.digits: amounts have 15 digits; write 0 to 15
5: minimum: '0.5' has been a float; quote it: minimum: "0.5"
6: maxium: unknown key; did you mean maximum?
10: charges[0].zero_usage_flat_fee: 'maybe' is neither true nor false
12: charges[0].tiers[0].per: '0' is not a whole number above 0; write 1 or 1_000_000
13: charges[0].tiers[1].up_to: is not above the tier before; sort the tiers
13: charges[0].tiers[1].price: a price of 0 is said: free: true
14: charges[0].tiers[2].up_to: is missing
14: charges[0].tiers[2].flat_fee: '-1' is not a decimal number that is at least 0
15: charges[0].tiers[3].flat_fee: a tier has a price, a flat_fee, or both; or write free: true
16: charges[0].conversion.divide: '0' is not above 0
17: charges[0].usage_discount.quantity: either quantity, percent or tiers is needed
18: charges[1].meter: 'Seats' is not a meter: a small letter, then small letters, digits and _, 64 at most
18: charges[1].model: 'packge' is none of these; did you mean package?
19: charges[2].size: '0' is not above 0
19: charges[2].begun: 'half' is none of these; known here: whole, free
20: charges[3]: the most that an event costs is not below the least
21: charges[4].price: what is free has no price; drop one of the two
21: charges[4].conversion.divide: either multiply or divide is needed, by how much
22: charges[5].tiers[0].price: stands beside percent; drop one of the two
22: charges[5].usage_discount.tiers: stands beside percent; drop one of the two
22: charges[5].usage_discount.tiers: a list of at least one is expected, not a list
23: charges[6].tiers[0].price: unknown key; known here: up_to, flat_fee, free
23: charges[6].tiers[0].flat_fee: a tier has a price, a flat_fee, or both; or write free: true
24: charges[7].tiers[0].block_size: is missing
25: charges[8].model: is missing
26: charges[9]: a mapping of meter, model, conversion, usage_discount, discount_percent, minimum, maximum is \
expected, not 'flat'
"""


def test_every_error_of_a_plan_has_its_line_and_mend() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_plan(BAD, "p.yaml")
    assert "\n".join(caught.value.errors) + "\n" == re.sub("^", "p.yaml:", ERRORS, flags=re.MULTILINE)[:-7]


def test_what_cannot_hold_together_is_an_error_of_the_plan() -> None:
    text = SEED.replace("charges:", 'minimum: "5"\nmaximum: "4"\ncharges:')
    with pytest.raises(ConfigError, match=r"p\.yaml:1: minimum and maximum are not below 0, and the minimum is not"):
        parse_plan(text, "p.yaml")
    with pytest.raises(ConfigError, match="charges: is missing"):
        parse_plan(SEED[: SEED.index("charges")], "p.yaml")


def test_the_documented_plans_are_rated_as_documented() -> None:
    text = DOCS.read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert SEED in blocks
    plans = [parse_plan(block, "docs/plans.md") for block in blocks if block.startswith("plan:")]
    assert len(plans) >= 2
    for found in plans:
        usage = {charge.meter: [1] if isinstance(charge.model, Percentage) else 1 for charge in found.charges}
        assert rate(found, usage).currency == found.currency


# ---- The command ----


def run(tmp_path: Path, *arguments: str, text: str = SEED) -> Any:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    app = typer.Typer()
    app.add_typer(plan_commands, name="plan")
    return CliRunner().invoke(app, ["plan", "rate", str(path), *arguments], env={"COLUMNS": "120"})


def test_the_table_shows_each_tier_of_each_period(tmp_path: Path) -> None:
    result = run(tmp_path, "--quantity", "9_900_000,100_000_000")
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["2", "output_tokens", "usage", "2", "90,000,000", "0.000004", "360.00"] in rows
    assert ["2", "total", "390.20"] in rows
    assert rows[-1] == ["439.70", "USD", "in", "all"]
    again = run(tmp_path, "--quantity", "9_900_000,100_000_000", text=SEED.replace("contract", "period"))
    assert ["2", "total", "410.00"] in [line.split() for line in again.stdout.splitlines()]


def test_json_holds_numbers_as_text_and_thirds_as_fractions(tmp_path: Path) -> None:
    text = SEED.replace("    tiers:", "    conversion: {divide: 3}\n    tiers:")
    document = json.loads(run(tmp_path, "--quantity", "output_tokens=1", "--format", "json", text=text).stdout)
    assert document["amount"] == "0.000001666666667"
    (period,) = document["periods"]
    assert period["billed"] == {"output_tokens": "1/3"}
    assert period["remainder"] == "-1/3000000000000000"
    assert period["lines"] == [
        {
            "meter": "output_tokens",
            "kind": "usage",
            "tier": 1,
            "quantity": "1/3",
            "price": "0.000005",
            "discount": "0.00",
            "amount": "0.000001666666667",
        }
    ]


def test_events_are_for_a_percentage(tmp_path: Path) -> None:
    text = 'plan: p\ncurrency: JPY\naccumulate: period\ncharges: [{meter: m, model: percentage, percent: "10", '
    text += "free_events: 1}]\n"
    result = run(tmp_path, "--events", "100,200.5", "--format", "json", text=text)
    assert json.loads(result.stdout)["amount"] == "20.05"


def test_a_minimum_waits_for_the_end(tmp_path: Path) -> None:
    text = SEED.replace("charges:", 'minimum: "50"\ncharges:')
    for arguments, amount in (((), "50.00"), (("--no-ended",), "5.00")):
        result = run(tmp_path, "--quantity", "1_000_000", "--format", "json", *arguments, text=text)
        assert json.loads(result.stdout)["amount"] == amount


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "--quantity: give the usage of a, b"),
        (("--quantity", "5"), "--quantity 5: of which meter? p has a, b"),
        (("--quantity", "a=x"), "--quantity a=x: 'x' is not a number; write 9_900_000, one for each period"),
        (("--quantity", "a=1", "--events", "a=1"), "--events a=1: a is given twice"),
        (
            ("--quantity", "a=1,2", "--quantity", "b=1"),
            "the meters have 1 and 2 periods; give each meter the same number",
        ),
    ],
)
def test_wrong_options_are_refused(tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    text = "plan: p\ncurrency: USD\naccumulate: period\ncharges:\n"
    text += '  - {meter: a, model: per_unit, price: "1"}\n  - {meter: b, model: per_unit, price: "1"}\n'
    result = run(tmp_path, *arguments, text=text)
    assert isinstance(result.exception, ConfigError)
    assert result.exception.errors == [message]


def test_an_unknown_meter_and_a_missing_plan_are_refused(tmp_path: Path) -> None:
    assert isinstance(run(tmp_path, "--quantity", "tokens=1").exception, PlanError)
    with pytest.raises(ConfigError, match="no such file"):
        load_plan(tmp_path / "none.yaml")
