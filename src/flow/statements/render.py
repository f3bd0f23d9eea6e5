"""An invoice as a table for people, JSON for programs, CSV for spreadsheets."""

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..rounding import FEMTO_DIGITS, decimal_text, exact_text, readable_text
from .estimate import Estimate
from .invoice import LINE, Invoice, Item
from .render_estimate import estimate_columns, estimate_json, estimate_lines, second_text


def as_json(invoice: Invoice, estimate: Estimate | None = None) -> str:
    """One object; amounts, quantities and digests are strings: JSON readers would not hold them exactly.

    Of an open period `estimate` is one more (docs/confidence.md).
    """
    total = _json_item(invoice, invoice.total)
    document = {
        "customer": invoice.customer,
        "period": invoice.period.name,
        "from": second_text(invoice.period.start_s),
        "to": second_text(invoice.period.end_s),
        "currency": invoice.currency,
        "rounding": invoice.rounding,
        "by": list(invoice.by),
        "total": {name: value for name, value in total.items() if name not in ("level", "value", "items")},
        "lines": total.get("items", []),
        "corrected": [
            {
                "kind": one.kind,
                "reason": one.reason,
                "author": one.author,
                "changes": one.changes,
                "amount_exact": exact_text(one.amount_femto, FEMTO_DIGITS),
            }
            for one in invoice.corrected
        ],
        "notes": invoice.notes,
    }
    if estimate is not None:
        document["estimate"] = estimate_json(estimate)
    return json.dumps(document, ensure_ascii=False, indent=2)


def as_csv(invoice: Invoice, estimate: Estimate | None = None) -> str:
    """One row an item, with its level and its place; add up the rows of one level only.

    Of an open period there are more columns, which the row of the total has filled in.
    """
    estimated = {} if estimate is None else estimate_columns(estimate)
    meters = sorted(invoice.total.meters)
    columns = ["level", "customer", "period", *invoice.by, "currency", "amount_exact", "amount", "remainder"]
    columns += ["events", "digest", *meters, *(f"unpriced_{meter}" for meter in meters), *estimated]
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(columns)
    for place, item in _walk(invoice.total):
        uses = [item.meters.get(meter) for meter in meters]
        writer.writerow(
            [
                item.level,
                invoice.customer,
                invoice.period.name,
                *place,
                *[""] * (len(invoice.by) - len(place)),
                invoice.currency,
                exact_text(item.amount_femto, FEMTO_DIGITS),
                decimal_text(item.amount_minor, invoice.minor_digits),
                exact_text(invoice.remainder_femto(item), FEMTO_DIGITS),
                "" if item.events is None else item.events,
                "" if item.digest is None else f"{item.digest:032x}",
                *("" if use is None else use.quantity for use in uses),
                *("" if use is None else use.unpriced_quantity for use in uses),
                *(estimated.values() if item.level == "total" else [""] * len(estimated)),
            ]
        )
    return out.getvalue()


def print_table(invoice: Invoice, console: Console, estimate: Estimate | None = None) -> None:
    """The invoice as tables; colours vanish by themselves where the console is no terminal."""
    console.print(Text(f"{printable(invoice.customer)}  {invoice.period.name}  {invoice.currency}", style="bold"))
    console.print(_items_table(invoice))
    console.print(_meters_table(invoice))
    if invoice.corrected:
        console.print(_corrected_table(invoice))
    digest = "" if invoice.total.digest is None else f"{invoice.total.digest:032x}"
    console.print(Text(f"{invoice.total.events or 0:,} events, digest {digest}"))
    console.print(Text(f"Rounded {invoice.rounding}, once, on each {LINE}; remainder = exact - rounded."))
    for note in invoice.notes:
        console.print(Text(f"! {note}", style="bold red"))
    if estimate is not None:
        console.print(Text("The period is open: more may come, and this is what is known.", style="bold"))
        for line in estimate_lines(estimate, invoice.currency):
            console.print(Text(f"  {line}"), soft_wrap=True)


def printable(text: str) -> str:
    """Text from events, made safe for a terminal; the empty string becomes a dash."""
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text) or "-"


def _items_table(invoice: Invoice) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column(" / ".join(invoice.by) or "total", overflow="fold")
    table.add_column("events", justify="right")
    table.add_column("exact", justify="right", overflow="fold")
    table.add_column(invoice.currency or "amount", justify="right", style="bold")
    table.add_column("remainder", justify="right", overflow="fold")
    for place, item in _walk(invoice.total):
        top = item.level == "total"
        name = "Total" if top else "  " * (len(place) - 1) + printable(item.value)
        # Further down cents are dealt out, not rounded: a remainder would only draw the eye from the lines.
        remainder = readable_text(invoice.remainder_femto(item), FEMTO_DIGITS) if len(place) <= 1 else ""
        table.add_row(
            Text(
                name + (" !" if item.unpriced else ""),
                style="bold" if top else "red" if item.unpriced else "",
            ),
            "" if item.events is None else f"{item.events:,}",
            readable_text(item.amount_femto, FEMTO_DIGITS),
            _grouped(decimal_text(item.amount_minor, invoice.minor_digits)),
            remainder,
            end_section=top,
        )
    return table


def _meters_table(invoice: Invoice) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("meter", overflow="fold")
    table.add_column("quantity", justify="right")
    table.add_column("exact", justify="right", overflow="fold")
    table.add_column("unpriced", justify="right", style="red")
    for name, use in invoice.total.meters.items():
        unpriced = f"{use.unpriced_quantity:,}" if use.unpriced_quantity else ""
        table.add_row(
            Text(printable(name)), f"{use.quantity:,}", readable_text(use.amount_femto, FEMTO_DIGITS), unpriced
        )
    return table


def _corrected_table(invoice: Invoice) -> Table:
    table = Table(title="in these amounts, changed later", title_justify="left", box=None, pad_edge=False)
    for name in ("kind", "reason", "author"):
        table.add_column(name, overflow="fold")
    for name in ("changes", "exact"):
        table.add_column(name, justify="right")
    for one in invoice.corrected:
        cells = (Text(printable(text)) for text in (one.kind, one.reason, one.author))
        table.add_row(*cells, f"{one.changes:,}", readable_text(one.amount_femto, FEMTO_DIGITS))
    return table


def _json_item(invoice: Invoice, item: Item) -> dict[str, Any]:
    document: dict[str, Any] = {
        "level": item.level,
        "value": item.value,
        "amount": decimal_text(item.amount_minor, invoice.minor_digits),
        "amount_exact": exact_text(item.amount_femto, FEMTO_DIGITS),
        "remainder": exact_text(invoice.remainder_femto(item), FEMTO_DIGITS),
        "events": item.events,
        "digest": None if item.digest is None else f"{item.digest:032x}",
        "meters": {
            name: {
                "quantity": str(use.quantity),
                "unpriced_quantity": str(use.unpriced_quantity),
                "amount_exact": exact_text(use.amount_femto, FEMTO_DIGITS),
            }
            for name, use in item.meters.items()
        },
    }
    if item.items:
        document["items"] = [_json_item(invoice, below) for below in item.items]
    return document


def _walk(item: Item, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Item]]:
    yield place, item
    for below in item.items:
        yield from _walk(below, (*place, below.value))


def _grouped(number: str) -> str:
    """1234567.89 as 1,234,567.89."""
    whole, point, part = number.partition(".")
    sign, digits = ("-", whole[1:]) if whole.startswith("-") else ("", whole)
    return f"{sign}{int(digits):,}{point}{part}"
