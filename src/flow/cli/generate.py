"""`tallyflow generate`: synthetic events, with everything in them that goes wrong in real life."""

from pathlib import Path
from typing import Annotated

import typer

from .. import generate as synthetic
from ..errors import TallyflowError
from .trace import parse_time, write_with_progress

_DEFAULT = synthetic.Synthetic()


def generate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Ends in .ndjson, .ndjson.gz, .parquet or .arrow.")],
    events: Annotated[int, typer.Option(help="How many.")] = 1_000_000,
    seed: Annotated[int, typer.Option(help="The same seed gives the same events.")] = _DEFAULT.seed,
    customers: Annotated[int, typer.Option(help="How many; their shares are Zipf's.")] = _DEFAULT.customers,
    models: Annotated[int, typer.Option(help="How many.")] = _DEFAULT.models,
    start: Annotated[str, typer.Option(help="The earliest event time.")] = f"{_DEFAULT.start:%Y-%m-%dT%H:%M:%SZ}",
    duration_s: Annotated[int, typer.Option(help="The seconds they are spread over.")] = _DEFAULT.duration_s,
    disorder_s: Annotated[
        int, typer.Option(help="By how many seconds at most an event is late.")
    ] = _DEFAULT.disorder_s,
    duplicate_ppm: Annotated[int, typer.Option(help="Duplicates in a million.")] = _DEFAULT.duplicate_ppm,
    conflicting_ppm: Annotated[
        int, typer.Option(help="Events in a million that repeat an id with another payload.")
    ] = _DEFAULT.conflicting_ppm,
    bad_ppm: Annotated[int, typer.Option(help="Events in a million to be rejected.")] = _DEFAULT.bad_ppm,
    unpriced_ppm: Annotated[
        int, typer.Option(help="Events in a million whose model has no price.")
    ] = _DEFAULT.unpriced_ppm,
    prices: Annotated[
        Path | None, typer.Option(help="Write the sample price file that goes with the events here, too.")
    ] = None,
) -> None:
    """Write sample events: duplicates, disorder, conflicting, bad and unpriced ones among them."""
    spec = synthetic.Synthetic(
        seed=seed,
        events=events,
        customers=customers,
        models=models,
        start=parse_time(start, "--start"),
        duration_s=duration_s,
        disorder_s=disorder_s,
        duplicate_ppm=duplicate_ppm,
        conflicting_ppm=conflicting_ppm,
        bad_ppm=bad_ppm,
        unpriced_ppm=unpriced_ppm,
    )
    if prices is not None:
        try:
            prices.write_text(synthetic.prices_yaml(models), encoding="utf-8")
        except OSError as error:
            raise TallyflowError(f"cannot write {prices}: {error.strerror}") from error
    written = write_with_progress(synthetic.batches(spec), out, events)
    counts = synthetic.expected(spec)
    typer.echo(
        f"{written.events:,} events in {out}; a run must find {counts.accepted:,} accepted"
        f" ({counts.unpriced:,} of them unpriced), {counts.duplicate:,} duplicate,"
        f" {counts.conflicting:,} conflicting, {counts.rejected:,} rejected",
        err=True,
    )
