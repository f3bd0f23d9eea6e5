"""What another price book would have made of a ledger, against the oracle that rates each event by itself."""

import json
import random
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from tests.oracle.ledger import file_batch
from typer.testing import CliRunner

from flow.cli.app import make_app
from flow.effect import BY, DAY_US, Comparison, Effect, check_by, compare
from flow.errors import ConfigError, SourceError, StateError
from flow.oracle.rating import Event, rate_event
from flow.prices.book import PriceBook, parse_price_book
from flow.schema import DIMENSIONS
from flow.state.directory import StateDirectory
from flow.state.ledger import LedgerWriter

LINEAGE = "0123456789abcdef"
START_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z
HOUR_US = 3_600_000_000

BEFORE = """currency: USD
unbilled: [images]
prices:
  - {model: m, meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "0.60"}
  - {model: m, meter: output_tokens, from: 2026-01-01T00:00:00Z, per: 3_000_000, price: "1"}
  - {model: n, meter: input_tokens, from: 2026-01-10T00:00:00Z, per: 1_000_000, price: "0.10"}
"""
AFTER = """currency: USD
unbilled: [images]
schedules:
  night: {zone: Europe/Rome, hours: [{from: "20:00", to: "06:00"}]}
prices:
  - model: m
    meter: input_tokens
    from: 2026-01-01T00:00:00Z
    per: 1_000_000
    price: "0.60"
    above: [{above: 500, price: "1.20"}]
  - {model: m, meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 7_000_000, price: "2", schedule: night}
  - {model: m, meter: output_tokens, from: 2026-01-05T00:00:00Z, per: 1_000_000, price: "9"}
  - {model: n, meter: input_tokens, from: 2026-01-01T00:00:00Z, per: 1_000_000, price: "0.10"}
  - {model: n, meter: requests, from: 2026-01-01T00:00:00Z, per: 1000, price: "5"}
adjustments:
  - {customer: acme, percent: "-10", from: 2026-01-08T00:00:00Z}
"""


def books(*texts: str) -> tuple[PriceBook, PriceBook]:
    one, other = (parse_price_book(text, f"{n}.yaml") for n, text in enumerate(texts or (BEFORE, AFTER)))
    return one, other


def events(count: int, seed: int = 1, days: int = 40) -> list[dict[str, Any]]:
    rng = random.Random(seed)
    meters = ("input_tokens", "output_tokens", "images", "other")
    return [
        {
            "id": str(n),
            "source": "s",
            "time": START_US + rng.randrange(days * DAY_US),
            **dict.fromkeys(DIMENSIONS, ""),
            "customer": rng.choice(("acme", "zürich", "c")),
            "model": rng.choice(("m", "n", "o")),
            "usage": [(meter, rng.randrange(1000)) for meter in rng.sample(meters, rng.randrange(1, 5))],
            "source_position": f"f:{n}",
        }
        for n in range(count)
    ]


def write_ledger(folder: Path, *files: list[dict[str, Any]], lineage: str = LINEAGE, seal: bool = True) -> None:
    for n, rows in enumerate(files):
        writer = LedgerWriter(folder, lineage, f"shard-{n:03d}")
        writer.resume(None)
        writer.append(file_batch(rows))
        writer.snapshot(START_US)
        if seal:
            writer.seal(everything=True)


def expected(
    rows: list[dict[str, Any]], two: tuple[PriceBook, PriceBook], by: tuple[str, ...] = BY
) -> dict[Any, Effect]:
    found: dict[Any, Effect] = {}
    for row in rows:
        event = Event(row["time"], tuple(row["usage"]), {name: row[name] for name in DIMENSIONS})
        sides = [rate_event(book.prices, book.unbilled, event, book.adjustments) for book in two]
        for (meter, quantity, before), (_, _, after) in zip(*sides, strict=True):
            key = tuple({**row, "meter": meter}[name] for name in by)
            effect = found.setdefault(key, Effect())
            effect.quantity += quantity
            for side, amount in ((effect.before, before), (effect.after, after)):
                side.add(amount or Fraction(0), quantity if amount is None else 0)
    return found


def differing(effects: dict[Any, Effect]) -> dict[Any, Effect]:
    return {key: effect for key, effect in effects.items() if effect.differs}


@pytest.mark.parametrize("by", [BY, ("meter",), ("customer",), ()])
def test_every_amount_is_the_oracles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: tuple[str, ...]) -> None:
    rows = events(400)
    write_ledger(tmp_path, rows[:150], rows[150:])
    monkeypatch.setattr("flow.effect._MERGE_ROWS", 20)
    found = compare(tmp_path, LINEAGE, books(), by, days=1000)
    whole = expected(rows, books(), by)
    assert found.events == 400
    assert found.effects == differing(whole)
    for side, of_all in (("before", found.total.before), ("after", found.total.after)):
        assert of_all.amount_femto == sum(getattr(effect, side).amount_femto for effect in whole.values())
        assert of_all.unpriced_quantity == sum(getattr(effect, side).unpriced_quantity for effect in whole.values())
    assert found.total.difference_femto.denominator == 7


