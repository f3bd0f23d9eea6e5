"""The command line. A failure is one clear line on stderr and an exit code with a meaning (DESIGN 3.5)."""

import gc
import os
import sys
from collections.abc import Iterable
from importlib import import_module

import typer

from .. import __version__
from ..errors import ConfigError, TallyflowError

COMMANDS = (
    "run",
    "status",
    "invoice",
    "sql",
    "verify",
    "reconcile",
    "unpriced",
    "rerate",
    "correct",
    "generate",
    "trace",
    "adapt",
    "init",
    "doctor",
)
"""In the order in which help shows them; each is a function in the module of its name."""
GROUPS = ("prices", "plan", "rules", "rejected", "conflicts", "late", "anomalies")
"""Commands with commands of their own: a Typer in the module of its name."""


def make_app(names: Iterable[str] = (*COMMANDS, *GROUPS)) -> typer.Typer:
    """The commands of these names: importing all of them takes longer than most of them run."""
    app = typer.Typer(
        name="tallyflow",
        help="Exact, provable, very fast metering and rating of AI usage.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        add_completion=False,
        epilog="Exit codes: 0 done, 1 failure, 2 bad usage or config, 3 numbers do not agree.",
        callback=_options,
    )
    for name in names:
        found = getattr(import_module(f".{name}", __package__), name)
        if name in GROUPS:
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    return app


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"tallyflow {__version__}")
        raise typer.Exit


def _options(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass


class _NoPandas:
    """pyarrow imports pandas, where it is installed, to ask whether a list is one of its Series: a fifth of a second of
    every command, none of which has any."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("no command of Tallyflow uses pandas", name=name)


def main() -> None:
    """The `tallyflow` command."""
    asked = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    # No kernel of ours, and nothing that numpy does for us, uses BLAS, whose threads would spin beside the start.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Memory of one batch is kept for the next: given back at once, it would be zeroed again for each.
    os.environ.setdefault("MIMALLOC_PURGE_DELAY", "10000")  # ms
    sys.meta_path.insert(0, _NoPandas)
    gc.disable()  # half a million objects are made by imports, and none is ever given back
    try:
        app = make_app([asked]) if asked in (*COMMANDS, *GROUPS) else make_app()
        gc.freeze()
        gc.enable()
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
