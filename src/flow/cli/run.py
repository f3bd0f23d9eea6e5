"""`tallyflow run`: bills the events of a config."""

import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..config import Config, SyntheticSource, load_config
from ..run import Outcome, open_store
from ..run import run as run_job
from ..steps.combine import OUTCOMES
from ..store.queries.summary import Line, Summary, summary


def run(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    workers: Annotated[int, typer.Option(min=1, max=256, help="Worker threads; at most as many as shards are of use.")] = 1,
) -> None:
    """Bill the events of a config: until the end of input, or a signal; ends with the balance."""
    settings = load_config(config)
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("events"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    ) as progress:
        total = settings.source.events if isinstance(settings.source, SyntheticSource) else None
        task = progress.add_task("billing", total=total)
        outcome = run_job(settings, workers, lambda events: progress.advance(task, events))
    with open_store(settings) as client:
        _print(outcome, summary(client), settings, config, Console())


def _print(outcome: Outcome, billed: Summary, config: Config, path: Path, console: Console) -> None:
    """The balance, the largest numbers, and where to look next."""
    console.print(_balance(outcome))
    currency = ", ".join(billed.currencies)
    if billed.meters:
        console.print(_lines("meter", billed.meters, currency))
        console.print(_lines(f"largest of {billed.customer_count:,} customers, tokens", billed.customers, currency))
    if billed.unpriced_models:
        names = ", ".join(f"{line.name} ({line.unpriced:,})" for line in billed.unpriced_models)
        console.print(f"Unpriced, and therefore in no amount: {names}", style="yellow", highlight=False)
    if outcome.unknown_fields:
        console.print(f"{outcome.unknown_fields:,} unknown fields were ignored.", style="yellow", highlight=False)
    rate = outcome.read / outcome.seconds if outcome.seconds else 0
    ended = "stopped by a signal; the next run goes on from here" if outcome.interrupted else "end of input"
    lines = [
        f"{outcome.read:,} events in {outcome.seconds:.1f} s ({rate:,.0f} events/s, published), {ended}.",
        f"Store: {config.store.url}",
    ]
    if billed.meters:
        lines += [
            "Next:",
            f'  tallyflow sql "SELECT * FROM usage_by_day ORDER BY amount DESC LIMIT 10" -c {path}',
            f"  tallyflow invoice {billed.customers[0].name} --period {billed.last_window[:7]} -c {path}",
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _balance(outcome: Outcome) -> Table:
    table = Table(title="balance of the lineage: read = accepted + duplicate + conflicting + rejected + late", title_justify="left")
    for name in OUTCOMES:
        table.add_column(name, justify="right")
    table.add_row(*(f"{outcome.balance[name]:,}" for name in OUTCOMES))
    return table


def _lines(title: str, lines: list[Line], currency: str) -> Table:
    table = Table()
    table.add_column(title)
    table.add_column("quantity", justify="right")
    table.add_column(f"amount, {currency}", justify="right")
    table.add_column("unpriced quantity", justify="right")
    for line in lines:
        table.add_row(line.name, f"{line.quantity:,}", f"{line.amount:,f}", f"{line.unpriced:,}" if line.unpriced else "")
    return table