def test_only_the_last_days_of_this_lineage_count(tmp_path: Path) -> None:
    rows = sorted(events(200), key=lambda row: row["time"])
    write_ledger(tmp_path, rows[:100], rows[100:])
    write_ledger(tmp_path, events(5, seed=2), lineage="fedcba9876543210")
    last_us = rows[-1]["time"]
    found = compare(tmp_path, LINEAGE, books(), BY, days=10)
    inside = [row for row in rows if last_us + 1 - 10 * DAY_US <= row["time"]]
    assert (found.from_us, found.before_us) == (last_us + 1 - 10 * DAY_US, last_us + 1)
    assert 0 < found.events == len(inside) < 100
    assert found.effects == differing(expected(inside, books()))
    until_us = START_US + 3 * DAY_US
    found = compare(tmp_path, LINEAGE, books(), BY, days=1, until_us=until_us)
    assert found.events == sum(until_us - DAY_US <= row["time"] < until_us for row in rows)


def test_equal_books_differ_in_nothing(tmp_path: Path) -> None:
    write_ledger(tmp_path, events(50))
    found = compare(tmp_path, LINEAGE, books(BEFORE, BEFORE.replace('"0.60"', '"0.600"')), BY, days=1000)
    assert found.effects == {}
    assert found.total.difference_femto == 0
    assert found.total.before.amount_femto > 0


def test_a_ledger_that_is_empty_or_still_written(tmp_path: Path) -> None:
    assert compare(tmp_path, LINEAGE, books(), BY, days=30) == Comparison(0, 0)
    write_ledger(tmp_path, events(5), seal=False)
    found = compare(tmp_path, LINEAGE, books(), BY, days=30)
    assert (found.events, found.unsealed_files) == (0, 1)


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    write_ledger(tmp_path, events(5))
    with pytest.raises(ConfigError, match="USD and EUR cannot be compared"):
        compare(tmp_path, LINEAGE, books(BEFORE, BEFORE.replace("USD", "EUR")), BY, days=30)
    with pytest.raises(ConfigError, match="--by: colour; known here: customer"):
        check_by(["customer", "colour"])
    with pytest.raises(ConfigError, match="a name twice"):
        check_by(["meter", "meter"])
    damaged = next(tmp_path.glob("*/*/*.parquet"))
    damaged.write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=damaged.name):
        compare(tmp_path, LINEAGE, books(), BY, days=30)


# ---- The command ----


@pytest.fixture
def setup(tmp_path: Path) -> tuple[Path, list[str]]:
    """A folder with a config, a ledger and two books; and the command without its options."""
    (tmp_path / "a.yaml").write_text(BEFORE)
    (tmp_path / "b.yaml").write_text(AFTER)
    (tmp_path / "config.yaml").write_text(
        f"source: {{kind: files, path: {tmp_path}/none*.ndjson}}\nprices: a.yaml\nstore: chdb://{tmp_path}/store\n"
        "state_dir: state\nledger: ledger\n"
    )
    with StateDirectory(tmp_path / "state") as directory:
        lineage = directory.lineage(4, "USD", None)
    write_ledger(tmp_path / "ledger", events(100), lineage=lineage.id)
    return tmp_path, ["prices", "diff", str(tmp_path / "a.yaml"), str(tmp_path / "b.yaml")]


def test_the_command_as_json(setup: tuple[Path, list[str]]) -> None:
    folder, command = setup
    asked = [*command, "-c", str(folder / "config.yaml"), "--days", "1000", "--by", "customer", "--format", "json"]
    done = CliRunner().invoke(make_app(), asked)
    assert done.exit_code == 0, done.output
    document = json.loads(done.stdout)
    assert len(document["changes"]) == 7
    whole = expected(events(100), books(), ("customer",))
    told = {row["customer"]: row for row in document["ledger"]["differences"]}
    assert told.keys() == {key[0] for key, effect in whole.items() if effect.differs}
    for key, effect in whole.items():
        row = told[key[0]]
        assert Fraction(row["difference"]) == effect.difference_femto / 10**15
        assert int(row["unpriced_before"]) == effect.before.unpriced_quantity
    differences = [abs(Fraction(row["difference"])) for row in document["ledger"]["differences"]]
    assert differences == sorted(differences, reverse=True)
    assert Fraction(document["ledger"]["total"]["difference"]) == sum(
        Fraction(row["difference"]) for row in told.values()
    )
    assert document["ledger"]["events"] == 100


def test_the_command_as_tables(setup: tuple[Path, list[str]]) -> None:
    folder, command = setup
    runner = CliRunner(env={"COLUMNS": "240"})
    done = runner.invoke(make_app(), [*command, "-c", str(folder / "config.yaml"), "--until", "2026-02-01T00:00:00Z"])
    assert done.exit_code == 0, done.output
    assert "what changed" in done.stdout
    assert "model m, meter output_tokens" in done.stdout
    assert "adjustment" in done.stdout
    assert "what it would have done, in USD" in done.stdout
    assert "events from 2026-01-02T00:00:00Z to 2026-02-01T00:00:00Z: a difference of" in done.stdout
    same = runner.invoke(make_app(), ["prices", "diff", command[2], command[2]])
    assert same.stdout == "The two price books say the same.\n"


def test_the_command_without_a_ledger(setup: tuple[Path, list[str]]) -> None:
    folder, command = setup
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("state_dir: state", "state_dir: elsewhere"))
    assert isinstance(CliRunner().invoke(make_app(), [*command, "-c", str(config)]).exception, StateError)
    config.write_text(config.read_text().replace("ledger: ledger\n", ""))
    assert isinstance(CliRunner().invoke(make_app(), [*command, "-c", str(config)]).exception, ConfigError)
    assert isinstance(CliRunner().invoke(make_app(), [*command, "--until", "soon"]).exception, ConfigError)
