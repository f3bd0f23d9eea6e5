"""What `tallyflow run` tells at its end: the balance, the largest numbers, and where to look next."""

import sys
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from ..config import Config
from ..run import Outcome
from ..schema import meter_and_per
from ..start import open_store
from ..statements.render import printable
from ..steps.combine import OUTCOMES, MeterTotals
from ..store.queries.summary import Month, latest_month


def show(outcome: Outcome, config: Config, path: Path) -> None:
    """Prints it. `path` is that of the config, as the command was given it. Raises StoreError."""
    with open_store(config) as client:
        month = latest_month(client)
    _print(outcome, month, config, path, Console())


def _print(outcome: Outcome, month: Month, config: Config, path: Path, console: Console) -> None:
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
