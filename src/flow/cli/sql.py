"""`tallyflow sql`: one question to the store, that can change nothing."""

import csv
import io
import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..config import load_config
from ..errors import ConfigError
from ..statements.render import printable
from ..store import check_schema, connect
from ..store.client import Answer

PRETTY_ROWS_MAX = 1000
"""More rows than these are not read on a screen; JSON and CSV give all."""

# What reads. The store refuses all else as well; this says so before an INSERT's values are even parsed.
_READS = frozenset({"SELECT", "WITH", "FROM", "SHOW", "DESCRIBE", "DESC", "EXPLAIN", "EXISTS"})
_COMMENTS = re.compile(r"(\s+|--[^\n]*(\n|$)|/\*.*?\*/|\()*", re.DOTALL)
_FORMAT = re.compile(r"\bFORMAT\s+\w+\s*;?\s*$", re.IGNORECASE)


class Format(StrEnum):
    PRETTY = "pretty"
    JSON = "json"
    CSV = "csv"


def sql(
    query: Annotated[str, typer.Argument(help="For example: SELECT * FROM usage_by_day LIMIT 10")],
    config: Annotated[Path, typer.Option("--config", "-c", help="The config file of the run.")],
    format_: Annotated[Format, typer.Option("--format", help="How to print the rows.")] = Format.PRETTY,
) -> None:
    """Ask the store a question in SQL; tables and views of the config's database need no prefix."""
    statement = check_query(query)
    with connect(load_config(config).store, readonly=True) as client:
        check_schema(client)
        answer = client.answer(statement)
    if format_ is Format.JSON:
        typer.echo(as_json(answer))
    elif format_ is Format.CSV:
        typer.echo(as_csv(answer), nl=False)
    else:
        print_table(answer, Console())


def check_query(query: str) -> str:
    """The query without what the command adds itself. Raises ConfigError for one that does more than read."""
    statement = query.strip().rstrip("; \n\t")
    comments = _COMMENTS.match(statement)
    word = statement[comments.end() if comments else 0 :].split(None, 1)
    first = re.match(r"\w*", word[0])[0].upper() if word else ""  # type: ignore[index]
    if first not in _READS:
        shown = f"begins with {first}" if first else "is empty"
        raise ConfigError(f"sql: the query {shown}; this command only reads: SELECT, WITH, SHOW, EXPLAIN")
    if _FORMAT.search(statement):
        raise ConfigError("sql: leave FORMAT out of the query, and choose --format pretty, json or csv")
    return statement


def as_json(answer: Answer) -> str:
    """One array of objects, a row a line."""
    rows = [json.dumps(dict(zip(answer.names, row, strict=True)), ensure_ascii=False) for row in answer.rows]
    return "[" + ",\n ".join(rows) + "]"


def as_csv(answer: Answer) -> str:
    """A header and the rows; arrays, maps and tuples as JSON."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(answer.names)
    writer.writerows(["" if value is None else _cell(value) for value in row] for row in answer.rows)
    return out.getvalue()


def print_table(answer: Answer, console: Console) -> None:
    """The first PRETTY_ROWS_MAX rows; says how many there are if it left some out."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    numeric = re.compile(r"(Nullable\()?(U?Int|Decimal|Float)")
    for name, column_type in zip(answer.names, answer.types, strict=True):
        right = numeric.match(column_type) is not None
        table.add_column(Text(printable(name)), justify="right" if right else "left", overflow="fold")
    for row in answer.rows[:PRETTY_ROWS_MAX]:
        table.add_row(*(Text(printable(_cell(value)) if value != "" else "") for value in row))
    console.print(table)
    if len(answer.rows) > PRETTY_ROWS_MAX:
        typer.echo(f"{PRETTY_ROWS_MAX:,} of {len(answer.rows):,} rows; --format json or csv gives all", err=True)


def _cell(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
