"""`tallyflow status`: how a job is, live."""

import time
from datetime import UTC, datetime
from typing import Annotated

import typer
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..metrics.depth import Depth
from ..metrics.status import Measured, Status, status_of
from .options import ConfigOption, Format


def status(
    config: ConfigOption,
    once: Annotated[bool, typer.Option("--once", help="Look once, and end.")] = False,
    format_: Annotated[Format, typer.Option("--format", help="json: look once, one object.")] = Format.TABLE,
    every_s: Annotated[int, typer.Option("--every", min=1, max=3600, help="Seconds between two looks.")] = 2,
) -> None:
    """Show how a job is: live until Ctrl-C, from its metrics, or from its state directory if it serves none."""
    settings = load_config(config)
    before = status_of(settings)
    if format_ is Format.JSON:
        typer.echo(before.as_json())
        return
    console = Console()
    if once or not console.is_terminal:
        console.print(page(before, None))
        return
    with Live(page(before, None), console=console, screen=False, auto_refresh=False) as live:
        while True:
            try:
                time.sleep(every_s)  # until the next look, which is what --every asks for
            except KeyboardInterrupt:
                return
            now = status_of(settings)
            live.update(page(now, before), refresh=True)
            before = now


def page(status: Status, before: Status | None) -> Table:
    """One screen; rates are since `before`."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    state = {True: "running", False: "not running", None: "perhaps running, on another machine"}[status.running]
    table.add_row("job", f"{state}{f': {status.holder}' if status.holder else ''}")
    table.add_row("lineage", status.lineage or "none yet")
    if status.measured is None:
        table.add_row("outbox", _depth(status.outbox))
        table.add_row("", Text(f"{status.why_not}: this is what the state directory shows", style="yellow"))
        return table
    _add_measured(table, status.measured, status.at_s, before)
    return table


def _add_measured(table: Table, found: Measured, at_s: float, before: Status | None) -> None:
    processes = f"{found.answering} of {found.processes} answer, {_size(found.memory_bytes)} of memory"
    table.add_row("processes", processes)
    for line in found.trouble or ("results get through",):
        table.add_row("health", Text(line, style="red" if found.trouble else "green"))
    rate = ""
    if before is not None and before.measured is not None and found.read >= before.measured.read:
        rate = f", {round((found.read - before.measured.read) / (at_s - before.at_s)):,} events/s"
    table.add_row("read", f"{found.read:,} events in this run{rate}")
    outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in found.events.items())
    table.add_row("lineage so far", outcomes)
    if found.lag_messages is not None:
        behind = "" if found.lag_s is None else f", {_span(found.lag_s)}"
        table.add_row("source lag", f"{found.lag_messages:,} messages{behind}")
    if found.watermark_s is not None:
        table.add_row("watermark", f"{_instant(found.watermark_s)}, {_span(at_s - found.watermark_s)} ago")
    table.add_row("outbox", f"{_depth(found.outbox)}; limit {_size(found.outbox_limit_bytes)}")
    table.add_row("publishing", f"{found.retries:,} tries were repeated in this run")
    remembered = f"{found.fingerprints:,} fingerprints, {_size(found.dedup_memory_bytes)}"
    table.add_row("deduplication", f"{remembered}, {_share(found)} of what was judged was a repeat")
    if found.anomalies_open is not None:
        kinds = [f"{count:,} {kind}" for kind, count in found.anomalies_open.items() if count]
        table.add_row("anomalies open", Text(", ".join(kinds), style="yellow") if kinds else "none")
    for name, view in found.views.items():
        shown = "nothing published in this run"
        if view.published_s is not None:
            shown = f"published {_span(at_s - view.published_s)} ago"
            if view.event_time_s is not None:
                shown += f", shows events until {_instant(view.event_time_s)}"
        table.add_row(name, shown)


def _share(found: Measured) -> str:
    events = found.events
    repeats = events.get("duplicate", 0) + events.get("conflicting", 0)
    judged = sum(events.values()) - events.get("rejected", 0)
    return f"{100 * repeats / judged:.2f} %" if judged else "none"


def _depth(depth: Depth) -> str:
    if not depth.blocks:
        return "empty"
    return f"{depth.blocks:,} blocks, {_size(depth.bytes)}, the oldest for {_span(depth.age_s)}"


def _size(count: int) -> str:
    size, unit = float(count), "B"
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1024 or unit == "TiB":
            break
        size /= 1024
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _span(seconds: float) -> str:
    if seconds < 120:
        return f"{max(seconds, 0):.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 172_800 else f"{seconds / 86_400:.0f} days"


def _instant(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S} UTC"
