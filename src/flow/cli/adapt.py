"""`tallyflow adapt`: what providers report about usage becomes events."""

import gzip
import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Annotated, BinaryIO, cast

import typer

from ..adapters.events import Adapter, Event, batches
from ..adapters.reading import Finding
from ..adapters.tables import KINDS
from ..errors import ConfigError, PayloadError, SourceError, TallyflowError
from ..prices.book import load_price_book
from .trace import report, write_with_progress

_SHOWN = 10
"""How many payloads that no event could be made of are named; all of them go to --rejected."""


@dataclass
class _Tally:
    """What is said at the end."""

    payloads: int = 0
    refused: int = 0
    named: list[str] = field(default_factory=list)
    found: dict[tuple[str, str], tuple[int, int]] = field(default_factory=dict)
    """{(path, why): (payloads, quantity)}"""

    def refuse(self, message: str) -> None:
        self.payloads += 1
        self.refused += 1
        if len(self.named) < _SHOWN:
            self.named.append(message)

    def find(self, finding: Finding) -> None:
        why = "disagrees" if finding.why.startswith("is not") else finding.why
        payloads, quantity = self.found.get((finding.path, why), (0, 0))
        self.found[finding.path, why] = (payloads + 1, quantity + finding.quantity)


def adapt(
    kind: Annotated[
        str, typer.Argument(help="Whose payloads: openai/chat, anthropic, litellm/logging, ... or `kinds`.")
    ],
    path: Annotated[Path | None, typer.Argument(help="NDJSON, plain or .gz; - is stdin.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Ends in .ndjson, .ndjson.gz, .parquet or .arrow.")
    ] = None,
    constants: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=TEXT, for all events: --set customer=acme")
    ] = None,
    paths: Annotated[
        list[str] | None, typer.Option("--field", help="FIELD=PATH, where it stands in a line: --field id=request.id")
    ] = None,
    defaults: Annotated[
        list[str] | None, typer.Option("--default", help="FIELD=TEXT, for events that say nothing else.")
    ] = None,
    payload: Annotated[str, typer.Option(help="Where in a line the payload stands. Default: the line is it.")] = "",
    prices: Annotated[
        Path | None, typer.Option(help="A price book: meters it has no price for are counted as what they are part of.")
    ] = None,
    rejected: Annotated[Path | None, typer.Option(help="Where payloads go that no event can be made of.")] = None,
    refuse_unknown: Annotated[
        bool, typer.Option("--refuse-unknown", help="Make no event of a payload with a count that no row reads.")
    ] = False,
) -> None:
    """Turn providers' usage payloads into events that `tallyflow run` can read."""
    if kind == "kinds" and path is None:
        typer.echo("\n".join(KINDS))
        return
    if path is None or out is None:
        raise ConfigError("a file of payloads and --out are needed: tallyflow adapt KIND PATH --out EVENTS.ndjson")
    book = None if prices is None else load_price_book(prices)
    meters = None if book is None else book.meters | book.unbilled
    given = [_pairs(pairs, name) for pairs, name in ((constants, "--set"), (paths, "--field"), (defaults, "--default"))]
    adapter = Adapter(kind, given[0], given[1], payload, meters, given[2])
    tally = _Tally()
    aside = None if rejected is None else _open(rejected, "wb")
    try:
        events = _events(adapter, path, tally, aside, refuse_unknown)
        written = write_with_progress(batches(adapter, events), out)
    finally:
        if aside is not None:
            aside.close()
    report(written)
    _say_findings(tally, kind)
    if tally.refused:
        raise TallyflowError(
            f"{tally.refused:,} of {tally.payloads:,} payloads made no event:\n  " + "\n  ".join(tally.named)
        )


def _pairs(given: list[str] | None, option: str) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    wrong = [f"{option} {''.join(pair)}: must be FIELD=..." for pair in pairs if not (pair[0] and pair[1] and pair[2])]
    if wrong:
        raise ConfigError(wrong)
    return {name: value for name, _, value in pairs}


def _events(
    adapter: Adapter, path: Path, tally: _Tally, aside: BinaryIO | None, refuse_unknown: bool
) -> Iterator[Event]:
    for number, text in enumerate(_lines(path), 1):
        if not text.strip():
            continue
        line, payloads = None, []
        with _refusing(tally, aside, path, number, text):
            line = _parsed(text)
            payloads = adapter.payloads(line)
        for payload in payloads:
            events: list[Event] = []
            with _refusing(tally, aside, path, number, payload if adapter.kind.by_span else text):
                made = adapter.events_of(line, payload)
                unread = [found for event in made for found in event.findings if found.quantity]
                if refuse_unknown and unread:
                    raise PayloadError(f"{unread[0].path} is {unread[0].quantity}, and {unread[0].why}")
                events = made
            tally.payloads += bool(events)
            for event in events:
                for finding in event.findings:
                    tally.find(finding)
            yield from events


@contextmanager
def _refusing(
    tally: _Tally, aside: BinaryIO | None, path: Path, number: int, payload: bytes | Mapping[str, object]
) -> Iterator[None]:
    """Counts, and keeps, what a PayloadError is raised for."""
    try:
        yield
    except PayloadError as error:
        tally.refuse(f"{path}:{number}: {error}")
        if aside is not None:
            line = payload if isinstance(payload, bytes) else json.dumps(payload, default=str).encode()
            said = {"line": number, "reason": str(error), "payload": line.decode("utf-8", "replace").rstrip()}
            aside.write(json.dumps(said).encode() + b"\n")


def _parsed(line: bytes) -> object:
    try:
        return json.loads(line, parse_float=Decimal)
    except (ValueError, RecursionError) as error:
        raise PayloadError(f"not JSON: {error}") from error


def _open(path: Path, mode: str) -> BinaryIO:
    try:
        return cast(BinaryIO, gzip.open(path, mode) if path.name.endswith(".gz") else path.open(mode))
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or error}") from error


def _lines(path: Path) -> Iterator[bytes]:
    """Raises SourceError."""
    if str(path) == "-":
        yield from sys.stdin.buffer
        return
    try:
        with _open(path, "rb") as file:
            yield from file
    except (OSError, EOFError) as error:
        raise SourceError(f"{path}: {error}") from error


def _say_findings(tally: _Tally, kind: str) -> None:
    if not tally.found:
        return
    typer.echo(f"not in any meter, and worth a look (payloads of {kind}):", err=True)
    for (path, why), (payloads, quantity) in sorted(tally.found.items()):
        readers = [name for name, known in KINDS.items() if path in known.row_of][:3]
        hint = f"; {', '.join(readers)} count it" if readers else ""
        typer.echo(f"  {path}: {quantity:,} in {payloads:,} payloads: {why}{hint}", err=True)
