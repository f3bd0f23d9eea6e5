"""What is told on stderr."""

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from flow.cli.run import run
from flow.config import Log
from flow.logs import set_up


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """pytest has handlers of its own, which `set_up` takes out."""
    root, ours = logging.getLogger(), logging.getLogger("flow")
    handlers, levels = list(root.handlers), (root.level, ours.level)
    yield
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


def test_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Log())
    logging.getLogger("flow.sinks").warning("the store %s", "is away", extra={"blocks": 3})
    logging.getLogger("flow.sinks").info("not at this level")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("tallyflow: ") and line.endswith(" warning: the store is away blocks=3")


def test_for_a_collector(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Log(format="json", level="info"))
    try:
        raise ValueError("no")
    except ValueError:
        logging.getLogger("flow.run").exception("ended", extra={"balance": {"read": 10**30}})
    logging.getLogger("flow.run").info("two\nlines")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("error", "flow.run", "ended")
    assert first["balance"]["read"] == 10**30
    assert first["exception"].endswith("ValueError: no")
    assert second["message"] == "two\nlines"


def test_others_are_heard_only_if_it_is_grave(capsys: pytest.CaptureFixture[str]) -> None:
    set_up(Log(level="debug"))
    logging.getLogger("urllib3").setLevel(logging.WARNING)
    logging.getLogger("urllib3.pool").warning("retrying")
    logging.getLogger("clickhouse_connect.driver").error("what it raises too")
    logging.getLogger("flowers").warning("not ours")
    logging.getLogger("opentelemetry.exporter").error("spans are lost")
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("error: spans are lost")


def test_a_run_that_fails_says_so_to_the_collector(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.yaml").write_text(
        "source: {kind: synthetic}\nprices: none.yaml\nstore: chdb:store\nstate_dir: state\nlog: {format: json}\n"
    )
    with pytest.raises(typer.Exit) as ended:
        run(tmp_path / "c.yaml")
    assert ended.value.exit_code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["level"] == "critical" and "none.yaml" in json.loads(line)["message"]
