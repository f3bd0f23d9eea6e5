"""Goal: the table of benchmarks tells the newest results, and which aims are reached. Method: results by hand."""

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from benchmarks.figures import Figure, keep, newest, table
from rich.console import Console

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(
    ("figure", "reached", "aim"),
    [
        (Figure("x", 4.0), None, ""),
        (Figure("x", 4.0, at_least=4), True, "at least 4"),
        (Figure("x", 3.999, at_least=4), False, "at least 4"),
        (Figure("x", 0, at_most=0), True, "at most 0"),
        (Figure("x", 1.21, at_least=1, at_most=1.2), False, "at least 1 and at most 1.2"),
    ],
)
def test_an_aim_is_reached_or_not(figure: Figure, reached: bool | None, aim: str) -> None:
    assert (figure.reached, figure.aim) == (reached, aim)


def test_the_newest_result_of_each_benchmark_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep("speed-cost", [Figure("beside a peer", 1.5, at_least=2)], {"runs": [1, 2]}, tmp_path)
    keep("speed", [Figure("all that came", 1_234_567, "events/s")], [], tmp_path)
    (kept,) = tmp_path.glob("speed-cost-*.json")
    older = json.loads(kept.read_text()) | {"figures": [{"what": "of an earlier day", "value": 1.0}]}
    (tmp_path / "speed-cost-2001-01-01.json").write_text(json.dumps(older))
    (tmp_path / "other-2001-01-01.json").write_text("[]")
    capsys.readouterr()
    found = newest(tmp_path)
    assert "other-2001-01-01.json is not in the form" in capsys.readouterr().err
    assert list(found) == ["speed", "speed-cost"]
    assert found["speed-cost"].measured == {"runs": [1, 2]}
    console = Console(width=120, record=True)
    console.print(table(found.values()))
    (line,) = [line for line in console.export_text().splitlines() if "beside a peer" in line]
    assert [word.strip() for word in line.split("│")[2:6]] == ["beside a peer", "1.5", "at least 2", "no"]
    assert "1,234,567 events/s" in capsys.readouterr().out


def test_the_results_in_the_repository_can_be_told() -> None:
    kept = {path.name[:-16] for path in (BENCHMARKS / "results").glob("*.json")}
    assert set(newest()) == kept


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("bench")


def test_every_benchmark_is_run_and_sizes_are_for_those_there_are(bench: Any) -> None:
    every = [" ".join(command) for command in bench.commands([], full=True)]
    assert "recovery.py cost" in every
    assert not [name for name in every if name.split(".")[0] in bench.APART]
    assert {name.replace(".py", "") for name in every} >= set(bench.SHORT)
    assert bench.commands(["rating"], full=False) == [["rating.py", "--events", "1000000"]]
    with pytest.raises(SystemExit, match="there is no benchmark ratings; there are accuracy"):
        bench.commands(["ratings"], full=False)
