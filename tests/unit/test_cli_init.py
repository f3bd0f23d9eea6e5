"""Goal: `init` writes a set-up that loads, with events in both forms, and never overwrites."""

import json
from pathlib import Path

import pytest

from flow.cli.init import init
from flow.config import load_config
from flow.errors import ConfigError, TallyflowError
from flow.oracle.rating import Event, rate_event
from flow.prices.book import load_price_book
from flow.prices.values import parse_instant_us


def test_what_it_writes_loads_and_is_priced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    init(tmp_path / "new" / "folder")
    config = load_config(tmp_path / "new" / "folder" / "config.yaml")
    prices = load_price_book(config.prices)
    lines = (tmp_path / "new" / "folder" / "events" / "sample.ndjson").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert len(events) == 10
    assert sum("specversion" in event for event in events) == 5
    assert len({(event["source"], event["id"]) for event in events}) == 9  # one is a retry
    unpriced = [
        event["id"]
        for event in events
        if any(
            amount_femto is None
            for _, _, amount_femto in rate_event(
                prices.prices,
                prices.unbilled,
                Event(
                    parse_instant_us(event["time"]),
                    tuple(event.get("data", event)["usage"].items()),
                    {"model": event.get("data", event)["model"], "service_tier": "standard"},
                ),
            )
        )
    ]
    assert unpriced == ["ev-09"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "tallyflow run" in err


def test_it_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "prices.yaml").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        init(tmp_path)
    assert caught.value.errors == [f"{tmp_path / 'prices.yaml'}: is there already; init overwrites nothing"]
    assert [path.name for path in tmp_path.iterdir()] == ["prices.yaml"]
    assert (tmp_path / "prices.yaml").read_text() == "mine"


def test_a_place_that_cannot_be_written_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(TallyflowError, match=r"cannot be written: .*; choose another folder$"):
        init(tmp_path / "file" / "folder")
