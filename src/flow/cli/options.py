"""Options that many commands take, and what is read out of them."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..prices.values import parse_instant_us


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


class FormatOrCsv(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


ConfigOption = Annotated[Path, typer.Option("--config", "-c", help="The config file of the run.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print it.")]
FormatOrCsvOption = Annotated[FormatOrCsv, typer.Option("--format", help="How to print it.")]


def instant_us(text: str, option: str) -> int:
    """The instant that an option names. Raises ConfigError."""
    try:
        return parse_instant_us(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} {error}") from None


def instants_us(texts: dict[str, str | None], problems: list[str]) -> list[int | None]:
    """The instants that options name, None for one that is not given; what is wrong is added to `problems`."""
    found: list[int | None] = []
    for option, text in texts.items():
        try:
            found.append(None if text is None else instant_us(text, option))
        except ConfigError as error:
            problems += error.errors
            found.append(None)
    return found
