"""`tallyflow rules test | try`: the examples of a rule book, and what it would have made of past events."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..errors import BalanceError, ConfigError
from ..prices.book import PriceBook, load_price_book
from ..rules.book import RuleBook, load_rule_book
from ..rules.examples import failed_examples
from ..rules.rule import Clock
from ..statements.render import printable
from ..trial import OfRule, Tally, Trial, try_rules
from .options import Format, FormatOption
from .prices_diff import amount_text
from .progress import counting

SHOWN_MAX = 50
"""Rows of each table; JSON has them all."""

rules = typer.Typer(help="Rule books: what events must be like.", no_args_is_help=True)


@rules.callback()
def _rules() -> None:
    pass


@rules.command("test")
def test(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config whose rule book is tried.")] = None,
    book: Annotated[Path | None, typer.Option("--rules", "-r", help="A rule book, instead of a config's.")] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """Checks a rule book and tries the examples of its rules. Ends with 3 where one does not come out."""
    if (config is None) == (book is None):
        raise ConfigError("name a config (--config FILE) or a rule book (--rules FILE)")
    path = book if config is None else load_config(config).rules
    if path is None:
        raise ConfigError(f"{config}: names no `rules:`; docs/rules.md says how to write some")
    found = load_rule_book(path)
    failed = failed_examples(found)
    if format_ is Format.JSON:
        document = [{"line": one.line, "rule": one.rule, "message": one.message} for one in failed]
        typer.echo(json.dumps(document, indent=2))
    else:
        for one in failed:
            typer.echo(f"line {one.line}: {one.rule}: {one.message}")
    if failed:
        raise typer.Exit(BalanceError.exit_code)
    examples = sum(len(rule.examples) for rule in found.rules)
    typer.echo(f"{found.label}: {len(found.rules)} rules, {examples} examples come out", err=True)


@rules.command("try")
def try_(
    new: Annotated[Path, typer.Argument(metavar="NEW", help="A rule book.")],
    against: Annotated[
        Path | None, typer.Option("--against", help="A ledger's folder. Default: that of the config.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "-c", help="With it: amounts by its prices, beside its present rules.")
    ] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What a rule book would have made of the accepted events of a ledger: rejected, flagged, by rule and customer."""
    loaded = load_config(config) if config is not None else None
    folder = against if against is not None or loaded is None else loaded.ledger
    if folder is None:
        raise ConfigError("--against: name the folder of a ledger, or a config (-c) that keeps one")
    books = {"after": load_rule_book(new)}
    if loaded is not None and loaded.rules is not None:
        books = {"before": load_rule_book(loaded.rules), **books}
    prices = load_price_book(loaded.prices, loaded.limits.quantity_max) if loaded is not None else None
    found = _tried(folder, books, prices)
    clocks = [rule.id for rule in books["after"].rules if isinstance(rule.check, Clock)]
    if format_ is Format.JSON:
        typer.echo(json.dumps(_as_json(found, list(books), prices, clocks), ensure_ascii=False, indent=2))
    else:
        _print(found, list(books), prices, Console())
    if clocks:
        typer.echo(f"nothing is known of {', '.join(clocks)}: a ledger does not tell when an event was read", err=True)
    if found.unsealed_files:
        message = f"{folder}: {found.unsealed_files} files are not sealed yet; their events are not in this"
        typer.echo(message, err=True)


def _tried(folder: Path, books: dict[str, RuleBook], prices: PriceBook | None) -> Trial:
    with counting("trying", "events") as counter:
        return try_rules(folder, list(books.values()), prices, counter.add)


def _as_json(found: Trial, names: list[str], prices: PriceBook | None, clocks: list[str]) -> dict[str, Any]:
    """Amounts are strings: JSON readers would not hold them exactly."""

    def tally(of: Tally) -> dict[str, Any]:
        return {"events": of.events} | ({} if prices is None else {"amount": amount_text(of.amount_femto)})

    def rule(id_: str, of: OfRule) -> dict[str, Any]:
        customers = [{"customer": customer, **tally(one)} for customer, one in _largest(of.customers)]
        return {"rule": id_, "severity": of.severity, **tally(of.total), "customers": customers}

    document: dict[str, Any] = {"events": found.events, "unknown": clocks}
    if prices is not None:
        document["currency"] = prices.currency
    for name, verdict in zip(names, found.verdicts, strict=True):
        document[name] = {
            "rejected": tally(verdict.rejected),
            "flagged": tally(verdict.flagged),
            "rules": [rule(id_, of_rule) for id_, of_rule in verdict.rules.items()],
        }
    return document


def _print(found: Trial, names: list[str], prices: PriceBook | None, console: Console) -> None:
    after, before = found.verdicts[-1], found.verdicts[0] if len(names) > 1 else None
    table = Table(title="what fails a rule", title_justify="left")
    for column in ("rule", "severity", *(["events before"] if before else []), "events", "customers", "amount"):
        table.add_column(column, justify="left" if column in ("rule", "severity") else "right", overflow="fold")
    ids = list(after.rules) + [id_ for id_ in (before.rules if before else ()) if id_ not in after.rules]
    for id_ in ids:
        rule = after.rules.get(id_) or OfRule("gone")
        had = [f"{before.rules[id_].total.events:,}" if id_ in before.rules else "-"] if before else []
        told = (f"{rule.total.events:,}", f"{len(rule.customers):,}", _amount(rule.total, prices))
        table.add_row(Text(id_), rule.severity, *had, *told)
    console.print(table)
    customers = Table(title="whom the rules that reject would hit", title_justify="left")
    for column in ("rule", "customer", "events", "amount"):
        customers.add_column(column, justify="left" if column in ("rule", "customer") else "right", overflow="fold")
    for id_, rule in after.rules.items():
        for customer, tally in _largest(rule.customers)[:SHOWN_MAX] if rule.severity == "reject" else ():
            customers.add_row(Text(id_), Text(printable(customer)), f"{tally.events:,}", _amount(tally, prices))
    if customers.row_count:
        console.print(customers)
    for name, verdict in zip(names, found.verdicts, strict=True):
        console.print(
            Text(
                f"{name}: of {found.events:,} accepted events {verdict.rejected.events:,} would be rejected "
                f"({_amount(verdict.rejected, prices)}), {verdict.flagged.events:,} flagged"
            )
        )


def _largest(customers: dict[str, Tally]) -> list[tuple[str, Tally]]:
    return sorted(customers.items(), key=lambda item: (-item[1].amount_femto, -item[1].events, item[0]))


def _amount(tally: Tally, prices: PriceBook | None) -> str:
    return "no prices" if prices is None else f"{amount_text(tally.amount_femto)} {prices.currency}"
