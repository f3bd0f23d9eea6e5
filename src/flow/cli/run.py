"""`tallyflow run`: bills the events of a config."""

import logging
import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from ..cluster.hosts import Hosts
from ..cluster.supervisor import run_cluster
from ..config import Config, SyntheticSource, load_config
from ..errors import ConfigError, TallyflowError
from ..logs import set_up
from ..run import Outcome, open_store
from ..run import run as run_job
from ..schema import meter_and_per
from ..statements.render import printable
from ..steps.combine import OUTCOMES, MeterTotals
from ..store.client import engine_kept
from ..store.queries.summary import Month, latest_month
from .progress import counting

LOG = logging.getLogger(__name__)


def run(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker threads, of each process; at most as many as shards are of use.")
    ] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes, at most as many as shards; more than 1 need a ClickHouse server."
        ),
    ] = 1,
    addresses: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,HOST:PORT,...",
            help="All hosts of the job, the same on each; it needs a ClickHouse server, and storage that all share.",
        ),
    ] = "",
    host: Annotated[
        int, typer.Option(min=0, help="Which of --addresses this host is; 0 decides, and has the balance.")
    ] = 0,
) -> None:
    """Bill the events of a config: until the end of input, or a signal; ends with the balance.

    Of several hosts, each runs this with its own --host, and --processes of its own.
    """
    settings = load_config(config)
    set_up(settings.log)
    hosts = Hosts.parse(addresses, host) if addresses else None
    if hosts is None and host:
        raise ConfigError(f"--host {host}: there is no --addresses that it could be one of")
    with engine_kept():
        begun = {"source": settings.source.kind, "store": settings.store.url, "processes": processes, "host": host}
        LOG.info("the run begins", extra=begun)
        _run(settings, config, workers, processes, hosts)


def _run(settings: Config, config: Path, workers: int, processes: int, hosts: Hosts | None) -> None:
    outcome: Outcome | None
    try:
        if processes > 1 or hosts is not None:
            outcome = run_cluster(settings, processes, workers, LOG.warning, hosts)
        else:
            outcome = _run_with_progress(settings, workers)
    except TallyflowError as error:
        if settings.log.format == "pretty":
            raise
        LOG.critical("%s", error)  # a collector has no use for a bare line
        raise typer.Exit(error.exit_code) from error
    if outcome is None:
        typer.echo("This host has done its part; the balance is with host 0.")
        return
    LOG.info("the run has ended", extra={"lineage": outcome.lineage, "read": outcome.read, "balance": outcome.balance})
    with open_store(settings) as client:
        _print(outcome, latest_month(client), settings, config, Console())


def _run_with_progress(settings: Config, workers: int) -> Outcome:
    total = settings.source.events if isinstance(settings.source, SyntheticSource) else None
    with counting("billing", "events", total) as counter:
        return run_job(settings, workers, counter.add)


def _print(outcome: Outcome, month: Month, config: Config, path: Path, console: Console) -> None:
    """The balance, the largest numbers, and where to look next."""
    console.print(_balance(outcome))
    if outcome.meters:
        console.print(_meters(outcome))
    if month.largest:
        console.print(_largest(month))
    if month.unpriced:
        names = ", ".join(f"{model} ({quantity:,})" for model, quantity in month.unpriced)
        console.print(
            f"Unpriced in {month.month}, and therefore in no amount: {names}", style="yellow", highlight=False
        )
    if outcome.unknown_fields:
        console.print(f"{outcome.unknown_fields:,} unknown fields were ignored.", style="yellow", highlight=False)
    rate = round(outcome.read / outcome.seconds) if outcome.seconds else 0
    tokens = sum(quantity for meter, (quantity, _, _) in _by_meter(outcome.meters).items() if meter.endswith("tokens"))
    ended = "stopped by a signal; the next run goes on from here" if outcome.interrupted else "end of input"
    lines = [
        f"{outcome.read:,} events, {tokens:,} tokens in {outcome.seconds:.1f} s, published: {rate:,} events/s; "
        f"{ended}.",
        f"Store: {config.store.url}",
    ]
    if month.largest:
        # The command as it was called, so that what is shown can be pasted.
        command = sys.argv[0] if Path(sys.argv[0]).name == "tallyflow" else "tallyflow"
        lines += [
            "Next:",
            f'  {command} sql "SELECT * FROM usage_by_day ORDER BY amount DESC LIMIT 10" -c {path}',
            f"  {command} invoice {month.largest[0][0]} --period {month.month} --by feature,day -c {path}",
        ]
    console.print("\n".join(lines), highlight=False, soft_wrap=True)


def _balance(outcome: Outcome) -> Table:
    table = Table(title="Balance of the lineage", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    signs = dict(zip(OUTCOMES, ("", "= ", "+ ", "+ ", "+ ", "+ "), strict=True))
    for name in OUTCOMES:
        table.add_column(signs[name] + name, justify="right")
    table.add_row(*(f"{outcome.balance[name]:,}" for name in OUTCOMES))
    return table


def _meters(outcome: Outcome) -> Table:
    table = Table(title="Billed in this run", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("meter")
    for name in ("quantity", f"amount, {outcome.currency}", "of it unpriced"):
        table.add_column(name, justify="right")
    rows = sorted(_by_meter(outcome.meters).items())
    rows.append(("all amounts", (0, sum((amount for _, (_, amount, _) in rows), Fraction(0)), 0)))
    for meter, (quantity, amount_femto, unpriced) in rows:
        amount, rest = divmod(amount_femto, 1)
        left = f" + {rest} x 10^-15" if rest else ""
        shown = ["" if number == 0 else f"{number:,}" for number in (quantity, unpriced)]
        table.add_row(meter, shown[0], f"{Decimal(amount).scaleb(-15):,f}{left}", shown[1])
    return table


def _by_meter(totals: MeterTotals) -> dict[str, tuple[int, Fraction, int]]:
    """Quantity, exact amount in 10^-15 and unpriced quantity of each meter, over the units that amounts are kept in."""
    found: dict[str, tuple[int, Fraction, int]] = {}
    for name, (quantity, amount, unpriced) in totals.items():
        meter, per = meter_and_per(name)
        sums = found.get(meter, (0, Fraction(0), 0))
        found[meter] = sums[0] + quantity, sums[1] + Fraction(amount, per), sums[2] + unpriced
    return found


def _largest(month: Month) -> Table:
    title = f"Largest of {month.customers:,} customers, {month.month}"
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("customer")
    table.add_column("amount", justify="right")
    for customer, amount in month.largest:
        table.add_row(printable(customer), f"{amount:,f}")
    return table
