"""`tallyflow prices explain | lint | test`: one event step by step, what is odd in a book, its examples."""

import contextlib
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..config import load_config
from ..errors import BalanceError, ConfigError, TallyflowError
from ..prices.book import PriceBook, load_price_book
from ..prices.explain import Item, Usage, amount_text, explain, total_femto
from ..prices.lint import Finding, failed_examples, lint
from ..prices.price import NARROWING
from ..steps.batches import Limits, Lines
from ..steps.decode import decode
from .options import Format, FormatOption

ConfigPath = Annotated[Path | None, typer.Option("--config", "-c", help="The config whose price book is asked.")]
BookPath = Annotated[Path | None, typer.Option("--prices", "-p", help="A price book, instead of a config's.")]


def explain_command(
    event: Annotated[Path, typer.Argument(help="A file with one event, as it is sent.")],
    config: ConfigPath = None,
    prices: BookPath = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """How one event is rated: which rows matched, which lost and why, each multiplication, the result."""
    book = _book(config, prices)
    items = explain(book, _read(event))
    if format_ is Format.JSON:
        typer.echo(json.dumps(_as_json(book, items), indent=2))
    else:
        _print(book, items, Console())


def lint_command(
    config: ConfigPath = None,
    prices: BookPath = None,
    previous: Annotated[Path | None, typer.Option(help="The version before, to find absurd jumps and edits.")] = None,
    market: Annotated[Path | None, typer.Option(help="A book of market prices, to find missing tiers.")] = None,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What is allowed in a price book, and probably not meant. Ends with 1 where it finds something."""
    book = _book(config, prices)
    of = [load_price_book(path) if path is not None else None for path in (previous, market)]
    _report(lint(book, *of), format_, "nothing to remark")


def test_command(config: ConfigPath = None, prices: BookPath = None, format_: FormatOption = Format.TABLE) -> None:
    """Tries the examples of a price book. Ends with 3 where one does not come out."""
    book = _book(config, prices)
    if not book.examples:
        raise ConfigError("the price book has no `examples:`; docs/prices.md says how to write some")
    failed = failed_examples(book)
    _report(failed, format_, f"{len(book.examples)} examples come out", code=BalanceError.exit_code)


def _book(config: Path | None, prices: Path | None) -> PriceBook:
    if (config is None) == (prices is None):
        raise ConfigError("name a config (--config FILE) or a price book (--prices FILE)")
    if config is not None:
        found = load_config(config)
        return load_price_book(found.prices, found.limits.quantity_max)
    assert prices is not None  # one of the two was checked to be there
    return load_price_book(prices)


def _read(path: Path) -> Usage:
    """The event as a run would read it. Raises ConfigError, TallyflowError with the reason for which it is rejected."""
    try:
        data = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    with contextlib.suppress(ValueError, RecursionError):  # decode says what is wrong with it
        data = json.dumps(json.loads(data)).encode()  # onto one line, however it is laid out
    decoded = decode(Lines(str(path), 0, data + b"\n"), Limits(), time.time_ns() // 1000 + 10**15)
    for rejected in decoded.rejected.to_pylist():
        raise TallyflowError(f"{path}: would be rejected: {rejected['reason']} {rejected['detail']}".rstrip())
    events = decoded.events.to_pylist()
    if len(events) != 1:
        raise ConfigError(f"{path}: holds {len(events)} events; one is explained at a time")
    model, service_tier, region, customer = (events[0][name] for name in NARROWING)
    quantities = {item["meter"]: item["quantity"] for item in events[0]["usage"]}
    return Usage(events[0]["event_time_us"], (model, service_tier, region, customer), quantities)


def _as_json(book: PriceBook, items: list[Item]) -> dict[str, Any]:
    return {
        "currency": book.currency,
        "amount": amount_text(total_femto(items)),
        "meters": [
            {
                "meter": item.meter,
                "quantity": str(item.quantity),
                "outcome": item.outcome,
                "amount": amount_text(item.amount_femto),
                "rows": [
                    {"line": row.line, "price": row.says, "wins": row.wins, "why": row.why} for row in item.candidates
                ],
                "steps": list(item.steps),
            }
            for item in items
        ],
    }


def _print(book: PriceBook, items: list[Item], console: Console) -> None:
    for item in items:
        amount = f"{amount_text(item.amount_femto)} {book.currency}" if item.outcome == "priced" else item.outcome
        console.print(f"[bold]{item.meter}[/bold]: {item.quantity}: {amount}", highlight=False, soft_wrap=True)
        for row in item.candidates:
            mark = "[green]wins[/green]" if row.wins else "lost"
            line = f"line {row.line}: " if row.line else ""
            text = f"  {mark}  {line}{escape(row.says)}: {escape(row.why)}"
            console.print(text, highlight=False, soft_wrap=True)
        for step in item.steps:
            console.print(f"  {escape(step)}", highlight=False, soft_wrap=True)
    total = f"[bold]total[/bold]: {amount_text(total_femto(items))} {book.currency}"
    console.print(total, highlight=False, soft_wrap=True)


def _report(findings: list[Finding], format_: Format, clean: str, code: int = 1) -> None:
    if format_ is Format.JSON:
        typer.echo(json.dumps([{"line": f.line, "rule": f.rule, "message": f.message} for f in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(f"line {finding.line}: {finding.rule}: {finding.message}")
        if not findings:
            typer.echo(clean, err=True)
    if findings:
        raise typer.Exit(code)
