"""The screen of `tallyflow status`."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

import flow.cli.status as cli
from flow.cli.status import page
from flow.metrics.depth import Depth
from flow.metrics.status import Measured, Status, View

MEASURED = Measured(
    version="0.1.0",
    lineage="abc",
    processes=2,
    answering=1,
    trouble=("process 1 does not answer (refused)",),
    events={"accepted": 90, "duplicate": 9, "conflicting": 1, "rejected": 5, "late": 0},
    read=105,
    lag_messages=1234567,
    lag_s=90.0,
    watermark_s=1_000_000.0,
    outbox=Depth(3, 5 * 2**20, 4.0),
    outbox_limit_bytes=10 * 2**30,
    fingerprints=90,
    dedup_memory_bytes=2048,
    memory_bytes=2**30,
    retries=2,
    views={"usage_by_minute": View(1_000_100.0, 999_990.0), "usage_by_hour": View(None, None)},
    anomalies_open={"silence": 2, "usage_spike": 0},
)
STATUS = Status(1_000_101.0, "pid 7 on here, since then", True, "abc", Depth(3, 5 * 2**20, 4.0), MEASURED, "")


def shown(status: Status, before: Status | None = None) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(page(status, before))
    return capture.get()


def test_everything_is_on_it() -> None:
    earlier = replace(STATUS, at_s=STATUS.at_s - 5, measured=replace(MEASURED, read=5))
    text = shown(STATUS, earlier)
    for words in (
        "running: pid 7 on here",
        "1 of 2 answer, 1.0 GiB",
        "process 1 does not answer",
        "105 events in this run, 20 events/s",
        "90 accepted, 9 duplicate, 1 conflicting, 5 rejected, 0 late",
        "1,234,567 messages, 90.0 s",
        "1970-01-12 13:46:40 UTC, 101.0 s ago",
        "3 blocks, 5.0 MiB, the oldest for 4.0 s; limit 10.0 GiB",
        "90 fingerprints, 2.0 KiB, 10.00 % of what was judged",
        "published 1.0 s ago, shows events until 1970-01-12 13:46:30 UTC",
        "nothing published in this run",
        "2 silence",
    ):
        assert words in text


def test_without_metrics_the_state_directory_is_shown() -> None:
    text = shown(replace(STATUS, running=False, holder="", measured=None, why_not="no `metrics` in the config"))
    assert "not running" in text and "3 blocks" in text
    assert "no `metrics` in the config: this is what the state directory shows" in text


def test_it_goes_on_until_it_is_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([STATUS, replace(STATUS, at_s=STATUS.at_s + 2, measured=replace(MEASURED, read=305))])
    waits = iter([2])

    def sleep(seconds: int) -> None:
        if next(waits, None) != seconds:
            raise KeyboardInterrupt

    monkeypatch.setenv("FORCE_COLOR", "1")  # as on a terminal
    monkeypatch.setattr(cli, "load_config", lambda path: None)
    monkeypatch.setattr(cli, "status_of", lambda config: next(looks))
    monkeypatch.setattr(cli.time, "sleep", sleep)
    cli.status(tmp_path / "c.yaml", once=False, format_=cli.Format.TABLE, every_s=2)
    assert "100 events/s" in re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
