"""Goal: the report of the benchmarks shows what results say, and says what is missing. Method: results by hand."""

import importlib
import re
import xml.etree.ElementTree
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("matplotlib", reason="the dependency group `bench` is not installed")
BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Any]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("report"), importlib.import_module("figures")


def test_every_kind_of_chart_is_drawn_and_what_is_absent_is_said(modules: tuple[Any, Any], tmp_path: Path) -> None:
    report, figures = modules
    look = figures.Look
    charts = [
        figures.Chart(figures.PEERS, look.BARS, "bars & <more>", "x", {"a": {"we": 2.5, "they": 1}, "b": {"we": 3}}),
        figures.Chart(figures.STAGES, look.STACKED, "stacked", "ns", {"a": {"hash": 10, "judge": 1234}, "b": {}}),
        figures.Chart(figures.SCALING, look.LINES, "lines", "ns", {"a": {"1000": 1, "1000000": 2}}, "ids", log=True),
        figures.Chart(figures.LATENCY, look.STEPS, "steps", "events", {"a": {"0": 5, "0.25": 6}}, "s"),
    ]
    figures.keep("speed", [figures.Figure("beside <they>", 2.5, at_least=4)], {}, tmp_path, charts)
    page = report.page(figures.newest(tmp_path))
    drawn = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    texts = [
        ["".join(element.itertext()).strip() for element in xml.etree.ElementTree.fromstring(svg).iter()]
        for svg in drawn
    ]
    for chart, found in zip(charts, texts, strict=True):
        assert chart.title in found
    assert {"we", "they", "2.5"} <= set(texts[0])
    assert {"judge", "1,244"} <= set(texts[1])
    assert page.count("No result has a chart of this yet.") == len(figures.SECTIONS) - len(charts)
    assert "<td>beside &lt;they&gt;</td>" in page
    assert '<span class="missed">no</span>' in page
