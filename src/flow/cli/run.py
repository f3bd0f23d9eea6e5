"""`tallyflow run`: bills the events of a config."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config import Config, SyntheticSource, load_config
from ..errors import ConfigError, TallyflowError
from ..logs import set_up
from ..start import starting
from ..store.client import engine_kept
from .progress import counting

if TYPE_CHECKING:
    from ..cluster.hosts import Hosts
    from ..run import Outcome

LOG = logging.getLogger(__name__)


def run(
    config: Annotated[Path, typer.Argument(help="The config file.")],
    workers: Annotated[
        int, typer.Option(min=1, max=256, help="Worker threads, of each process; at most as many as shards are of use.")
    ] = 1,
    processes: Annotated[
        int,
        typer.Option(
            min=1, max=256, help="Processes, at most as many as shards; more than 1 need a ClickHouse server."
        ),
    ] = 1,
    addresses: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT,HOST:PORT,...",
            help="All hosts of the job, the same on each; it needs a ClickHouse server, and storage that all share.",
        ),
    ] = "",
    host: Annotated[
        int, typer.Option(min=0, help="Which of --addresses this host is; 0 decides, and has the balance.")
    ] = 0,
) -> None:
    """Bill the events of a config: until the end of input, or a signal; ends with the balance.

    Of several hosts, each runs this with its own --host, and --processes of its own.
    """
    settings = load_config(config)
    set_up(settings.log)
    hosts: Hosts | None = None
    if addresses:
        from ..cluster import hosts as of_several  # much to load for what few jobs have

        hosts = of_several.Hosts.parse(addresses, host)
    elif host:
        raise ConfigError(f"--host {host}: there is no --addresses that it could be one of")
    with engine_kept():
        begun = {"source": settings.source.kind, "store": settings.store.url, "processes": processes, "host": host}
        LOG.info("the run begins", extra=begun)
        _run(settings, config, workers, processes, hosts)


def _run(settings: Config, config: Path, workers: int, processes: int, hosts: "Hosts | None") -> None:
    outcome: Outcome | None
    try:
        if processes > 1 or hosts is not None:
            from ..cluster.supervisor import run_cluster

            outcome = run_cluster(settings, processes, workers, LOG.warning, hosts)
        else:
            outcome = _run_with_progress(settings, workers)
    except TallyflowError as error:
        if settings.log.format == "pretty":
            raise
        LOG.critical("%s", error)  # a collector has no use for a bare line
        raise typer.Exit(error.exit_code) from error
    if outcome is None:
        typer.echo("This host has done its part; the balance is with host 0.")
        return
    LOG.info("the run has ended", extra={"lineage": outcome.lineage, "read": outcome.read, "balance": outcome.balance})
    from .outcome import show

    show(outcome, settings, config)


def _run_with_progress(settings: Config, workers: int) -> "Outcome":
    with starting(settings) as start:
        # What a dataflow is made of takes a third of a second to load: the store starts meanwhile.
        from ..run import go_on

        total = settings.source.events if isinstance(settings.source, SyntheticSource) else None
        with counting("billing", "events", total) as counter:
            return go_on(start, workers, counter.add)
