"""The command line. A failure is one clear line on stderr and an exit code with a meaning (DESIGN 3.5)."""

import os
import sys

import typer

from .. import __version__
from ..errors import ConfigError, TallyflowError
from .adapt import adapt
from .doctor import doctor
from .generate import generate
from .init import init
from .invoice import invoice
from .plan import plan
from .prices import prices
from .run import run
from .sql import sql
from .status import status
from .trace import trace
from .verify import verify

app = typer.Typer(
    name="tallyflow",
    help="Exact, provable, very fast metering and rating of AI usage.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    epilog="Exit codes: 0 done, 1 failure, 2 bad usage or config, 3 numbers do not agree.",
)
for command in (run, status, invoice, sql, verify, generate, trace, adapt, init, doctor):
    app.command()(command)
app.add_typer(prices, name="prices")
app.add_typer(plan, name="plan")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tallyflow {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main() -> None:
    """The `tallyflow` command."""
    try:
        app()
    except ConfigError as error:
        for line in error.errors:
            _say(line)
        sys.exit(error.exit_code)
    except TallyflowError as error:
        _say(str(error))
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output has gone (`| head`); nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


def _say(line: str) -> None:
    typer.secho(f"tallyflow: {line}", err=True, fg="red" if sys.stderr.isatty() else None)
