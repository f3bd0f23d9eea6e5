"""One page of what the results say, from their files alone: every chart that a benchmark has kept, and all figures.

    python benchmarks/report.py [--results FOLDER] [--out report.html]      (make report)

The page is HTML with SVG plots in it and needs nothing else. Of each benchmark the newest result is shown, with its
date. Where no benchmark has kept a chart for a section, the section says so.
"""

import html
import io
import sys
from pathlib import Path

import matplotlib
from figures import SECTIONS, Chart, Look, Result, newest, number, parser
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Plot

COLOURS = ("#4053d3", "#ddb310", "#b51d14", "#00beff", "#fb49b0", "#00b25d", "#888888")  # told apart by everybody
WIDTH_IN, BAR_IN = 8.0, 0.26
HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Tallyflow: benchmarks</title><style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
svg { max-width: 100%; height: auto } table { border-collapse: collapse; font-size: 0.9rem }
td, th { text-align: left; padding: 0.15rem 0.8rem 0.15rem 0; border-bottom: 1px solid #ddd; vertical-align: top }
td.number { text-align: right; white-space: nowrap } .missed { color: #b51d14; font-weight: bold } .said { color: #666 }
</style></head><body>
"""


# ---- Plots ----------------------------------------------------------------------------------------------------------


def svg(chart: Chart) -> str:
    """The chart as an SVG element; its texts stay texts."""
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "tallyflow", "font.family": "sans-serif"})
    draw = {Look.BARS: _bars, Look.STACKED: _stacked, Look.LINES: _lines, Look.STEPS: _steps}[chart.look]
    bars = sum(map(len, chart.values.values())) if chart.look is Look.BARS else len(chart.values)
    height = 1.2 + BAR_IN * bars if chart.look in (Look.BARS, Look.STACKED) else 3.6
    plot = Plot(figsize=(WIDTH_IN, height), layout="constrained")
    axes = plot.add_subplot()
    draw(axes, chart)
    axes.set_title(chart.title, loc="left", fontsize=11)
    axes.xaxis.set_major_formatter(lambda value, _: number(value))
    axes.spines[["top", "right"]].set_visible(False)
    if len(chart.values) > 1 or chart.look is Look.STACKED:
        plot.legend(frameon=False, fontsize=8, loc="outside right upper")
    written = io.StringIO()
    plot.savefig(written, format="svg", metadata={"Date": None})
    return written.getvalue()[written.getvalue().index("<svg") :]  # without the XML declaration


def _bars(axes: Axes, chart: Chart) -> None:
    """A group of bars a label, a colour a series."""
    labels = list(dict.fromkeys(label for values in chart.values.values() for label in values))
    height = 0.8 / len(chart.values)
    for n, (series, values) in enumerate(chart.values.items()):
        places = [labels.index(label) + n * height for label in values]
        drawn = axes.barh(places, list(values.values()), height, label=series, color=COLOURS[n % len(COLOURS)])
        axes.bar_label(drawn, [number(value) for value in values.values()], padding=3, fontsize=8)
    axes.set_yticks([n + 0.4 - height / 2 for n in range(len(labels))], labels)
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)
    if chart.log:
        axes.set_xscale("log")
    else:
        axes.locator_params(axis="x", nbins=5)


def _stacked(axes: Axes, chart: Chart) -> None:
    """A bar a series, made of its parts."""
    names = list(chart.values)
    lefts = dict.fromkeys(names, 0.0)
    parts = list(dict.fromkeys(part for values in chart.values.values() for part in values))
    for n, part in enumerate(parts):
        lengths = [chart.values[name].get(part, 0.0) for name in names]
        axes.barh(names, lengths, left=[lefts[name] for name in names], label=part, color=COLOURS[n % len(COLOURS)])
        lefts = {name: lefts[name] + length for name, length in zip(names, lengths, strict=True)}
    for n, name in enumerate(names):
        axes.annotate(f" {number(lefts[name])}", (lefts[name], n), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(chart.unit)


def _lines(axes: Axes, chart: Chart) -> None:
    """A line a series; its labels are numbers."""
    for n, (series, values) in enumerate(chart.values.items()):
        across = [float(label) for label in values]
        axes.plot(across, list(values.values()), marker="o", label=series, color=COLOURS[n % len(COLOURS)])
    if chart.log_values:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.1 * max(value for values in chart.values.values() for value in values.values()))
    axes.set_ylabel(chart.unit)
    axes.set_xlabel(chart.across)
    if chart.log:
        axes.set_xscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: number(value))
    axes.grid(axis="y", color="#eee")
    axes.set_axisbelow(True)
    # Only what was measured stands below the axis: two workers are two, and not 1.25.
    axes.set_xticks(sorted({float(label) for values in chart.values.values() for label in values}), minor=False)
    axes.set_xticks([], minor=True)


def _steps(axes: Axes, chart: Chart) -> None:
    """A histogram: each label is where a bin begins."""
    for n, (series, values) in enumerate(chart.values.items()):
        begins = [float(label) for label in values]
        width = begins[1] - begins[0] if len(begins) > 1 else 1.0
        axes.bar(begins, list(values.values()), width, align="edge", label=series, color=COLOURS[n % len(COLOURS)])
    axes.set_ylabel(chart.unit)
    axes.set_xlabel(chart.across)


# ---- The page -------------------------------------------------------------------------------------------------------


def page(results: dict[str, Result]) -> str:
    """All of it."""
    parts = [HEAD, "<h1>Tallyflow: benchmarks</h1>"]
    for section in SECTIONS:
        parts.append(f"<h2>{html.escape(section)}</h2>")
        charts = [(result, chart) for result in results.values() for chart in result.charts if chart.section == section]
        if not charts:
            parts.append('<p class="said">No result has a chart of this yet.</p>')
        for result, chart in charts:
            parts += [svg(chart), f'<p class="said">{html.escape(_origin(result))}</p>']
    parts += ["<h2>All figures</h2>", _figures(results), "</body></html>\n"]
    return "\n".join(parts)


def _origin(result: Result) -> str:
    of = result.machine
    return (
        f"{result.benchmark}, {result.date[:10]}; {of['cores']} cores of {of['processor']}, {of['memory_gib']} GiB, "
        f"Python {of['python']}"
    )


def _figures(results: dict[str, Result]) -> str:
    rows = ["<table><tr><th>benchmark</th><th>figure</th><th></th><th>aim</th><th>reached</th><th>date</th></tr>"]
    for result in results.values():
        for figure in result.figures:
            reached = {True: "yes", False: '<span class="missed">no</span>', None: ""}[figure.reached]
            what, value, aim = (html.escape(text) for text in (figure.what, figure.told, figure.aim))
            rows.append(
                f'<tr><td>{result.benchmark}</td><td>{what}</td><td class="number">{value}</td><td>{aim}</td>'
                f"<td>{reached}</td><td>{result.date[:10]}</td></tr>"
            )
    return "\n".join([*rows, "</table>"])


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--out", type=Path, default=Path("report.html"), help="the page; default: here")
    options = arguments.parse_args()
    results = newest(options.results)
    if not results:
        raise SystemExit(f"there are no results in {options.results}; `make bench` makes some")
    options.out.write_text(page(results))
    print(f"written to {options.out}", file=sys.stderr)


if __name__ == "__main__":
    main()
