"""`tallyflow prices import`: the price file of another project becomes a price book."""

import sys
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from ..errors import ConfigError
from ..prices.book import parse_price_book
from ..prices.importing.collect import Imported
from ..prices.importing.formats import Format, import_file, names_of
from ..prices.importing.write import book_text
from .options import instant_us


def import_(
    format_: Annotated[Format, typer.Argument(metavar="FORMAT", help="Whose file it is.")],
    file: Annotated[Path, typer.Argument(help="The file, JSON or .json.gz.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The price book to write. Default: stdout.")] = None,
    provider: Annotated[
        str | None,
        typer.Option(help="This provider's models only, by their own names: gpt-5 and not openai/gpt-5."),
    ] = None,
    from_: Annotated[
        str | None,
        typer.Option("--from", help="Since when prices hold that have no date there. Default: 1970-01-01T00:00:00Z."),
    ] = None,
    names: Annotated[
        Path | None,
        typer.Option(help="Names of models in use, one a line, for which a pattern of genai-prices may stand."),
    ] = None,
) -> None:
    """Make a price book of a public price file; whatever cannot be in it is listed by name."""
    if out is not None and out.exists():
        raise ConfigError(f"{out}: exists; a price book is never overwritten: give another name")
    in_use = names_of(names) if names is not None else []
    imported = import_file(format_, file, provider, _from_us(from_), in_use)
    text = book_text(imported, f"{file.name} ({format_})")
    parse_price_book(text, str(out or "the imported book"))  # what was written can be read
    if out is None:
        sys.stdout.write(text)
    else:
        try:
            out.write_text(text, encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{out}: cannot be written: {error.strerror}") from None
    _report(imported, out)


def _from_us(text: str | None) -> int:
    return instant_us(text, "--from") if text is not None else 0


def _report(imported: Imported, out: Path | None) -> None:
    """Every remark on a line of its own, and at last how many there were."""
    for remark in imported.remarks:
        typer.echo(f"{remark.kind:9} {remark.where}: {remark.text}", err=True)
    counts = Counter(remark.kind for remark in imported.remarks)
    told = "".join(f", {count:,} {kind}" for kind, count in counts.items())
    typer.echo(f"{len(imported.prices):,} prices of {imported.models:,} models in {out or 'stdout'}{told}", err=True)
