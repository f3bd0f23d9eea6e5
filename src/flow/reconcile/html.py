"""A reconciliation as one HTML page that needs nothing else."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from .naming import EventDifference
from .report import Reconciliation, iso
from .variance import Variance, percent

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 70rem; padding: 0 1rem; color: #222; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.1rem; margin-top: 2rem; }
table { border-collapse: collapse; } th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: left;
vertical-align: top; overflow-wrap: anywhere; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
.good { color: #1a7f37; } .bad { color: #b3261e; font-weight: 600; }
"""

Row = Sequence[str]


def as_html(found: Reconciliation) -> str:
    """The whole page; everything that was read stands in it as text."""
    title = f"{found.here} against {found.there}"
    verdict = "good" if found.passes else "bad"
    scope = found.scope
    asked = f"Windows from {iso(scope.from_s)} to before {iso(scope.before_s)}"
    asked += f", of {', '.join(scope.customers)}." if scope.customers is not None else ", of all customers."
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="{verdict}">{escape(found.verdict())}</p>',
        f"<p>{escape(asked)} {found.events_here:,} events here, {found.events_there:,} there.</p>",
        *_table("Compared", ("grain",), ("buckets", "differ"), _levels(found)),
        *_table(
            f"Quantities; the threshold is {percent(found.threshold)}",
            ("customer", "model", "meter"),
            ("here", "there", "difference", "variance"),
            (_variance(one) for one in found.variances),
            [one.beyond(found.threshold) for one in found.variances],
        ),
        *_table(
            "Buckets that differ",
            ("bucket", "customer", "model", "meter"),
            ("here", "there"),
            (
                (one.window_start, one.customer, one.model, one.meter, f"{one.here:,}", f"{one.there:,}")
                for one in found.usage
            ),
        ),
        *_table(
            "Events that differ",
            ("how", "source", "id", "customer", "time", "here", "there", "read from"),
            (),
            (_event(one) for one in found.events),
        ),
        *_table(
            f"Minutes that differ: {found.minute_count:,}",
            ("customer", "minute"),
            ("events here", "events there"),
            (
                (one.customer, one.window_start, f"{one.events_here:,}", f"{one.events_there:,}")
                for one in found.minutes
            ),
        ),
    ]
    if found.notes:
        parts += ["<h2>Notes</h2><ul>", *(f"<li>{escape(note)}</li>" for note in found.notes), "</ul>"]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>'
    return f"<!doctype html>\n<html lang=en>{head}\n" + "\n".join(parts) + "\n</html>\n"


def _levels(found: Reconciliation) -> Iterator[Row]:
    return ((level.grain, f"{level.compared:,}", f"{level.differing:,}") for level in found.levels)


def _variance(one: Variance) -> Row:
    names = ["all" if name is None else name for name in (one.customer, one.model)]
    return (*names, one.meter, f"{one.here:,}", f"{one.there:,}", f"{one.here - one.there:+,}", percent(one.ratio))


def _event(one: EventDifference) -> Row:
    sides = ["; ".join(f"{name}: {values[n] or '-'}" for name, values in one.fields.items()) for n in (0, 1)]
    read_from = ", ".join(filter(None, (one.position_here, one.position_there, one.note)))
    return (one.kind.replace("_", " "), one.source, one.id, one.customer, one.time, *sides, read_from)


def _table(
    title: str, texts: Sequence[str], numbers: Sequence[str], rows: Iterable[Row], bad: Sequence[bool] = ()
) -> Iterator[str]:
    """A heading and a table with text columns, then number columns; nothing where there are no rows."""
    cells = list(rows)
    if not cells:
        return
    kinds = [""] * len(texts) + [' class="n"'] * len(numbers)
    head = "".join(f"<th{kind}>{escape(name)}</th>" for kind, name in zip(kinds, (*texts, *numbers), strict=True))
    yield f"<h2>{escape(title)}</h2><table><tr>{head}</tr>"
    for n, row in enumerate(cells):
        of_row = ' class="bad"' if bad and bad[n] else ""
        inner = "".join(f"<td{kind}>{escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
        yield f"<tr{of_row}>{inner}</tr>"
    yield "</table>"
