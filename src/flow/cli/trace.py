"""`tallyflow trace`: a public usage trace becomes events."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from ..errors import ConfigError
from ..traces import BASE_TIME, aider, azure, mooncake, servegen
from ..traces.write import Written, write_events
from .progress import counting


class TraceKind(StrEnum):
    """Which public trace a file is."""

    azure = "azure"
    mooncake = "mooncake"
    aider = "aider"
    servegen = "servegen"


class AiderIds(StrEnum):
    """Where the ids of aider's events come from."""

    given = "given"
    content = "content"


_OPTIONS_OF = {
    TraceKind.azure: {"--customer", "--model"},
    TraceKind.mooncake: {"--customer", "--model", "--base-time"},
    TraceKind.aider: {"--ids"},
    TraceKind.servegen: {"--seed", "--scale", "--totals", "--base-time"},
}


def trace(
    kind: Annotated[TraceKind, typer.Argument(help="What the file is.")],
    path: Annotated[Path, typer.Argument(help="The trace, plain or .gz.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Ends in .ndjson, .ndjson.gz, .parquet or .arrow.")],
    seed: Annotated[int | None, typer.Option(min=0, help="servegen: which requests are drawn. Default: 1.")] = None,
    scale: Annotated[
        str | None,
        typer.Option(help="servegen: times the published requests, as 0.001 or 1/1000. Default: 1."),
    ] = None,
    totals: Annotated[
        bool,
        typer.Option("--totals", help="servegen: draw nothing; one event for each published number."),
    ] = False,
    base_time: Annotated[
        str | None,
        typer.Option(help=f"mooncake, servegen: when the trace begins. Default: {BASE_TIME:%Y-%m-%dT%H:%M:%SZ}."),
    ] = None,
    customer: Annotated[
        str | None, typer.Option(help="azure, mooncake: whose requests they are. Default: from the trace.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="azure, mooncake: the model of the requests. Default: by trace.")
    ] = None,
    ids: Annotated[
        AiderIds | None,
        typer.Option(help="aider: content makes exact repeats duplicates. Default: given."),
    ] = None,
) -> None:
    """Turn a public usage trace into events that `tallyflow run` can read."""
    given = {
        "--seed": seed,
        "--scale": scale,
        "--totals": totals or None,  # a flag that is not set is not given
        "--base-time": base_time,
        "--customer": customer,
        "--model": model,
        "--ids": None if ids is None else ids.value,
    }
    options = {name: value for name, value in given.items() if value is not None}
    errors = [f"{name}: not for a trace of kind {kind}" for name in options if name not in _OPTIONS_OF[kind]]
    if totals and (seed is not None or scale is not None):
        errors.append("--totals: draws nothing, so --seed and --scale have no meaning with it")
    if errors:
        raise ConfigError(errors)
    report(write_with_progress(_events(kind, path, options), out))


def _events(kind: TraceKind, path: Path, options: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
    """The events of a trace; `options` are those given for its kind, by their names on the command line."""
    passed = {name.removeprefix("--").replace("-", "_"): value for name, value in options.items()}
    if "base_time" in passed:
        passed["base_time"] = parse_time(passed["base_time"], "--base-time")
    if "scale" in passed:
        passed["scale"] = servegen.parse_scale(passed["scale"])
    match kind:
        case TraceKind.azure:
            return azure.events(path, **passed)
        case TraceKind.mooncake:
            return mooncake.events(path, **passed)
        case TraceKind.aider:
            return aider.events(path, **passed)
        case TraceKind.servegen if passed.pop("totals", False):
            return servegen.totals(path, **passed)
        case TraceKind.servegen:
            return servegen.events(path, **passed)


def parse_time(text: str, option: str) -> datetime:
    """An instant such as 2026-11-01T00:00:00Z, in UTC. Raises ConfigError naming the option."""
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        instant = None
    if instant is None or instant.utcoffset() is None:
        raise ConfigError(f"{option}: must be a time with a UTC offset, such as 2026-11-01T00:00:00Z, not {text!r}")
    return instant.astimezone(UTC)


def write_with_progress(batches: Iterable[pa.RecordBatch], out: Path, events: int | None = None) -> Written:
    """Writes the batches to `out`; on a terminal a bar on stderr counts the events, of `events` if known."""
    with counting(f"writing {out.name}", "events", events) as counter:

        def counted() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                yield batch
                counter.add(batch.num_rows)

        return write_events(counted(), out)


def report(written: Written) -> None:
    """One line on stderr: events, the sum of each meter, the file."""
    sums = ", ".join(f"{quantity:,} {meter}" for meter, quantity in written.quantities.items())
    typer.echo(f"{written.events:,} events ({sums or 'no meters'}) in {written.path}", err=True)
