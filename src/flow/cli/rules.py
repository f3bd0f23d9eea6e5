"""`tallyflow rules test`: the examples of a rule book."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..config import load_config
from ..errors import BalanceError, ConfigError
from ..rules.book import RuleBook, load_rule_book
from ..rules.examples import failed_examples

rules = typer.Typer(help="Rule books: what events must be like.", no_args_is_help=True)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


AsFormat = Annotated[Format, typer.Option("--format", help="How to print it.")]


@rules.callback()
def _rules() -> None:
    pass


@rules.command("test")
def test(
    config: Annotated[Path | None, typer.Option("--config", "-c", help="The config whose rule book is tried.")] = None,
    book: Annotated[Path | None, typer.Option("--rules", "-r", help="A rule book, instead of a config's.")] = None,
    format_: AsFormat = Format.TABLE,
) -> None:
    """Checks a rule book and tries the examples of its rules. Ends with 3 where one does not come out."""
    found = _book(config, book)
    failed = failed_examples(found)
    if format_ is Format.JSON:
        typer.echo(
            json.dumps([{"line": one.line, "rule": one.rule, "message": one.message} for one in failed], indent=2)
        )
    else:
        for one in failed:
            typer.echo(f"line {one.line}: {one.rule}: {one.message}")
    if failed:
        raise typer.Exit(BalanceError.exit_code)
    examples = sum(len(rule.examples) for rule in found.rules)
    typer.echo(f"{found.label}: {len(found.rules)} rules, {examples} examples come out", err=True)


def _book(config: Path | None, book: Path | None) -> RuleBook:
    if (config is None) == (book is None):
        raise ConfigError("name a config (--config FILE) or a rule book (--rules FILE)")
    path = book if config is None else load_config(config).rules
    if path is None:
        raise ConfigError(f"{config}: names no `rules:`; docs/rules.md says how to write some")
    return load_rule_book(path)
